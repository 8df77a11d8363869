//! Quantities as people write them: `100ms`, `2%`, `50/s`, `10mbit`, `512MiB`.
//!
//! Each type parses exactly one spelling family, refuses a bare number, NaN, infinity, a sign and anything
//! beyond its limit, prints itself back in the shortest exact spelling, and serialises as one SI number
//! (seconds, a share from 0 to 1, per second, bytes per second, bytes).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a quantity could not be read; completes "invalid duration: …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

impl UnitError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The longest span that the language accepts: seven days. A fault or a load that is longer is a mistake.
pub const SPAN_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A length of time, at most [`SPAN_MAX`]. Written `250us`, `1.5ms`, `30s`, `5m`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

/// A share from 0 to 1, written as a percentage: `2%`, `99.95%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(pub f64);

/// Events per second, written `50/s`, `300/m`, `2k/s`. At most ten million per second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(pub f64);

/// Bytes per second, written in bits (`10mbit`, `64kbit`) or bytes (`1.5MB/s`, `64KiB/s`).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bandwidth(pub f64);

/// A number of bytes, written `512B`, `64KiB`, `10MB`. At most 1 PiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub u64);

/// Processor time per time, written `2`, `0.5` or, as Kubernetes does, `500m`. At most 4,096.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cores(pub f64);

const SPAN_UNITS: &[(&str, f64)] =
    &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
const SIZE_UNITS: &[(&str, f64)] = &[
    ("B", 1.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TB", 1e12),
    ("TiB", 1_099_511_627_776.0),
];
const BIT_UNITS: &[(&str, f64)] = &[("bit", 1.0), ("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
const SIZE_MAX: f64 = 1_125_899_906_842_624.0;
const BANDWIDTH_MAX: f64 = 1_099_511_627_776.0;
const RATE_MAX: f64 = 1e7;
const CORES_MAX: f64 = 4096.0;

/// Splits `12.5ms` into its number and the rest; only plain decimals pass (no sign, exponent, NaN or `inf`).
fn number(text: &str) -> Result<(f64, &str), UnitError> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        let sign = text.starts_with('-');
        return Err(UnitError::new(if sign {
            "it must not be negative"
        } else {
            "it must start with a number"
        }));
    }
    if digits.len() > 24 {
        return Err(UnitError::new("too many digits"));
    }
    let value = digits.parse::<f64>().map_err(|_| UnitError::new(format!("`{digits}` is not a number")))?;
    Ok((value, rest))
}

fn scale(unit: &str, units: &[(&str, f64)], example: &str) -> Result<f64, UnitError> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale).ok_or_else(|| {
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        let what =
            if unit.is_empty() { "the unit is missing".to_owned() } else { format!("unknown unit `{unit}`") };
        UnitError::new(format!("{what}; write it like `{example}` (units: {})", names.join(", ")))
    })
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text.trim();
        let mut seconds = 0.0;
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        loop {
            let (value, tail) = number(rest)?;
            let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, next) = tail.split_at(end);
            seconds += value * scale(unit, SPAN_UNITS, "250ms")?;
            if seconds > SPAN_MAX.as_secs_f64() {
                return Err(UnitError::new("longer than 7 days"));
            }
            if next.is_empty() {
                return Ok(Self(Duration::from_nanos((seconds * 1e9).round() as u64)));
            }
            rest = next;
        }
    }
}

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (value, rest) = number(text.trim())?;
        if rest != "%" {
            return Err(UnitError::new("write it as a percentage, like `2%`"));
        }
        if value > 100.0 {
            return Err(UnitError::new("more than 100%"));
        }
        Ok(Self(value / 100.0))
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (mut value, mut rest) = number(text.trim())?;
        if let Some(tail) = rest.strip_prefix('k') {
            value *= 1e3;
            rest = tail;
        }
        let per_second = match rest {
            "/s" => value,
            "/m" => value / 60.0,
            "/h" => value / 3600.0,
            _ => return Err(UnitError::new("write it like `50/s` (units: /s, /m, /h)")),
        };
        if per_second > RATE_MAX {
            return Err(UnitError::new("more than 10,000,000/s"));
        }
        Ok(Self(per_second))
    }
}

