//! A finite worker pool as a virtual schedule. Pure: time comes in as an argument.
//!
//! Invariant: a worker's next start counts from the scheduled end of its last request, never from the moment at which
//! a timer fired. So capacity is exactly workers over service time, although timers are coarse.

use std::time::{Duration, Instant};

/// The schedule of one instance's workers.
#[derive(Debug)]
pub(super) struct Pool {
    free_at: Vec<Instant>,
    service_time: Duration,
    queue: Duration,
}

/// Every worker is busy for longer than a request may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Pool {
    /// Workers that are all free at `now`.
    pub(super) fn new(workers: u32, service_time: Duration, queue: Duration, now: Instant) -> Self {
        Self { free_at: vec![now; workers as usize], service_time, queue }
    }

    /// Gives a request that arrives at `now` to the earliest free worker and returns when it is done.
    /// A pool without workers is no pool: it is done at once.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Instant, Full> {
        let Some(free) = self.free_at.iter_mut().min() else { return Ok(now) };
        let start = now.max(*free);
        if start.duration_since(now) > self.queue {
            return Err(Full);
        }
        *free = start + self.service_time;
        Ok(*free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn under_overload_exactly_the_capacity_is_admitted() {
        let start = Instant::now();
        let mut pool = Pool::new(8, 4 * MS, 20 * MS, start);
        // 4,000 arrivals per second for ten seconds against a capacity of 2,000 per second.
        let admitted = (0..40_000u32).filter(|n| pool.admit(start + *n * MS / 4).is_ok()).count();
        // The queue adds at most its own 20 ms of work.
        assert!((20_000..=20_000 + 48).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_request_that_finds_a_free_worker_takes_the_service_time() {
        let start = Instant::now();
        let mut pool = Pool::new(2, 4 * MS, 20 * MS, start);
        let late = start + 100 * MS;
        assert_eq!(pool.admit(late), Ok(late + 4 * MS));
        assert_eq!(pool.admit(late), Ok(late + 4 * MS));
        assert_eq!(pool.admit(late), Ok(late + 8 * MS));
    }

    #[test]
    fn a_request_that_would_wait_too_long_is_refused_and_costs_nothing() {
        let start = Instant::now();
        let mut pool = Pool::new(1, 10 * MS, 10 * MS, start);
        assert_eq!(pool.admit(start), Ok(start + 10 * MS));
        assert_eq!(pool.admit(start), Ok(start + 20 * MS));
        assert_eq!(pool.admit(start), Err(Full));
        assert_eq!(pool.admit(start + 10 * MS), Ok(start + 30 * MS));
    }
}
