//! What is looked for, and the trials that look for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CLIMB, FEW, HALVINGS, LOWEST};

/// What is looked for, and at which price. Rates in requests per second, times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The first rate.
    pub start: f64,
    /// No rate is higher.
    pub max: f64,
    /// How wide the interval may be at the end, as a share of the rate.
    pub width: f64,
    /// How probable it is that the interval holds the capacity.
    pub confidence: f64,
    /// How long a trial is.
    pub trial_s: f64,
    /// Requests that a trial needs to be worth anything.
    pub requests: f64,
    /// How long the trial is that confirms the result.
    pub confirm_s: f64,
    /// After so long, no trial begins.
    pub within_s: f64,
    /// Whether the target is overloaded at the end.
    pub collapse: bool,
    /// `max` is what the generator can send, less than what was allowed.
    #[serde(default)]
    pub at_generator: bool,
    /// Whether a rate that plainly fails is offered by twice the threads, to prove that the generator was not the limit.
    #[serde(default)]
    pub prove: bool,
}

impl Goal {
    /// No rate that is tried is lower.
    pub(super) fn lowest(&self) -> f64 {
        (self.start / CLIMB.powi(HALVINGS)).max(LOWEST).min(self.start).min(self.max)
    }

    /// How long a search takes at most, in seconds: one trial may begin when its time is nearly up.
    pub fn longest_s(&self) -> f64 {
        let rests = 10.0;
        self.within_s + FEW * self.confirm_s.max(2.0 * self.trial_s) + rests
    }
}

/// What became of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Every objective held.
    Passed,
    /// One did not.
    Failed {
        /// The first objective that did not hold, such as `p99`.
        clause: String,
        /// What was measured.
        why: String,
    },
    /// The generator did not send what was asked for.
    Invalid {
        /// What it lacked.
        why: String,
    },
}

impl Answer {
    /// A failure by one clause.
    pub fn failed(clause: &str) -> Self {
        Self::Failed { clause: clause.to_owned(), why: String::new() }
    }
}

/// What a trial is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// To find the order of magnitude.
    Bracket,
    /// To narrow the interval.
    Search,
    /// To stand the test of time.
    Confirm,
    /// To see whether a rate that plainly fails is carried with twice the threads at half the rate each.
    Proof,
    /// If it is: to see whether it still fails with as many threads as before.
    Repeat,
    /// To see what too much does.
    Overload,
    /// To see when it is over.
    Return,
}

impl Purpose {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bracket => "bracket",
            Self::Search => "search",
            Self::Confirm => "confirm",
            Self::Proof => "proof",
            Self::Repeat => "repeat",
            Self::Overload => "overload",
            Self::Return => "return",
        }
    }
}

/// A trial that has been made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What it was for.
    pub purpose: Purpose,
    /// Requests per second.
    pub rate: f64,
    /// How long it was meant to be, in seconds.
    pub seconds: f64,
    /// How long it took, with what lay between it and the next one.
    pub took_s: f64,
    /// What became of it.
    pub answer: Answer,
    /// What was measured.
    pub seen: Seen,
}

/// What was measured in a trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Requests that were due.
    pub due: u64,
    /// Good answers per second.
    pub good_per_s: f64,
    /// The median of the latency, in seconds.
    pub p50_s: Option<f64>,
    /// Its 99th percentile, in seconds.
    pub p99_s: Option<f64>,
    /// How late requests started, the 99th percentile, in seconds.
    pub lag_p99_s: f64,
    /// The largest share of a second that one thread of the generator computed.
    pub cpu_max: f64,
    /// Threads that sent.
    #[serde(default)]
    pub threads: u32,
    /// Requests that failed, by class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, u64>,
    /// Answers that had one, by status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub statuses: BTreeMap<u16, u64>,
    /// Why requests failed, in words, by class, where that is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub causes: BTreeMap<String, String>,
}

impl Seen {
    /// How requests failed, in words: `40 × status (500)`, `2 × tls (the certificate has expired)`; none if none did.
    pub fn failures(&self) -> Option<String> {
        let statuses: Vec<String> = self.statuses.keys().map(u16::to_string).collect();
        let class = |(class, count): (&String, &u64)| match (class.as_str(), self.causes.get(class)) {
            (_, Some(cause)) => format!("{count} × {class} ({cause})"),
            ("status", None) if !statuses.is_empty() => format!("{count} × status ({})", statuses.join(", ")),
            _ => format!("{count} × {class}"),
        };
        let words: Vec<String> = self.errors.iter().filter(|(_, count)| **count > 0).map(class).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

impl Trial {
    /// A trial of a search, as long as it was meant to be.
    pub fn new(rate: f64, seconds: f64, answer: Answer) -> Self {
        Self { purpose: Purpose::Search, rate, seconds, took_s: seconds, answer, seen: Seen::default() }
    }

    /// Whether it passed; none if it says nothing.
    pub fn passed(&self) -> Option<bool> {
        match self.answer {
            Answer::Passed => Some(true),
            Answer::Failed { .. } => Some(false),
            Answer::Invalid { .. } => None,
        }
    }

    /// Whether it failed without a single good answer.
    pub(super) fn hopeless(&self) -> bool {
        self.passed() == Some(false) && self.seen.due > 0 && self.seen.good_per_s <= 0.0
    }

    pub(super) fn teaches(&self) -> bool {
        matches!(self.purpose, Purpose::Bracket | Purpose::Search | Purpose::Confirm)
    }
}
