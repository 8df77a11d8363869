//! The blast radius: how much of what is hit at one time, and which journeys need it.

use injectors::Target;
use serde::Serialize;

use super::PlannedInjection;
use crate::experiment::Experiment;

/// How much of one thing is hit at one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Blast {
    /// What is hit: `instances of auth`, `PoPs`, `relays`, or the target itself if it belongs to nothing known.
    pub what: String,
    /// How many of them are hit at the same time, at most.
    pub hit: usize,
    /// How many there are, if that is known.
    pub of: Option<usize>,
    /// Journeys that need it, if that is known.
    pub journeys: Option<Vec<String>>,
}

/// The blast radius of a plan, in the order of the topology: services, PoPs, relays, everything else.
pub(super) fn radius(experiment: &Experiment, injections: &[PlannedInjection]) -> Vec<Blast> {
    let mut blasts = Vec::new();
    for service in experiment.topology.iter().flat_map(|topology| &topology.services) {
        let hit = at_once(injections, |one| one.service.as_ref() == Some(&service.name));
        let topology = experiment.topology.iter();
        let needed = topology.flat_map(|topology| &topology.journeys);
        let needed = needed.filter(|journey| journey.through.contains(&service.name));
        blasts.push(Blast {
            what: format!("instances of {}", service.name),
            hit,
            of: Some(service.instances.len()),
            journeys: Some(needed.map(|journey| journey.name.clone()).collect()),
        });
    }
    if let Some(topology) = &experiment.topology {
        blasts.push(Blast {
            what: "PoPs".to_owned(),
            hit: at_once(injections, |one| matches!(one.target, Target::Pop(_))),
            of: Some(topology.pops().len()),
            // Every journey enters through the PoPs.
            journeys: Some(topology.journeys.iter().map(|journey| journey.name.clone()).collect()),
        });
    }
    for relay in &experiment.relays {
        let late = format!("${{relay.{}}}", relay.name);
        let through = experiment
            .load
            .iter()
            .filter(|load| load.requests.iter().any(|request| request.url.contains(&late)));
        blasts.push(Blast {
            what: format!("relay {}", relay.name),
            hit: at_once(injections, |one| matches!(&one.target, Target::Relay(name) if *name == relay.name)),
            of: Some(1),
            journeys: Some(through.map(|load| load.name.clone()).collect()),
        });
    }
    blasts.extend(strangers(injections));
    blasts.retain(|blast| blast.hit > 0);
    blasts
}

/// Targets that belong to nothing that the experiment describes.
fn strangers(injections: &[PlannedInjection]) -> Vec<Blast> {
    let mut names: Vec<String> = injections.iter().filter_map(stranger).collect();
    names.sort_unstable();
    names.dedup();
    let one = |what| Blast { what, hit: 1, of: None, journeys: None };
    names.into_iter().map(one).collect()
}

fn stranger(injection: &PlannedInjection) -> Option<String> {
    match &injection.target {
        Target::Instance { .. } | Target::Relay(_) | Target::Pop(_) => None,
        Target::Traffic(traffic) if traffic.instance.is_some() => None,
        Target::Nothing => Some(format!("whatever injection #{} breaks", injection.number)),
        Target::Program(name) => Some(format!("whatever `{name}` of injection #{} breaks", injection.number)),
        target => Some(target.to_string()),
    }
}

/// The most different targets of these injections that are hit at any one time.
fn at_once(injections: &[PlannedInjection], which: impl Fn(&PlannedInjection) -> bool) -> usize {
    let own: Vec<&PlannedInjection> = injections.iter().filter(|one| which(one)).collect();
    let at = |time: f64| {
        let live = own.iter().filter(|one| one.at_s <= time && time < one.at_s + one.for_s);
        let mut hit: Vec<String> = live.map(|one| one.target.to_string()).collect();
        hit.sort_unstable();
        hit.dedup();
        hit.len()
    };
    own.iter().map(|one| at(one.at_s)).max().unwrap_or_default()
}
