//! The sums of one load over all workers, and the record that they become.

use std::collections::BTreeMap;
use std::sync::Arc;

use reports::Latencies;
use reports::record::{Bucket, LoadRecord, Outcomes, Phase, PhaseStats};

use super::Outline;
use super::tally::{
    ByPhase, INSTANCES_MAX, NO_POP, OTHER, OTHER_STATUS, POPS_MAX, PhaseSlice, PhaseTotals, STATUSES_MAX,
    Tally,
};

/// Slices of time that may still grow, in seconds behind the newest.
const OPEN_S: u64 = 2;

#[derive(Default)]
struct PhaseSum {
    all: Tally,
    unsent: u64,
    late: u64,
    handshakes: Latencies,
    kinds: BTreeMap<usize, Tally>,
    service: BTreeMap<usize, Latencies>,
    pops: BTreeMap<Arc<str>, Tally>,
    instances: BTreeMap<Arc<str>, u64>,
    statuses: BTreeMap<u16, u64>,
    causes: BTreeMap<String, String>,
}

#[derive(Default)]
struct OpenBucket {
    due: u64,
    all: Tally,
    pops: BTreeMap<String, u64>,
}

/// See the module.
pub(super) struct LoadSums {
    /// The length of a bucket in seconds.
    length: u64,
    phases: BTreeMap<Phase, PhaseSum>,
    open: BTreeMap<(u64, Phase), OpenBucket>,
    closed: BTreeMap<(u64, Phase), Bucket>,
}

impl LoadSums {
    pub(super) fn new(length: u64) -> Self {
        Self { length, phases: BTreeMap::new(), open: BTreeMap::new(), closed: BTreeMap::new() }
    }

    /// Adds one worker's second.
    pub(super) fn add(&mut self, second: u64, phase: Phase, slice: &PhaseSlice) {
        let sum = self.phases.entry(phase).or_default();
        sum.all.merge(&slice.all);
        sum.unsent += slice.unsent;
        sum.late += slice.late;
        let key = (second / self.length, phase);
        let closed = &mut self.closed;
        let bucket =
            self.open.entry(key).or_insert_with(|| closed.remove(&key).map_or_else(Default::default, reopen));
        bucket.due += slice.due;
        bucket.all.merge(&slice.all);
        for (name, count) in &slice.by_pop {
            let known = bucket.pops.len() < POPS_MAX || bucket.pops.contains_key(&**name);
            *bucket.pops.entry(if known { &**name } else { OTHER }.to_owned()).or_default() += count;
        }
        self.close_before(second.saturating_sub(OPEN_S) / self.length);
    }

    fn close_before(&mut self, index: u64) {
        while let Some(entry) = self.open.first_entry().filter(|entry| entry.key().0 < index) {
            let (key, bucket) = entry.remove_entry();
            self.closed.insert(key, bucket.close(key, self.length));
        }
    }

    /// Adds what one worker counted over the whole run.
    pub(super) fn close(&mut self, totals: ByPhase<PhaseTotals>) {
        for (phase, totals) in Phase::ALL.into_iter().zip(totals) {
            let Some(totals) = totals else { continue };
            let sum = self.phases.entry(phase).or_default();
            sum.handshakes.merge(&totals.handshakes);
            for (kind, tally) in totals.kinds.iter().enumerate() {
                if let Some(tally) = tally {
                    sum.kinds.entry(kind).or_default().merge(tally);
                }
            }
            for (kind, served) in totals.service.iter().enumerate() {
                if let Some(served) = served {
                    sum.service.entry(kind).or_default().merge(served);
                }
            }
            for (name, tally) in totals.by_pop {
                let known = sum.pops.len() < POPS_MAX || sum.pops.contains_key(&name);
                sum.pops.entry(if known { name } else { Arc::from(OTHER) }).or_default().merge(&tally);
            }
            for (name, count) in totals.by_instance {
                let known = sum.instances.len() < INSTANCES_MAX || sum.instances.contains_key(&name);
                *sum.instances.entry(if known { name } else { Arc::from(OTHER) }).or_default() += count;
            }
            for (class, cause) in totals.causes {
                sum.causes.entry(class.name().to_owned()).or_insert(cause);
            }
            for (status, count) in totals.statuses {
                let known = sum.statuses.len() < STATUSES_MAX || sum.statuses.contains_key(&status);
                *sum.statuses.entry(if known { status } else { OTHER_STATUS }).or_default() += count;
            }
        }
    }

    /// By phase: requests that ended, how many of them were never sent, and how many too late.
    pub(super) fn ended(&self) -> impl Iterator<Item = (Phase, &Tally, u64, u64)> {
        self.phases.iter().map(|(phase, sum)| (*phase, &sum.all, sum.unsent, sum.late))
    }

    /// The record of this load.
    pub(super) fn record(mut self, load: &Outline) -> LoadRecord {
        self.close_before(u64::MAX);
        let ended = self.phases.into_iter().filter(|(_, sum)| sum.all.ended() > 0);
        LoadRecord {
            name: load.name.to_string(),
            sends: load.sends.clone(),
            arrivals: load.arrivals.clone(),
            phases: ended.map(|(phase, sum)| sum.stats(phase, load)).collect(),
            buckets: self.closed.into_values().collect(),
        }
    }
}

