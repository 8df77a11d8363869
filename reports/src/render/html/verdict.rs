//! The banner, the deciding reasons, and the objectives with their intervals.

use super::super::next;
use super::super::words::{self, State};
use super::{ROWS_MAX, badge, close_table, number, open_table};
use crate::format;
use crate::markup::Markup;
use crate::record::{ObjectiveResult, RunRecord, Sli, Verdict};

const REASONS_MAX: usize = 8;

/// What was asked, what came out, why, and what to do next: the first screen.
pub(super) fn banner(record: &RunRecord) -> Markup {
    let headline = words::headline(record);
    let mut out = Markup::html();
    out.raw("<header class=\"banner ").raw(headline.state.class());
    out.raw("\">\n<p class=\"verdict\"><span class=\"icon\" aria-hidden=\"true\">")
        .raw(headline.state.icon());
    out.raw("</span>").text(&headline.word).raw(" <span class=\"meaning\">").text(&headline.meaning);
    out.raw("</span></p>\n").element("h1", &record.experiment.question).append(&reasons(record));
    out.append(&next_steps(record)).append(&facts(record)).raw("<dl class=\"about\">");
    let about = [
        ("Experiment", record.experiment.name.clone()),
        ("Owner", record.experiment.owner.clone().unwrap_or_default()),
        ("Started", format::utc(record.started_unix_s)),
        ("Took", format::seconds(words::length_s(record))),
        ("Target", record.host.target.clone()),
        ("Run", record.run.clone()),
    ];
    for (name, value) in about.iter().filter(|(_, value)| !value.is_empty()) {
        out.raw("<div>").element("dt", name).element("dd", value).raw("</div>");
    }
    out.raw("</dl>\n</header>\n");
    out
}

fn reasons(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    let reasons = words::reasons(record);
    if reasons.is_empty() {
        return out;
    }
    out.raw("<ul class=\"reasons\">");
    for reason in reasons.iter().take(REASONS_MAX) {
        out.element("li", reason);
    }
    if reasons.len() > REASONS_MAX {
        out.element("li", format!("… and {} more", reasons.len() - REASONS_MAX));
    }
    out.raw("</ul>\n");
    out
}

fn next_steps(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    out.raw("<div class=\"next\"><h2>Next</h2>\n");
    for step in next::steps(record) {
        out.element("p", &step.text);
        for command in step.commands.iter().take(ROWS_MAX) {
            out.raw("<pre>").text(command).raw("</pre>");
        }
    }
    out.raw("</div>\n");
    out
}

/// The few numbers that a reader looks for first.
fn facts(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    out.raw("<dl class=\"facts\">");
    let mut fact = |name: &str, value: &str, state: State, note: &str| {
        out.raw("<div class=\"").raw(state.class()).raw("\">").element("dt", name).raw("<dd>").text(value);
        out.raw("<small>").text(note).raw("</small></dd></div>");
    };
    let results = &record.judgement.results;
    let held = results.iter().filter(|r| r.verdict == Verdict::Held).count();
    let state =
        if held == results.len() { State::Good } else { words::verdict_state(record.judgement.verdict) };
    fact("Objectives", &format!("{held} of {}", results.len()), state, "clauses × phases held");
    if words::was_tried(record) {
        let (value, state, note) = match record.judgement.detect_s {
            Some(s) => (words::within(s), State::Bad, "of the first injection"),
            None => match words::not_detected(record) {
                (State::Good, note) => ("never".to_owned(), State::Good, note),
                (state, note) => ("not seen".to_owned(), state, note),
            },
        };
        fact("An objective broke", &value, state, note);
    }
    if let Some((state, _)) = words::recovered(record) {
        let value = record.judgement.recover_s.map_or_else(|| "not seen".to_owned(), words::soon);
        let why = record.judgement.recover_note.as_deref().filter(|_| record.judgement.recover_s.is_none());
        let why = why.unwrap_or("after the last undo");
        let note = format!("{why}; {} allowed", format::seconds_exact(record.recover_within_s));
        fact("Recovered", &value, state, &note);
    }
    if !record.injections.is_empty() {
        let proved = record.injections.iter().filter(|i| words::proof_state(i) == State::Good).count();
        let state = if proved == record.injections.len() { State::Good } else { State::Unsure };
        fact(
            "Faults proved",
            &format!("{proved} of {}", record.injections.len()),
            state,
            "requested against measured",
        );
    }
    if let Some((state, _)) = words::restoration(record) {
        let value = if state == State::Good { "verified" } else { "incomplete" };
        fact("Restoration", value, state, &format!("in {}", format::seconds(record.restoration.seconds)));
    }
    out.raw("</dl>\n");
    out
}

/// Each clause in each phase.
pub(super) fn objectives(results: &[ObjectiveResult]) -> Markup {
    let mut out = Markup::html();
    if results.is_empty() {
        return out;
    }
    let heads = [
        "Journey",
        "Objective",
        "Phase",
        "Verdict",
        "#Estimate",
        "#95 % interval",
        "Against the limit",
        "#Samples",
    ];
    open_table(&mut out, &heads);
    let shown = &results[..results.len().min(ROWS_MAX)];
    let clauses = shown.chunk_by(is_same_clause);
    for clause in clauses {
        let scale = Scale::of(clause);
        for (at, result) in clause.iter().enumerate() {
            let bar = interval_bar(result, scale, at == 0, at + 1 == clause.len());
            write_result(&mut out, result, at == 0, &bar);
        }
    }
    close_table(&mut out, results.len() - shown.len());
    out.raw("<p class=\"key\">The bar is the 95 % interval, the tick in it the estimate, the dashed line the limit; ");
    out.raw("the good side is shaded. A clause holds when its whole interval is on the good side.</p>\n");
    out
}

