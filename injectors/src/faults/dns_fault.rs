//! `dns-fault`: names are not found, late, or wrong.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::contained;
use super::cut::{Ours, clear, features, tables};
use super::shape::{failed, space};
use super::{recall, record};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::resolver::message::{self, NO_NAME, Question, REFUSED, SERVER_FAILURE};
use crate::resolver::{Answer, Order, PORT, Seen, address};
use crate::sys::control::ControlError;
use crate::sys::netlink::{Network, Space};
use crate::target::{Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

mod carrier;
mod reading;
mod rules;

/// DNS: names are not found, late, or wrong.
#[derive(Debug)]
pub struct DnsFault;

const fn text(name: &'static str, help: &'static str) -> Param {
    Param { name, kind: ParamKind::Text, presence: Presence::Optional, help }
}

static ABOUT: About = About {
    name: "dns-fault",
    summary: "Answers DNS queries of a network namespace wrongly, late or not at all, by name and type",
    description: "Queries of the namespace's own processes to the resolvers in `to`, or to those in its resolv.conf, come \
                  to a resolver of ours on its loopback, over UDP and TCP. Those that fit `names` and `types` get the \
                  `answer`: `nxdomain`, `servfail`, `refused`, `timeout` (nothing comes), `delay` (the true answer, \
                  later), `wrong` (the `addresses`, kept for 1 s; no record for other types) or `stale` (what the first \
                  one was answered, whatever has changed since). All others are passed on. Nothing is tracked, so \
                  nothing lasts when it ends, but for what clients keep of themselves. DNS over TLS or HTTPS, and other \
                  namespaces whose queries only pass through, are not hit. If squall is killed, names fail for up to \
                  3 s.",
    target: TargetKind::Resolvers,
    params: &[
        Param {
            name: "answer",
            kind: ParamKind::Choice(&[
                "nxdomain", "servfail", "refused", "timeout", "delay", "wrong", "stale",
            ]),
            presence: Presence::Required,
            help: "nxdomain, servfail, refused, timeout, delay, wrong or stale",
        },
        Param {
            name: "share",
            kind: ParamKind::Share,
            presence: Presence::Required,
            help: "how many of the queries that fit are hit",
        },
        text(
            "names",
            "names that are hit, parted by commas: api.example.com, *.example.com; all, if left out",
        ),
        text("types", "types that are hit, parted by commas: a, aaaa, srv; all, if left out"),
        Param {
            name: "delay",
            kind: ParamKind::Span,
            presence: Presence::Optional,
            help: "how much later, with `answer: delay`",
        },
        text("addresses", "what is answered, with `answer: wrong`, parted by commas: 192.0.2.1, 2001:db8::1"),
    ],
    needs: &["root", "Linux with nf_tables", "the loopback of the namespace is up"],
    effect: Effect::Errors,
    proof: "A query of our own to each resolver, by the way that clients take, and the count of all queries that were \
            hit. Confirmed if ours was answered as requested; a mismatch if it was not; unproven if no query was hit.",
    undo: "Our table is removed as a whole, by its handle, then our resolver ends. If squall dies, the kernel ends the \
           resolver, and the rules match nothing any more after 3 s.",
    example: "- dns-fault: {names: \"*.example.com\", answer: servfail, share: 50%}",
};

/// How long our own query waits, beside the delay that was asked for, and for how much of that it waits at most.
const PATIENCE: Duration = Duration::from_millis(500);
const DELAY_WAITED: Duration = Duration::from_secs(5);
/// Asked for where no name is written: it exists nowhere.
const NOBODY: &str = "squall.invalid";

#[derive(Debug, Serialize, Deserialize)]
struct Apply {
    order: Order,
    ours: Ours,
    /// What is asked by ourselves, and what each resolver answered before.
    name: String,
    kind: u16,
    before: Vec<Option<(u8, Vec<IpAddr>)>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    space: Space,
    ours: Ours,
    id: String,
}

impl Injector for DnsFault {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args, target: &Target) -> Result<(), Vec<String>> {
        let Target::Flows(flows) = target else { return Err(vec![format!("{target} is no flow")]) };
        reading::aimed(flows).and_then(|()| reading::asked(args)).map(drop).map_err(|mistake| vec![mistake])
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(prepare(env, request))
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { order, ours, .. } = recall(&change.fault, &change.apply)?;
            let ports = carrier::start(env, &order).await?;
            let failed = failed(&change.target);
            let session = env.network.enter(&order.space).await.map_err(&failed)?.ok_or_else(gone)?;
            let pairs: Vec<(IpAddr, u16)> = order.upstreams.iter().copied().zip(ports).collect();
            session.commit(&rules::edits(&ours, &pairs)).await.map_err(&failed)
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Undo { space, ours, id } = recall(ABOUT.name, undo)?;
            // In this order: rules that lead to nobody would leave names unanswered.
            let cleared = clear(&*env.network, &space, &ours).await.map_err(failed("its queries"))?;
            let ended = carrier::end(env, &id).await?;
            Ok(if cleared || ended { Undone::Reverted } else { Undone::NothingToDo })
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let apply: Apply = recall(&change.fault, &change.apply)?;
            let mut told = Vec::new();
            for upstream in &apply.order.upstreams {
                told.push(ask(&*env.network, &apply, *upstream).await.map_err(failed(&change.target))?);
            }
            match env.control.call(&address(&apply.order.id), &json!({"op": "observe"})).await {
                Ok(answer) => {
                    let seen = serde_json::from_value(answer["seen"].clone()).unwrap_or_default();
                    Ok(judge(&apply, &told, &seen))
                }
                Err(ControlError::Gone(_)) => {
                    Ok(Proof::unproven(requested(&apply.order), "our resolver has ended"))
                }
                Err(source) => Err(carrier::control(source)),
            }
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let Undo { space, ours, id } = recall(ABOUT.name, undo)?;
            let place = [(space, "its namespace".to_owned())];
            let tables = tables(&*env.network, &place, &ours).await?;
            let resolvers = env.procs.marked(&id).map_err(carrier::lost)?.len();
            Ok(json!({"tables": tables, "resolvers": resolvers}))
        })
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        _age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { order, ours, .. } = recall(&change.fault, &change.apply)?;
            ours.renew(&*env.network, &order.space, "its namespace").await
        })
    }
}

