//! The token bucket of one bandwidth fault and one way, shared by all its connections: pure, the clock is given.
//!
//! It is kept as the time at which the next byte may leave. That time advances by exact fractions of a second
//! whatever the wake-ups do, so a late wake-up is caught up, within [`CATCH_UP`].

use std::time::{Duration, Instant};

/// What an idle bucket saves up: its burst.
const BURST: Duration = Duration::from_millis(20);
/// How far the bucket catches up when bytes waited for it and the host woke it late.
const CATCH_UP: Duration = Duration::from_millis(200);
/// Stretches shorter than this are not counted.
const STRETCH_MIN: Duration = Duration::from_millis(200);
/// The longest slice, in time.
const SLICE: f64 = 0.010;
/// The longest slice, in bytes.
const SLICE_MAX: f64 = 65536.0;

/// See the module.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    next: Option<Instant>,
    busy: Option<Busy>,
}

/// A stretch of time during which the bucket held traffic back.
#[derive(Debug)]
struct Busy {
    until: Instant,
    last: u64,
    /// What has not been told yet: a short stretch says more about wake-ups than about the limit.
    held: Limited,
    told: bool,
}

/// A finished part of such a stretch.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Limited {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Bucket {
    /// A full bucket; `rate` in bytes per second, at least one.
    pub(crate) fn new(rate: f64) -> Self {
        Self { rate, next: None, busy: None }
    }

    /// How many of these bytes go in one slice.
    pub(crate) fn slice(&self, bytes: usize) -> usize {
        bytes.min((self.rate * SLICE).clamp(1.0, SLICE_MAX) as usize)
    }

    /// Reserves the next slot for a slice that arrived at `entered`: the time at which it may leave.
    /// Not `prompt` is a slice that something else than the bucket kept waiting.
    pub(crate) fn reserve(&mut self, bytes: usize, entered: Instant, now: Instant, prompt: bool) -> Instant {
        let at = match self.next {
            Some(next) if prompt && entered < next && now <= next + CATCH_UP => next,
            Some(next) => next.max(now.checked_sub(BURST).unwrap_or(now)),
            None => now,
        };
        if entered >= at {
            // The bucket waited for traffic, not traffic for the bucket.
            self.busy = None;
        }
        self.next = Some(at + Duration::from_secs_f64(bytes as f64 / self.rate));
        at
    }

    /// Tells that a slice has left; returns what this adds to the time and bytes under the limit.
    /// A slice that was late because its receiver was slow ends the stretch: the limit was not in force.
    pub(crate) fn left(&mut self, bytes: usize, now: Instant, clean: bool) -> Limited {
        let bytes = bytes as u64;
        if !clean {
            self.busy = None;
            return Limited::default();
        }
        let Some(busy) = &mut self.busy else {
            self.busy = Some(Busy { until: now, last: bytes, held: Limited::default(), told: false });
            return Limited::default();
        };
        busy.held.bytes += busy.last;
        busy.held.time += now.saturating_duration_since(busy.until);
        (busy.until, busy.last) = (now.max(busy.until), bytes);
        if busy.held.time < STRETCH_MIN && !busy.told {
            return Limited::default();
        }
        busy.told = true;
        std::mem::take(&mut busy.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `slices` through, each wake-up late by `late`; returns when the last one left and what was limited.
    fn saturate(bucket: &mut Bucket, start: Instant, slices: usize, late: Duration) -> (Duration, Limited) {
        let (mut now, mut total) = (start, Limited::default());
        for _ in 0..slices {
            let at = bucket.reserve(1000, start, now, true);
            now = now.max(at + late);
            let gained = bucket.left(1000, now, true);
            total = Limited { bytes: total.bytes + gained.bytes, time: total.time + gained.time };
        }
        (now - start, total)
    }

    #[test]
    fn late_wake_ups_do_not_lower_the_rate() {
        for late in [Duration::ZERO, Duration::from_micros(700), Duration::from_millis(50)] {
            let (time, limited) = saturate(&mut Bucket::new(1e6), Instant::now(), 1001, late);
            assert!((time.as_secs_f64() - 1.0 - late.as_secs_f64()).abs() < 0.002, "{time:?}");
            let rate = limited.bytes as f64 / limited.time.as_secs_f64();
            assert!((rate / 1e6 - 1.0).abs() < 0.01, "{rate}");
        }
    }

    #[test]
    fn traffic_below_the_rate_is_neither_held_nor_counted_as_limited() {
        let (mut bucket, start) = (Bucket::new(1e6), Instant::now());
        for n in 0..500 {
            let now = start + Duration::from_millis(2 * n);
            assert!(bucket.reserve(1000, now, now, true) <= now);
            assert_eq!(bucket.left(1000, now, true), Limited::default());
        }
    }

    #[test]
    fn an_idle_bucket_saves_up_no_more_than_its_burst() {
        let (mut bucket, start) = (Bucket::new(1e6), Instant::now());
        bucket.reserve(1000, start, start, true);
        let later = start + Duration::from_secs(10);
        let free = (0..100).take_while(|_| bucket.reserve(1000, later, later, true) <= later).count();
        assert!(free <= 21, "{free} slices left at once");
    }
}
