//! The experiment language: text in, an [`Experiment`] that cannot be wrong out, or every mistake at once.
//!
//! Nothing here touches the world: no clock, no socket, no process. Files that an experiment names (its topology, a
//! certificate) are read by the caller through [`Sources`].

mod arrivals;
mod connecting;
mod expecting;
mod fault;
mod feeds;
mod journeys;
mod judging;
mod load;
pub mod mistake;
mod parse;
mod reader;
mod replaying;
mod scan;
pub mod schema;
pub mod topology;
pub mod vars;
pub mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use injectors::secrets::Secrets;
use injectors::sys::aim::Network;
use injectors::target::Protocol;
use injectors::{Args, Injector};
use reports::record::{Objective, Phase};
use serde::Serialize;

use crate::connecting::{Connecting, Reply};
use crate::expect::{HeaderExpect, JsonExpect};
use crate::feed::Feed;
use crate::journey::Journey;
use crate::lab::LabOptions;
use crate::replay::Trace;
use crate::schedule::Profile;
use crate::template::Body;

pub use expecting::read_status as status;
pub use fault::{Selector, parse_args};
pub use judging::{objective, parse_guard};
pub use mistake::{Diagnostic, Mistakes};
pub use parse::{Parsed, here, parse, parse_all};
pub use topology::Topology;

/// How an experiment reads what lies beside it.
pub trait Sources {
    /// The text of a file, relative to the experiment's own folder.
    ///
    /// # Errors
    /// In words: not there, too large, not text.
    fn read(&self, path: &str) -> Result<String, String>;

    /// The bytes of a file that is no text of ours: a feed, a body, a log.
    ///
    /// # Errors
    /// In words: not there, or more than `most` bytes.
    fn bytes(&self, path: &str, most: usize) -> Result<Vec<u8>, String>;
}

/// A checked experiment.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Its name: small letters, digits and dashes.
    pub name: String,
    /// The question that it asks.
    pub question: String,
    /// Who owns it.
    pub owner: Option<String>,
    /// The built-in lab to run on.
    pub lab: Option<LabOptions>,
    /// Services and their dependencies: the lab's or the file's.
    pub topology: Option<Topology>,
    /// Relays that the run starts.
    pub relays: Vec<RelayDecl>,
    /// Networks that no network fault may hit.
    pub protect: Vec<Network>,
    /// Time at the start that is not judged.
    pub warm_up: Duration,
    /// Rows of data for requests.
    pub feeds: Vec<Arc<Feed>>,
    /// What is sent.
    pub load: Vec<Load>,
    /// What must hold.
    pub objectives: Vec<Objective>,
    /// Steady-state probes.
    pub probes: Vec<Probe>,
    /// What is broken, when.
    pub timeline: Vec<Step>,
    /// Stop conditions.
    pub guards: Vec<Guard>,
    /// Time after the last undo within which the objectives must hold again.
    pub recover_within: Duration,
    /// What it took from the environment and from `--set`: never written anywhere.
    pub secrets: Secrets,
}

impl Experiment {
    /// The experiment around a single ad hoc fault: no load, nothing judged.
    pub fn ad_hoc(step: Step, topology: Option<Topology>) -> Self {
        Self {
            name: "inject".to_owned(),
            question: String::new(),
            owner: None,
            lab: topology.as_ref().map(|_| LabOptions::default()),
            topology,
            relays: Vec::new(),
            protect: Vec::new(),
            warm_up: Duration::ZERO,
            feeds: Vec::new(),
            load: Vec::new(),
            objectives: Vec::new(),
            probes: Vec::new(),
            timeline: vec![step],
            guards: Vec::new(),
            recover_within: Duration::ZERO,
            secrets: Secrets::default(),
        }
    }

    /// Time from the start to the end of the load.
    pub fn duration(&self) -> Duration {
        self.load.iter().map(Load::duration).max().unwrap_or_default()
    }
}

/// A relay that the run starts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RelayDecl {
    /// Its name.
    pub name: String,
    /// `127.0.0.1:PORT`; port 0 takes a free one.
    pub listen: String,
    /// `host:port`.
    pub upstream: String,
    /// What it understands.
    pub protocol: Protocol,
}

