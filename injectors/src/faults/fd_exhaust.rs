//! `fd-exhaust`: a process runs out of file descriptors.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::processes;
use super::{recall, record};
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::target::{ProcessId, Target, TargetKind};
use crate::{Change, Env, InjectError, Injector, Looks, Pending, Proof, ProofStatus, Request, Undone};

/// A process runs out of file descriptors.
#[derive(Debug)]
pub struct FdExhaust;

static ABOUT: About = About {
    name: "fd-exhaust",
    summary: "Lets a process open no more files or connections than it has, by lowering its limit of descriptors",
    description: "The soft limit of open files (RLIMIT_NOFILE) of each process of the target is lowered so far that it can open \
                  `spare` descriptors more than it has now: what a leak of descriptors or a limit that was left at its \
                  default does under load. What is open stays open. From then on accept, connect and open fail with EMFILE \
                  (too many open files); a server then often spins, or stops taking connections without a word. Descriptors \
                  that are closed below the limit can be used again. Processes that are started by the target meanwhile \
                  have the same limit; those that still descend from it get theirs back as well. The host's own table of \
                  files is never touched. Squall itself, its ancestors and process 1 are never hit. The limit lives in \
                  the process and has no lease of its own: if both squall and its guardian are killed, `squall recover` \
                  puts it back.",
    target: TargetKind::Process,
    params: &[Param {
        name: "spare",
        kind: ParamKind::Int { min: 0, max: 1_048_576 },
        presence: Presence::Required,
        help: "how many descriptors it may still open; 0: none at all",
    }],
    needs: &["processes of the same user, or CAP_SYS_RESOURCE"],
    effect: Effect::Errors,
    proof: "The limit is in force in every process, and the descriptors below it are all in use: the next one is refused. \
            Unproven while some are left.",
    undo: "The same processes (number and start time) get their former limit back, if it still is what squall has set.",
    example: "- fd-exhaust: {instance: catalog-1, spare: 0}",
};

/// One process, and what its limit was and is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lowered {
    id: ProcessId,
    before: u64,
    ours: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Data {
    all: Vec<Lowered>,
}

fn failed(verb: &str, pid: u32) -> impl FnOnce(std::io::Error) -> InjectError + use<> {
    let what = format!("{verb} the limit of descriptors of process {pid}");
    move |source| InjectError::System { what, source }
}

/// The soft limit of a process, if it still is the same one.
fn limit(env: &Env, id: ProcessId) -> Result<Option<u64>, InjectError> {
    if processes::alive(&*env.procs, &[id])?.is_empty() {
        return Ok(None);
    }
    Ok(env.resources.files(id.pid).map_err(failed("read", id.pid))?.map(|files| files.soft))
}

/// Those that were hit, and those that they have started meanwhile with the same limit.
fn hit(env: &Env, data: &Data) -> Result<Vec<Lowered>, InjectError> {
    let mut all = data.all.clone();
    for one in &data.all {
        let below = env.procs.descendants(one.id.pid).map_err(failed("look for heirs of", one.id.pid))?;
        let heirs =
            below.into_iter().filter(|info| !data.all.iter().any(|known| known.id.pid == info.id.pid));
        all.extend(heirs.map(|info| Lowered { id: info.id, ..*one }));
    }
    Ok(all)
}

impl Injector for FdExhaust {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn looks(&self) -> Looks {
        Looks::Felt
    }

