//! Waiting for the end of a process that is not ours, by a handle that the kernel gives to it.

use std::io;
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
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let time = Timespec { tv_sec: most.as_secs().cast_signed(), tv_nsec: most.subsec_nanos().into() };
    match rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a process of this host ends; if it has, not at all.
///
/// # Errors
/// The kernel gives no handle to it.
pub(crate) async fn outlast(id: ProcessId) -> io::Result<()> {
    let Some(pid) = i32::try_from(id.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    // The handle is opened first: from then on, the number is its own.
    let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
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
