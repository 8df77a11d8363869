//! Whose network is meant: that of squall, of a namespace, of a process, of containers. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Mistake, is_name};
use crate::containers::Containers;

/// Whose network it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    /// The one in which squall runs.
    Own,
    /// A named namespace, as `ip netns` lists them.
    Named(String),
    /// That of a process.
    Process(u32),
    /// Those of containers.
    Containers(Containers),
}

impl Whose {
    pub(super) fn read(given: &BTreeMap<&'static str, String>) -> Result<Self, Mistake> {
        let get = |name: &str| given.get(name).map(String::as_str);
        let contained = ["container", "label", "image"].into_iter().find(|name| given.contains_key(name));
        let ways: Vec<&'static str> =
            ["netns", "pid"].into_iter().filter(|name| given.contains_key(name)).chain(contained).collect();
        if let [first, second, ..] = ways.as_slice() {
            return Err((Some(second), format!("write either {first} or {second}")));
        }
        if let (Some(name), Some(_)) = (contained, get("service").or(get("instance"))) {
            return Err((Some(name), "it does not go with an instance of a service".to_owned()));
        }
        match (get("netns"), get("pid")) {
            (Some(name), _) if is_name(name) => Ok(Self::Named(name.to_owned())),
            (Some(_), _) => {
                Err((Some("netns"), "a namespace is named without slashes and blanks".to_owned()))
            }
            (None, Some(pid)) => match pid.parse() {
                Ok(pid) => Ok(Self::Process(pid)),
                Err(_) => Err((Some("pid"), format!("`{pid}` is no process id"))),
            },
            (None, None) if contained.is_none() => Ok(Self::Own),
            (None, None) => Ok(Containers::read(given)?.map_or(Self::Own, Self::Containers)),
        }
    }

    /// Files of the namespace, the likeliest first.
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Own => vec!["/proc/self/ns/net".into()],
            Self::Named(name) => ["/run/netns", "/var/run/netns"]
                .iter()
                .map(|folder| PathBuf::from(folder).join(name))
                .collect(),
            Self::Process(pid) => vec![format!("/proc/{pid}/ns/net").into()],
            // The engine knows them.
            Self::Containers(_) => Vec::new(),
        }
    }
}
