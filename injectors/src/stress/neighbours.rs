//! Those with whom a stressor shares a control group. When the last of them has ended, it leaves: whoever has made the
//! group could not remove it otherwise, and nobody is there any more to feel anything.

use std::io;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{NAME, pause, thread};
use crate::sys::cgroup::{Cgroups, Folder, host::Kernel, seat};
use crate::sys::ends::await_end;
use crate::sys::proc::{Host, Procs};

/// How long it takes at least until it looks again, where neighbours come and go.
const PAUSE: Duration = Duration::from_millis(5);
/// How often it looks again, where nothing happens.
const LOOK: Duration = Duration::from_millis(100);

/// A process that lives in one of these groups, or below it, and is no stressor; none if there is none.
///
/// # Errors
/// The groups cannot be read.
pub(crate) fn neighbour(
    cgroups: &dyn Cgroups,
    procs: &dyn Procs,
    groups: &[Folder],
) -> io::Result<Option<u32>> {
    for group in groups {
        for pid in cgroups.processes(group)? {
            if procs.look(pid)?.is_some_and(|info| !info.ended() && info.comm != NAME) {
                return Ok(Some(pid));
            }
        }
    }
    Ok(None)
}

/// Waits until the last neighbour has ended. Without end where there never was one: such groups are joined on purpose.
pub(super) async fn gone(groups: &[Folder]) {
    let (told, heard) = oneshot::channel();
    let groups = groups.to_owned();
    // A thread of its own, as it waits on handles of processes. It ends with this process.
    let started = thread("watch", move || {
        wait(&groups);
        // Nobody listens any more if this process is about to end.
        let _ = told.send(());
    });
    if started.is_err() || heard.await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn wait(groups: &[Folder]) {
    let mut met = false;
    loop {
        match neighbour(&Kernel, &Host, groups) {
            // A kernel that gives no handle is asked again and again.
            Ok(Some(pid)) => {
                met = true;
                pause(if await_end(pid, LOOK).is_ok() { PAUSE } else { LOOK });
            }
            Ok(None) if met => return,
            Ok(None) | Err(_) => pause(LOOK),
        }
    }
}

/// Where this process is now, in the hierarchies of these groups.
pub(super) fn seats(groups: &[Folder]) -> Vec<Folder> {
    let own = std::process::id();
    groups.iter().filter_map(|group| seat(&Kernel, own, group).ok().flatten()).collect()
}

/// Goes back to where it was. Ending would do, but takes as long as the kernel needs to take back what it holds.
pub(super) fn leave(seats: &[Folder]) {
    for seat in seats {
        // What cannot be left is left by ending, a moment later.
        let _ = Kernel.write(seat, "cgroup.procs", "0");
    }
}
