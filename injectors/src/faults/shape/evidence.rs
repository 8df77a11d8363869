//! What the kernel has counted of the packets that a network fault met, and what follows from it. Pure.

use serde::{Deserialize, Serialize};

use super::part;
pub(crate) use super::rtt::Growth;
use super::tree::Seen;
use crate::change::{Proof, ProofStatus};
use crate::faults::relay_proof::wilson;
use crate::sys::netem::Netem;

/// Counts since a tree was made, or between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Packets that the filter has handed to our device, large ones as what a card would cut them into.
    pub(crate) handed: u64,
    /// Packets that have left the qdisc, large ones as what a card would cut them into.
    pub(crate) left: u64,
    /// Packets that have left the qdisc, as they are.
    pub(crate) sent: u64,
    /// Bytes that have left the qdisc.
    pub(crate) bytes: u64,
    /// Packets that the qdisc has dropped.
    pub(crate) drops: u64,
    /// Packets that wait in it now.
    pub(crate) waiting: u64,
    /// Bytes that wait in it now.
    pub(crate) backlog: u64,
    /// Bytes that have left the interface's own queue, which comes behind; none if there is no such queue.
    #[serde(default)]
    pub(crate) onward: Option<u64>,
}

/// Of two counts that may be missing.
fn both(one: Option<u64>, other: Option<u64>, join: fn(u64, u64) -> u64) -> Option<u64> {
    one.zip(other).map(|(one, other)| join(one, other))
}

/// What was seen of one injection.
#[derive(Debug)]
pub(crate) struct Evidence {
    /// Since it began.
    pub(crate) counts: Counts,
    /// How fast bytes left while others waited; none if none waited long enough.
    pub(crate) flow: Option<Flow>,
    /// What the qdisc does in all, if it is a netem.
    pub(crate) netem: Option<Netem>,
    /// How much longer round trips of real connections take, if that was measured.
    pub(crate) rtt: Option<Growth>,
    /// What became of packets of our own, if somebody answers them.
    pub(crate) felt: Option<Felt>,
    /// Echoes of our own that filled the qdisc, if nobody else did.
    pub(crate) filled: Option<Filled>,
    /// Filters of others that come before ours, in words: what they decide on never meets it, whatever becomes of packets
    /// of our own.
    pub(crate) ahead: Option<String>,
}

/// Echoes of our own that filled a qdisc.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filled {
    /// To whom.
    pub(crate) whom: String,
    /// How many.
    pub(crate) sent: u64,
    /// How many were answered.
    pub(crate) answered: u64,
}

/// What became of packets of our own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Felt {
    /// Who answers.
    pub(crate) whom: String,
    /// What was sent, in the plural.
    pub(crate) what: &'static str,
    /// How long each was on its way, in bytes with all heads.
    pub(crate) bytes: u64,
    /// Answers that were not what was sent.
    pub(crate) damaged: u64,
    /// How often a round trip meets the fault.
    pub(crate) passes: u32,
    /// How many were sent.
    pub(crate) sent: u64,
    /// How many were answered.
    pub(crate) answered: u64,
    /// How many were answered more than once.
    pub(crate) twice: u64,
    /// The median round trip, in seconds.
    pub(crate) rtt: Option<f64>,
    /// The same before.
    pub(crate) usual: Option<f64>,
}

impl Felt {
    /// How much longer round trips take, for each time that they meet the fault.
    pub(crate) fn growth(&self) -> Option<Growth> {
        let seconds = (self.rtt? - self.usual.unwrap_or(0.0)) / f64::from(self.passes.max(1));
        Some(Growth { seconds, connections: self.answered, compared: self.usual.is_some() })
    }

    /// The share of round trips that a share of packets concerns.
    pub(crate) fn round(&self, share: f64) -> f64 {
        1.0 - (1.0 - share).powi(self.passes.max(1).cast_signed())
    }

    /// `echoes to 10.0.0.2 lost`.
    pub(crate) fn words(&self, what: &str) -> String {
        format!("{} to {} {what}", self.what, self.whom)
    }
}

/// Two witnesses of one effect. One that confirms is enough: the other may have met too little, or more than this fault.
pub(crate) fn either(first: Proof, second: Option<Proof>) -> Proof {
    let Some(second) = second else { return first };
    let rank = |proof: &Proof| match proof.status {
        ProofStatus::Confirmed => 0,
        ProofStatus::Mismatch => 1,
        ProofStatus::Unproven | ProofStatus::Gone => 2,
    };
    let samples = first.samples + second.samples;
    let (chief, other) = if rank(&first) <= rank(&second) { (first, second) } else { (second, first) };
    let measured = match other.samples {
        0 => chief.measured,
        _ => format!("{}; {}", chief.measured, other.measured),
    };
    Proof { measured, samples, ..chief }
}

