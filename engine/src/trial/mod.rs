//! One load by itself, judged: what `squall load` sends once, and `squall capacity` again and again.

mod calibrate;
mod probe;
mod recovery;
mod search;
mod under;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reports::Latencies;
use reports::record::{Objective, ObjectiveResult, Outcomes, Phase, PhaseStats, Sli, Verdict};

use crate::experiment::Guard;
use crate::load::remote::Team;
use crate::load::{
    self, Facts, LoadError, LoadOutcome, LoadSpec, PER_THREAD, PhaseCell, Stop, Threads, Tick, Turned, Work,
};
use crate::run::Signals;
use crate::run::desk::Desk;
use crate::schedule::{Profile, Segment};
use crate::slo::{measure, waits};

pub use calibrate::{Calibration, calibrate};
pub use recovery::{Recovered, recovered};
pub use search::search;
pub use under::{Held, Under, UnderError, Wanted, under};

use probe::Probe;

/// How long after the call the first request is due: the threads are up by then.
const LEAD: Duration = Duration::from_millis(50);

/// What is sent, and what must hold.
#[derive(Clone, Copy)]
pub struct Asked<'s> {
    /// What is sent.
    pub spec: &'s LoadSpec,
    /// By whom.
    pub team: &'s Team,
    /// What must hold.
    pub objectives: &'s [Objective],
    /// What ends a search at once.
    pub guards: &'s [Guard],
    /// Decides every random choice.
    pub seed: u64,
    /// Whether a probe beside the load tells whose a queue is.
    pub probe: bool,
    /// What one thread can send, in requests per second, if that was measured.
    pub per_thread: Option<f64>,
    /// The socket that changes the rate on the way, if there shall be one.
    pub control: Option<&'s Path>,
    /// Twice as many threads as the rate needs.
    pub twice: bool,
}

/// Who ended a load before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nobody.
    InTime,
    /// The operator.
    ByOperator,
    /// Whoever watched it had seen enough.
    ByWatcher,
    /// The guard with this index.
    ByGuard(usize),
}

/// What a load came to.
#[derive(Debug)]
pub struct Finished {
    /// Counts and latencies.
    pub outcome: LoadOutcome,
    /// How long arrivals came due, in seconds.
    pub seconds: f64,
    /// Who ended it.
    pub ended: Ended,
    /// Every objective.
    pub results: Vec<ObjectiveResult>,
    /// Why its numbers must not be trusted; empty if the generator kept up.
    pub doubts: Vec<String>,
    /// Those of them that are the generator's own: a target that hangs can use up every connection.
    pub own_doubts: Vec<String>,
    /// What had to be lowered to be able to start, in words.
    pub lowered: Option<String>,
    /// How its rate was changed on the way.
    pub changes: Vec<Turned>,
    /// Service times of the probe; none if there was none.
    pub probe: Option<Latencies>,
}

impl Finished {
    /// All outcomes; none if nothing ended.
    pub fn all(&self) -> Option<&Outcomes> {
        self.stats().map(|stats| &stats.all)
    }

    /// What was counted of the only load in its only phase; none if nothing ended.
    pub fn stats(&self) -> Option<&PhaseStats> {
        self.outcome.loads.first()?.phases.first()
    }

    /// Held only if every objective did.
    pub fn verdict(&self) -> Verdict {
        if !self.doubts.is_empty() {
            return Verdict::Unknown;
        }
        let any = |wanted: &Verdict| self.results.iter().any(|result| result.verdict == *wanted);
        [Verdict::Missed, Verdict::Unknown].into_iter().find(any).unwrap_or(Verdict::Held)
    }
}

impl Asked<'_> {
    fn threads(&self) -> Threads {
        Threads { per_thread: self.per_thread.unwrap_or(PER_THREAD), times: if self.twice { 2 } else { 1 } }
    }
}

/// The smallest latency that must hold.
fn tightest(objectives: &[Objective]) -> Option<Duration> {
    let latencies = objectives.iter().filter(|objective| matches!(objective.sli, Sli::Latency(_)));
    latencies.map(|objective| objective.limit).min_by(f64::total_cmp).map(Duration::from_secs_f64)
}

