//! The summary on a terminal: the verdict first, one screen, at most [`WIDTH`] columns, silence where nothing is to be said.

use super::words::{self, State};
use super::{errors, next};
use crate::escape;
use crate::format::{estimate, interval, limit, seconds, utc};
use crate::record::{ObjectiveResult, RunRecord, Verdict};
use crate::table::{Cell, Table, Tone, paint, wrap};

/// The most columns of a line.
const WIDTH: usize = 100;
const REASONS_MAX: usize = 8;
const OBJECTIVES_MAX: usize = 24;
const ERRORS_MAX: usize = 8;
const INJECTIONS_MAX: usize = 16;
const FINDINGS_MAX: usize = 10;
const COMMANDS_MAX: usize = 10;

/// The lines of the summary.
pub(super) fn render(record: &RunRecord, colour: bool) -> String {
    let mut page = Page { lines: Vec::new(), colour };
    head(&mut page, record);
    objectives(&mut page, record);
    errors(&mut page, record);
    faults(&mut page, record);
    findings(&mut page, record);
    facts(&mut page, record);
    next(&mut page, record);
    page.lines.join("\n") + "\n"
}

/// Lines with a colour switch.
struct Page {
    lines: Vec<String>,
    colour: bool,
}

impl Page {
    /// A paragraph of text from anywhere: `first` before its first line, as much indentation before the others.
    fn paragraph(&mut self, first: &str, tone: Tone, text: &str) {
        let indent = crate::table::width(first);
        for (at, line) in wrap(&escape::terminal(text), WIDTH - indent).into_iter().enumerate() {
            let lead = if at == 0 { paint(first, tone, self.colour) } else { " ".repeat(indent) };
            self.lines.push(format!("{lead}{line}").trim_end().to_owned());
        }
    }

    fn blank(&mut self) {
        self.lines.push(String::new());
    }

    /// The name of a part.
    fn heading(&mut self, name: &str) {
        self.blank();
        self.lines.push(paint(name, Tone::Bold, self.colour));
    }

    /// Something with a state in a word of its own, then its text.
    fn entry(&mut self, state: State, word: &str, text: &str) {
        let word = crate::table::clip(&escape::terminal(word), 10);
        let gap = 11 - crate::table::width(&word).min(10);
        let lead = format!("{} {word}{}", state.icon(), " ".repeat(gap));
        self.paragraph(&lead, state.tone(), text);
    }

    /// Says how many of a list are not shown.
    fn left_out(&mut self, all: usize, shown: usize) {
        if all > shown {
            self.paragraph("    ", Tone::Dim, &format!("… and {} more", all - shown));
        }
    }
}

fn head(page: &mut Page, record: &RunRecord) {
    let headline = words::headline(record);
    let lead = format!("{} {}  ", headline.state.icon(), headline.word);
    page.paragraph(&lead, headline.state.tone(), &headline.meaning);
    page.paragraph("  ", Tone::Plain, &record.experiment.question);
    page.blank();
    let reasons = words::reasons(record);
    for reason in reasons.iter().take(REASONS_MAX) {
        page.paragraph("  • ", Tone::Plain, reason);
    }
    page.left_out(reasons.len(), REASONS_MAX);
    let about = format!(
        "{} · run {} · {} · {}",
        record.experiment.name,
        record.run,
        utc(record.started_unix_s),
        seconds(words::length_s(record))
    );
    page.paragraph("  ", Tone::Plain, &about);
}

