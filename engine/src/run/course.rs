//! What has come of a run so far, event by event.

use injectors::units::Span;
use reports::record::{End, EventRecord, InjectionRecord, Phase, PhaseSpan, ProbeRecord};

use super::event::{Event, Observer};
use super::watch::Watch;
use crate::clock::Clock;
use crate::experiment::Experiment;
use crate::probe;

/// What has come of a run so far.
pub(super) struct Course {
    pub(super) clock: Clock,
    pub(super) phases: Vec<PhaseSpan>,
    pub(super) events: Vec<EventRecord>,
    pub(super) injections: Vec<InjectionRecord>,
    pub(super) probes: Vec<ProbeRecord>,
    pub(super) end: End,
    pub(super) watch: Watch,
    pub(super) tripped: Vec<(String, f64)>,
    /// When the decision to restore was made, if it was made early.
    pub(super) restore_from: Option<f64>,
    pub(super) restored_at: Option<f64>,
    /// The slowest single undo, in seconds.
    pub(super) slowest_undo: f64,
}

impl Course {
    pub(super) fn new(clock: Clock, experiment: &Experiment) -> Self {
        Self {
            clock,
            phases: vec![PhaseSpan { phase: Phase::WarmUp, start_s: 0.0, end_s: 0.0 }],
            events: Vec::new(),
            injections: Vec::new(),
            probes: experiment.probes.iter().map(probe::blank).collect(),
            end: End::Completed,
            watch: Watch::default(),
            tripped: Vec::new(),
            restore_from: None,
            restored_at: None,
            slowest_undo: 0.0,
        }
    }

    /// Passes an event on and keeps it for the record.
    pub(super) fn told(&mut self, event: &Event, observer: &mut dyn Observer) {
        let at_s = self.clock.now().max(0.0);
        observer.event(at_s, event);
        let Some(text) = event.text() else { return };
        // A proof is looked at every second; the record keeps the last one with the injection.
        if matches!(event, Event::Proof { .. }) {
            return;
        }
        let kept = self.events.len();
        if kept < reports::record::EVENTS_MAX {
            let last = kept + 1 == reports::record::EVENTS_MAX;
            let text = if last { "further events are left out".to_owned() } else { text };
            self.events.push(EventRecord { at_s, kind: event.kind().to_owned(), text });
        }
    }

    pub(super) fn close_phase(&mut self) {
        let now = self.clock.now();
        if let Some(last) = self.phases.last_mut() {
            last.end_s = now.max(last.start_s);
        }
        self.phases.retain(|span| span.end_s > span.start_s);
    }
}

/// What a load that is over may still wait for, in words.
pub(super) fn waiting(experiment: &Experiment) -> String {
    let longest = experiment.load.iter().map(|load| load.deadline).max().unwrap_or_default();
    let stops = experiment
        .load
        .iter()
        .filter_map(|load| load.journey.as_ref())
        .any(|journey| !journey.stop.is_empty());
    let last = if stops { ", and for the last steps of users" } else { "" };
    format!("the load is over; waiting for requests under way, each for {} at most{last}", Span(longest))
}
