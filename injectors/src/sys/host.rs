//! What a process asks of its host: who it is, its limits, its parent, its screen.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};

pub use rustix::io::Errno;

/// Kernel name and release, such as `Linux 6.1.0`.
pub fn kernel() -> String {
    let name = rustix::system::uname();
    format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
}

/// The user's number; 0 is root.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The most files that this process may have open; none if there is no limit.
pub fn file_limit() -> Option<u64> {
    rustix::process::getrlimit(Resource::Nofile).current
}

/// Allows as many open files as the host permits without privileges. What cannot be raised stays as it is.
pub fn raise_file_limit() {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Sees to it that this process may open so many files, as far as the host permits without privileges, and returns how
/// many it may open now. The limit is not raised further than asked for: processes started from here inherit it.
pub fn allow_files(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    let now = current.unwrap_or(u64::MAX);
    let target = wanted.min(maximum.unwrap_or(u64::MAX));
    if target <= now {
        return now;
    }
    match rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum }) {
        Ok(()) => target,
        Err(_) => now,
    }
}

/// Ties this process to its parent: when the parent ends, however it ends, this process is killed, even if stopped.
///
/// # Errors
/// The parent has ended already.
pub fn die_with(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if now.and_then(|pid| u32::try_from(pid).ok()) != Some(parent) {
        return Err(io::Error::other("the parent has ended"));
    }
    Ok(())
}

/// Leaves the session, and with it the terminal, of whoever started this process.
///
/// # Errors
/// This process leads a group already.
pub fn leave_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Names this process, as `ps` and `/proc/PID/comm` show it: at most 15 bytes.
pub fn call_it(name: &str) {
    let short: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(short) {
        // Only people look at it.
        let _ = rustix::thread::set_name(&name);
    }
}

/// Kills a process that is our own, by number; one that has ended is as good as killed.
pub fn kill_own(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Whether the kernel gives handles to processes.
///
/// # Errors
/// Why not.
pub fn pidfd_works() -> io::Result<()> {
    rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    Ok(())
}

/// Resets that the kernel has sent so far in this network namespace; none if it does not tell.
pub fn resets_sent() -> Option<u64> {
    parse_resets(&std::fs::read_to_string("/proc/thread-self/net/snmp").ok()?)
}

/// Reads `OutRsts` from `/proc/net/snmp` (proc_pid_net(5)): a line of names, then one of numbers.
fn parse_resets(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_ascii_whitespace().zip(numbers.split_ascii_whitespace());
    pairs.find(|(name, _)| *name == "OutRsts")?.1.parse().ok()
}

/// Columns of a terminal; none if it is no terminal.
pub fn columns(terminal: impl AsFd) -> Option<usize> {
    rustix::termios::tcgetwinsize(terminal).ok().map(|size| usize::from(size.ws_col))
}

/// A second handle of this process's standard input.
///
/// # Errors
/// It is closed.
pub fn standard_input() -> io::Result<OwnedFd> {
    Ok(rustix::io::dup(rustix::stdio::stdin())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_a_refused_connection_as_a_reset() {
        let text = "Ip: A\nIp: 1\nTcp: MaxConn OutRsts InCsumErrors\nTcp: -1 368804 0\nUdp: B\nUdp: 2\n";
        assert_eq!(parse_resets(text), Some(368_804));
        assert_eq!(parse_resets("Tcp: OutRsts"), None);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let before = resets_sent().unwrap();
        assert!(std::net::TcpStream::connect(port).is_err());
        assert!(resets_sent().unwrap() > before);
    }
}
