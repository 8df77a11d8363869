//! The lab's one parent process: `squall __lab ROOT OPTIONS attached|detached`.
//!
//! Invariants: attached, it ends when its stdin ends; in any case it ends when its control socket is removed; whatever ends it short of SIGKILL, its children and its folder go
//! first. After a SIGKILL its children end by their parent-death signal, and the next start sweeps the folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use injectors::sys::control;
use injectors::target::ProcessId;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::crew::Crew;
use super::{LabError, LabOptions, Place, process, standing};

/// How often the supervisor looks whether its control socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long everything may take to start; less than the parent's patience.
const START_DEADLINE: Duration = Duration::from_secs(4);

/// Whose life the lab shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tie {
    /// The parent's: it holds the other end of stdin.
    Attached,
    /// Nobody's: it stands until it is told to stop.
    Detached,
}

impl Tie {
    /// As an argument.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Detached => "detached",
        }
    }
}

/// Runs the supervisor to its end.
pub(super) fn main(args: &[String]) -> Result<(), LabError> {
    let [root, options, tie] = args else {
        return Err(LabError::Start("__lab takes a folder, options, and attached or detached".to_owned()));
    };
    let tie = if tie == Tie::Detached.word() { Tie::Detached } else { Tie::Attached };
    if tie == Tie::Detached {
        process::leave_session().map_err(LabError::system("leaving the session"))?;
    }
    injectors::sys::host::raise_file_limit();
    let options: LabOptions = serde_json::from_str(options)?;
    let place = Place::at(root.as_ref())?;
    let me = process::me().map_err(LabError::system("finding this process"))?;
    place.sweep();
    let folder = place.make_folder(me)?;
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::system("starting the runtime"))
        .and_then(|runtime| runtime.block_on(run(&place, folder.clone(), me, options, tie)));
    if tie == Tie::Detached {
        standing::forget(&place, me);
    }
    // Best effort: the next start sweeps what is left.
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

async fn run(
    place: &Place,
    folder: PathBuf,
    me: ProcessId,
    options: LabOptions,
    tie: Tie,
) -> Result<(), LabError> {
    let (stop, stopped) = watch::channel(false);
    let lab = Arc::new(Crew::reserve(folder, me, options, stop)?);
    let life = async {
        tokio::time::timeout(START_DEADLINE, lab.start()).await.map_err(|_| LabError::Deadline {
            what: "the start of the lab",
            seconds: START_DEADLINE.as_secs(),
        })??;
        let socket = control::bind(&lab.control_path()).map_err(LabError::system("the control socket"))?;
        let status = lab.status();
        if tie == Tie::Detached {
            standing::remember(place, &status)?;
        }
        // From here on a lab without its socket could never be told to stop.
        let lost = lost(lab.control_path());
        process::say(&json!({"ready": status.to_json()?})).map_err(LabError::system("telling the parent"))?;
        let told = Arc::clone(&lab);
        let answering = control::serve(socket, move |request| {
            let told = Arc::clone(&told);
            Box::pin(async move { told.answer(&request).await })
        });
        tokio::select! {
            () = answering => Ok(()),
            () = lost => Ok(()),
        }
    };
    let outcome = tokio::select! {
        outcome = life => outcome,
        ended = end(tie, stopped) => ended,
    };
    lab.end().await;
    outcome
}

/// Waits for the parent's end, a signal, or the order to stop.
async fn end(tie: Tie, mut stopped: watch::Receiver<bool>) -> Result<(), LabError> {
    let listen = |kind| signal(kind).map_err(LabError::system("listening for signals"));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let parent = async {
        if tie == Tie::Detached {
            return std::future::pending().await;
        }
        parent_end().await
    };
    tokio::select! {
        ended = parent => ended,
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        () = async { drop(stopped.wait_for(|stop| *stop).await) } => {
            // Leaves the answer to the order time to be written.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(())
        }
    }
}

/// Waits until somebody has removed the control socket.
async fn lost(socket: PathBuf) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What cannot be read counts as there.
    while socket.try_exists().unwrap_or(true) {
        looks.tick().await;
    }
}

async fn parent_end() -> Result<(), LabError> {
    use std::os::fd::AsFd;
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    let mut pipe = stdin
        .and_then(pipe::Receiver::from_owned_fd)
        .map_err(LabError::system("stdin must be a pipe held by the parent"))?;
    let mut ignored = [0u8; 64];
    while let Ok(1..) = pipe.read(&mut ignored).await {}
    Ok(())
}
