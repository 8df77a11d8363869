//! What a host has to give: processors, memory, file systems, descriptors. And files that nobody can leave behind.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};
use serde::{Deserialize, Serialize};

use super::proc::{Host as Processes, Procs as _};
use crate::target::ProcessId;

/// File systems that hold their files in memory: tmpfs and ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Memory of this host, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What new work may take without anything being swapped out.
    pub available: u64,
}

/// A file system, in bytes, as `df` counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What is in use.
    pub used: u64,
    /// What users without privileges may still take.
    pub available: u64,
    /// It holds its files in memory.
    pub in_memory: bool,
    /// This user may make files in the folder that was asked about.
    pub writable: bool,
    /// It also holds the root folder.
    pub of_root: bool,
}

impl Volume {
    /// The share in use, as `df` shows it.
    pub fn full(&self) -> f64 {
        self.used as f64 / (self.used + self.available).max(1) as f64
    }
}

/// The descriptors of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The limit in force: every number is below it.
    pub soft: u64,
    /// The limit of that limit.
    pub hard: u64,
    /// The numbers in use, rising.
    pub open: Vec<u64>,
}

impl Files {
    /// How many more may be opened below a limit.
    pub fn spare(&self, limit: u64) -> u64 {
        limit - (self.open.iter().filter(|number| **number < limit).count() as u64).min(limit)
    }

    /// The largest limit that leaves no more than so many to be opened.
    pub fn limit_for(&self, spare: u64) -> u64 {
        let mut limit = spare;
        for number in &self.open {
            if *number > limit {
                break;
            }
            limit += 1;
        }
        limit
    }
}

/// The port to what the host has.
pub trait Resources: std::fmt::Debug + Send + Sync {
    /// Processors that squall itself may use.
    fn own_cores(&self) -> usize;
    /// Processors of the host.
    fn cores(&self) -> usize;
    /// Memory of the host.
    fn memory(&self) -> io::Result<Memory>;
    /// The file system of a folder.
    fn volume(&self, path: &Path) -> io::Result<Volume>;
    /// The block device that holds this path, or that is this path, as `MAJOR:MINOR`, whole and not a part; none if there is none.
    fn device(&self, path: &Path) -> io::Result<Option<String>>;
    /// Processor time that these processes have had; those that have ended count no more.
    fn cpu_time(&self, pids: &[u32]) -> Duration;
    /// The descriptors of a process; none if there is no such process.
    fn files(&self, pid: u32) -> io::Result<Option<Files>>;
    /// Sets the soft limit of a process's descriptors, if it is still the same one. False: it has ended.
    fn limit_files(&self, id: ProcessId, soft: u64) -> io::Result<bool>;
    /// Why this user may not set limits of a process; none if it may.
    fn may_limit(&self, pid: u32) -> io::Result<Option<String>>;
}

/// The real host.
#[derive(Debug, Clone, Copy)]
pub struct Host;