fn write_result(out: &mut Markup, result: &ObjectiveResult, is_first: bool, bar: &Markup) {
    out.raw(if is_first { "<tr class=\"first\">" } else { "<tr class=\"again\">" });
    out.element("td", &result.journey);
    let limit = format::limit(result.sli, result.at_least, result.limit);
    out.raw("<td class=\"keep\">").text(result.sli.name()).raw(" ").text(limit).raw("</td>");
    out.element("td", result.phase.name());
    out.raw("<td>");
    badge(out, words::verdict_state(result.verdict), result.verdict.name());
    if let Some(note) = &result.note {
        out.raw("<small>").text(note).raw("</small>");
    }
    out.raw("</td>");
    number(out, format::estimate(result));
    number(out, format::interval(result));
    out.raw("<td>").append(bar).raw("</td>");
    number(out, format::count(result.samples));
    out.raw("</tr>\n");
}

fn is_same_clause(one: &ObjectiveResult, other: &ObjectiveResult) -> bool {
    let clause = |r: &ObjectiveResult| (r.sli, r.at_least, r.limit);
    one.journey == other.journey && clause(one) == clause(other)
}

/// Width of an interval bar in pixels.
const WIDE: f64 = 190.0;

/// One scale for all phases of a clause, so that their bars can be compared.
#[derive(Clone, Copy)]
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    /// Around every number and the limit, within what the indicator can be; none without finite numbers.
    fn of(results: &[ObjectiveResult]) -> Option<Self> {
        if results.iter().all(|result| result.estimate.is_none()) {
            return None;
        }
        let numbers = results.iter().flat_map(|r| [Some(r.limit), r.low, r.estimate, r.high]).flatten();
        let numbers: Vec<f64> = numbers.collect();
        let from = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let to = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !from.is_finite() || !to.is_finite() {
            return None;
        }
        let pad = ((to - from) * 0.08).max(to.abs() * 1e-6).max(1e-9);
        // A share is looked at closely; everything else starts at zero unless that makes the difference invisible.
        let is_share = results.iter().all(|result| result.sli == Sli::Availability);
        let most = if is_share && to <= 1.0 { 1.0 } else { f64::INFINITY };
        let from = match from {
            from if from >= 0.0 && !is_share && from < to / 2.0 => 0.0,
            from if from >= 0.0 => (from - pad).max(0.0),
            from => from - pad,
        };
        Some(Self { from, to: (to + pad).min(most) })
    }

    fn x(self, value: f64) -> f64 {
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0) * WIDE
    }
}

/// The interval against the limit. The first bar of a clause has the limit written above it, the last one the ends
/// of the scale below it, in room that the stylesheet leaves. Empty without a scale; without an interval there is only
/// the scale.
fn interval_bar(result: &ObjectiveResult, scale: Option<Scale>, is_first: bool, is_last: bool) -> Markup {
    let mut out = Markup::html();
    let Some(scale) = scale else { return out };
    let limit = scale.x(result.limit);
    out.raw("<svg class=\"interval\" width=\"190\" height=\"18\" aria-hidden=\"true\">");
    if is_first {
        let name = format::limit(result.sli, result.at_least, result.limit);
        let anchor = match limit / WIDE {
            share if share < 0.3 => "start",
            share if share > 0.7 => "end",
            _ => "middle",
        };
        label(&mut out, limit, -3.0, anchor, &name);
    }
    let (good_from, good_to) = if result.at_least { (limit, WIDE) } else { (0.0, limit) };
    out.raw("<rect class=\"goodside\" x=\"")
        .num(good_from)
        .raw("\" y=\"1\" width=\"")
        .num(good_to - good_from);
    out.raw("\" height=\"16\"/><line class=\"zero\" x2=\"190\" y1=\"9\" y2=\"9\"/>");
    if result.low.is_some() || result.high.is_some() {
        // An interval without an end goes on beyond the scale.
        let (low, high) = (result.low.map_or(0.0, |v| scale.x(v)), result.high.map_or(WIDE, |v| scale.x(v)));
        out.raw("<rect class=\"span ").raw(words::verdict_state(result.verdict).class()).raw("\" x=\"");
        out.num(low.min(WIDE - 3.0))
            .raw("\" y=\"6\" rx=\"1\" width=\"")
            .num((high - low).max(3.0))
            .raw("\" height=\"6\"/>");
    }
    if let Some(estimate) = result.estimate.map(|estimate| scale.x(estimate)) {
        out.raw("<line class=\"estimate\" x1=\"")
            .num(estimate)
            .raw("\" x2=\"")
            .num(estimate)
            .raw("\" y1=\"4\" y2=\"14\"/>");
    }
    out.raw("<line class=\"bound\" x1=\"")
        .num(limit)
        .raw("\" x2=\"")
        .num(limit)
        .raw("\" y1=\"0\" y2=\"18\"/>");
    if is_last {
        label(&mut out, 0.0, 29.0, "start", &format::value(result.sli, scale.from));
        label(&mut out, WIDE, 29.0, "end", &format::value(result.sli, scale.to));
    }
    out.raw("</svg>");
    out
}

fn label(out: &mut Markup, x: f64, y: f64, anchor: &'static str, text: &str) {
    out.raw("<text x=\"")
        .num(x)
        .raw("\" y=\"")
        .num(y)
        .raw("\" text-anchor=\"")
        .raw(anchor)
        .raw("\">")
        .text(text);
    out.raw("</text>");
}
