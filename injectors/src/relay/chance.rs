//! Seeded choices: the same seed and number give the same answer in every run.

use std::time::Duration;

use super::fault::{Distribution, Scatter};

/// The largest Pareto excess, in units of the jitter; longer draws have a chance of one in nine thousand.
const PARETO_MAX: f64 = 20.0;

/// A well-mixed number from a seed and a running number (splitmix64).
fn mix(seed: u64, number: u64) -> u64 {
    let mut x = seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Whether the connection or request with this number is among the share (0 to 1).
pub(crate) fn chosen(seed: u64, number: u64, share: f64) -> bool {
    unit(mix(mix(seed, 0), number)) < share
}

/// From 0 (included) to 1 (excluded).
fn unit(x: u64) -> f64 {
    (x >> 11) as f64 / (1u64 << 53) as f64
}

/// A stream of random numbers.
#[derive(Debug)]
pub(crate) struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    /// The stream that belongs to this seed and connection.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        Self { seed: mix(seed, number.wrapping_add(1 << 32)), thrown: 0 }
    }

    /// From 0 (included) to 1 (excluded).
    pub(crate) fn unit(&mut self) -> f64 {
        self.thrown += 1;
        unit(mix(self.seed, self.thrown))
    }

    /// One delay from the distribution.
    pub(crate) fn delay(&mut self, scatter: &Scatter) -> Duration {
        let (delay, jitter) = (scatter.delay.0.as_secs_f64(), scatter.jitter.0.as_secs_f64());
        if jitter == 0.0 {
            return scatter.delay.0;
        }
        let seconds = match scatter.distribution {
            Distribution::Uniform => delay + jitter * (2.0 * self.unit() - 1.0),
            Distribution::Normal => {
                let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
                let cut = (delay / jitter).min(3.0);
                delay + jitter * normal.clamp(-cut, cut)
            }
            Distribution::Pareto => {
                delay + jitter * ((1.0 - self.unit()).powf(-1.0 / 3.0) - 1.0).min(PARETO_MAX)
            }
        };
        Duration::from_secs_f64(seconds.max(0.0))
    }

    /// A whole number from `low` to `high`, ends included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + (self.unit() * (high - low + 1) as f64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;

    #[test]
    fn a_share_is_met_over_many_connections_and_repeats_with_the_seed() {
        for share in [0.0, 0.1, 0.5, 1.0] {
            let hit = (0..10_000).filter(|n| chosen(7, *n, share)).count() as f64 / 1e4;
            assert!((hit - share).abs() < 0.015, "{hit} instead of {share}");
        }
        let row = |seed| (0..64).map(|n| chosen(seed, n, 0.5)).collect::<Vec<_>>();
        assert_eq!(row(1), row(1));
        assert_ne!(row(1), row(2));
    }

    #[test]
    fn every_distribution_has_the_mean_and_the_spread_that_it_documents() {
        for distribution in [Distribution::Uniform, Distribution::Normal, Distribution::Pareto] {
            let scatter = Scatter {
                delay: Span(Duration::from_millis(100)),
                jitter: Span(Duration::from_millis(30)),
                distribution,
            };
            let mut dice = Dice::new(3, 5);
            let draws: Vec<f64> = (0..40_000).map(|_| dice.delay(&scatter).as_secs_f64()).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            assert!((mean - scatter.mean()).abs() < 0.001, "{distribution:?}: mean {mean}");
            assert!(variance.sqrt() <= scatter.deviation() * 1.05, "{distribution:?}: spread");
        }
    }

    #[test]
    fn whole_numbers_reach_both_ends() {
        let mut dice = Dice::new(1, 1);
        let draws: Vec<u64> = (0..1000).map(|_| dice.between(3, 5)).collect();
        assert!((3..=5).all(|n| draws.contains(&n)) && draws.iter().all(|n| (3..=5).contains(n)));
    }
}
