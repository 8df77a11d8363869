//! `container-pause`: frozen by the engine, then let go.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::containers::{self, Hit, Hits, SETTLE};
use super::{processes, recall, record};
use crate::about::{About, Args, Effect};
use crate::sys::docker::{Act, Container, Status};
use crate::target::{Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Pending, Proof, ProofStatus, Request, Undone};

/// Freezes containers without ending them.
#[derive(Debug)]
pub struct ContainerPause;

static ABOUT: About = About {
    name: "container-pause",
    summary: "Freezes containers, so that they hang while their sockets stay open",
    description: "As `docker pause` does: no process of the container gets any time, and none of them can notice. The \
                  kernel still accepts connections for it, so its callers see neither a refusal nor a reset, only \
                  silence. Health checks of the engine fail. A container stays frozen if squall and its guardian are \
                  both killed: `squall recover` lets it go. A container that is labelled squall.protect or in which \
                  squall itself runs is never hit.",
    target: TargetKind::Container,
    params: &[],
    needs: containers::NEEDS,
    effect: Effect::Outage,
    proof: "The kernel's freezer says that every process of the container is frozen. Unproven where its cgroup cannot be seen.",
    undo: "Those that are frozen in the same life (id and start) run on. One that somebody has ended meanwhile must \
           have been replaced: else it is not restored. One that somebody has removed carries no fault.",
    example: "- container-pause: {container: web}",
};

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    hits: Hits,
}

impl Injector for ContainerPause {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn undoes(&self, _args: &Args, target: &Target) -> String {
        format!("unpause {target}: each container that was paused, unless it was started anew since")
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let (hits, _) = containers::find(env, request).await?;
            let (summary, manual) = (format!("pause {}", hits.names()), hits.by_hand(&["unpause", "start"]));
            let claims = hits.claims();
            let data = record(&Data { hits });
            containers::change(self, env, request, containers::Words { summary, claims, manual }, data).await
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            let hits = recall::<Data>(ABOUT.name, &change.apply)?.hits;
            hits.act(env, &hits.each.iter().collect::<Vec<_>>(), &Act::Pause).await
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let hits = recall::<Data>(ABOUT.name, undo)?.hits;
            let paused =
                |hit: &Hit, now: &Container| now.status == Status::Paused && now.started == hit.started;
            let other =
                |hit: &Hit, now: &Container| now.status != Status::Running || now.started != hit.started;
            let seen = hits.settled(env, SETTLE, other).await?;
            let (mut frozen, mut ended, mut reborn) = (Vec::new(), None, false);
            for (hit, now) in &seen {
                match now {
                    Some(now) if paused(hit, now) => frozen.push(*hit),
                    Some(now) if hit.reborn(now) => reborn = true,
                    Some(now) if !containers::up(now) => ended = Some(*hit),
                    Some(_) | None => {}
                }
            }
            hits.act(env, &frozen, &Act::Unpause).await?;
            match ended {
                Some(_) if hits.as_many(env).await? => Ok(Undone::Replaced),
                Some(hit) => Err(InjectError::Target(format!(
                    "container {} has ended while it was paused, and squall did not end it: {} start {}, then `squall \
                     recover`",
                    hit.name,
                    containers::client(&hits.socket),
                    hit.short()
                ))),
                None if reborn => Ok(Undone::Replaced),
                None if frozen.is_empty() => Ok(Undone::NothingToDo),
                None => Ok(Undone::Reverted),
            }
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let hits = recall::<Data>(ABOUT.name, &change.apply)?.hits;
            let (all, ids) = (hits.each.len(), hits.processes());
            let requested = format!("{all} frozen");
            let living = processes::alive(&*env.procs, &ids)?;
            let mut frozen = 0;
            for info in &living {
                let failed = |source| InjectError::System {
                    what: format!("see whether {} is frozen", info.id.pid),
                    source,
                };
                match env.procs.frozen(info.id.pid).map_err(failed)? {
                    Some(yes) => frozen += usize::from(yes),
                    None => {
                        return Ok(Proof::unproven(
                            requested,
                            "its cgroup has no freezer that can be read here",
                        ));
                    }
                }
            }
            if ids.len() < all {
                return Ok(Proof::unproven(requested, "its processes cannot be seen from here"));
            }
            Ok(Proof {
                status: if frozen == all { ProofStatus::Confirmed } else { ProofStatus::Mismatch },
                requested,
                measured: format!("{frozen} frozen by the kernel's word, {} gone", all - living.len()),
                tolerance: "all".to_owned(),
                samples: all as u64,
            })
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move { recall::<Data>(ABOUT.name, undo)?.hits.states(env).await })
    }
}
