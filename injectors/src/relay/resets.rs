//! The resets that the kernel sends to others than us: what a closed port cannot see of those that it refuses.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::arrivals::LATELY;

/// How often a sample is kept.
const EVERY: Duration = Duration::from_secs(1);
/// Less time than this says nothing about what is usual.
const LEAST: Duration = Duration::from_secs(2);

/// Counts of the last seconds. Pure: clock and kernel are given.
#[derive(Debug, Default)]
pub(crate) struct Resets {
    /// Resets that our own attempts on closed ports have drawn.
    pub(crate) own: u64,
    samples: VecDeque<(Instant, u64)>,
}

/// Where a fault began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    at: Instant,
    sent: u64,
    /// Resets per second before; none if there was no time to see.
    rate: Option<f64>,
}

impl Resets {
    /// Takes note of what the kernel has sent in all, if it tells and it is time to ask.
    pub(crate) fn sample(&mut self, now: Instant, sent: impl FnOnce() -> Option<u64>) {
        if self.samples.back().is_some_and(|(last, _)| now.saturating_duration_since(*last) < EVERY) {
            return;
        }
        let Some(sent) = sent() else { return };
        self.samples.push_back((now, sent.saturating_sub(self.own)));
        while self.samples.front().is_some_and(|(first, _)| now.saturating_duration_since(*first) > LATELY) {
            self.samples.pop_front();
        }
    }

    /// The start of a fault.
    pub(crate) fn start(&self, now: Instant, sent: u64) -> Start {
        let sent = sent.saturating_sub(self.own);
        let first = self.samples.front().map(|(at, then)| (now.saturating_duration_since(*at), *then));
        let rate = first.filter(|(time, _)| *time >= LEAST);
        let rate = rate.map(|(time, then)| sent.saturating_sub(then) as f64 / time.as_secs_f64());
        Start { at: now, sent, rate }
    }

    /// Resets to others since then, and how many would have been usual.
    pub(crate) fn since(&self, start: Start, now: Instant, sent: u64) -> (u64, Option<f64>) {
        let others = sent.saturating_sub(self.own).saturating_sub(start.sent);
        let time = now.saturating_duration_since(start.at).as_secs_f64();
        (others, start.rate.map(|rate| rate * time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_to_others_are_told_from_our_own_and_from_the_usual() {
        let born = Instant::now();
        let at = |seconds: u64| born + Duration::from_secs(seconds);
        let mut resets = Resets::default();
        for second in 0..20 {
            resets.sample(at(second), || Some(1000 + 3 * second));
            resets.sample(at(second), || Some(9999));
        }
        assert!(resets.samples.len() <= 11);
        let start = resets.start(at(20), 1060);
        resets.own += 4;
        assert_eq!(resets.since(start, at(24), 1060 + 4 + 50), (50, Some(12.0)));
        assert_eq!(resets.since(start, at(24), 1060 + 4), (0, Some(12.0)));
    }

    #[test]
    fn a_relay_that_has_just_begun_knows_nothing_of_the_usual() {
        let (born, mut resets) = (Instant::now(), Resets::default());
        resets.sample(born, || Some(5));
        let start = resets.start(born + Duration::from_secs(1), 5);
        assert_eq!(resets.since(start, born + Duration::from_secs(2), 7), (2, None));
    }
}
