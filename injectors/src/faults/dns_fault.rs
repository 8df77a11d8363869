//! `dns-fault`: names are not found, late, or wrong.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::contained::{Now, Place, places};
use super::containers::Hits;
use super::cut::{Ours, clear, features, gone, manual, refuse_taken, tables};
use super::shape::failed;
use super::{recall, record};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::resolver::{Asked, Order};
use crate::sys::netlink::{Network, TABLES};
use crate::target::{Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, Request, Undone};

mod carrier;
mod proof;
mod reading;
mod rules;

/// DNS: names are not found, late, or wrong.
#[derive(Debug)]
pub struct DnsFault;

static ABOUT: About = About {
    name: "dns-fault",
    summary: "Answers DNS queries of a network namespace wrongly, late or not at all, by name and type",
    description: "Queries of the own processes of a namespace, or of each container, to the resolvers in `to`, or to \
                  those in its resolv.conf (the one of the container engine included), come to a resolver of ours on its \
                  loopback, over UDP and TCP. Those that fit `names` and `types` get the \
                  `answer`: `nxdomain`, `servfail`, `refused`, `timeout` (nothing comes), `delay` (the true answer, \
                  later), `wrong` (the `addresses`, kept for 1 s; no record for other types) or `stale` (what the first \
                  one was answered, whatever has changed since). All others are passed on. Nothing is tracked, so \
                  nothing lasts when it ends, but for what clients keep of themselves. A container that is restarted \
                  meanwhile is covered again within a second. DNS over TLS or HTTPS, and other \
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
        Param::share("how many of the queries that fit are hit"),
        Param::text(
            "names",
            "names that are hit, parted by commas: api.example.com, *.example.com; all, if left out",
        ),
        Param::text("types", "types that are hit, parted by commas: a, aaaa, srv; all, if left out"),
        Param::optional("delay", ParamKind::Span, "how much later, with `answer: delay`"),
        Param::text(
            "addresses",
            "what is answered, with `answer: wrong`, parted by commas: 192.0.2.1, 2001:db8::1",
        ),
    ],
    needs: &["root", "Linux with nf_tables", "the loopback of the namespace is up"],
    effect: Effect::Errors,
    proof: "A query of our own to each resolver, by the way that clients take, and the count of all queries that were \
            hit. Confirmed if ours was answered as requested; a mismatch if it was not; unproven if no query was hit, in any \
            one of the containers.",
    undo: "Our table is removed as a whole, by its handle, in every namespace, then our resolvers end. If squall dies, the \
           kernel ends them, and the rules match nothing any more after 3 s.",
    example: "- dns-fault: {names: \"*.example.com\", answer: servfail, share: 50%}",
};

/// Asked for where no name is written: it exists nowhere.
const NOBODY: &str = "squall.invalid";

#[derive(Debug, Serialize, Deserialize)]
struct Apply {
    id: String,
    parts: Vec<Part>,
    /// Containers that may be restarted meanwhile.
    hits: Option<Hits>,
    ours: Ours,
    asked: Asked,
    /// What is asked by ourselves.
    name: String,
    kind: u16,
}

/// What of it is in one namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    place: Place,
    /// The resolvers whose queries are hit.
    upstreams: Vec<IpAddr>,
}

impl Apply {
    /// What the resolver of a part is told. It holds its namespace, so that no other gets the number meanwhile.
    fn order(&self, part: &Part) -> Order {
        Order {
            id: format!("{}.{}", self.id, part.place.space.inode),
            space: part.place.space.clone(),
            lives: part.place.of.map(|of| of.process),
            upstreams: part.upstreams.clone(),
            asked: self.asked.clone(),
        }
    }

    /// Starts the resolver of a part, and leads queries to it. False if the namespace has gone.
    async fn make(&self, env: &Env, part: &Part) -> Result<bool, InjectError> {
        let ports = carrier::start(env, &self.id, &self.order(part)).await?;
        let failed = failed(&part.place.name);
        let Some(session) = env.network.enter(&part.place.space).await.map_err(&failed)? else {
            return Ok(false);
        };
        let pairs: Vec<(IpAddr, u16)> = part.upstreams.iter().copied().zip(ports).collect();
        session.commit(&rules::edits(&self.ours, &pairs)).await.map_err(&failed)?;
        Ok(true)
    }

