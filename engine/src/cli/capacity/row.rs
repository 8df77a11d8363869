//! What was found with one thing broken, and what it costs.

use reports::format::rate;
use serde::{Deserialize, Serialize};

use super::document::{concluded, tripped};
use crate::capacity::{Finding, LimitedBy, Search, Trial};
use crate::experiment::Guard;
use crate::plan::CaseKind;
use crate::slo::exit;
use crate::trial::{Ended, Under};

/// What was found with one thing broken.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    /// What was broken, in words; a fault that was given by hand as it was written.
    pub(super) what: String,
    /// Where that comes from.
    pub(super) kind: CaseKind,
    /// By injection: whether its effect was proven, in the words of the proof, and whether it was put back.
    pub(super) proof: Vec<Proof>,
    pub(super) finding: Finding,
    /// The share of the capacity that it costs; none if either is not known.
    pub(super) lost: Option<Lost>,
    /// The exit code of the fault alone: whether it was proven and put back.
    pub(super) fault_exit: u8,
    pub(super) trials: Vec<Trial>,
}

/// What became of one injection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Proof {
    target: String,
    status: String,
    measured: String,
    undo: String,
}

/// A share of the capacity, with the interval that follows from those of both searches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Lost {
    pub(super) share: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// The worst row, and what it means for the load.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Worst {
    /// What was broken, in words.
    what: String,
    /// What is carried then, in requests per second: 0 if nothing is.
    carried: f64,
    /// The share of the capacity that is lost.
    lost: Option<f64>,
    /// The highest rate of the load that the experiment sends.
    demand: Option<f64>,
    /// What can be added to that before an objective breaks; negative if it is too much already.
    headroom: Option<f64>,
}

fn lost(alone: &Finding, under: &Finding, trials: &[Trial]) -> Option<Lost> {
    let of = |under: f64, alone: f64| 1.0 - under / alone;
    if nothing(under) {
        // The lowest rate that has failed is all that is known.
        let lowest = trials.iter().map(|trial| trial.rate).fold(f64::INFINITY, f64::min);
        return Some(Lost { share: 1.0, low: of(lowest, alone.low?), high: 1.0 });
    }
    Some(Lost {
        share: of(under.capacity?, alone.capacity?),
        low: of(under.high?, alone.low?),
        high: of(under.low?, alone.high?),
    })
}

/// Whether there is a proof for all that was to be broken.
fn proven(proof: &[Proof]) -> bool {
    !proof.is_empty() && proof.iter().all(|proof| proof.status == "confirmed")
}

/// Whether not even the lowest rate is carried.
pub(super) fn nothing(finding: &Finding) -> bool {
    finding.limited_by == LimitedBy::Target && finding.low.is_none()
}

/// The worst first; those of which nothing is known last.
pub(super) fn sort(rows: &mut [Row]) {
    let share = |row: &Row| row.lost.map_or(f64::NEG_INFINITY, |lost| lost.share);
    rows.sort_by(|a, b| share(b).total_cmp(&share(a)));
}

/// The worst row: of N-1 if there are such, else of all. What is not proven to have been broken says nothing.
pub(super) fn worst(rows: &[Row], demand: Option<f64>) -> Option<Worst> {
    let of_losses = rows.iter().any(|row| row.kind != CaseKind::Fault);
    let known = rows.iter().filter(|row| row.is_proven() && (!of_losses || row.kind != CaseKind::Fault));
    let carried = |row: &Row| match row.finding.capacity {
        Some(capacity) => Some(capacity),
        None if nothing(&row.finding) => Some(0.0),
        None => row.finding.low,
    };
    let (row, carried) =
        known.filter_map(|row| Some((row, carried(row)?))).min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Worst {
        what: row.what.clone(),
        carried,
        lost: row.lost.map(|lost| lost.share),
        demand,
        headroom: demand.map(|demand| carried - demand),
    })
}

