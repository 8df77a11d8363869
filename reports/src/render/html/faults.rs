//! What was broken and the proof that it was; what that says about single points of failure.

use super::super::words::{self, State};
use super::{ROWS_MAX, badge, close_table, number, open_table};
use crate::format;
use crate::markup::Markup;
use crate::record::{Finding, InjectionRecord, RunRecord};

/// More findings than this that are not confirmed are folded.
const FINDINGS_OPEN: usize = 6;

/// Requested against measured.
pub(super) fn proofs(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    if record.injections.is_empty() {
        return out;
    }
    let heads = ["", "Fault", "Live", "Requested", "Measured", "Tolerance", "#Samples", "Proof", "Undo"];
    open_table(&mut out, &heads);
    for (at, injection) in words::injections(record, ROWS_MAX).into_iter().take(ROWS_MAX) {
        out.raw("<tr class=\"first\"><td class=\"key\">F")
            .text(at.to_string())
            .raw("</td><td class=\"what\"><strong>");
        out.text(&injection.fault)
            .raw("</strong> · ")
            .text(&injection.target)
            .raw("<small>")
            .text(&injection.summary);
        out.raw("</small></td><td class=\"keep\">").text(words::live(injection)).raw("</td>");
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

/// Confirmed findings as cards with their remedies, then the others as a table.
pub(super) fn findings(record: &RunRecord) -> Markup {
    let mut out = Markup::html();
    let all = &record.judgement.findings;
    if all.is_empty() {
        return out;
    }
    let (confirmed, others): (Vec<_>, Vec<_>) =
        all.iter().partition(|finding| words::finding_state(finding) == State::Bad);
    for finding in confirmed.iter().take(ROWS_MAX) {
        write_card(&mut out, finding);
    }
    if confirmed.len() > ROWS_MAX {
        out.raw("<p class=\"more\">… and ").text((confirmed.len() - ROWS_MAX).to_string()).raw(" more</p>\n");
    }
    if others.len() > FINDINGS_OPEN {
        out.raw("<details><summary>")
            .text(format::many(others.len() as u64, "other finding"))
            .raw("</summary>");
        out.append(&others_table(&others)).raw("</details>\n");
    } else if !others.is_empty() {
        out.append(&others_table(&others));
    }
    out.raw("<p class=\"key\"><strong>Confirmed</strong>: this alone broke the journey. <strong>Refuted</strong>: it ");
    out.raw("was broken and the journey held. <strong>Untested</strong>: the run cannot tell.</p>\n");
    out
}

fn others_table(others: &[&Finding]) -> Markup {
    let mut out = Markup::html();
    open_table(&mut out, &["Finding", "Broken", "Journey", "Evidence"]);
    for finding in others.iter().take(ROWS_MAX) {
        out.raw("<tr class=\"first\"><td>");
        badge(&mut out, words::finding_state(finding), &finding.status);
        out.raw("</td><td class=\"what\">").text(&finding.target).raw("<small>").text(&finding.fault);
        out.raw("</small></td>")
            .element("td", &finding.journey)
            .raw("<td class=\"what\">")
            .text(&finding.evidence);
        if !finding.remedy.is_empty() {
            out.raw("<small>").text(&finding.remedy).raw("</small>");
        }
        out.raw("</td></tr>\n");
    }
    close_table(&mut out, others.len().saturating_sub(ROWS_MAX));
    out
}

fn write_card(out: &mut Markup, finding: &Finding) {
    let state = words::finding_state(finding);
    out.raw("<article class=\"finding ").raw(state.class()).raw("\"><h3>");
    badge(out, state, &finding.status);
    out.raw(" <span><bdi>").text(&finding.target).raw("</bdi> alone breaks <bdi>").text(&finding.journey);
    out.raw("</bdi></span></h3><dl>");
    for (name, text) in
        [("Remedy", &finding.remedy), ("Evidence", &finding.evidence), ("Fault", &finding.fault)]
    {
        if !text.is_empty() {
            out.raw("<div>").element("dt", name).element("dd", text).raw("</div>");
        }
    }
    out.raw("</dl></article>\n");
}
