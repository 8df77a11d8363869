//! Control groups of containers: found by the main process, and again when a restart has made another one in its place.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::containers::{self, Hits};
use super::processes;
use crate::group::Group;
use crate::sys::cgroup::{self, Controller, Folder, Place};
use crate::sys::inside::containers_in;
use crate::target::{ProcessId, Target};
use crate::{Env, InjectError, Request};

/// The most containers of one group that the engine is asked about.
const CONTAINERS_MAX: usize = 64;

/// The container whose control group is meant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Inside(Hits);

/// The request with the main process of its container in place of the container, if it means one. A fault of this kind
/// takes one group at a time.
pub(crate) async fn narrowed(env: &Env, request: &Request) -> Result<(Request, Option<Inside>), InjectError> {
    let Target::Group(Group::Containers(wanted)) = &request.target else {
        return Ok((request.clone(), None));
    };
    let asked = Request { target: Target::Containers(wanted.clone()), ..request.clone() };
    let (hits, _) = containers::find(env, &asked).await?;
    let target = Target::Group(Group::Process(hits.only()?.seen()?.pid));
    Ok((Request { target, ..request.clone() }, Some(Inside(hits))))
}

/// Refuses a group in which a protected container lives, however the group was named.
pub(crate) async fn refuse_protected(env: &Env, group: &Folder) -> Result<(), InjectError> {
    let failed = |source| InjectError::System { what: format!("look into {}", group.path.display()), source };
    let inside = env.cgroups.processes(group).map_err(failed)?;
    refuse_containers_of(env, inside, &group.path.display().to_string()).await
}

/// Refuses processes, which are `place`, one of which lives in a protected container. Where no engine answers, nobody
/// can say.
pub(crate) async fn refuse_containers_of(
    env: &Env,
    pids: impl IntoIterator<Item = u32>,
    place: &str,
) -> Result<(), InjectError> {
    let Ok(socket) = env.docker.socket() else { return Ok(()) };
    let groups = pids.into_iter().filter_map(|pid| env.procs.cgroups(pid).ok());
    let ids: BTreeSet<String> = groups.flat_map(|text| containers_in(&text)).collect();
    for id in ids.iter().take(CONTAINERS_MAX) {
        let Ok(found) = env.docker.look(&socket, id).await else { return Ok(()) };
        if let Some(container) = found.filter(|container| container.labels.contains_key(containers::PROTECT))
        {
            return Err(InjectError::Target(format!(
                "container {} lives in {place} and is protected by its label {}",
                container.name,
                containers::PROTECT
            )));
        }
    }
    Ok(())
}

/// ` (web-1 (3f9ac1b2d3e4, process 4711))`, to follow the target; nothing where no container is meant.
pub(crate) fn name(inside: Option<&Inside>) -> String {
    inside.map_or_else(String::new, |inside| format!(" ({})", inside.0.names()))
}

impl Inside {
    /// Whether the life of the container in which it was found is over.
    pub(crate) fn over(&self, env: &Env) -> Result<bool, InjectError> {
        match self.0.each.first().and_then(|hit| hit.process) {
            Some(first) => Ok(processes::alive(&*env.procs, &[first])?.is_empty()),
            None => Ok(false),
        }
    }

    /// The main process that a restart of the container has given it since; none if it was not restarted, or does not
    /// run.
    pub(crate) async fn reborn(&self, env: &Env) -> Result<Option<ProcessId>, InjectError> {
        let Some(hit) = self.0.each.first() else { return Ok(None) };
        if !self.over(env)? {
            return Ok(None);
        }
        let now = self.0.look(env, hit).await?;
        let Some(pid) = now.filter(containers::up).and_then(|now| now.pid) else { return Ok(None) };
        containers::process(env, &hit.id, pid)
    }

    /// The group that a restart of the container has made in place of the one in which it was found; none if it was not
    /// restarted, or does not run.
    pub(crate) async fn later(
        &self,
        env: &Env,
        controller: Controller,
    ) -> Result<Option<Place>, InjectError> {
        let Some(id) = self.reborn(env).await? else { return Ok(None) };
        // It may end while it is looked at.
        Ok(cgroup::find(&*env.cgroups, &Group::Process(id.pid), controller).ok())
    }
}
