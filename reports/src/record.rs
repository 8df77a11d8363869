//! The run record: facts of one run, versioned, complete. Verdicts and reports are computed from it alone.
//!
//! Times are seconds since the load started unless a name says `unix`. Shares run from 0 to 1.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the format. A reader refuses what it does not know.
pub const SCHEMA: &str = "squall/record/v1";

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run's id, a ULID.
    pub run: String,
    /// The version of squall that wrote it.
    pub squall: String,
    /// When the load started.
    pub started_unix_s: f64,
    /// When the record was closed.
    pub ended_unix_s: f64,
    /// Decides targets and every random choice.
    pub seed: u64,
    /// The command that repeats this run.
    pub reproduce: String,
    /// What was asked.
    pub experiment: ExperimentInfo,
    /// Where it ran.
    pub host: HostInfo,
    /// Phases that took place, in order.
    pub phases: Vec<PhaseSpan>,
    /// Services, instances and PoPs, if a topology was given.
    pub topology: Option<TopologyInfo>,
    /// Relays that the run itself started, where the experiment declares any.
    #[serde(default)]
    pub relays: Vec<RelayInfo>,
    /// What was sent and what came back.
    pub loads: Vec<LoadRecord>,
    /// Did the generator keep up?
    pub generator: GeneratorRecord,
    /// What was broken.
    pub injections: Vec<InjectionRecord>,
    /// Steady-state probes.
    pub probes: Vec<ProbeRecord>,
    /// Stop conditions.
    pub guards: Vec<GuardRecord>,
    /// What must hold.
    pub objectives: Vec<Objective>,
    /// Seconds after the last undo within which every objective must hold again.
    pub recover_within_s: f64,
    /// How the run came to its end.
    pub end: End,
    /// Whether the world is as it was.
    pub restoration: Restoration,
    /// What happened, at most [`EVENTS_MAX`] lines.
    pub events: Vec<EventRecord>,
    /// The verdict, computed from everything above.
    pub judgement: Judgement,
}

/// The most events that a record keeps; the last one then says how many were left out.
pub const EVENTS_MAX: usize = 2000;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentInfo {
    /// Its name.
    pub name: String,
    /// The question in words.
    pub question: String,
    /// Who owns it.
    pub owner: Option<String>,
    /// The file, as given on the command line.
    pub file: String,
    /// The text of the file.
    pub text: String,
}

/// Where it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Kernel name and release.
    pub kernel: String,
    /// Logical processors.
    pub cores: u32,
    /// What the target was: `lab edge`, or `the experiment's own targets`.
    pub target: String,
}

/// The phases of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Load rises; nothing is judged.
    WarmUp,
    /// Nothing is broken; the steady state must hold.
    Baseline,
    /// From the first intent to the last undo.
    Fault,
    /// From the last undo until the objectives hold again.
    Recovery,
    /// The steady state once more.
    After,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 5] = [Self::WarmUp, Self::Baseline, Self::Fault, Self::Recovery, Self::After];

    /// As written in YAML and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::WarmUp => "warm-up",
            Self::Baseline => "baseline",
            Self::Fault => "fault",
            Self::Recovery => "recovery",
            Self::After => "after",
        }
    }
}

/// When a phase was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PhaseSpan {
    /// Which.
    pub phase: Phase,
    /// Its start.
    pub start_s: f64,
    /// Its end.
    pub end_s: f64,
}

/// Services and what they consist of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopologyInfo {
    /// By name.
    pub services: Vec<ServiceInfo>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Its name.
    pub name: String,
    /// Its instances.
    pub instances: Vec<String>,
    /// Services without which it cannot answer.
    pub requires: Vec<String>,
    /// Services that it can do without.
    pub uses: Vec<String>,
    /// Journeys that pass through it, by load name.
    pub journeys: Vec<String>,
}

/// A relay that a run started for itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayInfo {
    /// Its name.
    pub name: String,
    /// Where it listened: `127.0.0.1:PORT`.
    pub listen: String,
    /// Where it led: `host:port`.
    pub upstream: String,
}

/// One load: a journey and what became of its requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// The journey's name.
    pub name: String,
    /// What it sends, in words: `GET http://…/checkout`; user names, passwords and query values are left out.
    pub sends: Vec<String>,
    /// The arrivals in words.
    pub arrivals: String,
    /// Counts and latencies per phase.
    pub phases: Vec<PhaseStats>,
    /// Counts and latencies over time, in order; a second that two phases share has two.
    pub buckets: Vec<Bucket>,
}

