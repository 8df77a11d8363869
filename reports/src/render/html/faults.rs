//! What was broken and the proof that it was; what that says about single points of failure.

use super::super::words;
use super::{ROWS_MAX, badge, close_table, number, open_table};
use crate::format;
use crate::markup::Markup;
use crate::record::{InjectionRecord, RunRecord};

/// Requested against measured.
pub(super) fn proofs(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    if record.injections.is_empty() {
        return out;
    }
    let heads = ["", "Fault", "Live", "Requested", "Measured", "Tolerance", "#Samples", "Proof", "Undo"];
    open_table(&mut out, &heads);
    for (at, injection) in record.injections.iter().enumerate().take(ROWS_MAX) {
        out.raw("<tr class=\"first\"><td class=\"key\">F")
            .text((at + 1).to_string())
            .raw("</td><td class=\"what\"><strong>");
        out.text(&injection.fault)
            .raw("</strong> · ")
            .text(&injection.target)
            .raw("<small>")
            .text(&injection.summary);
        out.raw("</small></td><td class=\"keep\">").text(live(injection)).raw("</td>");
        let proof = &injection.proof;
        out.element("td", &proof.requested)
            .element("td", words::measured(injection))
            .element("td", &proof.tolerance);
        number(&mut out, format::count(proof.samples));
        out.raw("<td>");
        badge(&mut out, words::proof_state(injection), &proof.status);
        out.raw("</td><td>");
        badge(&mut out, words::undo_state(injection), &injection.undo);
        out.raw("</td></tr>\n");
        write_trouble(&mut out, injection, heads.len());
    }
    close_table(&mut out, record.injections.len().saturating_sub(ROWS_MAX));
    out
}

/// From when until when, in seconds of the run.
fn live(injection: &InjectionRecord) -> String {
    match (injection.applied_s, injection.undone_s) {
        (None, _) => "never".to_owned(),
        (Some(from), None) => format!("from {}", format::instant(from)),
        (Some(from), Some(to)) => format!("{} – {}", format::instant(from), format::instant(to)),
    }
}

/// A row of its own with the error, and what a person types.
fn write_trouble(out: &mut Markup, injection: &InjectionRecord, columns: usize) {
    let by_hand =
        !matches!(injection.undo.as_str(), "restored" | "not-needed") && !injection.manual.is_empty();
    if injection.error.is_none() && !by_hand {
        return;
    }
    out.raw("<tr class=\"trouble\"><td></td><td colspan=\"").text((columns - 1).to_string()).raw("\">");
    if let Some(error) = &injection.error {
        out.element("p", error);
    }
    if by_hand {
        out.raw("<p>By hand: <code>").text(&injection.manual).raw("</code></p>");
    }
    out.raw("</td></tr>\n");
}

/// Each finding with its evidence and remedy, the confirmed ones first.
pub(super) fn findings(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    let mut findings: Vec<_> = record.judgement.findings.iter().collect();
    if findings.is_empty() {
        return out;
    }
    findings.sort_by_key(|finding| match finding.status.as_str() {
        "confirmed" => 0,
        "untested" => 1,
        _ => 2,
    });
    out.raw("<div class=\"findings\">\n");
    for finding in findings.iter().take(ROWS_MAX) {
        let state = words::finding_state(finding);
        out.raw("<article class=\"").raw(state.class()).raw("\"><h3>");
        badge(&mut out, state, &finding.status);
        out.raw(" ").text(&finding.target).raw(" <span class=\"arrow\" aria-label=\"for\">→</span> ");
        out.text(&finding.journey).raw("</h3><dl><div><dt>Fault</dt>").element("dd", &finding.fault);
        out.raw("</div><div><dt>Evidence</dt>").element("dd", &finding.evidence).raw("</div>");
        if !finding.remedy.is_empty() {
            out.raw("<div><dt>Remedy</dt>").element("dd", &finding.remedy).raw("</div>");
        }
        out.raw("</dl></article>\n");
    }
    out.raw("</div>\n");
    if findings.len() > ROWS_MAX {
        let left_out = (findings.len() - ROWS_MAX).to_string();
        out.raw("<p class=\"more\">… and ").text(left_out).raw(" more</p>\n");
    }
    out.raw("<p class=\"key\"><strong>Confirmed</strong>: this alone broke the journey. <strong>Refuted</strong>: it ");
    out.raw("was broken and the journey held. <strong>Untested</strong>: the run cannot tell.</p>\n");
    out
}
