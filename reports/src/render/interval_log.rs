//! Latencies over time as a log of HdrHistogram (format 1.2), which its own tools read: one line for each slice of time.
//!
//! Format: the header of HdrHistogram's `HistogramLogWriter`, then lines of start and length in seconds, the largest value
//! in milliseconds, and the distribution in microseconds (V2, deflate, base64).

use std::fmt::Write as _;

use crate::format::iso;
use crate::latency::{Latencies, LatencyError};
use crate::record::LoadRecord;

/// The log of one load that started at this time.
///
/// # Errors
/// A distribution is damaged.
pub fn interval_log(load: &LoadRecord, started_unix_s: f64) -> Result<String, LatencyError> {
    let mut log = format!(
        "#[Histogram log format version 1.2]\n#[StartTime: {started_unix_s:.3} (seconds since epoch), {}]\n\
         #[Values are microseconds since the intended time of a request]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        iso(started_unix_s)
    );
    for bucket in load.buckets.iter().filter(|bucket| !bucket.all.latencies.is_empty()) {
        let latencies = Latencies::decode(&bucket.all.latencies)?;
        let max_ms = latencies.max().unwrap_or_default() * 1e3;
        let _ = writeln!(log, "{:.3},{:.3},{max_ms:.3},{}", bucket.at_s, bucket.len_s, bucket.all.latencies);
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::{Bucket, Outcomes, Phase};

    #[test]
    fn each_slice_is_a_line_with_its_distribution() {
        let bucket = |at_s: f64, us: &[u64]| {
            let mut latencies = Latencies::default();
            for us in us {
                latencies.record(*us);
            }
            let all = Outcomes { latencies: latencies.encode(), ..Outcomes::default() };
            Bucket { at_s, len_s: 1.0, phase: Phase::Baseline, all, pops: BTreeMap::default() }
        };
        let buckets = vec![bucket(0.0, &[1000, 2500]), bucket(1.0, &[])];
        let load = LoadRecord {
            name: String::new(),
            sends: vec![],
            arrivals: String::new(),
            phases: vec![],
            buckets,
        };
        let log = interval_log(&load, 1_700_000_000.0).unwrap();
        let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with(['#', '"'])).collect();
        assert!(lines.len() == 2 && lines[0].starts_with("0.000,1.000,2.501,"), "{log}");
        let encoded = lines[0].rsplit(',').next().unwrap();
        assert_eq!(Latencies::decode(encoded).unwrap().count(), 2);
        let broken = LoadRecord {
            buckets: vec![Bucket {
                all: Outcomes { latencies: "x".to_owned(), ..Outcomes::default() },
                ..bucket(0.0, &[])
            }],
            ..load
        };
        assert!(interval_log(&broken, 0.0).is_err());
    }
}
