//! The lab `edge`: a miniature edge platform out of real processes and real sockets on loopback, without privileges.
//!
//! ```text
//! client ─▶ glb ─▶ edge-fra │ edge-iad │ edge-sin ─▶ origin-1 │ origin-2 ─▶ auth-1
//!                      └ ─ ─ ▶ kv-1 (optional)              └─────────────▶ catalog-1 │ catalog-2
//! ```
//! In front of every instance but glb stands a relay, in one relay process; callers dial the relay. One supervisor
//! starts everything, starts an instance again when asked, and takes everything with it when it ends.
//!
//! # Invariants
//! - A lab leaves nothing: its supervisor ends with its parent (end of stdin), its children end with the supervisor
//!   (parent-death signal, which also ends a stopped process), its sockets lie in one private folder.
//! - Capacity is real and stated: each instance has a finite worker pool with a fixed service time.
//! - Ports stay reserved for the life of the lab, so an instance always comes back where it was.
//! - Nothing is restarted by itself.

mod cache;
mod child;
mod crew;
mod glb;
mod handle;
mod hop;
mod instance;
mod model;
mod place;
mod pool;
mod process;
mod retry;
mod service;
mod spread;
mod standing;
mod status;
mod supervisor;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use injectors::sys::control::ControlError;
use serde::{Deserialize, Serialize};

pub use handle::Lab;
pub use place::Place;
pub use standing::{Standing, down, standing, status, up};
pub use status::{Details, InstanceStatus, State, Status};

/// The topology of the lab, in the topology language.
pub const TOPOLOGY: &str = include_str!("../../../scenarios/topologies/edge.yaml");
/// The lab's name.
pub const NAME: &str = "edge";
/// How long a start may take.
pub const START_DEADLINE: Duration = Duration::from_secs(5);
/// The most retries that the options accept.
pub const RETRIES_MAX: u32 = 10;
/// The shortest and the longest service time that the options accept, in seconds.
pub const SERVICE_TIME_S: std::ops::RangeInclusive<f64> = 0.000_5..=1.0;
/// The services that have workers, and so a service time.
pub const SERVICES: [&str; 5] = ["edge", "origin", "catalog", "auth", "kv"];

/// How the lab behaves. The defaults are those of a sane platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabOptions {
    /// Tries beyond the first, on every hop but the one to kv; at most [`RETRIES_MAX`].
    pub retries: u32,
    /// Retries as a share of requests, from 0 to 1, per process and hop.
    pub retry_budget: f64,
    /// Whether the edges cache `/browse` and `/asset`.
    pub cache: bool,
    /// By service: how long one worker is busy with one request, in seconds, instead of what the topology says. A longer
    /// one makes a smaller lab, whose capacity any machine can reach.
    pub service_time_s: BTreeMap<String, f64>,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { retries: 1, retry_budget: 0.2, cache: true, service_time_s: BTreeMap::new() }
    }
}

impl LabOptions {
    fn check(&self) -> Result<(), LabError> {
        if self.retries > RETRIES_MAX {
            return Err(LabError::Options(format!("retries: {} is more than {RETRIES_MAX}", self.retries)));
        }
        if !(0.0..=1.0).contains(&self.retry_budget) {
            return Err(LabError::Options(format!(
                "retry_budget: {} is no share from 0 to 1",
                self.retry_budget
            )));
        }
        for (service, time) in &self.service_time_s {
            if !SERVICES.contains(&service.as_str()) || !SERVICE_TIME_S.contains(time) {
                return Err(LabError::Options(format!(
                    "service_time_s: {service}: {time} is no service time"
                )));
            }
        }
        Ok(())
    }
}

/// Why the lab did not do as told; completes "failed to …: …".
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Options out of their range.
    #[error("{0}")]
    Options(String),
    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A process of the lab said why it could not start.
    #[error("{0}")]
    Start(String),
    /// Not everything was up, or ended, in time.
    #[error("{what} took longer than {seconds} s")]
    Deadline {
        /// What took too long.
        what: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// The supervisor did not do as told.
    #[error("the lab's supervisor: {0}")]
    Control(#[from] ControlError),
    /// A message between processes of the lab that this version does not understand.
    #[error("unreadable message of a lab process: {0}")]
    Message(#[from] serde_json::Error),
    /// A detached lab stands already.
    #[error("lab {NAME} is already up (http://{address}, pid {pid}); `squall lab down` ends it")]
    AlreadyUp {
        /// Where its balancer listens.
        address: String,
        /// Its supervisor.
        pid: u32,
    },
    /// No private folder for sockets.
    #[error("{path}: {why}", path = path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl LabError {
    fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// The lab's processes: hidden verbs of the one binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `__lab`: the supervisor.
    Supervisor,
    /// `__instance`: one instance of a service, or the balancer.
    Instance,
    /// `__lab-relay`: becomes `squall __relay`, tied to the supervisor's life.
    Relay,
}

impl Kind {
    /// The kind that this verb names.
    pub fn of(verb: &str) -> Option<Self> {
        [Self::Supervisor, Self::Instance, Self::Relay].into_iter().find(|kind| kind.verb() == verb)
    }

    /// The hidden verb.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Supervisor => "__lab",
            Self::Instance => "__instance",
            Self::Relay => "__lab-relay",
        }
    }
}

/// Runs one of the lab's processes to its end. Must be called on the main thread, before any runtime exists.
pub fn main(kind: Kind, args: &[String]) -> ExitCode {
    let outcome = match kind {
        Kind::Supervisor => supervisor::main(args),
        Kind::Instance => instance::main(args),
        Kind::Relay => child::become_relay(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started this process reads one line; if it is gone, nobody is there to hear.
            let _ = process::say(&serde_json::json!({"error": error.to_string()}));
            ExitCode::FAILURE
        }
    }
}
