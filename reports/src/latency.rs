//! The one door to hdrhistogram: latencies in microseconds from 1 µs to 10 minutes, three significant digits.

use std::io::Read as _;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

/// The largest value kept as itself, in microseconds; larger ones are counted there.
pub const MAX_US: u64 = 600_000_000;

/// The first bytes of a deflated V2 histogram.
const DEFLATED: [u8; 4] = [0x1c, 0x84, 0x93, 0x14];
/// Bytes of a V2 histogram before its counts.
const HEAD: usize = 40;
/// No histogram of ours is larger, in bytes: every count has at most nine.
const INNER_MAX: u64 = 1 << 20;

/// A distribution of latencies. Merging is exact; quantiles are within 0.1 % of the recorded values.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

/// Why an encoded distribution could not be read.
#[derive(Debug, thiserror::Error)]
#[error("unreadable histogram: {0}")]
pub struct LatencyError(String);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_US, 3).expect("1 to MAX_US at 3 digits is a legal range"))
    }
}

impl Latencies {
    /// Adds one latency in microseconds. Never allocates.
    pub fn record(&mut self, us: u64) {
        self.0.saturating_record(us.clamp(1, MAX_US));
    }

    /// Adds all of another distribution.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all distributions have the same bounds");
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// How many latencies it holds.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency, in seconds, at a quantile from 0 to 1; none when empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        (self.count() > 0).then(|| self.0.value_at_quantile(q) as f64 / 1e6)
    }

    /// The latency, in seconds, of the value with this rank, counted from 1; none beyond the count.
    pub fn at_rank(&self, rank: u64) -> Option<f64> {
        if rank == 0 || rank > self.count() {
            return None;
        }
        let mut seen = 0;
        for step in self.0.iter_recorded() {
            seen += step.count_since_last_iteration();
            if seen >= rank {
                return Some(step.value_iterated_to() as f64 / 1e6);
            }
        }
        None
    }

    /// The mean in seconds; none when empty.
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.0.mean() / 1e6)
    }

    /// The largest latency in seconds; none when empty.
    pub fn max(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.0.max() as f64 / 1e6)
    }

    /// How many latencies are at most this many seconds.
    pub fn count_within(&self, seconds: f64) -> u64 {
        let us = (seconds * 1e6).round().clamp(0.0, MAX_US as f64) as u64;
        if us == 0 { 0 } else { self.0.count_between(0, us) }
    }

    /// The latencies that it holds, in seconds, from the smallest, and how often each.
    pub fn values(&self) -> impl Iterator<Item = (f64, u64)> {
        self.0
            .iter_recorded()
            .map(|step| (step.value_iterated_to() as f64 / 1e6, step.count_since_last_iteration()))
    }

    /// HdrHistogram V2 with deflate, in base64: readable by HdrHistogram's own tools.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .expect("a histogram of this size serialises into memory");
        BASE64_STANDARD.encode(&bytes)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// The text is no base64 or no V2 histogram.
    pub fn decode(text: &str) -> Result<Self, LatencyError> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|e| LatencyError(e.to_string()))?;
        let inner = inflated(&bytes)?;
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut inner.as_slice())
            .map_err(|e| LatencyError(e.to_string()))?;
        if (read.low(), read.high(), read.sigfig()) == (1, MAX_US, 3) {
            return Ok(Self(read));
        }
        let mut own = Self::default();
        own.0.add(&read).map_err(|e| LatencyError(e.to_string()))?;
        Ok(own)
    }
}

/// The plain V2 histogram within a deflated one, if its size and its bounds are those of ours: whoever else has written it
/// could make the reader reserve gigabytes.
fn inflated(bytes: &[u8]) -> Result<Vec<u8>, LatencyError> {
    let wrong = || LatencyError("it is none of squall's".to_owned());
    let (head, deflated) = bytes.split_at_checked(8).ok_or_else(wrong)?;
    if head[..4] != DEFLATED {
        return Err(wrong());
    }
    let mut inner = Vec::new();
    let mut limited = ZlibDecoder::new(deflated).take(INNER_MAX + 1);
    limited.read_to_end(&mut inner).map_err(|e| LatencyError(e.to_string()))?;
    // Cookie, length of what follows the head, offset, digits, lowest, highest, ratio.
    let word =
        |at: usize| inner.get(at..at + 4).map(|b| u32::from_be_bytes(b.try_into().unwrap_or_default()));
    let long =
        |at: usize| inner.get(at..at + 8).map(|b| u64::from_be_bytes(b.try_into().unwrap_or_default()));
    let length = inner.len().checked_sub(HEAD).and_then(|length| u32::try_from(length).ok());
    let own = length.is_some() && word(4) == length && word(12) == Some(3) && long(16) == Some(1);
    let fits = own && long(24) == Some(MAX_US) && inner.len() as u64 <= INNER_MAX;
    if fits { Ok(inner) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranks_count_from_one() {
        let mut latencies = Latencies::default();
        for us in [10, 20, 30] {
            latencies.record(us);
        }
        assert_eq!(latencies.at_rank(0), None);
        assert_eq!(latencies.at_rank(2), Some(20e-6));
        assert_eq!(latencies.at_rank(4), None);
        assert_eq!(latencies.count_within(20e-6), 2);
        assert_eq!(latencies.values().collect::<Vec<_>>(), [(10e-6, 1), (20e-6, 1), (30e-6, 1)]);
    }

    #[test]
    fn what_others_have_written_reserves_nothing() {
        let mut large = Histogram::<u64>::new_with_bounds(1, u64::MAX / 2, 5).unwrap();
        large.record(5).unwrap();
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&large, &mut bytes).unwrap();
        assert!(Latencies::decode(&BASE64_STANDARD.encode(&bytes)).is_err());
        for text in ["", "AAAA", "HISTFAAAAAA=", "no base64"] {
            assert!(Latencies::decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_empty_distribution_has_no_quantile() {
        assert_eq!(Latencies::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn encoding_keeps_everything(values in prop::collection::vec(1u64..MAX_US, 0..50)) {
            let mut latencies = Latencies::default();
            for us in &values {
                latencies.record(*us);
            }
            let back = Latencies::decode(&latencies.encode()).unwrap();
            prop_assert_eq!(back.count(), latencies.count());
            prop_assert_eq!(back.quantile(0.9), latencies.quantile(0.9));
        }

        #[test]
        fn a_merge_is_the_union(a in prop::collection::vec(1u64..1_000_000, 1..30), b in prop::collection::vec(1u64..1_000_000, 1..30)) {
            let fill = |values: &[u64]| { let mut l = Latencies::default(); for v in values { l.record(*v); } l };
            let mut merged = fill(&a);
            merged.merge(&fill(&b));
            let union = fill(&[a, b].concat());
            prop_assert_eq!(merged.quantile(0.5), union.quantile(0.5));
            prop_assert_eq!(merged.max(), union.max());
        }
    }
}
