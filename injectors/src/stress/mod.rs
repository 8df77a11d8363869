//! The stressor: a process of its own that burns, holds, writes or fills until nobody wants it any more.
//!
//! It carries one injection. It ends by itself when its lease is not renewed or when it is the last one in the control
//! groups that it has joined, and the kernel ends it when its parent, the engine, ends. What it holds is its own memory and files without a name, so the kernel takes back all of it,
//! whatever dies.
//!
//! The control operations, one JSON object each (see [`crate::sys::control`]):
//!
//! | op | answer |
//! |---|---|
//! | `observe` | `seen`: a [`Seen`] |
//! | `renew` | prolongs the lease; an error if its work has failed |

mod cpu;
mod fill;
pub(crate) mod io;
mod memory;
pub(crate) mod neighbours;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use crate::sys::cgroup::{Cgroups as _, Folder, host::Kernel};
use crate::sys::{control, host, resources, timer};
use crate::{LEASE, Pending};

/// The hidden verb of the binary that becomes a stressor.
pub const VERB: &str = "__stress";
/// What a stressor is called, as `ps` shows it.
pub const NAME: &str = "squall-stress";
/// How often the lease is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What a stressor is told at its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The injection.
    pub id: String,
    /// The groups that it becomes a member of, before it does anything.
    pub join: Vec<Folder>,
    /// What it does.
    pub task: Task,
}

/// What a stressor does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Uses processor time.
    Cpu {
        /// On so many threads.
        cores: u32,
        /// The share of the time in which each of them works.
        load: f64,
    },
    /// Holds memory, and touches it again and again.
    Memory {
        /// So much in the end.
        bytes: u64,
        /// Seconds until then.
        ramp_s: f64,
        /// What it leaves available on the host, in bytes.
        reserve: u64,
    },
    /// Writes to a disk, and waits for each write to arrive there.
    Io {
        /// In this folder.
        path: PathBuf,
        /// On so many threads.
        workers: u32,
        /// Bytes of one write.
        block: u64,
        /// Bytes per second of all threads together; as fast as it goes if there is none.
        rate: Option<f64>,
    },
    /// Takes room on a file system.
    Fill {
        /// In this folder.
        path: PathBuf,
        /// So much.
        bytes: u64,
        /// What it leaves available, in bytes; when others take it, it gives back as much.
        reserve: u64,
    },
}

/// What a stressor has done so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Seconds since it began to work.
    pub elapsed_s: f64,
    /// Processor time that it has had, in seconds.
    pub cpu_s: f64,
    /// Time that its threads were ready to run while others had the processors, in seconds.
    pub waited_s: f64,
    /// Bytes that it was to hold by now.
    pub due: u64,
    /// Bytes that it holds: memory that is resident, or room on the file system.
    pub held: u64,
    /// Bytes that have reached the storage, as the kernel counts them; none if it does not.
    pub written: Option<u64>,
    /// Writes that have been made.
    pub writes: u64,
    /// Why it does less than it was told, in words.
    pub held_back: Option<String>,
    /// Why it does nothing, in words.
    pub failed: Option<String>,
}

/// What its threads tell.
#[derive(Debug, Default)]
struct Tally {
    due: AtomicU64,
    held: AtomicU64,
    writes: AtomicU64,
    held_back: Mutex<Option<String>>,
    failed: Mutex<Option<String>>,
}

