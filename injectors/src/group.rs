//! A control group as a target. Pure; where it is in which hierarchy is looked up when a run prepares.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::about::{Param, ParamKind, Presence};
use crate::containers::Containers;
use crate::traffic::Mistake;

/// The processes that share a control group, or all of this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// No group: whatever runs on this host.
    Host,
    /// A path below the root of a hierarchy, without a slash at either end; or a whole path below `/sys/fs/cgroup`.
    Path(String),
    /// The group of a process, in each hierarchy its own.
    Process(u32),
    /// The group of a container, also after a restart of it.
    Containers(Containers),
}

/// The parameters that say which group is meant.
pub const SELECTORS: &[Param] = &[
    Param {
        name: "cgroup",
        kind: ParamKind::Text,
        presence: Presence::Optional,
        help: "path of a control group, as /proc/PID/cgroup or systemd-cgls shows it: system.slice/nginx.service",
    },
    Param {
        name: "pid",
        kind: ParamKind::Int { min: 1, max: 4_194_304 },
        presence: Presence::Optional,
        help: "the control group of this process, such as one of a container",
    },
    Param::text(
        "container",
        "the control group of this container, by its name or id, also after a restart of it",
    ),
    Param::text("label", "that of a running container with this label, key=value or key; goes with pick"),
    Param::text(
        "image",
        "that of a running container of this image, with or without its tag; goes with pick",
    ),
    Param::text("pick", "one: which of several the seed decides"),
];

impl Group {
    /// Reads the parameters of [`SELECTORS`].
    ///
    /// # Errors
    /// The first mistake.
    pub fn read(given: &BTreeMap<&'static str, String>) -> Result<Self, Mistake> {
        if let Some(containers) = Containers::read(given)? {
            return match ["cgroup", "pid"].into_iter().find(|name| given.contains_key(name)) {
                Some(name) => Err((Some(name), format!("write either {name} or a container"))),
                None => Ok(Self::Containers(containers)),
            };
        }
        match (given.get("cgroup"), given.get("pid")) {
            (None, None) => Ok(Self::Host),
            (Some(path), None) => Self::at(path).map_err(|why| (Some("cgroup"), why)),
            (None, Some(pid)) => match pid.parse() {
                Ok(pid) => Ok(Self::Process(pid)),
                Err(_) => Err((Some("pid"), format!("`{pid}` is no process id"))),
            },
            (Some(_), Some(_)) => Err((Some("pid"), "write either cgroup or pid".to_owned())),
        }
    }

    fn at(path: &str) -> Result<Self, String> {
        let whole = path.starts_with("/sys/fs/cgroup/");
        let inner = path.trim_matches('/');
        if inner.is_empty() {
            return Err("the root group holds everything, squall as well: name a group below it".to_owned());
        }
        if inner.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains(char::is_control) {
            return Err(format!("`{path}` is no path of a control group"));
        }
        Ok(Self::Path(if whole { format!("/{inner}") } else { inner.to_owned() }))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("this host"),
            Self::Path(path) => write!(f, "cgroup {path}"),
            Self::Process(pid) => write!(f, "the cgroup of process {pid}"),
            Self::Containers(containers) => write!(f, "the cgroup of {containers}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&'static str, &str)]) -> Result<Group, Mistake> {
        Group::read(&given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect())
    }

    #[test]
    fn a_group_is_named_by_its_path_or_by_a_process_in_it() {
        let shown = |given: &[(&'static str, &str)]| read(given).unwrap().to_string();
        assert_eq!(shown(&[]), "this host");
        assert_eq!(shown(&[("cgroup", "/system.slice/nginx.service")]), "cgroup system.slice/nginx.service");
        assert_eq!(shown(&[("cgroup", "/sys/fs/cgroup/cpu/a/")]), "cgroup /sys/fs/cgroup/cpu/a");
        assert_eq!(shown(&[("pid", "7")]), "the cgroup of process 7");
        assert_eq!(shown(&[("container", "web")]), "the cgroup of container web");
    }

    #[test]
    fn what_is_no_group_is_refused_by_the_name_of_its_parameter() {
        for path in ["", "/", "//", "a/../b", "a//b", ".", "a\nb"] {
            assert_eq!(read(&[("cgroup", path)]).unwrap_err().0, Some("cgroup"), "{path:?}");
        }
        assert_eq!(read(&[("cgroup", "a"), ("pid", "7")]).unwrap_err().0, Some("pid"));
        assert_eq!(read(&[("container", "a"), ("pid", "7")]).unwrap_err().0, Some("pid"));
        assert_eq!(read(&[("container", "a"), ("label", "b")]).unwrap_err().0, Some("label"));
        assert!(read(&[("cgroup", "/")]).unwrap_err().1.contains("holds everything"));
    }
}