fn gone() -> InjectError {
    InjectError::Target("the network namespace has gone".to_owned())
}

async fn prepare(env: &Env, request: &Request) -> Result<Change, InjectError> {
    let request = &contained::narrowed(env, request).await?;
    let Target::Flows(flows) = &request.target else {
        return Err(InjectError::Target(format!("{} is no flow", request.target)));
    };
    let (names, types, answer) = reading::asked(&request.args).map_err(InjectError::Target)?;
    let instead = "break the names of the service in its own configuration";
    for feature in features(&*env.network, instead).await? {
        if let (crate::sys::netlink::TABLES, Some(why)) = (feature.name, feature.lack) {
            return Err(InjectError::Lack(format!(
                "this kernel has no nf_tables ({why}): load it (modprobe nf_tables), or {instead}"
            )));
        }
    }
    let space = space(&*env.network, &flows.traffic.space)?;
    let ours = Ours::new(&request.id);
    let place = [(space.clone(), request.target.to_string())];
    if !tables(&*env.network, &place, &ours).await?.is_empty() {
        return Err(InjectError::Target(format!("{ours} is there already")));
    }
    let name = names.first().map_or(NOBODY.to_owned(), |name| name.replacen("*.", "squall.", 1));
    let kind = types.first().copied().unwrap_or(1);
    let share = request.args.share("share").unwrap_or_default();
    let order = Order {
        id: request.id.clone(),
        space: space.clone(),
        upstreams: reading::upstreams(flows)?,
        names,
        types,
        share,
        answer,
        seed: request.seed,
    };
    let mut apply = Apply { order, ours: ours.clone(), name, kind, before: Vec::new() };
    for upstream in apply.order.upstreams.clone() {
        let told = ask(&*env.network, &apply, upstream).await.map_err(failed(&request.target.to_string()))?;
        apply.before.push(told.map(|told| (told.code, told.addresses)));
    }
    let undo = record(&Undo { space: space.clone(), ours: ours.clone(), id: request.id.clone() });
    let resolvers: Vec<String> = apply.order.upstreams.iter().map(ToString::to_string).collect();
    Ok(Change {
        id: request.id.clone(),
        fault: ABOUT.name.to_owned(),
        target: request.target.to_string(),
        summary: format!("dns-fault at {}: {}", resolvers.join(", "), request.args.line()),
        claims: resolvers.iter().map(|to| format!("resolver:{}:{to}", space.inode)).collect(),
        manual: super::cut::manual(&place, &ours),
        picture: DnsFault.picture(env, &undo).await?,
        apply: record(&apply),
        undo,
    })
}

