//! Latency: what passes is held for a while.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::RelayFault;
use crate::target::TargetKind;

use super::relay_params::{DIRECTION, DISTRIBUTION, JITTER, SHARE, direction, scatter, share};
use super::relay_proof::{delay_words, judge_delay};
use super::relayed::Recipe;

/// Latency: what passes is held for a while.
#[derive(Debug)]
pub struct RelayLatency;

static ABOUT: About = About {
    name: "relay-latency",
    summary: "Delays what a relay passes on, keeping order and throughput",
    description: "Every chunk of bytes is held for `delay`, give or take `jitter`, before it goes on. \
                  Order is kept and throughput is not reduced, as on a longer cable: a connection holds \
                  up to 4 MiB, beyond that its sender waits. A stream that never pauses gets a new delay \
                  once a second, anything else one per message. The delay is per way: with `direction: \
                  both` a round trip takes twice as long. It holds for existing connections as well as \
                  new ones. Needs a relay in front of the target: a lab has one before each instance, \
                  and `relays` in an experiment declares more.",
    target: TargetKind::Relay,
    params: &[
        Param {
            name: "delay",
            kind: ParamKind::Span,
            presence: Presence::Required,
            help: "how long each chunk is held",
        },
        JITTER,
        DISTRIBUTION,
        DIRECTION,
        SHARE,
    ],
    needs: &[],
    effect: Effect::Degradation,
    proof: "The relay measures the time from arrival to release. Confirmed if its mean is within \
                  5% or 2ms of the mean of the distribution, plus what chance does to so few draws.",
    undo: "What is held goes on at once, in order; connections stay open.",
    example: "- relay-latency: {service: auth, delay: 200ms, jitter: 20ms}",
};

impl Recipe for RelayLatency {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        Ok(RelayFault::Latency { direction: direction(args), scatter: scatter(args)?, share: share(args) })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let RelayFault::Latency { scatter, .. } = fault else {
            return Proof::unproven("latency", "not latency");
        };
        judge_delay(delay_words(scatter), scatter, seen, "chunks", Some(seen.chunks))
    }
}
