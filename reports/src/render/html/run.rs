//! What watched the run, whether it can be trusted, what happened when, and what exactly was asked.

use super::super::words::{self, State};
use super::{ROWS_MAX, badge, close_table, number, open_table};
use crate::format;
use crate::markup::Markup;
use crate::record::{EventRecord, RunRecord};

/// The most events listed: as many of the first as of the last.
const EVENTS_SHOWN: usize = 300;
/// More events than this are folded.
const EVENTS_OPEN: usize = 25;
/// The most bytes of the experiment's text.
const YAML_MAX: usize = 60_000;

/// Steady-state probes by phase.
pub(super) fn probes(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    if record.probes.is_empty() {
        return out;
    }
    open_table(&mut out, &["Probe", "Phase", "#Held", "#Missed", "Last miss"]);
    for probe in record.probes.iter().take(ROWS_MAX) {
        let blank = probe.seen.is_empty();
        for (at, seen) in probe.seen.iter().enumerate() {
            out.raw(if at == 0 { "<tr class=\"first\"><td>" } else { "<tr class=\"again\"><td>" });
            write_probe(&mut out, &probe.name, &probe.does, &probe.tolerance);
            out.element("td", seen.phase.name());
            number(&mut out, format::count(seen.held));
            number(&mut out, format::count(seen.missed));
            out.element("td", seen.last_miss.as_deref().unwrap_or("")).raw("</tr>\n");
        }
        if blank {
            out.raw("<tr class=\"first\"><td>");
            write_probe(&mut out, &probe.name, &probe.does, &probe.tolerance);
            out.raw("<td colspan=\"4\">nothing observed</td></tr>\n");
        }
    }
    close_table(&mut out, record.probes.len().saturating_sub(ROWS_MAX));
    out
}

fn write_probe(out: &mut Markup, name: &str, does: &str, tolerance: &str) {
    out.raw("<strong>").text(name).raw("</strong><small>").text(does).raw("; must see ").text(tolerance);
    out.raw("</small></td>");
}

/// Stop conditions and how close they came.
pub(super) fn guards(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    if record.guards.is_empty() {
        return out;
    }
    open_table(&mut out, &["Abort when", "How close it came", "Tripped"]);
    for guard in record.guards.iter().take(ROWS_MAX) {
        let state = if guard.tripped_s.is_some() { State::Bad } else { State::Good };
        let share = if guard.closest.is_finite() { guard.closest.clamp(0.0, 1.0) } else { 0.0 };
        out.raw("<tr class=\"first\"><td><code>")
            .text(&guard.when)
            .raw("</code></td><td class=\"keep\"><svg class=\"meter\" ");
        out.raw("width=\"160\" height=\"10\" aria-hidden=\"true\"><rect class=\"rail\" width=\"160\" height=\"10\" ");
        out.raw("rx=\"2\"/><rect class=\"fill ").raw(state.class()).raw("\" width=\"").num(share * 160.0);
        out.raw("\" height=\"10\" rx=\"2\"/></svg>");
        out.text(format::percent(guard.closest)).raw(" of its limit</td><td>");
        let word = guard.tripped_s.map_or_else(|| "no".to_owned(), |s| format!("at {}", format::instant(s)));
        badge(&mut out, state, &word);
        out.raw("</td></tr>\n");
    }
    close_table(&mut out, record.guards.len().saturating_sub(ROWS_MAX));
    out
}

/// Whether the generator and the restoration can be trusted.
pub(super) fn health(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    out.raw("<dl class=\"health\"><div><dt>Generator</dt><dd>");
    let (state, _) = words::generator(record);
    badge(&mut out, state, if state == State::Good { "kept up" } else { "saturated" });
    out.raw(" ").text(words::generator_facts(record)).raw("</dd></div>");
    if let Some((state, text)) = words::restoration(record) {
        out.raw("<div><dt>Restoration</dt><dd>");
        badge(&mut out, state, if state == State::Good { "verified" } else { "incomplete" });
        out.raw(" ").text(text).raw("</dd></div>");
    }
    if let Some((state, text)) = words::recovered(record) {
        out.raw("<div><dt>Recovery</dt><dd>");
        let word = match state {
            State::Good => "in time",
            State::Bad => "too late",
            State::Unsure => "not seen",
        };
        badge(&mut out, state, word);
        out.raw(" ").text(text).raw("</dd></div>");
    }
    out.raw("</dl>\n");
    out
}

/// What happened when; a long list is folded and its middle left out.
pub(super) fn timeline(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    let events = &record.events;
    if events.is_empty() {
        return out;
    }
    out.raw("<details").raw(if events.len() <= EVENTS_OPEN { " open" } else { "" }).raw("><summary>");
    out.text(format::many(events.len() as u64, "event")).raw("</summary>");
    open_table(&mut out, &["#At", "What", ""]);
    let left_out = events.len().saturating_sub(EVENTS_SHOWN);
    let first = if left_out > 0 { EVENTS_SHOWN / 2 } else { events.len() };
    events[..first].iter().for_each(|event| write_event(&mut out, event));
    if left_out > 0 {
        out.raw("<tr><td></td><td></td><td class=\"more\">… ").text(format::count(left_out as u64));
        out.raw(" left out …</td></tr>\n");
        events[first + left_out..].iter().for_each(|event| write_event(&mut out, event));
    }
    close_table(&mut out, 0);
    out.raw("</details>\n");
    out
}

fn write_event(out: &mut Markup, event: &EventRecord) {
    out.raw("<tr class=\"first\">");
    number(out, format::instant(event.at_s));
    out.raw("<td class=\"kind\">").text(&event.kind).raw("</td>").element("td", &event.text).raw("</tr>\n");
}

/// Its text, seed and host.
pub(super) fn experiment(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    out.raw("<dl class=\"about\">");
    let about = [
        ("File", record.experiment.file.clone()),
        ("Seed", record.seed.to_string()),
        ("Kernel", record.host.kernel.clone()),
        ("Processors", record.host.cores.to_string()),
        ("Exit code", record.judgement.exit.to_string()),
    ];
    for (name, value) in &about {
        out.raw("<div>").element("dt", name).element("dd", value).raw("</div>");
    }
    let text = record.experiment.text.as_str();
    let shown = &text[..text.floor_char_boundary(YAML_MAX)];
    out.raw("</dl>\n<details><summary>Its text</summary><pre>").text(shown);
    if shown.len() < text.len() {
        out.text(format!("\n… {} more bytes", format::count((text.len() - shown.len()) as u64)));
    }
    out.raw("</pre></details>\n");
    out
}
