//! What a fault has really done: counters and the delays that were measured, never those that were planned.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::resets::Start;

/// Buckets per doubling: a quantile is right within 1/32.
const STEPS: usize = 32;
/// Doublings of a microsecond that are told apart; the last one is beyond an hour.
const DOUBLINGS: usize = 33;

/// Measured delays, in seconds. Quantiles are right within 3 %, the mean is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Delays {
    /// How many were measured.
    pub samples: u64,
    /// Their mean.
    pub mean: f64,
    /// Their median.
    pub p50: f64,
    /// 99 of 100 were at most this.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What a fault has done so far. Counters that do not belong to its kind stay zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// Connections that the fault met.
    pub connections_seen: u64,
    /// Connections among them that its share chose.
    pub connections_affected: u64,
    /// Chunks that went through it.
    pub chunks: u64,
    /// Bytes that went through it.
    pub bytes: u64,
    /// Pieces that chunks were cut into.
    pub pieces: u64,
    /// Requests that an HTTP fault means, whether or not there was something to change.
    pub matched: u64,
    /// Cases to which the share applied: requests, heads with something to edit, responses long enough to be cut,
    /// connections to be reset.
    pub eligible: u64,
    /// Cases among them that were hit.
    pub hit: u64,
    /// Delays from arrival to release, in seconds.
    pub delays: Delays,
    /// Bytes that passed while the bandwidth limit held traffic back.
    pub limited_bytes: u64,
    /// Seconds during which it did.
    pub limited_seconds: f64,
    /// Connections that had something waiting behind a blackhole.
    pub held_connections: u64,
    /// Bytes that were waiting when that was noticed: a lower bound.
    pub held_bytes: u64,
    /// Own connections to the closed port.
    pub probes: u64,
    /// Those among them that were refused.
    pub refused: u64,
    /// Connections that had come to the port in the [`super::LATELY`] before it was closed.
    pub came_before: u64,
    /// Connections that were open then.
    pub open_before: u64,
    /// The most connections of others that can have been refused: all resets that the kernel has sent since, whatever
    /// for, without those to our own connections. None if the kernel does not tell.
    pub refused_others: Option<u64>,
    /// How many such resets would have been usual; none if the relay has not had the time to see.
    pub usual_resets: Option<f64>,
}

/// The counters of one fault while they grow.
#[derive(Debug, Default)]
pub(crate) struct Stats(Mutex<Counters>);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) seen: Observation,
    /// What the kernel had sent when the fault began; see [`Observation::refused_others`].
    pub(crate) resets_from: Option<Start>,
    buckets: Vec<u32>,
    sum: f64,
}

impl Stats {
    /// The counters, to be changed.
    pub(crate) fn edit(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters as they stand.
    pub(crate) fn observation(&self) -> Observation {
        let counters = self.edit();
        let mut seen = counters.seen.clone();
        if seen.delays.samples > 0 {
            seen.delays.mean = counters.sum / seen.delays.samples as f64;
            seen.delays.p50 = counters.quantile(0.5);
            seen.delays.p99 = counters.quantile(0.99);
        }
        seen
    }
}

impl Counters {
    /// Records one case to which the share applied, and whether it was hit.
    pub(crate) fn case(&mut self, hit: bool) {
        self.seen.eligible += 1;
        self.seen.hit += u64::from(hit);
    }

    /// Records one measured delay.
    pub(crate) fn delayed(&mut self, delay: Duration) {
        if self.buckets.is_empty() {
            self.buckets = vec![0; STEPS * DOUBLINGS];
        }
        let seconds = delay.as_secs_f64();
        if let Some(bucket) = self.buckets.get_mut(bucket(seconds)) {
            *bucket = bucket.saturating_add(1);
        }
        self.seen.delays.samples += 1;
        self.seen.delays.max = self.seen.delays.max.max(seconds);
        self.sum += seconds;
    }

    fn quantile(&self, q: f64) -> f64 {
        let rank = ((self.seen.delays.samples as f64 * q).ceil() as u64).max(1);
        let mut below = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            below += u64::from(*count);
            if below >= rank {
                let middle = ((index as f64 + 0.5) / STEPS as f64).exp2() * 1e-6;
                return middle.min(self.seen.delays.max);
            }
        }
        self.seen.delays.max
    }
}

fn bucket(seconds: f64) -> usize {
    let place = (seconds * 1e6).max(1.0).log2() * STEPS as f64;
    (place as usize).min(STEPS * DOUBLINGS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_three_percent_and_the_mean_is_exact() {
        let stats = Stats::default();
        for ms in 1..=1000 {
            stats.edit().delayed(Duration::from_millis(ms));
        }
        let delays = stats.observation().delays;
        assert_eq!(delays.samples, 1000);
        assert!((delays.mean - 0.5005).abs() < 1e-9);
        assert!((delays.p50 / 0.5 - 1.0).abs() < 0.03, "{}", delays.p50);
        assert!((delays.p99 / 0.99 - 1.0).abs() < 0.03, "{}", delays.p99);
        assert!((delays.max - 1.0).abs() < 1e-9);
    }

    #[test]
    fn extreme_delays_stay_in_range() {
        let stats = Stats::default();
        stats.edit().delayed(Duration::ZERO);
        stats.edit().delayed(Duration::from_hours(200));
        assert_eq!(stats.observation().delays.samples, 2);
    }
}
