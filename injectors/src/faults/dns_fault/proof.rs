//! Requested against measured: queries of our own by the way that clients take, and what our resolvers have counted.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Apply, Part, carrier};
use crate::change::{InjectError, Proof, ProofStatus};
use crate::faults::contained::{Now, Place};
use crate::faults::shape::failed;
use crate::resolver::message::{self, NO_NAME, REFUSED, SERVER_FAILURE};
use crate::resolver::{Answer, Asked, PORT, Seen, address};
use crate::sys::control::ControlError;
use crate::{Env, Pending};

/// How long our own query waits, beside the delay that was asked for, and for how much of that it waits at most.
const PATIENCE: Duration = Duration::from_millis(500);
const DELAY_WAITED: Duration = Duration::from_secs(5);
/// The most places that are named.
const NAMED_MAX: usize = 8;

/// What came of our own query.
#[derive(Debug, Clone)]
struct Told {
    code: u8,
    addresses: Vec<IpAddr>,
    took: Duration,
}

/// What was seen in one namespace.
#[derive(Debug)]
pub(super) struct Look {
    name: String,
    /// What each resolver has told us; none where nothing came.
    told: Vec<Option<Told>>,
    /// What ours has counted; none if it does not live.
    seen: Option<Seen>,
    /// Whether it is where a restart has brought its container.
    moved: bool,
}

/// Looks at one part; none if its container is down.
pub(super) fn look<'a>(
    env: &'a Env,
    apply: &'a Apply,
    part: &'a Part,
) -> Pending<'a, Result<Option<Look>, InjectError>> {
    Box::pin(async move {
        let (place, moved) = match part.place.now(env, apply.hits.as_ref()).await? {
            Now::Same => (part.place.clone(), false),
            Now::Moved(place) => (place, true),
            Now::Gone => return Ok(None),
        };
        let part = Part { place, ..part.clone() };
        let mut told = Vec::new();
        for upstream in &part.upstreams {
            told.push(ask(env, apply, &part.place, *upstream).await.map_err(failed(&part.place.name))?);
        }
        let answer = env.control.call(&address(&apply.order(&part).id), &json!({"op": "observe"})).await;
        let seen = match answer {
            Ok(answer) => Some(serde_json::from_value(answer["seen"].clone()).unwrap_or_default()),
            Err(ControlError::Gone(_)) => None,
            Err(source) => return Err(carrier::control(source)),
        };
        Ok(Some(Look { name: part.place.name, told, seen, moved }))
    })
}

/// Asks a resolver by the way that clients take; none if nothing comes.
async fn ask(env: &Env, apply: &Apply, place: &Place, upstream: IpAddr) -> std::io::Result<Option<Told>> {
    const NUMBER: u16 = 0x5351;
    let Some(query) = message::ask(&apply.name, apply.kind, NUMBER) else { return Ok(None) };
    let later = match &apply.asked.answer {
        Answer::Delay(seconds) => Duration::from_secs_f64(*seconds),
        _ => Duration::ZERO,
    };
    let to = SocketAddr::new(upstream, PORT);
    let began = Instant::now();
    let answer = match env.network.ask(&place.space, to, &query, PATIENCE + later.min(DELAY_WAITED)).await {
        // It has gone meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        other => other?,
    };
    let told = answer.and_then(|answer| message::answer(&answer, NUMBER));
    Ok(told.map(|(code, addresses)| Told { code, addresses, took: began.elapsed() }))
}

fn requested(asked: &Asked) -> String {
    let what = match &asked.answer {
        Answer::Nxdomain => "NXDOMAIN".to_owned(),
        Answer::Servfail => "SERVFAIL".to_owned(),
        Answer::Refused => "REFUSED".to_owned(),
        Answer::Timeout => "no answer".to_owned(),
        Answer::Delay(seconds) => format!("answers {seconds} s later"),
        Answer::Wrong(addresses) => {
            let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{} as the address", all.join(", "))
        }
        Answer::Stale => "the answer of the beginning".to_owned(),
    };
    format!("{what} for {:.0}% of such queries", asked.share * 100.0)
}

/// Whether an answer is as it was requested.
fn fits(asked: &Asked, told: Option<&Told>) -> bool {
    let coded = |code| told.is_some_and(|told| told.code == code);
    match &asked.answer {
        Answer::Nxdomain => coded(NO_NAME),
        Answer::Servfail => coded(SERVER_FAILURE),
        Answer::Refused => coded(REFUSED),
        Answer::Timeout => told.is_none(),
        // Only what we do not wait for may be as late as that without coming.
        Answer::Delay(seconds) => {
            told.map_or(*seconds > DELAY_WAITED.as_secs_f64(), |told| told.took.as_secs_f64() >= *seconds)
        }
        Answer::Wrong(all) => {
            told.is_some_and(|told| told.code == 0 && told.addresses.iter().all(|one| all.contains(one)))
        }
        Answer::Stale => told.is_some(),
    }
}

