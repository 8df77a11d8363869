//! A probe beside a load: the same first request, ten times a second, on a connection, a thread and a runtime of its own.
//!
//! Where requests of the load take long and the probe's do not, they do not wait in the target: a target that queues lets
//! the probe queue as well. A target may still serve its connections unequally (one of its processes has most of them), so
//! the worker must have been short of time in the same seconds before the queue is called the generator's.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reports::Latencies;
use reports::record::Phase;
use tokio::sync::mpsc;

use crate::feed::Order;
use crate::load::{self, LoadSpec, PhaseCell, Running, Stop, Tick};
use crate::schedule::{Profile, Segment};

/// Requests per second.
const RATE: f64 = 10.0;
/// Below this rate the probe would be more than 2 % of what the target gets, and a thread is far from its limit anyway.
const WORTHWHILE: f64 = 500.0;
/// Answers that make a second worth comparing.
const ANSWERS: u64 = 3;
/// What a request may always take longer than the probe's, in seconds.
const ALLOWED_S: f64 = 0.005;
/// How many times as long.
const TIMES: f64 = 5.0;
/// A thread that computed, or waited for a core, for less than this share of a second had time for every answer.
const BUSY: f64 = 0.5;

/// One second of both. Times are medians, in seconds, from when a connection began with a request.
#[derive(Debug, Clone, Copy)]
struct Second {
    load_s: f64,
    probe_s: f64,
    /// The share of the second for which the busiest worker computed or waited for a core.
    busy: f64,
}

impl Second {
    fn is_ours(self) -> bool {
        self.load_s > ALLOWED_S.max(TIMES * self.probe_s) && self.busy > BUSY
    }
}

/// Why the queue is the generator's; none if it is not, or cannot be told.
fn ours(seconds: &[Second]) -> Option<String> {
    let bad: Vec<&Second> = seconds.iter().filter(|second| second.is_ours()).collect();
    // One second may be chance.
    if bad.len() < 2 || bad.len() * 10 <= seconds.len() {
        return None;
    }
    let worst = bad.iter().max_by(|a, b| (a.load_s / a.probe_s).total_cmp(&(b.load_s / b.probe_s)))?;
    Some(format!(
        "in {} of {} seconds its requests took much longer than those of a probe beside it (at worst {} against {} at \
         the median) while a worker was short of time: the queue is the generator's",
        bad.len(),
        seconds.len(),
        reports::format::seconds(worst.load_s),
        reports::format::seconds(worst.probe_s)
    ))
}

/// A probe that is under way, or none.
#[derive(Default)]
pub(super) struct Probe {
    sending: Option<(Running, mpsc::Receiver<Tick>)>,
    /// By second: the median of the probe, and of the load with how busy it was.
    probed: BTreeMap<u64, f64>,
    loaded: BTreeMap<u64, (f64, f64)>,
    service: Latencies,
}

/// What a probe found.
pub(super) struct Probed {
    /// What the target took for its requests; none if nothing was probed.
    pub(super) service: Option<Latencies>,
    /// See [`ours`].
    pub(super) doubt: Option<String>,
}

impl Probe {
    /// Starts one, if that is worthwhile and does no harm. Whatever keeps it from being sent keeps the load from it as
    /// well, and is told there.
    pub(super) async fn start(spec: &LoadSpec, lead: Duration, seed: u64) -> Self {
        let Some(spec) = probing(spec) else { return Self::default() };
        let Ok(prepared) = load::prepare(vec![spec]).await else { return Self::default() };
        let phase = Arc::new(PhaseCell::new(Phase::Baseline));
        let sending =
            load::start(prepared, &phase, Instant::now() + lead, seed).ok().and_then(|mut running| {
                let ticks = running.ticks()?;
                Some((running, ticks))
            });
        Self { sending, ..Self::default() }
    }

    /// The next second of the probe; for ever if there is none.
    pub(super) async fn next(&mut self) -> Tick {
        if let Some((_, ticks)) = &mut self.sending
            && let Some(tick) = ticks.recv().await
        {
            return tick;
        }
        pending().await
    }

    /// A second of the probe.
    pub(super) fn saw(&mut self, tick: &Tick) {
        self.service.merge(&tick.service);
        if let Some(median) = tick.service.quantile(0.5).filter(|_| tick.service.count() >= ANSWERS) {
            self.probed.insert(tick.second, median);
        }
    }

