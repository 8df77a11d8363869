//! Latencies over time as a grid: a share of the answers for each slice of time and band of latency. Bounded however
//! long the load was; counts are added, never sampled.

use std::collections::BTreeMap;

use crate::latency::LatencyError;
use crate::record::{Bucket, LoadRecord};
use crate::series::latencies;

/// The most slices of time.
pub(crate) const COLUMNS_MAX: usize = 120;
/// The most bands of latency.
pub(crate) const ROWS_MAX: usize = 40;
/// Values are kept apart by this ratio at least until the bands are known: a sixth of the narrowest band.
const FINE: f64 = 0.0025;

/// What was answered when, and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Heat {
    /// Start of the first slice, in seconds.
    pub(crate) start_s: f64,
    /// Length of each slice, in seconds.
    pub(crate) step_s: f64,
    /// By slice: how many answers by the logarithm of their latency.
    columns: Vec<BTreeMap<i32, u64>>,
    /// The fastest and the slowest answer, in seconds.
    pub(crate) range_s: (f64, f64),
}

/// Neighbours of one slice with shares that are shown alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    /// The slice, from 0.
    pub(crate) column: usize,
    /// The band, from 0 at the lowest latency.
    pub(crate) row: usize,
    /// The share of the answers of the slice.
    pub(crate) share: f64,
}

/// Slices taken together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Group<const N: usize> {
    /// Start in seconds.
    pub(crate) from_s: f64,
    /// End in seconds.
    pub(crate) to_s: f64,
    /// How many answers.
    pub(crate) answers: u64,
    /// Latencies in seconds at the quantiles asked for, within [`FINE`] of what was measured.
    pub(crate) latencies_s: [Option<f64>; N],
}

impl Heat {
    /// Of one load; none where nothing has a latency.
    pub(crate) fn of(load: &LoadRecord) -> Result<Option<Self>, LatencyError> {
        let usable = |b: &&Bucket| b.at_s.is_finite() && b.len_s.is_finite() && b.len_s > 0.0;
        let buckets = || load.buckets.iter().filter(usable);
        let base_s = buckets().map(|b| b.len_s).fold(0.0, f64::max);
        let start_s = buckets().map(|b| b.at_s).fold(f64::INFINITY, f64::min);
        // Stragglers after the last arrival count to its slice, as in the curves.
        let was_due = |b: &&Bucket| b.all.due > 0;
        let end_s = buckets().filter(was_due).map(|b| b.at_s + b.len_s).fold(start_s, f64::max);
        let slices = (end_s - start_s) / base_s;
        if !slices.is_finite() || slices <= 0.0 {
            return Ok(None);
        }
        let step_s = base_s * (slices / COLUMNS_MAX as f64 - 1e-6).ceil().max(1.0);
        let count = ((end_s - start_s) / step_s - 1e-3).ceil().clamp(1.0, COLUMNS_MAX as f64) as usize;
        let mut columns = vec![BTreeMap::new(); count];
        let mut range_s = (f64::INFINITY, f64::NEG_INFINITY);
        for bucket in buckets().filter(|bucket| !bucket.all.latencies.is_empty()) {
            // A thousandth of a step makes up for starts such as 6.9999999.
            let column = (((bucket.at_s - start_s) / step_s + 1e-3) as usize).min(count - 1);
            for (s, n) in latencies(&bucket.all)?.values() {
                *columns[column].entry((s.ln() / FINE).round() as i32).or_default() += n;
                range_s = (range_s.0.min(s), range_s.1.max(s));
            }
        }
        Ok((range_s.0 <= range_s.1).then_some(Self { start_s, step_s, columns, range_s }))
    }

    /// How many slices.
    pub(crate) fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Slices taken together, in at most so many groups, with the latencies at some quantiles.
    pub(crate) fn groups<const N: usize>(&self, most: usize, quantiles: [f64; N]) -> Vec<Group<N>> {
        let each = self.columns.len().div_ceil(most).max(1);
        let group = |(at, columns): (usize, &[BTreeMap<i32, u64>])| {
            let mut values: BTreeMap<i32, u64> = BTreeMap::new();
            for (key, n) in columns.iter().flatten() {
                *values.entry(*key).or_default() += n;
            }
            let all: u64 = values.values().sum();
            let quantile = |q: f64| {
                let rank = ((q * all as f64).ceil() as u64).max(1);
                let mut seen = 0;
                let found = values.iter().find(|(_, n)| {
                    seen += **n;
                    seen >= rank
                });
                found.map(|(key, _)| (f64::from(*key) * FINE).exp())
            };
            let from_s = self.start_s + self.step_s * (at * each) as f64;
            let to_s = from_s + self.step_s * columns.len() as f64;
            Group { from_s, to_s, answers: all, latencies_s: quantiles.map(quantile) }
        };
        self.columns.chunks(each).enumerate().map(group).collect()
    }

    /// How many bands between two latencies in seconds: each is a microsecond wide at least, since no value lies
    /// between two of those.
    pub(crate) fn rows(low_s: f64, high_s: f64) -> usize {
        let narrowest = (1e-6 / low_s).ln_1p();
        (((high_s / low_s).ln() / narrowest) as usize).clamp(1, ROWS_MAX)
    }

