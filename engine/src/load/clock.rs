//! The one file of this package that reads real time: nanoseconds since the start of the load, on CLOCK_MONOTONIC.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use injectors::sys::timer::{self, monotonic};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Nanoseconds in a second.
pub(super) const SECOND: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub(super) const MILLISECOND: u64 = 1_000_000;

/// How long before an arrival an exact pacer is awake: longer than most timers are late.
const SPIN: u64 = 80_000;

/// Counts from the start of the load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// The start on CLOCK_MONOTONIC.
    origin: u64,
}

impl Clock {
    /// Counts from this instant, which may lie ahead.
    pub(super) fn new(origin: Instant) -> Self {
        let (now, monotonic) = (Instant::now(), monotonic());
        let ahead = nanos(origin.saturating_duration_since(now));
        let behind = nanos(now.saturating_duration_since(origin));
        Self { origin: monotonic.saturating_add(ahead).saturating_sub(behind) }
    }

    /// Nanoseconds since the start; 0 before it.
    pub(super) fn now(self) -> u64 {
        monotonic().saturating_sub(self.origin)
    }

    /// Nanoseconds until a time of this clock, also from before the start; 0 from then on.
    pub(super) fn left(self, until: u64) -> u64 {
        self.origin.saturating_add(until).saturating_sub(monotonic())
    }
}

pub(super) use injectors::sys::timer::thread_cpu;

/// A duration in whole nanoseconds; the largest if it does not fit.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A timer of microsecond precision: a timerfd in the reactor. tokio's own timers are late by a millisecond.
#[derive(Debug)]
pub(super) struct Timer {
    clock: Clock,
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    /// Also asks the kernel not to bundle this thread's timers with others.
    ///
    /// # Errors
    /// No descriptor left, or no reactor.
    pub(super) fn new(clock: Clock) -> std::io::Result<Self> {
        timer::precise();
        let fd = timer::open()?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe code; the fault it warns of cannot happen to an OwnedFd"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self { clock, fd })
    }

    /// Returns just at this time: sleeps until shortly before it, and looks at the clock from then on. Whatever else this
    /// thread has to do waits for up to [`SPIN`] meanwhile.
    ///
    /// # Errors
    /// The timer cannot be set.
    pub(super) async fn just_at(&self, at: u64) -> std::io::Result<()> {
        if at > self.clock.now() + SPIN {
            self.until(at - SPIN).await?;
        }
        while self.clock.now() < at {
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Returns at this time, or at once if it is past.
    ///
    /// # Errors
    /// The timer cannot be set.
    pub(super) async fn until(&self, at: u64) -> std::io::Result<()> {
        timer::fire_at(self.fd.get_ref(), self.clock.origin.saturating_add(at))?;
        // Readiness is an edge for each expiry, and setting the timer resets its count: nothing needs to be read.
        self.fd.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_lies_ahead_is_waited_for_as_well() {
        let clock = Clock::new(Instant::now() + Duration::from_secs(100));
        assert_eq!(clock.now(), 0);
        let left = clock.left(SECOND);
        assert!((95 * SECOND..=101 * SECOND).contains(&left), "{left}");
        let begun = Clock::new(Instant::now());
        assert_eq!(begun.left(0), 0);
    }
}