    /// A second of the load.
    pub(super) fn beside(&mut self, tick: &Tick) {
        if let Some(median) = tick.service.quantile(0.5) {
            self.loaded.insert(tick.second, (median, tick.cpu + tick.waited));
        }
    }

    /// The load is over.
    pub(super) async fn end(mut self) -> Probed {
        let Some((running, mut ticks)) = self.sending.take() else {
            return Probed { service: None, doubt: None };
        };
        running.stop(Stop::Now);
        while let Some(tick) = ticks.recv().await {
            self.saw(&tick);
        }
        let both = self.loaded.iter().filter_map(|(at, (load_s, busy))| {
            Some(Second { load_s: *load_s, probe_s: *self.probed.get(at)?, busy: *busy })
        });
        let doubt = ours(&both.collect::<Vec<_>>());
        Probed { service: (self.service.count() > 0).then_some(self.service), doubt }
    }
}

/// What a probe beside this load sends.
fn probing(spec: &LoadSpec) -> Option<LoadSpec> {
    let first = spec.requests.first()?;
    let harmless = hyper::Method::from_bytes(first.method.as_bytes()).is_ok_and(|word| word.is_idempotent());
    let known = ["http://", "https://", "dns://"].iter().any(|scheme| first.url.starts_with(scheme));
    // Rows that may be taken once are the load's, and a log brings its own times.
    let shared = spec.replay.is_some() || spec.feeds.iter().any(|feed| feed.order() == Order::Unique);
    if !harmless || !known || shared || spec.profile.peak() < WORTHWHILE {
        return None;
    }
    let hold = Segment::Hold { rate: RATE, lasting: spec.profile.duration() };
    let (requests, profile) = (vec![first.clone()], Profile::new(vec![hold]).ok()?);
    Some(LoadSpec { requests, profile, max_connections: 1, poisson: false, ..spec.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::RequestSpec;

    fn seconds(of: &[(f64, f64, f64)]) -> Vec<Second> {
        let second = |(load, probe, busy): &(f64, f64, f64)| Second {
            load_s: load / 1e3,
            probe_s: probe / 1e3,
            busy: *busy,
        };
        of.iter().map(second).collect()
    }

    #[test]
    fn a_queue_that_the_probe_does_not_see_is_the_generators() {
        let ours = |of: &[(f64, f64, f64)]| super::ours(&seconds(of));
        let found = ours(&[(50.0, 2.0, 0.9), (60.0, 2.0, 0.95), (1.0, 1.0, 0.4)]).unwrap();
        assert!(
            found.starts_with("in 2 of 3 seconds") && found.contains("60.0 ms against 2.00 ms"),
            "{found}"
        );
        // The target queues, and the probe with it.
        assert_eq!(ours(&[(500.0, 450.0, 0.9), (900.0, 700.0, 0.9)]), None);
        // Short times are not told apart.
        assert_eq!(ours(&[(4.0, 0.1, 0.9), (4.9, 0.1, 0.9)]), None);
        // The workers had time: some connections of the target are slower than others.
        assert_eq!(ours(&[(50.0, 2.0, 0.3), (60.0, 2.0, 0.45)]), None);
        // One second is chance, and so are few of many.
        assert_eq!(ours(&[(50.0, 2.0, 0.9)]), None);
        let mut long = vec![(1.0, 1.0, 0.9); 30];
        long[7] = (50.0, 2.0, 0.9);
        long[8] = (50.0, 2.0, 0.9);
        assert_eq!(ours(&long), None);
        assert_eq!(ours(&[]), None);
    }

    #[test]
    fn only_what_does_no_harm_is_probed() {
        let profile = |rate| {
            Profile::new(vec![Segment::Hold { rate, lasting: Duration::from_secs(5) }]).expect("a rate")
        };
        let spec = LoadSpec::new("load", vec![RequestSpec::get("http://127.0.0.1:1/")], profile(1000.0));
        let probe = probing(&spec).unwrap();
        assert_eq!((probe.max_connections, probe.profile.total()), (1, 50.0));
        let mut posting = spec.clone();
        posting.requests[0].method = "POST".to_owned();
        assert!(probing(&posting).is_none());
        assert!(probing(&LoadSpec { profile: profile(499.0), ..spec }).is_none());
    }
}
