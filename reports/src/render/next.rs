//! What a person does after reading a report: the one question that every report must answer.

use super::words::{self, State};
use crate::format::many;
use crate::record::{End, Finding, InjectionRecord, RunRecord, Verdict};

/// A step in words, and the commands that go with it; neither is escaped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// What to do, as a sentence.
    pub(super) text: String,
    /// What to type.
    pub(super) commands: Vec<String>,
}

/// What to do next, the most urgent first.
pub(super) fn steps(record: &RunRecord) -> Vec<Step> {
    let mut steps = Vec::new();
    if !record.restoration.verified {
        steps.push(Step {
            text: "Put back what is left of this run, and prove it.".to_owned(),
            commands: vec![format!("squall recover --run {}", record.run)],
        });
        let left = &record.restoration.left;
        if !left.is_empty() {
            let text = "If that does not succeed, restore by hand.".to_owned();
            steps.push(Step { text, commands: left.clone() });
        }
    }
    steps.push(Step { text: repetition(record), commands: vec![record.reproduce.clone()] });
    steps
}

/// What must happen before the run is worth repeating.
fn repetition(record: &RunRecord) -> String {
    match &record.end {
        End::NotSteady(_) => {
            return "Nothing was broken. Find out why the steady state does not hold without a fault, then repeat."
                .to_owned();
        }
        End::Aborted { by, .. } => return after_abort(by),
        End::Completed => {}
    }
    match record.judgement.verdict {
        Verdict::Held => after_hold(record),
        Verdict::Missed => after_miss(record),
        Verdict::Unknown => after_doubt(record),
    }
}

/// What held says something only about what is shown to have been met.
fn after_hold(record: &RunRecord) -> String {
    let findings = &record.judgement.findings;
    let mut unmet: Vec<&str> = Vec::new();
    for finding in findings {
        let same = |other: &&Finding| other.target == finding.target && other.fault == finding.fault;
        let met = findings.iter().filter(same).any(|other| words::finding_state(other) == State::Good);
        if !met && !unmet.contains(&finding.target.as_str()) {
            unmet.push(&finding.target);
        }
    }
    let what = match unmet.as_slice() {
        [] => {
            return "Nothing to mend. Repeat it with each release, or ask a harder question.".to_owned();
        }
        [one] => (*one).to_owned(),
        [one, others @ ..] => format!("{one} and {}", many(others.len() as u64, "other thing")),
    };
    format!(
        "The run shows that these journeys held, not that they met {what}. Send the load there, or let answers name \
         who served them (x-squall-path), then repeat."
    )
}

fn after_abort(by: &str) -> String {
    match by {
        "operator" => "Repeat it when it suits; the verdict needs a whole run.",
        "guard" => "See below what the guard saw. Mend it, or make the fault milder, then repeat.",
        _ => "See below what went wrong. Mend it, then repeat.",
    }
    .to_owned()
}

fn after_miss(record: &RunRecord) -> String {
    let findings = &record.judgement.findings;
    let mut broken: Vec<&str> = Vec::new();
    for finding in findings.iter().filter(|finding| words::finding_state(finding) == State::Bad) {
        if !broken.contains(&finding.target.as_str()) {
            broken.push(&finding.target);
        }
    }
    match (broken.as_slice(), record.injections.len()) {
        ([], 2..) => {
            "Break one thing at a time to see which one matters, then mend that and repeat.".to_owned()
        }
        ([], _) => "Find the cause in the objectives that missed, mend it, then repeat.".to_owned(),
        ([one], _) => {
            format!("Mend the single point of failure {one}; the remedy is with its evidence. Then repeat.")
        }
        (many, _) => format!(
            "Mend the {} single points of failure; each remedy is with its evidence. Then repeat.",
            many.len()
        ),
    }
}

fn after_doubt(record: &RunRecord) -> String {
    if !record.generator.saturated.is_empty() {
        return "Give the load generator a free processor or fewer arrivals, then repeat.".to_owned();
    }
    if !words::has_data(record) {
        return "No request came back: see that the load's address is right and its target runs, then repeat."
            .to_owned();
    }
    let doubtful = |i: &&InjectionRecord| words::proof_state(i) != State::Good;
    match record.injections.iter().find(doubtful) {
        Some(injection) if words::proof_state(injection) == State::Bad => format!(
            "Find out why {} on {} had another effect than requested, then repeat.",
            injection.fault, injection.target
        ),
        Some(injection) => format!(
            "Make sure that {} on {} has something to act on, such as requests, then repeat.",
            injection.fault, injection.target
        ),
        None if unjudged(record) => {
            "Say in an objective what each load may lose, or mend what it lost, then repeat.".to_owned()
        }
        None => "Collect more data, with a longer phase or more arrivals, until each interval is on one side of its \
                 limit."
            .to_owned(),
    }
}

/// Whether the run is in doubt for a load that failed and that no objective judges.
fn unjudged(record: &RunRecord) -> bool {
    record.judgement.reasons.iter().any(|reason| reason.contains("no objective judges it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn texts(record: &RunRecord) -> Vec<String> {
        steps(record).into_iter().map(|step| step.text).collect()
    }

    #[test]
    fn every_ending_has_a_next_step_with_a_command() {
        for (name, record) in sample::all() {
            let steps = steps(&record);
            assert!(!steps.is_empty(), "{name}");
            assert!(steps.iter().all(|step| !step.text.is_empty() && !step.commands.is_empty()), "{name}");
        }
    }

    #[test]
    fn what_is_left_broken_comes_before_everything_else() {
        let record = sample::aborted();
        let steps = steps(&record);
        assert_eq!(steps[0].commands, [format!("squall recover --run {}", record.run)]);
        assert_eq!(steps[1].commands, record.restoration.left);
        assert_eq!(steps[2].commands, [record.reproduce.as_str()]);
    }

    #[test]
    fn a_miss_names_the_thing_to_mend() {
        let mut record = sample::missed();
        assert!(texts(&record)[0].contains("relay auth-1"));
        record.judgement.findings.clear();
        assert!(texts(&record)[0].contains("one thing at a time"));
    }

    #[test]
    fn holding_mends_nothing_only_where_the_broken_thing_was_met() {
        let mut record = sample::held();
        assert!(texts(&record)[0].starts_with("Nothing to mend"), "{:?}", texts(&record));
        for finding in &mut record.judgement.findings {
            "untested".clone_into(&mut finding.status);
            "touch".clone_into(&mut finding.target);
        }
        assert!(texts(&record)[0].contains("not that they met touch"), "{:?}", texts(&record));
    }

    #[test]
    fn a_load_that_failed_unjudged_needs_an_objective() {
        let mut record = sample::held();
        record.judgement.verdict = Verdict::Unknown;
        record.judgement.reasons = vec!["97% of home failed in fault, and no objective judges it".into()];
        assert!(texts(&record)[0].contains("objective"), "{:?}", texts(&record));
    }

    #[test]
    fn doubt_is_answered_by_what_caused_it() {
        let mut record = sample::held();
        record.judgement.verdict = Verdict::Unknown;
        assert!(texts(&record)[0].contains("more data"));
        record.injections[1].proof.status = "unproven".into();
        assert!(texts(&record)[0].contains("pop-drain on PoP ams has something to act on"));
        record.injections[1].proof.status = "mismatch".into();
        assert!(texts(&record)[0].contains("another effect than requested"));
        record.loads.clear();
        assert!(texts(&record)[0].contains("No request came back"));
        record.generator.saturated = vec!["CPU at 100%".into()];
        assert!(texts(&record)[0].contains("load generator"));
    }
}
