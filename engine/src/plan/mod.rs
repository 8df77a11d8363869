//! The experiment resolved: concrete targets, absolute times, what will be done and undone. Printing it is the dry run.
//!
//! Pure: the same experiment and seed give the same plan. Process ids and addresses are not in it; a run reads them
//! when it prepares.

mod blast;
mod cases;
mod select;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;
use std::time::Duration;

use injectors::about::Effect;
use injectors::{Args, Injector, Target};
use reports::format::count;
use reports::record::{Objective, Phase, PhaseSpan, Sli};
use serde::Serialize;

use crate::experiment::mistake::Mistake;
use crate::experiment::{Experiment, FaultUse, Load, Step};
use crate::feed::{Feed, Order};
use crate::journey::Pace;
use crate::random::Random;
use crate::slo::STEADY_SECONDS;

pub use blast::Blast;
pub use cases::{Case, CaseKind, faults, losses, one_of};
pub use text::{bare_url, clause, describe};

/// A resolved experiment.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The experiment's name.
    pub experiment: String,
    /// Its question.
    pub question: String,
    /// Decides targets and every random choice.
    pub seed: u64,
    /// From the start to the end of the load.
    pub duration_s: f64,
    /// When each phase is planned; recovery ends as soon as the objectives hold again.
    pub phases: Vec<PhaseSpan>,
    /// What is sent.
    pub load: Vec<PlannedLoad>,
    /// What is broken, by time.
    pub injections: Vec<PlannedInjection>,
    /// How much is hit at one time, and who needs it.
    pub blast_radius: Vec<Blast>,
    /// What must hold.
    pub objectives: Vec<String>,
    /// What stops the run.
    pub guards: Vec<String>,
    /// What a reader should know before the start.
    pub notes: Vec<String>,
}

/// One load of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedLoad {
    /// The journey.
    pub name: String,
    /// `GET http://…`, without query values.
    pub sends: Vec<String>,
    /// In words.
    pub arrivals: String,
    /// Expected arrivals in all.
    pub requests: u64,
    /// The highest rate, per second.
    pub peak_per_s: f64,
}

/// One injection of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedInjection {
    /// Counted from 1.
    pub number: u32,
    /// From the start of the load.
    pub at_s: f64,
    /// How long.
    pub for_s: f64,
    /// The fault's name.
    pub fault: String,
    /// What it is aimed at.
    pub target: Target,
    /// The service of the target, if it is known.
    pub service: Option<String>,
    /// Its parameters.
    pub args: Args,
    /// Its own seed.
    pub seed: u64,
    /// What it does to the target.
    pub effect: Effect,
    /// The operation in words.
    #[serde(rename = "do")]
    pub does: String,
    /// Its reversal, as far as it is known beforehand.
    pub undo: String,
    /// What proves it.
    pub proof: String,
    /// What it occupies.
    pub claims: Vec<String>,
    /// Which fault of the timeline it comes from, by time.
    #[serde(skip)]
    pub listed: usize,
    /// The fault itself.
    #[serde(skip)]
    pub injector: &'static dyn Injector,
}

/// The number with this index of a seed.
pub fn draw(seed: u64, index: u64) -> u64 {
    Random::new(seed, index).next()
}

