//! The charts: per journey latency and requests over time, and the share of traffic per PoP.

use std::collections::BTreeMap;

use super::super::{RenderError, errors};
use super::{heat, percentiles};
use crate::format;
use crate::markup::Markup;
use crate::record::{InjectionRecord, LoadRecord, Objective, PhaseSpan, Sli};
use crate::series::{self, Slot};
use crate::svg::{Axis, Chart, PLOT, Scene, Step};

/// The most journeys that get charts.
const JOURNEYS_MAX: usize = 4;
/// The most PoPs with an area of their own; the rest is one area.
const POPS_MAX: usize = 7;
/// The fewest answers that make a share.
const ANSWERS_MIN: u64 = 20;
/// The most limits drawn in one chart.
pub(super) const LIMITS_MAX: usize = 6;
/// Colours of areas, in the stylesheet.
const AREAS: [&str; 8] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];
/// The names and classes of [`series::QUANTILES`].
const QUANTILES: [&str; series::QUANTILES.len()] = ["p50", "p90", "p99", "max"];

/// What the charts of one page are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Story<'a> {
    /// What was sent and what came back.
    pub(super) loads: &'a [LoadRecord],
    /// What must hold.
    pub(super) objectives: &'a [Objective],
    /// When each phase was; none if nothing tells them apart.
    pub(super) phases: &'a [PhaseSpan],
    /// What was broken.
    pub(super) injections: &'a [InjectionRecord],
}

impl<'a> Story<'a> {
    /// The limits of a load's latency, as many as are drawn.
    pub(super) fn limits(&self, load: &LoadRecord) -> Vec<&'a Objective> {
        let is_limit = |o: &&Objective| o.journey == load.name && matches!(o.sli, Sli::Latency(_));
        self.objectives.iter().filter(is_limit).take(LIMITS_MAX).collect()
    }

    /// Draws the limits of a load's latency where they are judged.
    pub(super) fn draw_limits(&self, chart: &mut Chart<'_>, limits: &[&Objective]) {
        for objective in limits {
            let judged = self.phases.iter().filter(|span| objective.phases.contains(&span.phase));
            let spans: Vec<_> = match self.phases {
                [] => vec![(f64::NEG_INFINITY, f64::INFINITY)],
                _ => judged.map(|span| (span.start_s, span.end_s)).collect(),
            };
            chart.limit(objective.limit, &spans, &limit_name(objective));
        }
    }
}

/// `p99 ≤ 250 ms`.
pub(super) fn limit_name(objective: &Objective) -> String {
    let limit = format::limit(objective.sli, objective.at_least, objective.limit);
    format!("{} {limit}", objective.sli.name())
}

/// All charts; empty when nothing was sent.
pub(super) fn section(story: &Story<'_>) -> Result<Markup, RenderError> {
    let mut out = Markup::html();
    let mut drawn = Vec::new();
    for load in story.loads {
        let damaged = |source| RenderError::Latencies { journey: load.name.clone(), source };
        let slots = series::slots(load).map_err(damaged)?;
        if !slots.is_empty() {
            drawn.push((load, slots));
        }
    }
    if drawn.is_empty() {
        return Ok(out);
    }
    let scene = Scene::of(story.phases, story.injections, drawn.iter().flat_map(|(_, slots)| slots));
    for (load, slots) in drawn.iter().take(JOURNEYS_MAX) {
        out.append(&latency(story, load, &scene, slots)).append(&heat::figure(story, load, &scene, slots)?);
        out.append(&requests(story, load, &scene, slots)).append(&percentiles::figure(story, load)?);
    }
    out.append(&shares(&scene, &drawn));
    if drawn.len() > JOURNEYS_MAX {
        let left_out = drawn.len() - JOURNEYS_MAX;
        out.raw("<p class=\"more\">").text(format::many(left_out as u64, "further journey"));
        out.raw(" without charts; the tables below have all of them.</p>\n");
    }
    if scene.hidden > 0 {
        out.raw("<p class=\"more\">").text(format::many(scene.hidden as u64, "injection"));
        out.raw(" not drawn for lack of room; the table of faults has all of them.</p>\n");
    }
    Ok(out)
}