impl Worst {
    /// In one sentence.
    pub(super) fn sentence(&self) -> String {
        let what = reports::escape::terminal(&self.what);
        let carried = if self.carried > 0.0 { rate(self.carried) } else { "not a single one".to_owned() };
        let less = match self.lost {
            Some(lost) if lost >= 0.005 && self.carried > 0.0 => format!(": {:.0} % less", lost * 100.0),
            Some(_) if self.carried > 0.0 => ": no less than without".to_owned(),
            _ => String::new(),
        };
        let room = match (self.demand, self.headroom) {
            (Some(demand), Some(room)) if room >= 0.0 => {
                format!("; at {} there is {} of headroom", rate(demand), rate(room))
            }
            (Some(demand), Some(short)) => {
                format!("; that is {} too little for the {} of this load", rate(-short), rate(demand))
            }
            _ => String::new(),
        };
        format!(
            "worst: with {what}, {carried} {} carried{less}{room}",
            if self.carried > 0.0 { "are" } else { "is" }
        )
    }
}

impl Row {
    pub(super) fn new(what: String, kind: CaseKind, came: Under, alone: &Finding, search: &Search) -> Self {
        let finding = search.finding();
        let proof = came.injections.into_iter().map(|one| Proof {
            target: one.target,
            status: one.proof.status,
            measured: one.proof.measured,
            undo: one.undo,
        });
        let proof: Vec<Proof> = proof.collect();
        let lost = lost(alone, &finding, search.trials()).filter(|_| proven(&proof));
        Self { what, kind, proof, lost, finding, fault_exit: came.code, trials: search.trials().to_vec() }
    }

    fn is_proven(&self) -> bool {
        proven(&self.proof)
    }