impl Tally {
    fn hold_back(&self, why: Option<String>) {
        *self.held_back.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn fail(&self, why: String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The address of the stressor of an injection: a name of the kernel's own, which ends with its process.
pub fn address(id: &str) -> PathBuf {
    let mut name = b"\0squall-stress-".to_vec();
    name.extend(id.bytes().filter(u8::is_ascii_graphic).take(64));
    std::ffi::OsStr::from_bytes(&name).into()
}

/// Runs a stressor to its end: `squall __stress PARENT ORDER`. True: it has ended as it should.
pub fn main_blocking(args: &[String]) -> bool {
    let [parent, order] = args else { return false };
    let (Ok(parent), Ok(order)) = (parent.parse(), serde_json::from_str::<Order>(order)) else {
        return false;
    };
    // Whoever started it has ended already: nobody wants it.
    if host::die_with(parent).is_err() {
        return false;
    }
    host::call_it(NAME);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() else {
        return false;
    };
    runtime.block_on(serve(order)).is_ok()
}

async fn serve(order: Order) -> std::io::Result<()> {
    let listener = UnixListener::bind(address(&order.id))?;
    let tally = Arc::new(Tally::default());
    let lease = Arc::new(AtomicU64::new(timer::monotonic()));
    // What the program itself has taken is none of what it was told to take.
    let own = Own::now(&order.task);
    let seats = neighbours::seats(&order.join);
    // It joins before it has more than this thread, and before anybody can ask.
    if let Err(why) = join(&order.join).and_then(|()| work(&order.task, &tally)) {
        tally.fail(why);
    }
    let (told, kept) = (Arc::clone(&tally), Arc::clone(&lease));
    let handle = move |request: Value| -> Pending<'static, Result<Value, String>> {
        let answer = match (request["op"].as_str(), told.failure()) {
            (Some("observe"), _) => Ok(json!({"seen": look(&told, &own)})),
            (Some("renew"), Some(why)) => Err(why),
            (Some("renew"), None) => {
                kept.store(timer::monotonic(), Ordering::Relaxed);
                Ok(json!({}))
            }
            _ => Err("a stressor knows observe and renew".to_owned()),
        };
        Box::pin(std::future::ready(answer))
    };
    let over = async {
        let left = || timer::monotonic().saturating_sub(lease.load(Ordering::Relaxed));
        while u128::from(left()) < LEASE.as_nanos() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = control::serve(listener, handle) => {}
        () = over => {}
        () = neighbours::gone(&order.join) => neighbours::leave(&seats),
    }
    Ok(())
}

fn join(groups: &[Folder]) -> Result<(), String> {
    for group in groups {
        let failed = |why: &dyn std::fmt::Display| {
            format!("the stressor could not join {}: {why}", group.path.display())
        };
        match Kernel.write(group, "cgroup.procs", "0") {
            Ok(true) => {}
            Ok(false) => return Err(failed(&"it has gone")),
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(())
}

/// Starts the threads. They end with the process.
fn work(task: &Task, tally: &Arc<Tally>) -> Result<(), String> {
    match task {
        Task::Cpu { cores, load } => cpu::start(*cores, *load),
        Task::Memory { bytes, ramp_s, reserve } => memory::start(*bytes, *ramp_s, *reserve, tally),
        Task::Io { path, workers, block, rate } => io::start(path, *workers, *block, *rate, tally),
        Task::Fill { path, bytes, reserve } => fill::start(path, *bytes, *reserve, tally),
    }
}

/// What the program has taken before it began to work.
#[derive(Debug)]
struct Own {
    began: u64,
    cpu: Duration,
    waits: Duration,
    written: Option<u64>,
    /// Bytes in memory, if memory is what it holds.
    resident: Option<u64>,
}

impl Own {
    fn now(task: &Task) -> Self {
        Self {
            began: timer::monotonic(),
            cpu: resources::own_cpu(),
            waits: resources::own_waits(),
            written: resources::own_written(),
            resident: matches!(task, Task::Memory { .. }).then(resources::own_resident),
        }
    }
}

fn look(tally: &Tally, own: &Own) -> Seen {
    Seen {
        elapsed_s: timer::monotonic().saturating_sub(own.began) as f64 / 1e9,
        cpu_s: resources::own_cpu().saturating_sub(own.cpu).as_secs_f64(),
        waited_s: resources::own_waits().saturating_sub(own.waits).as_secs_f64(),
        due: tally.due.load(Ordering::Relaxed),
        held: match own.resident {
            Some(before) => resources::own_resident().saturating_sub(before),
            None => tally.held.load(Ordering::Relaxed),
        },
        written: resources::own_written().zip(own.written).map(|(now, before)| now.saturating_sub(before)),
        writes: tally.writes.load(Ordering::Relaxed),
        held_back: tally.held_back.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        failed: tally.failure(),
    }
}

fn thread(name: &str, act: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(act);
    started.map(drop).map_err(|error| format!("a thread could not be started: {error}"))
}

/// Waits on a thread that nobody wakes.
fn pause(time: Duration) {
    std::thread::park_timeout(time);
}

/// A sentence about a folder.
fn about(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
