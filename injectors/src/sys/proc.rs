//! Processes: found, identified, signalled by pidfd, started. The only file that sends signals.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;

use super::{ends, inside, pid_file};
use crate::Pending;
use crate::target::{ProcessId, Scope};

/// The most output of a command that is kept, in bytes.
pub const OUTPUT_MAX: usize = 16 * 1024;
/// How long the output of a command is read on after it has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// The environment variable that holds the mark of a started program.
const MARK: &str = "SQUALL_RESTART";

/// A look at one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Which one.
    pub id: ProcessId,
    /// Command name, as in `/proc/PID/comm`.
    pub comm: String,
    /// State letter, as in `/proc/PID/stat`: R, S, D, T (stopped), Z (ended, not reaped).
    pub state: char,
}

impl ProcessInfo {
    /// Ended, though its parent has not yet asked.
    pub fn ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// What a finished command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; absent if a signal ended it.
    pub code: Option<i32>,
    /// The start of what it printed, each stream at most [`OUTPUT_MAX`] bytes, standard error last.
    pub text: String,
}

/// A program that was started and is not waited for.
pub trait Started: std::fmt::Debug + Send {
    /// How it ended; none while it runs.
    fn ended(&mut self) -> io::Result<Option<ExitStatus>>;
}

impl Started for tokio::process::Child {
    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.try_wait()
    }
}

/// The port to the host's processes.
pub trait Procs: std::fmt::Debug + Send + Sync {
    /// The process that has this number now.
    fn look(&self, pid: u32) -> io::Result<Option<ProcessInfo>>;
    /// The parent's number; none if there is no such process.
    fn parent(&self, pid: u32) -> Option<u32>;
    /// Everything that descends from a process, in no order.
    fn descendants(&self, pid: u32) -> io::Result<Vec<ProcessInfo>>;
    /// Sends a signal if, and only if, the process is still the same one. False: it has ended.
    fn signal(&self, id: ProcessId, signal: SignalName) -> io::Result<bool>;
    /// Processes that hold a listening TCP socket on this port.
    fn listeners(&self, port: u16) -> io::Result<Vec<ProcessInfo>>;
    /// Processes with this exact command name inside the scope.
    fn named(&self, command: &str, scope: &Scope) -> io::Result<Vec<ProcessInfo>>;
    /// The number in a pid file. What is no regular file, or too long for a number, is an error.
    fn pid_file(&self, path: &Path) -> io::Result<u32>;
    /// Whether a program of this name or path is there and may be executed.
    fn has_program(&self, name: &str) -> bool;
    /// Starts a program in a process group of its own, without waiting for it. Nobody reads what it prints.
    fn start(&self, argv: &[String], mark: &str) -> io::Result<Box<dyn Started>>;
    /// Runs a command to its end. At the deadline, or when the future is dropped, it is ended with all that descends
    /// from it. What it leaves running in the background when it ends by itself goes on.
    fn run<'a>(
        &'a self,
        argv: &'a [String],
        deadline: Duration,
        mark: Option<&'a str>,
    ) -> Pending<'a, io::Result<Output>>;
    /// The processes that live of what was started with this mark, whoever started it: all that descends from it has
    /// the mark too. One that hides its environment from this user, or has written over it, is not found.
    fn marked(&self, mark: &str) -> io::Result<Vec<ProcessInfo>>;
    /// The cgroups of a process: lines of `HIERARCHY:CONTROLLERS:PATH`.
    fn cgroups(&self, pid: u32) -> io::Result<String>;
    /// Whether the kernel says that all of a process's cgroup is frozen; none if it has no freezer that can be read.
    fn frozen(&self, pid: u32) -> io::Result<Option<bool>>;
    /// The addresses of the network namespace in which a process lives, without the loopback's.
    fn addresses(&self, pid: u32) -> io::Result<Vec<IpAddr>>;
    /// The ids of the containers in which this very process runs.
    fn enclosing(&self) -> BTreeSet<String>;
}

/// The signals that an experiment may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalName {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGABRT.
    Abrt,
    /// SIGHUP.
    Hup,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Cont,
}

