//! Reset: connections are torn down with RST.

use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::RelayFault;
use crate::target::TargetKind;
use crate::units::Size;

use super::relay_params::{DIRECTION, REQUIRED_SHARE, direction, required_share};
use super::relay_proof::{judge_share, percent};
use super::relayed::Recipe;

/// Reset: connections are torn down with RST.
#[derive(Debug)]
pub struct RelayReset;

static ABOUT: About = About {
    name: "relay-reset",
    summary: "Tears connections down with a TCP reset",
    description: "Without `after`, the chosen share of the connections that exist is reset at once, on \
                  both sides, and so is that share of the new ones as soon as they are accepted. With \
                  `after`, each chosen connection is reset once that many bytes have passed in the given \
                  direction, counted from the start of the fault: replies break off in the middle. \
                  Clients see ECONNRESET. Needs a relay in front of the target: a lab has one before \
                  each instance, and `relays` in an experiment declares more.",
    target: TargetKind::Relay,
    params: &[
        REQUIRED_SHARE,
        Param {
            name: "after",
            kind: ParamKind::Size,
            presence: Presence::Optional,
            help: "reset only once so many bytes have passed; left out, at once",
        },
        DIRECTION,
    ],
    needs: &[],
    effect: Effect::Errors,
    proof: "The relay counts resets among the connections that could be reset. Confirmed if the \
                  requested share lies in the 99.99% interval of what was counted; unproven without \
                  connections.",
    undo: "No more connections are reset; those that are gone stay gone, clients must reconnect.",
    example: "- relay-reset: {service: auth, share: 20%}",
};

impl Recipe for RelayReset {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, args: &Args) -> Result<RelayFault, String> {
        let share = required_share(args)?;
        Ok(RelayFault::Reset { direction: direction(args), after: args.size("after").map(Size), share })
    }

    fn judge(&self, fault: &RelayFault, seen: &Observation) -> Proof {
        let requested = format!("{} of connections reset", percent(fault.share()));
        judge_share(requested, fault.share(), seen.hit, seen.eligible, "connections")
    }
}
