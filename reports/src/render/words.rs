//! The sentences and states that all renderers share, not yet escaped.

use crate::format::{NONE, count, instant, many, percent, seconds, seconds_exact};
use crate::latency::Latencies;
use crate::record::{
    End, Finding, InjectionRecord, LoadRecord, Objective, Outcomes, Phase, RunRecord, Verdict,
};
use crate::table::Tone;
use crate::{RenderError, series};

/// Three ways in which a thing can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// As wished.
    Good,
    /// Not as wished.
    Bad,
    /// Cannot tell.
    Unsure,
}

impl State {
    /// Says it without colour.
    pub(super) fn icon(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Bad => "✗",
            Self::Unsure => "?",
        }
    }

    /// The tone on a terminal.
    pub(super) fn tone(self) -> Tone {
        match self {
            Self::Good => Tone::Good,
            Self::Bad => Tone::Bad,
            Self::Unsure => Tone::Unsure,
        }
    }

    /// The class in HTML.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Unsure => "unsure",
        }
    }
}

/// The state that goes with a verdict.
pub(super) fn verdict_state(verdict: Verdict) -> State {
    match verdict {
        Verdict::Held => State::Good,
        Verdict::Missed => State::Bad,
        Verdict::Unknown => State::Unsure,
    }
}

/// The state of a proof: `confirmed`, `mismatch`, `unproven`.
pub(super) fn proof_state(injection: &InjectionRecord) -> State {
    match injection.proof.status.as_str() {
        "confirmed" => State::Good,
        "mismatch" => State::Bad,
        _ => State::Unsure,
    }
}

/// The state of an undo: `restored`, `unverified`, `failed`, `not-needed`.
pub(super) fn undo_state(injection: &InjectionRecord) -> State {
    match injection.undo.as_str() {
        "restored" | "not-needed" => State::Good,
        "failed" => State::Bad,
        _ => State::Unsure,
    }
}

/// The state of a finding: a confirmed single point of failure is bad.
pub(super) fn finding_state(finding: &Finding) -> State {
    match finding.status.as_str() {
        "refuted" => State::Good,
        "confirmed" => State::Bad,
        _ => State::Unsure,
    }
}

/// The injections with their numbers, counted from 1; where not all are shown, those in doubt come first.
pub(super) fn injections(record: &RunRecord, max: usize) -> Vec<(usize, &InjectionRecord)> {
    let mut all: Vec<_> = (1..).zip(&record.injections).collect();
    if all.len() > max {
        let well = |it: &InjectionRecord| [proof_state(it), undo_state(it)].iter().all(|s| *s == State::Good);
        all.sort_by_key(|(_, injection)| well(injection));
    }
    all
}

/// What was measured of an injection, if anything.
pub(super) fn measured(injection: &InjectionRecord) -> &str {
    if injection.proof.measured.is_empty() { NONE } else { &injection.proof.measured }
}

/// From when until when an injection was live, in seconds of the run.
pub(super) fn live(injection: &InjectionRecord) -> String {
    match (injection.applied_s, injection.undone_s) {
        (None, _) => "never live".to_owned(),
        (Some(from), None) => format!("from {} on", instant(from)),
        (Some(from), Some(to)) => format!("{} – {}", instant(from), instant(to)),
    }
}

/// Requested against measured, in one line; what could not be proved has no tolerance.
pub(super) fn proved(injection: &InjectionRecord) -> String {
    let proof = &injection.proof;
    if proof_state(injection) == State::Unsure {
        let why = if proof.measured.is_empty() { "nothing was measured" } else { &proof.measured };
        return format!("requested {}; {why}", proof.requested);
    }
    let tolerance = match proof.tolerance.as_str() {
        "" | "none" => String::new(),
        tolerance => format!("; tolerance {tolerance}"),
    };
    format!("requested {}; measured {}{tolerance}", proof.requested, measured(injection))
}

/// Whether any request came back, well or not.
pub(super) fn has_data(record: &RunRecord) -> bool {
    record.loads.iter().flat_map(|load| &load.phases).any(|stats| stats.all.done() > 0)
}

