//! How much a target carries: a search over rates in which each trial passes or fails the objectives. Pure; somebody else
//! sends the load and looks at the clock.
//!
//! First rates are doubled until one fails, or lowered, by more each time, until one passes; where not one answer was good,
//! the lowest rate comes next, since then the rate is hardly to blame. Then each trial is made where it tells most about
//! the capacity (`posterior`), until the interval is narrow; a long trial at its lower end confirms it, or is one more
//! piece of evidence. A rate that plainly fails is then offered by twice the threads: if it is carried so, and
//! fails with as many as before, the generator was the limit. At last the target is offered too much, and less and less
//! again: how far must load fall until it recovers? Everything follows from the trials made so far, so a search can be
//! resumed.
//!
//! A trial that the generator could not send as asked says nothing about the target; two in a row end the search.

mod backlog;
mod bounds;
mod finding;
mod posterior;
mod trial;

pub use backlog::growth;
pub use bounds::Bounds;
pub use finding::{Collapse, Finding, LimitedBy, Proof};
use posterior::Posterior;
pub use trial::{Answer, Goal, Purpose, Seen, Trial};

/// How much of the interval the steps between tried rates are: rates that repeat are what [`Bounds`] need.
const STEPS: f64 = 4.0;
/// How much longer than asked for no trial becomes where requests are few.
const FEW: f64 = 6.0;
/// Trials while the order of magnitude is looked for, as a share of the others.
const BRACKET: f64 = 0.6;
/// No trial is further above the highest rate that has passed.
const CLIMB: f64 = 2.0;
/// How much lower than the first rate the lowest is, unless that is less than [`LOWEST`].
const HALVINGS: i32 = 10;
/// No rate below the first one is lower, in requests per second: a trial would see next to nothing.
const LOWEST: f64 = 1.0;
/// How many confirmations may fail.
const CONFIRMS: usize = 3;
/// How much is offered beyond the capacity, to see it collapse.
const OVERLOAD: f64 = 1.3;
/// What is then tried in turn, as shares of the capacity.
const RETURNS: [f64; 6] = [0.95, 0.85, 0.7, 0.5, 0.3, 0.1];

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
        let posterior = Posterior::between(goal.lowest() / CLIMB, goal.max * 1.5);
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
            return self.proving().unwrap_or_else(|| self.collapsing());
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
            (None, Some(_)) => self.lower().map_or(Step::Done, |rate| self.bracket(rate)),
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

    /// The next lower rate while none has passed; none if even the lowest has plainly failed.
    fn lower(&self) -> Option<f64> {
        let (lowest, failed) = (self.goal.lowest(), self.answered(false).count());
        let at_lowest = || self.answered(false).filter(|trial| trial.rate <= lowest);
        if at_lowest().any(Trial::hopeless) || at_lowest().count() >= 2 {
            return None;
        }
        if self.trials.last().is_some_and(Trial::hopeless) {
            return Some(lowest);
        }
        // By 2, 8, 64, 1024: soon at the end, and not far below what is carried.
        let halved = (failed * (failed + 1) / 2) as i32;
        Some((self.goal.start / CLIMB.powi(halved.min(HALVINGS))).max(lowest))
    }

    fn bracket(&self, rate: f64) -> Step {
        self.trial(Purpose::Bracket, rate, self.goal.trial_s * BRACKET)
    }

    /// A trial, longer where requests are few.
    fn trial(&self, purpose: Purpose, rate: f64, seconds: f64) -> Step {
        let needed = (self.goal.requests / rate).min(seconds * FEW);
        Step::Try { purpose, rate, seconds: seconds.max(needed.ceil()) }
    }

    /// The next trial of the proof that the generator is not the limit.
    fn proving(&self) -> Option<Step> {
        let trial = |purpose, rate| Some(self.trial(purpose, rate, self.goal.trial_s));
        match self.proof() {
            None if self.goal.prove => trial(Purpose::Proof, self.too_much()?),
            Some(Proof { rate, carried: Some(true), .. }) if !self.tried(Purpose::Repeat) => {
                trial(Purpose::Repeat, rate)
            }
            // What the target does when it has too much cannot be told by a generator that has not enough.
            Some(Proof { carried: Some(true), .. }) => Some(Step::Done),
            _ => None,
        }
    }

    /// A rate that plainly fails: nearer to the interval one may be carried by chance. One that has failed is taken
    /// if there is such, else what lies far enough, else the highest that has failed.
    fn too_much(&self) -> Option<f64> {
        let plainly = self.interval().1 * (1.0 + self.goal.width);
        let failed = || self.answered(false).map(|trial| trial.rate);
        let untried = (plainly <= self.goal.max).then_some(plainly);
        failed()
            .filter(|rate| *rate >= plainly)
            .min_by(f64::total_cmp)
            .or(untried)
            .or(failed().max_by(f64::total_cmp))
    }

    fn tried(&self, purpose: Purpose) -> bool {
        self.trials.iter().any(|trial| trial.purpose == purpose)
    }

    fn proof(&self) -> Option<Proof> {
        let last = |purpose| self.trials.iter().rfind(move |trial| trial.purpose == purpose);
        last(Purpose::Proof).map(|trial| Proof {
            rate: trial.rate,
            carried: trial.passed(),
            carried_before: last(Purpose::Repeat).and_then(Trial::passed),
        })
    }

    fn collapsing(&self) -> Step {
        let beyond = |trial: &&Trial| matches!(trial.purpose, Purpose::Overload | Purpose::Return);
        let done: Vec<&Trial> = self.trials.iter().filter(beyond).collect();
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
        // Of nothing, the sum of floats is -0.
        self.trials.iter().map(|trial| trial.took_s).fold(0.0, |sum, took| sum + took)
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
            (None, Some(rate), None) if rate >= self.goal.max && self.goal.at_generator => {
                (LimitedBy::Generator, "all that it can send, as it was calibrated, is carried".to_owned())
            }
            (None, Some(rate), None) if rate >= self.goal.max => {
                (LimitedBy::Maximum, "the highest rate that was allowed is carried".to_owned())
            }
            (None, Some(_), Some(_)) if self.confirmed() => self.doubted().unwrap_or_else(|| {
                let why = "beyond it the objectives fail, and a long trial below has passed";
                (LimitedBy::Target, why.to_owned())
            }),
            (None, None, Some(rate)) if !self.is_time_up() => {
                (LimitedBy::Target, format!("not even {rate:.1}/s is carried: {}", self.why_not(rate)))
            }
            _ if narrow => (LimitedBy::Undecided, "no long trial at the lower end has passed".to_owned()),
            _ if self.is_time_up() => {
                (LimitedBy::Undecided, format!("after {:.0} s time was up", self.spent()))
            }
            _ => (LimitedBy::Undecided, "it was ended before it was through".to_owned()),
        };
        // A single failure may have been a disturbance, so that little would be said above it; but nothing speaks for more.
        let high = match (passed, failed) {
            (Some(passed), Some(failed)) if !narrow && failed > passed => high.min(failed).max(low),
            _ => high,
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
            proof: self.proof(),
            collapse: self.collapse(),
            took_s: self.spent(),
        }
    }

    /// Why the last trial at this rate failed, and how its requests did.
    fn why_not(&self, rate: f64) -> String {
        let last = self.answered(false).filter(|trial| trial.rate <= rate).last();
        let Some(Trial { answer: Answer::Failed { clause, why }, seen, .. }) = last else {
            return String::new();
        };
        let why = if why.is_empty() { clause } else { why };
        seen.failures().map_or_else(|| why.clone(), |failures| format!("{why} ({failures})"))
    }

    /// What the proof says against the target as the limit.
    fn doubted(&self) -> Option<(LimitedBy, String)> {
        let Proof { rate, carried, carried_before } = self.proof()?;
        match (carried, carried_before) {
            (Some(true), Some(true)) => {
                Some((LimitedBy::Undecided, format!("{rate:.1}/s, beyond what was found, is carried now")))
            }
            (Some(true), _) => Some((
                LimitedBy::Generator,
                format!("{rate:.1}/s, beyond what was found, is carried when twice the threads send it"),
            )),
            _ => None,
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