impl SignalName {
    fn number(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Term => Signal::TERM,
            Self::Int => Signal::INT,
            Self::Quit => Signal::QUIT,
            Self::Abrt => Signal::ABORT,
            Self::Hup => Signal::HUP,
            Self::Stop => Signal::STOP,
            Self::Cont => Signal::CONT,
        }
    }

    /// Reads `KILL`, `TERM` and so on.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "KILL" => Self::Kill,
            "TERM" => Self::Term,
            "INT" => Self::Int,
            "QUIT" => Self::Quit,
            "ABRT" => Self::Abrt,
            "HUP" => Self::Hup,
            _ => return None,
        })
    }
}

/// The real host.
#[derive(Debug, Clone, Copy)]
pub struct Host;

impl Procs for Host {
    fn look(&self, pid: u32) -> io::Result<Option<ProcessInfo>> {
        look(pid)
    }

    fn parent(&self, pid: u32) -> Option<u32> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    fn descendants(&self, pid: u32) -> io::Result<Vec<ProcessInfo>> {
        let mut others: Vec<(Option<u32>, ProcessInfo)> =
            processes()?.into_iter().map(|info| (self.parent(info.id.pid), info)).collect();
        let (mut family, mut found) = (vec![pid], Vec::new());
        // Each round takes out the children of the last one, so it ends.
        while !family.is_empty() {
            let (children, rest): (Vec<_>, Vec<_>) = others
                .into_iter()
                .partition(|(parent, _)| parent.is_some_and(|parent| family.contains(&parent)));
            others = rest;
            family = children.iter().map(|(_, info)| info.id.pid).collect();
            found.extend(children.into_iter().map(|(_, info)| info));
        }
        Ok(found)
    }

    fn signal(&self, id: ProcessId, signal: SignalName) -> io::Result<bool> {
        // The pidfd is opened first and the start time compared afterwards: from then on the number cannot be reused
        // under our hands.
        let Some(fd) = ends::handle(id.pid)? else { return Ok(false) };
        match look(id.pid)? {
            Some(info) if info.id == id && !info.ended() => {}
            _ => return Ok(false),
        }
        match rustix::process::pidfd_send_signal(&fd, signal.number()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn listeners(&self, port: u16) -> io::Result<Vec<ProcessInfo>> {
        let mut inodes = listening_inodes(&std::fs::read_to_string("/proc/net/tcp")?, port);
        if let Ok(text) = std::fs::read_to_string("/proc/net/tcp6") {
            inodes.extend(listening_inodes(&text, port));
        }
        if inodes.is_empty() {
            return Ok(Vec::new());
        }
        Ok(processes()?.into_iter().filter(|info| holds_socket(info.id.pid, &inodes)).collect())
    }

    fn named(&self, command: &str, scope: &Scope) -> io::Result<Vec<ProcessInfo>> {
        let netns = match scope {
            Scope::Netns(name) => Some(netns_inode(&PathBuf::from("/run/netns").join(name))?),
            Scope::Cgroup(_) => None,
        };
        let inside = |pid: u32| match scope {
            Scope::Cgroup(path) => in_cgroup(pid, path),
            Scope::Netns(_) => netns_inode(Path::new(&format!("/proc/{pid}/ns/net"))).ok() == netns,
        };
        Ok(processes()?.into_iter().filter(|info| info.comm == command && inside(info.id.pid)).collect())
    }

    fn pid_file(&self, path: &Path) -> io::Result<u32> {
        pid_file::read(path)
    }

    fn has_program(&self, name: &str) -> bool {
        let executable = |path: &Path| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        if name.contains('/') {
            return executable(Path::new(name));
        }
        // Without PATH the system has a default of its own: then only starting it can tell.
        let Some(path) = std::env::var_os("PATH") else { return !name.is_empty() };
        !name.is_empty() && std::env::split_paths(&path).any(|dir| executable(&dir.join(name)))
    }

    fn marked(&self, mark: &str) -> io::Result<Vec<ProcessInfo>> {
        let wanted = format!("{MARK}={mark}");
        let has = |pid: u32| {
            let text = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            text.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        };
        Ok(processes()?.into_iter().filter(|info| !info.ended() && has(info.id.pid)).collect())
    }

    fn cgroups(&self, pid: u32) -> io::Result<String> {
        inside::cgroups(pid)
    }

    fn frozen(&self, pid: u32) -> io::Result<Option<bool>> {
        inside::frozen(pid)
    }

    fn addresses(&self, pid: u32) -> io::Result<Vec<IpAddr>> {
        inside::addresses(pid)
    }

    fn enclosing(&self) -> BTreeSet<String> {
        inside::enclosing()
    }

    fn start(&self, argv: &[String], mark: &str) -> io::Result<Box<dyn Started>> {
        let (program, arguments) = split(argv)?;
        // The runtime asks how it ended, if nobody else does.
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .env(MARK, mark)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Box::new(child))
    }

    fn run<'a>(
        &'a self,
        argv: &'a [String],
        deadline: Duration,
        mark: Option<&'a str>,
    ) -> Pending<'a, io::Result<Output>> {
        Box::pin(async move {
            let (program, arguments) = split(argv)?;
            let mut child = tokio::process::Command::new(program)
                .envs(mark.map(|mark| (MARK, mark)))
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0)
                .kill_on_drop(true)
                .spawn()?;
            // Dropped before the child, so its number is still its own.
            let mut tree = Tree(child.id());
            let (out, err) = (child.stdout.take(), child.stderr.take());
            let (mut said, mut cried) = (Vec::new(), Vec::new());
            let ending = async {
                let mut reading =
                    std::pin::pin!(async { tokio::join!(keep(out, &mut said), keep(err, &mut cried)) });
                tokio::select! {
                    status = child.wait() => {
                        // What it left in the background may hold the pipes open for ever.
                        let _ = tokio::time::timeout(LAST_WORDS, &mut reading).await;
                        status
                    }
                    _ = &mut reading => child.wait().await,
                }
            };
            let Ok(status) = tokio::time::timeout(deadline, ending).await else {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("still running after {deadline:?}"),
                ));
            };
            tree.0 = None;
            said.extend_from_slice(&cried);
            let text = String::from_utf8_lossy(&said).into_owned();
            status.map(|status| Output { code: status.code(), text })
        })
    }
}

