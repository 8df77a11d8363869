//! From selectors to concrete targets, seeded.

use injectors::pick::Pick;
use injectors::target::{Target, TargetKind};
use injectors::{Args, Injector};

use crate::experiment::mistake::suggest;
use crate::experiment::topology::Service;
use crate::experiment::{Experiment, FaultUse, Selector};

/// A target and the service that it belongs to.
type Found = (Target, Option<String>);
/// What is wrong and the way out.
type Refusal = (String, Option<String>);

/// The concrete targets of one fault, in order of their names.
pub(super) fn targets(experiment: &Experiment, used: &FaultUse, seed: u64) -> Result<Vec<Found>, Refusal> {
    let kind = used.injector.about().target;
    let of_service =
        |(service, name): (&Service, &str)| (instance(service, name), Some(service.name.clone()));
    match &used.selector {
        Selector::Service { .. } | Selector::Instance(_) => {
            Ok(instances(experiment, &used.selector, seed)?.into_iter().map(of_service).collect())
        }
        Selector::Around { traffic, of } => {
            let spared =
                traffic.clone().sparing(&experiment.protect).map_err(|(_, message)| (message, None))?;
            let around = |(service, name): (&Service, &str)| {
                (Target::Traffic(spared.clone().around(name)), Some(service.name.clone()))
            };
            Ok(instances(experiment, of, seed)?.into_iter().map(around).collect())
        }
        Selector::Exactly(target) => {
            check_exact(experiment, kind, target)?;
            let target = match target {
                Target::Traffic(traffic) => {
                    let spared = traffic.clone().sparing(&experiment.protect);
                    Target::Traffic(spared.map_err(|(_, message)| (message, None))?)
                }
                Target::Flows(flows) => {
                    let spared = flows.clone().sparing(&experiment.protect);
                    Target::Flows(spared.map_err(|(_, message)| (message, None))?)
                }
                other => other.clone(),
            };
            Ok(vec![(target, None)])
        }
    }
}

/// The instances that are meant, each with its service.
fn instances<'e>(
    experiment: &'e Experiment,
    selector: &'e Selector,
    seed: u64,
) -> Result<Vec<(&'e Service, &'e str)>, Refusal> {
    match selector {
        Selector::Service { service, pick } => {
            let service = known_service(experiment, service)?;
            let picked = pick_instances(service, *pick, seed)?;
            Ok(picked.into_iter().map(|name| (service, name)).collect())
        }
        Selector::Instance(name) => {
            let topology = experiment.topology.as_ref().ok_or_else(no_topology)?;
            let service = topology.owner(name).ok_or_else(|| {
                let all: Vec<&str> =
                    topology.services.iter().flat_map(|s| s.instances.iter().map(String::as_str)).collect();
                (format!("there is no instance `{name}`"), Some(suggest(name, &all)))
            })?;
            Ok(vec![(service, name)])
        }
        Selector::Around { of, .. } => instances(experiment, of, seed),
        Selector::Exactly(_) => Ok(Vec::new()),
    }
}

fn no_topology() -> Refusal {
    let help = "add `lab: edge` or `topology: FILE`, or aim it by `relay`, `port` or `pid-file`".to_owned();
    ("this experiment has no topology in which to look for it".to_owned(), Some(help))
}

fn known_service<'e>(experiment: &'e Experiment, name: &str) -> Result<&'e Service, Refusal> {
    let topology = experiment.topology.as_ref().ok_or_else(no_topology)?;
    topology.service(name).ok_or_else(|| {
        let known: Vec<&str> = topology.services.iter().map(|service| service.name.as_str()).collect();
        (format!("there is no service `{name}`"), Some(suggest(name, &known)))
    })
}

fn instance(service: &Service, name: &str) -> Target {
    Target::Instance { service: service.name.clone(), instance: name.to_owned() }
}

fn pick_instances(service: &Service, pick: Option<Pick>, seed: u64) -> Result<Vec<&str>, Refusal> {
    let all: Vec<&str> = service.instances.iter().map(String::as_str).collect();
    let count = match pick {
        None if all.len() == 1 => 1,
        None => {
            let message = format!("`{}` has {} instances", service.name, all.len());
            let help = "say how many are hit: `pick: one`, `pick: 50%`, `pick: all`, or aim it by `instance`"
                .to_owned();
            return Err((message, Some(help)));
        }
        Some(pick) => pick.of(all.len()),
    };
    if count > all.len() {
        return Err((format!("`{}` has only {} instances, not {count}", service.name, all.len()), None));
    }
    let mut picked = all;
    // Fisher–Yates, as far as needed.
    for i in 0..count {
        let j = i + (super::draw(seed, i as u64) % (picked.len() - i) as u64) as usize;
        picked.swap(i, j);
    }
    picked.truncate(count);
    picked.sort_unstable();
    Ok(picked)
}

fn check_exact(experiment: &Experiment, kind: TargetKind, target: &Target) -> Result<(), Refusal> {
    match target {
        Target::Relay(name) if !experiment.relays.iter().any(|relay| relay.name == *name) => {
            let known: Vec<&str> = experiment.relays.iter().map(|relay| relay.name.as_str()).collect();
            let help = if known.is_empty() {
                "declare it: `relays: [{NAME: {upstream: \"127.0.0.1:PORT\"}}]`, or aim it by `service`"
                    .to_owned()
            } else {
                suggest(name, &known)
            };
            Err((format!("there is no relay `{name}`"), Some(help)))
        }
        Target::Pop(name) => {
            let Some(topology) = experiment.topology.as_ref().filter(|_| experiment.lab.is_some()) else {
                return Err((
                    "only the PoPs of a lab can be drained so far".to_owned(),
                    Some("add `lab: edge`".to_owned()),
                ));
            };
            let pops = topology.pops();
            if pops.contains(&name.as_str()) {
                return Ok(());
            }
            Err((format!("there is no PoP `{name}`"), Some(suggest(name, &pops))))
        }
        _ => {
            debug_assert!(kind != TargetKind::Relay || matches!(target, Target::Relay(_)));
            Ok(())
        }
    }
}

/// What an injection occupies, as far as a plan can tell: a process as a whole, one kind of fault of a relay, a PoP, one
/// kind of fault of packets on their way.
pub(super) fn claims(injector: &dyn Injector, args: &Args, target: &Target) -> Vec<String> {
    let about = injector.about();
    if let Target::Traffic(traffic) = target {
        return traffic.slots().into_iter().map(|slot| format!("{} of {slot}", about.name)).collect();
    }
    vec![match about.target {
        TargetKind::Process => format!("process of {target}"),
        TargetKind::Container => format!("life of {target}"),
        TargetKind::Relay => format!("{} of the relay before {target}", about.name),
        TargetKind::Pop => format!("weight of {target}"),
        TargetKind::Flows
        | TargetKind::Connections
        | TargetKind::Resolvers
        | TargetKind::Group
        | TargetKind::Volume => format!("{} of {target}", about.name),
        TargetKind::Traffic | TargetKind::Nothing => format!("{} {}", about.name, args.line()),
    }]
}
