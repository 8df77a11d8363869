//! How many retries clients allow themselves: a share of their requests. Pure: time comes in as an argument.
//!
//! A leaky bucket of tokens, as Finagle's RetryBudget and the SRE book's 10 % rule: each request pays in a share of a token
//! that is good for ten seconds, each retry takes one out; ten more in ten seconds are always allowed, so that a client
//! with little traffic may retry at all.

use std::collections::VecDeque;

/// How long a payment is good, in seconds.
const GOOD_S: u64 = 10;
/// Retries in that time that need no payment.
const FREE: f64 = 10.0;

/// See the module.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    free: f64,
    /// By second: the balance of that second.
    seconds: VecDeque<(u64, f64)>,
}

impl Budget {
    /// Retries up to this share of requests; of so many processes, each has its part of those that are free.
    pub fn new(share: f64, processes: u32) -> Self {
        let free = if share > 0.0 { FREE / f64::from(processes.max(1)) } else { 0.0 };
        Self { share, free, seconds: VecDeque::new() }
    }

    fn book(&mut self, second: u64, tokens: f64) {
        while self.seconds.front().is_some_and(|(at, _)| at + GOOD_S <= second) {
            self.seconds.pop_front();
        }
        match self.seconds.back_mut() {
            Some((at, balance)) if *at >= second => *balance += tokens,
            _ => self.seconds.push_back((second, tokens)),
        }
    }

    /// A request, not a retry, was made.
    pub fn request(&mut self, second: u64) {
        self.book(second, self.share);
    }

    /// Takes one retry, if the budget allows it.
    pub fn take(&mut self, second: u64) -> bool {
        self.book(second, 0.0);
        let balance: f64 = self.seconds.iter().map(|(_, tokens)| tokens).sum();
        let allowed = balance + self.free >= 1.0 - 1e-9;
        if allowed {
            self.book(second, -1.0);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_below_their_share_of_requests() {
        let mut budget = Budget::new(0.1, 1);
        let mut retries = 0;
        for request in 0..10_000u64 {
            budget.request(request / 100);
            // Everything fails, and everybody would try twice more.
            retries += (0..2).filter(|_| budget.take(request / 100)).count();
        }
        // 1,000 are paid for; ten in ten seconds are free, of a hundred seconds.
        assert!((1000..=1110).contains(&retries), "{retries}");
    }

    #[test]
    fn what_was_saved_up_is_good_for_ten_seconds() {
        let mut budget = Budget::new(0.1, 1);
        (0..10_000).for_each(|_| budget.request(0));
        assert!((0..500).all(|_| budget.take(9)));
        assert_eq!((0..500).filter(|_| budget.take(30)).count(), 10);
        assert!(!Budget::new(0.0, 1).take(0), "none is none");
        let mut part = Budget::new(0.1, 4);
        assert_eq!((0..500).filter(|_| part.take(30)).count(), 2, "of ten, two and a half");
    }
}