impl PhaseSum {
    fn stats(self, phase: Phase, load: &Outline) -> PhaseStats {
        let kinds = self.kinds.iter();
        // Without any PoP name there is nothing to tell apart.
        let named = self.pops.keys().any(|name| &**name != NO_POP);
        let pops = self.pops.iter().filter(|_| named);
        let mut service = Latencies::default();
        self.service.values().for_each(|kind| service.merge(kind));
        let of_kind = |kind: &usize| self.service.get(kind).map(Latencies::encode).unwrap_or_default();
        PhaseStats {
            phase,
            handshakes: if self.handshakes.count() > 0 { self.handshakes.encode() } else { String::new() },
            all: Outcomes { service: service.encode(), ..outcomes(&self.all) },
            kinds: kinds
                .map(|(kind, t)| {
                    let all = Outcomes { service: of_kind(kind), ..outcomes(t) };
                    (load.kinds[*kind].clone(), all)
                })
                .collect(),
            pops: pops.map(|(name, t)| (name.to_string(), outcomes(t))).collect(),
            instances: self.instances.into_iter().map(|(name, count)| (name.to_string(), count)).collect(),
            statuses: self.statuses,
            causes: self.causes,
            unsent: self.unsent + self.late,
        }
    }
}

/// In phases, kinds and PoPs, what was due is what ended: an arrival belongs where its request does.
fn outcomes(tally: &Tally) -> Outcomes {
    Outcomes {
        due: tally.ended(),
        ok: tally.ok,
        errors: tally.errors.by_name(),
        latencies: tally.latencies.encode(),
        service: String::new(),
    }
}

impl OpenBucket {
    /// In buckets, what was due came due in that time; it may end in a later one.
    fn close(self, (index, phase): (u64, Phase), length: u64) -> Bucket {
        Bucket {
            at_s: (index * length) as f64,
            len_s: length as f64,
            phase,
            all: Outcomes { due: self.due, ..outcomes(&self.all) },
            pops: if self.pops.keys().any(|name| name != NO_POP) { self.pops } else { BTreeMap::new() },
        }
    }
}

/// A worker was late with its slice: what was closed takes it in all the same.
fn reopen(bucket: Bucket) -> OpenBucket {
    let mut all = Tally { ok: bucket.all.ok, ..Tally::default() };
    for class in super::ErrorClass::ALL {
        let count = bucket.all.errors.get(class.name()).copied().unwrap_or_default();
        (0..count).for_each(|_| all.errors.count(class));
    }
    all.latencies = Latencies::decode(&bucket.all.latencies).expect("what we encoded can be decoded");
    OpenBucket { due: bucket.all.due, all, pops: bucket.pops }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::ErrorClass;

    fn slice(ok: u64, resets: u64) -> PhaseSlice {
        let mut slice = PhaseSlice::default();
        slice.due = ok + resets;
        slice.by_pop = vec![(Arc::from("a"), ok)];
        slice.all.ok = ok;
        (0..ok).for_each(|i| slice.all.latencies.record(1000 + i));
        (0..resets).for_each(|_| slice.all.errors.count(ErrorClass::Reset));
        slice
    }

    #[test]
    fn a_late_slice_still_gets_into_its_bucket() {
        let mut sums = LoadSums::new(1);
        sums.add(0, Phase::Baseline, &slice(3, 1));
        sums.add(9, Phase::Baseline, &slice(1, 0));
        assert_eq!(sums.closed.len(), 1);
        sums.add(0, Phase::Baseline, &slice(2, 2));
        sums.close_before(u64::MAX);
        let bucket = &sums.closed[&(0, Phase::Baseline)];
        assert_eq!((bucket.all.due, bucket.all.ok, bucket.all.errors["reset"]), (8, 5, 3));
        assert_eq!(Latencies::decode(&bucket.all.latencies).unwrap().count(), 5);
        assert_eq!(bucket.pops["a"], 5);
    }

    #[test]
    fn an_hour_takes_a_few_megabytes() {
        let mut sums = LoadSums::new(4);
        let mut busy = PhaseSlice::default();
        busy.all.ok = 5000;
        // Spread wide: a second with 5000 different latencies between 1 ms and 1 s.
        (0..5000u64).for_each(|i| busy.all.latencies.record(1000 + i * i % 999_983));
        for second in 0..3600 {
            sums.add(second, Phase::Baseline, &busy);
            assert!(sums.open.len() <= 2, "distributions of the past are kept encoded");
        }
        sums.close_before(u64::MAX);
        let size: usize = sums.closed.values().map(|bucket| bucket.all.latencies.len()).sum();
        assert_eq!(sums.closed.len(), 900);
        assert!(size < 8 << 20, "{size} bytes");
    }

    #[test]
    fn two_phases_in_one_second_have_two_buckets() {
        let mut sums = LoadSums::new(4);
        for phase in [Phase::Fault, Phase::Recovery] {
            sums.add(5, phase, &slice(1, 0));
        }
        sums.close_before(u64::MAX);
        let spans: Vec<_> = sums.closed.values().map(|b| (b.at_s, b.len_s, b.phase)).collect();
        assert_eq!(spans, [(4.0, 4.0, Phase::Fault), (4.0, 4.0, Phase::Recovery)]);
    }
}
