//! What faults that cut flows have in common: only the parameters differ ([`Cutting`]).
//!
//! The change is one table of ours in each namespace ([`rules`]), made and removed as a whole. Its rules look at a lease
//! first, which fades by itself unless it is renewed.

pub(crate) mod loss;
mod ours;
mod parts;
pub(crate) mod proof;
pub(crate) mod rules;
pub(crate) mod sides;

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(super) use self::ours::{Ours, clear, manual, tables};
use self::parts::{Part, alone, among, gone, look, widen, word};
use self::proof::Seen;
use self::rules::By;
use self::sides::Sides;
use super::containers::Hits;
use super::shape::{addresses, failed, is_asked_again, resolved, space};
use super::{contained, recall, record};
use crate::about::{About, Args};
use crate::change::{Change, InjectError, Proof, Undone};
use crate::flows::Flows;
use crate::sys::netlink::{DESTROY, Feature, Network as Kernel, Space};
use crate::target::Target;
use crate::traffic::Whose;
use crate::{Env, Injector, Pending, Request};

/// What one fault adds to the common part.
pub(crate) trait Cutting: std::fmt::Debug + Sync {
    /// See [`Injector::about`].
    fn about(&self) -> &'static About;

    /// What is cut, and between whom; the text names what is wrong with the parameters.
    fn plan(&self, args: &Args, flows: &Flows, seed: u64) -> Result<Plan, String>;

    /// What serves in place of nftables.
    fn instead(&self) -> &'static str;
}

/// What becomes of packets, and between whom.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) by: By,
    /// Absent where the flows themselves say it.
    pub(crate) sides: Option<Sides>,
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
    /// Containers that may be restarted meanwhile, one for each part.
    #[serde(default)]
    hits: Option<Hits>,
}

impl Apply {
    /// Leaves out the parts whose containers have been restarted, and takes in those of the namespaces that they have
    /// got: every part of them has the same rules. Tells where the new ones begin.
    async fn follow(&mut self, env: &Env) -> Result<usize, InjectError> {
        let (Some(hits), Some(first)) = (&self.hits, self.parts.first()) else { return Ok(self.parts.len()) };
        let (rules, watched) = (first.rules.clone(), first.watched.clone());
        let later = contained::later(env, hits).await?;
        let mut at = 0..;
        self.parts.retain(|_| at.next().is_some_and(|at| contained::lives(env, hits, at)));
        let begin = self.parts.len();
        let name = || "of a container that was restarted".to_owned();
        let part = |space| Part { space, name: name(), rules: rules.clone(), watched: watched.clone() };
        self.parts.extend(later.into_iter().map(part));
        Ok(begin)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    spaces: Vec<(Space, String)>,
    ours: Ours,
    /// Containers that may have been restarted since.
    #[serde(default)]
    hits: Option<Hits>,
}

impl Undo {
    /// Every namespace in which our table may be.
    async fn all(&self, env: &Env) -> Result<Vec<(Space, String)>, InjectError> {
        let mut all = self.spaces.clone();
        if let Some(hits) = &self.hits {
            let name = || "of a container that was restarted".to_owned();
            all.extend(contained::later(env, hits).await?.into_iter().map(|space| (space, name())));
        }
        Ok(all)
    }
}

impl<C: Cutting> Injector for Cut<C> {
    fn about(&self) -> &'static About {
        self.0.about()
    }