/// One load: a journey under one of the models.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// The journey's name.
    pub name: String,
    /// The node that names it, for mistakes that only the generator can find.
    pub node: yaml::NodeId,
    /// What is sent; at least one.
    pub requests: Vec<Request>,
    /// When.
    pub arrivals: Profile,
    /// A log that is sent again; `arrivals` are its.
    pub replay: Option<Arc<Trace>>,
    /// Random gaps instead of even ones.
    pub poisson: bool,
    /// Connections are kept alive.
    pub reuse: bool,
    /// Counted from the intended time.
    pub deadline: Duration,
    /// For one connection.
    pub connect_timeout: Duration,
    /// The most connections at a time.
    pub connections: u32,
    /// Response header that names the PoP.
    pub pop_header: String,
    /// How it connects.
    pub connecting: Connecting,
    /// How many processes share the people of a journey; as many as it takes if nobody says.
    pub processes: Option<u32>,
    /// What users or sessions do, instead of requests that arrive; `requests` are its steps then, and `arrivals` what may
    /// be expected of it, or its sessions. May hold late names.
    pub journey: Option<Journey>,
}

impl Load {
    /// Time from the first to the last arrival.
    pub fn duration(&self) -> Duration {
        self.arrivals.duration()
    }

    /// Whether a request takes a row of a feed.
    pub fn uses(&self, feed: &Feed) -> bool {
        let slot = format!("${{{}.", feed.name());
        self.requests.iter().any(|request| {
            let values = request.headers.iter().map(|(_, value)| value.as_str());
            let body = match &request.body {
                Some(Body::Text(text)) => text.as_str(),
                _ => "",
            };
            values.chain([request.url.as_str(), body]).any(|text| text.contains(&slot))
        })
    }
}

/// One kind of request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// Such as `GET`.
    pub method: String,
    /// May hold late names such as `${lab.edge}`, and slots such as `${users.id}`.
    pub url: String,
    /// In order; values may hold the same.
    pub headers: Vec<(String, String)>,
    /// Bytes as they are, or a text that may hold the same.
    pub body: Option<Body>,
    /// Where a reply over TCP or UDP ends.
    pub reply: Reply,
    /// Its share among the load's requests.
    pub weight: u32,
    /// Statuses that are good: ranges, ends included.
    pub statuses: Vec<(u16, u16)>,
    /// Text that a good body holds.
    pub body_contains: Option<String>,
    /// What must be true of headers.
    pub expect_headers: Vec<HeaderExpect>,
    /// What must be true of a body in JSON.
    pub expect_json: Vec<JsonExpect>,
}

/// Faults that begin and end together.
#[derive(Debug, Clone)]
pub struct Step {
    /// From the start of the load.
    pub at: Duration,
    /// How long.
    pub length: Duration,
    /// What is injected.
    pub faults: Vec<FaultUse>,
}

/// One fault as written.
#[derive(Debug, Clone)]
pub struct FaultUse {
    /// Its kind.
    pub injector: &'static dyn Injector,
    /// Its own parameters; some are missing if there are mistakes in them.
    pub args: Args,
    /// Every parameter could be read.
    pub whole: bool,
    /// What it is aimed at.
    pub selector: Selector,
    /// The node that names the fault, for mistakes that only the plan can find.
    pub node: yaml::NodeId,
    /// The node that names its target.
    pub target_node: yaml::NodeId,
}

/// A steady-state probe.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probe {
    /// Its name.
    pub name: String,
    /// What it does.
    pub check: ProbeCheck,
    /// How often.
    pub every: Duration,
    /// For one observation.
    pub deadline: Duration,
    /// Where it must hold.
    pub phases: Vec<Phase>,
    /// The share of observations that must hold, from 0 to 1.
    pub share: f64,
}

/// What a probe does and what it must see.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeCheck {
    /// A GET.
    Http {
        /// May hold late names.
        url: String,
        /// Good statuses.
        statuses: Vec<(u16, u16)>,
        /// Text that a good body holds.
        body_contains: Option<String>,
    },
    /// A connection can be made.
    Tcp {
        /// `host:port`; may hold late names.
        address: String,
    },
    /// A command ends with a code.
    Command {
        /// Given to no shell.
        argv: Vec<String>,
        /// The good exit code.
        exit: i32,
    },
}

/// A stop condition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guard {
    /// As written.
    pub text: String,
    /// What is watched.
    pub metric: GuardMetric,
    /// Of which journey.
    pub journey: String,
    /// True: trips above the limit; false: below.
    pub above: bool,
    /// A share, seconds, or good answers per second.
    pub limit: f64,
    /// Whole seconds on end; at least 1.
    pub seconds: u32,
}

/// What a guard watches, over one second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardMetric {
    /// Share of requests that failed.
    Errors,
    /// Latency at a quantile from 0 to 1.
    Latency(f64),
    /// Good answers.
    Throughput,
}

/// Names that only a run knows, for substitution.
pub type Late = BTreeMap<String, String>;

/// The file and what is set on the command line: the input of [`parse`].
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// As shown in messages.
    pub file: PathBuf,
    /// The text.
    pub text: String,
    /// `--set name=value`.
    pub set: BTreeMap<String, String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
}