    /// The cells that hold something, with bands of equal ratio between two latencies in seconds.
    pub(crate) fn cells(&self, low_s: f64, high_s: f64) -> Vec<Cell> {
        let rows = Self::rows(low_s, high_s);
        let per_row = (high_s / low_s).ln() / rows as f64;
        let mut cells = Vec::new();
        for (column, values) in self.columns.iter().enumerate() {
            let all: u64 = values.values().sum();
            let mut bands: BTreeMap<usize, u64> = BTreeMap::new();
            for (key, n) in values {
                // Half of the finest step keeps a value at an edge on its own side.
                let above = f64::from(*key) * FINE - low_s.ln() + FINE / 2.0;
                *bands.entry(((above / per_row) as usize).min(rows - 1)).or_default() += n;
            }
            cells.extend(bands.into_iter().map(|(row, n)| Cell {
                column,
                row,
                share: n as f64 / all as f64,
            }));
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::latency::Latencies;
    use crate::record::{Outcomes, Phase};

    fn load(seconds: &[Vec<u64>], len_s: f64) -> LoadRecord {
        let bucket = |(at, us): (usize, &Vec<u64>)| {
            let mut latencies = Latencies::default();
            for us in us {
                latencies.record(*us);
            }
            let all = Outcomes { due: 1, latencies: latencies.encode(), ..Outcomes::default() };
            Bucket { at_s: at as f64 * len_s, len_s, phase: Phase::Baseline, all, pops: BTreeMap::default() }
        };
        let buckets = seconds.iter().enumerate().map(bucket).collect();
        LoadRecord { name: "l".into(), sends: vec![], arrivals: String::new(), phases: vec![], buckets }
    }

    #[test]
    fn a_second_is_a_column_and_a_band_holds_what_is_in_it() {
        let heat =
            Heat::of(&load(&[vec![1000, 1000, 1000, 90_000], vec![], vec![5000]], 1.0)).unwrap().unwrap();
        let groups = heat.groups(2, [0.5, 1.0]);
        let spans: Vec<_> = groups.iter().map(|g| (g.from_s, g.to_s, g.answers)).collect();
        assert_eq!(spans, [(0.0, 2.0, 4), (2.0, 3.0, 1)]);
        let [median, max] = groups[0].latencies_s.map(Option::unwrap);
        assert!((median / 0.001 - 1.0).abs() < FINE && (max / 0.09 - 1.0).abs() < FINE, "{groups:?}");
        assert_eq!((heat.columns(), heat.step_s, heat.range_s), (3, 1.0, (0.001, 0.090_047)));
        let cells = heat.cells(0.001, 0.1);
        let shares: Vec<_> = cells.iter().map(|c| (c.column, c.row, c.share)).collect();
        // Two decades in 40 bands: 5 ms lies 0.7 decades above the bottom, 90 ms just below the top.
        assert_eq!(shares, [(0, 0, 0.75), (0, 39, 0.25), (2, 13, 1.0)]);
    }

    #[test]
    fn what_ends_after_the_last_arrival_counts_to_its_slice() {
        let mut load = load(&[vec![1000], vec![1000], vec![9000]], 1.0);
        load.buckets[2].all.due = 0;
        let heat = Heat::of(&load).unwrap().unwrap();
        assert_eq!((heat.columns(), heat.cells(0.001, 0.01).len()), (2, 3));
    }

    #[test]
    fn bands_are_not_narrower_than_what_is_measured() {
        assert_eq!(Heat::rows(0.01, 0.02), ROWS_MAX);
        assert_eq!(Heat::rows(20e-6, 25e-6), 4);
        assert_eq!(Heat::rows(1e-6, 1e-6), 1);
    }

    #[test]
    fn without_latencies_there_is_none() {
        assert!(Heat::of(&load(&[], 1.0)).unwrap().is_none());
        assert!(Heat::of(&load(&[vec![], vec![]], 1.0)).unwrap().is_none());
        assert!(Heat::of(&load(&[vec![1]], f64::NAN)).unwrap().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn it_is_bounded_and_loses_nothing(n in 1usize..700, us in 1u64..60_000_000, len in prop::sample::select(vec![0.1, 1.0, 7.0])) {
            let heat = Heat::of(&load(&vec![vec![us, us * 2]; n], len)).unwrap().unwrap();
            prop_assert!(heat.columns() <= COLUMNS_MAX && heat.columns() * 8 >= n.min(COLUMNS_MAX));
            prop_assert_eq!(heat.columns.iter().flat_map(BTreeMap::values).sum::<u64>(), 2 * n as u64);
            let cells = heat.cells(heat.range_s.0, heat.range_s.1);
            prop_assert!(cells.len() <= 2 * heat.columns() && cells.iter().all(|c| c.row < ROWS_MAX));
            let all: f64 = cells.iter().map(|c| c.share).sum();
            prop_assert!((all - heat.columns() as f64).abs() < 1e-6);
        }
    }
}
