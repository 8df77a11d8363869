//! How much a target carries: a search over rates in which each trial passes or fails the objectives. Pure; somebody else
//! sends the load and looks at the clock.
//!
//! First rates are doubled until one fails, or halved until one passes. Then each trial is made where it tells most about
//! the capacity (`posterior`), until the interval is narrow; a long trial at its lower end confirms it, or is one more
//! piece of evidence. At last the target is offered too much, and less and less again: how far must load fall until it
//! recovers? Everything follows from the trials made so far, so a search can be resumed.
//!
//! A trial that the generator could not send as asked says nothing about the target; two in a row end the search.

mod backlog;
mod bounds;
mod posterior;

use serde::{Deserialize, Serialize};

pub use backlog::growth;
pub use bounds::Bounds;
use posterior::Posterior;

/// How much of the interval the steps between tried rates are: rates that repeat are what [`Bounds`] need.
const STEPS: f64 = 4.0;
/// How much longer than asked for no trial becomes where requests are few.
const FEW: f64 = 6.0;
/// Trials while the order of magnitude is looked for, as a share of the others.
const BRACKET: f64 = 0.6;
/// No trial is further above the highest rate that has passed.
const CLIMB: f64 = 2.0;
/// How often halving may go on.
const HALVINGS: i32 = 10;
/// How many confirmations may fail.
const CONFIRMS: usize = 3;
/// How much is offered beyond the capacity, to see it collapse.
const OVERLOAD: f64 = 1.3;
/// What is then tried in turn, as shares of the capacity.
const RETURNS: [f64; 6] = [0.95, 0.85, 0.7, 0.5, 0.3, 0.1];

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

    fn teaches(&self) -> bool {
        matches!(self.purpose, Purpose::Bracket | Purpose::Search | Purpose::Confirm)
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make this trial.
    Try {
        /// What it is for.
        purpose: Purpose,
        /// Requests per second.
        rate: f64,
        /// How long.
        seconds: f64,
    },
    /// Nothing more is to be learnt.
    Done,
}

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
    /// What came of too much.
    pub collapse: Option<Collapse>,
    /// How long it all took, in seconds.
    pub took_s: f64,
}

/// A search, as far as it has come.
#[derive(Debug, Clone)]
pub struct Search {
    goal: Goal,
    trials: Vec<Trial>,
    /// How many of them were made before it was resumed: neither their time nor what the generator lacked then counts now.
    earlier: usize,
    posterior: Posterior,
}

impl Search {
    /// A search that begins, or one that goes on after these trials.
    pub fn new(goal: Goal, trials: Vec<Trial>) -> Self {
        let lowest = goal.start / CLIMB.powi(HALVINGS + 1);
        let posterior = Posterior::between(lowest, goal.max * 1.5);
        let mut search = Self { goal, trials: Vec::new(), earlier: trials.len(), posterior };
        for trial in trials {
            search.learn(trial);
        }
        search
    }

    /// What is looked for.
    pub fn goal(&self) -> &Goal {
        &self.goal
    }

    /// The trials so far.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// Learns from a trial.
    pub fn learn(&mut self, trial: Trial) {
        if let (true, Some(passed)) = (trial.teaches(), trial.passed()) {
            self.posterior.learn(trial.rate, passed);
        }
        self.trials.push(trial);
    }

    /// What to do next.
    pub fn next(&self) -> Step {
        if self.is_time_up() || self.generator().is_some() {
            return Step::Done;
        }
        if self.confirmed() {
            return self.collapsing();
        }
        let (passed, failed) = (self.highest_passed(), self.lowest_failed());
        match (passed, failed) {
            (None, None) => self.bracket(self.goal.start.min(self.goal.max)),
            // The highest rate is asked twice: one success may be luck.
            (Some(rate), None) if rate >= self.goal.max => match self.passes_at(rate) {
                0 | 1 => self.bracket(rate),
                _ => Step::Done,
            },
            (Some(rate), None) => self.bracket((rate * CLIMB).min(self.goal.max)),
            (None, Some(rate)) if rate > self.goal.start / CLIMB.powi(HALVINGS) => self.bracket(rate / CLIMB),
            (None, Some(_)) => Step::Done,
            (Some(passed), Some(_)) => self.narrow(passed),
        }
    }

    fn narrow(&self, passed: f64) -> Step {
        let (low, high) = self.interval();
        if high / low - 1.0 <= self.goal.width {
            let confirms = self.answered(false).filter(|trial| trial.purpose == Purpose::Confirm);
            return match confirms.count() {
                CONFIRMS.. => Step::Done,
                _ => self.trial(Purpose::Confirm, low, self.goal.confirm_s),
            };
        }
        let step = (1.0 + self.goal.width).ln() / STEPS;
        let snapped = |rate: f64| ((rate.ln() / step).round() * step).exp();
        let highest = (passed * CLIMB).min(self.goal.max);
        let quantiles = [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95];
        let candidates = quantiles.map(|q| snapped(self.posterior.quantile(q)).min(highest));
        let told = candidates.map(|rate| (rate, self.posterior.information(rate)));
        let (rate, _) = told.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((passed, 0.0));
        self.trial(Purpose::Search, rate, self.goal.trial_s)
    }

    fn bracket(&self, rate: f64) -> Step {
        self.trial(Purpose::Bracket, rate, self.goal.trial_s * BRACKET)
    }

    /// A trial, longer where requests are few.
    fn trial(&self, purpose: Purpose, rate: f64, seconds: f64) -> Step {
        let needed = (self.goal.requests / rate).min(seconds * FEW);
        Step::Try { purpose, rate, seconds: seconds.max(needed.ceil()) }
    }

