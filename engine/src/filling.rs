//! The values that the slots of one request take. They follow from the seed and numbers alone, so a request that is sent again
//! is the same again, whoever sends it. Pure.

use std::sync::Arc;

use crate::feed::Feed;
use crate::random::Random;
use crate::replay::{Shot, Trace};
use crate::template::{Replayed, Values};

/// See the module.
#[derive(Debug)]
pub struct Filling<'a> {
    feeds: &'a [Arc<Feed>],
    shot: Option<&'a Shot>,
    known: &'a [Option<Box<str>>],
    seed: u64,
    row: u64,
    number: u64,
    uuid: u128,
    random: Random,
}

impl<'a> Filling<'a> {
    /// For the request with this number, unique within a load: it takes the rows with the same.
    pub fn new(feeds: &'a [Arc<Feed>], seed: u64, number: u64) -> Self {
        let mut random = Random::new(seed.rotate_left(32), number);
        let uuid = u128::from(random.next()) << 64 | u128::from(random.next());
        Self { feeds, shot: None, known: &[], seed, row: number, number, uuid, random }
    }

    /// The same with what a log has for it.
    #[must_use]
    pub fn replaying(self, trace: Option<&'a Trace>) -> Self {
        Self { shot: trace.map(|trace| trace.shot(self.number)), ..self }
    }

    /// The same of somebody who has taken the rows with this number, and what has been extracted for him so far.
    #[must_use]
    pub fn of(self, row: u64, known: &'a [Option<Box<str>>]) -> Self {
        Self { known, row, ..self }
    }
}

impl Values for Filling<'_> {
    fn field(&self, feed: usize, column: usize) -> Option<&str> {
        // Feeds are drawn from independently of each other.
        let seed = self.seed.wrapping_add((feed as u64 + 1) << 48);
        let feed = self.feeds.get(feed)?;
        feed.row(seed, self.row).map(|row| feed.field(row, column))
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

    fn extracted(&self, index: usize) -> Option<&str> {
        self.known.get(index)?.as_deref()
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
