//! The times that logs have, as nanoseconds since 1970.

const SECOND: i128 = 1_000_000_000;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `10/Oct/2000:13:55:36 -0700`.
pub(super) fn common(text: &str) -> Option<i128> {
    let (date, zone) = text.split_once(' ')?;
    let mut parts = date.splitn(4, [':']);
    let mut day = parts.next()?.splitn(3, '/');
    let (d, month, year) = (number(day.next()?)?, day.next()?, number(day.next()?)?);
    let month = MONTHS.iter().position(|known| *known == month)? as i64 + 1;
    let (h, m, s) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    whole((year, month, d), (h, m, s), 0, zone_of(zone)?)
}

/// `2026-01-02T03:04:05.678Z`, or with `+01:00`, and with a blank instead of the `T`.
pub(super) fn iso(text: &str) -> Option<i128> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut day = date.splitn(3, '-');
    let (year, month, d) = (number(day.next()?)?, number(day.next()?)?, number(day.next()?)?);
    let end = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(end);
    let (clock, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':');
    let (h, m, s) = (number(clock.next()?)?, number(clock.next()?)?, number(clock.next()?)?);
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || fraction.len() > 18 {
        return None;
    }
    let nanos =
        fraction.bytes().chain([b'0'; 9]).take(9).fold(0, |n, digit| n * 10 + i128::from(digit - b'0'));
    let zone = if zone.is_empty() || zone == "Z" { 0 } else { zone_of(zone)? };
    whole((year, month, d), (h, m, s), nanos, zone)
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970: whichever gives a time of our century.
pub(super) fn epoch(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 20 || !digits(whole) || !digits(fraction) {
        return epoch_with_exponent(text);
    }
    let whole: i128 = whole.parse().ok()?;
    let unit = match whole {
        0..=99_999_999_999 => SECOND,
        100_000_000_000..=99_999_999_999_999 => 1_000_000,
        100_000_000_000_000..=99_999_999_999_999_999 => 1000,
        _ => 1,
    };
    // As text, since seconds with a fraction do not fit into a float to the nanosecond.
    let (mut part, mut scale) = (0, unit);
    for digit in fraction.bytes() {
        scale /= 10;
        part += i128::from(digit - b'0') * scale;
    }
    Some(whole * unit + part)
}

/// Such as `1.7e9`, as some write their numbers.
fn epoch_with_exponent(text: &str) -> Option<i128> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..1e11).contains(seconds))?;
    Some((seconds * 1e9) as i128)
}

/// Any of them.
pub(super) fn read(text: &str) -> Option<i128> {
    let text = text.trim();
    epoch(text).or_else(|| iso(text)).or_else(|| common(text))
}

fn number(text: &str) -> Option<i64> {
    let fits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// `+0100` or `+01:00`, in seconds.
fn zone_of(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits: String = digits.chars().filter(|c| *c != ':').collect();
    let number = number(&digits).filter(|_| digits.len() == 4)?;
    Some(sign * (number / 100 * 3600 + number % 100 * 60))
}

fn whole(
    (year, month, day): (i64, i64, i64),
    (h, m, s): (i64, i64, i64),
    nanos: i128,
    zone: i64,
) -> Option<i128> {
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day) && h < 24 && m < 60 && s <= 60;
    let seconds = days(year, month, day) * 86_400 + h * 3600 + m * 60 + s - zone;
    fits.then(|| i128::from(seconds) * SECOND + nanos)
}

/// Days since 1970 (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_logs_write_them() {
        // From the manual of Apache.
        assert_eq!(common("10/Oct/2000:13:55:36 -0700"), Some(971_211_336 * SECOND));
        assert_eq!(iso("2000-10-10T13:55:36.25-07:00"), Some(971_211_336 * SECOND + 250_000_000));
        assert_eq!(iso("2000-02-29 23:59:59Z"), Some(951_868_799 * SECOND));
        assert_eq!(iso("1970-01-01T00:00:00+00:00"), Some(0));
        let millis = Some(971_211_336_123 * 1_000_000);
        for text in ["971211336.123", "971211336123", "971211336123000", "971211336123000000"] {
            assert_eq!(read(text), millis, "{text}");
        }
        assert_eq!(read("1.7e9"), Some(1_700_000_000 * SECOND));
        for wrong in
            ["", "-", "10/Okt/2000:13:55:36 -0700", "2000-13-01T00:00:00Z", "2000-01-01", "-5", "NaN"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), close in "[0-9/:TZ.+ aeJn-]{0,30}") {
            let _ = (read(&text), read(&close));
        }

        #[test]
        fn days_count_up(day in -200_000i64..200_000) {
            // Another way to the same: from the day to its date by counting years.
            let (mut left, mut year) = (day, 1970);
            let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            while left < 0 { year -= 1; left += if leap(year) { 366 } else { 365 }; }
            loop { let long = if leap(year) { 366 } else { 365 }; if left < long { break; } left -= long; year += 1; }
            let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let mut month = 0;
            while left >= lengths[month] { left -= lengths[month]; month += 1; }
            prop_assert_eq!(days(year, month as i64 + 1, left + 1), day);
        }
    }
}
