//! What the supervisor tells about the lab: the inventory, and what each instance can carry.

use std::path::PathBuf;

use injectors::Inventory;
use injectors::target::ProcessId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LabError, LabOptions};

/// The lab as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// What there is to act on.
    pub inventory: Inventory,
    /// What the lab says about itself.
    pub lab: Details,
}

/// What the lab says about itself, besides the inventory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// The lab's name.
    pub name: String,
    /// Where clients connect, `127.0.0.1:PORT`.
    pub address: String,
    /// How it behaves.
    pub options: LabOptions,
    /// The supervisor.
    pub supervisor: ProcessId,
    /// The supervisor's control socket.
    pub control: PathBuf,
    /// The folder that holds all sockets of the lab.
    pub folder: PathBuf,
    /// How long the start took, in seconds.
    pub ready_s: f64,
    /// Whether the relay process still runs.
    pub relay_up: bool,
    /// Every instance.
    pub instances: Vec<InstanceStatus>,
}

/// One instance: its state, and what it can carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Whether it runs.
    pub state: State,
    /// Workers; zero for the balancer, which has no pool.
    pub workers: u32,
    /// How long one worker is busy with one request, in seconds.
    pub service_time_s: f64,
    /// The longest wait for a worker, in seconds; beyond it the answer is 503.
    pub queue_s: f64,
    /// Requests per second that it can carry; absent without a pool.
    pub capacity_per_s: Option<f64>,
}

/// Whether an instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It runs.
    Up,
    /// It is stopped by a signal.
    Paused,
    /// It has ended.
    Down,
}

impl Status {
    /// One JSON object: the fields of the inventory, and `lab`.
    ///
    /// # Errors
    /// None in practice: all fields have JSON forms.
    pub fn to_json(&self) -> Result<Value, serde_json::Error> {
        let mut object = serde_json::to_value(&self.inventory)?;
        object["lab"] = serde_json::to_value(&self.lab)?;
        Ok(object)
    }

    pub(super) fn from_json(object: &Value) -> Result<Self, LabError> {
        Ok(Self { inventory: Inventory::deserialize(object)?, lab: Details::deserialize(&object["lab"])? })
    }
}