    fn check(&self, args: &Args, target: &Target) -> Result<(), Vec<String>> {
        let Target::Flows(flows) = target else { return Err(vec![format!("{target} is no flow")]) };
        self.0.plan(args, flows, 0).map(drop).map_err(|mistake| vec![mistake])
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let Target::Flows(flows) = &request.target else {
                return Err(InjectError::Target(format!("{} is no flow", request.target)));
            };
            let plan = self.0.plan(&request.args, flows, request.seed).map_err(InjectError::Target)?;
            require(&*env.network, plan.by, self.0.instead()).await?;
            let (parts, hits) = match (&plan.sides, &flows.traffic.space) {
                (Some(sides), _) => (among(&*env.network, flows, plan.by, sides).await?, None),
                (None, Whose::Containers(wanted)) => {
                    let (spaces, hits) = contained::spaces(env, request, wanted).await?;
                    let all: Vec<&Space> = spaces.iter().collect();
                    let flows = &now(&*env.network, &all, flows).await?;
                    let mut parts = Vec::new();
                    for (space, hit) in spaces.into_iter().zip(&hits.each) {
                        let name = format!("of container {}", hit.name);
                        parts.push(alone(&*env.network, flows, plan.by, (space, name)).await?);
                    }
                    (parts, Some(hits))
                }
                (None, whose) => {
                    let place = (space(&*env.network, whose)?, word(whose));
                    let flows = &now(&*env.network, &[&place.0], flows).await?;
                    (vec![alone(&*env.network, flows, plan.by, place).await?], None)
                }
            };
            prepare(self.0.about().name, &*env.network, request, &plan, (parts, hits)).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let Apply { parts, ours, .. } = recall(&change.fault, &change.apply)?;
            let failed = failed(&change.target);
            for Part { space, name, rules, .. } in &parts {
                let session = env.network.enter(space).await.map_err(&failed)?;
                let session = session.ok_or_else(|| gone(name))?;
                session.commit(&rules.edits(&ours)).await.map_err(&failed)?;
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let undo: Undo = recall(self.0.about().name, undo)?;
            let mut any = false;
            for (space, name) in undo.all(env).await?.iter().rev() {
                any |= clear(&*env.network, space, &undo.ours).await.map_err(failed(name))?;
            }
            Ok(if any { Undone::Reverted } else { Undone::NothingToDo })
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let mut apply: Apply = recall(&change.fault, &change.apply)?;
            let begin = apply.follow(env).await?;
            let Apply { parts, ours, by, .. } = apply;
            let looks = parts.iter().map(|part| look(&*env.network, part, &ours));
            let seen = futures_util::future::join_all(looks).await;
            let seen: Result<Vec<Seen>, io::Error> = seen.into_iter().collect();
            let seen = seen.map_err(failed(&change.target))?;
            let mut proof = proof::judge(format!("nothing gets through: {}", change.target), by, &seen);
            if begin < parts.len() {
                proof.measured += &format!("; covered again after a restart: {}", parts.len() - begin);
            }
            Ok(proof)
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let undo: Undo = recall(self.0.about().name, undo)?;
            picture(&*env.network, &undo.all(env).await?, &undo.ours).await
        })
    }

    fn renew<'a>(
        &'a self,
        env: &'a Env,
        change: &'a Change,
        age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let mut apply: Apply = recall(&change.fault, &change.apply)?;
            let begin = apply.follow(env).await?;
            for Part { space, name, .. } in &apply.parts[..begin] {
                apply.ours.renew(&*env.network, space, name).await?;
            }
            for Part { space, name, rules, .. } in &apply.parts[begin..] {
                let failed = failed(name);
                let Some(session) = env.network.enter(space).await.map_err(&failed)? else { continue };
                let there = apply.ours.find(session.tables().await.map_err(&failed)?);
                if there.map_err(InjectError::Target)?.is_none() {
                    let edits = rules.edits(&apply.ours);
                    session.commit(&edits).await.map_err(&failed)?;
                    continue;
                }
                drop(session);
                apply.ours.renew(&*env.network, space, name).await?;
            }
            if apply.names.is_empty() || !is_asked_again(age) {
                return Ok(());
            }
            let spaces: Vec<&Space> = apply.parts.iter().map(|part| &part.space).collect();
            // A name server that is silent for a while changes nothing.
            let Ok(new) = addresses(&*env.network, &spaces, &apply.names).await else { return Ok(()) };
            for part in &apply.parts {
                widen(&*env.network, part, &apply.ours, &new).await.map_err(failed(&part.name))?;
            }
            Ok(())
        })
    }
}

/// The same flows, with the addresses that their names have now.
async fn now(network: &dyn Kernel, spaces: &[&Space], flows: &Flows) -> Result<Flows, InjectError> {
    Ok(Flows { traffic: resolved(network, spaces, &flows.traffic).await?, among: flows.among.clone() })
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
    network: &dyn Kernel,
    request: &Request,
    plan: &Plan,
    (parts, hits): (Vec<Part>, Option<Hits>),
) -> Result<Change, InjectError> {
    let ours = Ours::new(&request.id);
    let spaces: Vec<(Space, String)> =
        parts.iter().map(|part| (part.space.clone(), part.name.clone())).collect();
    for (space, name) in &spaces {
        let session = network.enter(space).await.map_err(failed(name))?.ok_or_else(|| gone(name))?;
        let tables = session.tables().await.map_err(failed(name))?;
        if ours.find(tables).map_err(InjectError::Target)?.is_some() {
            return Err(InjectError::Target(format!("{} is there already", ours.comment())));
        }
    }
    let claims =
        spaces.iter().map(|(space, _)| format!("network:{}:{}", space.inode, ours.table())).collect();
    let picture = picture(network, &spaces, &ours).await?;
    let names = match &request.target {
        Target::Flows(flows) => flows.traffic.names.clone(),
        _ => Vec::new(),
    };
    // Groups say themselves who is parted from whom.
    let split = plan.sides.as_ref().filter(|_| request.args.text("groups").is_none());
    let who = split.map_or(String::new(), |sides| format!(" ({})", sides.words()));
    Ok(Change {
        id: request.id.clone(),
        fault: name.to_owned(),
        target: request.target.to_string(),
        summary: format!("{name} on {}{who}: {}", request.target, request.args.line()),
        claims,
        manual: manual(&spaces, &ours),
        undo: record(&Undo { spaces, ours: ours.clone(), hits: hits.clone() }),
        apply: record(&Apply { parts, ours, by: plan.by, names, hits }),
        picture,
    })
}

/// Where our table is.
async fn picture(
    network: &dyn Kernel,
    spaces: &[(Space, String)],
    ours: &Ours,
) -> Result<Value, InjectError> {
    Ok(json!({"table": ours.table(), "in": tables(network, spaces, ours).await?}))
}
