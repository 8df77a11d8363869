//! Slow close: the end of a stream arrives late.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::{RelayFault, Scatter};
use crate::target::TargetKind;

use super::relay_params::{DIRECTION, SHARE, direction, share, span};
use super::relay_proof::judge_delay;
use super::relayed::Recipe;

/// Slow close: the end of a stream arrives late.
#[derive(Debug)]
pub struct RelaySlowClose;

static ABOUT: About = About {
    name: "relay-slow-close",
    summary: "Delays the end of a stream, not its bytes",
    description: "When one side closes its stream, the other side learns of it only after `delay`. Bytes \
                  pass undelayed. Finds clients that wait for the close to know that a reply is \
                  complete, and pools that hold half-closed connections. Closes only; resets pass at \
                  once. Needs a relay in front of the target: a lab has one before each instance, and \
                  `relays` in an experiment declares more.",
    target: TargetKind::Relay,
    params: &[
        Param {
            name: "delay",
            kind: ParamKind::Span,
            presence: Presence::Required,
            help: "how much later the end arrives",
        },
        DIRECTION,
        SHARE,
    ],
    needs: &[],
    effect: Effect::Degradation,
    proof: "The relay measures the time from the close to passing it on. Confirmed if the mean is \
                  within 5% or 2ms of the requested delay; unproven if nobody closed. A close that answers \
                  one of the other side is delayed as well but not counted: that side has mostly gone.",
    undo: "Closes that are held pass at once.",
    example: "- relay-slow-close: {service: auth, delay: 2s}",
};

impl Recipe for RelaySlowClose {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        Ok(RelayFault::SlowClose {
            direction: direction(args),
            delay: span(args, "delay")?,
            share: share(args),
        })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let RelayFault::SlowClose { delay, .. } = fault else {
            return Proof::unproven("slow close", "not one");
        };
        let scatter = Scatter { delay: *delay, ..Scatter::default() };
        judge_delay(format!("closes +{delay}"), &scatter, seen, "first closes", None)
    }
}