/// A figure with a caption: a title and a legend of (class, name); below the chart, more about it.
pub(super) fn figure(title: &str, legend: &[(&'static str, &str)], chart: &Markup, more: &Markup) -> Markup {
    let mut out = Markup::html();
    out.raw("<figure><figcaption><strong>").text(title).raw("</strong><span class=\"legend\">");
    for (class, name) in legend {
        out.raw("<span><i class=\"swatch ").raw(class).raw("\"></i>").text(name).raw("</span>");
    }
    out.raw("</span></figcaption>").append(chart).append(more).raw("</figure>\n");
    out
}

fn latency(story: &Story<'_>, load: &LoadRecord, scene: &Scene, slots: &[Slot]) -> Markup {
    let latencies = || slots.iter().flat_map(|slot| slot.latencies).flatten();
    let min = latencies().fold(f64::INFINITY, f64::min);
    let limits = story.limits(load);
    let max = latencies().chain(limits.iter().map(|o| o.limit)).fold(0.0, f64::max);
    let axis = Axis::fitting(min, max);
    let alt = format!(
        "Latency of {} over time: p50, p90, p99 and maximum, up to {}",
        load.name,
        format::seconds(max)
    );
    let note = if axis.is_log() { " (logarithmic)" } else { "" };
    let mut chart = Chart::new(scene, axis, format::seconds_exact, alt);
    for (at, name) in QUANTILES.into_iter().enumerate().rev() {
        let points: Vec<_> = slots.iter().map(|slot| (slot.middle_s(), slot.latencies[at])).collect();
        chart.line(name, &points);
    }
    let gaps = without_success(slots);
    chart.gaps(&gaps, "no request succeeded in this time");
    story.draw_limits(&mut chart, &limits);
    let legend = QUANTILES.map(|name| (name, name));
    let legend = legend.into_iter().chain((!limits.is_empty()).then_some(("limit", "objective")));
    let legend: Vec<_> =
        legend.chain((!gaps.is_empty()).then_some(("gap", "no request succeeded"))).collect();
    figure(&format!("Latency of {} over time{note}", load.name), &legend, &chart.draw(), &Markup::html())
}

/// The spans in which requests were due or ended and none has a latency.
pub(super) fn without_success(slots: &[Slot]) -> Vec<(f64, f64)> {
    let mut spans: Vec<(f64, f64)> = Vec::new();
    for slot in slots {
        let has_requests = slot.due + slot.ok + slot.failed > 0;
        if !has_requests || slot.latencies.iter().any(Option::is_some) {
            continue;
        }
        match spans.last_mut() {
            Some(last) if last.1 >= slot.start_s - 1e-6 => last.1 = slot.end_s,
            _ => spans.push((slot.start_s, slot.end_s)),
        }
    }
    spans
}

fn requests(story: &Story<'_>, load: &LoadRecord, scene: &Scene, slots: &[Slot]) -> Markup {
    let due = |slot: &Slot| slot.per_second(slot.due);
    let ok = |slot: &Slot| slot.per_second(slot.ok);
    let done = |slot: &Slot| slot.per_second(slot.ok + slot.failed);
    let max = slots.iter().map(|slot| due(slot).max(done(slot))).fold(0.0, f64::max);
    let failed: u64 = slots.iter().map(|slot| slot.failed).sum();
    let alt = format!(
        "Requests of {} per second over time, up to {}; {} in all",
        load.name,
        format::rate(max),
        format::many(failed, "failure")
    );
    let mut chart = Chart::new(scene, Axis::linear(max * 1.05), format::rate, alt);
    let area = |low: &dyn Fn(&Slot) -> f64, high: &dyn Fn(&Slot) -> f64| {
        slots.iter().map(|slot| step(slot.start_s, slot.end_s, low(slot), high(slot))).collect::<Vec<_>>()
    };
    chart.area("ok", &area(&|_| 0.0, &ok));
    chart.area("error", &area(&ok, &done));
    let steps = slots.iter().flat_map(|slot| [slot.start_s, slot.end_s].map(|s| (s, Some(due(slot)))));
    chart.line("due", &steps.collect::<Vec<_>>());
    let legend = [("ok", "ok"), ("error", "errors"), ("due", "due")];
    let mut out =
        figure(&format!("Requests of {} per second", load.name), &legend, &chart.draw(), &Markup::html());
    for line in errors::lines_of(load, !story.phases.is_empty()) {
        out.raw("<p class=\"why\">").text(line).raw("</p>\n");
    }
    out
}

fn step(from_s: f64, to_s: f64, low: f64, high: f64) -> Step {
    Step { from_s, to_s, low, high }
}

/// The answers of all journeys in one slice of time.
#[derive(Default)]
struct Answers<'a> {
    from_s: f64,
    to_s: f64,
    pops: BTreeMap<&'a str, u64>,
}

impl<'a> Answers<'a> {
    fn count(&self) -> u64 {
        self.pops.values().sum()
    }

    fn add(&mut self, pops: impl IntoIterator<Item = (&'a str, u64)>) {
        for (pop, n) in pops {
            *self.pops.entry(pop).or_default() += n;
        }
    }

    /// Takes in the slice that comes after it.
    fn extend(&mut self, next: Self) {
        self.to_s = next.to_s;
        self.add(next.pops);
    }
}

/// Answers by PoP over time. A slice goes up to the next one and has at least [`ANSWERS_MIN`] answers, where time
/// without any does not part it from its neighbours; that time is left out.
fn answers<'a>(loads: &'a [(&LoadRecord, Vec<Slot>)]) -> Vec<Answers<'a>> {
    let mut grid: BTreeMap<u64, Answers<'a>> = BTreeMap::new();
    for slot in loads.iter().flat_map(|(_, slots)| slots) {
        let new = || Answers { from_s: slot.start_s, to_s: slot.end_s, pops: BTreeMap::new() };
        let answers = grid.entry((slot.start_s.max(0.0) * 10.0) as u64).or_insert_with(new);
        answers.to_s = answers.to_s.max(slot.end_s);
        answers.add(slot.pops.iter().filter(|(pop, _)| *pop != "-").map(|(pop, n)| (pop.as_str(), *n)));
    }
    let mut grid: Vec<_> = grid.into_values().collect();
    for at in 1..grid.len() {
        grid[at - 1].to_s = grid[at].from_s;
    }
    let mut slices: Vec<Answers<'a>> = Vec::new();
    // Journeys of different length have slots of different length: more of them than points are merged.
    let at_least = grid.len().div_ceil(series::POINTS_MAX).max(1);
    let mut merged = at_least;
    for answers in grid.into_iter().filter(|answers| answers.count() > 0) {
        match slices.last_mut() {
            Some(last)
                if merged < at_least
                    || (last.to_s >= answers.from_s - 1e-6
                        && last.count().min(answers.count()) < ANSWERS_MIN) =>
            {
                merged += 1;
                last.extend(answers);
            }
            _ => {
                merged = 1;
                slices.push(answers);
            }
        }
    }
    slices
}

