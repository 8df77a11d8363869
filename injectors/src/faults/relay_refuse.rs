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
    proof: "A closed port does not see whom it refuses, so its surroundings are measured: the relay connects \
                  to its own address each time it is asked, it knows who was connected or had come in the \
                  10 s before, and the kernel counts the resets that this host sends to others. Confirmed if \
                  every attempt of its own was refused, clients use the port, and others were sent resets: \
                  any if clients had come in those 10 s, else clearly more than before. Unproven if nobody \
                  tried to connect: clients then keep to the connections that they have.",
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
        let users = format!(
            "{} clients had connected in the {lately} s before, {} were connected",
            seen.came_before, seen.open_before
        );
        if seen.came_before + seen.open_before == 0 {
            return unproven(format!("no client had connected in the {lately} s before"));
        }
        let (others, felt) = match (seen.refused_others, seen.usual_resets) {
            (None, _) => (String::new(), seen.came_before > 0),
            (Some(others), None) => {
                (format!(", at most {others} of others"), others > 0 && seen.came_before > 0)
            }
            (Some(others), Some(usual)) => {
                let more = others as f64 > usual + 3.0 * usual.sqrt() + 3.0;
                let words = format!(", at most {others} of others where {usual:.0} were usual");
                (words, more || (others > 0 && seen.came_before > 0))
            }
        };
        if !felt {
            return unproven(format!("no client tried to connect{others}; {users}"));
        }
        judged(true, requested, format!("{own}{others}; {users}"), "all", seen.probes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ProofStatus;

    fn judged(came_before: u64, open_before: u64, others: Option<u64>, usual: Option<f64>) -> Proof {
        let seen = Observation {
            probes: 12,
            refused: 12,
            came_before,
            open_before,
            refused_others: others,
            usual_resets: usual,
            ..Observation::default()
        };
        RelayRefuse.judge(&RelayFault::Refuse, &seen)
    }

    #[test]
    fn clients_that_come_and_go_or_that_suddenly_want_more_prove_a_refusal() {
        let felt = judged(37, 2, Some(57), Some(1.2));
        assert_eq!(felt.status, ProofStatus::Confirmed);
        assert_eq!(
            felt.measured,
            "12 of 12 own attempts refused, at most 57 of others where 1 were usual; 37 clients had connected in the \
             10 s before, 2 were connected"
        );
        assert_eq!(judged(37, 0, None, None).status, ProofStatus::Confirmed);
        assert_eq!(judged(37, 0, Some(2), Some(9.0)).status, ProofStatus::Confirmed);
        let spike = judged(0, 8, Some(600), Some(10.0));
        assert_eq!(spike.status, ProofStatus::Confirmed, "{spike:?}");
    }

    #[test]
    fn a_refusal_that_no_client_can_have_felt_proves_nothing() {
        let unused = judged(0, 0, Some(57), Some(0.0));
        assert_eq!(unused.status, ProofStatus::Unproven);
        let words = "12 of 12 own attempts refused, but no client had connected in the 10 s before";
        assert_eq!(unused.measured, words);
        for (came, others, usual) in [
            // Kept connections carry it all: the kernel has refused nobody.
            (37, Some(0), Some(0.0)),
            (37, Some(0), None),
            // Kept connections, and the noise of the host.
            (0, Some(12), Some(10.0)),
            (0, Some(57), None),
            (0, None, None),
        ] {
            let proof = judged(came, 8, others, usual);
            assert_eq!(proof.status, ProofStatus::Unproven, "{proof:?}");
            assert!(proof.measured.contains("no client tried to connect"), "{proof:?}");
        }
    }

    #[test]
    fn an_attempt_that_gets_in_is_a_mismatch() {
        let seen = Observation { probes: 12, refused: 11, came_before: 9, ..Observation::default() };
        assert_eq!(RelayRefuse.judge(&RelayFault::Refuse, &seen).status, ProofStatus::Mismatch);
    }
}
