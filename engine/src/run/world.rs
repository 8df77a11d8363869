//! What a run starts for itself before anything is broken: the lab and the relays. Both end with it.

use std::path::Path;

use injectors::Inventory;

use super::Refusal;
use super::relays::Relays;
use crate::experiment::Experiment;
use crate::lab::{self, Lab};

/// The lab that a run uses.
#[derive(Debug)]
enum LabUse {
    None,
    Own(Box<Lab>),
    /// One that stands already; it stays when the run ends.
    Standing(String),
}

/// Everything that was started, and what there is to act on.
#[derive(Debug)]
pub(crate) struct World {
    lab: LabUse,
    relays: Option<Relays>,
    pub(crate) inventory: Inventory,
}

impl World {
    /// Starts what the experiment names.
    ///
    /// # Errors
    /// A lab or a relay did not start; then nothing is left.
    pub(super) async fn start(experiment: &Experiment, exe: &Path, run: &str) -> Result<Self, Refusal> {
        let (lab, mut inventory) = start_lab(experiment, exe).await?;
        let mut relays = None;
        if !experiment.relays.is_empty() {
            let started = Relays::start(exe, run, &experiment.relays).await.map_err(Refusal::Relays)?;
            inventory.relays.extend(started.carried.iter().cloned());
            relays = Some(started);
        }
        Ok(Self { lab, relays, inventory })
    }

    /// Where the lab's clients connect.
    pub(super) fn lab_address(&self) -> Option<&str> {
        match &self.lab {
            LabUse::None => None,
            LabUse::Own(lab) => Some(lab.address()),
            LabUse::Standing(address) => Some(address),
        }
    }

    /// What the target is, in words.
    pub(super) fn describe(&self) -> String {
        match &self.lab {
            LabUse::None => "the experiment's own targets".to_owned(),
            LabUse::Own(_) => "lab edge, started for this run".to_owned(),
            LabUse::Standing(_) => "lab edge, which stood already".to_owned(),
        }
    }

    /// Ends what was started.
    pub(super) async fn end(self) {
        if let Some(relays) = self.relays {
            relays.end().await;
        }
        if let LabUse::Own(lab) = self.lab {
            // A lab that does not end in time is killed by its handle; its processes die with it.
            let _ = lab.stop().await;
        }
    }
}

async fn start_lab(experiment: &Experiment, exe: &Path) -> Result<(LabUse, Inventory), Refusal> {
    let Some(wanted) = &experiment.lab else { return Ok((LabUse::None, Inventory::default())) };
    if let Some(standing) = lab::standing().filter(|standing| standing.options == *wanted) {
        let standing = standing.refresh().await?;
        return Ok((LabUse::Standing(standing.address.clone()), standing.inventory));
    }
    let lab = Lab::start(exe, wanted.clone()).await?;
    let inventory = lab.inventory().clone();
    Ok((LabUse::Own(Box::new(lab)), inventory))
}
