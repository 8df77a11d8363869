//! Judging: from the facts of a record to a verdict. Pure, so that the same record gives the same answer a year later.

mod course;
mod finding;
mod host;
pub mod measure;
#[cfg(test)]
mod met_tests;
pub mod stats;
#[cfg(test)]
mod tests;
mod traffic;
pub mod waits;

use course::Recovery;
use reports::format::{instant, share};
use reports::record::{End, Judgement, LoadRecord, ObjectiveResult, Phase, RunRecord, Verdict};

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

pub(crate) use traffic::addresses;

pub use course::{STEADY_SECONDS, Slice, looks_steady};

/// Judges a record; its own judgement is not looked at.
pub fn judge(record: &RunRecord) -> Judgement {
    let results = results(record);
    let recovery = course::recovery(record);
    let (verdict, exit, reasons) = conclude(record, &results, &recovery);
    Judgement {
        verdict,
        exit,
        reasons,
        results,
        detect_s: course::detection(record),
        recover_s: recovery.seconds,
        recover_note: recovery.note,
        findings: finding::findings(record),
    }
}

fn results(record: &RunRecord) -> Vec<ObjectiveResult> {
    let mut results = Vec::new();
    for objective in &record.objectives {
        for phase in &objective.phases {
            if !record.phases.iter().any(|span| span.phase == *phase) {
                continue;
            }
            let load = record.loads.iter().find(|load| load.name == objective.journey);
            let mut result = measure::in_phase(objective, load, *phase);
            let stats = load.and_then(|load| load.phases.iter().find(|stats| stats.phase == *phase));
            if let (Verdict::Missed, Some(stats)) = (result.verdict, stats)
                && let Some(why) = host::excuse(record, objective, *phase, &stats.all).or_else(|| {
                    let generator = &record.generator;
                    waits::for_a_connection(objective, stats, generator.queued, generator.connections_max)
                })
            {
                (result.verdict, result.note) = (Verdict::Unknown, Some(why));
            }
            results.push(result);
        }
    }
    results
}

/// The verdict, the exit code and the reasons, the gravest first.
fn conclude(
    record: &RunRecord,
    results: &[ObjectiveResult],
    recovery: &Recovery,
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
            reasons.extend(host::shortage(record, Phase::Baseline));
            return (Verdict::Unknown, exit::INCONCLUSIVE, reasons);
        }
        End::Completed => {}
    }
    let doubts = doubts(record);
    if !doubts.is_empty() {
        return (Verdict::Unknown, exit::INCONCLUSIVE, doubts);
    }
    let missed = misses(record, results, recovery);
    if !missed.is_empty() {
        return (Verdict::Missed, exit::MISSED, missed);
    }
    let mut unknown: Vec<String> =
        results.iter().filter(|result| result.verdict == Verdict::Unknown).map(undecided).collect();
    unknown.extend(recovery.doubts.iter().cloned());
    // What nobody can meet, nobody misses: holding would say nothing.
    unknown.extend(finding::unmet(record));
    unknown.extend(unjudged(record));
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

/// Loads that plainly failed more than in the baseline, and that no objective judges: somebody may have noticed.
fn unjudged(record: &RunRecord) -> Vec<String> {
    let judged = |load: &&LoadRecord| record.objectives.iter().any(|o| o.journey == load.name);
    let mut reasons = Vec::new();
    for load in record.loads.iter().filter(|load| !judged(load)) {
        let good = |wanted: Phase| {
            let stats = load.phases.iter().find(|stats| stats.phase == wanted)?;
            Some((stats.all.failed(), stats::share(stats.all.ok, stats.all.done())?))
        };
        let Some((_, (before, _))) = good(Phase::Baseline) else { continue };
        let worse = [Phase::Fault, Phase::After].into_iter().find_map(|phase| {
            let stats = load.phases.iter().find(|stats| stats.phase == phase)?;
            let (failed, (_, high)) = good(phase)?;
            (high < before).then(|| (phase, failed as f64 / stats.all.done() as f64))
        });
        if let Some((phase, failed)) = worse {
            let (name, phase, failed) = (&load.name, phase.name(), share(failed));
            reasons.push(format!(
                "{failed} of {name} failed in {phase}, and no objective judges it: give it one, if only \
                 `availability: \">= 0%\"` where that may be"
            ));
        }
    }
    reasons
}

fn undecided(result: &ObjectiveResult) -> String {
    let why = result.note.as_ref().filter(|_| result.estimate.is_some());
    let why = why.map_or(String::new(), |why| format!("; {why}"));
    format!("undecided: {}{why}", measure::sentence(result))
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
    for (at, injection) in record.injections.iter().enumerate() {
        let proof = &injection.proof;
        let mut what = format!("{} on {}", injection.fault, injection.target);
        // As the reports number them.
        if let (2.., Some(applied)) = (record.injections.len(), injection.applied_s) {
            what = format!("F{}, {what}, at {},", at + 1, instant(applied));
        }
        match proof.status.as_str() {
            "confirmed" => {}
            "mismatch" => doubts.push(format!(
                "{what} did not have the requested effect: requested {}, measured {}",
                proof.requested, proof.measured
            )),
            _ => doubts.push(format!("{what} was not proven: {}", proof.measured)),
        }
    }
    if record.injections.is_empty() {
        doubts.push("nothing was injected".to_owned());
    }
    let silent = record.loads.iter().filter(|load| load.phases.iter().all(|stats| stats.all.done() == 0));
    doubts.extend(silent.map(|load| format!("no data: nothing came back for {}", load.name)));
    doubts
}

fn misses(record: &RunRecord, results: &[ObjectiveResult], recovery: &Recovery) -> Vec<String> {
    let mut missed: Vec<&ObjectiveResult> = results.iter().filter(|r| r.verdict == Verdict::Missed).collect();
    missed.sort_by_key(|result| (result.phase != Phase::Fault, result.phase));
    let mut reasons: Vec<String> = missed.into_iter().map(measure::sentence).collect();
    reasons.extend(recovery.missed.iter().cloned());
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
