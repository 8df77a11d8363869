//! How measurements of a relay become proofs.

use std::time::Duration;

use crate::change::{Proof, ProofStatus};
use crate::relay::Observation;
use crate::relay::fault::{Distribution, Scatter};
use crate::units::Span;

/// The normal quantile of a two-sided interval of 99.99 %: of ten thousand faults that are as requested, chance makes one
/// look as if it were not.
const Z: f64 = 3.891;

/// A judgement with its numbers.
pub(crate) fn judged(
    good: bool,
    requested: impl Into<String>,
    measured: impl Into<String>,
    tolerance: impl Into<String>,
    samples: u64,
) -> Proof {
    let status = if good { ProofStatus::Confirmed } else { ProofStatus::Mismatch };
    Proof {
        status,
        requested: requested.into(),
        measured: measured.into(),
        tolerance: tolerance.into(),
        samples,
    }
}

/// Seconds as people read them, to a microsecond.
pub(crate) fn time(seconds: f64) -> String {
    let micros = (seconds.max(0.0) * 1e6).round() as u64;
    if micros >= 1000 {
        let text = format!("{:.1}", micros as f64 / 1e3);
        return format!("{}ms", text.strip_suffix(".0").unwrap_or(&text));
    }
    Span(Duration::from_micros(micros)).to_string()
}

/// A share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// A delay as it was asked for.
pub(crate) fn delay_words(scatter: &Scatter) -> String {
    if scatter.jitter.0.is_zero() {
        return format!("+{}", scatter.delay);
    }
    let shape = match scatter.distribution {
        Distribution::Uniform => "",
        Distribution::Normal => " normal",
        Distribution::Pareto => " pareto",
    };
    format!("+{} ±{}{shape}", scatter.delay, scatter.jitter)
}

/// How far the mean of so many delays may be off: 5 % or 2 ms, and what chance alone does to a mean.
pub(crate) fn delay_tolerance(scatter: &Scatter, samples: u64) -> f64 {
    let chance = Z * scatter.deviation() / (samples.max(1) as f64).sqrt();
    (scatter.mean() * 0.05).max(0.002) + chance
}

/// Judges measured delays: `what` was delayed, in the plural; so many came, if that was counted.
pub(crate) fn judge_delay(
    requested: String,
    scatter: &Scatter,
    seen: &Observation,
    what: &str,
    came: Option<u64>,
) -> Proof {
    let delays = &seen.delays;
    if delays.samples == 0 {
        let why = match came {
            Some(0) => format!("no {what} came while the fault lived"),
            Some(came) => format!("{came} {what} came, none was held to its end yet"),
            None => format!("no {what} were held to their end while the fault lived"),
        };
        return Proof::unproven(requested, why);
    }
    let tolerance = delay_tolerance(scatter, delays.samples);
    let measured = format!(
        "+{} mean, {} p50, {} p99 of {} {what}",
        time(delays.mean),
        time(delays.p50),
        time(delays.p99),
        delays.samples
    );
    let good = (delays.mean - scatter.mean()).abs() <= tolerance;
    let words = format!("mean +{} ±{}", time(scatter.mean()), time(tolerance));
    judged(good, requested, measured, words, delays.samples)
}

/// The 99.99 % Wilson interval of a share, seen `hit` times in `all`.
pub(crate) fn wilson(hit: u64, all: u64) -> (f64, f64) {
    if all == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (all as f64, hit as f64 / all as f64);
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// Judges a share of cases: `what` in the plural, such as "matching requests".
pub(crate) fn judge_share(requested: String, share: f64, hit: u64, all: u64, what: &str) -> Proof {
    if all == 0 {
        return Proof::unproven(requested, format!("no {what} came while the fault lived"));
    }
    let measured = format!("{hit} of {all} {what}");
    let (low, high) = wilson(hit, all);
    if hit == 0 && share <= high {
        return Proof { samples: all, ..Proof::unproven(requested, format!("{measured}: too few to tell")) };
    }
    let good = (low - 1e-9..=high + 1e-9).contains(&share) && hit > 0;
    judged(
        good,
        requested,
        measured,
        format!("{} within the 99.99% interval {} to {}", percent(share), percent(low), percent(high)),
        all,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wilson_interval_is_that_of_the_formula() {
        // 10 of 100 at 99.99 %, worked out by hand from Wilson's formula.
        let (low, high) = wilson(10, 100);
        assert!((low - 0.0318).abs() < 5e-4 && (high - 0.2734).abs() < 5e-4, "{low} {high}");
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert!((wilson(50, 50).1 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_share_without_cases_is_unproven_and_a_wrong_one_is_a_mismatch() {
        let status = |share, hit, all| judge_share(String::new(), share, hit, all, "requests").status;
        assert_eq!(status(0.5, 0, 0), ProofStatus::Unproven);
        assert_eq!(status(0.01, 0, 5), ProofStatus::Unproven);
        assert_eq!(status(0.5, 0, 100), ProofStatus::Mismatch);
        assert_eq!(status(0.5, 48, 100), ProofStatus::Confirmed);
        assert_eq!(status(0.1, 48, 100), ProofStatus::Mismatch);
        assert_eq!(status(1.0, 100, 100), ProofStatus::Confirmed);
        assert_eq!(status(1.0, 99, 100), ProofStatus::Mismatch);
        assert_eq!(status(1.0, 80, 100), ProofStatus::Mismatch);
    }

    #[test]
    fn what_is_still_held_is_not_called_missing() {
        let measured = |chunks| {
            let seen = Observation { chunks, ..Observation::default() };
            judge_delay(String::new(), &Scatter::default(), &seen, "chunks", Some(seen.chunks)).measured
        };
        assert_eq!(measured(0), "no chunks came while the fault lived");
        assert_eq!(measured(7), "7 chunks came, none was held to its end yet");
    }

    #[test]
    fn times_read_as_people_write_them() {
        assert_eq!(time(0.2004), "200.4ms");
        assert_eq!(time(0.2), "200ms");
        assert_eq!(time(0.000_25), "250us");
    }
}
