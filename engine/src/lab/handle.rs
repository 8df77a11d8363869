//! A lab that belongs to whoever started it: it ends with its owner.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use injectors::Inventory;
use injectors::sys::control::{Control, Sockets};
use injectors::target::ProcessId;
use serde_json::json;
use tokio::process::{Child, Command};

use super::supervisor::Tie;
use super::{Kind, LabError, LabOptions, Place, START_DEADLINE, Status, child};

/// How long a lab may take to end before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(4);

/// An owned lab. Dropping it ends it as well, without waiting: its supervisor sees its stdin end.
#[derive(Debug)]
pub struct Lab {
    supervisor: Child,
    place: Place,
    status: Status,
}

impl Lab {
    /// Starts a lab from this program, in the user's own folder, and waits until all of it answers.
    ///
    /// # Errors
    /// Options out of range, no private folder, or not up within [`START_DEADLINE`]; then nothing is left.
    pub async fn start(exe: &Path, options: LabOptions) -> Result<Self, LabError> {
        Self::start_in(&Place::user()?, exe, options).await
    }

    /// The same, in another folder.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub async fn start_in(place: &Place, exe: &Path, options: LabOptions) -> Result<Self, LabError> {
        let (supervisor, status) = start(place, exe, &options, Tie::Attached).await?;
        Ok(Self { supervisor, place: place.clone(), status })
    }

    /// What there is to act on, as of the start or the last [`Lab::refresh`].
    pub fn inventory(&self) -> &Inventory {
        &self.status.inventory
    }

    /// Where clients connect, `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.status.lab.address
    }

    /// The lab as of the start or the last [`Lab::refresh`].
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The supervisor.
    pub fn supervisor(&self) -> ProcessId {
        self.status.lab.supervisor
    }

    /// Asks the supervisor for the lab as it is now.
    ///
    /// # Errors
    /// The supervisor has ended or does not answer.
    pub async fn refresh(&mut self) -> Result<&Status, LabError> {
        self.status = ask(&self.status.lab.control).await?;
        Ok(&self.status)
    }

    /// Ends the lab and waits until nothing of it is left.
    ///
    /// # Errors
    /// The supervisor had to be killed; its children and its folder are gone all the same.
    pub async fn stop(mut self) -> Result<(), LabError> {
        drop(self.supervisor.stdin.take());
        if tokio::time::timeout(STOP_DEADLINE, self.supervisor.wait()).await.is_ok() {
            // Already gone, unless somebody killed the supervisor.
            self.place.sweep();
            return Ok(());
        }
        child::end(&mut self.supervisor, STOP_DEADLINE).await;
        self.place.sweep();
        Err(LabError::Deadline { what: "the end of the lab", seconds: STOP_DEADLINE.as_secs() })
    }
}

/// The supervisor's answer to `status`.
pub(super) async fn ask(control: &Path) -> Result<Status, LabError> {
    Status::from_json(&Sockets.call(control, &json!({"op": "status"})).await?)
}

/// Starts a supervisor in a process group of its own, so that ^C reaches its owner alone.
pub(super) async fn start(
    place: &Place,
    exe: &Path,
    options: &LabOptions,
    tie: Tie,
) -> Result<(Child, Status), LabError> {
    options.check()?;
    let mut command = Command::new(exe);
    command
        .arg(Kind::Supervisor.verb())
        .arg(place.root())
        .arg(serde_json::to_string(options)?)
        .arg(tie.word())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    match tie {
        Tie::Attached => command.stdin(Stdio::piped()).process_group(0),
        // It makes a session of its own, which only a process that leads no group may do.
        Tie::Detached => command.stdin(Stdio::null()),
    };
    let started = command.spawn();
    let mut supervisor = started.map_err(LabError::system(format!("starting {}", exe.display())))?;
    match ready(&mut supervisor).await {
        Ok(status) => Ok((supervisor, status)),
        Err(error) => {
            child::end(&mut supervisor, STOP_DEADLINE).await;
            place.sweep();
            Err(error)
        }
    }
}

async fn ready(supervisor: &mut Child) -> Result<Status, LabError> {
    let stdout = supervisor.stdout.take().expect("stdout of a supervisor is piped");
    let line = tokio::time::timeout(START_DEADLINE, child::first_line(stdout)).await.map_err(|_| {
        LabError::Deadline { what: "the start of the lab", seconds: START_DEADLINE.as_secs() }
    })?;
    let line = line.map_err(LabError::system("starting the lab"))?;
    match line["error"].as_str() {
        Some(error) => Err(LabError::Start(error.to_owned())),
        None => Status::from_json(&line["ready"]),
    }
}
