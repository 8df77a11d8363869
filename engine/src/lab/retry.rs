//! Who is asked next, and whether asking again is allowed. Pure: time comes in as an argument.
//!
//! Invariants: an instance that failed twice in a row gets one request per [`AVOID`] until it answers; if every instance
//! is avoided, none is. Retries never exceed the stated share of requests, beyond a small first allowance.

use std::time::{Duration, Instant};

/// How long an instance is left alone after [`FAILURES`] failures in a row.
pub(super) const AVOID: Duration = Duration::from_millis(500);
/// Failures in a row after which an instance is avoided.
const FAILURES: u32 = 2;
/// Retries that are allowed before any request has paid for them, and the most that can be saved up.
const ALLOWANCE: f64 = 50.0;

/// Chooses the instance for one try.
pub(super) trait Choose: Send + 'static {
    /// The number of the next instance, not one of `tried` if there is another; none if nobody may be asked.
    fn choose(&mut self, now: Instant, tried: &[usize]) -> Option<usize>;
    /// Hears how a try ended: whether the instance answered at all. A refusal for overload is an answer.
    fn report(&mut self, now: Instant, index: usize, answered: bool);
}

/// Passive health of one instance.
#[derive(Debug, Default)]
pub(super) struct Passive {
    failures: u32,
    avoid_until: Option<Instant>,
}

impl Passive {
    /// Whether it is left alone at `now`.
    pub(super) fn avoided(&self, now: Instant) -> bool {
        self.avoid_until.is_some_and(|until| now < until)
    }

    /// Called when it is chosen: the one trial after the pause starts the next pause, which an answer ends.
    pub(super) fn chosen(&mut self, now: Instant) {
        if self.failures >= FAILURES {
            self.avoid_until = Some(now + AVOID);
        }
    }

    /// Counts an answer or a failure.
    pub(super) fn report(&mut self, now: Instant, answered: bool) {
        if answered {
            *self = Self::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.avoid_until = Some(now + AVOID);
        }
    }
}

/// Round robin over the instances that are not avoided.
#[derive(Debug)]
pub(super) struct RoundRobin {
    passive: Vec<Passive>,
    next: usize,
}

impl RoundRobin {
    /// Over so many instances.
    pub(super) fn new(instances: usize) -> Self {
        Self { passive: (0..instances).map(|_| Passive::default()).collect(), next: 0 }
    }
}

impl Choose for RoundRobin {
    fn choose(&mut self, now: Instant, tried: &[usize]) -> Option<usize> {
        let count = self.passive.len();
        let order = (0..count).map(|step| (self.next + step) % count);
        let fresh = |index: &usize| !tried.contains(index);
        let index = order
            .clone()
            .find(|index| fresh(index) && !self.passive[*index].avoided(now))
            .or_else(|| order.clone().find(fresh))
            .or_else(|| order.clone().next())?;
        self.next = (index + 1) % count;
        self.passive[index].chosen(now);
        Some(index)
    }

    fn report(&mut self, now: Instant, index: usize, answered: bool) {
        self.passive[index].report(now, answered);
    }
}

/// Bounds retries to a share of requests.
#[derive(Debug)]
pub(super) struct Budget {
    share: f64,
    tokens: f64,
}

impl Budget {
    /// Each request pays for `share` of a retry.
    pub(super) fn new(share: f64) -> Self {
        Self { share, tokens: if share > 0.0 { ALLOWANCE } else { 0.0 } }
    }

    /// A request (not a retry) was made.
    pub(super) fn request(&mut self) {
        self.tokens = (self.tokens + self.share).min(ALLOWANCE);
    }

    /// Takes one retry, if there is one left.
    pub(super) fn take(&mut self) -> bool {
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_failed_twice_gets_one_request_per_pause_until_it_answers() {
        let start = Instant::now();
        let mut pick = RoundRobin::new(2);
        for _ in 0..2 {
            pick.report(start, 0, false);
        }
        let mut asked = |at: Instant| (0..10).filter(|_| pick.choose(at, &[]) == Some(0)).count();
        assert_eq!(asked(start + AVOID / 2), 0);
        assert_eq!(asked(start + AVOID), 1);
        assert_eq!(asked(start + AVOID + AVOID / 2), 0);
        pick.report(start + AVOID * 2, 0, true);
        let at = start + AVOID * 2;
        assert_eq!((0..10).filter(|_| pick.choose(at, &[]) == Some(0)).count(), 5);
    }

    #[test]
    fn a_retry_goes_elsewhere_if_there_is_an_elsewhere() {
        let now = Instant::now();
        let mut two = RoundRobin::new(2);
        for _ in 0..5 {
            let first = two.choose(now, &[]).unwrap();
            assert_eq!(two.choose(now, &[first]), Some(1 - first));
        }
        let mut one = RoundRobin::new(1);
        assert_eq!(one.choose(now, &[0]), Some(0));
    }

    #[test]
    fn if_all_are_avoided_none_is() {
        let now = Instant::now();
        let mut pick = RoundRobin::new(1);
        pick.report(now, 0, false);
        pick.report(now, 0, false);
        assert_eq!(pick.choose(now, &[]), Some(0));
    }

    #[test]
    fn retries_stay_within_their_share_of_requests() {
        let mut budget = Budget::new(0.2);
        let mut granted = 0;
        for _ in 0..10_000 {
            budget.request();
            granted += u32::from(budget.take());
        }
        assert!((2000..=2000 + ALLOWANCE as u32).contains(&granted), "{granted}");
        assert!(!Budget::new(0.0).take());
    }
}
