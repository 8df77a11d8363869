//! What faults that cut flows have in common: only the parameters differ ([`Cutting`]).
//!
//! The change is one table of ours in each namespace ([`rules`]), made and removed as a whole. Its rules look at a lease
//! first, which fades by itself unless it is renewed.

pub(crate) mod loss;
mod members;
mod ours;
mod parts;
pub(crate) mod proof;
pub(crate) mod rules;
pub(crate) mod sides;

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::members::{Members, gather};
pub(super) use self::ours::{Ours, clear, gone, manual, refuse_taken, tables};
use self::parts::{Part, alone, among, cover, follow, look, widen};
use self::proof::Seen;
use self::rules::By;
use self::sides::{Sides, Wanted};
use super::contained::{Place, places};
use super::containers::Hits;
use super::fallback::{self, Serves};
use super::shape::{addresses, failed, is_asked_again, resolved};
use super::{recall, record};
use crate::about::{About, Args, Value as Arg};
use crate::change::{Change, InjectError, Proof, Undone};
use crate::flows::Flows;
use crate::sys::netlink::{DESTROY, Feature, Network as Kernel, Space};
use crate::target::Target;
use crate::units::Share;
use crate::{Env, Injector, Pending, Request};

/// What one fault adds to the common part.
pub(crate) trait Cutting: std::fmt::Debug + Sync {
    /// See [`Injector::about`].
    fn about(&self) -> &'static About;

    /// What is cut, and between whom; the text names what is wrong with the parameters.
    fn plan(&self, args: &Args, flows: &Flows) -> Result<Plan, String>;

    /// What serves in place of nftables.
    fn instead(&self) -> &'static str;

    /// The fault of a relay that comes closest, with `fallback: relay`: where nobody is told, nobody is told there either;
    /// all else resets what is open and what is opened, as a refusal would let open connections go on. No relay stands
    /// between several, and none loses some packets only.
    fn serves(&self, plan: &Plan) -> Vec<Serves> {
        match (plan.by, &plan.sides) {
            (_, Some(_)) | (By::Lose(_), _) => Vec::new(),
            (By::Drop, None) => vec![Serves::Relay("relay-blackhole", Args::default())],
            (By::Unreachable | By::Reset | By::Refuse, None) => {
                let all = ("share".to_owned(), Arg::Share(Share(1.0)));
                vec![Serves::Relay("relay-reset", Args([all].into()))]
            }
        }
    }
}

/// What becomes of packets, and between whom.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) by: By,
    /// Absent where the flows themselves say it.
    pub(crate) sides: Option<Wanted>,
}

/// A fault that cuts flows.
#[derive(Debug)]
pub struct Cut<C>(pub C);

#[derive(Debug, Serialize, Deserialize)]
struct Apply {
    parts: Vec<Part>,
    ours: Ours,
    by: By,
    /// Names whose addresses may change meanwhile.
    #[serde(default)]
    names: Vec<String>,
    /// Containers that may be restarted meanwhile.
    #[serde(default)]
    hits: Option<Hits>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    places: Vec<Place>,
    ours: Ours,
    /// Containers that may have been restarted since.
    #[serde(default)]
    hits: Option<Hits>,
}

impl<C: Cutting> Injector for Cut<C> {
    fn about(&self) -> &'static About {
        self.0.about()
    }

    fn check(&self, args: &Args, target: &Target) -> Result<(), Vec<String>> {
        let Target::Flows(flows) = target else { return Err(vec![format!("{target} is no flow")]) };
        self.0.plan(args, flows).map(drop).map_err(|mistake| vec![mistake])
    }

    fn able<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Target::Flows(flows) = &request.target else { return Ok(()) };
            let plan = self.0.plan(&request.args, flows).map_err(InjectError::Target)?;
            require(&*env.network, plan.by, self.0.instead()).await
        })
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let Target::Flows(flows) = &request.target else {
                return Err(InjectError::Target(format!("{} is no flow", request.target)));
            };
            let plan = self.0.plan(&request.args, flows).map_err(InjectError::Target)?;
            match require(&*env.network, plan.by, self.0.instead()).await {
                Ok(()) => {}
                Err(InjectError::Lack(lack)) => {
                    let serves = self.0.serves(&plan);
                    return fallback::take(self.0.about().name, serves, env, request, lack).await;
                }
                Err(error) => return Err(error),
            }
            let (parts, hits, sides) = match &plan.sides {
                Some(wanted) => {
                    let Members { places, hits, sides } = gather(env, request, wanted).await?;
                    let parts = among(&*env.network, flows, plan.by, (&places, &sides)).await?;
                    (parts, hits, Some(sides))
                }
                None => {
                    let (places, hits) = places(env, request, &flows.traffic.space).await?;
                    let spaces: Vec<&Space> = places.iter().map(|place| &place.space).collect();
                    let traffic = resolved(&*env.network, &spaces, &flows.traffic).await?;
                    let mut parts = Vec::new();
                    for place in places {
                        parts.push(alone(&*env.network, &traffic, plan.by, place).await?);
                    }
                    (parts, hits, None)
                }
            };
            let by = plan.by;
            prepare(self.0.about().name, env, request, sides.as_ref(), (parts, by, hits)).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { parts, ours, .. } = recall(&change.fault, &change.apply)?;
            let failed = failed(&change.target);
            for Part { place, rules, .. } in &parts {
                let session = env.network.enter(&place.space).await.map_err(&failed)?;
                let session = session.ok_or_else(|| gone(&place.name))?;
                session.commit(&rules.edits(&ours)).await.map_err(&failed)?;
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let Undo { places, ours, hits } = recall(self.0.about().name, undo)?;
            let any = clear(env, &places, hits.as_ref(), &ours).await?;
            Ok(if any { Undone::Reverted } else { Undone::NothingToDo })
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let Apply { parts, ours, by, hits, .. } = recall(&change.fault, &change.apply)?;
            let all = parts.len();
            let parts = follow(env, &parts, hits.as_ref()).await?;
            if parts.len() < all {
                let why = format!("{} of {all} containers are down", all - parts.len());
                return Ok(Proof::gone(&change.summary, why));
            }
            let looks = parts.iter().map(|part| look(&*env.network, part, &ours));
            let seen = futures_util::future::join_all(looks).await;
            let seen: Result<Vec<Seen>, io::Error> = seen.into_iter().collect();
            let seen = seen.map_err(failed(&change.target))?;
            let mut proof = proof::judge(format!("nothing gets through: {}", change.target), by, &seen);
            let again = parts.iter().zip(&seen).filter(|(part, seen)| part.moved && seen.counted.is_some());
            let again = again.count();
            if again > 0 {
                proof.measured += &format!("; covered again after a restart: {again}");
            }
            Ok(proof)
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move { picture(env, &recall(self.0.about().name, undo)?).await })
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { parts, ours, names, hits, .. } = recall(&change.fault, &change.apply)?;
            let parts = follow(env, &parts, hits.as_ref()).await?;
            for part in &parts {
                cover(env, part, &ours).await?;
            }
            if names.is_empty() || !is_asked_again(age) {
                return Ok(());
            }
            let spaces: Vec<&Space> = parts.iter().map(|part| &part.place.space).collect();
            // A name server that is silent for a while changes nothing.
            let Ok(new) = addresses(&*env.network, &spaces, &names).await else { return Ok(()) };
            for part in &parts {
                widen(&*env.network, part, &ours, &new).await.map_err(failed(&part.place.name))?;
            }
            Ok(())
        })
    }
}

