//! One clause against one set of outcomes: estimate, interval, answer.

use reports::Latencies;
use reports::format;
use reports::record::{Bucket, LoadRecord, Objective, ObjectiveResult, Outcomes, Phase, Sli, Verdict};

use super::stats;

/// An estimate with its interval. Infinite where only failures are: no latency is long enough for them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    /// The point.
    pub estimate: Option<f64>,
    /// The lower end; none if the data give no bound.
    pub low: Option<f64>,
    /// The upper end; none if the data give no bound.
    pub high: Option<f64>,
    /// Observations.
    pub samples: u64,
}

/// Whether a value is on the good side of a clause.
pub fn good(objective: &Objective, value: f64) -> bool {
    if objective.at_least { value >= objective.limit } else { value <= objective.limit }
}

/// The share of requests that may be bad.
pub fn allowed(objective: &Objective) -> f64 {
    match objective.sli {
        Sli::Latency(q) => 1.0 - q,
        Sli::Availability => 1.0 - objective.limit,
        Sli::Throughput => 1.0,
    }
}

/// The answer: the whole interval must be on one side.
pub fn answer(objective: &Objective, measured: &Measured) -> Verdict {
    let (Some(low), Some(_)) = (measured.low, measured.estimate) else { return Verdict::Unknown };
    let high = measured.high.unwrap_or(f64::INFINITY);
    match (good(objective, low), good(objective, high)) {
        (true, true) => Verdict::Held,
        (false, false) => Verdict::Missed,
        _ => Verdict::Unknown,
    }
}

/// A share: good of all.
pub fn share(good: u64, all: u64) -> Measured {
    let interval = stats::share(good, all);
    Measured {
        estimate: (all > 0).then(|| good as f64 / all as f64),
        low: interval.map(|(low, _)| low),
        high: interval.map(|(_, high)| high),
        samples: all,
    }
}

/// A quantile of latencies over everything that ended: a failure is slower than any answer, however fast it came.
pub fn latency(outcomes: &Outcomes, latencies: &Latencies, q: f64) -> Measured {
    let n = outcomes.done();
    // Deadline misses are in the distribution as well, at their age, which is above that of any good answer.
    let answered = latencies.count().min(outcomes.ok);
    let at = |rank: u64| match rank {
        _ if rank == 0 || rank > n => None,
        _ if rank > answered => Some(f64::INFINITY),
        _ => latencies.at_rank(rank),
    };
    let (low, high) = stats::quantile_ranks(q, n);
    Measured {
        estimate: at(stats::rank(q, n)),
        // Rank 0 means no lower bound from the data: the smallest value is one.
        low: at(low.max(1)),
        high: at(high),
        samples: n,
    }
}

/// Good answers per second: none at all is 0 where requests were due, and no data where none was.
fn throughput(buckets: &[&Bucket]) -> Measured {
    if buckets.iter().all(|bucket| bucket.all.due == 0 && bucket.all.done() == 0) {
        return Measured::default();
    }
    // Slices that a phase change has cut short would look like a drop.
    let whole: Vec<f64> = buckets.iter().map(|bucket| bucket.all.ok as f64 / bucket.len_s).collect();
    let inner = if whole.len() > 3 { &whole[1..whole.len() - 1] } else { &whole[..] };
    let interval = stats::mean(inner);
    Measured {
        estimate: interval.map(|(mean, _, _)| mean).or_else(|| inner.first().copied()),
        low: interval.map(|(_, low, _)| low),
        high: interval.map(|(_, _, high)| high),
        samples: inner.len() as u64,
    }
}

/// Measures a clause over outcomes and the slices that they came from.
pub fn measure(objective: &Objective, outcomes: &Outcomes, buckets: &[&Bucket]) -> Result<Measured, String> {
    match objective.sli {
        Sli::Availability => Ok(share(outcomes.ok, outcomes.done())),
        Sli::Throughput => Ok(throughput(buckets)),
        Sli::Latency(q) => {
            let latencies = Latencies::decode(&outcomes.latencies).map_err(|error| error.to_string())?;
            Ok(latency(outcomes, &latencies, q))
        }
    }
}

/// A clause in one phase of a load.
pub fn in_phase(objective: &Objective, load: Option<&LoadRecord>, phase: Phase) -> ObjectiveResult {
    let stats = load.and_then(|load| load.phases.iter().find(|stats| stats.phase == phase));
    let buckets: Vec<&Bucket> = load
        .map(|load| load.buckets.iter().filter(|bucket| bucket.phase == phase).collect())
        .unwrap_or_default();
    result(objective, phase, stats.map(|stats| &stats.all), &buckets)
}

/// A clause against outcomes, all told.
pub fn result(
    objective: &Objective,
    phase: Phase,
    outcomes: Option<&Outcomes>,
    buckets: &[&Bucket],
) -> ObjectiveResult {
    // A phase in which nothing ended has no outcomes, but it may have had arrivals.
    let nothing = Outcomes::default();
    let outcomes = outcomes.or((objective.sli == Sli::Throughput && !buckets.is_empty()).then_some(&nothing));
    let (measured, trouble) = match outcomes.map(|outcomes| measure(objective, outcomes, buckets)) {
        Some(Ok(measured)) => (measured, None),
        Some(Err(error)) => (Measured::default(), Some(error)),
        None => (Measured::default(), None),
    };
    let verdict = answer(objective, &measured);
    let note = trouble
        .or_else(|| beyond(&measured, outcomes?))
        .or_else(|| (verdict == Verdict::Unknown).then(|| why_unknown(&measured)));
    // A record has no way to write them.
    let finite = |bound: Option<f64>| bound.filter(|bound| bound.is_finite());
    ObjectiveResult {
        journey: objective.journey.clone(),
        phase,
        sli: objective.sli,
        at_least: objective.at_least,
        limit: objective.limit,
        estimate: finite(measured.estimate),
        low: finite(measured.low),
        high: finite(measured.high),
        samples: measured.samples,
        verdict,
        note,
    }
}

/// That failures leave a latency without a number.
fn beyond(measured: &Measured, outcomes: &Outcomes) -> Option<String> {
    let failed = outcomes.failed() as f64 / outcomes.done().max(1) as f64;
    let infinite = measured.estimate.is_some_and(f64::is_infinite);
    infinite.then(|| format!("beyond measure: {:.3}% of the requests failed", failed * 100.0))
}

fn why_unknown(measured: &Measured) -> String {
    match measured.estimate {
        None => "no data".to_owned(),
        Some(_) => format!(
            "{} observations are too few to decide: the limit lies inside the interval",
            measured.samples
        ),
    }
}

/// A value of an SLI in words.
pub fn value(sli: Sli, value: f64) -> String {
    if value.is_infinite() {
        "beyond measure (requests failed)".to_owned()
    } else {
        format::value(sli, value)
    }
}

/// What a clause asks for, in words: `≤ 250 ms`.
pub fn limit(objective: &Objective) -> String {
    format::limit(objective.sli, objective.at_least, objective.limit)
}

/// A result in one sentence.
pub fn sentence(result: &ObjectiveResult) -> String {
    let seen = match result.estimate {
        Some(_) => format::estimate_and_interval(result),
        None if result.samples > 0 => result.note.clone().unwrap_or_else(|| "no data".to_owned()),
        None => "no data".to_owned(),
    };
    format!(
        "{} in {}: {} {seen}, objective {}",
        result.journey,
        result.phase.name(),
        result.sli.name(),
        format::limit(result.sli, result.at_least, result.limit)
    )
}
