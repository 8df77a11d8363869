//! Journeys: what users do one step after another, with what they have learnt on the way. Pure; no clock, no socket.
//!
//! Two kinds of traffic walk them. *Users* are a fixed number of people who begin again when they are through: a closed
//! model, in which a slow target slows the load down. *Sessions* arrive at a rate whatever the target does, and each is a
//! user who goes through once: partly open, as real sites are (Schroeder et al., NSDI 2006).

mod budget;
mod extract;
mod jar;
mod script;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::expect::Expect;
use crate::random::Random;
use crate::schedule::Profile;
use crate::template::Body;

pub use budget::Budget;
pub use extract::{Document, Finder, extract};
pub use jar::Jar;
pub use script::{Ask, Miss, Node, Part, Script, ScriptError, Seen};

/// The most users of one load.
pub const USERS_MAX: u32 = 20_000;
/// The most processes of one load.
pub const PROCESSES_MAX: u32 = 16;
/// The most steps of one journey.
pub const STEPS_MAX: usize = 64;
/// The most names that a journey extracts.
pub const NAMES_MAX: usize = 32;
/// The longest value that is extracted, in bytes.
pub const VALUE_MAX: usize = 8 * 1024;
/// The longest regular expression, in bytes.
pub const REGEX_MAX: usize = 1024;
/// How much of a body is looked at, in bytes.
pub const BODY_MAX: usize = 1 << 20;
/// The most tries of one request.
pub const ATTEMPTS_MAX: u32 = 10;
/// A whole journey is counted under this name, and further tries under the other; no step may be called so.
pub const OWN_KINDS: [&str; 2] = ["journey", "retry"];

/// What users do, and who they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journey {
    /// Who, when.
    pub pace: Pace,
    /// Once, first of all.
    pub start: Vec<Item>,
    /// Again and again (users), or once (sessions).
    pub steps: Vec<Item>,
    /// Once, at the end.
    pub stop: Vec<Item>,
    /// Each user keeps the cookies that the target sets.
    pub cookies: bool,
    /// Whether a request that failed is made again.
    pub retry: Option<Retry>,
}

/// Who walks a journey, when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Pace {
    /// So many people, for so long.
    Users {
        /// How many.
        count: u32,
        /// They begin one after another over this time.
        ramp: Duration,
        /// From the first one's begin to the end of all.
        lasting: Duration,
        /// Each keeps the rows of its feeds for life, instead of taking others each time through.
        keep_rows: bool,
    },
    /// Sessions that arrive by themselves.
    Sessions {
        /// When.
        arrivals: Profile,
        /// At random instead of evenly spaced.
        poisson: bool,
        /// The most under way at a time; further ones wait, and their time runs.
        most: u32,
    },
}

impl Pace {
    /// How long somebody begins something.
    pub fn lasting(&self) -> Duration {
        match self {
            Self::Users { lasting, .. } => *lasting,
            Self::Sessions { arrivals, .. } => arrivals.duration(),
        }
    }

    /// How many people there are at a time.
    pub fn people(&self) -> u32 {
        match self {
            Self::Users { count, .. } => *count,
            Self::Sessions { most, .. } => *most,
        }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Item {
    /// A request.
    Step(Box<Step>),
    /// One of several ways to go on, by weight.
    Choose(Vec<Branch>),
}

/// A way to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// Its name.
    pub name: String,
    /// How often it is taken, relative to the others; at least 1.
    pub weight: u32,
    /// What is done.
    pub steps: Vec<Item>,
}

/// A request and what is done with its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name, unique within the journey.
    pub name: String,
    /// Such as `GET`.
    pub method: String,
    /// With slots, but not in scheme, host and port.
    pub url: String,
    /// In order; values with slots.
    pub headers: Vec<(String, String)>,
    /// A text may have slots.
    pub body: Option<Body>,
    /// What a good answer is.
    pub expect: Expect,
    /// What is taken from the answer: names, and where it is.
    pub extract: Vec<(String, Source)>,
    /// The pause after it.
    pub think: Think,
}

/// How long people pause.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Think {
    /// Drawn evenly from this range.
    Between(Duration, Duration),
    /// As if what ends it could come at any time (exponential), with this mean; no pause is longer than ten
    /// times that.
    About(Duration),
}

/// See [`Think::About`]: of 22,000 pauses one would be longer.
const THINK_TAIL: f64 = 10.0;

impl Think {
    /// No pause.
    pub const NONE: Self = Self::Between(Duration::ZERO, Duration::ZERO);

    /// A pause, by chance.
    pub(crate) fn pause(self, chance: &mut Random) -> Duration {
        match self {
            Self::Between(from, to) => from + to.saturating_sub(from).mul_f64(chance.unit()),
            Self::About(mean) => mean.mul_f64(chance.exponential().min(THINK_TAIL)),
        }
    }