/// Whether something was broken while requests came back: else nobody can say what broke and what recovered.
pub(super) fn was_tried(record: &RunRecord) -> bool {
    has_data(record) && record.injections.iter().any(|injection| injection.applied_s.is_some())
}

/// The verdict as a headline.
pub(super) struct Headline {
    /// How bad it is.
    pub(super) state: State,
    /// In capitals: the verdict and, where it is unknown, how that came about.
    pub(super) word: String,
    /// What that means.
    pub(super) meaning: String,
}

/// The verdict, and what a reader must know with it: whether something is left broken comes first.
pub(super) fn headline(record: &RunRecord) -> Headline {
    let verdict = record.judgement.verdict;
    let name = verdict.name().to_uppercase();
    let unknown =
        |state, why: &str, meaning: String| Headline { state, word: format!("{name} · {why}"), meaning };
    if !record.restoration.verified {
        return unknown(State::Bad, "NOT RESTORED", "something may still be broken".to_owned());
    }
    match (verdict, &record.end) {
        (Verdict::Unknown, End::Aborted { at_s, .. }) => {
            let meaning = format!("stopped at {}; everything is restored and verified", instant(*at_s));
            unknown(State::Unsure, "ABORTED", meaning)
        }
        (Verdict::Unknown, _) => unknown(State::Unsure, "INCONCLUSIVE", "the run cannot tell".to_owned()),
        (Verdict::Held, _) => {
            Headline { state: State::Good, word: name, meaning: "the hypothesis held".to_owned() }
        }
        (Verdict::Missed, _) => {
            Headline { state: State::Bad, word: name, meaning: "the hypothesis did not hold".to_owned() }
        }
    }
}

/// Why the verdict is what it is: the reasons but for commands, which are for [`super::next`], and how the run ended
/// unless a reason says so.
pub(super) fn reasons(record: &RunRecord) -> Vec<String> {
    let is_command =
        |reason: &&String| record.restoration.left.iter().any(|left| reason.ends_with(left.as_str()));
    let mut reasons: Vec<_> = record.judgement.reasons.iter().filter(|r| !is_command(r)).cloned().collect();
    let is_said = match &record.end {
        End::Completed => true,
        End::NotSteady(why) | End::Aborted { why, .. } => reasons.iter().any(|r| r.contains(why.as_str())),
    };
    reasons.extend(end(record).filter(|_| !is_said));
    reasons
}

/// How the run ended, unless it simply ran through.
pub(super) fn end(record: &RunRecord) -> Option<String> {
    match &record.end {
        End::Completed => None,
        End::NotSteady(why) => Some(format!("The baseline was not steady, so nothing was injected: {why}")),
        End::Aborted { by, why, at_s } => Some(format!("Aborted by {by} at {}: {why}", instant(*at_s))),
    }
}

/// A time that is only known to the second in which it ended.
pub(super) fn within(s: f64) -> String {
    format!("within {}", seconds_exact(s.ceil().max(1.0)))
}

/// How long it took until an objective broke; nothing when nothing was tried.
pub(super) fn detected(record: &RunRecord) -> Option<String> {
    was_tried(record).then(|| {
        record.judgement.detect_s.map_or_else(
            || not_detected(record).1.to_owned(),
            |s| format!("an objective broke {} of the first injection", within(s)),
        )
    })
}

/// How long after the last undo a good second began; one that had begun before means at once.
pub(super) fn soon(s: f64) -> String {
    if s <= 0.0 { "at once".to_owned() } else { seconds(s) }
}

/// What it means that there is no time of detection: a state, and why.
pub(super) fn not_detected(record: &RunRecord) -> (State, &'static str) {
    let in_fault = || record.judgement.results.iter().filter(|result| result.phase == Phase::Fault);
    if in_fault().next().is_none() {
        (State::Unsure, "no objective is judged in the fault phase")
    } else if in_fault().any(|result| result.verdict == Verdict::Missed) {
        (State::Bad, "an objective broke, but too few requests tell when")
    } else if in_fault().any(|result| result.verdict == Verdict::Unknown) {
        (State::Unsure, "no objective was seen to break, but not all could be decided")
    } else {
        (State::Good, "no objective broke")
    }
}