/// Empty when answers name fewer than two PoPs.
fn shares(scene: &Scene, loads: &[(&LoadRecord, Vec<Slot>)]) -> Markup {
    let grid = answers(loads);
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (pop, n) in grid.iter().flat_map(|answers| &answers.pops) {
        *totals.entry(pop).or_default() += n;
    }
    if totals.len() < 2 {
        return Markup::html();
    }
    let mut names: Vec<_> = totals.keys().copied().collect();
    names.sort_by_key(|name| std::cmp::Reverse(totals[name]));
    let rest = names.split_off(names.len().min(POPS_MAX));
    let alt = format!("Share of answers per PoP over time: {}", names.join(", "));
    let mut chart = Chart::new(scene, Axis::linear(1.0), format::percent, alt);
    let mut floor: Vec<_> = grid.iter().map(|_| 0.0).collect();
    let groups = names.iter().map(|name| vec![*name]).chain((!rest.is_empty()).then(|| rest.clone()));
    let mut legend = Vec::new();
    for (group, class) in groups.zip(AREAS) {
        let label = if group.len() > 1 { "others" } else { group[0] };
        let steps: Vec<_> = grid
            .iter()
            .zip(&mut floor)
            .map(|(answers, floor)| {
                let all = answers.count();
                let own: u64 = group.iter().filter_map(|pop| answers.pops.get(pop)).sum();
                let low = *floor;
                *floor = (low + own as f64 / all as f64).min(1.0);
                step(answers.from_s, answers.to_s, low, *floor)
            })
            .collect();
        chart.area(class, &steps);
        name_area(&mut chart, &steps, label);
        legend.push((class, label));
    }
    figure("Share of answers per PoP", &legend, &chart.draw(), &Markup::html())
}

/// Writes the name into the area near its left end, if there is room.
fn name_area(chart: &mut Chart<'_>, steps: &[Step], name: &str) {
    let near: Vec<_> = steps.iter().take(steps.len().div_ceil(10)).collect();
    let low = near.iter().map(|step| step.low).fold(0.0, f64::max);
    let high = near.iter().map(|step| step.high).fold(1.0, f64::min);
    if (high - low) * PLOT >= 16.0 {
        let y = chart.axis.y(low.midpoint(high)) + 4.0;
        chart.over.raw("<text class=\"area-name\" x=\"1%\" y=\"").num(y).raw("\">").text(name).raw("</text>");
    }
}
