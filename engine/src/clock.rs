//! The only file of the engine, beside the load workers' pacer, that reads real time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clock of one run: zero is the start of the load.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    origin_unix: Duration,
}

impl Clock {
    /// A clock whose zero lies this far in the future.
    pub fn starting_in(lead: Duration) -> Self {
        Self { origin: Instant::now() + lead, origin_unix: unix() + lead }
    }

    /// Zero, for those who wait for it.
    pub fn origin(&self) -> Instant {
        self.origin
    }

    /// Zero, in seconds since 1970.
    pub fn origin_unix_s(&self) -> f64 {
        self.origin_unix.as_secs_f64()
    }

    /// Seconds since zero; negative before it.
    pub fn now(&self) -> f64 {
        let now = Instant::now();
        match now.checked_duration_since(self.origin) {
            Some(since) => since.as_secs_f64(),
            None => -self.origin.duration_since(now).as_secs_f64(),
        }
    }

    /// The instant of a time of this clock.
    pub fn at(&self, seconds: f64) -> tokio::time::Instant {
        let offset = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX / 4);
        tokio::time::Instant::from_std(self.origin + offset)
    }
}

/// Time since 1970.
pub fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
