//! A private place for one test: runtime folder, runs, and the binary started in it. Leaks are found and are failures.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{exe, process, until};

/// No single call of the binary may take longer.
const DEADLINE: Duration = Duration::from_secs(90);
/// Processes and sockets may take this long to go once their owner has.
const GONE: Duration = Duration::from_secs(12);

/// The place. Its path is short: sockets need it so. Runs are kept in memory if that can be: every entry of a journal
/// waits for the disk, and the disk of a host that builds something else may take seconds.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    store: tempfile::TempDir,
}

/// A finished call.
#[derive(Debug)]
pub(crate) struct Done {
    /// The exit code; 128 and the signal if it was killed.
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A call that goes on.
pub(crate) struct Going {
    pub(crate) child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o700);
        let mut builder = tempfile::Builder::new();
        builder.prefix("sqe-").permissions(mode);
        let store = builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir_in("/tmp")).unwrap();
        Self { dir: builder.tempdir_in("/tmp").unwrap(), store }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.store.path().join("runs")
    }

    /// Folders of runs.
    pub(crate) fn run_folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.runs()).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        folders.sort();
        folders
    }

    /// Writes a file into the home.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The binary with this home and nothing else of the caller's environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(exe());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir())
            .env("XDG_RUNTIME_DIR", self.dir())
            .env("SQUALL_RUNS", self.runs())
            .current_dir(super::root())
            .stdin(Stdio::null());
        command
    }

    /// Starts the binary.
    pub(crate) fn start(&self, args: &[&str]) -> Going {
        let mut command = self.command();
        command.args(args);
        self.start_as(command)
    }

    /// Starts a command with its output in files, so that no child of it can hold a pipe open.
    pub(crate) fn start_as(&self, mut command: Command) -> Going {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (out, err) = (self.dir().join(format!("out-{number}")), self.dir().join(format!("err-{number}")));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Going { child: command.spawn().unwrap(), out, err }
    }

    /// Runs the binary to its end.
    pub(crate) fn squall(&self, args: &[&str]) -> Done {
        self.start(args).end()
    }

    /// The same, for a document.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let done = self.squall(args);
        serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{args:?}: {error}: {done:?}"))
    }

    /// Fails unless every process and every socket of this home is gone.
    pub(crate) fn assert_nothing_left(&self) {
        let began = Instant::now();
        loop {
            let processes: Vec<String> =
                process::of_home(self.dir()).into_iter().map(process::command_line).collect();
            let sockets = self.sockets();
            if processes.is_empty() && sockets.is_empty() {
                return;
            }
            assert!(began.elapsed() < GONE, "left behind: {processes:?}, {sockets:?}");
            super::wait::pass(Duration::from_millis(20));
        }
    }

    /// What lies in the runtime folder: sockets, folders of labs, state files.
    fn sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir().join("squall")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // After a failure: end what this test has started, so that it disturbs no other.
        for pid in process::of_home(self.dir()) {
            process::signal(pid, Signal::CONT);
            process::signal(pid, Signal::KILL);
        }
    }
}

impl Going {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits until stderr holds this text.
    pub(crate) fn says(&mut self, text: &str, deadline: Duration) {
        let err = self.err.clone();
        let child = &mut self.child;
        until(&format!("stderr with `{text}`"), deadline, || {
            let story = String::from_utf8_lossy(&std::fs::read(&err).unwrap()).into_owned();
            if story.contains(text) {
                return Some(());
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?} before it said `{text}`: {story}");
            None
        });
    }

    /// What it has told so far.
    pub(crate) fn story(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.err).unwrap()).into_owned()
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> Done {
        self.end_within(DEADLINE)
    }

    pub(crate) fn end_within(mut self, deadline: Duration) -> Done {
        let code = process::wait(&mut self.child, deadline);
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        Done { code, out: read(&self.out), err: read(&self.err) }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        // Only after a failure is it still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes of a search. One that says (6) that other processes had this machine's processors is made again, twice at most.
pub(crate) fn unhindered(mut search: impl FnMut() -> Done) -> Done {
    let hindered = |done: &Done| done.code == 6 && done.out.contains("other processes have them");
    let found = (0..2).map(|_| search()).find(|done| !hindered(done));
    found.unwrap_or_else(search)
}

impl Done {
    /// Fails with everything that was said unless the exit code is this.
    #[track_caller]
    pub(crate) fn code(self, wanted: i32) -> Self {
        assert_eq!(self.code, wanted, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// Fails unless the exit code is this, or that of a generator that was kept waiting: for what holds all the same while
    /// others have this machine's processors.
    #[track_caller]
    pub(crate) fn code_or_hindered(self, wanted: i32) -> Self {
        let wanted = if self.code == 6 { 6 } else { wanted };
        self.code(wanted)
    }
}
