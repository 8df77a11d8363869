//! The members of a partition among several: namespaces, and those of processes and containers, found in the kernel.

use super::sides::{Sides, Wanted};
use crate::faults::contained::{Place, places};
use crate::faults::containers::Hits;
use crate::traffic::Whose;
use crate::{Env, InjectError, Request};

/// Where each member is, and from whom it is cut off.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) places: Vec<Place>,
    /// The containers among them.
    pub(super) hits: Option<Hits>,
    pub(super) sides: Sides,
}

/// Finds the members that are meant, each once, and parts them. Only reads.
pub(super) async fn gather(env: &Env, request: &Request, wanted: &Wanted) -> Result<Members, InjectError> {
    let (mut all, mut hits, mut groups) = (Vec::<Place>::new(), None, Vec::new());
    for written in &wanted.groups {
        let mut group = Vec::new();
        for whose in written {
            let (found, containers) =
                places(env, request, whose).await.map_err(|error| way_out(whose, error))?;
            for place in found {
                let known = all.iter().position(|known| known.space.inode == place.space.inode);
                if let Some(known) = known.map(|at| &all[at]).filter(|known| known.name != place.name) {
                    let text = format!("{} and {} are the same network namespace", place.name, known.name);
                    return Err(InjectError::Target(text));
                }
                group.push(known.unwrap_or(all.len()));
                if known.is_none() {
                    all.push(place.join(containers.as_ref(), &mut hits));
                }
            }
        }
        groups.push(group);
    }
    let names = all.iter().map(|place| place.bare_name().to_owned()).collect();
    let sides = wanted.sides(names, &groups, request.seed).map_err(InjectError::Target)?;
    Ok(Members { places: all, hits, sides })
}

/// A word alone is a namespace; somebody may have meant a container.
fn way_out(whose: &Whose, error: InjectError) -> InjectError {
    match (whose, error) {
        (Whose::Named(name), InjectError::Target(text)) => {
            InjectError::Target(format!("{text}; a container is written container:{name}"))
        }
        (_, error) => error,
    }
}