    fn collapsing(&self) -> Step {
        let done: Vec<&Trial> = self.trials.iter().filter(|trial| !trial.teaches()).collect();
        let (low, high) = self.interval();
        match done.len() {
            _ if !self.goal.collapse || high * OVERLOAD > self.goal.max => Step::Done,
            0 => self.trial(Purpose::Overload, high * OVERLOAD, self.goal.trial_s * 2.0),
            n if n > RETURNS.len()
                || done[n - 1].purpose == Purpose::Return && done[n - 1].passed() == Some(true) =>
            {
                Step::Done
            }
            n => self.trial(Purpose::Return, low * RETURNS[n - 1], self.goal.trial_s),
        }
    }

    /// The interval as it is now.
    pub fn interval(&self) -> (f64, f64) {
        let rest = (1.0 - self.goal.confidence) / 2.0;
        (self.posterior.quantile(rest), self.posterior.quantile(1.0 - rest))
    }

    fn spent(&self) -> f64 {
        self.trials.iter().map(|trial| trial.took_s).sum()
    }

    /// Trials since it was resumed, if it was.
    fn own(&self) -> impl DoubleEndedIterator<Item = &Trial> {
        self.trials[self.earlier..].iter()
    }

    fn is_time_up(&self) -> bool {
        let now: f64 = self.own().map(|trial| trial.took_s).sum();
        now >= self.goal.within_s
    }

    /// Why the generator ends the search.
    fn generator(&self) -> Option<&str> {
        let mut last = self.own().rev().filter(|trial| trial.teaches()).map(|trial| &trial.answer);
        match (last.next(), last.next()) {
            (Some(Answer::Invalid { why }), Some(Answer::Invalid { .. })) => Some(why),
            _ => None,
        }
    }

    fn confirmed(&self) -> bool {
        self.trials.iter().any(|trial| trial.purpose == Purpose::Confirm && trial.passed() == Some(true))
    }

    fn answered(&self, wanted: bool) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(move |trial| trial.teaches() && trial.passed() == Some(wanted))
    }

    fn highest_passed(&self) -> Option<f64> {
        self.answered(true).map(|trial| trial.rate).max_by(f64::total_cmp)
    }

    fn lowest_failed(&self) -> Option<f64> {
        self.answered(false).map(|trial| trial.rate).min_by(f64::total_cmp)
    }

    fn passes_at(&self, rate: f64) -> usize {
        self.answered(true).filter(|trial| trial.rate >= rate).count()
    }

    /// The result as it is now.
    pub fn finding(&self) -> Finding {
        let (low, high) = self.interval();
        let (passed, failed) = (self.highest_passed(), self.lowest_failed());
        let narrow = high / low - 1.0 <= self.goal.width;
        let (limited_by, why) = match (self.generator(), passed, failed) {
            (Some(why), ..) => (LimitedBy::Generator, why.to_owned()),
            (None, Some(rate), None) if rate >= self.goal.max => {
                (LimitedBy::Maximum, "the highest rate that was allowed is carried".to_owned())
            }
            (None, Some(_), Some(_)) if self.confirmed() => (
                LimitedBy::Target,
                "beyond it the objectives fail, and a long trial below has passed".to_owned(),
            ),
            (None, None, Some(rate)) if !self.is_time_up() => {
                (LimitedBy::Target, format!("not even {rate:.1}/s is carried"))
            }
            _ if narrow => (LimitedBy::Undecided, "no long trial at the lower end has passed".to_owned()),
            _ => (LimitedBy::Undecided, format!("after {:.0} s time was up", self.spent())),
        };
        let both = passed.is_some() && failed.is_some() && limited_by != LimitedBy::Generator;
        Finding {
            limited_by,
            why,
            capacity: both.then(|| self.posterior.quantile(0.5)),
            low: if both { Some(low) } else { passed },
            high: both.then_some(high),
            confidence: self.goal.confidence,
            mlrsearch: self.bounds(),
            fails_first: self.fails_first(high),
            confirmed: self.confirmed(),
            collapse: self.collapse(),
            took_s: self.spent(),
        }
    }

    fn bounds(&self) -> Bounds {
        let trials: Vec<Trial> = self.trials.iter().filter(|trial| trial.teaches()).cloned().collect();
        bounds::bounds(&trials, self.goal.trial_s, self.goal.trial_s * 5.0)
    }

    /// The clause that most failures nearest above the capacity name.
    fn fails_first(&self, high: f64) -> Option<String> {
        let mut failures: Vec<(f64, &String)> = Vec::new();
        for trial in self.answered(false) {
            if let Answer::Failed { clause, .. } = &trial.answer {
                failures.push((trial.rate, clause));
            }
        }
        failures.sort_by(|a, b| a.0.total_cmp(&b.0));
        let near: Vec<&String> = failures
            .iter()
            .enumerate()
            .filter(|(at, (rate, _))| *at == 0 || *rate <= high * 1.1)
            .map(|(_, f)| f.1)
            .collect();
        let count = |clause: &String| near.iter().filter(|other| **other == clause).count();
        near.iter().max_by_key(|clause| count(clause)).map(|clause| (*clause).clone())
    }

    fn collapse(&self) -> Option<Collapse> {
        let overload = self.trials.iter().find(|trial| trial.purpose == Purpose::Overload)?;
        let back = |trial: &&Trial| trial.purpose == Purpose::Return && trial.passed() == Some(true);
        Some(Collapse {
            offered: overload.rate,
            good_per_s: overload.seen.good_per_s,
            recovered_at: self.trials.iter().find(back).map(|trial| trial.rate),
        })
    }
}

#[cfg(test)]
mod simulated_tests;
#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
