//! Reading what is judged: objectives, steady-state probes, guards.

use injectors::units::{Rate, Share, Span};
use reports::record::{Objective, Phase, Sli};

use super::arrivals::positive_span;
use super::expecting::expect_fields;
use super::reader::{Fields, Reader};
use super::yaml::{Content, Node};
use super::{Guard, GuardMetric, Probe, ProbeCheck};
use crate::experiment::mistake::{nearest, suggest};

/// Phases in which an objective or a probe must hold unless it says otherwise. Recovery has a clock of its own.
const JUDGED: [Phase; 3] = [Phase::Baseline, Phase::Fault, Phase::After];
const PHASES: &[(&str, Phase)] = &[
    ("baseline", Phase::Baseline),
    ("fault", Phase::Fault),
    ("recovery", Phase::Recovery),
    ("after", Phase::After),
];

fn phases(reader: &Reader<'_>, fields: &Fields<'_, '_>) -> Vec<Phase> {
    let Some(node) = fields.optional("phases") else { return JUDGED.to_vec() };
    let items = reader.list(node, "phases");
    if items.is_empty() {
        reader.mistake(node.id, "phases is empty: it would never be judged");
    }
    items.iter().filter_map(|item| reader.choice(item, "phases", PHASES)).collect()
}

/// Reads `objectives:`; `journeys` are the names of the loads.
pub(super) fn objectives(reader: &Reader<'_>, node: &Node, journeys: &[String]) -> Vec<Objective> {
    let mut objectives = Vec::new();
    for item in reader.list(node, "objectives") {
        let Some((id, journey, value)) = reader.named(item, "an objective") else { continue };
        if !journeys.iter().any(|known| known == journey) {
            let known: Vec<&str> = journeys.iter().map(String::as_str).collect();
            reader.mistake_with(
                id,
                format!("there is no load `{journey}` to judge"),
                suggest(journey, &known),
            );
        }
        let Some(fields) = reader.map(value, "an objective") else { continue };
        let phases = phases(reader, &fields);
        let mut clauses = 0;
        for (id, name, limit) in fields.others() {
            // A misspelt clause is one mistake, not a missing one as well.
            clauses += 1;
            let Some(sli) = sli(name) else {
                let help = match nearest(name, ["availability", "throughput", "phases"]) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "an objective knows availability, throughput, p50, p90, p99, p99.9 … and phases"
                        .to_owned(),
                };
                reader.mistake_with(id, format!("an objective has no field `{name}`"), help);
                continue;
            };
            let Some(text) = reader.text(limit, name) else { continue };
            match clause(sli, &text) {
                Ok((at_least, limit)) => {
                    let (journey, phases) = (journey.to_owned(), phases.clone());
                    objectives.push(Objective { journey, sli, at_least, limit, phases });
                }
                Err(error) => reader.mistake_with(limit.id, format!("{name}: {error}"), example(sli)),
            }
        }
        if clauses == 0 {
            reader.mistake_with(
                value.id,
                "an objective without a clause",
                "such as `availability: \">= 99.9%\"`",
            );
        }
    }
    objectives
}

fn sli(name: &str) -> Option<Sli> {
    match name {
        "availability" => Some(Sli::Availability),
        "throughput" => Some(Sli::Throughput),
        _ => quantile(name).map(Sli::Latency),
    }
}

/// `p99.9` as 0.999.
fn quantile(name: &str) -> Option<f64> {
    let digits = name.strip_prefix('p')?;
    if !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let percent: f64 = digits.parse().ok()?;
    (percent > 0.0 && percent < 100.0).then_some(percent / 100.0)
}

fn example(sli: Sli) -> &'static str {
    match sli {
        Sli::Availability => "write it like `\">= 99.9%\"`",
        Sli::Latency(_) => "write it like `\"<= 250ms\"`",
        Sli::Throughput => "write it like `\">= 380/s\"`",
    }
}

