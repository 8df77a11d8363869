//! Processes seen through /proc, and signals to those that a test has started.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait::until;

/// Every process whose environment or arguments name this folder, apart from zombies. nginx writes its title over its
/// environment.
pub(crate) fn of_home(dir: &Path) -> Vec<u32> {
    let needle = dir.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may end while it is looked at.
        let Ok(mut words) = std::fs::read(entry.path().join("environ")) else { continue };
        words.extend(std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
        if words.windows(needle.len()).any(|part| part == needle) && state(pid).is_some_and(|s| s != 'Z') {
            found.push(pid);
        }
    }
    found
}

/// What a process was started with, in words.
pub(crate) fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}

/// The state letter of `/proc/PID/stat`; none if the process is gone.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The most files that a process may open now; none if it is gone.
pub(crate) fn soft_limit(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Sends a signal to a process that this test started, itself or through squall.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // One that has ended already needs no signal.
    let _ = kill_process(pid, signal);
}

/// Waits for the end of a child and returns its exit code; a killed one has 128 and the signal.
pub(crate) fn wait(child: &mut Child, deadline: Duration) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let status = until("the end of a process", deadline, || child.try_wait().unwrap());
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