/// What became of requests: shared by phases, kinds, PoPs and buckets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Arrivals that were due.
    pub due: u64,
    /// Good answers.
    pub ok: u64,
    /// Failures by class: `refused`, `connect-timeout`, `reset`, `deadline`, `tls`, `status`, `expectation`,
    /// `protocol`, `local`, `data`.
    pub errors: BTreeMap<String, u64>,
    /// Latencies from the intended time, of good answers and of requests that ran into their deadline (at their age).
    /// HdrHistogram V2 deflate in base64.
    pub latencies: String,
    /// Latencies of good answers from the moment when a connection took the request on: what the server took, without
    /// what waited before. Like `latencies`; empty where it is not kept (in buckets and PoPs, and in older records).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
}

impl Outcomes {
    /// Failures of all classes.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Everything that was answered or failed.
    pub fn done(&self) -> u64 {
        self.ok + self.failed()
    }
}

/// One load in one phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseStats {
    /// Which.
    pub phase: Phase,
    /// All requests.
    pub all: Outcomes,
    /// By request name, where there are several.
    pub kinds: BTreeMap<String, Outcomes>,
    /// By PoP, from the response header; failures without a response are under `-`.
    pub pops: BTreeMap<String, Outcomes>,
    /// Answers by instance that served them, as named in their `x-squall-path` header; empty if none were named.
    #[serde(default)]
    pub instances: BTreeMap<String, u64>,
    /// By status code; of gRPC calls, their own where it is not OK; of DNS answers, their code where it is an error.
    pub statuses: BTreeMap<u16, u64>,
    /// By class of failure: why the first of it happened, in words, where that is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub causes: BTreeMap<String, String>,
    /// Requests that found every connection busy until their deadline, or for more than half of it and then met it.
    #[serde(default)]
    pub unsent: u64,
    /// Times of the TLS handshakes that ended well in this phase. HdrHistogram V2 deflate in base64; empty without any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub handshakes: String,
}

/// One load in one slice of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Start of the slice.
    pub at_s: f64,
    /// Its length; usually 1.
    pub len_s: f64,
    /// The phase to which its requests belong.
    pub phase: Phase,
    /// All requests that ended in it.
    pub all: Outcomes,
    /// Answers by PoP.
    pub pops: BTreeMap<String, u64>,
}

/// What the generator says about itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneratorRecord {
    /// Worker threads.
    pub workers: u32,
    /// Arrivals that were due.
    pub due: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Start lateness (sent or queued after due), in seconds: p50, p99, max.
    pub lag_p50_s: f64,
    /// See `lag_p50_s`.
    pub lag_p99_s: f64,
    /// See `lag_p50_s`.
    pub lag_max_s: f64,
    /// Largest share of one second that one worker's thread computed.
    pub cpu_max: f64,
    /// Largest share of one second for which one worker's thread waited for a core that others had.
    #[serde(default)]
    pub waited_max: f64,
    /// Requests that found every connection busy: they waited for the target.
    #[serde(default)]
    pub queued: u64,
    /// The most connections open at a time.
    pub connections_max: u64,
    /// Why its numbers must not be trusted; empty when it kept up.
    pub saturated: Vec<String>,
    /// How short of CPU its host was, by phase; empty if the kernel does not say.
    #[serde(default)]
    pub strain: Vec<Strain>,
}

/// How short of CPU the generator's host was in one phase, whoever used it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Strain {
    /// Which.
    pub phase: Phase,
    /// Share of the time in which some task waited for a CPU.
    pub waited: f64,
    /// Share of all CPU time that a hypervisor gave to others.
    pub stolen: f64,
}

/// One injection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InjectionRecord {
    /// Its id.
    pub id: String,
    /// The fault's name.
    pub fault: String,
    /// The target in words.
    pub target: String,
    /// The service that the target belongs to, if it is known.
    pub service: Option<String>,
    /// The instance before which it is, as answers name it, if the target is not the instance itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Journeys whose requests go to addresses at which it is aimed.
    #[serde(default)]
    pub meets: Vec<String>,
    /// `outage`, `degradation`, `errors`, `shift` or `custom`.
    pub effect: String,
    /// Parameters in words.
    pub parameters: String,
    /// One line: what happened to what.
    pub summary: String,
    /// When the journal held the intent.
    pub intended_s: f64,
    /// When it was live; none if it never was.
    pub applied_s: Option<f64>,
    /// When it was taken back; none if it was not.
    pub undone_s: Option<f64>,
    /// Requested against measured.
    pub proof: ProofRecord,
    /// `restored`, `unverified`, `failed`, `not-needed`.
    pub undo: String,
    /// Why, where something went wrong.
    pub error: Option<String>,
    /// What a person types if the undo failed.
    pub manual: String,
}

/// Requested against measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProofRecord {
    /// `confirmed`, `mismatch`, `unproven`.
    pub status: String,
    /// In words.
    pub requested: String,
    /// In words.
    pub measured: String,
    /// In words.
    pub tolerance: String,
    /// Observations.
    pub samples: u64,
}

/// One probe and what it saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// Its name.
    pub name: String,
    /// What it does, in words.
    pub does: String,
    /// What it must see, in words.
    pub tolerance: String,
    /// Phases in which it must hold.
    pub phases: Vec<Phase>,
    /// By phase: how often it held and how often not, and the last reason.
    pub seen: Vec<ProbeSeen>,
}