/// What the kernel can do; refuses a user who may not find out.
pub(super) async fn features(network: &dyn Kernel, instead: &str) -> Result<Vec<Feature>, InjectError> {
    network.cuts().await.map_err(|error| match error.raw_os_error() {
        Some(1 | 13) => InjectError::Lack(format!(
            "network faults need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN; as this user, {instead}"
        )),
        _ => InjectError::System {
            what: "make a network namespace to try the kernel in".to_owned(),
            source: error,
        },
    })
}

/// Refuses a kernel that lacks what the fault needs, and says what would serve.
async fn require(network: &dyn Kernel, by: By, instead: &str) -> Result<(), InjectError> {
    let features = features(network, instead).await?;
    let needed = |name: &str| match name {
        "nft_reject_inet" => matches!(by, By::Unreachable | By::Reset | By::Refuse),
        "nft_numgen" => matches!(by, By::Lose(_)),
        DESTROY => false,
        _ => true,
    };
    let lacks: Vec<String> = features
        .iter()
        .filter(|feature| needed(feature.name))
        .filter_map(|feature| feature.lack.as_ref().map(|why| (feature.name, why)))
        .map(|(name, why)| {
            format!("this kernel has no {name} ({why}): load it (modprobe {name}), or {instead}")
        })
        .collect();
    if lacks.is_empty() { Ok(()) } else { Err(InjectError::Lack(lacks.join("; "))) }
}

async fn prepare(
    name: &str,
    env: &Env,
    request: &Request,
    sides: Option<&Sides>,
    (parts, by, hits): (Vec<Part>, By, Option<Hits>),
) -> Result<Change, InjectError> {
    let ours = Ours::new(&request.id);
    let places: Vec<Place> = parts.iter().map(|part| part.place.clone()).collect();
    for place in &places {
        refuse_taken(&*env.network, place, &ours).await?;
    }
    let undo = Undo { places, ours: ours.clone(), hits: hits.clone() };
    let names = match &request.target {
        Target::Flows(flows) => flows.traffic.names.clone(),
        _ => Vec::new(),
    };
    // Groups of names say themselves who is parted from whom.
    let unsaid = request.args.text("groups").is_none() || hits.is_some();
    let who = match (sides.filter(|_| unsaid), &hits) {
        (Some(sides), _) => format!(" ({})", sides.words()),
        (None, Some(hits)) => format!(" ({})", hits.names()),
        (None, None) => String::new(),
    };
    let claim = |place: &Place| format!("network:{} {}", place.key, ours.table());
    Ok(Change {
        id: request.id.clone(),
        fault: name.to_owned(),
        target: request.target.to_string(),
        summary: format!("{name} on {}{who}: {}", request.target, request.args.line()),
        claims: undo.places.iter().map(claim).collect(),
        manual: manual(&undo.places, hits.as_ref(), &ours),
        picture: picture(env, &undo).await?,
        undo: record(&undo),
        apply: record(&Apply { parts, ours, by, names, hits }),
    })
}

/// Where our table is.
async fn picture(env: &Env, Undo { places, ours, hits }: &Undo) -> Result<Value, InjectError> {
    Ok(json!({"table": ours.table(), "in": tables(env, places, hits.as_ref(), ours).await?}))
}
