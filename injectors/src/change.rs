//! The data of one injection's life: the change, the proof of its effect, the outcome of its undo.

use serde::{Deserialize, Serialize};

/// What one injection will do and how it is taken back: complete as data, so that another process can undo it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The injection's id, see [`crate::Request::id`].
    pub id: String,
    /// The fault's name.
    pub fault: String,
    /// The target in words.
    pub target: String,
    /// One line: what happens to what.
    pub summary: String,
    /// What it occupies; two live injections must not share a claim.
    pub claims: Vec<String>,
    /// Data of apply, observe and renew; only the injector reads it.
    pub apply: serde_json::Value,
    /// Data of undo and picture; only the injector reads it.
    pub undo: serde_json::Value,
    /// What a person types if squall cannot undo.
    pub manual: String,
    /// The picture before.
    pub picture: serde_json::Value,
}

/// How an undo ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undone {
    /// The change was there and was taken back.
    Reverted,
    /// There was nothing (left) to take back: apply never ran, the lease ended it, or all that it belongs to is gone.
    NothingToDo,
    /// Something that was hit ended meanwhile, not by squall; another of its kind is in its place.
    Replaced,
    /// It was to come back by itself in its time and did not: squall has brought it back.
    Overdue,
    /// What was changed stays changed: the user has written that it is meant to.
    Permanent,
    /// It was an event: nothing of it lasts, and what it has ended does not come back.
    Passed,
}

impl Undone {
    /// What became of the target, as the rest of a sentence that begins with it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Reverted => "is undone; the picture is as before",
            Self::NothingToDo => "had nothing left to undo; the picture is as before",
            Self::Replaced => {
                "is undone, but a process that was hit has ended meanwhile, and squall did not end it; another one is in its place"
            }
            Self::Overdue => {
                "is undone: nothing else had it back in its time, so squall has started it; the picture is as before"
            }
            Self::Passed => "is over; what was ended stays ended, and nothing was left to undo",
            Self::Permanent => "stays as it is on purpose, as `permanent: true` says; nothing was undone",
        }
    }
}

/// Whether the fault provably took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofStatus {
    /// Measured, and as requested within the tolerance.
    Confirmed,
    /// Measured, and not as requested.
    Mismatch,
    /// Nothing could be measured.
    Unproven,
    /// What it acts on is not there now: if it stays away, the fault did not last. To the record, it is unproven.
    Gone,
}

/// Requested against measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// The judgement.
    pub status: ProofStatus,
    /// What was asked for, in words: `+200ms ±20ms`.
    pub requested: String,
    /// What was seen, in words: `+200.4ms median of 1,204 chunks`.
    pub measured: String,
    /// How far apart the two may be, in words.
    pub tolerance: String,
    /// The number of observations.
    pub samples: u64,
}

impl Proof {
    /// What it acts on is not there now.
    pub fn gone(requested: impl Into<String>, why: impl Into<String>) -> Self {
        Self { status: ProofStatus::Gone, ..Self::unproven(requested, why) }
    }

    /// A proof without a single observation.
    pub fn unproven(requested: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            status: ProofStatus::Unproven,
            requested: requested.into(),
            measured: why.into(),
            tolerance: String::new(),
            samples: 0,
        }
    }
}

/// Why a step of an injection failed; completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The target is not there, or is not what was named.
    #[error("{0}")]
    Target(String),
    /// This host or user cannot do it: a permission or a feature is missing.
    #[error("{0}")]
    Lack(String),
    /// A control socket did not do as told.
    #[error("control of {what}: {source}")]
    Control {
        /// Which socket's owner.
        what: String,
        /// Why.
        #[source]
        source: crate::sys::control::ControlError,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Recorded data that this version does not understand.
    #[error("recorded data of {fault}: {source}")]
    Data {
        /// The fault's name.
        fault: String,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// The step did not end in its time.
    #[error("{0}")]
    Deadline(String),
    /// A command of the user's failed.
    #[error("{0}")]
    Command(String),
}
