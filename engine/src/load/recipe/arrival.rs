//! The values that the slots of one request take.

use std::sync::Arc;

use crate::feed::Feed;
use crate::random::Random;
use crate::replay::{Shot, Trace};
use crate::template::{Replayed, Values};

/// The values of one arrival: what its number and the seed give.
#[derive(Debug)]
pub struct Arrival<'a> {
    feeds: &'a [Arc<Feed>],
    shot: Option<&'a Shot>,
    seed: u64,
    number: u64,
    uuid: u128,
    random: Random,
}

impl<'a> Arrival<'a> {
    /// The arrival with this number, unique within a load.
    pub fn new(feeds: &'a [Arc<Feed>], seed: u64, number: u64) -> Self {
        let mut random = Random::new(seed.rotate_left(32), number);
        let uuid = u128::from(random.next()) << 64 | u128::from(random.next());
        Self { feeds, shot: None, seed, number, uuid, random }
    }

    /// The same, with what a log has for it.
    #[must_use]
    pub fn replaying(self, trace: Option<&'a Trace>) -> Self {
        Self { shot: trace.map(|trace| trace.shot(self.number)), ..self }
    }
}

impl Values for Arrival<'_> {
    fn field(&self, feed: usize, column: usize) -> Option<&str> {
        // Feeds are drawn from independently of each other.
        let seed = self.seed.wrapping_add((feed as u64 + 1) << 48);
        let feed = self.feeds.get(feed)?;
        feed.row(seed, self.number).map(|row| feed.field(row, column))
    }

    fn counter(&self) -> u64 {
        self.number
    }

    fn uuid(&self) -> u128 {
        self.uuid
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }

    fn replayed(&self, part: Replayed) -> &[u8] {
        self.shot.map_or(&[], |shot| match part {
            Replayed::Target => shot.target.as_bytes(),
            Replayed::ContentType if shot.content_type.is_empty() => b"application/octet-stream",
            Replayed::ContentType => shot.content_type.as_bytes(),
            Replayed::Body => &shot.body,
        })
    }
}