/// `<= 250ms` as (at least, limit).
/// Reads a clause by itself, such as `p99 <= 100ms`; it must hold in the baseline, the only phase of a load alone.
///
/// # Errors
/// In words: which part does not fit.
pub fn objective(journey: &str, text: &str) -> Result<Objective, String> {
    let text = text.trim();
    let (name, limit) = text.split_at(text.find(['<', '>', ' ']).unwrap_or(text.len()));
    let sli = sli(name).ok_or_else(|| {
        format!(
            "`{text}` names nothing that is measured: write it like `p99 <= 100ms` or `availability >= 99.9%`"
        )
    })?;
    let (at_least, limit) = clause(sli, limit)?;
    Ok(Objective { journey: journey.to_owned(), sli, at_least, limit, phases: vec![Phase::Baseline] })
}

fn clause(sli: Sli, text: &str) -> Result<(bool, f64), String> {
    let text = text.trim();
    let (at_least, limit) = if let Some(limit) = text.strip_prefix(">=") {
        (true, limit.trim())
    } else if let Some(limit) = text.strip_prefix("<=") {
        (false, limit.trim())
    } else {
        return Err(format!("`{text}` starts with neither >= nor <="));
    };
    let said = |error: injectors::units::UnitError| format!("`{limit}`: {error}");
    let limit = match sli {
        Sli::Availability if at_least => limit.parse::<Share>().map_err(said)?.0,
        Sli::Availability => return Err("an availability has a lower limit: >=".to_owned()),
        Sli::Latency(_) if !at_least => limit.parse::<Span>().map_err(said)?.0.as_secs_f64(),
        Sli::Latency(_) => return Err("a latency has an upper limit: <=".to_owned()),
        Sli::Throughput => limit.parse::<Rate>().map_err(said)?.0,
    };
    Ok((at_least, limit))
}

/// Reads `steady-state:`.
pub(super) fn probes(reader: &Reader<'_>, node: &Node) -> Vec<Probe> {
    let mut probes: Vec<Probe> = Vec::new();
    for item in reader.list(node, "steady-state") {
        let Some((id, kind, value)) = reader.named(item, "a probe") else { continue };
        let Some(fields) = reader.map(value, "a probe") else { continue };
        let check = match kind {
            "http" => http(reader, &fields),
            "tcp" => tcp(reader, &fields),
            "command" => command(reader, &fields),
            other => {
                let help = suggest(other, &["http", "tcp", "command"]);
                reader.mistake_with(id, format!("there is no probe `{other}`"), help);
                continue;
            }
        };
        let name = fields.required("name", "a probe").and_then(|node| reader.text(node, "name"));
        let span =
            |name: &'static str| fields.optional(name).and_then(|node| positive_span(reader, node, name));
        let every = span("every").unwrap_or(std::time::Duration::from_secs(1));
        let deadline = span("deadline").unwrap_or(std::time::Duration::from_secs(1));
        let share = fields.optional("share").and_then(|node| reader.parse::<Share>(node, "share"));
        let phases = phases(reader, &fields);
        fields.finish(&format!("a probe of kind {kind}"));
        let (Some(name), Some(check)) = (name, check) else { continue };
        if probes.iter().any(|probe| probe.name == name) {
            reader.mistake(id, format!("there are two probes named `{name}`"));
        }
        if every < std::time::Duration::from_millis(100) {
            reader.mistake(id, "a probe runs at most ten times per second: every must be at least 100ms");
        }
        probes.push(Probe {
            name,
            check,
            every,
            deadline,
            phases,
            share: share.map_or(1.0, |share| share.0),
        });
    }
    probes
}

fn http(reader: &Reader<'_>, fields: &Fields<'_, '_>) -> Option<ProbeCheck> {
    let node = fields.required("url", "a probe of kind http")?;
    let url = reader.text(node, "url");
    let (statuses, body_contains) = expect_fields(reader, fields);
    let statuses = if statuses.is_empty() { vec![(200, 299)] } else { statuses };
    let url = url?;
    if !url.starts_with("http://") {
        reader.mistake(node.id, format!("url: `{url}` does not start with http://"));
        return None;
    }
    Some(ProbeCheck::Http { url, statuses, body_contains })
}