/// A command that has not ended, with all that it started: ended when this is dropped, unless it is emptied before.
struct Tree(Option<u32>);

impl Drop for Tree {
    fn drop(&mut self) {
        let Some(pid) = self.0 else { return };
        // Listed first: what has left the group, or the session, is found by its parents as long as they live.
        let family = Host.descendants(pid).unwrap_or_default();
        if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // The group may have ended by itself meanwhile.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        for info in family {
            let _ = Host.signal(info.id, SignalName::Kill);
        }
    }
}

fn split(argv: &[String]) -> io::Result<(&String, &[String])> {
    argv.split_first().ok_or_else(|| io::Error::other("the command is empty"))
}

/// Reads to the end, and keeps the first [`OUTPUT_MAX`] bytes.
async fn keep(stream: Option<impl tokio::io::AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut chunk = [0u8; 4096];
    // Reads on after the bound so that the command does not block on a full pipe.
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..n.min(OUTPUT_MAX - kept.len())]);
    }
}

fn look(pid: u32) -> io::Result<Option<ProcessInfo>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => parse_stat(pid, &text)
            .map(Some)
            .ok_or_else(|| io::Error::other(format!("unreadable /proc/{pid}/stat"))),
        // ESRCH: it ended between open and read.
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(3) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads a line of `/proc/PID/stat` (proc(5)); the command name may itself hold blanks and brackets.
fn parse_stat(pid: u32, text: &str) -> Option<ProcessInfo> {
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let comm = text.get(open + 1..close)?.to_owned();
    let mut fields = text.get(close + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 22 is start time; state was field 3.
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(ProcessInfo { id: ProcessId { pid, start_ticks }, comm, state })
}

fn processes() -> io::Result<Vec<ProcessInfo>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Ok(Some(info)) = look(pid) {
            found.push(info);
        }
    }
    found.sort_by_key(|info| info.id.pid);
    Ok(found)
}

