//! Steady-state probes: each observes by itself, at its own pace, and tells the dispatcher what it saw.

mod check;

use std::time::Duration;

use reports::record::{Phase, ProbeRecord, ProbeSeen};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::experiment::{Late, Probe, ProbeCheck};

/// Observations that wait for the dispatcher; beyond it a probe waits.
const QUEUE: usize = 64;
/// The longest reason that a record keeps.
const REASON_MAX: usize = 300;

/// The running probes of a run. Dropping it ends them.
#[derive(Debug)]
pub struct Probes {
    seen: mpsc::Receiver<(usize, Result<(), String>)>,
    tasks: JoinSet<()>,
}

impl Probes {
    /// Starts every probe; the first observation is made at time zero.
    pub fn start(probes: &[Probe], late: &Late, clock: Clock) -> Self {
        let (tell, seen) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        for (index, probe) in probes.iter().enumerate() {
            let (probe, tell) = (check::resolve(probe, late), tell.clone());
            tasks.spawn(async move {
                let mut pace = tokio::time::interval_at(clock.at(0.0), probe.every);
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
                loop {
                    pace.tick().await;
                    if tell.send((index, observe(&probe).await)).await.is_err() {
                        return;
                    }
                }
            });
        }
        Self { seen, tasks }
    }

    /// The next observation; never, if there are no probes.
    pub async fn next(&mut self) -> (usize, Result<(), String>) {
        match self.seen.recv().await {
            Some(seen) => seen,
            None => std::future::pending().await,
        }
    }

    /// Ends every probe.
    pub fn end(mut self) {
        self.tasks.abort_all();
    }
}

/// One observation, within the probe's deadline.
async fn observe(probe: &Probe) -> Result<(), String> {
    let seen = match &probe.check {
        // A command ends its own children at the deadline.
        ProbeCheck::Command { .. } => check::run(probe).await,
        _ => tokio::time::timeout(probe.deadline, check::run(probe))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", probe.deadline))),
    };
    seen.map_err(|why| why.chars().take(REASON_MAX).collect())
}

/// A probe that has seen nothing yet.
pub fn blank(probe: &Probe) -> ProbeRecord {
    let (does, tolerance) = check::words(&probe.check);
    ProbeRecord { name: probe.name.clone(), does, tolerance, phases: probe.phases.clone(), seen: Vec::new() }
}

/// Counts an observation.
pub fn count(record: &mut ProbeRecord, phase: Phase, seen: &Result<(), String>) {
    let index = record.seen.iter().position(|known| known.phase == phase).unwrap_or_else(|| {
        record.seen.push(ProbeSeen { phase, held: 0, missed: 0, last_miss: None });
        record.seen.len() - 1
    });
    let known = &mut record.seen[index];
    match seen {
        Ok(()) => known.held += 1,
        Err(why) => {
            known.missed += 1;
            known.last_miss = Some(why.clone());
        }
    }
}

/// Why a probe forbids a fault after the baseline: it missed, or it saw nothing.
pub fn baseline_miss(record: &ProbeRecord) -> Option<String> {
    let seen = record.seen.iter().find(|seen| seen.phase == Phase::Baseline);
    match seen {
        None => Some(format!("probe {} has seen nothing", record.name)),
        Some(ProbeSeen { missed: 0, .. }) => None,
        Some(seen) => {
            let why = seen.last_miss.as_deref().unwrap_or("no reason");
            Some(format!("probe {} missed {} times: {why}", record.name, seen.missed))
        }
    }
}

/// The deadline of one command observation.
pub(crate) fn patience(probe: &Probe) -> Duration {
    probe.deadline
}