impl Resources for Host {
    fn own_cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    fn cores(&self) -> usize {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let numbered = |line: &&str| {
            line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        text.lines().filter(numbered).count().max(1)
    }

    fn memory(&self) -> io::Result<Memory> {
        memory()
    }

    fn volume(&self, path: &Path) -> io::Result<Volume> {
        let folder =
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let may = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        let writable = rustix::fs::accessat(&folder, ".", may, rustix::fs::AtFlags::EACCESS).is_ok();
        let volume = volume_of(folder)?;
        Ok(Volume { writable: volume.writable && writable, ..volume })
    }

    fn device(&self, path: &Path) -> io::Result<Option<String>> {
        let meta = std::fs::metadata(path)?;
        // The device itself may be named as well, by its node.
        let device = if meta.file_type().is_block_device() { meta.rdev() } else { meta.dev() };
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let block = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        // Limits are those of whole devices; a partition is a folder in that of its device.
        let whole = if block.join("partition").exists() { block.join("../dev") } else { block.join("dev") };
        match std::fs::read_to_string(whole) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn cpu_time(&self, pids: &[u32]) -> Duration {
        let ticks: u64 = pids.iter().filter_map(|pid| ticks(*pid)).sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
    }

    fn files(&self, pid: u32) -> io::Result<Option<Files>> {
        match read_files(pid) {
            Ok(files) => Ok(files),
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn limit_files(&self, id: ProcessId, soft: u64) -> io::Result<bool> {
        let same =
            || Ok::<_, io::Error>(Processes.look(id.pid)?.is_some_and(|now| now.id == id && !now.ended()));
        let Some(pid) = i32::try_from(id.pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
        let Some(files) = self.files(id.pid)? else { return Ok(false) };
        if !same()? {
            return Ok(false);
        }
        let limit = |current: u64, maximum: u64| Rlimit {
            current: (current != u64::MAX).then_some(current),
            maximum: (maximum != u64::MAX).then_some(maximum),
        };
        let before = match rustix::process::prlimit(Some(pid), Resource::Nofile, limit(soft, files.hard)) {
            Ok(before) => before,
            Err(Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if same()? {
            return Ok(true);
        }
        // Another process has got the number in this very moment: it keeps what it had.
        let _ = rustix::process::prlimit(Some(pid), Resource::Nofile, before);
        Ok(false)
    }

    fn may_limit(&self, pid: u32) -> io::Result<Option<String>> {
        let (own, other) = (std::fs::read_to_string("/proc/self/status")?, status(pid)?);
        let Some(other) = other else { return Ok(None) };
        let ids = |text: &str, name: &str| -> Vec<u32> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect()
        };
        let effective = line_of(&own, "CapEff:").and_then(|text| u64::from_str_radix(text, 16).ok());
        if effective.is_some_and(|bits| bits & (1 << 24) != 0) {
            return Ok(None);
        }
        // The kernel compares the caller's real ids with all three of the other's.
        for name in ["Uid:", "Gid:"] {
            let (mine, theirs) = (ids(&own, name), ids(&other, name));
            let real = mine.first();
            if let Some(id) = theirs.iter().take(3).find(|id| Some(*id) != real) {
                let kind = if name == "Uid:" { "user" } else { "group" };
                return Ok(Some(format!("it runs as {kind} {id}, and squall has no CAP_SYS_RESOURCE")));
            }
        }
        Ok(None)
    }
}

fn status(pid: u32) -> io::Result<Option<String>> {
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3) => Ok(None),
        Err(error) => Err(error),
    }
}

fn line_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn read_files(pid: u32) -> io::Result<Option<Files>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let Some((soft, hard)) = parse_limits(&text) else {
        return Err(io::Error::other(format!("unreadable /proc/{pid}/limits")));
    };
    let mut open = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    open.sort_unstable();
    Ok(Some(Files { soft, hard, open }))
}

/// Soft and hard limit of `Max open files` in `/proc/PID/limits`.
fn parse_limits(text: &str) -> Option<(u64, u64)> {
    let mut words = line_of(text, "Max open files")?.split_ascii_whitespace();
    let mut next = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some((next()?, next()?))
}

/// Processor time of a process in clock ticks: fields 14 and 15 of `/proc/PID/stat` (proc(5)).
fn ticks(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Memory of this host.
///
/// # Errors
/// `/proc/meminfo` cannot be read.
pub fn memory() -> io::Result<Memory> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let bytes = |name: &str| Some(kilobytes(line_of(&text, name)?)? * 1024);
    let both = bytes("MemTotal:").zip(bytes("MemAvailable:"));
    both.map(|(total, available)| Memory { total, available })
        .ok_or_else(|| io::Error::other("unreadable /proc/meminfo"))
}

fn kilobytes(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// The file system of an open file.
///
/// # Errors
/// It cannot be asked.
pub fn volume_of(file: impl AsFd) -> io::Result<Volume> {
    let (vfs, kind) = (rustix::fs::fstatvfs(&file)?, rustix::fs::fstatfs(&file)?);
    let root = std::fs::metadata("/")?.dev();
    Ok(Volume {
        used: (vfs.f_blocks - vfs.f_bfree) * vfs.f_frsize,
        available: vfs.f_bavail * vfs.f_frsize,
        in_memory: IN_MEMORY.contains(&kind.f_type),
        writable: !vfs.f_flag.contains(StatVfsMountFlags::RDONLY),
        of_root: rustix::fs::fstat(&file)?.st_dev == root,
    })
}

/// Processor time that this process has had.
pub fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Time that the threads of this process have been ready to run while others had the processor; nothing if the kernel
/// does not count it.
pub fn own_waits() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let waited = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(waited.sum())
}

/// Bytes of this process that are in memory.
pub fn own_resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    line_of(&text, "VmRSS:").and_then(kilobytes).unwrap_or_default() * 1024
}

/// Bytes that this process has sent to storage; none if the kernel does not count them.
pub fn own_written() -> Option<u64> {
    line_of(&std::fs::read_to_string("/proc/self/io").ok()?, "write_bytes:")?.parse().ok()
}

/// Makes this process the first that the kernel ends when memory is short.
///
/// # Errors
/// The kernel has no such order.
pub fn die_first() -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "1000")
}

