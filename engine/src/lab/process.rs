//! What a process of the lab asks of the operating system. With `place.rs` the only file of the lab that names rustix.

use std::io::{self, Write};

use injectors::sys::proc::{Host, Procs};
use injectors::target::ProcessId;
use rustix::process::{Resource, Rlimit, Signal};
use serde_json::Value;

use super::LabError;

/// Ties this process to its parent: when the parent ends, however it ends, this process is killed, even if stopped.
///
/// # Errors
/// The parent has ended already.
fn die_with(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if now.and_then(|pid| u32::try_from(pid).ok()) != Some(parent) {
        return Err(io::Error::other("the supervisor has ended"));
    }
    Ok(())
}

/// The same, with the parent's process id as this process was told it.
pub(super) fn die_with_named(parent: Option<&String>) -> Result<(), LabError> {
    let pid = parent.and_then(|parent| parent.parse().ok());
    let pid = pid.ok_or_else(|| LabError::Start("the parent's process id is missing".to_owned()))?;
    die_with(pid).map_err(LabError::system("binding to the supervisor's life"))
}

/// Leaves the session of whoever started this process, with its terminal, and the folder, which may be unmounted.
pub(super) fn leave_session() -> io::Result<()> {
    rustix::process::setsid()?;
    std::env::set_current_dir("/")
}

/// Names this process, as `ps` and `/proc/PID/comm` show it: at most 15 bytes.
pub(super) fn call_it(name: &str) {
    let short: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(short) {
        // Only people look at it.
        let _ = rustix::thread::set_name(&name);
    }
}

/// Allows as many open files as the host permits without privileges.
pub(super) fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // What cannot be raised stays as it is: the server then holds fewer connections.
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit { current: limit.maximum, maximum: limit.maximum },
    );
}

/// This process.
pub(super) fn me() -> io::Result<ProcessId> {
    find(std::process::id())?.ok_or_else(|| io::Error::other("this process is not in /proc"))
}

/// The process that has this number now.
pub(super) fn find(pid: u32) -> io::Result<Option<ProcessId>> {
    Ok(Host.look(pid)?.map(|info| info.id))
}

/// Whether this very process still runs. What cannot be read counts as running.
pub(super) fn alive(id: ProcessId) -> bool {
    Host.look(id.pid).map_or(true, |info| info.is_some_and(|info| info.id == id && !info.ended()))
}

/// Whether this very process is stopped by a signal.
pub(super) fn paused(id: ProcessId) -> bool {
    matches!(Host.look(id.pid), Ok(Some(info)) if info.id == id && info.state == 'T')
}

/// Prints one JSON line for whoever started this process.
pub(super) fn say(message: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{message}")?;
    out.flush()
}