/// A probe in one phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeSeen {
    /// Which.
    pub phase: Phase,
    /// Observations within the tolerance.
    pub held: u64,
    /// Observations outside of it.
    pub missed: u64,
    /// The last reason for a miss.
    pub last_miss: Option<String>,
}

/// One guard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardRecord {
    /// The condition as written.
    pub when: String,
    /// When it tripped, if it did.
    pub tripped_s: Option<f64>,
    /// How close it came: 1 is the limit for its whole time.
    pub closest: f64,
}

/// One clause that must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// The journey.
    pub journey: String,
    /// What is measured.
    pub sli: Sli,
    /// `>=` or `<=`.
    pub at_least: bool,
    /// The limit: a share, seconds, or requests per second.
    pub limit: f64,
    /// Where it must hold.
    pub phases: Vec<Phase>,
}

/// What an objective measures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sli {
    /// Good answers per request: a share.
    Availability,
    /// Latency at a quantile from 0 to 1: seconds.
    Latency(f64),
    /// Good answers per second.
    Throughput,
}

impl Sli {
    /// As written in YAML: `availability`, `p99.9`, `throughput`.
    pub fn name(self) -> String {
        match self {
            Self::Availability => "availability".to_owned(),
            Self::Latency(q) => {
                let percent = format!("{:.6}", q * 100.0);
                format!("p{}", percent.trim_end_matches('0').trim_end_matches('.'))
            }
            Self::Throughput => "throughput".to_owned(),
        }
    }
}

/// How the run came to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The plan ran through.
    Completed,
    /// The baseline was not steady; nothing was injected.
    NotSteady(String),
    /// Somebody or something stopped it.
    Aborted {
        /// `guard`, `operator`, `guardian`, `a fault`.
        by: String,
        /// Why.
        why: String,
        /// When.
        at_s: f64,
    },
}

/// Whether the world is as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restoration {
    /// Everything that was applied is undone, and the pictures are equal.
    pub verified: bool,
    /// From the decision to restore until the last picture was equal.
    pub seconds: f64,
    /// Commands for what could not be undone.
    pub left: Vec<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When.
    pub at_s: f64,
    /// What kind: `phase`, `inject`, `proof`, `undo`, `guard`, `probe`, `note`, `error`.
    pub kind: String,
    /// In words.
    pub text: String,
}

/// Held, missed, or unknown. No data is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The whole interval is on the good side.
    Held,
    /// The whole interval is on the bad side.
    Missed,
    /// The data cannot tell.
    Unknown,
}

impl Verdict {
    /// As printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Missed => "missed",
            Self::Unknown => "unknown",
        }
    }
}

/// The verdict and how it came about: a pure function of the facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Of the whole hypothesis.
    pub verdict: Verdict,
    /// The exit code that goes with it.
    pub exit: u8,
    /// The deciding facts in words, the most important first.
    pub reasons: Vec<String>,
    /// Each clause in each phase.
    pub results: Vec<ObjectiveResult>,
    /// From the first injection until an objective was first plainly broken; none if it was not seen to break.
    pub detect_s: Option<f64>,
    /// From the last undo until every objective held again, for three seconds on end or for as long as it took to be
    /// sure; none if that was not seen.
    pub recover_s: Option<f64>,
    /// Why there is no `recover_s`: still broken when the load ended, or too few requests to tell.
    #[serde(default)]
    pub recover_note: Option<String>,
    /// What the run says about single points of failure.
    pub findings: Vec<Finding>,
}

/// One clause in one phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveResult {
    /// The journey.
    pub journey: String,
    /// The phase.
    pub phase: Phase,
    /// What was measured.
    pub sli: Sli,
    /// See [`Objective::at_least`].
    pub at_least: bool,
    /// The limit.
    pub limit: f64,
    /// The point estimate, if there are data. A failure is slower than any answer: a latency whose quantile is one of
    /// the failures has `samples`, but no estimate.
    pub estimate: Option<f64>,
    /// Lower end of the 95 % interval.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval.
    pub high: Option<f64>,
    /// Observations.
    pub samples: u64,
    /// The answer.
    pub verdict: Verdict,
    /// Why it is unknown, or what else a reader should know.
    pub note: Option<String>,
}

/// What the run says about one broken thing and one journey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What was broken: an instance, a service, a PoP, a relay.
    pub target: String,
    /// How, in words: `killed`, `200ms slower`.
    pub fault: String,
    /// The journey.
    pub journey: String,
    /// `confirmed` (this alone broke the journey), `refuted` (it did not), `untested` (the run cannot tell).
    pub status: String,
    /// The evidence in words.
    pub evidence: String,
    /// What to do about it, in words; empty when refuted.
    pub remedy: String,
}
