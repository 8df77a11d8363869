//! `network-corrupt`: packets arrive with one bit turned.

use crate::about::{About, Args, Effect, Param};
use crate::change::{Proof, ProofStatus};
use crate::target::TargetKind;

use super::relay_proof::wilson;
use super::shape::evidence::{Evidence, Felt};
use super::shape::part::Part;
use super::shape::{CORRELATION, NEEDS, Shaping, UNDO, chance};

/// Corruption: packets arrive with one bit turned.
#[derive(Debug)]
pub struct NetworkCorrupt;

/// Bytes of a frame's head of which a turned bit may do no harm: nobody checks them.
const UNCHECKED: f64 = 14.0;

static ABOUT: About = About {
    name: "network-corrupt",
    summary: "Turns one bit in a share of the chosen packets of an interface, in the kernel",
    description: "A broken cable, card or memory: in that share of packets, one bit is turned somewhere, heads included. \
                  Checksums find it, so that the receiver drops the packet: to TCP and to users it looks like loss, \
                  but where a card or a tunnel is trusted to have checked, the wrong bit gets through, and that is what \
                  is worth knowing. Everything else on the interface is untouched, and so are SSH and what `protect` \
                  names. The interface's own queueing stays as it is.",
    target: TargetKind::Traffic,
    params: &[Param::share("how many packets get a bit turned"), CORRELATION],
    needs: NEEDS,
    effect: Effect::Degradation,
    proof: "netem does not count what it corrupts. So 200 echoes a second of a thousand bytes (or 50 TCP handshakes, if \
            ports are written) of our own go to an address in `to`, or to a neighbour or gateway that the kernel knows; \
            what comes back whole is compared byte by byte. Confirmed if the share that does not lies in the 99.99% \
            interval of what was asked for; unproven if nobody answered before, or if packets are lost or slowed on \
            purpose as well.",
    undo: UNDO,
    example: "- network-corrupt: {to: 10.0.0.2, share: 1%}",
};

impl Shaping for NetworkCorrupt {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn part(&self, args: &Args) -> Result<Part, String> {
        chance(args).map(Part::Corrupt)
    }

    fn judge(&self, part: &Part, evidence: &Evidence) -> Proof {
        let Part::Corrupt(chance) = part else { return Proof::unproven("turned bits", "not a corruption") };
        let share = chance.long_run();
        let requested = format!("{:.2}% of packets with a bit turned", share * 100.0);
        if evidence.netem.is_some_and(|netem| netem.loss.is_some() || netem.rate.is_some()) {
            return Proof::unproven(requested, "its packets are lost or queued as well, and look the same");
        }
        match &evidence.felt {
            Some(felt) => judge(requested, share, chance.run(), felt),
            None => Proof::unproven(
                requested,
                format!(
                    "{} packets met it, but netem does not count what it corrupts, and nobody answers packets of our own",
                    evidence.counts.handed
                ),
            ),
        }
    }

    fn instead(&self) -> &'static str {
        "use relay-reset or http-truncate, which hurt connections; no relay can turn bits unseen"
    }
}

/// What did not come back whole against what was to be corrupted. A bit turned in a frame's own head may do no harm.
fn judge(requested: String, share: f64, run: f64, felt: &Felt) -> Proof {
    if felt.sent == 0 {
        return Proof::unproven(requested, "no packet of our own could be sent");
    }
    let bad = felt.sent - felt.answered;
    let draws = |count: u64| (count as f64 / run).round() as u64;
    let (low, high) = wilson(draws(bad), draws(felt.sent));
    let most = felt.round(share);
    let least = felt.round(share * (1.0 - UNCHECKED / felt.bytes as f64));
    let status = match (low <= most && least <= high, draws(bad)) {
        (true, 0) => ProofStatus::Unproven,
        (true, _) => ProofStatus::Confirmed,
        (false, _) => ProofStatus::Mismatch,
    };
    let percent = |share: f64| format!("{:.2}%", share * 100.0);
    Proof {
        status,
        requested,
        measured: format!(
            "{} of {} {} ({} to {}), {} of them seen damaged",
            percent(bad as f64 / felt.sent as f64),
            felt.sent,
            felt.words("not answered whole"),
            percent(low),
            percent(high),
            felt.damaged
        ),
        tolerance: "the 99.99% interval of the share".to_owned(),
        samples: felt.sent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_back_whole_is_compared_with_what_was_to_be_corrupted() {
        let felt = |answered, bytes| Felt {
            whom: "10.0.0.2".to_owned(),
            what: "echoes",
            bytes,
            damaged: 0,
            passes: 1,
            sent: 200,
            answered,
            twice: 0,
            rtt: None,
            usual: None,
        };
        let status = |answered, bytes| judge(String::new(), 0.2, 1.0, &felt(answered, bytes)).status;
        assert_eq!(status(160, 1042), ProofStatus::Confirmed);
        assert_eq!(status(200, 1042), ProofStatus::Mismatch);
        assert_eq!(status(60, 1042), ProofStatus::Mismatch);
        let few = judge(String::new(), 0.001, 1.0, &felt(200, 1042));
        assert_eq!(few.status, ProofStatus::Unproven, "none was to be expected");
        assert_eq!(judge(String::new(), 0.2, 1.0, &Felt { sent: 0, answered: 0, ..felt(0, 98) }).samples, 0);
    }
}
