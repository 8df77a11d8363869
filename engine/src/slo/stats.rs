//! The arithmetic of a verdict: intervals, never bare estimates. Two-sided, 95 %.
//!
//! Requests are taken as independent. Within one second they are not quite; the intervals are then a little too narrow,
//! which is why verdicts also need the whole interval on one side.

/// The 97.5 % point of the normal distribution.
pub const Z: f64 = 1.959_963_985;

/// Wilson's score interval of a proportion (Wilson 1927): good of all.
pub fn share(good: u64, all: u64) -> Option<(f64, f64)> {
    if all == 0 {
        return None;
    }
    let (n, p) = (all as f64, good as f64 / all as f64);
    let z2 = Z * Z;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let low = if good == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if good == all { 1.0 } else { (centre + half).min(1.0) };
    Some((low, high))
}

/// Ranks, counted from 1, between which a quantile lies: order statistics by the normal approximation of the
/// binomial, rounded outwards. A rank of 0, or one above `n`, means that the data give no such bound.
pub fn quantile_ranks(q: f64, n: u64) -> (u64, u64) {
    let n = n as f64;
    let (mean, half) = (n * q, Z * (n * q * (1.0 - q)).sqrt());
    ((mean - half).floor().max(0.0) as u64, (mean + half).ceil() as u64)
}

/// The rank, counted from 1, of a quantile's point estimate among `n` values.
pub fn rank(q: f64, n: u64) -> u64 {
    // Products such as 0.99 × 100 must not end up a hair above the whole number.
    ((q * n as f64 - 1e-9).ceil() as u64).clamp(1, n.max(1))
}

/// Interval of a mean by the normal approximation; needs at least two values.
pub fn mean(values: &[f64]) -> Option<(f64, f64, f64)> {
    let n = values.len() as f64;
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = Z * (variance / n).sqrt();
    Some((mean, mean - half, mean + half))
}

/// Requests without a single failure after which a share of at least this can be held.
pub fn samples_for_share(limit: f64) -> f64 {
    if limit >= 1.0 { f64::INFINITY } else { Z * Z * limit / (1.0 - limit) }
}

/// Requests from which on a quantile has an upper bound at all.
pub fn samples_for_quantile(q: f64) -> f64 {
    Z * Z * q / (1.0 - q)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranks_are_those_of_the_exact_binomial() {
        // Exact 95 % order-statistic ranks, computed elsewhere.
        for (q, n, exact) in [
            (0.99, 500, (490, 500)),
            (0.99, 1_000, (983, 997)),
            (0.99, 10_000, (9880, 9920)),
            // One rank further out than the exact one: rounding outwards is never wrong.
            (0.99, 1_000_000, (989_804, 990_196)),
            (0.999, 5_000, (4990, 5000)),
            (0.999, 10_000, (9983, 9997)),
        ] {
            assert_eq!(quantile_ranks(q, n), exact, "p{} of {n}", q * 100.0);
        }
        assert!(quantile_ranks(0.999, 1000).1 > 1000, "a thousand requests do not bound p99.9");
    }

    #[test]
    fn no_failures_do_not_prove_perfection() {
        let (low, high) = share(1000, 1000).unwrap();
        assert!(low < 0.9970 && low > 0.9950 && high == 1.0);
        assert!(share(0, 0).is_none());
        let enough = samples_for_share(0.999).ceil() as u64;
        assert!(share(enough, enough).unwrap().0 >= 0.999);
        assert!(share(enough - 10, enough - 10).unwrap().0 < 0.999);
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_estimate_and_shrinks(good in 0u64..1000, more in 1u64..1000) {
            let all = good + more;
            let (low, high) = share(good, all).unwrap();
            let p = good as f64 / all as f64;
            prop_assert!(low <= p + 1e-12 && p <= high + 1e-12 && (0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
            let (low4, high4) = share(good * 4, all * 4).unwrap();
            prop_assert!(high4 - low4 <= high - low + 1e-12);
        }

        #[test]
        fn the_interval_covers_the_truth_about_as_often_as_it_says(seed in 0u64..20) {
            let mut random = crate::random::Random::new(seed, 0);
            let mut covered = 0;
            for _ in 0..200 {
                let mut good = 0;
                for _ in 0..500 {
                    good += u64::from(random.unit() < 0.97);
                }
                let (low, high) = share(good, 500).unwrap();
                covered += u32::from(low <= 0.97 && 0.97 <= high);
            }
            prop_assert!(covered >= 176, "covered {covered} of 200");
        }
    }
}