/// How long it took until all objectives held again; nothing when nothing was tried or broken.
pub(super) fn recovered(record: &RunRecord) -> Option<(State, String)> {
    if !was_tried(record) {
        return None;
    }
    let allowed = seconds_exact(record.recover_within_s);
    match (record.judgement.recover_s, record.judgement.detect_s) {
        (Some(s), _) => {
            let state = if s <= record.recover_within_s { State::Good } else { State::Bad };
            Some((state, format!("every objective held {} after the last undo ({allowed} allowed)", soon(s))))
        }
        (None, detected) => match &record.judgement.recover_note {
            Some(note) => Some((State::Unsure, format!("{note} ({allowed} allowed)"))),
            None => detected
                .map(|_| (State::Unsure, format!("not seen before the load ended ({allowed} allowed)"))),
        },
    }
}

/// What the generator says about itself, and why it must not be trusted if so.
pub(super) fn generator_facts(record: &RunRecord) -> String {
    let g = &record.generator;
    let waited = g.strain.iter().map(|strain| strain.waited).fold(0.0, f64::max);
    let strain = if g.strain.is_empty() {
        String::new()
    } else {
        format!("; the host was short of CPU for {} of a phase at most", percent(waited))
    };
    let facts = format!(
        "{} of {} arrivals sent by {}; start lateness p50 {}, p99 {}, max {}; CPU at most {}; {}{strain}",
        count(g.sent),
        count(g.due),
        many(u64::from(g.workers), "worker"),
        seconds(g.lag_p50_s),
        seconds(g.lag_p99_s),
        seconds(g.lag_max_s),
        percent(g.cpu_max),
        many(g.connections_max, "connection"),
    );
    if g.saturated.is_empty() { facts } else { format!("{}; {facts}", g.saturated.join("; ")) }
}

/// Whether the generator kept up, in one line.
pub(super) fn generator(record: &RunRecord) -> (State, String) {
    let (state, word) = if record.generator.saturated.is_empty() {
        (State::Good, "kept up")
    } else {
        (State::Unsure, "saturated")
    };
    (state, format!("{word}: {}", generator_facts(record)))
}

/// Whether the world is as it was, in one line; nothing when nothing was touched.
pub(super) fn restoration(record: &RunRecord) -> Option<(State, String)> {
    let restoration = &record.restoration;
    if restoration.verified && record.injections.is_empty() {
        return None;
    }
    Some(if restoration.verified {
        let kept =
            record.injections.iter().filter(|it| it.applied_s.is_some() && it.undo == "not-needed").count();
        let what = match kept {
            0 => "everything restored".to_owned(),
            _ => {
                format!("{} left as it is on purpose, everything else restored", many(kept as u64, "change"))
            }
        };
        (State::Good, format!("{what} and verified in {}", seconds(restoration.seconds)))
    } else {
        let left = restoration.left.len() as u64;
        let what =
            if left == 0 { "not verified".to_owned() } else { format!("{} left", many(left, "command")) };
        (
            State::Bad,
            format!("incomplete after {}: {what}; see `squall recover`", seconds(restoration.seconds)),
        )
    })
}

/// How long the run took, in seconds.
pub(super) fn length_s(record: &RunRecord) -> f64 {
    let length = record.ended_unix_s - record.started_unix_s;
    if length.is_finite() { length.max(0.0) } else { 0.0 }
}

/// An objective without its phases: `availability of checkout ≥ 99.9%`.
pub(super) fn clause(objective: &Objective) -> String {
    let limit = crate::format::limit(objective.sli, objective.at_least, objective.limit);
    format!("{} of {} {limit}", objective.sli.name(), objective.journey)
}

/// The latencies of some outcomes of a load.
pub(super) fn latencies(load: &LoadRecord, outcomes: &Outcomes) -> Result<Latencies, RenderError> {
    series::latencies(outcomes)
        .map_err(|source| RenderError::Latencies { journey: load.name.clone(), source })
}

/// Good answers per finished request; none when none finished.
pub(super) fn availability(outcomes: &Outcomes) -> Option<f64> {
    (outcomes.done() > 0).then(|| outcomes.ok as f64 / outcomes.done() as f64)
}