/// What came of our own query.
#[derive(Debug)]
struct Told {
    code: u8,
    addresses: Vec<IpAddr>,
    took: Duration,
}

/// Asks a resolver by the way that clients take; none if nothing comes.
async fn ask(network: &dyn Network, apply: &Apply, upstream: IpAddr) -> std::io::Result<Option<Told>> {
    const NUMBER: u16 = 0x5351;
    let Some(query) = Question::ask(&apply.name, apply.kind, NUMBER) else { return Ok(None) };
    let later = match &apply.order.answer {
        Answer::Delay(seconds) if !apply.before.is_empty() => Duration::from_secs_f64(*seconds),
        _ => Duration::ZERO,
    };
    let to = SocketAddr::new(upstream, PORT);
    let began = Instant::now();
    let answer = network.ask(&apply.order.space, to, &query, PATIENCE + later.min(DELAY_WAITED)).await?;
    let told = answer.and_then(|answer| message::answer(&answer, NUMBER));
    Ok(told.map(|(code, addresses)| Told { code, addresses, took: began.elapsed() }))
}

fn requested(order: &Order) -> String {
    let what = match &order.answer {
        Answer::Nxdomain => "NXDOMAIN".to_owned(),
        Answer::Servfail => "SERVFAIL".to_owned(),
        Answer::Refused => "REFUSED".to_owned(),
        Answer::Timeout => "no answer".to_owned(),
        Answer::Delay(seconds) => format!("answers {seconds} s later"),
        Answer::Wrong(addresses) => {
            format!(
                "{} as the address",
                addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            )
        }
        Answer::Stale => "the answer of the beginning".to_owned(),
    };
    format!("{what} for {:.0}% of such queries", order.share * 100.0)
}

/// Whether an answer is as it was requested.
fn fits(apply: &Apply, told: Option<&Told>) -> bool {
    let coded = |code| told.is_some_and(|told| told.code == code);
    match &apply.order.answer {
        Answer::Nxdomain => coded(NO_NAME),
        Answer::Servfail => coded(SERVER_FAILURE),
        Answer::Refused => coded(REFUSED),
        Answer::Timeout => told.is_none(),
        // Whoever waits for longer than we do is late enough.
        Answer::Delay(seconds) => told.is_none_or(|told| told.took.as_secs_f64() >= *seconds),
        Answer::Wrong(all) => {
            told.is_some_and(|told| told.code == 0 && told.addresses.iter().all(|one| all.contains(one)))
        }
        Answer::Stale => told.is_some(),
    }
}

fn judge(apply: &Apply, told: &[Option<Told>], seen: &Seen) -> Proof {
    let requested = requested(&apply.order);
    let good = told.iter().filter(|told| fits(apply, told.as_ref())).count();
    // Of a share, our own few queries say nothing; of all, every one does.
    let whole = apply.order.share >= 1.0;
    let status = match (seen.hit, whole) {
        (_, true) if good < told.len() => ProofStatus::Mismatch,
        (0, _) => ProofStatus::Unproven,
        _ => ProofStatus::Confirmed,
    };
    let own = if whole {
        format!("{good} of {} resolvers answered our own query for {} so; ", told.len(), apply.name)
    } else {
        String::new()
    };
    Proof {
        status,
        requested,
        measured: format!("{own}{} of {} queries were hit", seen.hit, seen.queries),
        tolerance: "each query of our own, if all are to be hit".to_owned(),
        samples: seen.hit,
    }
}
