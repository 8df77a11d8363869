//! What a fault acts on: how it is named in a plan, and the inventory in which it is found at run time.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::about::{Args, Param, ParamKind, Presence};
use crate::containers::{self, Containers};
use crate::flows::{self, Flows};
use crate::group::{self, Group};
use crate::traffic::{self, Traffic};

/// The kind of thing that a fault acts on; decides which selector parameters it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A process: a lab instance, or whatever a pid file, a listening port or a scoped command name finds.
    Process,
    /// Containers of this host's engine.
    Container,
    /// A relay: a hop that carries the traffic of one upstream.
    Relay,
    /// A point of presence behind a load balancer.
    Pop,
    /// Packets of an interface.
    Traffic,
    /// Packets of a network namespace, by whatever interface.
    Flows,
    /// Connections of a network namespace.
    Connections,
    /// Resolvers that a network namespace asks.
    Resolvers,
    /// A control group, or this host.
    Group,
    /// A file system, by a folder on it.
    Volume,
    /// Nothing that squall knows: the fault's own parameters say it all.
    Nothing,
}

pub(crate) const SERVICE: Param = Param {
    name: "service",
    kind: ParamKind::Text,
    presence: Presence::Optional,
    help: "service of the lab or the topology whose instances are hit",
};
pub(crate) const INSTANCE: Param = Param {
    name: "instance",
    kind: ParamKind::Text,
    presence: Presence::Optional,
    help: "one instance by name",
};
pub(crate) const PICK: Param = Param {
    name: "pick",
    kind: ParamKind::Text,
    presence: Presence::Optional,
    help: "how many instances of the service: one, all, a number or a percentage; required if it has several",
};

const VOLUME: &[Param] = &[Param {
    name: "path",
    kind: ParamKind::Text,
    presence: Presence::Required,
    help: "a folder on the file system that is meant, in which files may be made",
}];

const PROCESS: &[Param] = &[
    SERVICE,
    INSTANCE,
    PICK,
    Param {
        name: "pid-file",
        kind: ParamKind::Text,
        presence: Presence::Optional,
        help: "file that holds the process id",
    },
    Param {
        name: "port",
        kind: ParamKind::Int { min: 1, max: 65535 },
        presence: Presence::Optional,
        help: "the process that listens on this TCP port",
    },
    Param {
        name: "command",
        kind: ParamKind::Text,
        presence: Presence::Optional,
        help: "exact command name; needs a scope (cgroup or netns) and a limit",
    },
    Param {
        name: "cgroup",
        kind: ParamKind::Text,
        presence: Presence::Optional,
        help: "scope of command: path of the cgroup below its root",
    },
    Param {
        name: "netns",
        kind: ParamKind::Text,
        presence: Presence::Optional,
        help: "scope of command: name of the network namespace",
    },
    Param {
        name: "limit",
        kind: ParamKind::Int { min: 1, max: 64 },
        presence: Presence::Optional,
        help: "the most processes that command may match; more is refused",
    },
];
const RELAY: &[Param] = &[
    SERVICE,
    INSTANCE,
    PICK,
    Param {
        name: "relay",
        kind: ParamKind::Text,
        presence: Presence::Optional,
        help: "a relay by name, declared under relays",
    },
];
const POP: &[Param] = &[Param {
    name: "pop",
    kind: ParamKind::Text,
    presence: Presence::Required,
    help: "the point of presence that is drained",
}];

impl TargetKind {
    /// The selector parameters that faults of this kind take besides their own.
    pub fn selectors(self) -> &'static [Param] {
        match self {
            Self::Process => PROCESS,
            Self::Container => containers::SELECTORS,
            Self::Relay => RELAY,
            Self::Pop => POP,
            Self::Traffic => traffic::SELECTORS,
            Self::Flows => flows::SELECTORS,
            Self::Connections => flows::CONNECTIONS,
            Self::Resolvers => flows::RESOLVERS,
            Self::Group => group::SELECTORS,
            Self::Volume => VOLUME,
            Self::Nothing => &[],
        }
    }
}

