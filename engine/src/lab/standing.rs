//! The detached lab: it stands until it is taken down, and any process of this user finds it through a state file.
//!
//! Invariant: the state file is believed only while the supervisor that it names (pid and start time) lives.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use injectors::Inventory;
use injectors::sys::control::{Control, Sockets};
use injectors::sys::proc::{Host, Procs, SignalName};
use injectors::target::ProcessId;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::supervisor::Tie;
use super::{LabError, LabOptions, Place, Status, handle, process};

/// How long a lab may take to end before it is killed, and how long another start or end is waited for.
const PATIENCE: Duration = Duration::from_secs(6);
/// How often is looked whether something has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The longest state file that is read, in bytes.
const STATE_MAX: u64 = 1 << 20;

/// A detached lab that stands now.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// How it behaves.
    pub options: LabOptions,
    /// What there is to act on, as of its start; [`Standing::refresh`] tells what holds now.
    pub inventory: Inventory,
    /// Where clients connect, `127.0.0.1:PORT`.
    pub address: String,
    /// Everything it said when it was up.
    pub status: Status,
}

impl Standing {
    fn of(status: Status) -> Self {
        Self {
            options: status.lab.options.clone(),
            inventory: status.inventory.clone(),
            address: status.lab.address.clone(),
            status,
        }
    }

    /// The same lab as it is now.
    ///
    /// # Errors
    /// The supervisor has ended or does not answer.
    pub async fn refresh(&self) -> Result<Self, LabError> {
        handle::ask(&self.status.lab.control).await.map(Self::of)
    }
}

/// The detached lab of this user, if one stands. A state file that a dead one left is removed.
pub fn standing() -> Option<Standing> {
    Place::user().ok()?.standing()
}

/// Starts a detached lab from this program.
///
/// # Errors
/// One stands already, or as [`super::Lab::start`].
pub async fn up(exe: &Path, options: LabOptions) -> Result<Standing, LabError> {
    Place::user()?.up(exe, options).await
}

/// Ends the detached lab, if one stands, and waits until nothing of it is left. Returns what stood.
///
/// # Errors
/// It could not be ended.
pub async fn down() -> Result<Option<Standing>, LabError> {
    Place::user()?.down().await
}

/// The detached lab as it is now, if one stands.
///
/// # Errors
/// Its supervisor lives but does not answer.
pub async fn status() -> Result<Option<Status>, LabError> {
    Place::user()?.status().await
}

impl Place {
    /// See [`standing`].
    pub fn standing(&self) -> Option<Standing> {
        let known = self.read_state();
        if let Some(status) = &known
            && process::alive(status.lab.supervisor)
        {
            return known.map(Standing::of);
        }
        // Only if nobody is starting one just now: the file could be theirs.
        if let Ok(Some(_lock)) = self.try_lock() {
            self.drop_dead_state();
        }
        None
    }

    /// See [`up`].
    ///
    /// # Errors
    /// As [`up`].
    pub async fn up(&self, exe: &Path, options: LabOptions) -> Result<Standing, LabError> {
        let _lock = self.lock().await?;
        self.drop_dead_state();
        if let Some(status) = self.read_state() {
            let (address, pid) = (status.lab.address, status.lab.supervisor.pid);
            return Err(LabError::AlreadyUp { address, pid });
        }
        let (_supervisor, status) = handle::start(self, exe, &options, Tie::Detached).await?;
        Ok(Standing::of(status))
    }

    /// See [`down`].
    ///
    /// # Errors
    /// As [`down`].
    pub async fn down(&self) -> Result<Option<Standing>, LabError> {
        let _lock = self.lock().await?;
        self.drop_dead_state();
        let Some(status) = self.read_state() else {
            self.sweep();
            return Ok(None);
        };
        let supervisor = status.lab.supervisor;
        // A supervisor that does not answer is killed below; its children follow it.
        let told = Sockets.call(&status.lab.control, &json!({"op": "stop"})).await;
        if told.is_err() || !ended(supervisor, PATIENCE).await {
            let killed = Host.signal(supervisor, SignalName::Kill);
            killed.map_err(LabError::system("killing the lab's supervisor"))?;
            if !ended(supervisor, PATIENCE).await {
                return Err(LabError::Deadline { what: "the end of the lab", seconds: PATIENCE.as_secs() });
            }
        }
        self.drop_dead_state();
        self.sweep();
        Ok(Some(Standing::of(status)))
    }

    /// See [`status`].
    ///
    /// # Errors
    /// As [`status`].
    pub async fn status(&self) -> Result<Option<Status>, LabError> {
        match self.standing() {
            Some(standing) => handle::ask(&standing.status.lab.control).await.map(Some),
            None => Ok(None),
        }
    }

    async fn lock(&self) -> Result<fs::File, LabError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let lock = self.try_lock().map_err(LabError::system("locking the lab's folder"))?;
            if let Some(lock) = lock {
                return Ok(lock);
            }
            if Instant::now() >= until {
                let what = "another start or end of the lab";
                return Err(LabError::Deadline { what, seconds: PATIENCE.as_secs() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn read_state(&self) -> Option<Status> {
        use std::io::Read;
        let file = fs::File::open(self.state_file()).ok()?;
        let object: Value = serde_json::from_reader(file.take(STATE_MAX)).ok()?;
        Status::from_json(&object).ok()
    }

    /// Removes the state file unless the supervisor that it names lives.
    fn drop_dead_state(&self) {
        if !self.read_state().is_some_and(|status| process::alive(status.lab.supervisor)) {
            // Nothing there is the usual case.
            let _ = fs::remove_file(self.state_file());
        }
    }
}

/// Writes the state file whole or not at all.
pub(super) fn remember(place: &Place, status: &Status) -> Result<(), LabError> {
    let text = status.to_json()?.to_string();
    let draft = status.lab.folder.join("state.json");
    let write = || -> io::Result<()> {
        fs::write(&draft, text)?;
        fs::rename(&draft, place.state_file())
    };
    write().map_err(LabError::system("writing the lab's state file"))
}

/// Removes the state file if it is this supervisor's.
pub(super) fn forget(place: &Place, supervisor: ProcessId) {
    if place.read_state().is_some_and(|status| status.lab.supervisor == supervisor) {
        // Found dead by the next reader if it stays.
        let _ = fs::remove_file(place.state_file());
    }
}

/// Waits until a process has ended. False: it has not, in time.
async fn ended(id: ProcessId, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while process::alive(id) {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}
