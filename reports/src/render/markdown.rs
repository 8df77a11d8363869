//! GitHub's Markdown for the summary of a CI step: starts at the third level, folds what is long, and stays below
//! the megabyte that GitHub accepts.

use super::RenderError;
use super::words::{self, State};
use super::{errors, next};
use crate::escape::{markdown as text, markdown_block};
use crate::format::{NONE, count, estimate, instant, interval, limit, percent, seconds, share, utc};
use crate::record::{LoadRecord, RunRecord};

/// GitHub drops a summary of more than 1 MiB; whole sections are left out before that.
const BYTES_MAX: usize = 900_000;
/// The most rows of a table and lines of a list.
const ROWS_MAX: usize = 100;
/// The most characters of a text within a table or a list.
const TEXT_MAX: usize = 600;
/// The most bytes of the experiment's text.
const YAML_MAX: usize = 60_000;

/// The document.
pub(super) fn render(record: &RunRecord) -> Result<String, RenderError> {
    let mut sections = vec![
        head(record),
        next(record),
        findings(record),
        objectives(record),
        errors(record),
        faults(record),
    ];
    sections.push(facts(record));
    for load in record.loads.iter().take(ROWS_MAX) {
        sections.push(journey(load)?);
    }
    sections.extend([probes_and_guards(record), timeline(record), reproduction(record)]);
    let mut out = String::new();
    let mut left_out = false;
    for section in sections {
        if out.len() + section.len() > BYTES_MAX {
            left_out = true;
        } else {
            out.push_str(&section);
        }
    }
    if left_out {
        out += "\n_Some sections are too long for this page; see the HTML report._\n";
    }
    Ok(out)
}

/// Escaped, and no longer than a cell may be.
fn cell(from: &str) -> String {
    text(&crate::table::clip(from, TEXT_MAX))
}

/// A table: heads, then at most [`ROWS_MAX`] rows of escaped cells.
fn table(heads: &[&str], aligned: &str, rows: impl ExactSizeIterator<Item = Vec<String>>) -> String {
    let mut out = format!("\n| {} |\n|", heads.join(" | "));
    aligned.chars().for_each(|side| out.push_str(if side == 'r' { " ---: |" } else { " --- |" }));
    out.push('\n');
    let left_out = rows.len().saturating_sub(ROWS_MAX);
    for row in rows.take(ROWS_MAX) {
        out.extend(["| ", &row.join(" | "), " |\n"]);
    }
    if left_out > 0 {
        out.extend(["\n… and ", &left_out.to_string(), " more\n"]);
    }
    out
}

fn marked(state: State, word: &str) -> String {
    let icon = match state {
        State::Good => "✅",
        State::Bad => "❌",
        State::Unsure => "❔",
    };
    format!("{icon}&nbsp;{}", cell(word))
}

fn head(record: &RunRecord) -> String {
    let headline = words::headline(record);
    let mut out = format!(
        "### {}: {}\n\n{} · **{}** · run {} · {} · {} · squall {}\n\n",
        marked(headline.state, &headline.word),
        cell(&record.experiment.question),
        cell(&headline.meaning),
        cell(&record.experiment.name),
        cell(&record.run),
        utc(record.started_unix_s),
        seconds(words::length_s(record)),
        cell(&record.squall),
    );
    out.push_str(&list(&words::reasons(record)));
    out
}

/// At most [`ROWS_MAX`] lines, escaped.
fn list(lines: &[String]) -> String {
    let mut out = String::new();
    for line in lines.iter().take(ROWS_MAX) {
        out.extend(["- ", &cell(line), "\n"]);
    }
    if lines.len() > ROWS_MAX {
        out.extend(["- … and ", &(lines.len() - ROWS_MAX).to_string(), " more\n"]);
    }
    out
}

fn next(record: &RunRecord) -> String {
    let mut out = "\n#### Next\n".to_owned();
    for step in next::steps(record) {
        let commands: Vec<_> = step.commands.iter().take(ROWS_MAX).map(String::as_str).collect();
        out.extend(["\n", &cell(&step.text), "\n\n", &markdown_block("sh", &commands.join("\n"))]);
    }
    out
}

fn errors(record: &RunRecord) -> String {
    let lines = errors::lines(record);
    if lines.is_empty() { String::new() } else { format!("\n#### Errors\n\n{}", list(&lines)) }
}

fn objectives(record: &RunRecord) -> String {
    if record.judgement.results.is_empty() {
        return String::new();
    }
    let rows = record.judgement.results.iter().map(|result| {
        vec![
            cell(&result.journey),
            format!("{} {}", result.sli.name(), limit(result.sli, result.at_least, result.limit)),
            result.phase.name().to_owned(),
            estimate(result),
            text(&interval(result)),
            count(result.samples),
            marked(words::verdict_state(result.verdict), result.verdict.name()),
            cell(result.note.as_deref().unwrap_or("")),
        ]
    });
    let heads = ["journey", "objective", "phase", "estimate", "95 % interval", "samples", "verdict", "note"];
    format!("\n#### Objectives\n{}", table(&heads, "lllrrrll", rows))
}

