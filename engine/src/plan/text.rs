//! The plan in words: the dry run.

use std::fmt::Write as _;

use injectors::units::{Rate, Share, Span};
use reports::record::{Objective, Sli};

use super::{Plan, span};
use crate::experiment::Load;
use crate::journey::Pace;
use crate::schedule::Segment;

/// `p99 <= 250ms`.
pub fn clause(objective: &Objective) -> String {
    let op = if objective.at_least { ">=" } else { "<=" };
    let limit = match objective.sli {
        Sli::Availability => Share(objective.limit).to_string(),
        Sli::Latency(_) => Span(span(objective.limit)).to_string(),
        Sli::Throughput => Rate(objective.limit).to_string(),
    };
    format!("{} {op} {limit}", objective.sli.name())
}

/// The arrivals of a load in words.
pub(super) fn arrivals(load: &Load) -> String {
    if let Some(Pace::Users { count, ramp, lasting, .. }) = load.journey.as_ref().map(|journey| &journey.pace)
    {
        return format!("{count} users for {}, begun over {}", Span(*lasting), Span(*ramp));
    }
    let stretch = |segment: &Segment| match segment {
        Segment::Hold { rate, lasting } => format!("{} for {}", Rate(*rate), Span(*lasting)),
        Segment::Ramp { from, to, over } => format!("{} to {} over {}", Rate(*from), Rate(*to), Span(*over)),
        Segment::Steps { from, to, count, each } => {
            format!("{} to {} in {count} steps of {}", Rate(*from), Rate(*to), Span(*each))
        }
        Segment::Spike { peak, lasting, .. } => format!("spike of {} for {}", Rate(*peak), Span(*lasting)),
        Segment::Sine { mean, amplitude, period, lasting } => {
            format!("{} ± {} every {} for {}", Rate(*mean), Rate(*amplitude), Span(*period), Span(*lasting))
        }
    };
    let mut words: Vec<String> = load.arrivals.segments().iter().map(stretch).collect();
    if load.poisson {
        words.push("Poisson".to_owned());
    }
    if load.journey.is_some() {
        words.insert(0, "sessions".to_owned());
    }
    words.join(", ")
}

/// A URL without user name, password and query: fit for a report.
pub fn bare_url(url: &str) -> String {
    let cut = url.find(['?', '#']).map_or(url, |at| &url[..at]);
    match cut.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => cut.to_owned(),
    }
}

/// The whole plan for a person.
pub fn describe(plan: &Plan) -> String {
    let mut out = String::new();
    let at = |seconds: f64| Span(span(seconds)).to_string();
    let _ = writeln!(out, "{}: {}", plan.experiment, plan.question);
    let _ = writeln!(out, "seed {}, {} in all; nothing has been touched\n", plan.seed, at(plan.duration_s));
    let _ = writeln!(out, "phases");
    for phase in &plan.phases {
        let _ = writeln!(out, "  {:>8} … {:<8} {}", at(phase.start_s), at(phase.end_s), phase.phase.name());
    }
    let _ = writeln!(out, "\nload");
    for load in &plan.load {
        let _ = writeln!(out, "  {}: {}; {} requests", load.name, load.arrivals, load.requests);
        for sends in &load.sends {
            let _ = writeln!(out, "    {sends}");
        }
    }
    let _ = writeln!(out, "\ninjections");
    for injection in &plan.injections {
        let end = at(injection.at_s + injection.for_s);
        let _ =
            writeln!(out, "  {:>8} … {end:<8} #{} {}", at(injection.at_s), injection.number, injection.does);
        let _ = writeln!(out, "    undo:   {}", injection.undo);
        let _ = writeln!(out, "    claims: {}", injection.claims.join(", "));
    }
    faults(&mut out, plan);
    blast_radius(&mut out, plan);
    list(&mut out, "objectives", &plan.objectives);
    list(&mut out, "guards", &plan.guards);
    list(&mut out, "notes", &plan.notes);
    out
}

/// What proof and undo mean, once for each kind of fault.
fn faults(out: &mut String, plan: &Plan) {
    let mut told: Vec<&str> = Vec::new();
    for injection in &plan.injections {
        let about = injection.injector.about();
        if told.contains(&about.name) {
            continue;
        }
        let title = if told.is_empty() { "\nfaults\n" } else { "" };
        let _ = writeln!(out, "{title}  {}", about.name);
        let _ = writeln!(out, "    proof:  {}", about.proof);
        let _ = writeln!(out, "    undone: {}", about.undo);
        told.push(about.name);
    }
}

fn blast_radius(out: &mut String, plan: &Plan) {
    if plan.blast_radius.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nblast radius");
    for blast in &plan.blast_radius {
        let how_many = match blast.of {
            Some(of) if !blast.what.starts_with("relay ") => format!("{} of {of} {}", blast.hit, blast.what),
            _ => blast.what.clone(),
        };
        let needed = match &blast.journeys {
            Some(journeys) if journeys.is_empty() => "needed by no journey".to_owned(),
            Some(journeys) => format!("needed by {}", journeys.join(", ")),
            None => "nothing here tells who needs it".to_owned(),
        };
        let _ = writeln!(out, "  {how_many}; {needed}");
    }
}

fn list(out: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
}
