//! What the process faults share: finding the processes of a target, and never the wrong ones.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::grouped;
use crate::sys::control::ControlError;
use crate::sys::proc::{ProcessInfo, Procs};
use crate::target::{ProcessId, Target};
use crate::{Env, InjectError};

/// More processes than this behind one port or pid file are refused: something else was meant.
const HOLDERS_MAX: usize = 64;

/// How a target is found again, without the inventory: part of the undo data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Anchor {
    /// A lab instance: its supervisor knows.
    Instance { instance: String, supervisor: PathBuf },
    /// Whatever the target says.
    Found(Box<Target>),
}

/// The living processes of a target, none of them protected, nor in a container that is.
pub(crate) async fn find(env: &Env, target: &Target) -> Result<(Anchor, Vec<ProcessInfo>), InjectError> {
    let (anchor, found) = match target {
        Target::Instance { instance, .. } => {
            let known = env.inventory.instances.iter().find(|known| known.name == *instance);
            let known =
                known.ok_or_else(|| InjectError::Target(format!("no instance {instance} is running")))?;
            let anchor =
                Anchor::Instance { instance: instance.clone(), supervisor: known.supervisor.clone() };
            // The inventory is as old as the run: since then it may have been started again.
            let id = process(env, &known.supervisor, instance).await?;
            let id = id.ok_or_else(|| InjectError::Target(format!("{instance} is down already")))?;
            let found = env.procs.look(id.pid).map_err(system("look at", target))?;
            (anchor, found.into_iter().filter(|info| info.id == id).collect())
        }
        other => (Anchor::Found(Box::new(other.clone())), search(&*env.procs, other)?),
    };
    let found: Vec<ProcessInfo> = found.into_iter().filter(|info| !info.ended()).collect();
    if found.is_empty() {
        return Err(InjectError::Target(format!("no running process is behind {target}")));
    }
    if found.len() > HOLDERS_MAX {
        return Err(InjectError::Target(format!("{} processes are behind {target}; refused", found.len())));
    }
    refuse_protected(&*env.procs, &found)?;
    let pids = found.iter().map(|info| info.id.pid);
    grouped::refuse_containers_of(env, pids, &format!("what is behind {target}")).await?;
    Ok((anchor, found))
}

/// The processes that a target names now, for all but lab instances.
pub(crate) fn search(procs: &dyn Procs, target: &Target) -> Result<Vec<ProcessInfo>, InjectError> {
    match target {
        Target::PidFile(path) => {
            let pid = procs.pid_file(path).map_err(system("read", target))?;
            let Some(head) = procs.look(pid).map_err(system("look at", target))? else {
                return Ok(Vec::new());
            };
            // A server's workers go on serving when its master is gone: they belong to it.
            let mut all = procs.descendants(pid).map_err(system("look for", target))?;
            all.insert(0, head);
            Ok(all)
        }
        Target::Port(port) => procs.listeners(*port).map_err(system("look for", target)),
        Target::Command { command, scope, limit } => {
            let found = procs.named(command, scope).map_err(system("look for", target))?;
            if found.len() > *limit as usize {
                let text =
                    format!("{} processes match {target}, more than the limit of {limit}", found.len());
                return Err(InjectError::Target(text));
            }
            Ok(found)
        }
        other => Err(InjectError::Target(format!("{other} is no process"))),
    }
}

/// Whether anything runs behind a target now; none if the lab that it belonged to is gone altogether.
pub(crate) async fn present(env: &Env, anchor: &Anchor) -> Result<Option<bool>, InjectError> {
    match anchor {
        Anchor::Instance { instance, supervisor } => running(env, supervisor, instance).await,
        Anchor::Found(target) => Ok(Some(count(env, target)? > 0)),
    }
}