fn faults(record: &RunRecord) -> String {
    if record.injections.is_empty() {
        return String::new();
    }
    let rows = words::injections(record, ROWS_MAX).into_iter().map(|(number, injection)| {
        let proof = &injection.proof;
        let error = injection.error.as_ref().map(|e| format!(": {}", cell(e))).unwrap_or_default();
        vec![
            format!("F{number} {} · {}", cell(&injection.fault), cell(&injection.target)),
            cell(&proof.requested),
            cell(words::measured(injection)),
            cell(&proof.tolerance),
            count(proof.samples),
            marked(words::proof_state(injection), &proof.status),
            marked(words::undo_state(injection), &injection.undo) + &error,
        ]
    });
    let heads = ["fault", "requested", "measured", "tolerance", "samples", "proof", "undo"];
    format!("\n#### Faults\n{}", table(&heads, "llllrll", rows))
}

fn findings(record: &RunRecord) -> String {
    let findings = &record.judgement.findings;
    if findings.is_empty() {
        return String::new();
    }
    let rows = findings.iter().map(|finding| {
        vec![
            marked(words::finding_state(finding), &finding.status),
            format!("{}, {}", cell(&finding.target), cell(&finding.fault)),
            cell(&finding.journey),
            cell(&finding.evidence),
            cell(&finding.remedy),
        ]
    });
    let heads = ["status", "target", "journey", "evidence", "remedy"];
    format!("\n#### Single points of failure\n{}", table(&heads, "lllll", rows))
}

fn facts(record: &RunRecord) -> String {
    let mut out = "\n#### The run\n\n".to_owned();
    let mut line = |name: &str, text: &str| out.extend(["- **", name, "**: ", &cell(text), "\n"]);
    if let Some(text) = words::detected(record) {
        line("Detection", &text);
    }
    if let Some((_, text)) = words::recovered(record) {
        line("Recovery", &text);
    }
    line("Generator", &words::generator(record).1);
    if let Some((_, text)) = words::restoration(record) {
        line("Restoration", &text);
    }
    out
}

/// Folds a long part; the summary is our own words and escaped names.
fn fold(summary: &str, body: &str) -> String {
    format!("\n<details><summary>{summary}</summary>\n{body}\n</details>\n")
}

fn journey(load: &LoadRecord) -> Result<String, RenderError> {
    let mut rows = Vec::new();
    let mut errors = Vec::new();
    for stats in &load.phases {
        let latencies = words::latencies(load, &stats.all)?;
        let at = |q: f64| latencies.quantile(q).map_or_else(|| NONE.to_owned(), seconds);
        rows.push(vec![
            stats.phase.name().to_owned(),
            count(stats.all.due),
            count(stats.all.ok),
            count(stats.all.failed()),
            words::availability(&stats.all).map_or_else(|| NONE.to_owned(), share),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            latencies.max().map_or_else(|| NONE.to_owned(), seconds),
        ]);
        for (class, n) in &stats.all.errors {
            let cause = stats.causes.get(class).map(|cause| format!(" ({cause})")).unwrap_or_default();
            errors.push(vec![stats.phase.name().to_owned(), cell(&format!("{class}{cause}")), count(*n)]);
        }
    }
    let heads = ["phase", "due", "ok", "failed", "availability", "p50", "p90", "p99", "p99.9", "max"];
    let mut body = format!("\n{}; {}\n", cell(&load.sends.join("; ")), cell(&load.arrivals));
    body.push_str(&table(&heads, "lrrrrrrrrr", rows.into_iter()));
    if !errors.is_empty() {
        body.push_str(&table(&["phase", "error", "count"], "llr", errors.into_iter()));
    }
    Ok(fold(&format!("Journey <b>{}</b> by phase", cell(&load.name)), &body))
}

fn probes_and_guards(record: &RunRecord) -> String {
    let mut out = String::new();
    if !record.probes.is_empty() {
        let rows = record.probes.iter().flat_map(|probe| {
            probe.seen.iter().map(|seen| {
                let last = seen.last_miss.as_deref().unwrap_or("");
                vec![
                    cell(&probe.name),
                    seen.phase.name().to_owned(),
                    count(seen.held),
                    count(seen.missed),
                    cell(last),
                ]
            })
        });
        let rows = rows.collect::<Vec<_>>().into_iter();
        out += &fold("Probes", &table(&["probe", "phase", "held", "missed", "last miss"], "llrrl", rows));
    }
    if !record.guards.is_empty() {
        let rows = record.guards.iter().map(|guard| {
            let tripped = guard.tripped_s.map_or_else(|| "no".to_owned(), |s| format!("at {}", instant(s)));
            vec![cell(&guard.when), tripped, format!("{} of its limit", percent(guard.closest))]
        });
        out += &fold("Guards", &table(&["guard", "tripped", "closest"], "lll", rows));
    }
    out
}

fn timeline(record: &RunRecord) -> String {
    if record.events.is_empty() {
        return String::new();
    }
    let rows = record.events.iter().map(|e| vec![instant(e.at_s), cell(&e.kind), cell(&e.text)]);
    fold("Timeline", &table(&["at", "what", ""], "rll", rows))
}

fn reproduction(record: &RunRecord) -> String {
    let mut yaml = record.experiment.text.as_str();
    if yaml.len() > YAML_MAX {
        yaml = &yaml[..yaml.floor_char_boundary(YAML_MAX)];
    }
    let body = format!(
        "\n{}\n{} · {} · {} · {} cores · {} · seed {}\n",
        markdown_block("yaml", yaml),
        cell(&record.experiment.file),
        cell(record.experiment.owner.as_deref().unwrap_or("no owner")),
        cell(&record.host.kernel),
        record.host.cores,
        cell(&record.host.target),
        record.seed,
    );
    fold("The experiment", &body)
}
