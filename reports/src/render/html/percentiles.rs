//! Latency by percentile: response and service, before the fault and in it, against the limits; all phases as a table.

use super::super::{RenderError, words};
use super::charts::{self, Story, limit_name};
use super::{close_table, number};
use crate::format;
use crate::latency::Latencies;
use crate::markup::Markup;
use crate::record::{LoadRecord, Outcomes, Phase, Sli};
use crate::svg::{Axis, Nines, Percentiles};

/// The percentiles of the table; the last is the largest.
const ROWS: [f64; 9] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.999_9, 0.999_99, 1.0];
/// How many times the median the tail is, or a limit, from which on the axis is logarithmic.
const TAIL: f64 = 5.0;
/// Classes of the lines in the stylesheet: response, then service, of the first phase drawn and of the second.
const LINES: [[&str; 2]; 2] = [["response calm", "service calm"], ["response broken", "service broken"]];

/// Latencies of one phase: from the intended time, and from when a connection took the request.
struct Pair {
    phase: Phase,
    response: Latencies,
    service: Option<Latencies>,
}

impl Pair {
    fn of(load: &LoadRecord, phase: Phase, all: &Outcomes) -> Result<Self, RenderError> {
        let response = words::latencies(load, all)?;
        let kept = Outcomes { latencies: all.service.clone(), ..Outcomes::default() };
        let service = (!all.service.is_empty()).then(|| words::latencies(load, &kept)).transpose()?;
        Ok(Self { phase, response, service: service.filter(|latencies| latencies.count() > 0) })
    }

    /// Its series with their names.
    fn series(&self) -> impl Iterator<Item = (&'static str, &Latencies)> {
        [("response", Some(&self.response)), ("service", self.service.as_ref())]
            .into_iter()
            .filter_map(|(name, latencies)| Some((name, latencies?)))
    }
}

/// The figure of one load; empty where nothing has a latency.
pub(super) fn figure(story: &Story<'_>, load: &LoadRecord) -> Result<Markup, RenderError> {
    let mut pairs = Vec::new();
    for stats in &load.phases {
        pairs.push(Pair::of(load, stats.phase, &stats.all)?);
    }
    pairs.retain(|pair| pair.response.count() > 0);
    // What counts is the fault beside the time before it; more lines would hide each other.
    let wanted = |pair: &&Pair| matches!(pair.phase, Phase::Baseline | Phase::Fault);
    let mut drawn: Vec<_> = pairs.iter().filter(wanted).collect();
    if drawn.is_empty() {
        drawn.extend(pairs.first());
    }
    let values = || drawn.iter().flat_map(|pair| pair.series().map(|(_, latencies)| latencies));
    let Some(most) = values().map(Latencies::count).max() else { return Ok(Markup::html()) };
    let limits = story.limits(load);
    let low = values().filter_map(|latencies| latencies.quantile(0.5)).fold(f64::INFINITY, f64::min);
    let max = values().filter_map(Latencies::max).fold(0.0, f64::max);
    let high = limits.iter().map(|objective| objective.limit).fold(max, f64::max);
    // On a linear axis a tail of some size would press the rest to the bottom.
    let axis = if high > low * TAIL { Axis::logarithmic(low, high) } else { Axis::linear(high) };
    let note = if axis.is_log() { " (logarithmic)" } else { "" };
    let mut plot = Percentiles::new(Nines::of(most), axis);
    let several = story.phases.len() > 1;
    let mut legend: Vec<(&'static str, String)> = Vec::new();
    for pair in &drawn {
        let classes = LINES[usize::from(pair.phase == Phase::Fault)];
        for ((name, latencies), class) in pair.series().zip(classes) {
            plot.line(class, latencies);
            legend.push((
                class,
                if several { format!("{name} in {}", pair.phase.name()) } else { name.to_owned() },
            ));
        }
    }
    for objective in &limits {
        if let Sli::Latency(q) = objective.sli {
            plot.limit(q, objective.limit, &limit_name(objective));
        }
    }
    if !limits.is_empty() {
        legend.push(("limit", "objective, up to its percentile".to_owned()));
    }
    let names: Vec<_> = legend.iter().map(|(_, name)| name.as_str()).collect();
    let alt = format!(
        "Latency of {} by percentile, from the median to the largest: {}; up to {}",
        load.name,
        names.join(", "),
        format::seconds(max)
    );
    let legend: Vec<_> = legend.iter().map(|(class, name)| (*class, name.as_str())).collect();
    let title = format!("Latency of {} by percentile{note}", load.name);
    Ok(charts::figure(&title, &legend, &plot.draw(&alt), &table(&pairs, several)))
}

/// Every phase and series.
fn table(pairs: &[Pair], several: bool) -> Markup {
    let mut out = Markup::html();
    out.raw("<details><summary>Percentiles as a table</summary><div class=\"wide\"><table><thead><tr>");
    out.raw("<th scope=\"col\"></th>");
    for (pair, (name, _)) in columns(pairs) {
        out.raw("<th scope=\"col\" class=\"n\">").text(if several { pair.phase.name() } else { "" });
        out.raw(if several { " " } else { "" }).text(name).raw("</th>");
    }
    out.raw("</tr></thead><tbody>\n");
    for q in ROWS {
        let name = if q < 1.0 { Sli::Latency(q).name() } else { "max".to_owned() };
        out.raw("<tr class=\"first\">").element("td", name);
        for (_, (_, latencies)) in columns(pairs) {
            // Of 100 values, none is the 99.9th percentile.
            let is_told = q >= 1.0 || latencies.count() as f64 * (1.0 - q) >= 1.0 - 1e-6;
            let value = latencies.quantile(q).filter(|_| is_told);
            number(&mut out, value.map_or_else(|| format::NONE.to_owned(), format::seconds));
        }
        out.raw("</tr>\n");
    }
    out.raw("<tr class=\"first\">").element("td", "answers");
    for (_, (_, latencies)) in columns(pairs) {
        number(&mut out, format::count(latencies.count()));
    }
    out.raw("</tr>\n");
    close_table(&mut out, 0);
    out.raw("</details>");
    out
}

fn columns(pairs: &[Pair]) -> impl Iterator<Item = (&Pair, (&'static str, &Latencies))> {
    pairs.iter().flat_map(|pair| pair.series().map(move |series| (pair, series)))
}
