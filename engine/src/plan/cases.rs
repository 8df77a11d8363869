//! What is broken while a capacity is searched: each fault of a timeline by itself, and what is missing at N-1. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use injectors::registry;
use serde::{Deserialize, Serialize};

use super::{Plan, PlannedInjection};
use crate::experiment::mistake::suggest;
use crate::experiment::topology::Service;
use crate::experiment::{Experiment, FaultUse, Step, Topology, parse_args};

/// One thing that is broken for as long as it is asked for.
#[derive(Debug, Clone)]
pub struct Case {
    /// In words: `1: process-kill on catalog-1`, `catalog-1 down`.
    pub what: String,
    /// Whose it is.
    pub kind: CaseKind,
    /// All begin at once, at the time 0.
    pub injections: Vec<PlannedInjection>,
    /// The share of its kind that is left, if that can be told: two of three PoPs.
    pub left: Option<f64>,
}

/// Where a case comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseKind {
    /// A fault of the timeline, or one that was given by hand.
    Fault,
    /// One instance is down.
    Instance,
    /// Every instance of a zone is down.
    Zone,
    /// Every instance of a PoP is down.
    Pop,
}

impl CaseKind {
    /// Those of N-1, by the word that asks for them.
    pub const LOSSES: [(&'static str, Self); 3] =
        [("instance", Self::Instance), ("zone", Self::Zone), ("pop", Self::Pop)];
}

/// Each fault of the timeline, in order of time: with `only`, those of this name or number (counted from 1).
///
/// # Errors
/// A word of `only` fits none, or there is no fault at all.
pub fn faults(plan: &Plan, only: &[String]) -> Result<Vec<Case>, String> {
    let listed: Vec<Case> = plan
        .injections
        .chunk_by(|a, b| a.listed == b.listed)
        .enumerate()
        .map(|(at, own)| Case {
            what: {
                let more = if own.len() > 1 { format!(" and {} more", own.len() - 1) } else { String::new() };
                format!("{}: {} on {}{more}", at + 1, own[0].fault, own[0].target)
            },
            kind: CaseKind::Fault,
            injections: at_once(own.to_vec()),
            left: None,
        })
        .collect();
    let fits = |word: &String, at: usize, case: &Case| {
        case.injections[0].fault == *word || word.parse() == Ok(at + 1)
    };
    if let Some(stray) =
        only.iter().find(|word| !listed.iter().enumerate().any(|(at, case)| fits(word, at, case)))
    {
        let known: Vec<String> = listed.iter().map(|case| case.what.clone()).collect();
        return Err(format!("--only {stray}: the timeline has no such fault; it has {}", list(&known)));
    }
    let wanted = listed.into_iter().enumerate();
    let wanted = wanted.filter(|(at, case)| only.is_empty() || only.iter().any(|word| fits(word, *at, case)));
    Ok(wanted.map(|(_, case)| case).collect())
}

/// What is missing in turn at N-1: each instance, zone or PoP, as far as it is on the path of this load, if the topology
/// knows that path; and what was left out, in words.
///
/// # Errors
/// The topology names none, or nothing can take it down.
pub fn losses(
    experiment: &Experiment,
    kind: CaseKind,
    load: &str,
    seed: u64,
) -> Result<(Vec<Case>, Option<String>), String> {
    let Some(topology) = &experiment.topology else {
        return Err("this experiment has no topology: add `lab: edge` or `topology: FILE`".to_owned());
    };
    let groups = groups(topology, kind);
    if groups.is_empty() {
        let word =
            CaseKind::LOSSES.iter().find(|(_, other)| *other == kind).map_or("instance", |(word, _)| word);
        return Err(format!(
            "the topology {} names no {word} of any service: add `{word}s: […]` to its services, one for each instance",
            topology.name
        ));
    }
    let (near, far): (Vec<_>, Vec<_>) = groups
        .iter()
        .partition(|(_, members)| members.iter().any(|(service, _)| topology.meets(load, service)));
    let mut cases = Vec::new();
    for (name, members) in near {
        let injections = down(experiment, members, seed).map_err(|why| format!("{name}: {why}"))?;
        cases.push(Case {
            what: match kind {
                CaseKind::Pop => format!("PoP {name} down"),
                CaseKind::Zone => format!("zone {name} down"),
                _ => format!("{name} down"),
            },
            kind,
            injections: at_once(injections),
            left: left(kind, members, groups.len()),
        });
    }
    let far: Vec<String> = far.into_iter().map(|(name, _)| name.clone()).collect();
    Ok((
        cases,
        (!far.is_empty()).then(|| format!("not on the path of {load}, so left out: {}", far.join(", "))),
    ))
}

/// By name, the instances that go together.
type Groups<'t> = BTreeMap<String, Vec<(&'t Service, &'t str)>>;

fn groups(topology: &Topology, kind: CaseKind) -> Groups<'_> {
    let mut groups = Groups::new();
    for service in &topology.services {
        for (at, instance) in service.instances.iter().enumerate() {
            let group = match kind {
                CaseKind::Zone => service.zones.get(at),
                CaseKind::Pop => service.pops.get(at),
                CaseKind::Instance | CaseKind::Fault => Some(instance),
            };
            if let Some(group) = group {
                groups.entry(group.clone()).or_default().push((service, instance));
            }
        }
    }
    groups
}

/// The share of its kind that is left: where services lose unequal shares, the smallest decides.
fn left(kind: CaseKind, members: &[(&Service, &str)], groups: usize) -> Option<f64> {
    if kind == CaseKind::Pop {
        return Some(1.0 - 1.0 / groups as f64);
    }
    let share = |service: &Service| {
        let down = members.iter().filter(|(other, _)| other.name == service.name).count();
        1.0 - down as f64 / service.instances.len() as f64
    };
    members.iter().map(|(service, _)| share(service)).reduce(f64::min)
}

/// Takes instances down: a process of the lab is killed, and connections through a relay of the instance's name are reset.
fn down(
    experiment: &Experiment,
    members: &[(&Service, &str)],
    seed: u64,
) -> Result<Vec<PlannedInjection>, String> {
    let mut faults = Vec::new();
    for (_, instance) in members {
        let relayed = experiment.relays.iter().any(|relay| relay.name == *instance);
        let (fault, given): (&str, &[(&str, &str)]) = match (&experiment.lab, relayed) {
            (Some(_), _) => ("process-kill", &[("instance", instance)]),
            (None, true) => ("relay-reset", &[("relay", instance), ("share", "100%")]),
            (None, false) => {
                return Err(format!(
                    "nothing here can take {instance} down: a topology file does not say which process it is. Put a relay of \
                     that name before it (`relays:`), or write the fault into the timeline"
                ));
            }
        };
        let injector = registry::find(fault).ok_or("a fault is missing")?;
        let given = given.iter().map(|(name, text)| ((*name).to_owned(), vec![(*text).to_owned()])).collect();
        let (args, selector) = parse_args(injector, &given).map_err(|mistakes| mistakes.join("; "))?;
        faults.push(FaultUse { injector, args, whole: true, selector, node: 0, target_node: 0 });
    }
    let step = Step { at: Duration::ZERO, length: Duration::from_secs(1), faults };
    let alone = Experiment { timeline: vec![step], ..experiment.clone() };
    let plan = super::resolve(&alone, seed).map_err(|mistakes| {
        mistakes.into_iter().map(|mistake| mistake.message).collect::<Vec<_>>().join("; ")
    })?;
    Ok(plan.injections)
}

fn at_once(injections: Vec<PlannedInjection>) -> Vec<PlannedInjection> {
    injections.into_iter().map(|one| PlannedInjection { at_s: 0.0, ..one }).collect()
}

/// The load of this name, or the only one that there is to choose.
///
/// # Errors
/// There is no such load, or there are several.
pub fn one_of<'n>(names: &[&'n str], wanted: Option<&str>) -> Result<&'n str, String> {
    match (names, wanted) {
        (_, Some(wanted)) => match names.iter().find(|name| **name == wanted) {
            Some(name) => Ok(name),
            None => Err(format!("there is no load `{wanted}`; {}", suggest(wanted, names))),
        },
        ([one], None) => Ok(one),
        ([], None) => Err("it has no load of requests that arrive at a rate of their own (`open`): what is late in a journey holds back its next steps, \
             and so the load".to_owned()),
        (several, None) => Err(format!("it has several loads: say which by --load ({})", several.join(", "))),
    }
}

