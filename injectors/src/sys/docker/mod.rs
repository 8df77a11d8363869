//! The container engine: Docker, or podman by the same API. [`api::Sockets`] is the real one, and the only door to
//! bollard.
//!
//! Every call names the socket, so that an undo finds the same engine without anybody's environment, and has a
//! deadline. Containers are acted on by their full id.

pub mod api;
mod moment;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{InjectError, Pending};

/// How long the engine may take to answer; what waits for a container to end has that time on top.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The port to the container engine.
pub trait Docker: std::fmt::Debug + Send + Sync {
    /// Where the engine of this host listens: `$DOCKER_HOST`, or the first of the usual sockets that is there.
    fn socket(&self) -> Result<PathBuf, DockerError>;
    /// The engine's name and version.
    fn version<'a>(&'a self, socket: &'a Path) -> Pending<'a, Result<String, DockerError>>;
    /// All running containers, those that are paused included.
    fn running<'a>(&'a self, socket: &'a Path) -> Pending<'a, Result<Vec<Listed>, DockerError>>;
    /// One container by name or id; none if there is no such one.
    fn look<'a>(
        &'a self,
        socket: &'a Path,
        name: &'a str,
    ) -> Pending<'a, Result<Option<Container>, DockerError>>;
    /// Acts on a container.
    fn act<'a>(&'a self, socket: &'a Path, id: &'a str, act: &'a Act)
    -> Pending<'a, Result<(), DockerError>>;
}

/// A line of the list of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its full id.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// Its image, as it was named when it was made.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `bridge`, the name of a network, or `container:ID` if it lives in the network namespace of another.
    pub network_mode: String,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Its main process runs.
    Running,
    /// It is frozen.
    Paused,
    /// Its restart policy is about to start it.
    Restarting,
    /// It does not run: it has ended, or was never started, or is being removed.
    Down,
}

/// A look at one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its full id.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it is doing.
    pub status: Status,
    /// Its main process, as the engine numbers it; none while it is down.
    pub pid: Option<u32>,
    /// When it was started last, as the engine writes it: tells one life from the next.
    pub started: String,
    /// How long it was down before it was started last, if it ever was.
    pub was_down: Option<Duration>,
    /// How its main process has ended; 137 is SIGKILL.
    pub exit_code: i64,
    /// Its restart policy, such as `unless-stopped`; none if it has none.
    pub policy: Option<String>,
    /// Whether the engine removes it when it ends.
    pub auto_remove: bool,
    /// See [`Listed::network_mode`].
    pub network_mode: String,
    /// The networks that it is attached to, by name.
    pub networks: BTreeMap<String, Endpoint>,
}

/// How a container is attached to a network: all that it takes to attach it the same way again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's full id.
    pub network: String,
    /// Further names, without those that the engine gives by itself; sorted.
    pub aliases: Vec<String>,
    /// Legacy links.
    pub links: Vec<String>,
    /// Options of the network's driver.
    pub options: BTreeMap<String, String>,
    /// The IPv4 address that somebody has asked for.
    pub ipv4: Option<String>,
    /// The IPv6 address that somebody has asked for.
    pub ipv6: Option<String>,
    /// Link-local addresses that somebody has asked for.
    pub link_local: Vec<String>,
    /// Which network has the default gateway: the highest.
    pub gateway_priority: i64,
    /// The addresses that it has now, asked for or not.
    pub addresses: Vec<IpAddr>,
    /// The hardware address that it has now. Engines before API 1.44 choose it by themselves.
    pub mac: Option<String>,
}

impl Endpoint {
    /// What somebody has asked for, without what the engine has chosen.
    #[must_use]
    pub fn asked(&self) -> Self {
        Self { addresses: Vec::new(), mac: None, ..self.clone() }
    }
}

/// One act on a container.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Sends a signal to its main process. The engine takes it for an operator's word: no restart policy applies.
    Kill(String),
    /// Ends it: its stop signal, and after the grace SIGKILL.
    Stop(Duration),
    /// Starts it.
    Start,
    /// Ends it as [`Act::Stop`] does, and starts it.
    Restart(Duration),
    /// Freezes it.
    Pause,
    /// Lets it run on.
    Unpause,
    /// Detaches it from a network.
    Disconnect(String),
    /// Attaches it to a network.
    Connect(Box<Endpoint>),
}

/// Why the engine did not do as told; completes "failed to …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerError {
    /// No socket is there.
    #[error(
        "no container engine is here: there is none of {0}; start one, or name its socket: DOCKER_HOST=unix:///PATH"
    )]
    Absent(String),
    /// The environment names an engine that is not of this host.
    #[error(
        "DOCKER_HOST names no Unix socket: only an engine of this host can be used, whose processes squall sees: \
         DOCKER_HOST=unix:///PATH"
    )]
    Remote,
    /// Nobody answers.
    #[error("no container engine answers on {socket} ({why}): start it, such as by `systemctl start docker`")]
    Silent {
        /// Where.
        socket: String,
        /// What the system says.
        why: String,
    },
    /// This user may not.
    #[error("{0} is closed to this user: run squall as root, or as a member of the group that owns it")]
    Permission(String),
    /// No answer in time.
    #[error("the container engine did not answer within {0:?}")]
    Deadline(Duration),
    /// There is no such container any more.
    #[error("there is no such container")]
    Unknown,
    /// The engine said no.
    #[error("the container engine refused: {0}")]
    Refused(String),
    /// The connection broke, or the answer makes no sense.
    #[error("the container engine broke off: {0}")]
    Broken(String),
}

impl From<DockerError> for InjectError {
    fn from(error: DockerError) -> Self {
        let text = error.to_string();
        match error {
            DockerError::Absent(_)
            | DockerError::Remote
            | DockerError::Silent { .. }
            | DockerError::Permission(_) => Self::Lack(text),
            DockerError::Deadline(_) => Self::Deadline(text),
            DockerError::Unknown | DockerError::Refused(_) | DockerError::Broken(_) => Self::Target(text),
        }
    }
}
