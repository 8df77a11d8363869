//! `network-duplicate`: packets arrive twice.

use crate::about::{About, Args, Effect, Param};
use crate::change::Proof;
use crate::target::TargetKind;

use super::shape::evidence::{Evidence, either, judge_runs};
use super::shape::part::Part;
use super::shape::{CORRELATION, NEEDS, Shaping, UNDO, chance};

/// Duplication: packets arrive twice.
#[derive(Debug)]
pub struct NetworkDuplicate;

static ABOUT: About = About {
    name: "network-duplicate",
    summary: "Sends a share of the chosen packets of an interface twice, in the kernel",
    description: "Each packet is sent twice by chance. TCP drops the second one; UDP, and so DNS and QUIC, hands it to \
                  whoever listens. Everything else on the interface is untouched, and so are SSH and what `protect` \
                  names. The interface's own queueing stays as it is.",
    target: TargetKind::Traffic,
    params: &[Param::share("how many packets are sent twice"), CORRELATION],
    needs: NEEDS,
    effect: Effect::Degradation,
    proof: "Packets that left netem against those that it was handed, and what of 200 echoes a second of our own was \
            answered twice by an address in `to`, or by a neighbour or gateway that the kernel knows. Confirmed if the \
            share lies in the 99.99% interval of either; unproven if no packet met it.",
    undo: UNDO,
    example: "- network-duplicate: {to: 10.0.0.2, share: 5%}",
};

impl Shaping for NetworkDuplicate {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn part(&self, args: &Args) -> Result<Part, String> {
        chance(args).map(Part::Duplicate)
    }

    fn judge(&self, part: &Part, evidence: &Evidence) -> Proof {
        let Part::Duplicate(chance) = part else { return Proof::unproven("copies", "not a duplication") };
        let share = chance.long_run();
        let requested = format!("{:.2}% of packets twice", share * 100.0);
        if evidence.netem.is_some_and(|netem| netem.loss.is_some()) {
            return Proof::unproven(requested, "its packets are lost as well, and netem counts both as one");
        }
        let counts = &evidence.counts;
        let copies = (counts.left + counts.waiting + counts.drops).saturating_sub(counts.handed);
        let counted =
            judge_runs(requested.clone(), "packets sent twice", share, (copies, counts.handed), chance.run());
        let own = evidence.felt.as_ref().map(|felt| {
            let what = felt.words("answered twice");
            judge_runs(requested, &what, felt.round(share), (felt.twice, felt.answered), chance.run())
        });
        either(counted, own)
    }

    fn instead(&self) -> &'static str {
        "repeat requests in the load; no relay can duplicate packets"
    }
}