fn list(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::experiment;

    const TWO: &str = "  - {at: 20s, for: 5s, faults: [{relay-latency: {service: origin, pick: all, delay: \
                       10ms}}]}\n  - {at: 5s, for: 5s, faults: [{process-kill: {instance: catalog-1}}, {process-pause: \
                       {instance: kv-1}}]}\n";

    #[test]
    fn each_fault_of_the_timeline_is_a_case_with_all_its_targets() {
        let plan = super::super::resolve(&experiment(TWO), 1).unwrap();
        let names = |only: &[&str]| -> Result<Vec<(String, usize)>, String> {
            let only: Vec<String> = only.iter().map(|word| (*word).to_owned()).collect();
            let cases = faults(&plan, &only)?.into_iter();
            Ok(cases.map(|case| (case.injections[0].fault.clone(), case.injections.len())).collect())
        };
        let all = [("process-kill", 1), ("process-pause", 1), ("relay-latency", 2)];
        let owned =
            |few: &[(&str, usize)]| few.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect::<Vec<_>>();
        assert_eq!(names(&[]).unwrap(), owned(&all));
        assert_eq!(names(&["3", "process-kill"]).unwrap(), owned(&[all[0], all[2]]));
        let why = names(&["4"]).unwrap_err();
        assert!(
            why.contains("no such fault") && why.contains("3: relay-latency on origin-1 and 1 more"),
            "{why}"
        );
        assert!(
            faults(&plan, &[]).unwrap().iter().all(|case| case.injections.iter().all(|one| one.at_s == 0.0))
        );
    }

    #[test]
    fn what_is_missing_in_turn_is_what_the_load_passes() {
        let lab = experiment(TWO);
        let (cases, out) = losses(&lab, CaseKind::Instance, "asset", 1).unwrap();
        let names: Vec<&str> = cases.iter().map(|case| case.what.as_str()).collect();
        assert_eq!(
            names,
            ["edge-fra down", "edge-iad down", "edge-sin down", "origin-1 down", "origin-2 down"]
        );
        assert!(out.unwrap().ends_with("auth-1, catalog-1, catalog-2, kv-1"));
        assert_eq!(cases[3].left, Some(0.5));
        let (cases, out) = losses(&lab, CaseKind::Pop, "asset", 1).unwrap();
        assert_eq!((cases.len(), out), (3, None));
        assert!(cases.iter().all(|case| (case.left.unwrap() - 2.0 / 3.0).abs() < 1e-9));
        // A load of which the topology knows no path could pass anything.
        assert_eq!(losses(&lab, CaseKind::Instance, "other", 1).unwrap().0.len(), 9);
        let (zones, _) = losses(&lab, CaseKind::Zone, "asset", 1).unwrap();
        assert_eq!(zones.iter().map(|case| case.injections.len()).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn what_nothing_can_take_down_is_refused_with_the_way_out() {
        let mut bare = experiment(TWO);
        bare.lab = None;
        let why = losses(&bare, CaseKind::Instance, "asset", 1).unwrap_err();
        assert!(why.contains("edge-fra") && why.contains("`relays:`"), "{why}");
        bare.topology.as_mut().unwrap().services.iter_mut().for_each(|service| service.zones.clear());
        assert!(losses(&bare, CaseKind::Zone, "asset", 1).unwrap_err().contains("add `zones: […]`"));
        bare.topology = None;
        assert!(losses(&bare, CaseKind::Pop, "asset", 1).unwrap_err().contains("no topology"));
    }

    #[test]
    fn one_load_is_meant() {
        assert_eq!(one_of(&["a"], None), Ok("a"));
        assert_eq!(one_of(&["a", "b"], Some("b")), Ok("b"));
        assert!(one_of(&["a", "b"], None).unwrap_err().contains("--load (a, b)"));
        assert!(one_of(&["asset"], Some("aset")).unwrap_err().contains("asset"));
        assert!(one_of(&[], None).unwrap_err().contains("open"));
    }
}
