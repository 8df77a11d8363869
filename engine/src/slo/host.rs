//! Whether a miss may be the host's fault and not the target's.
//!
//! A host that is short of CPU delays some requests by much and most by little. So a missed latency is doubtful if its
//! phase was short of CPU, more so than the baseline (which is the control: what held there, held in spite of the host),
//! and if most requests were within the limit all the same. Everything else is the target's.

use reports::Latencies;
use reports::format::percent;
use reports::record::{InjectionRecord, Objective, Outcomes, Phase, RunRecord, Sli};

/// Share of a phase in which somebody waited for a CPU, from which on processes under test queue up for it. The lab
/// alone, on two cores, makes 0.1 to 0.3.
const WAITED: f64 = 0.5;
/// Share of all CPU time that a hypervisor may take before it shows.
const STOLEN: f64 = 0.1;
/// How much more than in the baseline it must be.
const MORE: f64 = 0.1;

/// Faults that let processes wait for a CPU: then that is what was asked for, and no excuse. The kernel counts those of a
/// throttled group as waiting, too.
const WANTED: [&str; 2] = ["cpu-stress", "cpu-throttle"];

/// Why a missed clause must not be held against the target, if so.
pub(super) fn excuse(
    record: &RunRecord,
    objective: &Objective,
    phase: Phase,
    outcomes: &Outcomes,
) -> Option<String> {
    if !matches!(objective.sli, Sli::Latency(_)) {
        return None;
    }
    let strain = shortage(record, phase)?;
    let latencies = Latencies::decode(&outcomes.latencies).ok()?;
    let within = latencies.count_within(objective.limit).min(outcomes.ok);
    // Failures are no delays.
    let failed = outcomes.failed() as f64 > 0.01 * outcomes.done() as f64;
    (!failed && 2 * within > outcomes.done())
        .then(|| format!("{strain}, and only the slowest requests missed: it may be the host's fault"))
}

/// That the host was short of CPU in a phase, in words.
pub(super) fn shortage(record: &RunRecord, phase: Phase) -> Option<String> {
    let of = |wanted: Phase| record.generator.strain.iter().find(|strain| strain.phase == wanted);
    let (here, control) = (of(phase)?, of(Phase::Baseline).filter(|_| phase != Phase::Baseline));
    let beyond = |share: f64, control: Option<f64>, limit: f64| {
        share >= limit && control.is_none_or(|control| share >= control + MORE)
    };
    let name = phase.name();
    if beyond(here.stolen, control.map(|strain| strain.stolen), STOLEN) {
        return Some(format!(
            "the hypervisor took {} of the CPU time of the {name} phase",
            percent(here.stolen)
        ));
    }
    let live = |hit: &&InjectionRecord| hit.applied_s.is_some() && WANTED.contains(&hit.fault.as_str());
    if phase == Phase::Fault && record.injections.iter().any(|hit| live(&hit)) {
        return None;
    }
    beyond(here.waited, control.map(|strain| strain.waited), WAITED)
        .then(|| format!("the host was short of CPU for {} of the {name} phase", percent(here.waited)))
}