fn hold(rate: f64, seconds: f64) -> Profile {
    let lasting = Duration::from_secs_f64(seconds);
    Profile::new(vec![Segment::Hold { rate, lasting }])
        .expect("a search keeps to rates and lengths that can be sent")
}

/// Why a clause that does not hold says nothing about the target; none if it may.
fn blame(objective: &Objective, stats: &PhaseStats, facts: &Facts) -> Option<String> {
    waits::for_a_connection(objective, stats, facts.queued, facts.connections_max).or_else(|| {
        let late = |series: &Latencies| series.count() - series.count_within(objective.limit / 2.0);
        waits::for_the_generator(objective, stats, late(&facts.lag).max(late(&facts.handed)))
    })
}

/// Why clauses that were missed say nothing about the target.
fn blamed(objectives: &[Objective], results: &[ObjectiveResult], outcome: &LoadOutcome) -> Vec<String> {
    let Some(stats) = outcome.loads.first().and_then(|load| load.phases.first()) else { return Vec::new() };
    let missed = objectives.iter().zip(results).filter(|(_, result)| result.verdict == Verdict::Missed);
    missed.filter_map(|(objective, _)| blame(objective, stats, &outcome.facts)).collect()
}

/// Sends a load to its end, until the operator has had enough, or `watch` says so.
///
/// # Errors
/// It cannot be sent; nothing was.
pub async fn run(
    asked: Asked<'_>,
    signals: &mut Signals,
    mut watch: impl FnMut(&Tick) -> bool,
) -> Result<Finished, LoadError> {
    let Asked { spec, objectives, seed, .. } = asked;
    let length = spec.profile.duration();
    let (prepared, lowered) =
        load::ready(vec![Work::Open(spec.clone())], asked.team, asked.threads()).await?;
    let mut desk = match asked.control {
        Some(path) => Desk::open(path).map_err(LoadError::Control)?,
        None => Desk::default(),
    };
    let mut probe = if asked.probe { Probe::start(spec, LEAD, seed).await } else { Probe::default() };
    let phase = Arc::new(PhaseCell::new(Phase::Baseline));
    let origin = Instant::now() + LEAD;
    let mut running = load::start(prepared, &phase, origin, seed)?;
    let mut ticks = running.ticks().expect("they are taken once");
    let mut ended = Ended::InTime;
    let mut stopped_at = None;
    let (mut words, mut changes) = (0, Vec::new());
    loop {
        tokio::select! {
            tick = ticks.recv() => match tick {
                Some(tick) => {
                    probe.beside(&tick);
                    if !watch(&tick) && ended == Ended::InTime {
                        (ended, stopped_at) = (Ended::ByWatcher, Some(Instant::now()));
                        running.stop(Stop::Now);
                    }
                }
                None => break,
            },
            tick = probe.next() => probe.saw(&tick),
            wish = desk.next() => {
                let came = running.knobs().turn(wish.load.as_deref(), wish.knob);
                changes.extend(came.iter().flatten().cloned());
                wish.answer(came);
            }
            _ = signals.next() => {
                words += 1;
                ended = Ended::ByOperator;
                stopped_at.get_or_insert_with(Instant::now);
                running.stop(if words == 1 { Stop::Graceful } else { Stop::Now });
            }
        }
    }
    drop(desk);
    let outcome = running.finish().await;
    let probed = probe.end().await;
    let sent_for = stopped_at.map_or(length, |at| at.saturating_duration_since(origin).min(length));
    let tightest = tightest(objectives);
    let (mut doubts, mut own_doubts) =
        (load::saturation(&outcome.facts, tightest), load::overtaxed(&outcome.facts, tightest));
    doubts.extend(probed.doubt.clone());
    own_doubts.extend(probed.doubt);
    let in_phase = |objective| measure::in_phase(objective, outcome.loads.first(), Phase::Baseline);
    let results: Vec<ObjectiveResult> = objectives.iter().map(in_phase).collect();
    if doubts.is_empty() {
        doubts = blamed(objectives, &results, &outcome);
    }
    Ok(Finished {
        outcome,
        seconds: sent_for.as_secs_f64(),
        ended,
        results,
        doubts,
        own_doubts,
        lowered,
        probe: probed.service,
        changes,
    })
}
