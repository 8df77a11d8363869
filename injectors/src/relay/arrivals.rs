//! How many connections have come lately: what tells a port that clients use from one that nobody dials.

use std::time::{Duration, Instant};

/// How far back `Arrivals::lately` looks.
pub const LATELY: Duration = Duration::from_secs(10);
/// One slot for each second looked back on, and one for the second that has just begun.
const SLOTS: usize = LATELY.as_secs() as usize + 1;

/// A count for each of the last seconds. Pure: the clock is given.
#[derive(Debug)]
pub(crate) struct Arrivals {
    born: Instant,
    /// The second since birth, and how many came in it.
    slots: [(u64, u64); SLOTS],
}

impl Arrivals {
    /// Nobody has come yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { born: now, slots: [(0, 0); SLOTS] }
    }

    /// One more has come.
    pub(crate) fn note(&mut self, now: Instant) {
        let second = self.second(now);
        let slot = &mut self.slots[(second % SLOTS as u64) as usize];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += 1;
    }

    /// How many came in the last [`LATELY`], give or take what came in one second.
    pub(crate) fn lately(&self, now: Instant) -> u64 {
        let now = self.second(now);
        let recent = |(second, _): &&(u64, u64)| second + SLOTS as u64 > now;
        self.slots.iter().filter(recent).map(|(_, count)| count).sum()
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_lately_is_counted_and_forgotten_in_time() {
        let born = Instant::now();
        let at = |seconds: f64| born + Duration::from_secs_f64(seconds);
        let mut arrivals = Arrivals::new(born);
        assert_eq!(arrivals.lately(at(0.0)), 0);
        for tenth in 0..300 {
            arrivals.note(at(f64::from(tenth) / 10.0));
        }
        assert_eq!(arrivals.lately(at(29.95)), 110);
        assert_eq!(arrivals.lately(at(35.0)), 50);
        assert_eq!(arrivals.lately(at(40.0)), 0);
        assert_eq!(arrivals.lately(at(4000.0)), 0);
        arrivals.note(at(4000.5));
        assert_eq!(arrivals.lately(at(4010.4)), 1);
    }
}
