//! How much the generator can send: measured against the built-in null server, before anything is said about a target.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Asked, Ended, Finished, hold, run};
use crate::load::remote::Team;
use crate::load::{Expect, HttpVersion, LoadError, LoadSpec, PER_THREAD, RequestSpec};
use crate::run::Signals;

/// A first look at what a request costs, in requests per second.
const LOOK: f64 = 2_000.0;
/// How long each look takes, in seconds.
const LOOK_S: f64 = 1.0;
/// How often it is looked, each time at the rate that follows from the look before: a wake-up is what costs, and serves
/// the more requests the more there are.
const LOOKS: usize = 3;
/// A thread that computed so much was looked at closely enough.
const CLOSE: f64 = 0.6;
/// The share of its CPU that the busiest thread may use at the highest rate (load.md, 6.3).
const SHARE: f64 = 0.8;
/// No answer is waited for longer: the looks and their ends stay within five seconds.
const DEADLINE: Duration = Duration::from_millis(500);

/// What the generator can do on this machine. Against a real target, TLS and longer answers make it less.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The highest rate, in requests per second: that at which the busiest of `threads` uses 80 % of its CPU. Where workers on
    /// other machines send, of all of them together; arrivals are dealt out evenly, so the slowest thread decides.
    pub rate: f64,
    /// One thread's share of it.
    pub per_thread: f64,
    /// One per core, of every machine that sends.
    pub threads: u32,
    /// A limit of a control group, rather than the cost of a request, decides.
    pub throttled: bool,
    /// What a request takes at the least, from the intended time, in seconds: the median.
    pub p50_s: f64,
    /// See `p50_s`: the 99th percentile.
    pub p99_s: f64,
    /// How long it took to find out, in seconds.
    pub took_s: f64,
}

/// Measures it; none if the operator has had enough, or nothing could be measured.
///
/// # Errors
/// No load can be sent on this machine.
pub async fn calibrate(
    spec: &LoadSpec,
    team: &Team,
    seed: u64,
    signals: &mut Signals,
) -> Result<(Option<Calibration>, Ended), LoadError> {
    // The server without work speaks HTTP/1.1; what other protocols cost is another matter.
    let http = |request: &RequestSpec| ["http://", "https://"].iter().any(|s| request.url.starts_with(s));
    if spec.http != HttpVersion::One || !spec.requests.iter().all(http) {
        return Ok((None, Ended::InTime));
    }
    let began = Instant::now();
    // Processes of this machine have its processors between them: what one thread of one of them can do says it all.
    let (own, near) = (Team::default(), team.is_near());
    let team = if near { &own } else { team };
    let cores = team.cores()?;
    // One thread of each sender.
    let senders = cores.len() as f64;
    let threads = cores.iter().sum();
    let mut measured = None;
    let mut rate = LOOK;
    for _ in 0..LOOKS {
        let spec = against(spec, rate * senders, LOOK_S);
        let asked = Asked {
            spec: &spec,
            team,
            objectives: &[],
            guards: &[],
            seed,
            probe: false,
            per_thread: None,
            control: None,
            twice: false,
        };
        let finished = run(asked, signals, |_| true).await?;
        if finished.ended == Ended::ByOperator {
            return Ok((None, Ended::ByOperator));
        }
        measured = found(&finished, (rate, senders), threads, began.elapsed()).or(measured);
        match &measured {
            // What costs less the more there is leaves room at the rate that follows from less of it.
            Some(found)
                if !found.throttled && finished.outcome.facts.cpu_max < CLOSE && rate < PER_THREAD =>
            {
                rate = found.per_thread.clamp(rate, PER_THREAD);
            }
            _ => break,
        }
    }
    Ok((measured, Ended::InTime))
}

/// The same first request to the null server beside each sender.
fn against(spec: &LoadSpec, rate: f64, seconds: f64) -> LoadSpec {
    let mut requests = vec![spec.requests[0].clone()];
    requests[0].expect = Expect::default();
    LoadSpec { requests, profile: hold(rate, seconds), deadline: DEADLINE, null: true, ..spec.clone() }
}

fn found(
    finished: &Finished,
    (rate, senders): (f64, f64),
    threads: u32,
    took: Duration,
) -> Option<Calibration> {
    let (facts, all) = (&finished.outcome.facts, finished.all()?);
    let latencies = reports::Latencies::decode(&all.latencies).ok()?;
    let (throttled, answered) =
        (facts.throttled_s > 0.01 * facts.seconds, all.ok as f64 / finished.seconds / senders);
    // Arrivals are dealt out evenly: the busiest thread is the limit of all.
    let per_thread = per_thread(rate, answered, facts.cpu_max, throttled)?;
    let threads = if throttled { 1 } else { threads };
    Some(Calibration {
        rate: per_thread * f64::from(threads),
        per_thread,
        threads,
        throttled,
        p50_s: latencies.quantile(0.5)?,
        p99_s: latencies.quantile(0.99)?,
        took_s: took.as_secs_f64(),
    })
}

/// What one thread can send, from what it computed when it sent this much.
fn per_thread(rate: f64, answered: f64, cpu: f64, throttled: bool) -> Option<f64> {
    // A thread that is kept from running computes little, whatever a request costs: what came through is what it can do.
    let most = if throttled { SHARE * answered } else { SHARE * rate.min(answered) / cpu };
    (most.is_finite() && most > 0.0).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_rate_follows_from_what_a_request_costs() {
        assert_eq!(per_thread(10_000.0, 10_000.0, 0.2, false), Some(40_000.0));
        // Not all of it came through: that much was done with that CPU.
        assert_eq!(per_thread(10_000.0, 5_000.0, 1.0, false), Some(4_000.0));
        assert_eq!(per_thread(2_000.0, 300.0, 0.02, true), Some(240.0));
        assert_eq!(per_thread(2_000.0, 0.0, 0.0, false), None);
        assert_eq!(per_thread(2_000.0, 2_000.0, 0.0, false), None);
    }
}
