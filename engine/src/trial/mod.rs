//! One load by itself, judged: what `squall load` sends once, and `squall capacity` again and again.

mod search;
mod under;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reports::record::{Objective, ObjectiveResult, Outcomes, Phase, Sli, Verdict};

use crate::load::remote::Hands;
use crate::load::{self, LoadError, LoadOutcome, LoadSpec, PhaseCell, Stop, Tick};
use crate::run::Signals;
use crate::slo::measure;

pub use search::search;
pub use under::{Searching, Under, UnderError, under};

/// How long after the call the first request is due: the threads are up by then.
const LEAD: Duration = Duration::from_millis(50);

/// Who ended a load before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nobody.
    InTime,
    /// The operator.
    ByOperator,
    /// Whoever watched it had seen enough.
    ByWatcher,
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
}

impl Finished {
    /// All outcomes; none if nothing ended.
    pub fn all(&self) -> Option<&Outcomes> {
        self.outcome.loads.first()?.phases.first().map(|stats| &stats.all)
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

/// Sends a load to its end, until the operator has had enough, or `watch` says so.
///
/// # Errors
/// It cannot be sent; nothing was.
pub async fn run(
    spec: LoadSpec,
    objectives: &[Objective],
    seed: u64,
    signals: &mut Signals,
    watch: impl FnMut(&Tick) -> bool,
) -> Result<Finished, LoadError> {
    run_by(&Hands::Here, spec, objectives, seed, signals, watch).await
}

/// The same, sent by whoever is named.
///
/// # Errors
/// As [`run`], or a worker cannot be had.
pub async fn run_by(
    hands: &Hands,
    spec: LoadSpec,
    objectives: &[Objective],
    seed: u64,
    signals: &mut Signals,
    mut watch: impl FnMut(&Tick) -> bool,
) -> Result<Finished, LoadError> {
    let length = spec.profile.duration();
    let (prepared, lowered) = load::ready_by(vec![spec], hands).await?;
    let phase = Arc::new(PhaseCell::new(Phase::Baseline));
    let origin = Instant::now() + LEAD;
    let mut running = load::start(prepared, &phase, origin, seed)?;
    let mut ticks = running.ticks().expect("they are taken once");
    let mut ended = Ended::InTime;
    let mut stopped_at = None;
    let mut words = 0;
    loop {
        tokio::select! {
            tick = ticks.recv() => match tick {
                Some(tick) if !watch(&tick) && ended == Ended::InTime => {
                    (ended, stopped_at) = (Ended::ByWatcher, Some(Instant::now()));
                    running.stop(Stop::Now);
                }
                Some(_) => {}
                None => break,
            },
            _ = signals.next() => {
                words += 1;
                ended = Ended::ByOperator;
                stopped_at.get_or_insert_with(Instant::now);
                running.stop(if words == 1 { Stop::Graceful } else { Stop::Now });
            }
        }
    }
    let outcome = running.finish().await;
    let sent_for = stopped_at.map_or(length, |at| at.saturating_duration_since(origin).min(length));
    let tightest = objectives.iter().filter(|objective| matches!(objective.sli, Sli::Latency(_)));
    let tightest =
        tightest.map(|objective| objective.limit).min_by(f64::total_cmp).map(Duration::from_secs_f64);
    let doubts = load::saturation(&outcome.facts, tightest);
    let own_doubts = load::overtaxed(&outcome.facts, tightest);
    let results = objectives
        .iter()
        .map(|objective| measure::in_phase(objective, outcome.loads.first(), Phase::Baseline))
        .collect();
    Ok(Finished { outcome, seconds: sent_for.as_secs_f64(), ended, results, doubts, own_doubts, lowered })
}
