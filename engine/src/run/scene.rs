//! The world of an experiment without its timeline: the lab and the relays stand, and one fault after another is held in it.

use std::path::PathBuf;
use std::time::Duration;

use injectors::Env;
use injectors::secrets::Secrets;
use reports::record::InjectionRecord;

use super::inject::{Faults, Place, keep};
use super::world::World;
use super::{Observer, Refusal, Signals, Store, injection, late_names, refuse_leftovers};
use crate::experiment::{Experiment, Late};
use crate::plan::PlannedInjection;
use crate::slo::exit;

/// A world that stands until [`Scene::end`], or with this process at the latest.
#[derive(Debug)]
pub struct Scene {
    world: World,
    /// What journals call its faults.
    title: String,
    secrets: Secrets,
    store: Store,
    exe: PathBuf,
}

impl Scene {
    /// Starts what the experiment names.
    ///
    /// # Errors
    /// An earlier run has left something, or a lab or a relay did not start; then nothing is left.
    pub async fn start(experiment: &Experiment, store: Store, exe: PathBuf) -> Result<Self, Refusal> {
        refuse_leftovers(&store)?;
        // It needs a name of its own, and no folder: nothing is changed by it.
        let id = ulid::Ulid::from_datetime(std::time::UNIX_EPOCH + crate::clock::unix()).to_string();
        let world = World::start(experiment, &exe, &id).await?;
        let title = format!("capacity of {}", experiment.name);
        Ok(Self { world, title, secrets: experiment.secrets.clone(), store, exe })
    }

    /// Names that only it knows.
    pub fn late(&self) -> Late {
        late_names(&self.world)
    }

    /// Whether each of these faults could be made here; only reads.
    ///
    /// # Errors
    /// Those that could not, one to a line.
    pub async fn preflight(
        &self,
        injections: impl IntoIterator<Item = &PlannedInjection>,
    ) -> Result<(), Refusal> {
        let env = Env::host(self.world.inventory.clone());
        injection::preflight(&env, "preflight", injections).await.map_err(Refusal::Preflight)
    }

    /// Makes faults, holds them until the first word or for this long, and takes them back. Returns the exit code and what
    /// became of each injection.
    ///
    /// # Errors
    /// Nothing was touched, with the exit code: leftovers, no target, no guardian.
    pub async fn hold(
        &self,
        injections: &[PlannedInjection],
        length: Duration,
        signals: Signals,
        observer: &mut dyn Observer,
    ) -> Result<(u8, Vec<InjectionRecord>), (u8, String)> {
        let refused = |error: &dyn std::fmt::Display| (exit::REFUSED, format!("refused: {error}"));
        refuse_leftovers(&self.store).map_err(|error| refused(&error))?;
        let for_s = length.as_secs_f64();
        let planned = injections.iter().map(|one| PlannedInjection { at_s: 0.0, for_s, ..one.clone() });
        let faults = Faults {
            title: self.title.clone(),
            planned: planned.collect(),
            inventory: self.world.inventory.clone(),
            length,
            crash: None,
            store: self.store.clone(),
            exe: self.exe.clone(),
            secrets: self.secrets.clone(),
        };
        let place = Place::new(&self.store).map_err(|error| refused(&error))?;
        keep(faults, place, signals, observer).await
    }

    /// Ends what was started.
    pub async fn end(self) {
        self.world.end().await;
    }
}
