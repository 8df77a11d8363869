//! Judging: from the facts of a record to a verdict. Pure, so that the same record gives the same answer a year later.

mod finding;
pub mod measure;
pub mod stats;
#[cfg(test)]
mod tests;

use reports::record::{Bucket, End, Judgement, LoadRecord, ObjectiveResult, Phase, RunRecord, Verdict};

/// Exit codes: one class of ending each.
pub mod exit {
    /// The hypothesis held.
    pub const HELD: u8 = 0;
    /// It was missed.
    pub const MISSED: u8 = 1;
    /// Invalid input: nothing was touched.
    pub const INVALID: u8 = 2;
    /// Refused before the start.
    pub const REFUSED: u8 = 3;
    /// Aborted, restored and verified.
    pub const ABORTED: u8 = 4;
    /// Restoration incomplete or unverified.
    pub const NOT_RESTORED: u8 = 5;
    /// Inconclusive.
    pub const INCONCLUSIVE: u8 = 6;
    /// A bug of ours.
    pub const BUG: u8 = 70;
}

/// Seconds on end that must be good before the objectives count as holding again.
pub const STEADY_SECONDS: usize = 3;

/// Judges a record; its own judgement is not looked at.
pub fn judge(record: &RunRecord) -> Judgement {
    let results = results(record);
    let (detect_s, recover_s) = (detect(record), recover(record));
    let findings = finding::findings(record);
    let (verdict, exit, reasons) = conclude(record, &results, recover_s);
    Judgement { verdict, exit, reasons, results, detect_s, recover_s, findings }
}

fn results(record: &RunRecord) -> Vec<ObjectiveResult> {
    let mut results = Vec::new();
    for objective in &record.objectives {
        for phase in &objective.phases {
            if !record.phases.iter().any(|span| span.phase == *phase) {
                continue;
            }
            let load = record.loads.iter().find(|load| load.name == objective.journey);
            results.push(measure::in_phase(objective, load, *phase));
        }
    }
    results
}

/// The verdict, the exit code and the reasons, the gravest first.
fn conclude(
    record: &RunRecord,
    results: &[ObjectiveResult],
    recover_s: Option<f64>,
) -> (Verdict, u8, Vec<String>) {
    if !record.restoration.verified {
        let mut reasons =
            vec!["the world is not as it was: restoration is incomplete or unverified".to_owned()];
        reasons.extend(record.restoration.left.iter().map(|left| format!("to restore by hand: {left}")));
        return (Verdict::Unknown, exit::NOT_RESTORED, reasons);
    }
    match &record.end {
        End::Aborted { by, why, .. } => {
            let reason = format!("aborted by {by}: {why}; everything was restored and verified");
            return (Verdict::Unknown, exit::ABORTED, vec![reason]);
        }
        End::NotSteady(why) => {
            let mut reasons = saturation(record);
            reasons.push(format!("the baseline was not steady, so nothing was injected: {why}"));
            return (Verdict::Unknown, exit::INCONCLUSIVE, reasons);
        }
        End::Completed => {}
    }
    let doubts = doubts(record);
    if !doubts.is_empty() {
        return (Verdict::Unknown, exit::INCONCLUSIVE, doubts);
    }
    let missed = misses(record, results, recover_s);
    if !missed.is_empty() {
        return (Verdict::Missed, exit::MISSED, missed);
    }
    let unknown: Vec<String> = results
        .iter()
        .filter(|result| result.verdict == Verdict::Unknown)
        .map(|result| format!("undecided: {}", measure::sentence(result)))
        .collect();
    if !unknown.is_empty() || results.is_empty() {
        let reasons = if unknown.is_empty() { vec!["nothing was judged".to_owned()] } else { unknown };
        return (Verdict::Unknown, exit::INCONCLUSIVE, reasons);
    }
    let reason = format!(
        "every objective held in every phase ({} clauses), and every fault was proven",
        results.len()
    );
    (Verdict::Held, exit::HELD, vec![reason])
}

/// Why the load itself must not be believed.
fn saturation(record: &RunRecord) -> Vec<String> {
    record
        .generator
        .saturated
        .iter()
        .map(|why| format!("the load generator did not keep up: {why}"))
        .collect()
}

