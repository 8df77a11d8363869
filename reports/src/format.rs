//! Numbers for people. Rounding never hides a miss: a share that is not 100 % is never printed as 100 %.

use crate::record::{ObjectiveResult, Sli};

/// Printed where there is no number.
pub const NONE: &str = "–";

/// Most decimals of a share in percent.
const DECIMALS_MAX: usize = 5;

/// A duration in seconds with three significant digits and the unit that suits it: `212 ms`, `1.25 s`, `2 min 5 s`.
pub fn seconds(s: f64) -> String {
    if !s.is_finite() {
        return NONE.to_owned();
    }
    if s.abs() >= 120.0 {
        return long_seconds(s);
    }
    let rounded = significant(s, 3);
    let (value, unit) = in_unit(rounded);
    let decimals = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

/// A duration in seconds as a person would write it: no digit too many, none lost: `250 ms`, `1.5 s`.
pub fn seconds_exact(s: f64) -> String {
    if !s.is_finite() {
        return NONE.to_owned();
    }
    if s.abs() >= 120.0 && s.fract() == 0.0 {
        return long_seconds(s);
    }
    let (value, unit) = in_unit(s);
    format!("{} {unit}", trimmed(value, 6))
}

/// Minutes and hours, to the second.
fn long_seconds(s: f64) -> String {
    let sign = if s < 0.0 { "-" } else { "" };
    let whole = s.abs().round() as u64;
    let parts = [(whole / 3600, "h"), (whole / 60 % 60, "min"), (whole % 60, "s")];
    let words: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n} {unit}")).collect();
    format!("{sign}{}", words.join(" "))
}

/// The value in s, ms or µs.
fn in_unit(s: f64) -> (f64, &'static str) {
    match s.abs() {
        v if v >= 1.0 || v == 0.0 => (s, "s"),
        v if v >= 1e-3 => (s * 1e3, "ms"),
        _ => (s * 1e6, "µs"),
    }
}