fn tcp(reader: &Reader<'_>, fields: &Fields<'_, '_>) -> Option<ProbeCheck> {
    let node = fields.required("address", "a probe of kind tcp")?;
    let address = reader.text(node, "address")?;
    Some(ProbeCheck::Tcp { address })
}

fn command(reader: &Reader<'_>, fields: &Fields<'_, '_>) -> Option<ProbeCheck> {
    let node = fields.required("argv", "a probe of kind command")?;
    let argv: Option<Vec<String>> =
        reader.list(node, "argv").iter().map(|item| reader.text(item, "argv")).collect();
    let exit = fields.optional("exit").map_or(Some(0), |node| reader.parse::<i32>(node, "exit"));
    let (argv, exit) = (argv?, exit?);
    if argv.first().is_none_or(String::is_empty) {
        reader.mistake(node.id, "argv must be a list that starts with a program");
        return None;
    }
    Some(ProbeCheck::Command { argv, exit })
}

/// Reads `guards:`.
pub(super) fn guards(reader: &Reader<'_>, node: &Node, journeys: &[String]) -> Vec<Guard> {
    let mut guards = Vec::new();
    for item in reader.list(node, "guards") {
        let Some((id, kind, value)) = reader.named(item, "a guard") else { continue };
        if kind != "abort" {
            reader.mistake_with(id, format!("a guard cannot `{kind}`"), suggest(kind, &["abort"]));
            continue;
        }
        let when = match &value.content {
            Content::Map(_) => {
                let Some(fields) = reader.map(value, "abort") else { continue };
                let when = fields.required("when", "abort");
                fields.finish("abort");
                when
            }
            _ => Some(value),
        };
        let Some(when) = when else { continue };
        let Some(text) = reader.text(when, "when") else { continue };
        match parse_guard(&text) {
            Ok(guard) if journeys.contains(&guard.journey) => guards.push(guard),
            Ok(guard) => {
                let known: Vec<&str> = journeys.iter().map(String::as_str).collect();
                let message = format!("when: there is no load `{}` to watch", guard.journey);
                reader.mistake_with(when.id, message, suggest(&guard.journey, &known));
            }
            Err(error) => {
                let help =
                    "write it like `errors of checkout > 25% for 3s` (errors, throughput, p50, p99, …)";
                reader.mistake_with(when.id, format!("when: {error}"), help);
            }
        }
    }
    guards
}

/// Reads `errors of checkout > 25% for 3s`.
///
/// # Errors
/// In words: which part does not fit.
pub fn parse_guard(text: &str) -> Result<Guard, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [metric, "of", journey, op, limit, "for", span] = words.as_slice() else {
        return Err(format!("`{text}` is not of the form METRIC of LOAD > LIMIT for TIME"));
    };
    let above = match *op {
        ">" => true,
        "<" => false,
        other => return Err(format!("`{other}` is neither > nor <")),
    };
    let said = |error: injectors::units::UnitError| format!("`{limit}`: {error}");
    let (metric, limit) = match *metric {
        "errors" => (GuardMetric::Errors, limit.parse::<Share>().map_err(said)?.0),
        "throughput" => (GuardMetric::Throughput, limit.parse::<Rate>().map_err(said)?.0),
        other => match quantile(other) {
            Some(q) => (GuardMetric::Latency(q), limit.parse::<Span>().map_err(said)?.0.as_secs_f64()),
            None => return Err(format!("`{other}` cannot be watched")),
        },
    };
    let span = span.parse::<Span>().map_err(|error| format!("`{span}`: {error}"))?.0;
    let seconds = span.as_secs();
    if seconds == 0 || span.subsec_nanos() > 0 || seconds > 3600 {
        return Err("the time must be whole seconds, from 1s to 1h".to_owned());
    }
    Ok(Guard {
        text: text.to_owned(),
        metric,
        journey: (*journey).to_owned(),
        above,
        limit,
        seconds: seconds as u32,
    })
}
