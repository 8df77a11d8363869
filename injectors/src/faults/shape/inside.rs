//! Network faults inside containers: in the namespaces of their processes, and in those of the processes that they get
//! when they are restarted meanwhile.
//!
//! Invariant: what is raised in a later namespace needs no undo data of its own. It is found by the container's id, from
//! the aim as it was prepared, so the journal holds it before it is made.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::site::{Owner, Site};
use super::tree::Raised;
use super::{failed, site};
use crate::faults::containers::{self, Hit, Hits};
use crate::faults::processes;
use crate::sys::netlink::Space;
use crate::target::Target;
use crate::traffic::{Traffic, Whose};
use crate::{Env, InjectError, Request};

/// The containers of an injection, and its aim as it was prepared and as it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Inside {
    pub(super) hits: Hits,
    pub(super) traffic: Traffic,
    pub(super) written: Traffic,
}

/// The namespaces that are meant, and the containers that they belong to, if it is containers that are meant.
pub(super) async fn spaces(
    env: &Env,
    request: &Request,
    whose: &Whose,
) -> Result<(Vec<Space>, Option<Hits>), InjectError> {
    let Whose::Containers(wanted) = whose else {
        return Ok((site::spaces(&*env.network, whose)?, None));
    };
    let request = Request { target: Target::Containers(wanted.clone()), ..request.clone() };
    let (mut hits, _) = containers::find(env, &request).await?;
    let mut spaces: Vec<Space> = Vec::new();
    let mut each = Vec::new();
    for hit in hits.each {
        let id = hit.process.ok_or_else(|| {
            InjectError::Lack(format!(
                "the process of container {} cannot be seen from here; run squall on the engine's host, in its pid \
                 namespace (docker run --pid=host)",
                hit.name
            ))
        })?;
        let found = space(env, id.pid)?.ok_or_else(|| {
            InjectError::Target(format!(
                "container {} has the network of this host (network host): aim by `interface` or `to` alone",
                hit.name
            ))
        })?;
        // Containers that share a namespace are hit once.
        if !spaces.iter().any(|known| known.inode == found.inode) {
            spaces.push(found);
            each.push(hit);
        }
    }
    hits.each = each;
    Ok((spaces, Some(hits)))
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

impl Inside {
    /// What there is, or would be, of the aim in namespaces that containers have got by a restart. The number of a
    /// namespace does not tell: the kernel gives it to the next one when its first owner has gone.
    pub(super) async fn later(&self, env: &Env) -> Result<Vec<Site>, InjectError> {
        let mut later: Vec<Site> = Vec::new();
        for hit in &self.hits.each {
            let Some(found) = self.present(env, hit).await? else { continue };
            if later.iter().any(|site| site.space.inode == found.inode) {
                continue;
            }
            match Site::at(&*env.network, found, (&self.traffic, &self.written)).await {
                Ok(site) => later.extend(site),
                // It is being set up, or has gone again: another look comes in a second.
                Err(InjectError::Target(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(later)
    }

    /// Whether the first process of the container with this place in the list still lives, and its namespace with it.
    pub(super) fn lives(&self, env: &Env, at: usize) -> bool {
        let process = self.hits.each.get(at).and_then(|hit| hit.process);
        process.is_some_and(|id| processes::alive(&*env.procs, &[id]).is_ok_and(|living| !living.is_empty()))
    }

    /// The namespace that a container has now, if it is not the one in which it was found.
    async fn present(&self, env: &Env, hit: &Hit) -> Result<Option<Space>, InjectError> {
        let same = hit.process.map(|id| processes::alive(&*env.procs, &[id])).transpose()?;
        if same.is_some_and(|living| !living.is_empty()) {
            return Ok(None);
        }
        let now = self.hits.look(env, hit).await?;
        let Some(pid) = now.filter(containers::up).and_then(|now| now.pid) else { return Ok(None) };
        match containers::process(env, &hit.id, pid)? {
            // It may end while it is looked at.
            Some(id) => Ok(space(env, id.pid).ok().flatten()),
            None => Ok(None),
        }
    }

    /// Raises the fault where containers have got a new namespace since.
    pub(super) async fn cover(&self, env: &Env, raised: &Raised<'_>) -> Result<(), InjectError> {
        for site in self.later(env).await? {
            let owner = raised.owner();
            let failed = failed(&self.traffic.to_string());
            if !site.picture(&*env.network, owner).await.is_ok_and(|picture| held(&picture))
                && let Err(error) = site.raise(&*env.network, raised).await
            {
                // A container that has gone on to the next life takes the error along.
                let still = self.later(env).await?;
                if still.iter().any(|other| other.space.inode == site.space.inode) {
                    return Err(failed(error));
                }
            }
        }
        Ok(())
    }

    /// The sites of later namespaces in which the fault is.
    pub(super) async fn covered(&self, env: &Env, owner: Owner<'_>) -> Result<Vec<Site>, InjectError> {
        let mut covered = Vec::new();
        for site in self.later(env).await? {
            if site.picture(&*env.network, owner).await.is_ok_and(|picture| held(&picture)) {
                covered.push(site);
            }
        }
        Ok(covered)
    }

    /// What is left in later namespaces.
    pub(super) async fn left(&self, env: &Env, owner: Owner<'_>) -> Result<Vec<Value>, InjectError> {
        let mut left = Vec::new();
        for site in self.later(env).await? {
            let picture = site.picture(&*env.network, owner).await.map_err(failed(site.name()))?;
            left.extend(Some(picture).filter(unclean));
        }
        Ok(left)
    }

    /// How a person enters the namespace that a container has then.
    pub(super) fn entrance(&self, space: &Space) -> Option<String> {
        let whose = |hit: &&Hit| {
            hit.process.is_some_and(|id| space.path.to_str() == Some(&format!("/proc/{}/ns/net", id.pid)))
        };
        let hit = self.hits.each.iter().find(whose)?;
        let client = containers::client(&self.hits.socket);
        Some(format!("nsenter -n -t \"$({client} inspect -f '{{{{.State.Pid}}}}' {})\"", hit.short()))
    }
}

/// Whether any tree of a site's picture has the part.
fn held(picture: &Value) -> bool {
    trees(picture).any(|tree| tree["held"] == Value::Bool(true))
}

/// Whether anything of ours is left in a site's picture.
fn unclean(picture: &Value) -> bool {
    let of_ours = ["held", "device_without_owner", "filter_without_device", "hooks_without_filter"];
    trees(picture).any(|tree| of_ours.iter().any(|key| tree[*key] == Value::Bool(true)))
}

fn trees(picture: &Value) -> impl Iterator<Item = &Value> {
    picture.as_array().into_iter().flatten()
}
