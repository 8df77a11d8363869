//! From the course of a run to its record.

use std::net::SocketAddr;

use injectors::target::Target;
use reports::record::{
    End, ExperimentInfo, GuardRecord, HostInfo, Judgement, LoadRecord, RelayInfo, Restoration, RunRecord,
    SCHEMA, Sli, Verdict,
};

use super::course::Course;
use super::world::World;
use super::{Options, late_names};
use crate::clock;
use crate::experiment::vars::substitute_late;
use crate::experiment::{Experiment, Late};
use crate::load::{self, LoadOutcome};
use crate::plan::{Plan, PlannedInjection, span};
use crate::slo;

/// Everything that a run has shown, judged.
pub(super) fn record(
    experiment: &Experiment,
    plan: &Plan,
    options: &Options,
    run: &str,
    world: &World,
    mut course: Course,
    outcome: LoadOutcome,
) -> RunRecord {
    course.injections.sort_by_key(|injection| {
        let number = injection.id.rsplit_once('/').and_then(|(_, number)| number.parse::<u32>().ok());
        number.unwrap_or_default()
    });
    let restoration = restoration(&course, plan.injections.len());
    let late = late_names(world);
    let guards = experiment.guards.iter().enumerate().map(|(index, guard)| GuardRecord {
        when: guard.text.clone(),
        tripped_s: course.tripped.iter().find(|(text, _)| *text == guard.text).map(|(_, at)| *at),
        closest: course.watch.closest(index),
    });
    let mut generator = outcome.generator;
    generator.saturated = load::saturation(&outcome.facts, tightest(experiment).map(span));
    let mut record = RunRecord {
        schema: SCHEMA.to_owned(),
        run: run.to_owned(),
        squall: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix_s: course.clock.origin_unix_s(),
        ended_unix_s: clock::unix().as_secs_f64(),
        seed: plan.seed,
        reproduce: options.reproduce.clone(),
        experiment: ExperimentInfo {
            name: experiment.name.clone(),
            question: experiment.question.clone(),
            owner: experiment.owner.clone(),
            file: options.file.clone(),
            text: options.text.clone(),
        },
        host: host(world),
        guards: guards.collect(),
        phases: course.phases,
        relays: relays(experiment, world),
        topology: experiment.topology.as_ref().map(crate::experiment::Topology::info),
        loads: outcome.loads.into_iter().map(|load| in_words(load, plan, &late)).collect(),
        generator,
        injections: course.injections,
        probes: course.probes,
        objectives: experiment.objectives.clone(),
        recover_within_s: experiment.recover_within.as_secs_f64(),
        end: course.end,
        restoration,
        events: course.events,
        judgement: unjudged(),
    };
    meetings(&mut record, plan);
    record.judgement = slo::judge(&record);
    without_secrets(record, experiment)
}

/// Notes which journeys send to the addresses at which packets are hit.
fn meetings(record: &mut RunRecord, plan: &Plan) {
    let sends: Vec<(String, Vec<SocketAddr>)> = record
        .loads
        .iter()
        .map(|load| {
            let addresses = slo::addresses(record, load);
            (load.name.clone(), addresses.iter().filter_map(|address| address.parse().ok()).collect())
        })
        .collect();
    for injection in &mut record.injections {
        let own = |planned: &&PlannedInjection| injection.id == format!("{}/{}", record.run, planned.number);
        let traffic = match plan.injections.iter().find(own).map(|planned| &planned.target) {
            Some(Target::Traffic(traffic)) => traffic,
            Some(Target::Flows(flows)) if flows.among.is_none() => &flows.traffic,
            _ => continue,
        };
        let met = sends.iter().filter(|(_, to)| to.iter().any(|peer| traffic.meets(*peer)));
        injection.meets = met.map(|(journey, _)| journey.clone()).collect();
    }
}

/// The record with every value from the environment replaced by its name, wherever it got into a text.
fn without_secrets(record: RunRecord, experiment: &Experiment) -> RunRecord {
    experiment.secrets.each().fold(record, |record, secret| {
        let mut value = serde_json::to_value(&record).expect("records are plain maps with text keys");
        secret.hide_in(&mut value);
        // What no longer reads as a record held a word of the format, such as `baseline`: everybody knows that one.
        serde_json::from_value(value).unwrap_or(record)
    })
}

fn unjudged() -> Judgement {
    Judgement {
        verdict: Verdict::Unknown,
        exit: slo::exit::INCONCLUSIVE,
        reasons: Vec::new(),
        results: Vec::new(),
        detect_s: None,
        recover_s: None,
        recover_note: None,
        findings: Vec::new(),
    }
}

/// What is sent and when as the plan has it: without query values, which may be secret.
fn in_words(mut load: LoadRecord, plan: &Plan, late: &Late) -> LoadRecord {
    if let Some(planned) = plan.load.iter().find(|planned| planned.name == load.name) {
        load.sends = planned.sends.iter().map(|sends| substitute_late(sends, late)).collect();
        load.arrivals.clone_from(&planned.arrivals);
    }
    load
}

fn restoration(course: &Course, planned: usize) -> Restoration {
    let open = course
        .injections
        .iter()
        .filter(|injection| !matches!(injection.undo.as_str(), "restored" | "not-needed"));
    let mut left: Vec<String> = open.map(|injection| injection.manual.clone()).collect();
    // Those that were still under way when the operator left the rest to the guardian: nobody here saw their end.
    let unfinished = planned.saturating_sub(course.injections.len());
    if unfinished > 0 {
        left.push(format!("squall recover, unless the guardian has undone the last {unfinished} by then"));
    }
    // Without an early decision, each injection ends in its own time: the slowest undo counts.
    let seconds = match (course.restore_from, course.restored_at) {
        (Some(from), Some(to)) if to >= from => (to - from).max(course.slowest_undo),
        _ => course.slowest_undo,
    };
    let crashed = matches!(&course.end, End::Aborted { by, .. } if by == "guardian") && !left.is_empty();
    Restoration { verified: left.is_empty() && !crashed, seconds, left }
}

/// The smallest latency limit of any objective, in seconds.
fn tightest(experiment: &Experiment) -> Option<f64> {
    let latencies = experiment.objectives.iter().filter(|objective| matches!(objective.sli, Sli::Latency(_)));
    latencies.map(|objective| objective.limit).reduce(f64::min)
}

/// The relays that the experiment declares, where they listened.
fn relays(experiment: &Experiment, world: &World) -> Vec<RelayInfo> {
    let own = |name: &str| experiment.relays.iter().any(|declared| declared.name == name);
    let carried = world.inventory.relays.iter().filter(|relay| own(&relay.name));
    carried
        .map(|relay| RelayInfo {
            name: relay.name.clone(),
            listen: relay.listen.clone(),
            upstream: relay.upstream.clone(),
        })
        .collect()
}

fn host(world: &World) -> HostInfo {
    let kernel = injectors::sys::host::kernel();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    HostInfo { kernel, cores, target: world.describe() }
}
