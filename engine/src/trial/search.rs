//! A search for the capacity, trial by trial, on a real target.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reports::Latencies;
use reports::record::{Objective, Sli, Verdict};

use super::{Asked, Ended, Finished, blame, hold, run};
use crate::capacity::{Answer, Purpose, Search, Seen, Step, Trial, growth};
use crate::experiment::{Guard, GuardMetric};
use crate::load::{LoadError, LoadSpec, Tick};
use crate::run::Signals;
use crate::run::watch::Watch;
use crate::slo::measure;

/// What lies between two trials, so that the target can finish what it has begun.
const REST: Duration = Duration::from_secs(1);
/// The target is warmed at this share of the first rate.
const WARM: f64 = 0.3;
/// For so long.
const WARM_UP: Duration = Duration::from_secs(3);

/// Makes trials until nothing more is to be learnt, or the operator has had enough; what was learnt is in `search`.
///
/// # Errors
/// A load cannot be sent.
pub async fn search(
    asked: Asked<'_>,
    search: &mut Search,
    signals: &mut Signals,
    mut told: impl FnMut(&Trial),
) -> Result<Ended, LoadError> {
    let Asked { spec, objectives, .. } = asked;
    if let (true, Step::Try { rate, .. }) = (search.trials().is_empty(), search.next()) {
        let spec = LoadSpec { profile: hold(rate * WARM, WARM_UP.as_secs_f64()), ..spec.clone() };
        let mut sentry = Sentry::new(asked.guards, rate * WARM);
        let warm = Asked { spec: &spec, objectives: &[], probe: false, ..asked };
        let finished = run(warm, signals, |tick| sentry.second(tick)).await?;
        if let Some(ended) = sentry.ended(&finished) {
            return Ok(ended);
        }
    }
    while let Step::Try { purpose, rate, seconds } = search.next() {
        let began = Instant::now();
        let profile = hold(rate, seconds);
        let mut course = Course::new(objectives, profile.total());
        let spec = LoadSpec { profile, ..spec.clone() };
        let seed = asked.seed.wrapping_add(search.trials().len() as u64);
        // Too much is offered on purpose, to its end; and what comes after it begins badly.
        let beyond = matches!(purpose, Purpose::Overload | Purpose::Return);
        let mut sentry = Sentry::new(asked.guards, rate);
        let watch = |tick: &Tick| sentry.second(tick) & (course.second(tick) || beyond);
        let finished =
            run(Asked { spec: &spec, seed, twice: purpose == Purpose::Proof, ..asked }, signals, watch)
                .await?;
        if let Some(ended) = sentry.ended(&finished) {
            return Ok(ended);
        }
        // What follows an overload follows at once: whether it recovers under load is the question.
        if !beyond && rest(signals).await {
            return Ok(Ended::ByOperator);
        }
        let answer = match purpose {
            Purpose::Return => course.recovered(seconds),
            _ => answer(&finished, objectives, &course, rate),
        };
        let trial = Trial {
            purpose,
            rate,
            seconds,
            took_s: began.elapsed().as_secs_f64(),
            answer,
            seen: seen(&finished, &spec),
        };
        told(&trial);
        search.learn(trial);
    }
    Ok(Ended::InTime)
}

/// True if the operator does not want to wait.
async fn rest(signals: &mut Signals) -> bool {
    tokio::select! {
        () = tokio::time::sleep(REST) => false,
        _ = signals.next() => true,
    }
}

/// Watches the guards while a trial lasts.
struct Sentry<'g> {
    guards: &'g [Guard],
    /// Those that can be beyond their limit through the target's doing.
    watched: Vec<Guard>,
    watch: Watch,
    tripped: Option<usize>,
}

impl<'g> Sentry<'g> {
    fn new(guards: &'g [Guard], rate: f64) -> Self {
        // Less than is offered cannot be answered.
        let offered =
            |guard: &&Guard| guard.metric != GuardMetric::Throughput || guard.above || rate > guard.limit;
        let watched = guards.iter().filter(offered).cloned().collect();
        Self { guards, watched, watch: Watch::default(), tripped: None }
    }

    /// Whether the trial may go on.
    fn second(&mut self, tick: &Tick) -> bool {
        if let Some(text) = self.watch.second(tick, &self.watched, &[]) {
            self.tripped = self.guards.iter().position(|guard| guard.text == text);
        }
        self.tripped.is_none()
    }

    /// Who ends the search with this trial.
    fn ended(&self, finished: &Finished) -> Option<Ended> {
        match self.tripped {
            _ if finished.ended == Ended::ByOperator => Some(Ended::ByOperator),
            Some(guard) => Some(Ended::ByGuard(guard)),
            None => None,
        }
    }
}

/// What is seen of a trial while it lasts.
pub(super) struct Course<'o> {
    objectives: &'o [Objective],
    /// Requests of the whole trial.
    total: f64,
    /// By objective: requests that were bad.
    bad: Vec<u64>,
    /// At the end of each second.
    under_way: Vec<f64>,
    /// By second: requests that ended, and by objective those that were bad.
    seconds: Vec<(u64, Vec<u64>)>,
}

impl<'o> Course<'o> {
    pub(super) fn new(objectives: &'o [Objective], total: f64) -> Self {
        Self { objectives, total, bad: vec![0; objectives.len()], under_way: Vec::new(), seconds: Vec::new() }
    }

