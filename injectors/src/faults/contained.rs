//! Faults inside containers: in the network namespaces of their processes, and in those of the processes that they get
//! when they are restarted meanwhile.
//!
//! Invariant: a later namespace is found by the container's id, never by its number: the kernel gives that to the next
//! one when its owner has gone.

use super::containers::{self, Hit, Hits};
use super::processes;
use crate::containers::Containers;
use crate::sys::docker::{Container, api::SHORT};
use crate::sys::netlink::Space;
use crate::target::Target;
use crate::traffic::Whose;
use crate::{Env, InjectError, Request};

/// The namespaces of containers, and the containers, one for each.
pub(crate) async fn spaces(
    env: &Env,
    request: &Request,
    wanted: &Containers,
) -> Result<(Vec<Space>, Hits), InjectError> {
    let request = Request { target: Target::Containers(wanted.clone()), ..request.clone() };
    let (mut hits, found) = containers::find(env, &request).await?;
    found.iter().try_for_each(refuse_foreign)?;
    let mut spaces: Vec<Space> = Vec::new();
    let mut each = Vec::new();
    for hit in hits.each {
        let found = space(env, hit.seen()?.pid)?.ok_or_else(|| hosted(&hit.name))?;
        // Containers that share a namespace are hit once.
        if !spaces.iter().any(|known| known.inode == found.inode) {
            spaces.push(found);
            each.push(hit);
        }
    }
    hits.each = each;
    Ok((spaces, hits))
}

/// The request with the main process of its container in place of the container, if it means one: for faults that take
/// one namespace, and do not follow a container into its next life.
pub(crate) async fn narrowed(env: &Env, request: &Request) -> Result<Request, InjectError> {
    let Target::Flows(flows) = &request.target else { return Ok(request.clone()) };
    let Whose::Containers(wanted) = &flows.traffic.space else { return Ok(request.clone()) };
    let (_, hits) = spaces(env, request, wanted).await?;
    let mut flows = flows.clone();
    flows.traffic.space = Whose::Process(hits.only()?.seen()?.pid);
    Ok(Request { target: Target::Flows(flows), ..request.clone() })
}

fn hosted(name: &str) -> InjectError {
    let text = format!(
        "container {name} has the network of this host (network host): aim by `interface` or `to` alone"
    );
    InjectError::Target(text)
}

/// Refuses a container whose network is that of others, who were not named.
fn refuse_foreign(container: &Container) -> Result<(), InjectError> {
    let name = &container.name;
    match container.network_mode.strip_prefix("container:") {
        Some(host) => Err(InjectError::Target(format!(
            "container {name} lives in the network of container {}: aim at that one, which hits both",
            host.get(..SHORT).unwrap_or(host)
        ))),
        None if container.network_mode == "host" => Err(hosted(name)),
        None => Ok(()),
    }
}

/// The namespace of a process; none if it is that of squall itself.
fn space(env: &Env, pid: u32) -> Result<Option<Space>, InjectError> {
    let look = |file: &str| {
        let failed = |source| InjectError::System { what: format!("look at {file}"), source };
        env.network.space(file.as_ref()).map_err(failed)
    };
    let (own, found) = (look("/proc/self/ns/net")?, look(&format!("/proc/{pid}/ns/net"))?);
    Ok(Some(found).filter(|found| found.inode != own.inode))
}

/// The namespaces that containers have got by a restart since they were found.
pub(crate) async fn later(env: &Env, hits: &Hits) -> Result<Vec<Space>, InjectError> {
    let mut later: Vec<Space> = Vec::new();
    for hit in &hits.each {
        let found = present(env, hits, hit).await?;
        later.extend(found.filter(|found| !later.iter().any(|known| known.inode == found.inode)));
    }
    Ok(later)
}

/// Whether the first process of the container with this place in the list still lives, and its namespace with it.
pub(crate) fn lives(env: &Env, hits: &Hits, at: usize) -> bool {
    let process = hits.each.get(at).and_then(|hit| hit.process);
    process.is_some_and(|id| processes::alive(&*env.procs, &[id]).is_ok_and(|living| !living.is_empty()))
}

/// The namespace that a container has now, if it is not the one in which it was found.
async fn present(env: &Env, hits: &Hits, hit: &Hit) -> Result<Option<Space>, InjectError> {
    let same = hit.process.map(|id| processes::alive(&*env.procs, &[id])).transpose()?;
    if same.is_some_and(|living| !living.is_empty()) {
        return Ok(None);
    }
    let now = hits.look(env, hit).await?;
    let Some(pid) = now.filter(containers::up).and_then(|now| now.pid) else { return Ok(None) };
    match containers::process(env, &hit.id, pid)? {
        // It may end while it is looked at.
        Some(id) => Ok(space(env, id.pid).ok().flatten()),
        None => Ok(None),
    }
}

/// How a person enters the namespace that a container has then.
pub(crate) fn entrance(hits: &Hits, space: &Space) -> Option<String> {
    let whose = |hit: &&Hit| {
        hit.process.is_some_and(|id| space.path.to_str() == Some(&format!("/proc/{}/ns/net", id.pid)))
    };
    let hit = hits.each.iter().find(whose)?;
    let client = containers::client(&hits.socket);
    Some(format!("nsenter -n -t \"$({client} inspect -f '{{{{.State.Pid}}}}' {})\"", hit.short()))
}
