//! A load by itself, on one screen of a terminal: counts, three series, the curve of latencies, the answer.

use super::words;
use crate::escape;
use crate::format::{count, estimate_and_interval, limit, many, percent, rate, seconds, share};
use crate::latency::Latencies;
use crate::sending::{Quantiles, Sending};
use crate::table::{Cell, Table, Tone, paint, wrap};

/// The most columns of a line.
const WIDTH: usize = 100;
/// The curve: columns and rows.
const CURVE: (usize, usize) = (60, 8);
/// How far into the tail the curve goes: 1 − 10⁻⁵.
const DECADES: f64 = 5.0;
const STATUSES_MAX: usize = 8;
const KINDS_MAX: usize = 12;

/// A table of texts from anywhere under these heads, at most 100 columns wide: the widest cells are clipped.
pub fn table(heads: &[&'static str], rows: Vec<Vec<String>>, colour: bool) -> Vec<String> {
    let rows = rows.into_iter().map(|row| row.into_iter().map(Cell::plain).collect()).collect();
    Table { heads: heads.to_vec(), rows }.lines(WIDTH, colour)
}

/// The lines of the result.
pub fn sending(result: &Sending, colour: bool) -> String {
    let mut lines = Vec::new();
    let profile = result.profile.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let sends = result.sends.join(", ");
    paragraph(&mut lines, &format!("{sends} · {}{profile}", result.arrivals));
    for change in &result.changes {
        paragraph(&mut lines, &format!("from {:.1} s on: {}", change.at_s, change.text));
    }
    lines.push(String::new());
    counts(&mut lines, result);
    lines.push(String::new());
    lines.extend(series(result, colour));
    lines.extend(curve(&result.latencies));
    lines.push(String::new());
    generator(&mut lines, result);
    for objective in &result.objectives {
        let state = words::verdict_state(objective.verdict);
        let asked = limit(objective.sli, objective.at_least, objective.limit);
        let seen = match objective.estimate {
            Some(_) => estimate_and_interval(objective),
            None => objective.note.clone().unwrap_or_else(|| "no data".to_owned()),
        };
        let text = format!("{} {} {asked}: {seen}", state.icon(), objective.sli.name());
        lines.push(paint(&text, state.tone(), colour));
    }
    for reason in &result.reasons {
        paragraph(&mut lines, &format!("• {reason}"));
    }
    lines.push(paint(&answer(result), Tone::Bold, colour));
    lines.join("\n") + "\n"
}

/// What came of it, in a few words.
pub(super) fn answer(result: &Sending) -> String {
    match (result.exit, result.objectives.is_empty()) {
        (0, true) => "sent as asked for; no objective was given, so nothing was judged".to_owned(),
        (0, false) => "held".to_owned(),
        (1, _) => "missed".to_owned(),
        (4, _) => "ended by the operator".to_owned(),
        _ => "inconclusive".to_owned(),
    }
}

fn paragraph(lines: &mut Vec<String>, text: &str) {
    lines.extend(wrap(&escape::terminal(text), WIDTH));
}

fn counts(lines: &mut Vec<String>, result: &Sending) {
    let failed: u64 = result.errors.values().sum();
    lines.push(format!(
        "intended {}   sent {}   good {} ({})   failed {}",
        count(result.intended),
        count(result.sent),
        count(result.ok),
        rate(result.ok_per_s),
        count(failed)
    ));
    if result.cut_short > 0 {
        lines.push(format!("cut short when it was ended: {}, in no other count", count(result.cut_short)));
    }
    let done = (result.ok + failed).max(1) as f64;
    let mut classes: Vec<(&String, &u64)> = result.errors.iter().collect();
    classes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let failures = classes.iter().map(|(class, n)| {
        let cause = result.causes.get(*class).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{class} {} ({}){cause}", count(**n), share(**n as f64 / done))
    });
    let failures: Vec<String> = failures.collect();
    if !failures.is_empty() {
        paragraph(lines, &format!("failures: {}", failures.join(", ")));
    }
    if result.statuses.keys().any(|code| !(200..300).contains(code)) {
        let codes = result.statuses.iter().take(STATUSES_MAX).map(|(code, n)| match code {
            0 => format!("others {}", count(*n)),
            code => format!("{code}: {}", count(*n)),
        });
        paragraph(lines, &format!("answers: {}", codes.collect::<Vec<String>>().join(", ")));
    }
}

fn series(result: &Sending, colour: bool) -> Vec<String> {
    let row = |name: String, of: &Quantiles, says: &str| {
        let times = [of.p50_s, of.p90_s, of.p99_s, of.p99_9_s, of.max_s];
        let times = times.map(|time| Cell::plain(time.map_or_else(|| "–".to_owned(), seconds)));
        let mut cells = vec![Cell::plain(name)];
        cells.extend(times);
        cells.push(Cell::new(says, Tone::Dim));
        cells
    };
    let mut rows = vec![
        row("response".to_owned(), &result.response, "since the intended time"),
        row("service".to_owned(), &result.service, "since a connection took it"),
        row("lag".to_owned(), &result.lag, "from intended to started"),
    ];
    let shaken = result.handshakes.iter();
    rows.extend(
        shaken.map(|times| row("handshake".to_owned(), times, "TLS, within the first of a connection")),
    );
    rows.extend(result.probe.iter().map(|probe| row("probe".to_owned(), probe, "service beside the load")));
    for (name, (response, service)) in result.kinds.iter().take(KINDS_MAX) {
        rows.push(row(name.clone(), response, "response"));
        rows.push(row(String::new(), service, "service"));
    }
    let heads = vec!["", "p50", "p90", "p99", "p99.9", "max", ""];
    Table { heads, rows }.lines(WIDTH, colour)
}

/// Response times by percentile: the axis gives each further nine as much room as the one before.
fn curve(encoded: &str) -> Vec<String> {
    let Ok(latencies) = Latencies::decode(encoded) else { return Vec::new() };
    let (Some(low), Some(high)) = (latencies.at_rank(1), latencies.max()) else { return Vec::new() };
    let (columns, rows) = CURVE;
    let decades = (latencies.count().max(10) as f64).log10().clamp(1.0, DECADES);
    let at = |column: usize| 1.0 - 10f64.powf(-decades * column as f64 / (columns - 1) as f64);
    let (bottom, top) = (low.max(1e-6).ln(), high.max(low.max(1e-6) * 1.01).ln());
    let heights: Vec<f64> = (0..columns)
        // The last is the largest of all.
        .map(
            |column| if column + 1 == columns { high } else { latencies.quantile(at(column)).unwrap_or(low) },
        )
        .map(|time| time.max(1e-6).ln())
        .map(|time| (time - bottom) / (top - bottom) * (rows * 8) as f64)
        .collect();
    let mut lines = vec![String::new()];
    for row in (0..rows).rev() {
        let label = match row {
            r if r == rows - 1 => seconds(high),
            0 => seconds(low),
            r if r == rows / 2 => seconds(f64::midpoint(bottom, top).exp()),
            _ => String::new(),
        };
        let bar: String = heights.iter().map(|height| block(height - (row * 8) as f64)).collect();
        lines.push(format!("{label:>10} ┤{}", bar.trim_end()));
    }
    let mut axis = " ".repeat(12);
    for nines in 0..=decades.floor() as usize {
        let column = 12 + (nines as f64 / decades * (columns - 1) as f64).round() as usize;
        while axis.chars().count() < column {
            axis.push(' ');
        }
        axis += match nines {
            0 => "p0",
            1 => "p90",
            2 => "p99",
            3 => "p99.9",
            4 => "p99.99",
            _ => "p99.999",
        };
    }
    lines.push(axis);
    lines
}

/// A block of as many eighths.
fn block(eighths: f64) -> char {
    match eighths.round().clamp(0.0, 8.0) as u32 {
        0 => ' ',
        n => char::from_u32(0x2580 + n).unwrap_or('█'),
    }
}

fn generator(lines: &mut Vec<String>, result: &Sending) {
    let generator = &result.generator;
    let word = if generator.saturated.is_empty() { "kept up" } else { "did not keep up" };
    let text = format!(
        "generator {word}: {} of {} arrivals sent by {}, the busiest computed {} of a second; at most {} \
         connections",
        count(result.sent),
        count(result.intended),
        many(u64::from(generator.workers), "thread"),
        percent(generator.cpu_max),
        count(generator.connections_max)
    );
    paragraph(lines, &text);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::{GeneratorRecord, Verdict};

    fn result() -> Sending {
        let mut latencies = Latencies::default();
        (0..10_000u64).for_each(|n| latencies.record(200 + n * n / 50_000));
        latencies.record(90_000);
        let response = Quantiles::from(&latencies);
        Sending {
            sends: vec!["GET http://127.0.0.1:8080/".to_owned()],
            arrivals: "hold 1000/s for 10s".to_owned(),
            changes: Vec::new(),
            profile: None,
            seconds: 10.0,
            intended: 10_003,
            sent: 10_003,
            ok: 10_001,
            cut_short: 0,
            ok_per_s: 1000.1,
            errors: [("reset".to_owned(), 2)].into(),
            causes: BTreeMap::default(),
            statuses: [(200, 10_001)].into(),
            service: response.clone(),
            handshakes: None,
            lag: Quantiles::default(),
            probe: Some(response.clone()),
            response,
            kinds: BTreeMap::default(),
            generator: GeneratorRecord::default(),
            objectives: Vec::new(),
            verdict: Verdict::Held,
            reasons: Vec::new(),
            exit: 0,
            reproduce: String::new(),
            latencies: latencies.encode(),
        }
    }

    #[test]
    fn it_fits_on_one_screen_and_names_what_it_shows() {
        let text = sending(&result(), false);
        assert!(text.lines().count() <= 30, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        for word in [
            "intended 10,003",
            "good 10,001",
            "reset 2",
            "response",
            "service",
            "lag",
            "service beside the load",
            "p99.99",
            "no objective",
        ] {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
    }

    #[test]
    fn the_curve_rises_to_the_right_and_nothing_has_none() {
        let lines = curve(&result().latencies);
        let top = lines.iter().find(|line| line.contains("90.0 ms")).unwrap();
        assert!(
            top.ends_with(|c: char| ('\u{2581}'..='\u{2588}').contains(&c)) && top.contains("   "),
            "{top}"
        );
        assert!(curve(&Latencies::default().encode()).is_empty());
        assert!(curve("no histogram").is_empty());
    }
}