/// One concrete target as a plan names it. It holds no process id: those are read when the run prepares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// An instance of the lab or the topology.
    Instance {
        /// Its service.
        service: String,
        /// Its own name, unique.
        instance: String,
    },
    /// The process whose id stands in this file.
    PidFile(PathBuf),
    /// The process that listens on this TCP port.
    Port(u16),
    /// Processes with this exact command name inside a scope.
    Command {
        /// As in `/proc/PID/comm`.
        command: String,
        /// Where to look.
        scope: Scope,
        /// More matches than this are refused.
        limit: u32,
    },
    /// Containers of this host's engine.
    Containers(Containers),
    /// A relay by name.
    Relay(String),
    /// A point of presence.
    Pop(String),
    /// Packets of an interface.
    Traffic(Traffic),
    /// Packets of a network namespace.
    Flows(Flows),
    /// A control group, or this host.
    Group(Group),
    /// The file system of this folder.
    Volume(PathBuf),
    /// See [`TargetKind::Nothing`].
    Nothing,
    /// The same, called by the program that breaks it.
    Program(String),
}

impl Target {
    /// Gives what squall does not know the name of the program that breaks it, without its folders, and flows the
    /// namespaces that the fault's parameters name.
    #[must_use]
    pub fn called(self, args: &Args) -> Self {
        match (self, args.argv("do").and_then(<[String]>::first)) {
            (Self::Nothing, Some(program)) => {
                let base = program.rsplit('/').find(|part| !part.is_empty());
                Self::Program(base.unwrap_or(program).to_owned())
            }
            (Self::Flows(flows), _) => Self::Flows(flows.called(args)),
            (target, _) => target,
        }
    }
}

/// The bounded part of the host in which a command name is looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// A cgroup path below its root, in whichever hierarchy.
    Cgroup(String),
    /// A named network namespace (`/run/netns/NAME`).
    Netns(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance { instance, .. } => f.write_str(instance),
            Self::PidFile(path) => write!(f, "pid file {}", path.display()),
            Self::Port(port) => write!(f, "listener on port {port}"),
            Self::Command { command, scope: Scope::Cgroup(path), .. } => {
                write!(f, "{command} in cgroup {path}")
            }
            Self::Command { command, scope: Scope::Netns(name), .. } => {
                write!(f, "{command} in netns {name}")
            }
            Self::Containers(containers) => containers.fmt(f),
            Self::Relay(name) => write!(f, "relay {name}"),
            Self::Pop(pop) => write!(f, "PoP {pop}"),
            Self::Traffic(traffic) => traffic.fmt(f),
            Self::Flows(flows) => flows.fmt(f),
            Self::Group(group) => group.fmt(f),
            Self::Volume(path) => write!(f, "file system of {}", path.display()),
            Self::Nothing => f.write_str("-"),
            Self::Program(name) => f.write_str(name),
        }
    }
}

/// A process that can be told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The number.
    pub pid: u32,
    /// Start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// What is there to act on, as the lab's supervisor and the run's relays tell it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Every supervised process.
    pub instances: Vec<Instance>,
    /// Every relay.
    pub relays: Vec<Relay>,
    /// The load balancer over the PoPs, if there is one.
    pub balancer: Option<Balancer>,
}

/// One supervised process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its service, such as `auth`.
    pub service: String,
    /// Its own name, such as `auth-1`.
    pub name: String,
    /// The PoP in which it stands, if it belongs to one.
    pub pop: Option<String>,
    /// Where it listens, `127.0.0.1:PORT`.
    pub addr: String,
    /// The process; absent while it is down.
    pub process: Option<ProcessId>,
    /// Control socket of the supervisor that can start it again.
    pub supervisor: PathBuf,
    /// The relay in front of it, if there is one: an entry of [`Inventory::relays`].
    pub relay: Option<String>,
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relay {
    /// Its name, unique in the inventory.
    pub name: String,
    /// Control socket of the process that carries it.
    pub control: PathBuf,
    /// Where it listens.
    pub listen: String,
    /// Where it sends.
    pub upstream: String,
    /// What it understands of the traffic.
    pub protocol: Protocol,
}

/// What a relay understands of the traffic that it carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Bytes.
    #[default]
    Tcp,
    /// HTTP/1.1 messages; needed by the `http-…` faults.
    Http,
}

/// The load balancer of a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Balancer {
    /// Its control socket.
    pub control: PathBuf,
    /// The PoPs that it spreads over.
    pub pops: Vec<String>,
    /// Where it listens.
    pub addr: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::about::Value;

    #[test]
    fn what_squall_does_not_know_is_called_by_the_program_that_breaks_it() {
        let called = |program: &str| {
            let argv = Value::Argv(vec![program.to_owned(), "--all".to_owned()]);
            Target::Nothing.called(&Args([("do".to_owned(), argv)].into())).to_string()
        };
        assert_eq!(called("/usr/sbin/iptables"), "iptables");
        assert_eq!(called("touch"), "touch");
        assert_eq!(called("/"), "/");
        assert_eq!(Target::Port(80).called(&Args::default()), Target::Port(80));
    }
}