    fn undoes(&self, _args: &Args, target: &Target) -> String {
        format!("give {target} its former limit of open files back")
    }

    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>> {
        Box::pin(async move {
            let (_, found) = processes::find(env, &request.target).await?;
            let spare = request.args.int("spare").unwrap_or_default();
            let mut all = Vec::new();
            for info in &found {
                let pid = info.id.pid;
                if let Some(why) = env.resources.may_limit(pid).map_err(failed("look at", pid))? {
                    let text = format!("the limits of process {pid} ({}) cannot be set: {why}", info.comm);
                    return Err(InjectError::Lack(text));
                }
                let files = env.resources.files(pid).map_err(failed("read", pid))?;
                let files =
                    files.ok_or_else(|| InjectError::Target(format!("process {pid} has just ended")))?;
                let ours = files.limit_for(spare);
                if ours >= files.soft {
                    return Err(InjectError::Target(format!(
                        "process {pid} ({}) can open no more than {} as it is: ask for fewer to spare",
                        info.comm,
                        files.spare(files.soft)
                    )));
                }
                all.push(Lowered { id: info.id, before: files.soft, ours });
            }
            let line =
                |one: &Lowered| format!("prlimit --pid {} --nofile={}:", one.id.pid, shown(one.before));
            let ids: Vec<ProcessId> = all.iter().map(|one| one.id).collect();
            let manual: Vec<String> = all.iter().map(line).collect();
            let data = record(&Data { all });
            Ok(Change {
                id: request.id.clone(),
                fault: ABOUT.name.to_owned(),
                target: request.target.to_string(),
                summary: format!("leave {} {spare} descriptors to open", processes::names(&found)),
                claims: processes::claims(&ids),
                apply: data.clone(),
                picture: self.picture(env, &data).await?,
                undo: data,
                manual: manual.join("; "),
            })
        })
    }

    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(async move {
            for one in recall::<Data>(ABOUT.name, &change.apply)?.all {
                let pid = one.id.pid;
                if !env.resources.limit_files(one.id, one.ours).map_err(failed("set", pid))? {
                    let text = format!("process {pid} ended before its limit could be set");
                    return Err(InjectError::Target(text));
                }
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Undone, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            let (mut outcome, mut foreign) = (Undone::NothingToDo, None);
            for one in hit(env, &data)? {
                // Limits end with their process.
                let Some(now) = limit(env, one.id)? else { continue };
                if now == one.ours {
                    env.resources.limit_files(one.id, one.before).map_err(failed("set", one.id.pid))?;
                    outcome = Undone::Reverted;
                } else if now != one.before && data.all.iter().any(|known| known.id == one.id) {
                    foreign = Some((one, now));
                }
            }
            let Some((one, now)) = foreign else { return Ok(outcome) };
            Err(InjectError::Target(format!(
                "somebody else has set the limit of process {} to {}, which squall had set from {} to {}: it is left alone; \
                 if it is meant so, forget it (`squall recover` names the command)",
                one.id.pid,
                shown(now),
                shown(one.before),
                one.ours
            )))
        })
    }

    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, &change.apply)?;
            let (mut in_force, mut left, mut used, mut allowed) = (0, 0, 0, 0);
            for one in &data.all {
                if processes::alive(&*env.procs, &[one.id])?.is_empty() {
                    continue;
                }
                let files = env.resources.files(one.id.pid).map_err(failed("read", one.id.pid))?;
                let Some(files) = files.filter(|files| files.soft == one.ours) else { continue };
                in_force += 1;
                left += files.spare(one.ours);
                allowed += one.ours;
                used += one.ours - files.spare(one.ours);
            }
            let status = match (in_force == data.all.len(), left) {
                (false, _) => ProofStatus::Mismatch,
                (true, 0) => ProofStatus::Confirmed,
                // One descriptor that was closed in this moment is taken again in the next.
                (true, _) => ProofStatus::Unproven,
            };
            Ok(Proof {
                status,
                requested: format!("{} limited, and at their limit", data.all.len()),
                measured: format!(
                    "{in_force} limited; {used} of {allowed} descriptors in use, {left} to spare"
                ),
                tolerance: "none".to_owned(),
                samples: data.all.len() as u64,
            })
        })
    }

    fn picture<'a>(&'a self, env: &'a Env, undo: &'a Value) -> Pending<'a, Result<Value, InjectError>> {
        Box::pin(async move {
            let data: Data = recall(ABOUT.name, undo)?;
            let mut lowered = Vec::new();
            for one in hit(env, &data)? {
                if limit(env, one.id)? == Some(one.ours) {
                    lowered.push(one.id.pid);
                }
            }
            Ok(json!({"lowered": lowered}))
        })
    }
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}
