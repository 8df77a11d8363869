//! What a process of the lab asks of the operating system.

use std::io::{self, Write};

use injectors::sys::host;
use injectors::sys::proc::{Host, Procs};
use injectors::target::ProcessId;
use serde_json::Value;

use super::LabError;

/// Ties this process to its parent's life, with the parent's process id as this process was told it.
pub(super) fn die_with_named(parent: Option<&String>) -> Result<(), LabError> {
    let pid = parent.and_then(|parent| parent.parse().ok());
    let pid = pid.ok_or_else(|| LabError::Start("the parent's process id is missing".to_owned()))?;
    host::die_with(pid).map_err(LabError::system("binding to the supervisor's life"))
}

/// Leaves the session of whoever started this process, with its terminal, and the folder, which may be unmounted.
pub(super) fn leave_session() -> io::Result<()> {
    host::leave_session()?;
    std::env::set_current_dir("/")
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
