//! The summary on a terminal: the verdict first, one screen, at most [`WIDTH`] columns, silence where nothing is to be said.

use super::words::{self, State};
use crate::escape;
use crate::format::{estimate, interval, limit, seconds, utc};
use crate::record::{ObjectiveResult, RunRecord, Verdict};
use crate::table::{Cell, Table, Tone, paint, wrap};

/// The most columns of a line.
const WIDTH: usize = 100;
const REASONS_MAX: usize = 8;
const OBJECTIVES_MAX: usize = 24;
const INJECTIONS_MAX: usize = 16;
const FINDINGS_MAX: usize = 10;
const COMMANDS_MAX: usize = 10;

/// The lines of the summary.
pub(super) fn render(record: &RunRecord, colour: bool) -> String {
    let mut page = Page { lines: Vec::new(), colour };
    head(&mut page, record);
    objectives(&mut page, record);
    faults(&mut page, record);
    findings(&mut page, record);
    facts(&mut page, record);
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

    fn table(&mut self, table: &Table, left_out: usize) {
        self.blank();
        self.lines.extend(table.lines(WIDTH, self.colour));
        if left_out > 0 {
            self.lines.push(paint(&format!("… and {left_out} more"), Tone::Dim, self.colour));
        }
    }
}

fn head(page: &mut Page, record: &RunRecord) {
    let verdict = record.judgement.verdict;
    let state = words::verdict_state(verdict);
    let tone = if state == State::Good { Tone::Good } else { state.tone() };
    let lead = format!("{} {}  ", state.icon(), verdict.name().to_uppercase());
    page.paragraph(&lead, tone, &record.experiment.question);
    let about = format!(
        "{} · run {} · {} · {}",
        record.experiment.name,
        record.run,
        utc(record.started_unix_s),
        seconds(words::length_s(record))
    );
    page.paragraph("  ", Tone::Plain, &about);
    page.blank();
    if let Some(end) = words::end(record) {
        page.paragraph("  ! ", Tone::Unsure, &end);
    }
    for reason in record.judgement.reasons.iter().take(REASONS_MAX) {
        page.paragraph("  • ", Tone::Plain, reason);
    }
    if record.judgement.reasons.len() > REASONS_MAX {
        page.paragraph(
            "    ",
            Tone::Dim,
            &format!("… and {} more", record.judgement.reasons.len() - REASONS_MAX),
        );
    }
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
    let left_out = results.len().saturating_sub(OBJECTIVES_MAX);
    results.truncate(OBJECTIVES_MAX);
    let mut last = None;
    let rows = results.into_iter().map(|result| {
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
    page.table(&Table { heads, rows }, left_out);
}

fn faults(page: &mut Page, record: &RunRecord) {
    if record.injections.is_empty() {
        return;
    }
    let rows = record.injections.iter().enumerate().take(INJECTIONS_MAX).map(|(at, injection)| {
        let (proof, undo) = (words::proof_state(injection), words::undo_state(injection));
        vec![
            Cell::plain(format!("F{} {} · {}", at + 1, injection.fault, injection.target)),
            Cell::plain(&injection.proof.requested),
            Cell::plain(words::measured(injection)),
            Cell::new(format!("{} {}", proof.icon(), injection.proof.status), proof.tone()),
            Cell::new(format!("{} {}", undo.icon(), injection.undo), undo.tone()),
        ]
    });
    let rows = rows.collect();
    let heads = vec!["FAULTS", "requested", "measured", "proof", "undo"];
    let left_out = record.injections.len().saturating_sub(INJECTIONS_MAX);
    page.table(&Table { heads, rows }, left_out);
    for injection in record.injections.iter().take(INJECTIONS_MAX) {
        if let Some(error) = &injection.error {
            page.paragraph("  ! ", Tone::Bad, &format!("{}: {error}", injection.fault));
        }
    }
}

fn findings(page: &mut Page, record: &RunRecord) {
    let findings = &record.judgement.findings;
    if findings.is_empty() {
        return;
    }
    page.blank();
    page.lines.push(paint("SINGLE POINTS OF FAILURE", Tone::Bold, page.colour));
    for finding in findings.iter().take(FINDINGS_MAX) {
        let state = words::finding_state(finding);
        let text =
            format!("{}, {} → {}: {}", finding.target, finding.fault, finding.journey, finding.evidence);
        let lead =
            format!("{} {:<11}", state.icon(), crate::table::clip(&escape::terminal(&finding.status), 10));
        page.paragraph(&lead, state.tone(), &text);
        if !finding.remedy.is_empty() {
            page.paragraph("             → ", Tone::Dim, &finding.remedy);
        }
    }
    if findings.len() > FINDINGS_MAX {
        page.paragraph("  ", Tone::Dim, &format!("… and {} more", findings.len() - FINDINGS_MAX));
    }
}

fn facts(page: &mut Page, record: &RunRecord) {
    page.blank();
    if let Some(text) = words::detected(record) {
        page.paragraph("detection    ", Tone::Dim, &text);
    }
    if let Some((_, text)) = words::recovered(record) {
        page.paragraph("recovery     ", Tone::Dim, &text);
    }
    let (state, text) = words::generator(record);
    page.paragraph("generator    ", if state == State::Good { Tone::Dim } else { state.tone() }, &text);
    if let Some((state, text)) = words::restoration(record) {
        let tone = if state == State::Good { Tone::Dim } else { state.tone() };
        page.paragraph("restoration  ", tone, &text);
    }
    for command in record.restoration.left.iter().take(COMMANDS_MAX) {
        // Not wrapped: a person copies it.
        page.lines.push(format!("             $ {}", escape::terminal(command)));
    }
    page.paragraph("reproduce    ", Tone::Dim, &record.reproduce);
}
