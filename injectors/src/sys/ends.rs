//! Waiting for the end of a process that is not ours, by a handle that the kernel gives to it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::proc::{Host, Procs as _};
use crate::target::ProcessId;

/// Waits until a process has ended, or a time has passed; returns at once if there is none.
///
/// # Errors
/// The kernel gives no handle to it.
pub fn await_end(pid: u32, most: Duration) -> io::Result<()> {
    let Some(handle) = handle(pid)? else { return Ok(()) };
    let time = Timespec { tv_sec: most.as_secs().cast_signed(), tv_nsec: most.subsec_nanos().into() };
    match rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The same for this very process, however long it takes, beside other work.
///
/// # Errors
/// The kernel gives no handle to it.
pub(crate) async fn outlast(id: ProcessId) -> io::Result<()> {
    // The handle is opened first: from then on, the number is its own.
    let Some(handle) = handle(id.pid)? else { return Ok(()) };
    if Host.look(id.pid)?.is_none_or(|info| info.id != id) {
        return Ok(());
    }
    #[expect(
        deprecated,
        reason = "its successor is unsafe code; the fault it warns of cannot happen to an OwnedFd"
    )]
    let ends = AsyncFd::with_interest(handle, Interest::READABLE)?;
    ends.readable().await.map(drop)
}

/// The handle of a process; none if there is none with this number.
pub(super) fn handle(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => Ok(Some(handle)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