    /// Its mean, in seconds.
    fn mean(self) -> f64 {
        match self {
            Self::Between(from, to) => (from + to).as_secs_f64() / 2.0,
            Self::About(mean) => mean.as_secs_f64(),
        }
    }
}

/// Where in an answer a value is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Source {
    /// A JSON pointer (RFC 6901) into the body.
    Json(String),
    /// A header, by name.
    Header(String),
    /// What lies between two texts in the body.
    Between(String, String),
    /// A regular expression over the body: its first group, or all of it if it has none.
    Regex(String),
    /// A cookie that the answer sets, by name.
    Cookie(String),
}

/// Clients that try again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Tries in all, the first included.
    pub attempts: u32,
    /// The pause before the second; it doubles from one to the next.
    pub backoff: Duration,
    /// How much of a pause is chance: 0 none, 1 all of it.
    pub jitter: f64,
    /// The most retries as a share of requests; none without a limit.
    pub budget: Option<f64>,
}

impl Retry {
    /// The pause before a try (counted from 2), with chance from 0 to 1.
    pub fn pause(&self, attempt: u32, chance: f64) -> Duration {
        let whole = self.backoff.as_secs_f64() * f64::from(1u32 << (attempt.saturating_sub(2)).min(16));
        Duration::from_secs_f64(whole * (1.0 - self.jitter + self.jitter * chance))
    }
}

impl Journey {
    /// Every step, in reading order.
    pub fn all(&self) -> Vec<&Step> {
        let mut found = Vec::new();
        for items in [&self.start, &self.steps, &self.stop] {
            gather(items, &mut found);
        }
        found
    }

    /// Changes every step.
    pub fn each(&mut self, change: &mut impl FnMut(&mut Step)) {
        fn walk(items: &mut [Item], change: &mut impl FnMut(&mut Step)) {
            for item in items {
                match item {
                    Item::Step(step) => change(step),
                    Item::Choose(ways) => ways.iter_mut().for_each(|way| walk(&mut way.steps, change)),
                }
            }
        }
        for items in [&mut self.start, &mut self.steps, &mut self.stop] {
            walk(items, change);
        }
    }

    /// What one time through takes at least, in seconds, and how many requests it makes: means over its choices, as if each
    /// answer took 10 ms. For plans only.
    pub fn estimate(&self) -> (f64, f64) {
        const ANSWER_S: f64 = 0.01;
        walk(&self.steps, ANSWER_S)
    }
}

fn gather<'j>(items: &'j [Item], found: &mut Vec<&'j Step>) {
    for item in items {
        match item {
            Item::Step(step) => found.push(step),
            Item::Choose(branches) => branches.iter().for_each(|branch| gather(&branch.steps, found)),
        }
    }
}

fn walk(items: &[Item], answer_s: f64) -> (f64, f64) {
    let mut sum = (0.0, 0.0);
    for item in items {
        let (seconds, requests) = match item {
            Item::Step(step) => (answer_s + step.think.mean(), 1.0),
            Item::Choose(branches) => {
                let all: f64 = branches.iter().map(|branch| f64::from(branch.weight)).sum();
                branches.iter().fold((0.0, 0.0), |mean, branch| {
                    let (share, own) = (f64::from(branch.weight) / all, walk(&branch.steps, answer_s));
                    (mean.0 + share * own.0, mean.1 + share * own.1)
                })
            }
        };
        sum = (sum.0 + seconds, sum.1 + requests);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_jitter_takes_its_share() {
        let retry = Retry { attempts: 5, backoff: Duration::from_millis(100), jitter: 0.5, budget: None };
        let ms = |attempt, chance| retry.pause(attempt, chance).as_millis();
        assert_eq!((ms(2, 1.0), ms(3, 1.0), ms(4, 1.0)), (100, 200, 400));
        assert_eq!((ms(2, 0.0), ms(4, 0.0)), (50, 200));
        assert!(retry.pause(u32::MAX, 1.0) < Duration::from_hours(3), "and stay finite");
    }

    #[test]
    fn people_think_for_as_long_as_was_said_on_average() {
        let ms = Duration::from_millis;
        for (think, mean, longest) in [
            (Think::Between(ms(100), ms(300)), 0.2, ms(300)),
            (Think::About(ms(200)), 0.2, ms(2000)),
            (Think::NONE, 0.0, ms(0)),
        ] {
            let mut chance = Random::new(7, 0);
            let pauses: Vec<Duration> = (0..20_000).map(|_| think.pause(&mut chance)).collect();
            let of = pauses.iter().sum::<Duration>().as_secs_f64() / 20_000.0;
            assert!((of - mean).abs() < 0.005 && (think.mean() - mean).abs() < 1e-9, "{think:?}: {of}");
            assert!(pauses.iter().all(|pause| *pause <= longest));
            if let Think::About(mean) = think {
                let short = pauses.iter().filter(|pause| **pause < mean).count() as f64 / 20_000.0;
                assert!((short - 0.632).abs() < 0.01, "{short}: it is exponential");
            }
        }
    }
}