/// All results if they fit, else those that did not hold first.
fn objectives(page: &mut Page, record: &RunRecord) {
    let mut results: Vec<&ObjectiveResult> = record.judgement.results.iter().collect();
    if results.is_empty() {
        return;
    }
    if results.len() > OBJECTIVES_MAX {
        results.sort_by_key(|r| r.verdict == Verdict::Held);
    }
    let mut last = None;
    let rows = results.iter().take(OBJECTIVES_MAX).map(|result| {
        let clause = (
            result.journey.clone(),
            format!("{} {}", result.sli.name(), limit(result.sli, result.at_least, result.limit)),
        );
        let is_new = last.as_ref() != Some(&clause);
        let (journey, objective) = if is_new { clause.clone() } else { Default::default() };
        last = Some(clause);
        let state = words::verdict_state(result.verdict);
        vec![
            Cell::plain(journey),
            Cell::plain(objective),
            Cell::plain(result.phase.name()),
            Cell::plain(estimate(result)),
            Cell::new(interval(result), Tone::Dim),
            Cell::new(format!("{} {}", state.icon(), result.verdict.name()), state.tone()),
        ]
    });
    let rows = rows.collect();
    let heads = vec!["OBJECTIVES", "", "phase", "estimate", "95% interval", "verdict"];
    page.blank();
    page.lines.extend(Table { heads, rows }.lines(WIDTH, page.colour));
    page.left_out(results.len(), OBJECTIVES_MAX);
}

/// Why requests failed.
fn errors(page: &mut Page, record: &RunRecord) {
    let lines = errors::lines(record);
    if lines.is_empty() {
        return;
    }
    page.heading("ERRORS");
    for line in lines.iter().take(ERRORS_MAX) {
        page.paragraph("  ", Tone::Plain, line);
    }
    page.left_out(lines.len(), ERRORS_MAX);
}

fn faults(page: &mut Page, record: &RunRecord) {
    if record.injections.is_empty() {
        return;
    }
    page.heading("FAULTS");
    for (number, injection) in words::injections(record, INJECTIONS_MAX).into_iter().take(INJECTIONS_MAX) {
        let (proof, undo) = (words::proof_state(injection), words::undo_state(injection));
        let name = format!("F{number} {} · {}", injection.fault, injection.target);
        let text = format!("{name}, {}", words::live(injection));
        page.entry(proof, &injection.proof.status, &text);
        page.paragraph("             ", Tone::Plain, &words::proved(injection));
        if undo != State::Good {
            page.paragraph("             undo: ", undo.tone(), &injection.undo);
        }
        if let Some(error) = &injection.error {
            page.paragraph("             ! ", Tone::Bad, error);
        }
    }
    page.left_out(record.injections.len(), INJECTIONS_MAX);
}

fn findings(page: &mut Page, record: &RunRecord) {
    let findings = &record.judgement.findings;
    if findings.is_empty() {
        return;
    }
    page.heading("SINGLE POINTS OF FAILURE");
    for finding in findings.iter().take(FINDINGS_MAX) {
        let text =
            format!("{}, {} → {}: {}", finding.target, finding.fault, finding.journey, finding.evidence);
        page.entry(words::finding_state(finding), &finding.status, &text);
        if !finding.remedy.is_empty() {
            page.paragraph("             → ", Tone::Dim, &finding.remedy);
        }
    }
    page.left_out(findings.len(), FINDINGS_MAX);
}

fn facts(page: &mut Page, record: &RunRecord) {
    page.heading("RUN");
    if let Some(text) = words::detected(record) {
        page.paragraph("detection    ", Tone::Dim, &text);
    }
    if let Some((_, text)) = words::recovered(record) {
        page.paragraph("recovery     ", Tone::Dim, &text);
    }
    let (state, text) = words::generator(record);
    page.paragraph("generator    ", quiet(state), &text);
    if let Some((state, text)) = words::restoration(record) {
        page.paragraph("restoration  ", quiet(state), &text);
    }
}

/// What is as wished stays in the background.
fn quiet(state: State) -> Tone {
    if state == State::Good { Tone::Dim } else { state.tone() }
}

/// Last, since that is what stays on the screen.
fn next(page: &mut Page, record: &RunRecord) {
    page.heading("NEXT");
    for step in next::steps(record) {
        page.paragraph("  ", Tone::Plain, &step.text);
        for command in step.commands.iter().take(COMMANDS_MAX) {
            // Not wrapped: a person copies it.
            page.lines.push(format!("    $ {}", escape::terminal(command)));
        }
        page.left_out(step.commands.len(), COMMANDS_MAX);
    }
}
