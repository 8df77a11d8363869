//! Our own tables in a namespace: found by name and by what they say of themselves, made anew, removed by number.

use std::io;

use serde::{Deserialize, Serialize};

use super::rules;
use crate::Env;
use crate::change::InjectError;
use crate::faults::contained::{self, Place};
use crate::faults::containers::Hits;
use crate::faults::shape::failed;
use crate::sys::netlink::Network;
use crate::sys::nft::read::Table;
use crate::sys::nft::{Edit, NAME_MAX};

/// What our tables are called, and what they say of themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::faults) struct Ours {
    table: String,
    comment: String,
}

impl std::fmt::Display for Ours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.comment)
    }
}

impl Ours {
    pub(in crate::faults) fn new(id: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let table: String = "squall_".chars().chain(id.chars().map(plain)).take(NAME_MAX).collect();
        Self { table, comment: format!("squall {id}").chars().take(NAME_MAX).collect() }
    }

    pub(in crate::faults) fn table(&self) -> &str {
        &self.table
    }

    pub(in crate::faults) fn comment(&self) -> &str {
        &self.comment
    }

    /// Takes the lease anew.
    pub(in crate::faults) async fn renew(
        &self,
        network: &dyn Network,
        Place { space, name, .. }: &Place,
    ) -> Result<(), InjectError> {
        // A namespace that has gone has nobody left to be hit.
        let Some(session) = network.enter(space).await.map_err(failed(name))? else { return Ok(()) };
        match session.commit(&rules::renewal(&self.table)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(InjectError::Deadline(format!(
                "its lease in {name} has run out, or somebody has removed its table"
            ))),
            other => other.map_err(failed(name)),
        }
    }

    /// Our table; an error if somebody else has one of that name.
    pub(in crate::faults) fn find(&self, tables: Vec<Table>) -> Result<Option<Table>, String> {
        match tables.into_iter().find(|table| table.name == self.table) {
            Some(table) if table.comment == self.comment => Ok(Some(table)),
            Some(_) => Err(format!("there is a table inet {} that is not squall's", self.table)),
            None => Ok(None),
        }
    }
}

/// Removes our tables, wherever they are. What is known is taken away before the container engine is asked for what came
/// later, and one that fails keeps none of the others. Tells whether there were any.
pub(in crate::faults) async fn clear(
    env: &Env,
    places: &[Place],
    hits: Option<&Hits>,
    ours: &Ours,
) -> Result<bool, InjectError> {
    let known = clear_each(&*env.network, places, ours).await;
    let later = contained::later_places(env, places, hits).await?;
    let later = clear_each(&*env.network, &later, ours).await;
    Ok(known? | later?)
}

async fn clear_each(network: &dyn Network, places: &[Place], ours: &Ours) -> Result<bool, InjectError> {
    let (mut any, mut first) = (false, None);
    for place in places.iter().rev() {
        match remove(network, place, ours).await {
            Ok(there) => any |= there,
            Err(error) => first = first.or(Some(failed(&place.name)(error))),
        }
    }
    first.map_or(Ok(any), Err)
}

/// Removes our table, if it is there and ours. Tells whether it was.
async fn remove(network: &dyn Network, place: &Place, ours: &Ours) -> io::Result<bool> {
    // A namespace that has gone took all that was in it along.
    let Some(session) = network.enter(&place.space).await? else { return Ok(false) };
    let Ok(Some(table)) = ours.find(session.tables().await?) else { return Ok(false) };
    match session.commit(&[Edit::DropTable { handle: table.handle }]).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        other => other.map(|()| true),
    }
}

/// In which of these our table is, by name, and in which of those that their containers have got since.
pub(in crate::faults) async fn tables(
    env: &Env,
    places: &[Place],
    hits: Option<&Hits>,
    ours: &Ours,
) -> Result<Vec<String>, InjectError> {
    let (mut left, later) = (Vec::new(), contained::later_places(env, places, hits).await?);
    for Place { space, name, .. } in places.iter().chain(&later) {
        let Some(session) = env.network.enter(space).await.map_err(failed(name))? else { continue };
        let tables = session.tables().await.map_err(failed(name))?;
        left.extend(ours.find(tables).ok().flatten().map(|_| name.clone()));
    }
    Ok(left)
}

/// Refuses to begin where a table of our name is already.
pub(in crate::faults) async fn refuse_taken(
    network: &dyn Network,
    Place { space, name, .. }: &Place,
    ours: &Ours,
) -> Result<(), InjectError> {
    let session = network.enter(space).await.map_err(failed(name))?.ok_or_else(|| gone(name))?;
    let tables = session.tables().await.map_err(failed(name))?;
    match ours.find(tables).map_err(InjectError::Target)? {
        Some(_) => Err(InjectError::Target(format!("{ours} is there already"))),
        None => Ok(()),
    }
}

pub(in crate::faults) fn gone(name: &str) -> InjectError {
    InjectError::Target(format!("the network namespace of {name} has gone"))
}

/// What a person types to remove the tables.
pub(in crate::faults) fn manual(places: &[Place], hits: Option<&Hits>, ours: &Ours) -> String {
    let command = format!("nft delete table inet {}", ours.table);
    contained::by_hand(places.iter().map(|place| (place, command.clone())), hits)
}
