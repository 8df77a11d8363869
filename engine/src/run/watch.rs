//! What the dispatcher keeps of the load while it runs: enough to judge the baseline, the guards and the recovery.

use std::collections::BTreeMap;

use reports::Latencies;
use reports::record::{Objective, Outcomes, Phase, Sli};

use super::event::{LoadSnapshot, Snapshot};
use crate::experiment::{Guard, GuardMetric};
use crate::load::{PhaseTick, Tick};
use crate::slo::{self, STEADY_SECONDS, Slice, measure};

/// One second of one journey, phases merged.
struct Second {
    ok: u64,
    failed: u64,
    latencies: Latencies,
}

/// The live view of the load.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Per guard: seconds on end beyond the limit, and how close it ever came.
    guards: Vec<(u32, f64)>,
    baseline: BTreeMap<String, (Outcomes, Latencies)>,
    /// Whole seconds of the baseline and the good answers in them, per journey.
    baseline_seconds: BTreeMap<String, (u64, u64)>,
    /// The newest seconds since the last undo, per journey: as many as it takes to look steady.
    after: BTreeMap<String, Vec<Slice>>,
}

impl Watch {
    /// Takes in one second. Returns the text of a guard that trips.
    pub(crate) fn second(
        &mut self,
        tick: &Tick,
        guards: &[Guard],
        objectives: &[Objective],
    ) -> Option<String> {
        self.guards.resize(guards.len(), (0, 0.0));
        let mut tripped = None;
        for load in &tick.loads {
            for part in load.phases.iter().filter(|part| part.phase == Phase::Baseline) {
                self.add_baseline(&load.name, part);
            }
            let second = merged(&load.phases);
            for (guard, state) in
                guards.iter().zip(&mut self.guards).filter(|(guard, _)| *guard.journey == *load.name)
            {
                let (beyond, closeness) = beyond(guard, &second);
                state.0 = if beyond { state.0 + 1 } else { 0 };
                let close = if beyond { f64::from(state.0) / f64::from(guard.seconds) } else { closeness };
                state.1 = state.1.max(close.min(1.0));
                if state.0 >= guard.seconds {
                    tripped = Some(guard.text.clone());
                }
            }
            let after: Vec<&PhaseTick> =
                load.phases.iter().filter(|part| part.phase > Phase::Fault).collect();
            if !after.is_empty() {
                let slice = slice(&own(objectives, &load.name), tick.second, &after);
                let newest = self.after.entry(load.name.to_string()).or_default();
                if newest.len() == STEADY_SECONDS {
                    newest.remove(0);
                }
                newest.push(slice);
            }
        }
        tripped
    }

    fn add_baseline(&mut self, name: &str, part: &PhaseTick) {
        match self.baseline_seconds.get_mut(name) {
            // The first second may have begun before the baseline did.
            None => drop(self.baseline_seconds.insert(name.to_owned(), (0, 0))),
            Some((seconds, ok)) => (*seconds, *ok) = (*seconds + 1, *ok + part.ok),
        }
        let (outcomes, latencies) = self.baseline.entry(name.to_owned()).or_default();
        add(outcomes, part);
        latencies.merge(&part.latencies);
    }

    /// How close each guard ever came to tripping.
    pub(super) fn closest(&self, index: usize) -> f64 {
        self.guards.get(index).map_or(0.0, |(_, closest)| *closest)
    }

    /// How close each guard is now: seconds beyond the limit of those that it takes.
    pub(super) fn now(&self, guards: &[Guard]) -> Vec<(String, f64)> {
        let close = |index: usize, guard: &Guard| {
            self.guards.get(index).map_or(0.0, |g| f64::from(g.0) / f64::from(guard.seconds))
        };
        guards.iter().enumerate().map(|(index, guard)| (guard.text.clone(), close(index, guard))).collect()
    }

    /// Whether the baseline allows a fault.
    ///
    /// # Errors
    /// The broken clauses in words.
    pub(super) fn steady(&self, objectives: &[Objective]) -> Result<(), String> {
        let mut broken = Vec::new();
        for objective in objectives.iter().filter(|objective| objective.phases.contains(&Phase::Baseline)) {
            let known = self.baseline.get(&objective.journey);
            let outcomes = known
                .map(|(outcomes, latencies)| Outcomes { latencies: latencies.encode(), ..outcomes.clone() });
            let result = measure::result(objective, Phase::Baseline, outcomes.as_ref(), &[]);
            let estimate = match objective.sli {
                Sli::Throughput => self.baseline_rate(&objective.journey),
                Sli::Availability | Sli::Latency(_) => result.estimate,
            };
            // No estimate is no steady state: requests that all fail have no latency.
            let on_good_side = estimate.is_some_and(|value| measure::good(objective, value));
            let no_data = outcomes.is_none_or(|outcomes| outcomes.done() == 0);
            if no_data || !on_good_side {
                broken.push(measure::sentence(&result));
            }
        }
        if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
    }

