//! Each journey: its phases in numbers, errors by class, status codes, kinds and PoPs.

use std::collections::BTreeMap;

use super::super::{RenderError, words};
use super::{ROWS_MAX, close_table, number, open_table};
use crate::format;
use crate::markup::Markup;
use crate::record::{LoadRecord, Outcomes, Phase};

/// The most journeys with tables of their own.
const JOURNEYS_MAX: usize = 30;
/// The most rows of a table by PoP, kind or class.
const GROUPS_MAX: usize = 60;

/// All journeys.
pub(super) fn section(loads: &[LoadRecord]) -> Result<Markup, RenderError> {
    let mut out = Markup::html();
    for load in loads.iter().take(JOURNEYS_MAX) {
        out.append(&journey(load)?);
    }
    if loads.len() > JOURNEYS_MAX {
        let left_out = (loads.len() - JOURNEYS_MAX).to_string();
        out.raw("<p class=\"more\">… and ").text(left_out).raw(" more journeys</p>\n");
    }
    Ok(out)
}

fn journey(load: &LoadRecord) -> Result<Markup, RenderError> {
    let mut out = Markup::html();
    out.raw("<div class=\"journey\">").element("h3", &load.name).raw("<p class=\"sends\">");
    for (at, sends) in load.sends.iter().take(ROWS_MAX).enumerate() {
        out.raw(if at == 0 { "<code>" } else { " · <code>" }).text(sends).raw("</code>");
    }
    out.raw(" · ").text(&load.arrivals).raw("</p>\n");
    let rows: Vec<_> = load.phases.iter().map(|stats| (stats.phase.name(), "", &stats.all)).collect();
    out.append(&outcomes(load, &["Phase"], &rows)?);
    out.raw("<div class=\"columns\">").append(&errors(load)).append(&statuses(load)).raw("</div>\n");
    let has_pops = load.phases.iter().any(|stats| stats.pops.len() > 1);
    if has_pops {
        let rows = load.phases.iter().flat_map(|stats| {
            stats
                .pops
                .iter()
                .map(|(pop, of)| (if pop == "-" { "no answer" } else { pop }, stats.phase.name(), of))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|(pop, _, _)| (*pop == "no answer", *pop));
        out.raw("<details><summary>By PoP and phase</summary>").append(&outcomes(
            load,
            &["PoP", "Phase"],
            &rows,
        )?);
        out.raw("</details>\n");
    }
    if load.phases.iter().any(|stats| stats.kinds.len() > 1) {
        let rows = load.phases.iter();
        let rows = rows.flat_map(|s| s.kinds.iter().map(|(kind, of)| (kind.as_str(), s.phase.name(), of)));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|(kind, _, _)| *kind);
        out.raw("<details><summary>By request and phase</summary>");
        out.append(&outcomes(load, &["Request", "Phase"], &rows)?).raw("</details>\n");
    }
    out.raw("</div>\n");
    Ok(out)
}

/// Rows of counts and quantiles, each with one or two names.
fn outcomes(
    load: &LoadRecord,
    names: &[&'static str],
    rows: &[(&str, &str, &Outcomes)],
) -> Result<Markup, RenderError> {
    let mut out = Markup::html();
    let numbers = ["#due", "#ok", "#failed", "#availability", "#p50", "#p90", "#p99", "#p99.9", "#max"];
    open_table(&mut out, &[names, &numbers].concat());
    let mut last = "";
    for (name, second, of) in rows.iter().take(GROUPS_MAX) {
        let latencies = words::latencies(load, of)?;
        out.raw(if *name == last { "<tr class=\"again\">" } else { "<tr class=\"first\">" })
            .element("td", name);
        last = name;
        if names.len() > 1 {
            out.element("td", second);
        }
        number(&mut out, format::count(of.due));
        number(&mut out, format::count(of.ok));
        number(&mut out, format::count(of.failed()));
        number(&mut out, words::availability(of).map_or_else(|| format::NONE.to_owned(), format::share));
        for q in [0.5, 0.9, 0.99, 0.999, 1.0] {
            number(&mut out, latencies.quantile(q).map_or_else(|| format::NONE.to_owned(), format::seconds));
        }
        out.raw("</tr>\n");
    }
    close_table(&mut out, rows.len().saturating_sub(GROUPS_MAX));
    Ok(out)
}

/// Counts by name and phase as a table; empty when there are none.
fn matrix(title: &'static str, load: &LoadRecord, counts: &BTreeMap<String, BTreeMap<Phase, u64>>) -> Markup {
    let mut out = Markup::html();
    if counts.is_empty() {
        return out;
    }
    let phases: Vec<_> = load.phases.iter().map(|stats| stats.phase).collect();
    out.raw("<div class=\"wide\"><table><thead><tr><th scope=\"col\">").raw(title).raw("</th>");
    for phase in &phases {
        out.raw("<th scope=\"col\" class=\"n\">").text(phase.name()).raw("</th>");
    }
    out.raw("</tr></thead><tbody>\n");
    for (name, by_phase) in counts.iter().take(GROUPS_MAX) {
        out.raw("<tr class=\"first\">").element("td", name);
        for phase in &phases {
            let n = by_phase.get(phase).copied().unwrap_or(0);
            number(&mut out, if n == 0 { "·".to_owned() } else { format::count(n) });
        }
        out.raw("</tr>\n");
    }
    close_table(&mut out, counts.len().saturating_sub(GROUPS_MAX));
    out
}

fn errors(load: &LoadRecord) -> Markup {
    let mut counts: BTreeMap<String, BTreeMap<Phase, u64>> = BTreeMap::new();
    for stats in &load.phases {
        for (class, n) in &stats.all.errors {
            let cause = load.phases.iter().find_map(|stats| stats.causes.get(class));
            let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
            *counts.entry(format!("{class}{cause}")).or_default().entry(stats.phase).or_default() += n;
        }
    }
    matrix("Errors by class", load, &counts)
}

fn statuses(load: &LoadRecord) -> Markup {
    let mut counts: BTreeMap<String, BTreeMap<Phase, u64>> = BTreeMap::new();
    for stats in &load.phases {
        for (status, n) in &stats.statuses {
            *counts.entry(format!("{status:03}")).or_default().entry(stats.phase).or_default() += n;
        }
    }
    matrix("Status", load, &counts)
}
