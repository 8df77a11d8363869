//! Refuse: nobody gets in.

use crate::about::{About, Args, Effect};
use crate::change::Proof;
use crate::relay::fault::RelayFault;
use crate::relay::{LATELY, Observation};
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
    proof: "A closed port does not see whom it refuses, so three things are measured around it: the relay \
                  connects to its own address each time it is asked, it knows how many connections had come \
                  in the 10 s before, and the kernel counts the resets that it sends to others. Confirmed if \
                  every attempt of its own was refused, somebody had come, and somebody else was sent a \
                  reset; unproven if clients keep to the connections that they have.",
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
        let lately = LATELY.as_secs();
        if seen.probes == 0 {
            return Proof::unproven(requested, "the port was not tried");
        }
        let own = format!("{} of {} own attempts refused", seen.refused, seen.probes);
        if seen.refused < seen.probes {
            return judged(false, requested, own, "all", seen.probes);
        }
        let unproven = |why: String| Proof {
            samples: seen.probes,
            ..Proof::unproven(requested, format!("{own}, but {why}"))
        };
        if seen.came_before == 0 {
            return unproven(format!("no client had connected in the {lately} s before"));
        }
        let others = match seen.refused_others {
            Some(0) => return unproven("no client tried to connect".to_owned()),
            Some(others) => format!(", at most {others} of others"),
            None => String::new(),
        };
        let measured =
            format!("{own}{others}; {} clients had connected in the {lately} s before", seen.came_before);
        judged(true, requested, measured, "all", seen.probes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ProofStatus;

    #[test]
    fn a_refusal_that_no_client_can_have_felt_proves_nothing() {
        let judged = |refused, came_before, refused_others| {
            let seen =
                Observation { probes: 12, refused, came_before, refused_others, ..Observation::default() };
            RelayRefuse.judge(&RelayFault::Refuse, &seen)
        };
        let felt = judged(12, 37, Some(57));
        assert_eq!(felt.status, ProofStatus::Confirmed);
        let words = "12 of 12 own attempts refused, at most 57 of others; 37 clients had connected in the 10 s before";
        assert_eq!(felt.measured, words);
        assert_eq!(judged(12, 37, None).status, ProofStatus::Confirmed);
        let unused = judged(12, 0, Some(57));
        assert_eq!(unused.status, ProofStatus::Unproven);
        let words = "12 of 12 own attempts refused, but no client had connected in the 10 s before";
        assert_eq!(unused.measured, words);
        let kept = judged(12, 37, Some(0));
        assert_eq!(kept.status, ProofStatus::Unproven);
        assert_eq!(kept.measured, "12 of 12 own attempts refused, but no client tried to connect");
        assert_eq!(judged(11, 37, Some(57)).status, ProofStatus::Mismatch);
    }
}
