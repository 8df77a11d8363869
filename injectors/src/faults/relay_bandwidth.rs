//! Bandwidth: all connections of a relay share a narrow link.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::RelayFault;
use crate::target::TargetKind;
use crate::units::Bandwidth;

use super::relay_params::{DIRECTION, SHARE, direction, missing, share};
use super::relay_proof::judged;
use super::relayed::Recipe;

/// The least time at the limit that proves anything, in seconds.
const LEAST: f64 = 0.1;

/// Bandwidth: all connections of a relay share a narrow link.
#[derive(Debug)]
pub struct RelayBandwidth;

static ABOUT: About = About {
    name: "relay-bandwidth",
    summary: "Limits how fast a relay passes bytes on",
    description: "All connections of the relay that are hit together get at most `rate`, as on a shared \
                  link, each way its own when `direction` is both. Bytes leave in slices of at most 10 \
                  ms, so the flow stays even; after a pause 20 ms worth of bytes may pass at once. \
                  Senders are slowed by TCP itself. Nothing is lost. Needs a relay in front of the \
                  target: a lab has one before each instance, and `relays` in an experiment declares \
                  more.",
    target: TargetKind::Relay,
    params: &[
        Param {
            name: "rate",
            kind: ParamKind::Bandwidth,
            presence: Presence::Required,
            help: "the most that passes, of all connections together",
        },
        DIRECTION,
        SHARE,
    ],
    needs: &[],
    effect: Effect::Degradation,
    proof: "The relay measures bytes and time while bytes wait for the limit. Confirmed if that \
                  rate is within 5% of the requested one; unproven if traffic never reached it.",
    undo: "What waits goes on at once, in order; connections stay open.",
    example: "- relay-bandwidth: {instance: edge-fra, rate: 10mbit}",
};

impl Recipe for RelayBandwidth {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        let rate = args.bandwidth("rate").map(Bandwidth).ok_or_else(|| missing("rate"))?;
        Ok(RelayFault::Bandwidth { direction: direction(args), rate, share: share(args) })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let RelayFault::Bandwidth { rate, .. } = fault else {
            return Proof::unproven("bandwidth", "not one");
        };
        let requested = format!("at most {rate}");
        // A few slices say more about wake-ups than about the limit.
        if seen.limited_seconds < LEAST || seen.limited_bytes == 0 {
            return Proof::unproven(requested, format!("{} B passed, never more than allowed", seen.bytes));
        }
        let measured = Bandwidth((seen.limited_bytes as f64 / seen.limited_seconds).round());
        let words = format!("{measured} during {:.1}s at the limit", seen.limited_seconds);
        let good = (measured.0 / rate.0 - 1.0).abs() <= 0.05;
        judged(good, requested, words, "5%", seen.pieces)
    }
}
