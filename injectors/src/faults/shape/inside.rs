//! Network faults inside containers: in the namespaces of their processes, and in those of the processes that they get
//! when they are restarted meanwhile.
//!
//! Invariant: what is raised in a later namespace needs no undo data of its own. It is found by the container's id, from
//! the aim as it was prepared, so the journal holds it before it is made.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failed;
use super::site::{Owner, Site};
use super::tree::Raised;
use crate::faults::contained;
use crate::faults::containers::Hits;
use crate::traffic::Traffic;
use crate::{Env, InjectError};

/// The containers of an injection, and its aim as it was prepared and as it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Inside {
    pub(super) hits: Hits,
    pub(super) traffic: Traffic,
    pub(super) written: Traffic,
}

impl Inside {
    /// What there is, or would be, of the aim in namespaces that containers have got by a restart.
    pub(super) async fn later(&self, env: &Env) -> Result<Vec<Site>, InjectError> {
        let mut later: Vec<Site> = Vec::new();
        for found in contained::later(env, &self.hits).await? {
            match Site::at(&*env.network, found, (&self.traffic, &self.written)).await {
                Ok(site) => later.extend(site),
                // It is being set up, or has gone again: another look comes in a second.
                Err(InjectError::Target(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(later)
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
