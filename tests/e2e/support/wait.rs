//! Waiting for conditions, with a deadline each. The one place that sleeps.
#![expect(clippy::disallowed_methods, reason = "tests are plain threads that look again and again")]

use std::time::{Duration, Instant};

/// Waits until there is something; panics after the deadline.
pub(crate) fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < deadline, "{what}: not within {deadline:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets time pass, where time itself is what is tested.
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}