    /// Why this row decides nothing, with the exit code that follows.
    pub(super) fn doubt(&self, guards: &[Guard], ended: Ended) -> Option<(u8, String)> {
        let unproven = self.proof.iter().find(|proof| proof.status != "confirmed");
        match (self.fault_exit, self.finding.limited_by) {
            (exit::NOT_RESTORED, _) => {
                Some((exit::NOT_RESTORED, "it was not put back: squall recover".to_owned()))
            }
            _ if ended == Ended::ByOperator => {
                Some((exit::ABORTED, "the operator ended it; the fault was put back".to_owned()))
            }
            (code, _) if let Ended::ByGuard(at) = ended => {
                let why = format!("{}; the fault was put back", tripped(guards, at));
                Some((if code == exit::HELD { exit::ABORTED } else { code.max(exit::ABORTED) }, why))
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

    /// Whether it carries what is wanted, with the exit code if it does not.
    pub(super) fn judged(&self, at_least: Option<f64>) -> Option<(u8, String)> {
        let (code, why) = concluded(&self.finding, &[], Ended::InTime, at_least);
        (code != exit::HELD).then(|| (code, why.join("; ")))
    }

    /// Whether its faults were proven, in a word or two.
    pub(super) fn proven(&self) -> String {
        let undone = self.proof.iter().all(|proof| matches!(proof.undo.as_str(), "restored" | "not-needed"));
        let status =
            self.proof.iter().map(|proof| proof.status.as_str()).find(|status| *status != "confirmed");
        let status = status.unwrap_or(if self.proof.is_empty() { "unproven" } else { "confirmed" });
        format!("{status}{}", if undone { "" } else { ", not restored" })
    }

    /// What was measured where a fault is not proven, or not put back.
    pub(super) fn doubtful(&self) -> impl Iterator<Item = String> {
        let well = |proof: &&Proof| {
            proof.status == "confirmed" && matches!(proof.undo.as_str(), "restored" | "not-needed")
        };
        self.proof.iter().filter(move |proof| !well(proof)).map(|proof| {
            format!(
                "{} on {}: {} ({}); undo {}",
                self.what, proof.target, proof.status, proof.measured, proof.undo
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Goal;

    fn found(low: f64, capacity: f64, high: f64) -> Finding {
        let mut finding = Search::new(goal(), Vec::new()).finding();
        finding.limited_by = LimitedBy::Target;
        (finding.low, finding.capacity, finding.high) = (Some(low), Some(capacity), Some(high));
        finding
    }

    fn none() -> Finding {
        Finding { low: None, capacity: None, high: None, ..found(0.0, 0.0, 0.0) }
    }

    fn row(what: &str, kind: CaseKind, finding: Finding) -> Row {
        let alone = found(480.0, 500.0, 520.0);
        let trials = vec![Trial::new(1.0, 3.0, crate::capacity::Answer::failed("availability"))];
        let lost = lost(&alone, &finding, &trials);
        let proof = vec![proof("confirmed")];
        Row { what: what.to_owned(), kind, proof, finding, lost, fault_exit: exit::HELD, trials }
    }

    fn proof(status: &str) -> Proof {
        let [target, measured] = ["x", "y"].map(str::to_owned);
        Proof { target, status: status.to_owned(), measured, undo: "restored".to_owned() }
    }

    #[test]
    fn the_cost_follows_from_both_intervals() {
        let Lost { share, low, high } =
            lost(&found(480.0, 500.0, 520.0), &found(240.0, 250.0, 260.0), &[]).unwrap();
        assert!((share - 0.5).abs() < 1e-9);
        assert!((low - (1.0 - 260.0 / 480.0)).abs() < 1e-9 && (high - (1.0 - 240.0 / 520.0)).abs() < 1e-9);
        assert!(low < share && share < high);
        let all = row("auth-1 down", CaseKind::Instance, none()).lost.unwrap();
        assert!(all.share == 1.0 && all.high == 1.0 && (all.low - (1.0 - 1.0 / 480.0)).abs() < 1e-9);
    }

    #[test]
    fn the_worst_of_what_may_be_missing_is_one_sentence() {
        let mut rows = vec![
            row("sin down", CaseKind::Pop, found(400.0, 412.0, 420.0)),
            row("a slow disk", CaseKind::Fault, found(90.0, 100.0, 110.0)),
            row("fra down", CaseKind::Pop, found(300.0, 310.0, 320.0)),
        ];
        sort(&mut rows);
        assert_eq!(
            rows.iter().map(|row| row.what.as_str()).collect::<Vec<_>>(),
            ["a slow disk", "fra down", "sin down"]
        );
        let said = |rows: &[Row], demand| worst(rows, demand).unwrap().sentence();
        assert_eq!(
            said(&rows, Some(250.0)),
            "worst: with fra down, 310/s are carried: 38 % less; at 250/s there is 60/s of headroom"
        );
        assert!(said(&rows, Some(350.0)).ends_with("; that is 40/s too little for the 350/s of this load"));
        assert!(said(&rows, None).ends_with("38 % less"));
        rows.push(row("zone a down", CaseKind::Zone, none()));
        assert_eq!(said(&rows, None), "worst: with zone a down, not a single one is carried");
        rows[2].proof = vec![proof("unproven")];
        rows[3].proof.push(proof("mismatch"));
        assert!(said(&rows, None).contains("with fra down"), "what is not proven says nothing");
        rows.retain(|row| row.kind == CaseKind::Fault);
        assert!(said(&rows, None).starts_with("worst: with a slow disk, 100/s"));
        assert_eq!(worst(&[], None), None);
    }

    #[test]
    fn the_worst_row_decides_what_is_wanted() {
        let row = row("fra down", CaseKind::Pop, found(300.0, 310.0, 320.0));
        assert_eq!(row.judged(Some(290.0)), None);
        assert_eq!(row.judged(Some(330.0)).unwrap().0, exit::MISSED);
        assert_eq!(row.judged(Some(310.0)).unwrap().0, exit::INCONCLUSIVE);
        assert_eq!(row.judged(None), None);
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