/// Why the data must not be believed, whatever the objectives say.
fn doubts(record: &RunRecord) -> Vec<String> {
    let mut doubts = saturation(record);
    for injection in &record.injections {
        if injection.proof.status != "confirmed" {
            let status = match injection.proof.status.as_str() {
                "mismatch" => "does not match",
                _ => "is unproven",
            };
            doubts.push(format!(
                "{} on {} {status}: requested {}, measured {}",
                injection.fault, injection.target, injection.proof.requested, injection.proof.measured
            ));
        }
    }
    if record.injections.is_empty() {
        doubts.push("nothing was injected".to_owned());
    }
    let silent = record.loads.iter().filter(|load| load.phases.iter().all(|stats| stats.all.done() == 0));
    doubts.extend(silent.map(|load| format!("no data: nothing came back for {}", load.name)));
    doubts
}

fn misses(record: &RunRecord, results: &[ObjectiveResult], recover_s: Option<f64>) -> Vec<String> {
    let mut missed: Vec<&ObjectiveResult> = results.iter().filter(|r| r.verdict == Verdict::Missed).collect();
    missed.sort_by_key(|result| (result.phase != Phase::Fault, result.phase));
    let mut reasons: Vec<String> = missed.into_iter().map(measure::sentence).collect();
    match recover_s {
        Some(seconds) if seconds > record.recover_within_s => reasons.push(format!(
            "recovery took {seconds:.1} s, longer than the {:.1} s allowed",
            record.recover_within_s
        )),
        None => reasons.push("the objectives did not hold again before the load ended".to_owned()),
        Some(_) => {}
    }
    for probe in &record.probes {
        for seen in probe.seen.iter().filter(|seen| probe.phases.contains(&seen.phase) && seen.missed > 0) {
            let why = seen.last_miss.as_deref().unwrap_or("no reason");
            reasons.push(format!(
                "probe {} was outside its tolerance {} of {} times in {}: {why}",
                probe.name,
                seen.missed,
                seen.missed + seen.held,
                seen.phase.name()
            ));
        }
    }
    reasons
}

/// Whether any objective is plainly broken within this slice: its whole interval is on the bad side.
fn bad(record: &RunRecord, load: &LoadRecord, bucket: &Bucket) -> bool {
    let own = record.objectives.iter().filter(|objective| objective.journey == load.name);
    own.into_iter().any(|objective| measure::of_bucket(objective, bucket) == Verdict::Missed)
}

/// From the first injection to the end of the first bad second.
fn detect(record: &RunRecord) -> Option<f64> {
    let applied = record.injections.iter().filter_map(|i| i.applied_s).reduce(f64::min)?;
    let undone = last_undo(record).unwrap_or(f64::INFINITY);
    let seconds = record.loads.iter().flat_map(|load| {
        let live = load.buckets.iter().filter(|b| b.phase == Phase::Fault && b.at_s < undone);
        live.filter(|bucket| bad(record, load, bucket)).map(|bucket| bucket.at_s + bucket.len_s)
    });
    seconds.reduce(f64::min).map(|second| (second - applied).max(0.0))
}

fn last_undo(record: &RunRecord) -> Option<f64> {
    record.injections.iter().filter_map(|i| i.undone_s).reduce(f64::max)
}

/// From the last undo to the start of the first [`STEADY_SECONDS`] good seconds on end of every load.
fn recover(record: &RunRecord) -> Option<f64> {
    let undone = last_undo(record)?;
    let mut slowest: f64 = 0.0;
    for load in &record.loads {
        let after: Vec<&Bucket> =
            load.buckets.iter().filter(|b| b.at_s >= undone.floor() && b.phase > Phase::Fault).collect();
        let wanted = STEADY_SECONDS.min(after.len()).max(1);
        let good = |window: &[&Bucket]| !window.iter().any(|bucket| bad(record, load, bucket));
        let at = after.windows(wanted).find(|window| good(window))?.first()?.at_s;
        // A second that began before the undo and is good means: at once.
        slowest = slowest.max(at - undone);
    }
    Some(slowest.max(0.0))
}
