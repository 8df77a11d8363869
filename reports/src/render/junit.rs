//! JUnit XML as Jenkins, GitLab and the actions of GitHub read it: one suite per run, one case per thing to be proved.
//! Names are unique and do not change from run to run. Inconclusive is not a pass.
//!
//! The document follows both schemas in use, the one of Jenkins' xUnit plugin (`junit-10.xsd`) and the one of Apache Ant
//! (`JUnit.xsd` of Windy Road): so the root has no attributes, the order of elements is fixed, times have no zone, and
//! what a passed case has to say is in the output of the suite.

use std::collections::BTreeSet;

use super::words::{self, State};
use super::{errors, next};
use crate::format;
use crate::markup::Markup;
use crate::record::{End, InjectionRecord, Objective, ObjectiveResult, Phase, RunRecord, Verdict};

/// The most cases of objectives and of injections; GitLab refuses files beyond 250 000 elements.
const CASES_MAX: usize = 5000;

/// How a case came out: a `type`, if there is one, and a message.
enum Outcome {
    Passed,
    Failed(&'static str, String),
    Broken(&'static str, String),
    Skipped(String),
}

struct Case {
    name: String,
    seconds: f64,
    outcome: Outcome,
    detail: String,
}

/// The document.
pub(super) fn render(record: &RunRecord) -> Vec<u8> {
    let cases = unique(cases(record));
    let count = |is: fn(&Outcome) -> bool| cases.iter().filter(|case| is(&case.outcome)).count();
    let mut out = Markup::xml();
    out.raw("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite");
    out.attribute("name", format!("squall.{}", record.experiment.name));
    out.attribute("package", "squall").attribute("id", "0").attribute("hostname", "localhost");
    out.attribute("tests", cases.len().to_string());
    out.attribute("failures", count(|o| matches!(o, Outcome::Failed(..))).to_string());
    out.attribute("errors", count(|o| matches!(o, Outcome::Broken(..))).to_string());
    out.attribute("skipped", count(|o| matches!(o, Outcome::Skipped(_))).to_string());
    out.attribute("time", decimal(words::length_s(record)));
    out.attribute("timestamp", format::iso(record.started_unix_s).trim_end_matches('Z'));
    out.raw(">\n    <properties>\n");
    for (name, value) in properties(record) {
        out.raw("      <property").attribute("name", name).attribute("value", value).raw("/>\n");
    }
    out.raw("    </properties>\n");
    for case in &cases {
        write_case(&mut out, record, case);
    }
    out.raw("    ").element("system-out", story(record, &cases)).raw("\n    <system-err></system-err>\n");
    out.raw("  </testsuite>\n</testsuites>\n");
    out.into_bytes()
}

/// What a person reads first, and the facts of the cases that passed.
fn story(record: &RunRecord, cases: &[Case]) -> String {
    let headline = words::headline(record);
    let mut lines =
        vec![record.experiment.question.clone(), format!("{}: {}", headline.word, headline.meaning)];
    lines.extend(words::reasons(record));
    lines.extend(errors::lines(record));
    for step in next::steps(record) {
        lines.push(step.text);
        lines.extend(step.commands.into_iter().map(|command| format!("$ {command}")));
    }
    let passed =
        cases.iter().filter(|case| matches!(case.outcome, Outcome::Passed) && !case.detail.is_empty());
    lines.extend(passed.map(|case| format!("{}: {}", case.name, case.detail)));
    lines.join("\n")
}

fn properties(record: &RunRecord) -> Vec<(&'static str, String)> {
    vec![
        ("run", record.run.clone()),
        ("seed", record.seed.to_string()),
        ("verdict", record.judgement.verdict.name().to_owned()),
        ("exit", record.judgement.exit.to_string()),
        ("question", record.experiment.question.clone()),
        ("owner", record.experiment.owner.clone().unwrap_or_default()),
        ("file", record.experiment.file.clone()),
        ("squall", record.squall.clone()),
        ("reproduce", record.reproduce.clone()),
    ]
}

/// Seconds with a point, never negative, as `xs:decimal`.
fn decimal(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
    format!("{seconds:.3}")
}

fn write_case(out: &mut Markup, record: &RunRecord, case: &Case) {
    out.raw("    <testcase").attribute("name", &case.name);
    out.attribute("classname", format!("squall.{}", record.experiment.name));
    out.attribute("time", decimal(case.seconds)).raw(">");
    match &case.outcome {
        Outcome::Passed => {}
        Outcome::Failed(kind, message) => write_problem(out, "failure", kind, message, &case.detail),
        Outcome::Broken(kind, message) => write_problem(out, "error", kind, message, &case.detail),
        Outcome::Skipped(message) => {
            out.raw("<skipped").attribute("message", message).raw("/>");
        }
    }
    out.raw("</testcase>\n");
}

fn write_problem(out: &mut Markup, tag: &'static str, kind: &'static str, message: &str, detail: &str) {
    out.raw("<").raw(tag).raw(" type=\"").raw(kind).raw("\"").attribute("message", message);
    let text = if detail.is_empty() { message } else { detail };
    out.raw(">").text(text).raw("</").raw(tag).raw(">");
}

/// GitLab keeps only the first of two cases with one name: the second gets a number.
fn unique(mut cases: Vec<Case>) -> Vec<Case> {
    let mut taken = BTreeSet::new();
    for case in &mut cases {
        let name = case.name.clone();
        let mut number = 2;
        while !taken.insert(case.name.clone()) {
            case.name = format!("{name} ({number})");
            number += 1;
        }
    }
    cases
}

fn cases(record: &RunRecord) -> Vec<Case> {
    let mut cases = vec![verdict(record), baseline(record)];
    let clauses = record.objectives.iter().flat_map(|o| o.phases.iter().map(move |phase| (o, *phase)));
    cases.extend(clauses.take(CASES_MAX).map(|(objective, phase)| clause(record, objective, phase)));
    cases.extend(record.injections.iter().take(CASES_MAX).map(|injection| proof(record, injection)));
    cases.push(completion(record));
    cases.push(restoration(record));
    cases.push(generator(record));
    cases
}

/// The hypothesis as a whole: also what no single objective says, such as probes and the time to recover.
fn verdict(record: &RunRecord) -> Case {
    let message = record.judgement.reasons.first().cloned();
    let message = message.unwrap_or_else(|| format!("the verdict is {}", record.judgement.verdict.name()));
    let outcome = match record.judgement.verdict {
        Verdict::Held => Outcome::Passed,
        Verdict::Missed => Outcome::Failed("missed", message),
        Verdict::Unknown => Outcome::Failed("unknown", message),
    };
    let detail = format!("{}\n\n{}", record.experiment.question, record.judgement.reasons.join("\n"));
    Case { name: "the hypothesis holds".to_owned(), seconds: words::length_s(record), outcome, detail }
}

fn span_s(record: &RunRecord, phase: Phase) -> Option<f64> {
    record.phases.iter().find(|span| span.phase == phase).map(|span| span.end_s - span.start_s)
}

fn baseline(record: &RunRecord) -> Case {
    let outcome = match (&record.end, span_s(record, Phase::Baseline)) {
        (End::NotSteady(why), _) => Outcome::Failed("unknown", format!("the baseline was not steady: {why}")),
        (_, None) => Outcome::Skipped("the run ended before its baseline".to_owned()),
        (_, Some(_)) => Outcome::Passed,
    };
    let seconds = span_s(record, Phase::Baseline).unwrap_or(0.0);
    Case { name: "baseline is steady".to_owned(), seconds, outcome, detail: String::new() }
}

fn clause(record: &RunRecord, objective: &Objective, phase: Phase) -> Case {
    let is_its = |result: &&ObjectiveResult| {
        result.phase == phase
            && result.journey == objective.journey
            && result.sli == objective.sli
            && result.at_least == objective.at_least
            && result.limit == objective.limit
    };
    let result = record.judgement.results.iter().find(is_its);
    let clause = words::clause(objective);
    let (outcome, detail) = match result {
        None => (
            Outcome::Skipped(format!("not evaluated: the run did not judge phase {}", phase.name())),
            String::new(),
        ),
        Some(result) => {
            let note = result.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
            let measured = format::estimate_and_interval(result);
            let detail = format!("{measured} of {} samples{note}", format::count(result.samples));
            let outcome = match result.verdict {
                Verdict::Held => Outcome::Passed,
                Verdict::Missed => Outcome::Failed("missed", format!("measured {measured}{note}")),
                Verdict::Unknown => {
                    Outcome::Failed("unknown", format!("cannot tell: measured {measured}{note}"))
                }
            };
            (outcome, detail)
        }
    };
    let seconds = span_s(record, phase).unwrap_or(0.0);
    Case { name: format!("{clause} in {}", phase.name()), seconds, outcome, detail }
}

fn proof(record: &RunRecord, injection: &InjectionRecord) -> Case {
    let p = &injection.proof;
    let facts = format!(
        "{}: requested {}, measured {}, tolerance {}",
        p.status,
        p.requested,
        words::measured(injection),
        p.tolerance
    );
    let outcome = match (injection.applied_s, &injection.error, words::proof_state(injection)) {
        (Some(_), _, State::Good) => Outcome::Passed,
        (None, Some(error), _) => Outcome::Broken("not-injected", error.clone()),
        (None, None, _) => Outcome::Skipped("not injected: the run ended before".to_owned()),
        (Some(_), _, _) => Outcome::Failed("unknown", facts.clone()),
    };
    let applied = injection.applied_s.unwrap_or(0.0);
    let last = record.phases.last().map_or(applied, |span| span.end_s);
    Case {
        name: format!("{} takes effect on {} ({})", injection.fault, injection.target, injection.parameters),
        seconds: injection.applied_s.map_or(0.0, |at| injection.undone_s.unwrap_or(last) - at),
        outcome,
        detail: format!("{}\n{facts}", injection.summary),
    }
}

fn completion(record: &RunRecord) -> Case {
    let outcome = match (&record.end, words::end(record)) {
        (End::Aborted { .. }, Some(text)) => Outcome::Broken("aborted", text),
        (End::NotSteady(_), _) => Outcome::Skipped("nothing was injected".to_owned()),
        _ => Outcome::Passed,
    };
    let seconds = words::length_s(record);
    Case { name: "the run completes".to_owned(), seconds, outcome, detail: String::new() }
}

fn restoration(record: &RunRecord) -> Case {
    let restoration = &record.restoration;
    let outcome = match (restoration.verified, words::restoration(record)) {
        (true, _) => Outcome::Passed,
        (false, text) => Outcome::Broken("not-restored", text.map(|(_, text)| text).unwrap_or_default()),
    };
    let detail = restoration.left.join("\n");
    Case { name: "everything is restored".to_owned(), seconds: restoration.seconds, outcome, detail }
}

fn generator(record: &RunRecord) -> Case {
    let (state, facts) = words::generator(record);
    let outcome = match state {
        State::Good => Outcome::Passed,
        _ => Outcome::Failed("unknown", facts.clone()),
    };
    Case {
        name: "the generator keeps up".to_owned(),
        seconds: words::length_s(record),
        outcome,
        detail: facts,
    }
}
