//! From an experiment's loads to what the generator sends.

use super::{Body, Expect, JourneySpec, LoadSpec, RequestSpec, Work};
use crate::experiment::vars::substitute_late;
use crate::experiment::yaml::NodeId;
use crate::experiment::{Experiment, Late, Load, Request};
use crate::journey::{Journey, PROCESSES_MAX, Pace};

/// The rate that one process of users is given, in requests per second: a fifth of what it makes of a free processor (some
/// 25,000, GET from nginx on another), so that it is not late.
const PER_PROCESS: f64 = 5_000.0;

/// The loads of an experiment, with late names replaced.
pub fn specs(experiment: &Experiment, late: &Late) -> Vec<Work> {
    let work = |load: &Load| match &load.journey {
        None => Work::Open(spec(experiment, load, late)),
        Some(journey) => Work::Journey(journey_spec(experiment, load, journey, late)),
    };
    experiment.load.iter().map(work).collect()
}

/// Whether every load of an experiment could be sent, as far as that can be told without a network: addresses, headers,
/// sizes. Names that only a run knows stand for some address.
///
/// # Errors
/// One sentence per load that could not, and the node that names the load.
pub fn verify(experiment: &Experiment) -> Result<(), Vec<(NodeId, String)>> {
    let relays = experiment.relays.iter().map(|relay| format!("relay.{}", relay.name));
    let names = relays.chain(["lab.edge".to_owned()]);
    let late: Late = names.map(|name| (name, "127.0.0.1:1".to_owned())).collect();
    let wrong: Vec<(NodeId, String)> = experiment
        .load
        .iter()
        .filter_map(|load| {
            let why = match &load.journey {
                None => {
                    let why = super::spec::check(&spec(experiment, load, &late)).err()?;
                    format!("load {}: {why}", load.name)
                }
                // It names its load.
                Some(journey) => journey_spec(experiment, load, journey, &late).told().err()?.to_string(),
            };
            Some((load.node, why))
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn spec(experiment: &Experiment, load: &Load, late: &Late) -> LoadSpec {
    LoadSpec {
        name: load.name.clone(),
        requests: load.requests.iter().map(|request| one(request, late)).collect(),
        profile: load.arrivals.clone(),
        poisson: load.poisson,
        reuse: load.reuse,
        max_connections: load.connections,
        deadline: load.deadline,
        connect_timeout: load.connect_timeout,
        pop_header: load.pop_header.clone(),
        shed: load.connecting.shed,
        exact: load.connecting.exact,
        http: load.connecting.http,
        streams: load.connecting.streams,
        unix: load.connecting.unix.clone(),
        sources: load.connecting.sources.clone(),
        tls: load.connecting.tls.clone(),
        protoset: load.connecting.protoset.clone(),
        feeds: experiment.feeds.clone(),
        replay: load.replay.clone(),
        null: false,
    }
}

fn journey_spec(experiment: &Experiment, load: &Load, journey: &Journey, late: &Late) -> JourneySpec {
    let mut journey = journey.clone();
    journey.each(&mut |step| {
        step.url = substitute_late(&step.url, late);
        for (_, value) in &mut step.headers {
            *value = substitute_late(value, late);
        }
        if let Some(Body::Text(text)) = &mut step.body {
            *text = substitute_late(text, late);
        }
    });
    JourneySpec {
        name: load.name.clone(),
        journey,
        deadline: load.deadline,
        connect_timeout: load.connect_timeout,
        pop_header: load.pop_header.clone(),
        tls: load.connecting.tls.clone(),
        feeds: experiment.feeds.clone(),
        processes: load.processes.unwrap_or_else(|| processes(load)),
    }
}

/// As many as the requests need that may be expected, and no more than there are processors.
fn processes(load: &Load) -> u32 {
    let each = match &load.journey {
        Some(journey) if matches!(journey.pace, Pace::Sessions { .. }) => journey.estimate().1,
        _ => 1.0,
    };
    let wanted = (load.arrivals.peak() * each / PER_PROCESS).ceil() as u32;
    wanted.clamp(1, super::ready::cores()).min(PROCESSES_MAX)
}

fn one(request: &Request, late: &Late) -> RequestSpec {
    let headers = request.headers.iter();
    RequestSpec {
        name: request.name.clone(),
        method: request.method.clone(),
        url: substitute_late(&request.url, late),
        headers: headers.map(|(name, value)| (name.clone(), substitute_late(value, late))).collect(),
        body: match &request.body {
            Some(Body::Text(text)) => Body::Text(substitute_late(text, late)),
            body => body.clone().unwrap_or_default(),
        },
        reply: request.reply.clone(),
        weight: request.weight,
        expect: Expect {
            statuses: request.statuses.iter().map(|(from, to)| *from..=*to).collect(),
            body_contains: request.body_contains.clone(),
            headers: request.expect_headers.clone(),
            json: request.expect_json.clone(),
        },
    }
}
