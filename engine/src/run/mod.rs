//! One execution of a plan.
//!
//! One task, the dispatcher, owns everything that the user sees: it hears of load seconds, injections, probes, the
//! guardian and the operator, and decides about phases and the end. Injections live in tasks of their own
//! (`injection`) and never decide for others.

mod build;
mod claims;
mod course;
pub mod crash;
pub mod desk;
mod dispatcher;
pub mod event;
mod guardian;
pub mod inject;
mod injection;
mod relays;
mod scene;
pub mod signals;
pub mod store;
pub(crate) mod watch;
mod world;

use std::path::PathBuf;

use reports::RunRecord;

use crate::experiment::{Experiment, Late};
use crate::plan::Plan;

pub use crash::CrashPoint;
pub use event::{Event, LoadSnapshot, Observer, Snapshot};
pub use scene::Scene;
pub use signals::Signals;
pub use store::Store;

/// Everything that a run is told besides its plan.
#[derive(Debug)]
pub struct Options {
    /// Where runs are kept.
    pub store: Store,
    /// This program, for the processes that a run starts.
    pub exe: PathBuf,
    /// The experiment's file, as shown.
    pub file: String,
    /// Its text.
    pub text: String,
    /// The command that repeats this run.
    pub reproduce: String,
    /// A crash on purpose.
    pub crash: Option<CrashPoint>,
    /// Who sends the open loads.
    pub hands: crate::load::remote::Hands,
}

/// Why a run did not begin; nothing was touched. Completes "refused: …".
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// An earlier run left something changed.
    #[error(
        "run {run} of {experiment} {} {count} {}; restore first: squall recover --run {run}",
        if *ended { "ended with what it could not undo:" } else { "was cut off and left behind" },
        if *count == 1 { "change" } else { "changes" }
    )]
    Leftovers {
        /// The earlier run.
        run: String,
        /// Its experiment.
        experiment: String,
        /// It ended by itself instead of being cut off.
        ended: bool,
        /// How many changes.
        count: usize,
    },
    /// An earlier run's guardian has not finished.
    #[error(
        "run {run} of {experiment} has ended, and its guardian is still restoring: wait some seconds; squall recover --list \
         shows what is left"
    )]
    Guarded {
        /// The earlier run.
        run: String,
        /// Its experiment.
        experiment: String,
    },
    /// Runs cannot be kept.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The lab cannot be started.
    #[error("the lab did not start: {0}")]
    Lab(#[from] crate::lab::LabError),
    /// The relays cannot be started.
    #[error("{0}")]
    Relays(String),
    /// The load cannot be sent.
    #[error("{0}")]
    Load(#[from] crate::load::LoadError),
    /// The guardian cannot be started.
    #[error(transparent)]
    Guardian(#[from] guardian::GuardianError),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] injectors::journal::JournalError),
    /// A fault cannot be made on this host.
    #[error("{0}")]
    Preflight(String),
}

/// A finished run.
#[derive(Debug)]
pub struct Finished {
    /// Its folder.
    pub folder: PathBuf,
    /// What happened.
    pub record: RunRecord,
}

/// Runs a plan to its end.
///
/// # Errors
/// It was refused before anything was touched.
pub async fn run(
    experiment: &Experiment,
    plan: Plan,
    options: Options,
    signals: Signals,
    observer: &mut dyn Observer,
) -> Result<Finished, Refusal> {
    refuse_leftovers(&options.store)?;
    let (id, folder, lock) = options.store.create()?;
    let world = match world::World::start(experiment, &options.exe, &id).await {
        Ok(world) => world,
        Err(refusal) => {
            // Nothing happened: no folder needs to tell of it.
            let _ = std::fs::remove_dir_all(&folder);
            return Err(refusal);
        }
    };
    let outcome =
        dispatcher::dispatch(experiment, plan, &options, &id, &folder, &world, signals, observer).await;
    world.end().await;
    drop(lock);
    match outcome {
        Ok(record) => Ok(Finished { folder, record }),
        Err(refusal) => {
            let _ = std::fs::remove_dir_all(&folder);
            Err(refusal)
        }
    }
}

/// Refuses to begin while an earlier run has left something changed, or its guardian is at work.
///
/// # Errors
/// It did, or its journal cannot be read.
pub fn refuse_leftovers(store: &Store) -> Result<(), Refusal> {
    // First those: what a guardian gives up meanwhile is among the leftovers then.
    if let Some(left) = store.guarded().into_iter().next() {
        return Err(Refusal::Guarded { run: left.run, experiment: left.experiment });
    }
    match store.leftovers()?.into_iter().next() {
        None => Ok(()),
        Some(left) => Err(Refusal::Leftovers {
            run: left.run,
            experiment: left.experiment,
            ended: left.ended,
            count: left.open.len().max(1),
        }),
    }
}

/// Names that only a run knows.
pub(crate) fn late_names(world: &world::World) -> Late {
    let mut late = Late::new();
    if let Some(address) = world.lab_address() {
        late.insert("lab.edge".to_owned(), address.to_owned());
    }
    for relay in &world.inventory.relays {
        late.insert(format!("relay.{}", relay.name), relay.listen.clone());
    }
    late
}
