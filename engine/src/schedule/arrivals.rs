//! When the requests of one worker are due, one by one.

use std::sync::Arc;

use super::{Pace, Piece, Profile};
use crate::random::Random;

/// The arrivals of one worker of several: due times in nanoseconds since the start, never decreasing.
#[derive(Debug, Clone)]
pub struct Arrivals {
    pieces: Arc<[Piece]>,
    cursor: usize,
    stream: Stream,
    pace: Pace,
    /// The number of the latest arrival.
    current: f64,
}

/// When an arrival is due that a pause without an end keeps back.
pub const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone)]
enum Stream {
    Even { next: u64, step: u64 },
    Poisson { at: f64, step: f64, random: Random },
    Trace { times: Arc<[u64]>, next: usize, step: usize },
}

/// Rounding must not add an arrival at the very end.
pub(super) const TINY: f64 = 1e-6;

impl Arrivals {
    /// Evenly spaced, or as they are known one by one: worker k of W has the arrivals k, k + W, k + 2W, …
    pub fn even(profile: &Profile, worker: u32, workers: u32) -> Self {
        let stream = match &profile.times {
            Some(times) => Stream::Trace {
                times: Arc::clone(times),
                next: worker as usize,
                step: workers.max(1) as usize,
            },
            None => Stream::Even { next: u64::from(worker), step: u64::from(workers.max(1)) },
        };
        Self::new(profile, stream)
    }

    /// Independent arrivals with the profile's rate: each worker has its own stream of 1/W of the rate.
    pub fn poisson(profile: &Profile, worker: u32, workers: u32, seed: u64) -> Self {
        let mut random = Random::new(seed, u64::from(worker));
        let step = f64::from(workers.max(1));
        let at = step * random.exponential();
        Self::new(profile, Stream::Poisson { at, step, random })
    }

    fn new(profile: &Profile, stream: Stream) -> Self {
        let (pieces, pace) = (Arc::clone(&profile.pieces), Pace::default());
        Self { pieces, cursor: 0, stream, pace, current: -1.0 }
    }

    /// From now on at this pace, which is as the one before up to a time that no arrival has reached. Returns when the
    /// latest arrival, which has not been sent, is due now; none if there has not been one, or it lies beyond the end.
    /// Arrivals that are known one by one keep their times.
    pub fn pace(&mut self, pace: Pace) -> Option<u64> {
        if let Stream::Trace { times, next, step } = &self.stream {
            return next.checked_sub(*step).and_then(|at| times.get(at)).copied();
        }
        (self.pace, self.cursor) = (pace, 0);
        if self.current < 0.0 { None } else { self.due() }
    }

    fn due(&mut self) -> Option<u64> {
        let last = self.pieces.last()?;
        let Some(n) = self.pace.place(self.current) else { return Some(NEVER) };
        if n >= last.before + last.count - TINY {
            return None;
        }
        while self.pieces.get(self.cursor).is_some_and(|p| p.before + p.count <= n) {
            self.cursor += 1;
        }
        self.pieces.get(self.cursor).map(|p| (p.due(n) * 1e9) as u64)
    }

    /// Leaves out every further arrival that is due before this time, in nanoseconds: how many they are, and when the first
    /// after them is due.
    pub fn skip_to(&mut self, at: u64) -> (u64, Option<u64>) {
        let mut skipped = 0;
        if let Stream::Even { next, step } = self.stream {
            // Due times never decrease: as many as surely come before it are found by halving.
            let (mut low, mut high) = (0, 1);
            let early = |this: &mut Self, n: u64| {
                this.cursor = 0;
                this.current = next.saturating_add(n.saturating_mul(step)) as f64;
                this.due().is_some_and(|due| due < at)
            };
            while early(self, high) {
                (low, high) = (high, high.saturating_mul(2));
            }
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if early(self, middle) { low = middle } else { high = middle }
            }
            self.cursor = 0;
            self.stream = Stream::Even { next: next.saturating_add(low.saturating_mul(step)), step };
            skipped = low;
        }
        loop {
            match self.next() {
                Some(due) if due < at => skipped += 1,
                next => return (skipped, next),
            }
        }
    }

    /// The number of the next arrival, as far as it is known by its number.
    fn step(&mut self) -> f64 {
        match &mut self.stream {
            Stream::Trace { .. } => f64::INFINITY,
            Stream::Even { next, step } => {
                let n = *next as f64;
                *next = next.saturating_add(*step);
                n
            }
            Stream::Poisson { at, step, random } => {
                let n = *at;
                *at += *step * random.exponential();
                n
            }
        }
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if let Stream::Trace { times, next, step } = &mut self.stream {
            let due = times.get(*next).copied();
            *next = next.saturating_add(*step);
            return due;
        }
        self.current = self.step();
        self.due()
    }
}
