//! The result of a search: as a document, and for people.

use serde::{Deserialize, Serialize};

use super::row::{Row, Worst};
use super::table;
use crate::capacity::{Answer, Finding, Goal, LimitedBy, Trial};
use crate::cli::out::Out;
use crate::experiment::Guard;
use crate::slo::exit;
use crate::trial::{Calibration, Ended};

/// The result, and all that it takes to go on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Document {
    /// What was sent and what had to hold, as options.
    pub(super) asked: String,
    /// What this machine can send; none if it was not measured.
    #[serde(default)]
    pub(super) calibration: Option<Calibration>,
    pub(super) goal: Goal,
    pub(super) finding: Finding,
    pub(super) at_least: Option<f64>,
    /// The highest rate of the load that the experiment sends, in requests per second; none of a URL.
    #[serde(default)]
    pub(super) demand: Option<f64>,
    /// The same with one thing broken at a time, the worst first.
    pub(super) under: Vec<Row>,
    /// The worst of them: of N-1 if that was asked for, else of all.
    #[serde(default)]
    pub(super) worst: Option<Worst>,
    pub(super) exit: u8,
    pub(super) reasons: Vec<String>,
    pub(super) seed: u64,
    /// Those of the search without a fault; rows have their own.
    pub(super) trials: Vec<Trial>,
}

impl Document {
    /// Prints it; the exit code.
    pub(super) fn deliver(&self, out: &mut Out) -> u8 {
        if out.json {
            out.document(self);
        } else {
            out.result(self.text(out.colour()).as_bytes());
        }
        self.exit
    }

    /// For people.
    fn text(&self, colour: bool) -> String {
        let Self { finding, trials, .. } = self;
        let mut lines = found(finding);
        lines.extend(self.calibration.as_ref().map(sentence));
        lines.push(format!("{} trials in {:.0} s", trials.len(), finding.took_s));
        if !self.under.is_empty() {
            lines.push(String::new());
            lines.extend(table::lines(finding, &self.under, colour));
            lines.push(String::new());
        }
        lines.extend(self.worst.as_ref().map(Worst::sentence));
        lines.extend(self.reasons.iter().map(|reason| format!("• {}", reports::escape::terminal(reason))));
        lines.join("\n") + "\n"
    }
}

fn found(finding: &Finding) -> Vec<String> {
    let rate = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), reports::format::rate);
    let mut lines = Vec::new();
    match (finding.limited_by, finding.capacity) {
        (LimitedBy::Target | LimitedBy::Undecided, Some(capacity)) => lines.push(format!(
            "capacity {}, between {} and {} with {:.0} % confidence",
            reports::format::rate(capacity),
            rate(finding.low),
            rate(finding.high),
            finding.confidence * 100.0
        )),
        (LimitedBy::Target, None) => lines.push("capacity: none that could be found".to_owned()),
        _ => lines.push(format!("carries at least {}", rate(finding.low))),
    }
    lines.push(format!("limited by: {} ({})", finding.limited_by.name(), finding.why));
    if let Some(clause) = &finding.fails_first {
        lines.push(format!("fails first: {clause}"));
    }
    let bounds = finding.mlrsearch;
    if bounds.lower.is_some() || bounds.upper.is_some() {
        lines.push(format!("MLRsearch bounds: {} and {}", rate(bounds.lower), rate(bounds.upper)));
    }
    if let Some(proof) = &finding.proof {
        let said = match (proof.carried, proof.carried_before) {
            (Some(false), _) => "fails as well: the generator is not the limit",
            (Some(true), Some(true)) => "is carried, and with as many as before, too: the target has changed",
            (Some(true), _) => "is carried: the generator was the limit",
            (None, _) => "could not be sent: nothing is proven by it",
        };
        lines.push(format!("proof: {} from twice the threads {said}", reports::format::rate(proof.rate)));
    }
    if let Some(collapse) = &finding.collapse {
        lines.push(format!(
            "offered {}, it gave {} good answers; it recovered at {}",
            reports::format::rate(collapse.offered),
            reports::format::rate(collapse.good_per_s),
            collapse
                .recovered_at
                .map_or_else(|| "none of the lower rates that were tried".to_owned(), reports::format::rate)
        ));
    }
    lines
}

/// A calibration on one line.
pub(super) fn sentence(found: &Calibration) -> String {
    let time = reports::format::seconds;
    format!(
        "generator: up to {} from {}{}; against its own null server p50 {}, p99 {}",
        reports::format::rate(found.rate),
        reports::format::many(u64::from(found.threads), "thread"),
        if found.throttled { " under the CPU limit of its control group" } else { " at 80% of their CPU" },
        time(found.p50_s),
        time(found.p99_s)
    )
}

/// The exit code of one search, and why.
pub(super) fn concluded(
    finding: &Finding,
    guards: &[Guard],
    ended: Ended,
    at_least: Option<f64>,
) -> (u8, Vec<String>) {
    match ended {
        Ended::ByOperator => {
            let why = "the operator ended it: --resume goes on from a --json document";
            return (exit::ABORTED, vec![why.to_owned()]);
        }
        Ended::ByGuard(at) => return (exit::ABORTED, vec![tripped(guards, at)]),
        Ended::InTime | Ended::ByWatcher => {}
    }
    let carried = finding.low.unwrap_or(0.0);
    match (finding.limited_by, at_least) {
        // What has been carried is enough, whatever kept it from being more.
        (LimitedBy::Target | LimitedBy::Maximum | LimitedBy::Generator, Some(wanted))
            if carried >= wanted =>
        {
            (exit::HELD, Vec::new())
        }
        (LimitedBy::Target, Some(wanted)) if finding.high.unwrap_or(0.0) < wanted => {
            (exit::MISSED, vec![format!("at least {wanted}/s were wanted")])
        }
        (LimitedBy::Target | LimitedBy::Maximum, Some(wanted)) => {
            (exit::INCONCLUSIVE, vec![format!("the {wanted}/s that are wanted lie inside the interval")])
        }
        (LimitedBy::Target | LimitedBy::Maximum, None) => (exit::HELD, Vec::new()),
        (LimitedBy::Generator | LimitedBy::Undecided, _) => (exit::INCONCLUSIVE, vec![finding.why.clone()]),
    }
}

/// That a guard ended a search.
pub(super) fn tripped(guards: &[Guard], at: usize) -> String {
    let text = guards.get(at).map_or("?", |guard| guard.text.as_str());
    format!("the guard `{text}` ended it: --max keeps the search below what trips it")
}

/// One trial on one line.
pub(super) fn line(out: &mut Out, number: usize, trial: &Trial) {
    if out.json {
        out.event(&serde_json::json!({"event": "trial", "number": number, "trial": trial}));
        return;
    }
    let answer = match &trial.answer {
        Answer::Passed => "passed".to_owned(),
        Answer::Failed { clause, .. } => match trial.seen.failures() {
            Some(failures) => format!("failed: {clause} ({failures})"),
            None => format!("failed: {clause}"),
        },
        Answer::Invalid { why } => format!("invalid: {why}"),
    };
    let time = |seconds: Option<f64>| seconds.map_or_else(|| "–".to_owned(), reports::format::seconds);
    out.tell(&format!(
        "{number:>3}  {:<8} {:>12} {:>5.0} s   p50 {:>8}   p99 {:>8}   {answer}",
        trial.purpose.name(),
        reports::format::rate(trial.rate),
        trial.seconds,
        time(trial.seen.p50_s),
        time(trial.seen.p99_s)
    ));
}
