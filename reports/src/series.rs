//! A load over time with a bounded number of points: neighbouring buckets are merged, exactly, never sampled.

use std::collections::BTreeMap;

use crate::latency::{Latencies, LatencyError};
use crate::record::{Bucket, LoadRecord, Outcomes};

/// The most points of one series.
pub(crate) const POINTS_MAX: usize = 600;

/// The quantiles kept of each slot.
pub(crate) const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 1.0];

/// What ended within one slice of time. It keeps quantiles, not distributions: those take some 200 KB each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot {
    /// Start in seconds.
    pub(crate) start_s: f64,
    /// End in seconds.
    pub(crate) end_s: f64,
    /// Arrivals that were due.
    pub(crate) due: u64,
    /// Good answers.
    pub(crate) ok: u64,
    /// Failures.
    pub(crate) failed: u64,
    /// Latencies at [`QUANTILES`] in seconds, if there are any.
    pub(crate) latencies: [Option<f64>; QUANTILES.len()],
    /// Answers by PoP.
    pub(crate) pops: BTreeMap<String, u64>,
}

impl Slot {
    /// The middle in seconds.
    pub(crate) fn middle_s(&self) -> f64 {
        self.start_s.midpoint(self.end_s)
    }

    /// A number of requests as requests per second.
    pub(crate) fn per_second(&self, n: u64) -> f64 {
        let length = self.end_s - self.start_s;
        if length > 0.0 { n as f64 / length } else { 0.0 }
    }

    /// All of some buckets, of which there is at least one.
    fn of(buckets: &[&Bucket]) -> Result<Self, LatencyError> {
        let mut slot = Self { start_s: f64::INFINITY, end_s: f64::NEG_INFINITY, ..Self::default() };
        let mut all: Option<Latencies> = None;
        for bucket in buckets {
            slot.start_s = slot.start_s.min(bucket.at_s);
            slot.end_s = slot.end_s.max(bucket.at_s + bucket.len_s);
            slot.due += bucket.all.due;
            slot.ok += bucket.all.ok;
            slot.failed += bucket.all.failed();
            for (pop, n) in &bucket.pops {
                *slot.pops.entry(pop.clone()).or_default() += n;
            }
            if !bucket.all.latencies.is_empty() {
                let own = latencies(&bucket.all)?;
                match &mut all {
                    Some(all) => all.merge(&own),
                    None => all = Some(own),
                }
            }
        }
        if let Some(all) = all {
            slot.latencies = QUANTILES.map(|q| all.quantile(q));
        }
        Ok(slot)
    }
}

/// The distribution of some outcomes; empty text is the empty distribution.
pub(crate) fn latencies(outcomes: &Outcomes) -> Result<Latencies, LatencyError> {
    if outcomes.latencies.is_empty() {
        Ok(Latencies::default())
    } else {
        Latencies::decode(&outcomes.latencies)
    }
}

/// The load's buckets merged to at most [`POINTS_MAX`] slots, in order of time.
pub(crate) fn slots(load: &LoadRecord) -> Result<Vec<Slot>, LatencyError> {
    let usable = |at: f64, len: f64| at.is_finite() && len.is_finite() && len > 0.0;
    let buckets = || load.buckets.iter().filter(|b| usable(b.at_s, b.len_s));
    let start = buckets().map(|b| b.at_s).fold(f64::INFINITY, f64::min);
    let end = buckets().map(|b| b.at_s + b.len_s).fold(f64::NEG_INFINITY, f64::max);
    let base = buckets().map(|b| b.len_s).fold(0.0, f64::max);
    if base <= 0.0 {
        return Ok(Vec::new());
    }
    let step = base * ((end - start) / base / (POINTS_MAX - 1) as f64).ceil().max(1.0);
    let mut grid: BTreeMap<u64, Vec<&Bucket>> = BTreeMap::new();
    for bucket in buckets() {
        // A thousandth of a step makes up for starts such as 6.9999999.
        let index = ((bucket.at_s - start) / step + 1e-3) as u64;
        grid.entry(index).or_default().push(bucket);
    }
    let mut groups: Vec<_> = grid.into_values().collect();
    let stragglers = pop_stragglers(&mut groups);
    let mut slots: Vec<Slot> = groups.iter().map(|group| Slot::of(group)).collect::<Result<_, _>>()?;
    if let Some((last, before)) = slots.last_mut().zip(groups.last())
        && !stragglers.is_empty()
    {
        let end_s = last.end_s;
        *last = Slot::of(&[before.as_slice(), &stragglers].concat())?;
        last.end_s = end_s;
    }
    Ok(slots)
}

