//! The values that the slots of one request of a journey take. They follow from the seed, the number of whoever goes through
//! it and the request's place: a request that is tried again is the same again. Pure.

use std::sync::Arc;

use super::Script;
use crate::feed::{Feed, Order};
use crate::random::Random;
use crate::template::Values;

/// See the module.
#[derive(Debug)]
pub struct Filling<'p> {
    feeds: &'p [Arc<Feed>],
    known: &'p [Option<Box<str>>],
    seed: u64,
    row: u64,
    number: u64,
    uuid: u128,
    random: Random,
}

impl<'p> Filling<'p> {
    /// For the request with this number, of somebody who has taken the rows with this one; `known` is what has been
    /// extracted so far.
    pub fn new(
        feeds: &'p [Arc<Feed>],
        known: &'p [Option<Box<str>>],
        seed: u64,
        row: u64,
        number: u64,
    ) -> Self {
        let mut random = Random::new(seed.rotate_left(32), number);
        let uuid = u128::from(random.next()) << 64 | u128::from(random.next());
        Self { feeds, known, seed, row, number, uuid, random }
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
}

/// Whether a feed that the script uses has no row any more for this number, nor for any that is higher.
pub fn exhausted(script: &Script, feeds: &[Arc<Feed>], row: u64) -> bool {
    let used = script.fields.keys().filter_map(|feed| feeds.get(*feed));
    used.filter(|feed| feed.order() == Order::Unique).any(|feed| feed.rows() as u64 <= row)
}
