//! What a run tells while it goes on. Displays and the record's event list are fed from here, and only from here.

use injectors::secrets::Secrets;
use reports::record::Phase;
use serde::Serialize;

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The run begins.
    Started {
        /// Its id.
        run: String,
        /// Its folder.
        folder: String,
        /// The experiment's name.
        experiment: String,
        /// The question.
        question: String,
        /// Length of the load.
        duration_s: f64,
    },
    /// A remark.
    Note {
        /// In words.
        text: String,
    },
    /// A phase begins.
    Phase {
        /// Which.
        phase: Phase,
    },
    /// One second of load.
    Second(Snapshot),
    /// A fault is live.
    Injected {
        /// The injection.
        id: String,
        /// In words.
        summary: String,
    },
    /// What a fault has done so far.
    Proof {
        /// The injection.
        id: String,
        /// The fault and its target.
        what: String,
        /// `confirmed`, `mismatch`, `unproven`.
        status: String,
        /// In words.
        measured: String,
    },
    /// A fault is taken back and the picture is as before.
    Undone {
        /// The injection.
        id: String,
        /// From the decision until the picture was as before.
        took_s: f64,
        /// In words.
        text: String,
    },
    /// The rate of a load changes.
    Turned {
        /// In words.
        text: String,
    },
    /// A worker that sent a part of the load is lost.
    WorkerLost {
        /// In words.
        text: String,
    },
    /// Something failed.
    Trouble {
        /// In words.
        text: String,
    },
    /// A probe was outside its tolerance.
    ProbeMissed {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// The run is stopped before its end.
    Aborting {
        /// `guard`, `operator`, `guardian`, `a fault`, `baseline`.
        by: String,
        /// Why.
        why: String,
    },
}

impl Event {
    /// The kind, as the record's event list names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } | Self::Note { .. } => "note",
            Self::Phase { .. } => "phase",
            Self::Second(_) => "second",
            Self::Injected { .. } => "inject",
            Self::Proof { .. } => "proof",
            Self::Undone { .. } => "undo",
            Self::Turned { .. } => "rate",
            Self::WorkerLost { .. } => "worker",
            Self::Trouble { .. } => "error",
            Self::ProbeMissed { .. } => "probe",
            Self::Aborting { .. } => "guard",
        }
    }

    /// The event with every secret replaced by its name, before anything is cut, escaped or drawn.
    #[must_use]
    pub fn hidden(&self, secrets: &Secrets) -> Self {
        let mut event = self.clone();
        for text in event.texts() {
            *text = secrets.hide(text);
        }
        event
    }

    /// Every text that could hold something from outside.
    fn texts(&mut self) -> Vec<&mut String> {
        match self {
            Self::Started { folder, experiment, question, .. } => vec![folder, experiment, question],
            Self::Note { text }
            | Self::Turned { text }
            | Self::WorkerLost { text }
            | Self::Trouble { text }
            | Self::Undone { text, .. } => vec![text],
            Self::Phase { .. } => Vec::new(),
            Self::Second(Snapshot { loads, active, guards, .. }) => {
                let names = loads.iter_mut().map(|load| &mut load.name);
                names.chain(active).chain(guards.iter_mut().map(|(text, _)| text)).collect()
            }
            Self::Injected { summary, .. } => vec![summary],
            Self::Proof { what, measured, .. } => vec![what, measured],
            Self::ProbeMissed { name, why } => vec![name, why],
            Self::Aborting { by, why } => vec![by, why],
        }
    }

    /// One line in words; none for what happens every second.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Started { run, experiment, .. } => Some(format!("run {run} of {experiment}")),
            Self::Note { text }
            | Self::Turned { text }
            | Self::WorkerLost { text }
            | Self::Trouble { text }
            | Self::Undone { text, .. } => Some(text.clone()),
            Self::Phase { phase } => Some(format!("{} begins", phase.name())),
            Self::Second(_) => None,
            Self::Injected { summary, .. } => Some(summary.clone()),
            Self::Proof { what, status, measured, .. } => Some(proof(what, status, measured)),
            Self::ProbeMissed { name, why } => Some(format!("probe {name}: {why}")),
            Self::Aborting { by, why } => Some(format!("aborted by {by}: {why}")),
        }
    }
}

/// A proof in one line.
pub(super) fn proof(what: &str, status: &str, measured: &str) -> String {
    let status = if status == "mismatch" { "not as requested" } else { status };
    format!("{what} {status}: {measured}")
}

/// One second of a run, for displays.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// Its end, since the start of the load; `at_s` of an event is when it was told.
    pub end_s: f64,
    /// Length of the load.
    pub duration_s: f64,
    /// By journey.
    pub loads: Vec<LoadSnapshot>,
    /// Start lateness of the generator at p99.
    pub lag_p99_s: f64,
    /// What is live, with its measured effect.
    pub active: Vec<String>,
    /// How close each guard is: 1 trips it.
    pub guards: Vec<(String, f64)>,
}

/// One second of one load.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LoadSnapshot {
    /// The journey.
    pub name: String,
    /// Requests that ended, per second.
    pub rate: f64,
    /// Share of them that failed.
    pub errors: f64,
    /// Median latency.
    pub p50_s: Option<f64>,
    /// Latency at p99.
    pub p99_s: Option<f64>,
}

/// Whoever wants to know.
pub trait Observer {
    /// Is told of everything, in order; `at_s` counts from the start of the load.
    fn event(&mut self, at_s: f64, event: &Event);
}