/// A new file in a folder that has no name: the kernel takes it back when its last holder ends, however that ends. On
/// file systems that cannot do without a name, it loses it at once. With `sync`, every write waits for the disk.
///
/// # Errors
/// The folder cannot be written.
pub fn nameless(folder: &Path, sync: bool) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | if sync { OFlags::DSYNC } else { OFlags::empty() };
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(folder, flags | OFlags::TMPFILE, mode) {
        Ok(file) => return Ok(file.into()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let path = folder.join(format!(".squall-{}-{}", std::process::id(), super::timer::monotonic()));
    let file = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
    std::fs::remove_file(path)?;
    Ok(file.into())
}

/// Makes a file occupy so many bytes of its file system, from `from` on.
///
/// # Errors
/// The file system is full.
pub fn occupy(file: &mut File, from: u64, to: u64) -> io::Result<()> {
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), from, to - from) {
        Ok(()) => return Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    // A file system that reserves nothing: written, and not all zero, lest it be compressed away.
    let block: Vec<u8> = (0..1_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(block.len());
        file.write_all_at(&block[..length], at)?;
        at += length as u64;
    }
    file.flush()
}

/// Bytes that a file occupies.
pub fn occupied(file: &File) -> u64 {
    file.metadata().map_or(0, |meta| meta.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_leaves_so_many_descriptors_counts_the_holes() {
        let files = |open: &[u64]| Files { soft: 1024, hard: 4096, open: open.to_vec() };
        for (open, spare, limit) in [
            (&[0, 1, 2][..], 0, 3),
            (&[0, 1, 2], 2, 5),
            (&[0, 1, 3, 4], 0, 2),
            (&[0, 1, 3, 4], 1, 5),
            (&[0, 1, 3, 9], 3, 6),
            (&[], 4, 4),
        ] {
            assert_eq!(files(open).limit_for(spare), limit, "{open:?} {spare}");
            assert_eq!(files(open).spare(limit), spare, "{open:?} {spare}");
        }
    }

    #[test]
    fn limits_are_read_as_the_kernel_shows_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             1                    2                    processes \n\
                    Max open files            1024                 unlimited            files     \n";
        assert_eq!(parse_limits(text), Some((1024, u64::MAX)));
        assert_eq!(parse_limits("Max open files"), None);
    }

    #[test]
    fn this_process_and_this_host_are_seen() {
        let me = std::process::id();
        let files = Host.files(me).unwrap().unwrap();
        assert!(files.open.len() >= 3 && files.soft > 3 && files.hard >= files.soft);
        assert_eq!(Host.may_limit(me).unwrap(), None);
        let memory = Host.memory().unwrap();
        assert!(0 < memory.available && memory.available <= memory.total);
        assert!(own_resident() > 1 << 20);
        assert!(Host.cores() >= 1);
        assert!(Host.files(5_000_000).unwrap().is_none());
    }

    #[test]
    fn a_file_without_a_name_takes_room_and_leaves_none_taken() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut file = nameless(folder.path(), false).unwrap();
        occupy(&mut file, 0, 1 << 20).unwrap();
        assert_eq!(occupied(&file), 1 << 20);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
        assert!(Host.volume(folder.path()).unwrap().in_memory);
    }
}
