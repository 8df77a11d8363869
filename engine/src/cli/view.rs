//! What a person or a log sees while a run goes on, on stderr: a live view on a terminal, plain lines elsewhere,
//! JSON lines if asked for.

use std::fmt::Write as _;
use std::io::{self, Write};

use injectors::secrets::Secrets;
use injectors::units::Span;
use reports::escape::terminal as safe;
use reports::record::Phase;
use serde::Serialize;

use super::out::watched;
use crate::plan::span;
use crate::run::{Event, LoadSnapshot, Observer, Snapshot};

enum Style {
    Silent,
    Json,
    Plain,
    Live,
}

/// The view of one run.
pub(super) struct View {
    style: Style,
    secrets: Secrets,
    phase: Phase,
    /// Lines of the live block that stand on the screen.
    drawn: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    at_s: f64,
    #[serde(flatten)]
    event: &'a Event,
}

impl View {
    /// A view as the options and the terminal allow.
    pub(super) fn new(quiet: bool, json: bool, secrets: Secrets) -> Self {
        let style = match (quiet, json, watched()) {
            (true, _, _) => Style::Silent,
            (_, true, _) => Style::Json,
            (_, _, true) => Style::Live,
            _ => Style::Plain,
        };
        Self { style, secrets, phase: Phase::WarmUp, drawn: 0 }
    }

    fn write(text: &str) {
        // A reader that has gone must not stop a run that holds faults.
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    /// Removes the live block, so that a line can be written above the next one.
    fn wipe(&mut self) {
        if self.drawn > 0 {
            Self::write(&format!("\x1b[{}F\x1b[J", self.drawn));
            self.drawn = 0;
        }
    }

    fn plain(&mut self, at_s: f64, event: &Event) {
        match event {
            Event::Second(snapshot) => Self::write(&format!("{}\n", second_line(self.phase, snapshot))),
            // Every second's line has the latest measure already.
            Event::Proof { .. } => {}
            other => {
                if let Some(text) = other.text() {
                    Self::write(&format!("{at_s:>6.1}s  {}\n", safe(&text)));
                }
            }
        }
    }

    fn live(&mut self, at_s: f64, event: &Event) {
        match event {
            Event::Second(snapshot) => {
                self.wipe();
                let block = block(self.phase, snapshot);
                self.drawn = block.lines().count();
                Self::write(&block);
            }
            Event::Proof { .. } => {}
            other => {
                if let Some(text) = other.text() {
                    self.wipe();
                    Self::write(&format!("\x1b[2m{at_s:>6.1}s\x1b[0m  {}\n", safe(&text)));
                }
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Observer for View {
    fn event(&mut self, at_s: f64, event: &Event) {
        let event = &event.hidden(&self.secrets);
        if let Event::Phase { phase } = event {
            self.phase = *phase;
        }
        match self.style {
            Style::Silent => {}
            Style::Json => {
                let line = serde_json::to_string(&Line { at_s, event }).expect("events are plain data");
                Self::write(&format!("{line}\n"));
            }
            Style::Plain => self.plain(at_s, event),
            Style::Live => self.live(at_s, event),
        }
    }
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 1.0 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.2}s"),
    }
}

fn load(load: &LoadSnapshot) -> String {
    format!(
        "{}: {:.0}/s, errors {:.1}%, p50 {}, p99 {}",
        safe(&load.name),
        load.rate,
        load.errors * 100.0,
        time(load.p50_s),
        time(load.p99_s)
    )
}

fn second_line(phase: Phase, snapshot: &Snapshot) -> String {
    let loads: Vec<String> = snapshot.loads.iter().map(load).collect();
    let mut line = format!("{:>6.1}s  {:<8} {}", snapshot.end_s, phase.name(), loads.join(" | "));
    for active in &snapshot.active {
        let _ = write!(line, " | {}", safe(active));
    }
    line
}

/// The live block: progress, loads, faults, guards. Cut to the screen's width, so that it can be wiped line by line.
fn block(phase: Phase, snapshot: &Snapshot) -> String {
    let width = injectors::sys::host::columns(io::stderr()).unwrap_or(100).max(40);
    let share = (snapshot.end_s / snapshot.duration_s.max(1.0)).clamp(0.0, 1.0);
    let (cells, left) = (24, Span(span((snapshot.duration_s - snapshot.end_s).max(0.0).round())));
    let full = (share * f64::from(cells)).round() as usize;
    let bar: String = (0..cells as usize).map(|cell| if cell < full { '█' } else { '░' }).collect();
    let mut lines = vec![format!("  {:<8} {bar} {left} left", phase.name())];
    lines.extend(snapshot.loads.iter().map(|each| format!("  load     {}", load(each))));
    lines.extend(snapshot.active.iter().map(|active| format!("  fault    {}", safe(active))));
    for (text, used) in &snapshot.guards {
        lines.push(format!("  guard    {:>3.0}% used of: {}", used * 100.0, safe(text)));
    }
    let cut = |line: String| line.chars().take(width - 1).collect::<String>() + "\n";
    lines.into_iter().map(cut).collect()
}