/// How many processes run behind a target now.
pub(crate) fn count(env: &Env, target: &Target) -> Result<usize, InjectError> {
    match search(&*env.procs, target) {
        Ok(found) => Ok(found.iter().filter(|info| !info.ended()).count()),
        // A server that is down has often taken its pid file with it.
        Err(InjectError::System { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// Whether the supervisor has this instance running; none if the supervisor is gone and all of the lab with it.
pub(crate) async fn running(
    env: &Env,
    supervisor: &Path,
    instance: &str,
) -> Result<Option<bool>, InjectError> {
    let known = supervised(env, supervisor, instance).await?;
    Ok(known.map(|known| !known["process"].is_null()))
}

/// The process of an instance, as its supervisor knows it now; none if it is down, or the lab is gone.
async fn process(env: &Env, supervisor: &Path, instance: &str) -> Result<Option<ProcessId>, InjectError> {
    let known = supervised(env, supervisor, instance).await?;
    Ok(known.and_then(|mut known| serde_json::from_value(known["process"].take()).ok()))
}

/// What the supervisor says of an instance; none if it knows no such, or is gone and all of the lab with it.
async fn supervised(env: &Env, supervisor: &Path, instance: &str) -> Result<Option<Value>, InjectError> {
    match env.control.call(supervisor, &json!({"op": "status"})).await {
        Ok(mut status) => {
            let all = status["instances"].as_array_mut().map(std::mem::take).unwrap_or_default();
            Ok(all.into_iter().find(|known| known["name"] == instance))
        }
        Err(ControlError::Gone(_)) => Ok(None),
        Err(source) => Err(InjectError::Control { what: "the lab".to_owned(), source }),
    }
}

/// What a person types to have back what was behind a target.
pub(crate) fn start_by_hand(anchor: &Anchor) -> String {
    match anchor {
        Anchor::Instance { .. } => "squall lab down; squall lab up".to_owned(),
        Anchor::Found(target) => format!("start what was behind {target} again"),
    }
}

/// squall itself, everything that it descends from, and process 1.
pub(crate) fn protected(procs: &dyn Procs) -> Vec<u32> {
    let mut protected = vec![1];
    let mut pid = std::process::id();
    while pid > 1 && protected.len() < 64 {
        protected.push(pid);
        pid = procs.parent(pid).unwrap_or(1);
    }
    protected
}

/// What is protected is never hit.
fn refuse_protected(procs: &dyn Procs, found: &[ProcessInfo]) -> Result<(), InjectError> {
    let protected = protected(procs);
    match found.iter().find(|info| protected.contains(&info.id.pid)) {
        Some(info) => Err(InjectError::Target(format!(
            "process {} ({}) is squall itself, one of its ancestors or process 1; refused",
            info.id.pid, info.comm
        ))),
        None => Ok(()),
    }
}

/// The error of a system call about a target.
pub(crate) fn system(what: &'static str, target: &Target) -> impl Fn(std::io::Error) -> InjectError + use<> {
    let what = format!("{what} {target}");
    move |source| InjectError::System { what: what.clone(), source }
}

/// `nginx 4711, nginx 4712`.
pub(crate) fn names(found: &[ProcessInfo]) -> String {
    let shown: Vec<String> =
        found.iter().take(8).map(|info| format!("{} {}", info.comm, info.id.pid)).collect();
    let rest = if found.len() > shown.len() {
        format!(" and {} more", found.len() - shown.len())
    } else {
        String::new()
    };
    shown.join(", ") + &rest
}

/// Claims of a process fault: each process by number.
pub(crate) fn claims(ids: &[ProcessId]) -> Vec<String> {
    ids.iter().map(|id| format!("process:{}", id.pid)).collect()
}

/// How many of these are still the same process and have not ended.
pub(crate) fn alive(procs: &dyn Procs, ids: &[ProcessId]) -> Result<Vec<ProcessInfo>, InjectError> {
    let mut living = Vec::new();
    for id in ids {
        let seen = procs.look(id.pid);
        let seen = seen
            .map_err(|source| InjectError::System { what: format!("look at process {}", id.pid), source })?;
        living.extend(seen.filter(|info| info.id == *id && !info.ended()));
    }
    Ok(living)
}