    /// Sees to it that it is where a container has been restarted.
    async fn cover(&self, env: &Env, part: &Part) -> Result<(), InjectError> {
        let place = &part.place;
        let failed = failed(&place.name);
        let Some(session) = env.network.enter(&place.space).await.map_err(&failed)? else { return Ok(()) };
        let there = self.ours.find(session.tables().await.map_err(&failed)?);
        drop(session);
        let done = match there.map_err(InjectError::Target)? {
            Some(_) => self.ours.renew(&*env.network, place).await,
            None => self.make(env, part).await.map(drop),
        };
        // One that has gone on to the next life takes the error along.
        if done.is_err() && !place.lives(env)? { Ok(()) } else { done }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    places: Vec<Place>,
    /// Containers that may have been restarted since.
    hits: Option<Hits>,
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

    fn able<'a>(&'a self, env: &'a Env, _request: &'a Request) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(require(&*env.network))
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(prepare(env, request))
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let apply: Apply = recall(&change.fault, &change.apply)?;
            let made = apply.parts.iter().map(|part| apply.make(env, part));
            let made: Result<Vec<bool>, InjectError> =
                futures_util::future::join_all(made).await.into_iter().collect();
            if made?.contains(&true) { Ok(()) } else { Err(gone(&change.target)) }
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Undo { places, hits, ours, id } = recall(ABOUT.name, undo)?;
            // In this order: rules that lead to nobody would leave names unanswered.
            let cleared = clear(env, &places, hits.as_ref(), &ours).await;
            let ended = carrier::end(env, &id).await?;
            Ok(if cleared? || ended { Undone::Reverted } else { Undone::NothingToDo })
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let apply: Apply = recall(&change.fault, &change.apply)?;
            let looks = apply.parts.iter().map(|part| proof::look(env, &apply, part));
            let looks: Result<Vec<_>, InjectError> =
                futures_util::future::join_all(looks).await.into_iter().collect();
            let looks: Vec<proof::Look> = looks?.into_iter().flatten().collect();
            Ok(proof::judge(&apply, &looks))
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let Undo { places, hits, ours, id } = recall(ABOUT.name, undo)?;
            let tables = tables(env, &places, hits.as_ref(), &ours).await?;
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
            let apply: Apply = recall(&change.fault, &change.apply)?;
            for part in &apply.parts {
                match part.place.now(env, apply.hits.as_ref()).await? {
                    Now::Same => apply.ours.renew(&*env.network, &part.place).await?,
                    Now::Moved(place) => apply.cover(env, &Part { place, ..part.clone() }).await?,
                    Now::Gone => {}
                }
            }
            Ok(())
        })
    }
}

/// Refuses a kernel that cannot rewrite packets, and says what would serve.
async fn require(network: &dyn Network) -> Result<(), InjectError> {
    let instead = "break the names of the service in its own configuration";
    let features = features(network, instead).await?;
    match features.into_iter().find(|feature| feature.name == TABLES).and_then(|feature| feature.lack) {
        Some(why) => Err(InjectError::Lack(format!(
            "this kernel has no nf_tables ({why}): load it (modprobe nf_tables), or {instead}"
        ))),
        None => Ok(()),
    }
}

/// Refuses a namespace whose loopback is down: our resolver would listen there.
async fn refuse_deaf(network: &dyn Network, place: &Place) -> Result<(), InjectError> {
    let failed = failed(&place.name);
    let Some(session) = network.enter(&place.space).await.map_err(&failed)? else { return Ok(()) };
    let links = session.links().await.map_err(&failed)?;
    if links.iter().any(|link| link.name == "lo" && link.down) {
        return Err(InjectError::Lack(format!(
            "the loopback of {} is down, and the resolver that answers wrongly would listen there: ip link set lo up",
            place.name
        )));
    }
    Ok(())
}

async fn prepare(env: &Env, request: &Request) -> Result<Change, InjectError> {
    let Target::Flows(flows) = &request.target else {
        return Err(InjectError::Target(format!("{} is no flow", request.target)));
    };
    let (names, types, answer) = reading::asked(&request.args).map_err(InjectError::Target)?;
    require(&*env.network).await?;
    let (places, hits) = places(env, request, &flows.traffic.space).await?;
    let ours = Ours::new(&request.id);
    let mut parts = Vec::new();
    for place in places.clone() {
        refuse_taken(&*env.network, &place, &ours).await?;
        refuse_deaf(&*env.network, &place).await?;
        parts.push(Part { upstreams: reading::upstreams(flows, &place)?, place });
    }
    let name = names.first().map_or(NOBODY.to_owned(), |name| name.replacen("*.", "squall.", 1));
    let kind = types.first().copied().unwrap_or(1);
    let share = request.args.share("share").unwrap_or_default();
    let mut at: Vec<String> =
        parts.iter().flat_map(|part| &part.upstreams).map(ToString::to_string).collect();
    at.sort();
    at.dedup();
    let titles = hits.as_ref().map_or_else(String::new, |hits| format!(" in {}", hits.names()));
    let claims = |part: &Part| {
        let key = part.place.key.clone();
        part.upstreams.iter().map(move |to| format!("resolver:{to} in {key}")).collect::<Vec<_>>()
    };
    let undo = Undo { places, hits: hits.clone(), ours: ours.clone(), id: request.id.clone() };
    let manual = manual(&undo.places, hits.as_ref(), &ours);
    let undo = record(&undo);
    Ok(Change {
        id: request.id.clone(),
        fault: ABOUT.name.to_owned(),
        target: request.target.to_string(),
        summary: format!("dns-fault at {}{titles}: {}", at.join(", "), request.args.line()),
        claims: parts.iter().flat_map(claims).collect(),
        manual,
        picture: DnsFault.picture(env, &undo).await?,
        apply: record(&Apply {
            id: request.id.clone(),
            parts,
            hits,
            ours,
            asked: Asked { names, types, share, answer, seed: request.seed },
            name,
            kind,
        }),
        undo,
    })
}
