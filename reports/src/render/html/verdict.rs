//! The banner, the deciding reasons, and the objectives with their intervals.

use super::super::words::{self, State};
use super::{ROWS_MAX, badge, close_table, number, open_table};
use crate::format;
use crate::markup::Markup;
use crate::record::{ObjectiveResult, RunRecord, Verdict};

const REASONS_MAX: usize = 20;

/// The verdict and the question, before anything else.
pub(super) fn banner(record: &RunRecord) -> Markup {
    let state = words::verdict_state(record.judgement.verdict);
    let mut out = Markup::html();
    out.raw("<header class=\"banner ")
        .raw(state.class())
        .raw("\">\n<p class=\"verdict\"><span class=\"icon\" ");
    out.raw("aria-hidden=\"true\">").raw(state.icon()).raw("</span>");
    out.text(record.judgement.verdict.name().to_uppercase()).raw("<span class=\"meaning\">");
    out.raw(meaning(record.judgement.verdict)).raw("</span></p>\n");
    out.element("h1", &record.experiment.question).raw("\n<dl class=\"about\">");
    let about = [
        ("Experiment", record.experiment.name.clone()),
        ("Owner", record.experiment.owner.clone().unwrap_or_default()),
        ("Started", format::utc(record.started_unix_s)),
        ("Took", format::seconds(words::length_s(record))),
        ("Target", record.host.target.clone()),
        ("Run", record.run.clone()),
        ("squall", record.squall.clone()),
    ];
    for (name, value) in about.iter().filter(|(_, value)| !value.is_empty()) {
        out.raw("<div>").element("dt", name).element("dd", value).raw("</div>");
    }
    out.raw("</dl>\n").append(&reasons(record)).append(&facts(record)).raw("</header>\n");
    out
}

fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "the hypothesis held",
        Verdict::Missed => "the hypothesis did not hold",
        Verdict::Unknown => "the run cannot tell",
    }
}

fn reasons(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    let reasons: Vec<_> =
        words::end(record).into_iter().chain(record.judgement.reasons.iter().cloned()).collect();
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
    if words::was_injected(record) {
        let (value, state, note) = match record.judgement.detect_s {
            Some(s) => (format::seconds(s), State::Bad, "after the first injection"),
            None => match words::not_detected(record) {
                (State::Good, note) => ("never".to_owned(), State::Good, note),
                (state, note) => ("not seen".to_owned(), state, note),
            },
        };
        fact("Objective broke", &value, state, note);
    }
    if let Some((state, _)) = words::recovered(record) {
        let value = record.judgement.recover_s.map_or_else(|| "not seen".to_owned(), format::seconds);
        let why = record.judgement.recover_note.as_deref().filter(|_| record.judgement.recover_s.is_none());
        let why = why.unwrap_or("after the last undo");
        let note = format!("{why}; {} allowed", format::seconds(record.recover_within_s));
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
pub(super) fn objectives(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    let results = &record.judgement.results;
    if results.is_empty() {
        return out;
    }
    let heads = ["Journey", "Objective", "Phase", "Verdict", "#Estimate", "#95 % interval", "", "#Samples"];
    open_table(&mut out, &heads);
    let mut scale = None;
    for (at, result) in results.iter().enumerate().take(ROWS_MAX) {
        let is_new = at == 0 || !is_same_clause(&results[at - 1], result);
        if is_new {
            scale = Scale::of(results[at..].iter().take_while(|other| is_same_clause(other, result)));
        }
        out.raw(if is_new { "<tr class=\"first\">" } else { "<tr class=\"again\">" });
        out.element("td", &result.journey);
        let limit = format::limit(result.sli, result.at_least, result.limit);
        out.raw("<td class=\"keep\">").text(result.sli.name()).raw(" ").text(limit).raw("</td>");
        out.element("td", result.phase.name());
        out.raw("<td>");
        badge(&mut out, words::verdict_state(result.verdict), result.verdict.name());
        if let Some(note) = &result.note {
            out.raw("<small>").text(note).raw("</small>");
        }
        out.raw("</td>");
        number(&mut out, format::estimate(result));
        number(&mut out, format::interval(result));
        out.raw("<td>").append(&interval_bar(result, scale)).raw("</td>");
        number(&mut out, format::count(result.samples));
        out.raw("</tr>\n");
    }
    close_table(&mut out, results.len().saturating_sub(ROWS_MAX));
    out.raw("<p class=\"key\">The bar is the 95 % interval, the tick in it the estimate, the tall line the limit; ");
    out.raw("the good side is shaded. A clause holds when its whole interval is on the good side.</p>\n");
    out
}

fn is_same_clause(one: &ObjectiveResult, other: &ObjectiveResult) -> bool {
    let clause = |r: &ObjectiveResult| (r.sli, r.at_least, r.limit);
    one.journey == other.journey && clause(one) == clause(other)
}

/// Width of an interval bar in pixels.
const WIDE: f64 = 132.0;

/// One scale for all phases of a clause, so that their bars can be compared.
#[derive(Clone, Copy)]
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    /// Around every interval and the limit; none without finite numbers.
    fn of<'a>(results: impl Iterator<Item = &'a ObjectiveResult>) -> Option<Self> {
        let numbers: Vec<f64> = results.flat_map(|r| [Some(r.limit), r.low, r.high]).flatten().collect();
        let from = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let to = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let pad = ((to - from) * 0.08).max(to.abs() * 1e-6).max(1e-9);
        (from.is_finite() && to.is_finite()).then_some(Self { from: from - pad, to: to + pad })
    }

    fn x(self, value: f64) -> f64 {
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0) * WIDE
    }
}

/// The interval against the limit; empty without an interval.
fn interval_bar(result: &ObjectiveResult, scale: Option<Scale>) -> Markup {
    let mut out = Markup::html();
    let (Some(estimate), Some(low), Some(high)) = (result.estimate, result.low, result.high) else {
        return out;
    };
    let Some(scale) = scale else { return out };
    let x = |value| scale.x(value);
    let limit = x(result.limit);
    let (good_from, good_to) = if result.at_least { (limit, WIDE) } else { (0.0, limit) };
    let class = words::verdict_state(result.verdict).class();
    out.raw("<svg class=\"interval\" width=\"132\" height=\"18\" aria-hidden=\"true\"><rect class=\"goodside\" x=\"");
    out.num(good_from)
        .raw("\" y=\"1\" width=\"")
        .num(good_to - good_from)
        .raw("\" height=\"16\"/><line class=\"zero\"");
    out.raw(" x2=\"132\" y1=\"9\" y2=\"9\"/><rect class=\"span ").raw(class).raw("\" x=\"").num(x(low));
    out.raw("\" y=\"6\" rx=\"1\" width=\"").num((x(high) - x(low)).max(3.0)).raw("\" height=\"6\"/>");
    out.raw("<line class=\"estimate\" x1=\"").num(x(estimate)).raw("\" x2=\"").num(x(estimate));
    out.raw("\" y1=\"4\" y2=\"14\"/><line class=\"bound\" x1=\"").num(limit).raw("\" x2=\"").num(limit);
    out.raw("\" y1=\"0\" y2=\"18\"/></svg>");
    out
}
