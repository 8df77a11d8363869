//! Clocks and timers of the kernel: precise to microseconds, where tokio's own round up to a millisecond.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

const SECOND: u64 = 1_000_000_000;

/// Now on CLOCK_MONOTONIC, in nanoseconds.
pub fn monotonic() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// CPU time that this thread has used, in nanoseconds.
pub fn thread_cpu() -> u64 {
    nanos(clock_gettime(ClockId::ThreadCPUTime))
}

fn nanos(time: Timespec) -> u64 {
    (time.tv_sec as u64).wrapping_mul(SECOND).wrapping_add(time.tv_nsec as u64)
}

/// Asks the kernel not to bundle this thread's timers with others. Best effort: without it they are up to 50 µs late.
pub fn precise() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// A timer on CLOCK_MONOTONIC that becomes readable when it fires.
///
/// # Errors
/// No descriptor is left.
pub fn open() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    Ok(timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

/// Makes the timer fire once after this time, or as soon as possible if it is zero.
///
/// # Errors
/// It is no timer.
pub fn fire_after(timer: impl AsFd, after: Duration) -> io::Result<()> {
    let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX).max(1);
    set(timer, TimerfdTimerFlags::empty(), nanos)
}

/// Makes the timer fire once at this time of [`monotonic`], or as soon as possible if it is past.
///
/// # Errors
/// It is no timer.
pub fn fire_at(timer: impl AsFd, at: u64) -> io::Result<()> {
    set(timer, TimerfdTimerFlags::ABSTIME, at.max(1))
}

fn set(timer: impl AsFd, flags: TimerfdTimerFlags, nanos: u64) -> io::Result<()> {
    let value = Timespec { tv_sec: (nanos / SECOND) as i64, tv_nsec: (nanos % SECOND) as i64 };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    timerfd_settime(timer, flags, &once)?;
    Ok(())
}