/// How fast bytes left while others waited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Flow {
    /// How many qdiscs this is the sum of.
    pub(crate) lanes: u32,
    /// Bytes.
    pub(crate) bytes: u64,
    /// Packets.
    pub(crate) packets: u64,
    /// Seconds.
    pub(crate) seconds: f64,
    /// By how many of them this host was late: its timers, on which the rate depends as well, may have been so too.
    pub(crate) late: f64,
    /// Whether more waited at each look than left until the next: it was never empty in between.
    pub(crate) full: bool,
    /// Bytes that left the interface's own queue meanwhile, those of others included; none if there is no such queue.
    pub(crate) onward: Option<u64>,
}

impl Default for Flow {
    fn default() -> Self {
        Self { lanes: 1, bytes: 0, packets: 0, seconds: 0.0, late: 0.0, full: true, onward: Some(0) }
    }
}

impl Flow {
    /// Adds what left between two looks at which packets waited.
    pub(super) fn pass(&mut self, before: Counts, after: Counts, (seconds, late): (f64, f64)) {
        let passed = after.since(before);
        self.bytes += passed.bytes;
        self.packets += passed.sent;
        self.seconds += seconds;
        self.late += late;
        self.full &= before.backlog > passed.bytes;
        self.onward = both(self.onward, passed.onward, |one, other| one + other);
    }

    /// Two qdiscs with a rate each.
    pub(super) fn beside(self, other: Self) -> Self {
        Self {
            lanes: self.lanes + other.lanes,
            bytes: self.bytes + other.bytes,
            packets: self.packets + other.packets,
            seconds: self.seconds + other.seconds,
            late: self.late + other.late,
            full: self.full && other.full,
            onward: both(self.onward, other.onward, |one, other| one + other),
        }
    }
}

impl Counts {
    /// What a tree has counted so far.
    pub(super) fn of(seen: &Seen) -> Self {
        let root = seen.root.as_ref();
        Self {
            handed: seen.filter.as_ref().map_or(0, |filter| filter.packets),
            left: root.map_or(0, |root| root.packets),
            sent: seen.device.as_ref().map_or(0, |device| device.packets.0),
            bytes: root.map_or(0, |root| root.bytes),
            drops: root.map_or(0, |root| root.drops),
            waiting: root.map_or(0, |root| root.waiting),
            backlog: root.map_or(0, |root| root.backlog),
            onward: seen.onward,
        }
    }

    /// What has been added since; what waits is what waits now.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            handed: self.handed.saturating_sub(before.handed),
            left: self.left.saturating_sub(before.left),
            sent: self.sent.saturating_sub(before.sent),
            bytes: self.bytes.saturating_sub(before.bytes),
            drops: self.drops.saturating_sub(before.drops),
            waiting: self.waiting,
            backlog: self.backlog,
            onward: both(self.onward, before.onward, u64::saturating_sub),
        }
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            handed: self.handed + other.handed,
            left: self.left + other.left,
            sent: self.sent + other.sent,
            bytes: self.bytes + other.bytes,
            drops: self.drops + other.drops,
            waiting: self.waiting + other.waiting,
            backlog: self.backlog + other.backlog,
            onward: both(self.onward, other.onward, |one, other| one + other),
        }
    }
}

/// What a netem does, if the root is one.
pub(super) fn netem(seen: &Seen) -> Option<Netem> {
    seen.root.as_ref().and_then(|root| part::read(root).ok())
}

/// Judges a share of packets: confirmed if what was asked for lies in the interval of what was counted, and the
/// interval leaves out nothing at all.
pub(crate) fn judge_share(requested: String, what: &str, wanted: f64, hits: u64, of: u64) -> Proof {
    if of == 0 {
        return Proof::unproven(requested, "no packet met it");
    }
    let hits = hits.min(of);
    let (low, high) = wilson(hits, of);
    let status = match (low <= wanted && wanted <= high, hits) {
        // So few packets that none of them was to be expected.
        (true, 0) => ProofStatus::Unproven,
        (true, _) => ProofStatus::Confirmed,
        (false, _) => ProofStatus::Mismatch,
    };
    let percent = |share: f64| format!("{:.2}%", share * 100.0);
    Proof {
        status,
        requested,
        measured: format!(
            "{} of {of} {what} ({} to {})",
            percent(hits as f64 / of as f64),
            percent(low),
            percent(high)
        ),
        tolerance: "the 99.99% interval of the share".to_owned(),
        samples: of,
    }
}

