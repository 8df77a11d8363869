//! Reading `arrivals:`: stretches of load, one after another.

use std::time::Duration;

use injectors::units::{Rate, Share, Span};

use super::reader::{Fields, Reader};
use super::yaml::{Content, Node};
use crate::schedule::{Profile, Segment};

/// Reads a list of stretches.
pub(super) fn arrivals(reader: &Reader<'_>, node: &Node) -> Option<Profile> {
    let mut segments: Vec<Segment> = Vec::new();
    let items = reader.list(node, "arrivals");
    let mut whole = true;
    for item in items {
        let (id, name, value) = reader.named(item, "a stretch of arrivals")?;
        let before = segments.last().map_or(0.0, last_rate);
        let read = match name {
            "hold" => hold(reader, value, before),
            "ramp" => ramp(reader, value, before),
            "steps" => steps(reader, value, before),
            "spike" => spike(reader, value, before),
            "sine" => sine(reader, value, before),
            other => {
                let help = super::mistake::suggest(other, &["hold", "ramp", "steps", "spike", "sine"]);
                reader.mistake_with(id, format!("arrivals know no `{other}`"), help);
                None
            }
        };
        whole &= read.is_some();
        segments.extend(read);
    }
    if !whole {
        return None;
    }
    let help = "such as `[{ramp: {to: 400/s, over: 5s}}, {hold: 40s}]`";
    Profile::new(segments).map_err(|error| reader.mistake_with(node.id, error.to_string(), help)).ok()
}

/// The rate at the end of a stretch, from which the next one goes on.
fn last_rate(segment: &Segment) -> f64 {
    match segment {
        Segment::Ramp { to, .. } | Segment::Steps { to, .. } => *to,
        Segment::Hold { rate, .. } | Segment::Spike { base: rate, .. } | Segment::Sine { mean: rate, .. } => {
            *rate
        }
    }
}

/// A time that is not zero.
pub(super) fn positive_span(reader: &Reader<'_>, node: &Node, what: &str) -> Option<Duration> {
    let span = reader.parse::<Span>(node, what)?.0;
    if span.is_zero() {
        reader.mistake(node.id, format!("{what} must be longer than zero"));
        return None;
    }
    Some(span)
}

fn rate(reader: &Reader<'_>, fields: &Fields<'_, '_>, name: &'static str, default: f64) -> Option<f64> {
    fields.optional(name).map_or(Some(default), |node| reader.parse::<Rate>(node, name).map(|rate| rate.0))
}

fn length(reader: &Reader<'_>, fields: &Fields<'_, '_>, name: &'static str, what: &str) -> Option<Duration> {
    fields.required(name, what).and_then(|node| positive_span(reader, node, name))
}

fn hold(reader: &Reader<'_>, node: &Node, before: f64) -> Option<Segment> {
    if !matches!(node.content, Content::Map(_)) {
        return Some(Segment::Hold { rate: before, lasting: positive_span(reader, node, "hold")? });
    }
    let fields = reader.map(node, "hold")?;
    let (rate, length) = (rate(reader, &fields, "rate", before), length(reader, &fields, "for", "hold"));
    fields.finish("hold");
    Some(Segment::Hold { rate: rate?, lasting: length? })
}

fn ramp(reader: &Reader<'_>, node: &Node, before: f64) -> Option<Segment> {
    let fields = reader.map(node, "ramp")?;
    let from = rate(reader, &fields, "from", before);
    let to = fields.required("to", "ramp").and_then(|node| reader.parse::<Rate>(node, "to"));
    let length = length(reader, &fields, "over", "ramp");
    fields.finish("ramp");
    Some(Segment::Ramp { from: from?, to: to?.0, over: length? })
}

fn steps(reader: &Reader<'_>, node: &Node, before: f64) -> Option<Segment> {
    let fields = reader.map(node, "steps")?;
    let from = rate(reader, &fields, "from", before);
    let to = fields.required("to", "steps").and_then(|node| reader.parse::<Rate>(node, "to"));
    let count = fields.required("count", "steps").and_then(|node| reader.within(node, "count", 2..=1000));
    let each = length(reader, &fields, "each", "steps");
    fields.finish("steps");
    Some(Segment::Steps { from: from?, to: to?.0, count: count?, each: each? })
}

fn spike(reader: &Reader<'_>, node: &Node, before: f64) -> Option<Segment> {
    let fields = reader.map(node, "spike")?;
    let to = fields.required("to", "spike").and_then(|node| reader.parse::<Rate>(node, "to"));
    let length = length(reader, &fields, "for", "spike");
    fields.finish("spike");
    let (peak, lasting) = (to?.0, length?);
    Some(Segment::Spike { base: before, peak, at: Duration::ZERO, lasting, total: lasting })
}

fn sine(reader: &Reader<'_>, node: &Node, before: f64) -> Option<Segment> {
    let fields = reader.map(node, "sine")?;
    let mean = rate(reader, &fields, "mean", before);
    let amplitude = fields.required("amplitude", "sine").and_then(|node| {
        match reader.text(node, "amplitude")?.parse::<Share>() {
            Ok(share) => mean.map(|mean| mean * share.0),
            Err(_) => reader.parse::<Rate>(node, "amplitude").map(|rate| rate.0),
        }
    });
    let (period, length) =
        (length(reader, &fields, "period", "sine"), length(reader, &fields, "for", "sine"));
    fields.finish("sine");
    let (mean, amplitude) = (mean?, amplitude?);
    if amplitude > mean {
        reader.mistake(node.id, "the amplitude is larger than the mean: the rate would be negative");
        return None;
    }
    Some(Segment::Sine { mean, amplitude, period: period?, lasting: length? })
}
