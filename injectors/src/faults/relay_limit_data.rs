//! Limit data: a connection is closed after so many bytes.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::RelayFault;
use crate::target::TargetKind;

use super::relay_params::{DIRECTION, SHARE, direction, share, size};
use super::relay_proof::judged;
use super::relayed::Recipe;

/// Limit data: a connection is closed after so many bytes.
#[derive(Debug)]
pub struct RelayLimitData;

static ABOUT: About = About {
    name: "relay-limit-data",
    summary: "Closes each connection after a number of bytes",
    description: "Each connection that is hit is closed, both ways, once `bytes` have passed in the \
                  given direction, counted from the start of the fault. What came before arrives \
                  complete, then comes an orderly close: replies break off in the middle without an \
                  error from TCP. Finds clients that take a short reply for a whole one. Needs a relay \
                  in front of the target: a lab has one before each instance, and `relays` in an \
                  experiment declares more.",
    target: TargetKind::Relay,
    params: &[
        Param {
            name: "bytes",
            kind: ParamKind::Size,
            presence: Presence::Required,
            help: "how many bytes pass before the close",
        },
        DIRECTION,
        SHARE,
    ],
    needs: &[],
    effect: Effect::Errors,
    proof: "The relay counts the connections that it closed at the limit. Confirmed if there was \
                  one; unproven if none got that far.",
    undo: "No more connections are closed; those that are closed stay closed, clients must reconnect.",
    example: "- relay-limit-data: {instance: edge-fra, bytes: 64KiB, share: 10%}",
};

impl Recipe for RelayLimitData {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        Ok(RelayFault::LimitData {
            direction: direction(args),
            bytes: size(args, "bytes")?,
            share: share(args),
        })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let RelayFault::LimitData { bytes, .. } = fault else { return Proof::unproven("a limit", "not one") };
        let requested = format!("closed after {bytes}");
        if seen.hit == 0 {
            let seen = seen.connections_affected;
            return Proof::unproven(requested, format!("none of {seen} connections got that far"));
        }
        let measured = format!("{} of {} connections closed", seen.hit, seen.connections_affected);
        judged(true, requested, measured, "at least one", seen.hit)
    }
}