/// Judges all places: each must have felt it, and none otherwise than asked for. Where our resolver does not live, what
/// others answer says nothing of it.
pub(super) fn judge(apply: &Apply, looks: &[Look]) -> Proof {
    let asked = &apply.asked;
    let requested = requested(asked);
    if looks.is_empty() {
        return Proof::gone(requested, "its containers are down");
    }
    // Of a share, our own few queries say nothing; of all, every one does.
    let whole = asked.share >= 1.0;
    let good = |look: &Look| look.told.iter().filter(|told| fits(asked, told.as_ref())).count();
    let hit = |look: &Look| look.seen.as_ref().map_or(0, |seen| seen.hit);
    let ended: Vec<&Look> = looks.iter().filter(|look| look.seen.is_none()).collect();
    let alive = || looks.iter().filter(|look| look.seen.is_some());
    // Where no query came and no answer either, no way leads to the resolver.
    let lost = |look: &Look| hit(look) == 0 && look.told.iter().all(Option::is_none);
    let wrong: Vec<&Look> =
        alive().filter(|look| whole && good(look) < look.told.len() && !lost(look)).collect();
    let idle: Vec<&Look> = alive().filter(|look| hit(look) == 0).collect();
    let status = if !wrong.is_empty() {
        ProofStatus::Mismatch
    } else if !ended.is_empty() {
        ProofStatus::Gone
    } else if idle.is_empty() {
        ProofStatus::Confirmed
    } else {
        ProofStatus::Unproven
    };
    let mut words = Vec::new();
    if whole && alive().next().is_some() {
        let resolvers: usize = alive().map(|look| look.told.len()).sum();
        let good: usize = alive().map(good).sum();
        words.push(format!("{good} of {resolvers} resolvers answered our own query for {} so", apply.name));
    }
    let queries: u64 = looks.iter().filter_map(|look| look.seen.as_ref()).map(|seen| seen.queries).sum();
    let hits: u64 = looks.iter().map(hit).sum();
    words.push(format!("{hits} of {queries} queries were hit"));
    for (which, what) in [(wrong, "not so"), (idle, "none was hit"), (ended, "our resolver has ended")] {
        words.extend(named(looks, &which).map(|names| format!("{what}{names}")));
    }
    let again = alive().filter(|look| look.moved).count();
    if again > 0 {
        words.push(format!("covered again after a restart: {again}"));
    }
    Proof {
        status,
        requested,
        measured: words.join("; "),
        tolerance: "each query of our own, if all are to be hit".to_owned(),
        samples: hits,
    }
}

/// Where some of all are, if there are any and more than one place; nothing if there is but one.
fn named(all: &[Look], some: &[&Look]) -> Option<String> {
    let names: Vec<&str> = some.iter().take(NAMED_MAX).map(|look| look.name.as_str()).collect();
    let more = some.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match (some.is_empty(), all.len()) {
        (true, _) => None,
        (false, 1) => Some(String::new()),
        (false, _) => Some(format!(" in {}{more}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::cut::Ours;

    fn apply(share: f64) -> Apply {
        let asked = Asked { names: Vec::new(), types: Vec::new(), share, answer: Answer::Servfail, seed: 1 };
        let (id, name) = ("run/1".to_owned(), "a.example".to_owned());
        Apply { ours: Ours::new(&id), id, parts: Vec::new(), hits: None, asked, name, kind: 1 }
    }

    fn seen(name: &str, code: u8, hit: Option<u64>) -> Look {
        let told = Told { code, addresses: Vec::new(), took: Duration::ZERO };
        let seen = hit.map(|hit| Seen { queries: hit + 1, hit });
        Look { name: name.to_owned(), told: vec![Some(told)], seen, moved: false }
    }

    #[test]
    fn every_container_must_have_felt_it_and_those_that_did_not_are_named() {
        let judge = |share: f64, looks: &[Look]| judge(&apply(share), looks);
        let [a, b] = ["a", "b"].map(|name| seen(name, SERVER_FAILURE, Some(2)));
        let proof = judge(1.0, &[a, b]);
        assert_eq!((proof.status, proof.samples), (ProofStatus::Confirmed, 4));
        let told = "2 of 2 resolvers answered our own query for a.example so; 4 of 6 queries were hit";
        assert_eq!(proof.measured, told);
        let proof = judge(1.0, &[seen("a", SERVER_FAILURE, Some(2)), seen("b", 0, Some(2))]);
        assert_eq!(proof.status, ProofStatus::Mismatch);
        assert!(proof.measured.ends_with("; not so in b"), "{}", proof.measured);
        let lost = Look { told: vec![None], ..seen("a", 0, Some(0)) };
        assert_eq!(judge(1.0, &[lost]).status, ProofStatus::Unproven, "nobody could ask");
        let idle = judge(0.5, &[seen("a", 0, Some(2)), seen("b", 0, Some(0))]);
        assert_eq!(idle.status, ProofStatus::Unproven);
        assert_eq!(idle.measured, "2 of 4 queries were hit; none was hit in b");
    }

    #[test]
    fn a_true_answer_where_our_resolver_has_ended_refutes_nothing() {
        let proof = judge(&apply(1.0), &[seen("a", SERVER_FAILURE, Some(2)), seen("b", 0, None)]);
        assert_eq!(proof.status, ProofStatus::Gone);
        assert!(proof.measured.ends_with("; our resolver has ended in b"), "{}", proof.measured);
        assert_eq!(judge(&apply(1.0), &[]).status, ProofStatus::Gone);
    }

    #[test]
    fn an_answer_that_never_comes_is_not_one_that_is_late() {
        let asked = |answer| Asked { answer, ..apply(1.0).asked };
        let told = |ms| Told { code: 0, addresses: Vec::new(), took: Duration::from_millis(ms) };
        let late = asked(Answer::Delay(0.1));
        assert!(fits(&late, Some(&told(120))) && !fits(&late, Some(&told(20))) && !fits(&late, None));
        assert!(fits(&asked(Answer::Delay(30.0)), None), "nobody waits for so long");
    }
}