/// The same for hits that come in runs: as many independent draws as there are runs.
pub(crate) fn judge_runs(
    requested: String,
    what: &str,
    wanted: f64,
    (hits, of): (u64, u64),
    run: f64,
) -> Proof {
    let (draws, part) = ((of as f64 / run).floor() as u64, hits as f64 / run);
    let proof = judge_share(requested, what, wanted, part.round() as u64, draws);
    let interval = proof.measured.rsplit_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
    let measured = match draws {
        0 => proof.measured,
        _ => format!("{:.2}% of {of} {what} ({interval})", hits as f64 / of as f64 * 100.0),
    };
    Proof { measured, samples: of, ..proof }
}

/// The largest tolerance of a rate, as a part of it: beyond that, a look tells nothing.
const COARSE: f64 = 0.5;
/// The least part of the bytes that must also get through what comes behind.
const ONWARD: f64 = 0.9;

/// Judges a rate: confirmed if bytes left that fast while others waited, and went on.
pub(crate) fn judge_rate(requested: String, wanted: f64, evidence: &Evidence) -> Proof {
    let Some(flow) = evidence.flow else {
        let why = match evidence.counts.handed {
            0 => "no packet met it".to_owned(),
            handed => format!("{handed} packets passed, but never so many that some had to wait for long"),
        };
        return Proof::unproven(requested, why);
    };
    let measured = flow.bytes as f64 / flow.seconds;
    // Where the looks fall between packets is chance: up to one packet at each end.
    let grain = 2.0 * f64::from(flow.lanes) * flow.bytes as f64 / (flow.packets.max(1) as f64) / flow.seconds;
    let fine = 0.03 * wanted + grain;
    let tolerance = fine + wanted * flow.late / flow.seconds;
    let stuck = flow.onward.filter(|onward| (*onward as f64) < ONWARD * flow.bytes as f64);
    let unanswered = evidence.filled.as_ref().filter(|filled| filled.answered == 0);
    let status = match measured - wanted {
        _ if fine > COARSE * wanted || unanswered.is_some() => ProofStatus::Unproven,
        _ if stuck.is_some() => ProofStatus::Mismatch,
        off if off.abs() <= fine => ProofStatus::Confirmed,
        _ if tolerance > COARSE * wanted => ProofStatus::Unproven,
        off if off.abs() <= tolerance => ProofStatus::Confirmed,
        // Less may only mean that there was less to send.
        off if off < 0.0 && !flow.full => ProofStatus::Unproven,
        _ => ProofStatus::Mismatch,
    };
    let bits = |bytes: f64| format!("{:.3} Mbit/s", bytes * 8.0 / 1e6);
    let mut words = format!(
        "{} while packets waited, over {:.1} s",
        bits(measured),
        flow.seconds / f64::from(flow.lanes)
    );
    if let Some(onward) = stuck {
        let onward = bits(onward as f64 / flow.seconds);
        words += &format!("; only {onward} got through the interface's own queue, which is slower");
    }
    if let Some(filled) = unanswered {
        words += &format!("; none of {} echoes of our own to {} came back", filled.sent, filled.whom);
    }
    Proof {
        status,
        requested,
        measured: words,
        tolerance: match flow.late {
            late if late > 0.0 => {
                let late = late / f64::from(flow.lanes) * 1e3;
                format!(
                    "3%, one packet at each end and the {late:.0} ms by which this host was late: {}",
                    bits(tolerance)
                )
            }
            _ => format!("3% and one packet at each end: {}", bits(tolerance)),
        },
        samples: flow.packets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_confirmed_within_its_interval_and_never_by_nothing() {
        let status = |hits, of| judge_share("5%".to_owned(), "packets lost", 0.05, hits, of).status;
        assert_eq!(status(0, 0), ProofStatus::Unproven);
        assert_eq!(status(0, 10), ProofStatus::Unproven);
        assert_eq!(status(50, 1000), ProofStatus::Confirmed);
        assert_eq!(status(75, 1000), ProofStatus::Confirmed, "chance makes that of 5 %, if rarely");
        assert_eq!(status(100, 1000), ProofStatus::Mismatch);
        assert_eq!(status(0, 1000), ProofStatus::Mismatch);
    }

    #[test]
    fn one_witness_that_confirms_is_enough_and_a_contradiction_weighs_more_than_silence() {
        let proof = |hits, of| judge_share("5%".to_owned(), "packets lost", 0.05, hits, of);
        let (yes, no, silent) = (proof(50, 1000), proof(0, 1000), proof(0, 0));
        let status = |a: &Proof, b: &Proof| either(a.clone(), Some(b.clone())).status;
        for (a, b, both) in [
            (&yes, &no, ProofStatus::Confirmed),
            (&yes, &silent, ProofStatus::Confirmed),
            (&no, &silent, ProofStatus::Mismatch),
            (&silent, &silent, ProofStatus::Unproven),
        ] {
            assert_eq!((status(a, b), status(b, a)), (both, both));
        }
        let both = either(no.clone(), Some(yes.clone()));
        assert_eq!((both.samples, both.measured), (2000, format!("{}; {}", yes.measured, no.measured)));
    }

    #[test]
    fn a_round_trip_that_meets_a_fault_twice_is_hit_more_often_and_grows_by_half() {
        let felt = Felt {
            whom: String::new(),
            what: "echoes",
            bytes: 98,
            damaged: 0,
            passes: 2,
            sent: 10,
            answered: 9,
            twice: 0,
            rtt: Some(0.110),
            usual: Some(0.010),
        };
        assert!((felt.round(0.1) - 0.19).abs() < 1e-9);
        assert!((felt.growth().unwrap().seconds - 0.05).abs() < 1e-9);
        assert!(!Felt { usual: None, ..felt.clone() }.growth().unwrap().compared);
        assert!(Felt { rtt: None, ..felt }.growth().is_none());
    }

    #[test]
    fn a_rate_is_confirmed_only_while_packets_waited() {
        let evidence = |bytes, full| Evidence {
            counts: Counts { handed: 10, ..Counts::default() },
            flow: Some(Flow { lanes: 1, bytes, packets: 1000, seconds: 1.0, late: 0.0, full, onward: None }),
            netem: None,
            rtt: None,
            felt: None,
            filled: None,
            ahead: None,
        };
        let status = |bytes, full| judge_rate("1MB/s".to_owned(), 1e6, &evidence(bytes, full)).status;
        assert_eq!(status(1_010_000, false), ProofStatus::Confirmed);
        assert_eq!(status(900_000, true), ProofStatus::Mismatch);
        assert_eq!(status(900_000, false), ProofStatus::Unproven, "it may have been empty meanwhile");
        assert_eq!(status(1_100_000, false), ProofStatus::Mismatch);
        let flow = evidence(900_000, true).flow.unwrap();
        let busy = Evidence { flow: Some(Flow { late: 0.08, ..flow }), ..evidence(0, true) };
        let proof = judge_rate(String::new(), 1e6, &busy);
        assert_eq!(proof.status, ProofStatus::Confirmed, "a host that is late slows more: {proof:?}");
        let late = |bytes| {
            let busy = Evidence { flow: Some(Flow { bytes, late: 0.6, ..flow }), ..evidence(0, true) };
            judge_rate(String::new(), 1e6, &busy).status
        };
        assert_eq!(late(1_000_000), ProofStatus::Confirmed, "it is as asked for, however late the host");
        assert_eq!(late(600_000), ProofStatus::Unproven, "that late, nobody can tell");
        let flow = evidence(1_000_000, true).flow.unwrap();
        let both = Evidence { flow: Some(flow.beside(flow)), ..evidence(0, true) };
        let proof = judge_rate(String::new(), 1e6, &both);
        assert_eq!(proof.status, ProofStatus::Confirmed, "each way has the rate for itself: {proof:?}");
        let behind = |onward| {
            let slow = Evidence { flow: Some(Flow { onward, ..flow }), ..evidence(0, true) };
            judge_rate(String::new(), 1e6, &slow)
        };
        assert_eq!(behind(Some(990_000)).status, ProofStatus::Confirmed);
        assert_eq!(behind(Some(200_000)).status, ProofStatus::Mismatch, "{:?}", behind(Some(200_000)));
        let filled = |answered| Filled { whom: "10.0.0.2".to_owned(), sent: 40, answered };
        let own = |answered| Evidence { filled: Some(filled(answered)), ..evidence(1_000_000, true) };
        assert_eq!(judge_rate(String::new(), 1e6, &own(3)).status, ProofStatus::Confirmed);
        assert_eq!(judge_rate(String::new(), 1e6, &own(0)).status, ProofStatus::Unproven, "nobody felt it");
        let few = Evidence { flow: Some(Flow { bytes: 3000, packets: 2, ..flow }), ..evidence(0, true) };
        assert_eq!(
            judge_rate(String::new(), 3e3, &few).status,
            ProofStatus::Unproven,
            "two packets tell nothing"
        );
        let idle = Evidence { flow: None, ..evidence(0, true) };
        assert_eq!(judge_rate(String::new(), 1e6, &idle).status, ProofStatus::Unproven);
    }
}
