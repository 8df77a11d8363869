//! The edge's cache. Pure: time comes in as an argument.
//!
//! Invariants: at most [`ENTRIES_MAX`] entries; a fresh answer is younger than its time to live; a stale one is only
//! given out when the origin failed, and only if its path allows that.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::wire::Reply;

/// The most entries; a new one beyond it replaces the oldest.
const ENTRIES_MAX: usize = 1024;

/// How long answers of one path may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keep {
    /// Served without asking the origin.
    pub(super) fresh: Duration,
    /// Served if the origin fails; counts from the same start.
    pub(super) stale: Duration,
}

/// `/browse` lives for a second and is never served stale: what it shows must be current.
pub(super) const BROWSE: Keep = Keep { fresh: Duration::from_secs(1), stale: Duration::ZERO };
/// Assets do not change: a minute without asking, ten if the origin is gone.
pub(super) const ASSET: Keep = Keep { fresh: Duration::from_mins(1), stale: Duration::from_mins(10) };

/// Answers by path and query.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<String, (Instant, Reply)>,
}

impl Cache {
    /// The answer to this path and query, if it is younger than `age`.
    pub(super) fn get(&self, now: Instant, key: &str, age: Duration) -> Option<Reply> {
        let (stored, reply) = self.entries.get(key)?;
        (now.duration_since(*stored) < age).then(|| reply.clone())
    }

    /// Keeps an answer.
    pub(super) fn put(&mut self, now: Instant, key: String, reply: Reply) {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&key) {
            let oldest =
                self.entries.iter().min_by_key(|(_, (stored, _))| *stored).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(key, (now, reply));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_with_its_age_and_the_number_of_entries_is_bounded() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.put(now, "/browse".to_owned(), Reply::ok("x"));
        assert!(cache.get(now + BROWSE.fresh / 2, "/browse", BROWSE.fresh).is_some());
        assert!(cache.get(now + BROWSE.fresh, "/browse", BROWSE.fresh).is_none());
        assert!(cache.get(now, "/browse?page=2", BROWSE.fresh).is_none());
        for n in 0..2 * ENTRIES_MAX as u64 {
            cache.put(now + Duration::from_nanos(n + 1), format!("/browse?{n}"), Reply::ok("x"));
        }
        assert_eq!(cache.entries.len(), ENTRIES_MAX);
        assert!(cache.get(now, "/browse", BROWSE.fresh).is_none(), "the oldest entry is the one that goes");
    }
}
