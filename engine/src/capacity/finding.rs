//! What was found.

use serde::{Deserialize, Serialize};

use super::Bounds;

/// What kept the rate from being higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitedBy {
    /// The target: this is its capacity.
    Target,
    /// The generator could not send more.
    Generator,
    /// The highest rate that was allowed.
    Maximum,
    /// Time ran out, or the answers contradict each other.
    Undecided,
}

impl LimitedBy {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Generator => "generator",
            Self::Maximum => "maximum",
            Self::Undecided => "undecided",
        }
    }
}

/// What came of the overload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Collapse {
    /// What was offered, in requests per second.
    pub offered: f64,
    /// Good answers per second meanwhile.
    pub good_per_s: f64,
    /// The first lower rate that was carried again; none if none was.
    pub recovered_at: Option<f64>,
}

/// What came of a rate that plainly fails when twice the threads sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Requests per second.
    pub rate: f64,
    /// Whether it was carried then; none if that trial was invalid.
    pub carried: Option<bool>,
    /// If it was: whether it was carried with as many threads as before, too; then the target has changed.
    pub carried_before: Option<bool>,
}

/// The result. Rates in requests per second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What kept it from being higher.
    pub limited_by: LimitedBy,
    /// Why, in words.
    pub why: String,
    /// The most probable capacity; none where the target was not the limit.
    pub capacity: Option<f64>,
    /// The lower end of the interval; where the target was not the limit, the highest rate that has passed.
    pub low: Option<f64>,
    /// The upper end of the interval.
    pub high: Option<f64>,
    /// How probable it is that the interval holds the capacity.
    pub confidence: f64,
    /// Bounds by MLRsearch, from the same trials.
    pub mlrsearch: Bounds,
    /// The objective that fails first beyond the capacity.
    pub fails_first: Option<String>,
    /// Whether a long trial at the lower end has passed.
    pub confirmed: bool,
    /// Whether the generator was the limit after all; none if that was not tried.
    #[serde(default)]
    pub proof: Option<Proof>,
    /// What came of too much.
    pub collapse: Option<Collapse>,
    /// How long it all took, in seconds.
    pub took_s: f64,
}