/// Rounded to so many significant digits.
fn significant(value: f64, digits: i32) -> f64 {
    if value.abs() < 1e-12 {
        return 0.0;
    }
    let scale = 10f64.powi(digits - 1 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// Without zeros at the end.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A point in time of the run: `15.0 s`, or `1:02:03` from two minutes on.
pub fn instant(s: f64) -> String {
    if !s.is_finite() {
        return NONE.to_owned();
    }
    if s.abs() < 120.0 {
        return format!("{s:.1} s");
    }
    clock(s)
}

/// A point in time as `m:ss` or `h:mm:ss`.
pub fn clock(s: f64) -> String {
    let sign = if s < 0.0 { "-" } else { "" };
    let whole = s.abs().round() as u64;
    let (h, m, s) = (whole / 3600, whole / 60 % 60, whole % 60);
    if h > 0 { format!("{sign}{h}:{m:02}:{s:02}") } else { format!("{sign}{m}:{s:02}") }
}

/// A share from 0 to 1: `99.97%`. As many decimals as the distance from 0 or 100 % needs, at least two.
pub fn share(x: f64) -> String {
    share_with(x, decimals(x))
}

/// A share without decimals, for proportions that nobody judges: `72%`.
pub fn percent(x: f64) -> String {
    if x.is_finite() { format!("{:.0}%", x * 100.0) } else { NONE.to_owned() }
}

/// The whole or nothing, but for rounding: no run has a thousand million requests.
fn is_extreme(x: f64) -> bool {
    x.abs() < 1e-9 || (1.0 - x).abs() < 1e-9
}

/// Decimals that keep a share apart from 0 and from 100 %.
fn decimals(x: f64) -> usize {
    let distance = 100.0 * x.abs().min((1.0 - x).abs());
    if is_extreme(x) || !distance.is_finite() {
        return 2;
    }
    ((-distance.log10() - 1e-6).ceil().max(2.0) as usize).min(DECIMALS_MAX)
}

/// A share in percent with so many decimals; only 0 and 1 are printed as 0 % and 100 %.
fn share_with(x: f64, decimals: usize) -> String {
    if !x.is_finite() {
        return NONE.to_owned();
    }
    if is_extreme(x) {
        return format!("{:.0}%", x.abs() * 100.0);
    }
    let smallest = 10f64.powi(-(decimals as i32));
    let percent = x * 100.0;
    if x > 0.0 && percent < smallest / 2.0 {
        return format!("<{smallest:.decimals$}%");
    }
    if x < 1.0 && 100.0 - percent < smallest / 2.0 {
        return format!(">{:.decimals$}%", 100.0 - smallest);
    }
    format!("{percent:.decimals$}%")
}

/// Per second: `399.6/s`, `12,400/s`.
pub fn rate(r: f64) -> String {
    match r.abs() {
        _ if !r.is_finite() => NONE.to_owned(),
        v if v >= 1000.0 => format!("{}{}/s", if r < 0.0 { "-" } else { "" }, count(v.round() as u64)),
        v if v >= 10.0 || v == 0.0 => format!("{}/s", trimmed(r, 1)),
        _ => format!("{}/s", trimmed(r, 3)),
    }
}

/// A number of things: `24,000`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of a thing: `1 phase`, `2 phases`.
pub fn many(n: u64, one: &str) -> String {
    format!("{} {one}{}", count(n), if n == 1 { "" } else { "s" })
}

/// A measured value of an SLI.
pub fn value(sli: Sli, v: f64) -> String {
    match sli {
        Sli::Availability => share(v),
        Sli::Latency(_) => seconds(v),
        Sli::Throughput => rate(v),
    }
}

/// The clause: `≥ 99.9%`, `≤ 250 ms`.
pub fn limit(sli: Sli, at_least: bool, limit: f64) -> String {
    let sign = if at_least { '≥' } else { '≤' };
    let value = match sli {
        Sli::Availability => format!("{}%", trimmed(limit * 100.0, 6)),
        Sli::Latency(_) => seconds_exact(limit),
        Sli::Throughput => rate(limit),
    };
    format!("{sign} {value}")
}

/// The point estimate of a result, with as many decimals as its interval. A latency whose quantile is a failure is
/// beyond measure.
pub fn estimate(result: &ObjectiveResult) -> String {
    match (result.estimate, result.sli) {
        (Some(v), _) => alike(result, v),
        (None, Sli::Latency(_)) if result.samples > 0 => "failed".to_owned(),
        (None, _) => NONE.to_owned(),
    }
}

/// The 95 % interval of a result: `[99.90%, 99.99%]`, with one end only `≥ 561 ms`; empty when there is none.
pub fn interval(result: &ObjectiveResult) -> String {
    match (result.low, result.high) {
        (None, None) => String::new(),
        (Some(low), Some(high)) => format!("[{}, {}]", alike(result, low), alike(result, high)),
        (Some(low), None) => format!("≥ {}", alike(result, low)),
        (None, Some(high)) => format!("≤ {}", alike(result, high)),
    }
}

/// Estimate and interval: `99.97% [99.90%, 99.99%]`.
pub fn estimate_and_interval(result: &ObjectiveResult) -> String {
    format!("{} {}", estimate(result), interval(result)).trim_end().to_owned()
}

/// One number of a result in the precision that suits all three.
fn alike(result: &ObjectiveResult, v: f64) -> String {
    if result.sli != Sli::Availability {
        return value(result.sli, v);
    }
    let numbers = [result.estimate, result.low, result.high];
    share_with(v, numbers.into_iter().flatten().map(decimals).max().unwrap_or(2))
}

/// A date: `2026-11-23 15:38:12 UTC`.
pub fn utc(unix_s: f64) -> String {
    civil(unix_s).map_or_else(|| NONE.to_owned(), |(date, time)| format!("{date} {time} UTC"))
}

/// A date as ISO 8601: `2026-11-23T15:38:12Z`; the epoch when it is no date.
pub fn iso(unix_s: f64) -> String {
    civil(unix_s).map_or_else(|| "1970-01-01T00:00:00Z".to_owned(), |(date, time)| format!("{date}T{time}Z"))
}

/// Date and time of day in UTC, for the years 1970 to 9999.
fn civil(unix_s: f64) -> Option<(String, String)> {
    if !(0.0..253_402_300_800.0).contains(&unix_s) {
        return None;
    }
    let whole = unix_s as u64;
    let time = whole % 86_400;
    // Days to a date as in Howard Hinnant's `civil_from_days`: eras of 400 years that start in March.
    let days = whole / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    Some((
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Phase, Verdict};

    #[test]
    fn durations_have_three_digits_and_a_fitting_unit() {
        let table = [
            (0.0, "0 s"),
            (0.000_012_34, "12.3 µs"),
            (0.000_999_9, "1.00 ms"),
            (0.0212, "21.2 ms"),
            (0.212_4, "212 ms"),
            (0.9999, "1.00 s"),
            (59.96, "60.0 s"),
            (125.0, "2 min 5 s"),
            (7200.0, "2 h"),
            (f64::NAN, NONE),
        ];
        for (s, text) in table {
            assert_eq!(seconds(s), text);
        }
        assert_eq!(seconds(1e-320), "0 s");
        assert_eq!(seconds_exact(0.25), "250 ms");
        assert_eq!(seconds_exact(1.2345), "1.2345 s");
        assert_eq!((instant(15.04), instant(3723.0)), ("15.0 s".to_owned(), "1:02:03".to_owned()));
    }

    #[test]
    fn shares_show_how_far_they_are_from_the_whole() {
        let table = [
            (1.0, "100%"),
            (0.0, "0%"),
            (0.9731, "97.31%"),
            (0.9997, "99.97%"),
            (0.999_96, "99.996%"),
            (0.999_999_99, ">99.99999%"),
            (0.999_999_999_999, "100%"),
            (0.000_000_01, "<0.00001%"),
            (0.5, "50.00%"),
        ];
        for (x, text) in table {
            assert_eq!(share(x), text);
        }
    }

    #[test]
    fn limits_keep_the_digits_they_were_written_with() {
        assert_eq!(limit(Sli::Availability, true, 0.999), "≥ 99.9%");
        assert_eq!(limit(Sli::Latency(0.99), false, 0.25), "≤ 250 ms");
        assert_eq!(limit(Sli::Throughput, true, 1200.0), "≥ 1,200/s");
        assert_eq!((rate(399.62), rate(0.25), rate(0.0)), ("399.6/s".into(), "0.25/s".into(), "0/s".into()));
    }

    #[test]
    fn an_interval_has_the_precision_of_its_estimate() {
        let mut result = ObjectiveResult {
            journey: "checkout".into(),
            phase: Phase::Fault,
            sli: Sli::Availability,
            at_least: true,
            limit: 0.999,
            estimate: Some(0.9997),
            low: Some(0.999),
            high: Some(0.9999),
            samples: 6000,
            verdict: Verdict::Held,
            note: None,
        };
        assert_eq!(estimate_and_interval(&result), "99.97% [99.90%, 99.99%]");
        result.high = None;
        assert_eq!(interval(&result), "≥ 99.90%");
        (result.estimate, result.low, result.high) = (None, None, None);
        assert_eq!(estimate_and_interval(&result), NONE);
        result.sli = Sli::Latency(0.99);
        assert_eq!(
            estimate_and_interval(&result),
            "failed",
            "a quantile that is a failure is no missing data"
        );
        result.samples = 0;
        assert_eq!(estimate_and_interval(&result), NONE);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0.0), "1970-01-01 00:00:00 UTC");
        assert_eq!(iso(951_782_400.0), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_448_292.5), "2026-11-23 15:38:12 UTC");
        assert_eq!(utc(f64::NAN), NONE);
    }

    proptest! {
        #[test]
        fn only_the_whole_is_printed_as_the_whole(x in 1e-8f64..0.999_999_99) {
            prop_assert_ne!(share(x), "100%");
            prop_assert_ne!(share(x), "0%");
        }

        #[test]
        fn every_number_can_be_printed(x in any::<f64>(), n in any::<u64>()) {
            for text in [seconds(x), seconds_exact(x), instant(x), share(x), percent(x), rate(x), utc(x), iso(x), count(n)] {
                prop_assert!(!text.is_empty() && !text.contains("NaN"), "{}", text);
            }
        }
    }
}
