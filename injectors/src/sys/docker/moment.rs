//! The engine's times (RFC 3339), as far as it takes to tell how long lies between two of them.

use std::time::Duration;

/// How long after the first the second is; none if it is not, or if the engine has never set one of them.
pub(super) fn between(first: &str, second: &str) -> Option<Duration> {
    let gap = nanos(second)?.checked_sub(nanos(first)?)?;
    u64::try_from(gap).ok().map(Duration::from_nanos)
}

/// Nanoseconds since 1970; none for the engine's zero time, the year 1.
fn nanos(text: &str) -> Option<i128> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i128>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let at = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at(at);
    let mut clock = clock.splitn(3, ':');
    let (hours, minutes) = (clock.next()?.parse::<i128>().ok()?, clock.next()?.parse::<i128>().ok()?);
    let (seconds, part) = clock.next().map(|rest| rest.split_once('.').unwrap_or((rest, "")))?;
    let part = format!("{:0<9}", part.get(..part.len().min(9))?);
    let offset = match zone.split_once(':') {
        None => 0,
        Some((hours, minutes)) => {
            let sign = if zone.starts_with('-') { -60 } else { 60 };
            sign * (hours.get(1..)?.parse::<i128>().ok()? * 60 + minutes.parse::<i128>().ok()?)
        }
    };
    // Days of the Gregorian calendar, years beginning in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    let seconds = days * 86_400 + hours * 3600 + minutes * 60 + seconds.parse::<i128>().ok()? - offset;
    (seconds > 0).then_some(seconds * 1_000_000_000 + part.parse::<i128>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_engines_are_read_and_zero_is_none() {
        assert_eq!(nanos("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert_eq!(nanos("2026-11-23T21:46:37.583419229Z"), Some(1_795_470_397_583_419_229));
        assert_eq!(nanos("2026-11-23T23:46:37.5+02:00"), Some(1_795_470_397_500_000_000));
        assert_eq!(nanos("2024-02-29T12:00:00-01:30"), Some(1_709_213_400_000_000_000));
        for none in ["0001-01-01T00:00:00Z", "", "yesterday", "2026-11-23T21", "2026-11-23"] {
            assert_eq!(nanos(none), None, "{none}");
        }
        let (died, born) = ("2026-11-23T21:46:40.956790716Z", "2026-11-23T21:46:41.325661137Z");
        assert_eq!(between(died, born), Some(Duration::from_nanos(368_870_421)));
        assert_eq!(between(born, died), None);
    }
}