/// Resolves an experiment.
///
/// # Errors
/// Every target that does not exist, and every pair of injections that would claim one thing at one time.
pub fn resolve(experiment: &Experiment, seed: u64) -> Result<Plan, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut injections: Vec<PlannedInjection> = Vec::new();
    let mut listed = 0;
    let mut steps: Vec<&Step> = experiment.timeline.iter().collect();
    steps.sort_by_key(|step| step.at);
    for step in steps {
        for (index, used) in step.faults.iter().enumerate() {
            listed += 1;
            let own = draw(seed, (injections.len() + index) as u64);
            let targets = match select::targets(experiment, used, own) {
                Ok(targets) => targets,
                Err((message, help)) => {
                    mistakes.push(Mistake { node: Some(used.target_node), message, help });
                    continue;
                }
            };
            for (target, service) in targets {
                let target = target.called(&used.args);
                if let Err(found) = check(used, &target) {
                    let about = used.injector.about().name;
                    mistakes.extend(found.into_iter().map(|message| Mistake {
                        node: Some(used.node),
                        message: format!("{about}: {message}"),
                        help: None,
                    }));
                    continue;
                }
                let number = injections.len() as u32 + 1;
                let planned =
                    PlannedInjection { listed, ..planned(number, step, used, target, service, seed) };
                if let Some(other) = injections.iter().find(|other| crossing(other, &planned)) {
                    let message = format!(
                        "{} on {} would cross {} on {} at {}s",
                        planned.fault,
                        planned.target,
                        other.fault,
                        other.target,
                        planned.at_s.max(other.at_s)
                    );
                    let help = Some(
                        "one packet could be among both: give both the same aim, or aims that no packet fits at once \
                         (other `to`, `from`, `ports` or `protocol`), or move one"
                            .to_owned(),
                    );
                    mistakes.push(Mistake { node: Some(used.node), message, help });
                }
                if let Some(other) = injections.iter().find(|other| clash(other, &planned)) {
                    let message = format!(
                        "{} on {} would overlap with {} on the same target at {}s",
                        planned.fault,
                        planned.target,
                        other.fault,
                        planned.at_s.max(other.at_s)
                    );
                    let help = Some(
                        "two injections cannot claim one thing at one time: move one, or aim it elsewhere"
                            .to_owned(),
                    );
                    mistakes.push(Mistake { node: Some(used.node), message, help });
                }
                injections.push(planned);
            }
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    Ok(assemble(experiment, seed, injections))
}

fn planned(
    number: u32,
    step: &Step,
    used: &FaultUse,
    target: Target,
    service: Option<String>,
    seed: u64,
) -> PlannedInjection {
    let about = used.injector.about();
    let with = used.args.line();
    let with = if with.is_empty() { String::new() } else { format!(" ({with})") };
    PlannedInjection {
        number,
        at_s: step.at.as_secs_f64(),
        for_s: step.length.as_secs_f64(),
        fault: about.name.to_owned(),
        does: match target {
            Target::Nothing => format!("{}{with}", about.name),
            _ => format!("{} on {target}{with}", about.name),
        },
        undo: used.injector.undoes(&used.args, &target),
        proof: about.proof.to_owned(),
        claims: select::claims(used.injector, &used.args, &target),
        effect: about.effect,
        seed: draw(seed, 1000 + u64::from(number)),
        args: used.args.clone(),
        injector: used.injector,
        listed: 0,
        target,
        service,
    }
}

/// The fault's own rules. With mistakes in its parameters they would only breed others.
fn check(used: &FaultUse, target: &Target) -> Result<(), Vec<String>> {
    if used.whole { used.injector.check(&used.args, target) } else { Ok(()) }
}

fn overlap(a: &PlannedInjection, b: &PlannedInjection) -> bool {
    // One that begins when the other ends only touches it: sums of seconds are not exact, nanoseconds are.
    let nanos = |seconds: f64| (seconds * 1e9).round() as i64;
    let (a_ends, b_ends) = (nanos(a.at_s) + nanos(a.for_s), nanos(b.at_s) + nanos(b.for_s));
    nanos(a.at_s) < b_ends && nanos(b.at_s) < a_ends
}

/// Whether two network faults with different aims could meet on one interface.
fn crossing(a: &PlannedInjection, b: &PlannedInjection) -> bool {
    match (&a.target, &b.target) {
        (Target::Traffic(one), Target::Traffic(other)) => overlap(a, b) && one.crosses(other),
        _ => false,
    }
}

fn clash(a: &PlannedInjection, b: &PlannedInjection) -> bool {
    overlap(a, b) && a.claims.iter().any(|claim| b.claims.contains(claim))
}

fn assemble(experiment: &Experiment, seed: u64, injections: Vec<PlannedInjection>) -> Plan {
    let phases = phases(experiment, &injections);
    let load = experiment.load.iter().map(|load| PlannedLoad {
        name: load.name.clone(),
        sends: load.requests.iter().map(|r| format!("{} {}", r.method, text::bare_url(&r.url))).collect(),
        arrivals: text::arrivals(load),
        requests: expected(load, 0.0, load.duration().as_secs_f64()).round() as u64,
        peak_per_s: load.arrivals.peak(),
    });
    Plan {
        experiment: experiment.name.clone(),
        question: experiment.question.clone(),
        seed,
        duration_s: experiment.duration().as_secs_f64(),
        load: load.collect(),
        blast_radius: blast::radius(experiment, &injections),
        objectives: experiment
            .objectives
            .iter()
            .map(|o| format!("{}: {}", o.journey, text::clause(o)))
            .collect(),
        guards: experiment.guards.iter().map(|guard| guard.text.clone()).collect(),
        notes: notes(experiment, &phases),
        phases,
        injections,
    }
}

/// The phases as planned: recovery ends as soon as the objectives have held for long enough to be sure.
fn phases(experiment: &Experiment, injections: &[PlannedInjection]) -> Vec<PhaseSpan> {
    let end = experiment.duration().as_secs_f64();
    let warm = experiment.warm_up.as_secs_f64().min(end);
    let first = injections.iter().map(|i| i.at_s).fold(end, f64::min);
    let last = injections.iter().map(|i| i.at_s + i.for_s).fold(first, f64::max);
    let soonest = STEADY_SECONDS as f64 + 1.0;
    let recovered = (last + experiment.recover_within.as_secs_f64().min(soonest)).min(end);
    let bounds = [0.0, warm, first, last, recovered, end];
    let spans = Phase::ALL.into_iter().zip(bounds.windows(2));
    let spans =
        spans.map(|(phase, bound)| PhaseSpan { phase, start_s: bound[0], end_s: bound[1].max(bound[0]) });
    spans.filter(|span| span.end_s > span.start_s).collect()
}

/// Expected arrivals of a load between two times.
fn expected(load: &Load, from: f64, to: f64) -> f64 {
    load.arrivals.expected(to) - load.arrivals.expected(from)
}

/// What the plan can already tell: clauses that so few requests cannot decide.
fn notes(experiment: &Experiment, phases: &[PhaseSpan]) -> Vec<String> {
    let judged = |load: &&Load| experiment.objectives.iter().any(|o| o.journey == load.name);
    let silent = experiment.load.iter().filter(|load| !judged(load));
    let mut notes: Vec<String> = silent
        .map(|load| format!("load {} has no objective: nothing will be judged about its users", load.name))
        .collect();
    notes.extend(experiment.load.iter().flat_map(|load| spent(experiment, load)));
    for objective in &experiment.objectives {
        let Some(load) = experiment.load.iter().find(|load| load.name == objective.journey) else { continue };
        let need = needed(objective);
        if need.is_infinite() {
            notes.push(format!(
                "{}: {} can never be held, only missed or unknown: no number of requests proves that none fails; write \
                 `>= 99.9%`, say",
                objective.journey,
                text::clause(objective)
            ));
            continue;
        }
        for span in phases.iter().filter(|span| objective.phases.contains(&span.phase)) {
            let have = expected(load, span.start_s, span.end_s);
            if have < need {
                notes.push(format!(
                    "{}: {} in {} needs about {} requests to be decided, and only {} are expected: it may end as unknown",
                    objective.journey,
                    text::clause(objective),
                    span.phase.name(),
                    need.ceil(),
                    have.round()
                ));
            }
        }
    }
    notes
}

/// Feeds whose rows users will have taken before the end, if answers are quick.
fn spent(experiment: &Experiment, load: &Load) -> Vec<String> {
    let Some(journey) = &load.journey else { return Vec::new() };
    let Pace::Users { count: people, ramp, lasting, keep_rows: false } = &journey.pace else {
        return Vec::new();
    };
    let time = lasting.as_secs_f64() - ramp.as_secs_f64() / 2.0;
    let walks = f64::from(*people) * time / journey.estimate().0.max(1e-3);
    let short =
        |feed: &&Arc<Feed>| feed.order() == Order::Unique && (feed.rows() as f64) < walks && load.uses(feed);
    let say = |feed: &Arc<Feed>| {
        format!(
            "{}: its users may go through some {} times, and feed {} has {} rows, each taken once: whoever finds none left \
             ends with a failure called `data`",
            load.name,
            count(walks as u64),
            feed.name(),
            count(feed.rows() as u64)
        )
    };
    experiment.feeds.iter().filter(short).map(say).collect()
}

/// Requests from which on a clause can be held at all.
fn needed(objective: &Objective) -> f64 {
    match objective.sli {
        Sli::Availability => crate::slo::stats::samples_for_share(objective.limit),
        Sli::Latency(q) => crate::slo::stats::samples_for_quantile(q),
        Sli::Throughput => 0.0,
    }
}

/// Seconds as a duration, for times of a plan.
pub fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