    /// Whether the trial can still pass: as long as the rest, were it all good, would make up for what was bad.
    pub(super) fn second(&mut self, tick: &Tick) -> bool {
        let mut under_way = self.under_way.last().copied().unwrap_or(0.0);
        let (before, mut ended) = (self.bad.clone(), 0);
        for phase in tick.loads.iter().flat_map(|load| &load.phases) {
            let failed = phase.errors.total();
            ended += phase.ok + failed;
            under_way += phase.due as f64 - (phase.ok + failed) as f64;
            for (objective, bad) in self.objectives.iter().zip(&mut self.bad) {
                *bad += match objective.sli {
                    Sli::Latency(_) => {
                        failed + phase.ok.saturating_sub(phase.latencies.count_within(objective.limit))
                    }
                    Sli::Availability => failed,
                    Sli::Throughput => 0,
                };
            }
        }
        self.under_way.push(under_way);
        self.seconds.push((ended, self.bad.iter().zip(before).map(|(now, before)| now - before).collect()));
        self.objectives
            .iter()
            .zip(&self.bad)
            .all(|(objective, bad)| *bad as f64 <= measure::allowed(objective) * self.total + 1.0)
    }

    /// Whether the last two seconds of a trial that was so long were good: what came before them is how it recovered.
    fn recovered(&self, seconds: f64) -> Answer {
        let whole = (seconds as usize).min(self.seconds.len());
        let last = &self.seconds[whole.saturating_sub(2)..whole];
        let ended: u64 = last.iter().map(|(ended, _)| ended).sum();
        for (at, objective) in self.objectives.iter().enumerate() {
            let bad: u64 = last.iter().map(|(_, bad)| bad[at]).sum();
            if ended == 0 || bad as f64 > measure::allowed(objective) * ended as f64 {
                let why = format!("{bad} of {ended} requests of the last two seconds were bad");
                return Answer::Failed { clause: objective.sli.name(), why };
            }
        }
        Answer::Passed
    }
}

/// Passed, or the first objective that did not hold. The bare estimate decides: what chance there is in it, the search
/// takes for what it is.
pub(super) fn answer(
    finished: &Finished,
    objectives: &[Objective],
    course: &Course<'_>,
    rate: f64,
) -> Answer {
    if let Some(why) = finished.own_doubts.first() {
        return Answer::Invalid { why: why.clone() };
    }
    let blamed = |objective: &Objective| blame(objective, finished.stats()?, &finished.outcome.facts);
    for (objective, result) in objectives.iter().zip(&finished.results) {
        let beyond = match result.estimate {
            Some(estimate) => !measure::good(objective, estimate),
            // A latency without a number is one of failures; anything else without one has not been measured.
            None if result.samples > 0 => true,
            None => return Answer::Invalid { why: "nothing was measured".to_owned() },
        };
        if beyond {
            if let Some(why) = blamed(objective) {
                return Answer::Invalid { why };
            }
            return Answer::Failed { clause: objective.sli.name(), why: measure::sentence(result) };
        }
    }
    let whole = (finished.seconds as usize).min(course.under_way.len());
    // What comes after the last arrival only gets less.
    let piled_up = growth(&course.under_way[..whole], rate);
    if (finished.ended == Ended::ByWatcher || piled_up.is_some())
        && let Some(why) = objectives.iter().find_map(blamed)
    {
        return Answer::Invalid { why };
    }
    if finished.ended == Ended::ByWatcher {
        let clause =
            objectives.iter().zip(&finished.results).find(|(_, result)| result.verdict != Verdict::Held);
        let clause = clause.map_or_else(|| objectives[0].sli.name(), |(objective, _)| objective.sli.name());
        return Answer::Failed {
            clause,
            why: "too many requests were bad for the rest to make up for".to_owned(),
        };
    }
    if let Some(more) = piled_up {
        // If it goes on, this is what it breaks.
        let latency = objectives.iter().find(|objective| matches!(objective.sli, Sli::Latency(_)));
        let clause = latency.unwrap_or(&objectives[0]).sli.name();
        return Answer::Failed {
            clause,
            why: format!("requests pile up: {more:.1} more are under way each second"),
        };
    }
    Answer::Passed
}

/// Of the answers, those statuses that no request takes for good.
fn statuses(finished: &Finished, spec: &LoadSpec) -> BTreeMap<u16, u64> {
    let good = |status: &u16| {
        spec.requests.iter().any(|one| one.expect.statuses.iter().any(|range| range.contains(status)))
    };
    let bad =
        finished.stats().into_iter().flat_map(|stats| &stats.statuses).filter(|(status, _)| !good(status));
    bad.map(|(status, count)| (*status, *count)).collect()
}

fn seen(finished: &Finished, spec: &LoadSpec) -> Seen {
    let Some(all) = finished.all() else { return Seen::default() };
    let latencies = Latencies::decode(&all.latencies).unwrap_or_default();
    Seen {
        due: all.due,
        good_per_s: if finished.seconds > 0.0 { all.ok as f64 / finished.seconds } else { 0.0 },
        p50_s: latencies.quantile(0.5),
        p99_s: latencies.quantile(0.99),
        lag_p99_s: finished.outcome.generator.lag_p99_s,
        cpu_max: finished.outcome.generator.cpu_max,
        threads: finished.outcome.generator.workers,
        errors: all.errors.clone(),
        statuses: statuses(finished, spec),
        causes: finished.stats().map(|stats| stats.causes.clone()).unwrap_or_default(),
    }
}