impl FromStr for Bandwidth {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (value, unit) = number(text.trim())?;
        let bytes = match unit.strip_suffix("/s") {
            Some(size) => value * scale(size, SIZE_UNITS, "64KiB/s")?,
            None => value * scale(unit, BIT_UNITS, "10mbit")? / 8.0,
        };
        if bytes > BANDWIDTH_MAX {
            return Err(UnitError::new("more than 1 TiB/s"));
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (value, unit) = number(text.trim())?;
        let bytes = value * scale(unit, SIZE_UNITS, "64KiB")?;
        if bytes > SIZE_MAX {
            return Err(UnitError::new("more than 1 PiB"));
        }
        Ok(Self(bytes.round() as u64))
    }
}

impl FromStr for Cores {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (value, unit) = number(text.trim())?;
        let cores = match unit {
            "" => value,
            "m" => value / 1000.0,
            _ => return Err(UnitError::new("write it as a number of cores: `2`, `0.5` or `500m`")),
        };
        if cores > CORES_MAX {
            return Err(UnitError::new("more than 4096 cores"));
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let units: [(u128, &str); 6] = [
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
            (1, "ns"),
        ];
        if nanos == 0 {
            return f.write_str("0s");
        }
        let (scale, unit) =
            units.into_iter().find(|(scale, _)| nanos.is_multiple_of(*scale)).unwrap_or((1, "ns"));
        write!(f, "{}{unit}", nanos / scale)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ten decimals hide the rounding of the division by 100 and keep every digit that people write.
        write!(f, "{}%", trimmed(self.0 * 100.0, 10))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", trimmed(self.0, 6))
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0 * 8.0;
        let (scale, unit) = [(1e9, "gbit"), (1e6, "mbit"), (1e3, "kbit")]
            .into_iter()
            .find(|(scale, _)| bits >= *scale)
            .unwrap_or((1.0, "bit"));
        write!(f, "{}{unit}", trimmed(bits / scale, 6))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&trimmed(self.0, 6))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scale, unit) = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
            .into_iter()
            .find(|(scale, _)| self.0 >= *scale && self.0.is_multiple_of(*scale))
            .unwrap_or((1, "B"));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

/// A decimal without trailing zeros.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        let ms = |text: &str| text.parse::<Span>().unwrap().0.as_micros();
        assert_eq!(ms("250us"), 250);
        assert_eq!(ms("1.5ms"), 1_500);
        assert_eq!(ms("1h30m"), 5_400_000_000);
        assert_eq!(ms("0"), 0);
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_with_the_way_out() {
        for bad in [
            "",
            "-5s",
            "NaN",
            "inf",
            "1e9s",
            "100",
            "5 seconds",
            "8d",
            "200h",
            "1..2s",
            "9".repeat(40).as_str(),
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?} passed");
        }
        assert!("100".parse::<Span>().unwrap_err().to_string().contains("unit is missing"));
        assert!("101%".parse::<Share>().is_err());
        assert!("0.5".parse::<Share>().is_err());
        assert!("50".parse::<Rate>().is_err());
        assert!("10".parse::<Bandwidth>().is_err());
        assert!("3PB".parse::<Size>().is_err());
    }

    #[test]
    fn bandwidth_counts_bits_and_bytes_apart() {
        assert_eq!("8mbit".parse::<Bandwidth>().unwrap().0, 1e6);
        assert_eq!("1MB/s".parse::<Bandwidth>().unwrap().0, 1e6);
    }

    #[test]
    fn cores_are_written_as_numbers_or_as_kubernetes_does() {
        let cores = |text: &str| text.parse::<Cores>().map(|cores| cores.0);
        assert_eq!([cores("2"), cores("0.5"), cores("250m")], [Ok(2.0), Ok(0.5), Ok(0.25)]);
        assert_eq!(Cores(0.25).to_string(), "0.25");
        for bad in ["", "-1", "50%", "5000", "2 cores"] {
            assert!(cores(bad).is_err(), "{bad:?} passed");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(nanos in 0u64..600_000_000_000_000, share in 0u32..=1_000_000, bytes in 0u64..1_000_000_000_000) {
            let span = Span(Duration::from_nanos(nanos));
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
            let size = Size(bytes);
            prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
            let share = Share(f64::from(share) / 1e6);
            let back = share.to_string().parse::<Share>().unwrap();
            prop_assert!((back.0 - share.0).abs() < 1e-12);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,20}") {
            let _ = text.parse::<Span>();
            let _ = text.parse::<Share>();
            let _ = text.parse::<Rate>();
            let _ = text.parse::<Bandwidth>();
            let _ = text.parse::<Size>();
            let _ = text.parse::<Cores>();
        }
    }
}