/// The last slot, if no arrival was due in it, but in the one before: the few requests that ended after the load. As
/// a slot of their own they would show a rate and shares that never were, so they count to the one before.
fn pop_stragglers<'b>(groups: &mut Vec<Vec<&'b Bucket>>) -> Vec<&'b Bucket> {
    let due = |group: &[&Bucket]| group.iter().map(|b| b.all.due).sum::<u64>();
    match groups.as_slice() {
        [.., before, last] if due(last) == 0 && due(before) > 0 => groups.pop().unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Phase;

    fn load(lengths: &[(f64, u64)]) -> LoadRecord {
        let mut at_s = 0.0;
        let buckets = lengths.iter().map(|(len_s, ok)| {
            let bucket = Bucket {
                at_s,
                len_s: *len_s,
                phase: Phase::Baseline,
                all: Outcomes { due: *ok, ok: *ok, ..Outcomes::default() },
                pops: BTreeMap::from([("fra".to_owned(), *ok)]),
            };
            at_s += len_s;
            bucket
        });
        let buckets = buckets.collect();
        LoadRecord { name: "l".into(), sends: vec![], arrivals: String::new(), phases: vec![], buckets }
    }

    #[test]
    fn a_second_that_two_phases_share_is_one_point() {
        let slots = slots(&load(&[(1.0, 10), (0.4, 4), (0.6, 6), (1.0, 10)])).unwrap();
        assert_eq!(slots.iter().map(|s| s.ok).collect::<Vec<_>>(), [10, 10, 10]);
        assert_eq!(slots[1].per_second(slots[1].ok), 10.0);
    }

    #[test]
    fn requests_that_end_after_the_load_count_to_its_last_slot() {
        let mut load = load(&[(1.0, 10), (1.0, 10), (1.0, 3)]);
        load.buckets[2].all.due = 0;
        let slots = slots(&load).unwrap();
        assert_eq!((slots.len(), slots[1].ok, slots[1].end_s), (2, 13, 2.0));
    }

    #[test]
    fn a_short_last_slot_keeps_its_rate() {
        let slots = slots(&load(&[(1.0, 10), (1.0, 10), (0.2, 2)])).unwrap();
        assert_eq!(slots.last().map(|s| s.per_second(s.ok).round()), Some(10.0));
    }

    #[test]
    fn a_load_without_buckets_has_no_points() {
        assert!(slots(&load(&[])).unwrap().is_empty());
        assert!(slots(&load(&[(f64::NAN, 1)])).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn merging_is_bounded_and_loses_nothing(n in 0usize..5000, len in prop::sample::select(vec![0.1, 1.0, 7.0])) {
            let lengths = vec![(len, 3); n];
            let slots = slots(&load(&lengths)).unwrap();
            prop_assert!(slots.len() <= POINTS_MAX);
            prop_assert_eq!(slots.iter().map(|s| s.ok).sum::<u64>(), 3 * n as u64);
            prop_assert_eq!(slots.iter().map(|s| s.pops["fra"]).sum::<u64>(), 3 * n as u64);
            prop_assert!(slots.windows(2).all(|w| w[0].start_s < w[1].start_s));
        }
    }
}