/// Inodes of sockets in state LISTEN (`0A`) on a local port, from the text of `/proc/net/tcp`.
fn listening_inodes(text: &str, port: u16) -> HashSet<String> {
    let suffix = format!(":{port:04X}");
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let listening = fields.get(3) == Some(&"0A") && fields.get(1)?.ends_with(&suffix);
            listening.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
        })
        .collect()
}

fn holds_socket(pid: u32, inodes: &HashSet<String>) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|link| link.to_str().is_some_and(|link| inodes.contains(link)))
}

/// Whether some hierarchy has the process in this cgroup or below it.
fn in_cgroup(pid: u32, path: &str) -> bool {
    let wanted = format!("/{}", path.trim_matches('/'));
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return false };
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|cgroup| {
        wanted != "/"
            && (cgroup == wanted || cgroup.strip_prefix(&wanted).is_some_and(|rest| rest.starts_with('/')))
    })
}

fn netns_inode(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path)?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_may_hold_brackets() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 0 0";
        let info = parse_stat(7, &format!("7 (a) b (c)) {rest}")).unwrap();
        assert_eq!((info.comm.as_str(), info.state, info.id.start_ticks), ("a) b (c)", 'S', 4242));
        assert!(parse_stat(7, "garbage").is_none());
    }

    #[test]
    fn this_process_is_found_by_the_port_on_which_it_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = Host.listeners(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(found.iter().map(|info| info.id.pid).collect::<Vec<_>>(), [std::process::id()]);
    }

    #[test]
    fn a_reused_process_id_is_not_signalled() {
        let me = Host.look(std::process::id()).unwrap().unwrap().id;
        let other = ProcessId { start_ticks: me.start_ticks + 1, ..me };
        assert!(!Host.signal(other, SignalName::Kill).unwrap());
    }

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The process whose number a command writes into this file.
    async fn told(file: &Path) -> ProcessInfo {
        let pid = loop {
            match Host.pid_file(file) {
                Ok(pid) => break pid,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        Host.look(pid).unwrap().expect("it runs")
    }

    async fn wait_end(info: &ProcessInfo) {
        let gone = async {
            while look(info.id.pid).unwrap().is_some_and(|now| now.id == info.id && !now.ended()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gone).await.expect("it still runs");
    }

    #[tokio::test]
    async fn a_command_is_ended_at_its_deadline_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        // The one stays in the group; the other leaves group and session.
        for background in ["sleep 30", "setsid sleep 30"] {
            let script = format!("{background} & echo $! > {}; wait", file.display());
            let argv = argv(&["sh", "-c", &script]);
            let (ended, info) = tokio::join!(Host.run(&argv, Duration::from_secs(1), None), told(&file));
            std::fs::remove_file(&file).unwrap();
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
            wait_end(&info).await;
        }
    }

    #[tokio::test]
    async fn a_command_whose_future_is_dropped_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let argv = argv(&["sh", "-c", &format!("sleep 30 & echo $! > {}; wait", file.display())]);
        let run =
            tokio::time::timeout(Duration::from_secs(1), Host.run(&argv, Duration::from_secs(20), None));
        let (cut, info) = tokio::join!(run, told(&file));
        assert!(cut.is_err());
        wait_end(&info).await;
    }

    #[tokio::test]
    async fn a_command_has_ended_even_if_it_leaves_something_in_the_background() {
        let script = "echo said; echo cried >&2; sleep 30 & echo $! >&2; exit 3";
        let output = Host.run(&argv(&["sh", "-c", script]), Duration::from_secs(10), None).await.unwrap();
        assert_eq!(output.code, Some(3));
        let pid = output.text.strip_prefix("said\ncried\n").unwrap().trim().parse().unwrap();
        let left = look(pid).unwrap().expect("what it left goes on");
        assert!(Host.signal(left.id, SignalName::Kill).unwrap());
    }

    #[tokio::test]
    async fn the_output_of_a_command_is_bounded_and_its_code_is_kept() {
        let argv = argv(&["sh", "-c", "yes | head -c 100000; exit 3"]);
        let output = Host.run(&argv, Duration::from_secs(10), None).await.unwrap();
        assert_eq!((output.code, output.text.len()), (Some(3), OUTPUT_MAX));
    }
}