    /// Good answers per second of the baseline so far; none before there is a whole second.
    fn baseline_rate(&self, journey: &str) -> Option<f64> {
        let (seconds, ok) = self.baseline_seconds.get(journey)?;
        (*seconds > 0).then(|| *ok as f64 / *seconds as f64)
    }

    /// Whether every judged journey has looked steady for long enough since the last undo.
    pub(super) fn recovered(&self, objectives: &[Objective]) -> bool {
        objectives.iter().all(|objective| {
            let newest = self.after.get(&objective.journey);
            newest.is_some_and(|newest| slo::looks_steady(&own(objectives, &objective.journey), newest))
        })
    }
}

fn merged(parts: &[PhaseTick]) -> Second {
    let mut second = Second { ok: 0, failed: 0, latencies: Latencies::default() };
    for part in parts {
        second.ok += part.ok;
        second.failed += part.errors.total();
        second.latencies.merge(&part.latencies);
    }
    second
}

/// Whether a second is beyond a guard's limit, and how close it is otherwise (below 1).
fn beyond(guard: &Guard, second: &Second) -> (bool, f64) {
    let done = second.ok + second.failed;
    let value = match guard.metric {
        // A second in which nothing ends says nothing about errors; throughput sees it.
        GuardMetric::Errors if done == 0 => return (false, 0.0),
        GuardMetric::Errors => second.failed as f64 / done as f64,
        GuardMetric::Throughput => second.ok as f64,
        // Failures are slower than any answer, as they are for objectives.
        GuardMetric::Latency(q) => {
            let outcomes = Outcomes {
                ok: second.ok,
                errors: BTreeMap::from([(String::new(), second.failed)]),
                ..Outcomes::default()
            };
            match measure::latency(&outcomes, &second.latencies, q).estimate {
                Some(latency) => latency,
                None => return (false, 0.0),
            }
        }
    };
    let beyond = if guard.above { value > guard.limit } else { value < guard.limit };
    // Within the limit, closeness is scaled so that it stays below the first second beyond it.
    let ratio = if guard.above { value / guard.limit } else { guard.limit / value };
    (beyond, (ratio / f64::from(guard.seconds)).clamp(0.0, 0.99))
}

fn own<'o>(objectives: &'o [Objective], journey: &str) -> Vec<&'o Objective> {
    objectives.iter().filter(|objective| objective.journey == journey).collect()
}

/// One second of a journey as judging sees it.
fn slice(own: &[&Objective], second: u64, parts: &[&PhaseTick]) -> Slice {
    let mut outcomes = Outcomes::default();
    let mut latencies = Latencies::default();
    for part in parts {
        add(&mut outcomes, part);
        latencies.merge(&part.latencies);
    }
    Slice::new(own, (second as f64, 1.0), &outcomes, &latencies)
}

fn add(outcomes: &mut Outcomes, part: &PhaseTick) {
    outcomes.due += part.due;
    outcomes.ok += part.ok;
    for (class, count) in part.errors.by_name() {
        *outcomes.errors.entry(class).or_default() += count;
    }
}

/// One second for displays.
pub(super) fn snapshot(
    tick: &Tick,
    duration_s: f64,
    active: Vec<String>,
    guards: Vec<(String, f64)>,
) -> Snapshot {
    let loads = tick.loads.iter().map(|load| {
        let second = merged(&load.phases);
        let done = second.ok + second.failed;
        LoadSnapshot {
            name: load.name.to_string(),
            rate: done as f64,
            errors: if done == 0 { 0.0 } else { second.failed as f64 / done as f64 },
            p50_s: second.latencies.quantile(0.5),
            p99_s: second.latencies.quantile(0.99),
        }
    });
    Snapshot {
        end_s: tick.second as f64 + 1.0,
        duration_s,
        loads: loads.collect(),
        lag_p99_s: tick.lag_p99_s.unwrap_or_default(),
        active,
        guards,
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
