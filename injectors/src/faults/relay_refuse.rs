//! Refuse: nobody gets in.

use crate::about::{About, Args, Effect};
use crate::change::Proof;
use crate::relay::Observation;
use crate::relay::fault::RelayFault;
use crate::target::TargetKind;

use super::relay_proof::judged;
use super::relayed::Recipe;

/// Refuse: nobody gets in.
#[derive(Debug)]
pub struct RelayRefuse;

static ABOUT: About = About {
    name: "relay-refuse",
    summary: "Refuses new connections; those that exist go on",
    description: "The relay stops listening, so the kernel answers with a reset and clients see \
                  ECONNREFUSED, as when a server has crashed or is restarting. The port stays reserved \
                  meanwhile: nobody else can take it. Existing connections go on. There is no share: a \
                  port listens or it does not. Needs a relay in front of the target: a lab has one \
                  before each instance, and `relays` in an experiment declares more.",
    target: TargetKind::Relay,
    params: &[],
    needs: &[],
    effect: Effect::Outage,
    proof: "The relay connects to its own address each time it is asked. Confirmed if every such \
                  attempt was refused.",
    undo: "The relay listens again on the same port.",
    example: "- relay-refuse: {instance: auth-1}",
};

impl Recipe for RelayRefuse {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn fault(&self, _args: &Args) -> Result<RelayFault, String> {
        Ok(RelayFault::Refuse)
    }

    fn judge(&self, _fault: &RelayFault, seen: &Observation) -> Proof {
        let requested = "new connections are refused";
        if seen.probes == 0 {
            return Proof::unproven(requested, "the port was not tried");
        }
        let measured = format!("{} of {} attempts refused", seen.refused, seen.probes);
        judged(seen.refused == seen.probes, requested, measured, "all", seen.probes)
    }
}
