//! What came of a load that was sent by itself, without an experiment around it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Latencies;
use crate::record::{EventRecord, GeneratorRecord, ObjectiveResult, Verdict};

/// The result of `squall load`. Times in seconds, rates per second.
#[derive(Debug, Clone, Serialize)]
pub struct Sending {
    /// What was sent, in words.
    pub sends: Vec<String>,
    /// When, in words, as it was written.
    pub arrivals: String,
    /// How the rate was changed on the way.
    pub changes: Vec<EventRecord>,
    /// The name of the preset that the arrivals come from.
    pub profile: Option<String>,
    /// From the first intended time to the last, or to when it was stopped.
    pub seconds: f64,
    /// Arrivals that came due.
    pub intended: u64,
    /// Requests that were given a connection.
    pub sent: u64,
    /// Good answers.
    pub ok: u64,
    /// Requests that were still under way when the operator ended it: they are in no other count.
    pub cut_short: u64,
    /// Good answers per second.
    pub ok_per_s: f64,
    /// Failures by class.
    pub errors: BTreeMap<String, u64>,
    /// By class of failure: why the first of it happened, in words, where that is known.
    pub causes: BTreeMap<String, String>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// From the intended time: what users see.
    pub response: Quantiles,
    /// From the moment when a connection took the request on: what the server takes.
    pub service: Quantiles,
    /// From the intended time to the start: what the generator adds.
    pub lag: Quantiles,
    /// Of the TLS handshakes that ended well; none without TLS.
    pub handshakes: Option<Quantiles>,
    /// Service times of the probe that was sent beside the load, in no other count; none if there was none.
    pub probe: Option<Quantiles>,
    /// By kind of request, if there are several: response and service.
    pub kinds: BTreeMap<String, (Quantiles, Quantiles)>,
    /// How the generator did.
    pub generator: GeneratorRecord,
    /// Every clause.
    pub objectives: Vec<ObjectiveResult>,
    /// Unknown if the generator did not keep up, or nothing was answered.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<String>,
    /// The exit code that goes with it.
    pub exit: u8,
    /// What repeats it.
    pub reproduce: String,
    /// All response times: HdrHistogram V2 deflate in base64, in microseconds.
    pub latencies: String,
}

/// Quantiles of a distribution, in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many values.
    pub count: u64,
    /// The mean.
    pub mean_s: Option<f64>,
    /// The median.
    pub p50_s: Option<f64>,
    /// Nine of ten are below.
    pub p90_s: Option<f64>,
    /// 99 of 100 are below.
    pub p99_s: Option<f64>,
    /// 999 of 1,000 are below.
    pub p99_9_s: Option<f64>,
    /// The largest.
    pub max_s: Option<f64>,
}

impl From<&Latencies> for Quantiles {
    fn from(latencies: &Latencies) -> Self {
        Self {
            count: latencies.count(),
            mean_s: latencies.mean(),
            p50_s: latencies.quantile(0.5),
            p90_s: latencies.quantile(0.9),
            p99_s: latencies.quantile(0.99),
            p99_9_s: latencies.quantile(0.999),
            max_s: latencies.max(),
        }
    }
}
