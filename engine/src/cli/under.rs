//! `squall capacity --under`: the same search while a fault lives, and what it costs.

use serde::{Deserialize, Serialize};

use super::capacity::{Plan, line};
use super::load::refusal;
use super::out::Out;
use super::view::View;
use crate::capacity::{Finding, Goal, LimitedBy, Search, Trial};
use crate::run::Signals;
use crate::run::inject::AdHoc;
use crate::slo::exit;
use crate::trial::{self, Ended, UnderError};

/// The search under a fault begins at this share of what is carried without it.
const BEGIN: f64 = 0.5;

/// What was found under one fault.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    /// The fault, as it was written.
    fault: String,
    /// Whether its effect was proven, in the words of the proof.
    proof: Vec<Proof>,
    finding: Finding,
    /// The share of the capacity that it costs; none if either is not known.
    lost: Option<Lost>,
    /// The exit code of the fault alone: whether it was proven and put back.
    fault_exit: u8,
    trials: Vec<Trial>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Proof {
    target: String,
    status: String,
    measured: String,
    undo: String,
}

/// A share of the capacity, with the interval that follows from those of both searches.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Lost {
    share: f64,
    low: f64,
    high: f64,
}

fn lost(alone: &Finding, under: &Finding) -> Option<Lost> {
    let of = |under: f64, alone: f64| 1.0 - under / alone;
    Some(Lost {
        share: of(under.capacity?, alone.capacity?),
        low: of(under.high?, alone.low?),
        high: of(under.low?, alone.high?),
    })
}

/// Makes the fault, searches, takes it back.
///
/// # Errors
/// The fault or the load could not be made, with the exit code.
pub(super) async fn under(
    fault: AdHoc,
    words: &str,
    plan: &Plan,
    alone: &Search,
    signals: &mut Signals,
    out: &mut Out,
) -> Result<(Row, Ended), (u8, String)> {
    let carried = alone.finding();
    let start = carried.low.map_or(alone.goal().start, |low| low * BEGIN);
    let goal = Goal { start, collapse: false, prove: false, ..alone.goal().clone() };
    let mut search = Search::new(goal, Vec::new());
    let mut view = View::new(out.quiet, out.json, injectors::secrets::Secrets::default());
    let mut number = 0;
    let told = |trial: &Trial| {
        number += 1;
        line(out, number, trial);
    };
    let came = trial::under(fault, plan.asked(), &mut search, signals, &mut view, told).await;
    drop(view);
    let came = came.map_err(|error| match error {
        UnderError::Fault(code, why) => (code, why),
        UnderError::Load(error) => refusal(&error),
    })?;
    let finding = search.finding();
    let proof = came.injections.into_iter().map(|one| Proof {
        target: one.target,
        status: one.proof.status,
        measured: one.proof.measured,
        undo: one.undo,
    });
    let row = Row {
        fault: words.to_owned(),
        proof: proof.collect(),
        lost: lost(&carried, &finding),
        finding,
        fault_exit: came.code,
        trials: search.trials().to_vec(),
    };
    // A fault that did not live as long as its search is told by its exit code.
    Ok((row, came.ended.unwrap_or(Ended::InTime)))
}

impl Row {
    /// Why this row decides nothing, with the exit code that follows.
    pub(super) fn doubt(&self, ended: Ended) -> Option<(u8, String)> {
        let unproven = self.proof.iter().find(|proof| proof.status != "confirmed");
        match (self.fault_exit, self.finding.limited_by) {
            (exit::NOT_RESTORED, _) => {
                Some((exit::NOT_RESTORED, "it was not put back: squall recover".to_owned()))
            }
            _ if ended == Ended::ByOperator => {
                Some((exit::ABORTED, "the operator ended it; the fault was put back".to_owned()))
            }
            (exit::INCONCLUSIVE, _) => {
                let why = unproven
                    .map_or_else(String::new, |proof| format!(": {}: {}", proof.status, proof.measured));
                Some((exit::INCONCLUSIVE, format!("the fault is not proven{why}")))
            }
            (exit::HELD, LimitedBy::Target | LimitedBy::Maximum) => None,
            (exit::HELD, _) => Some((exit::INCONCLUSIVE, self.finding.why.clone())),
            (code, _) => Some((code, "the fault did not live as long as the search".to_owned())),
        }
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let rate = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), reports::format::rate);
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let cost = match self.lost {
            Some(Lost { share, low, high }) => {
                format!(
                    "it costs {} of the capacity (from {} to {})",
                    percent(share),
                    percent(low),
                    percent(high)
                )
            }
            None => "what it costs is not known".to_owned(),
        };
        let fails = self.finding.fails_first.as_ref().map(|clause| format!("; fails first: {clause}"));
        let mut lines = vec![
            format!("under {}", self.fault),
            format!(
                "  capacity {}, between {} and {}; {cost}{}",
                rate(self.finding.capacity),
                rate(self.finding.low),
                rate(self.finding.high),
                fails.unwrap_or_default()
            ),
        ];
        lines.extend(self.proof.iter().map(|proof| {
            format!("  fault on {}: {} ({}); {}", proof.target, proof.status, proof.measured, proof.undo)
        }));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_follows_from_both_intervals() {
        let found = |low: f64, capacity: f64, high: f64| {
            let mut finding = Search::new(goal(), Vec::new()).finding();
            (finding.low, finding.capacity, finding.high) = (Some(low), Some(capacity), Some(high));
            finding
        };
        let Lost { share, low, high } =
            lost(&found(480.0, 500.0, 520.0), &found(240.0, 250.0, 260.0)).unwrap();
        assert!((share - 0.5).abs() < 1e-9);
        assert!((low - (1.0 - 260.0 / 480.0)).abs() < 1e-9 && (high - (1.0 - 240.0 / 520.0)).abs() < 1e-9);
        assert!(low < share && share < high);
    }

    fn goal() -> Goal {
        Goal {
            start: 50.0,
            max: 1000.0,
            width: 0.05,
            confidence: 0.9,
            trial_s: 5.0,
            requests: 0.0,
            confirm_s: 20.0,
            within_s: 60.0,
            collapse: false,
            at_generator: false,
            prove: false,
        }
    }
}
