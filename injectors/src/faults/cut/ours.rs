//! Our own tables in a namespace: found by name and by what they say of themselves, made anew, removed by number.

use std::io;

use serde::{Deserialize, Serialize};

use super::rules;
use crate::change::InjectError;
use crate::faults::shape::failed;
use crate::sys::netlink::{Network, Space};
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
        space: &Space,
        name: &str,
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
    pub(super) fn find(&self, tables: Vec<Table>) -> Result<Option<Table>, String> {
        match tables.into_iter().find(|table| table.name == self.table) {
            Some(table) if table.comment == self.comment => Ok(Some(table)),
            Some(_) => Err(format!("there is a table inet {} that is not squall's", self.table)),
            None => Ok(None),
        }
    }
}

/// Removes our table, if it is there and ours. Tells whether it was.
pub(in crate::faults) async fn clear(network: &dyn Network, space: &Space, ours: &Ours) -> io::Result<bool> {
    // A namespace that has gone took all that was in it along.
    let Some(session) = network.enter(space).await? else { return Ok(false) };
    let Ok(Some(table)) = ours.find(session.tables().await?) else { return Ok(false) };
    match session.commit(&[Edit::DropTable { handle: table.handle }]).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        other => other.map(|()| true),
    }
}

/// In which of these our table is.
pub(in crate::faults) async fn tables(
    network: &dyn Network,
    spaces: &[(Space, String)],
    ours: &Ours,
) -> Result<Vec<String>, InjectError> {
    let mut left = Vec::new();
    for (space, name) in spaces {
        let Some(session) = network.enter(space).await.map_err(failed(name))? else { continue };
        let tables = session.tables().await.map_err(failed(name))?;
        left.extend(ours.find(tables).ok().flatten().map(|_| name.clone()));
    }
    Ok(left)
}

/// What a person types to remove the tables.
pub(in crate::faults) fn manual(spaces: &[(Space, String)], ours: &Ours) -> String {
    let one = |(space, _): &(Space, String)| {
        let command = format!("nft delete table inet {}", ours.table);
        if space.path.starts_with("/proc/self") {
            command
        } else {
            format!("nsenter --net={} {command}", space.path.display())
        }
    };
    spaces.iter().map(one).collect::<Vec<_>>().join("; ")
}
