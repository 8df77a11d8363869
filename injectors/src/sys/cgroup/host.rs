//! The real control groups: files below `/sys/fs/cgroup` and `/proc`.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, openat};
use rustix::io::Errno;

use super::{
    Cgroups, Folder, Hierarchy, Membership, PROCESSES_MAX, Version, parse_memberships, parse_mounts,
};

/// The longest file that is read, in bytes.
const TEXT_MAX: u64 = 1 << 20;
/// The most groups below one that are looked into.
const BELOW_MAX: usize = 4096;

/// The kernel's control groups.
#[derive(Debug, Clone, Copy)]
pub struct Kernel;

/// An open folder that is still the same one.
fn open(folder: &Folder) -> io::Result<Option<OwnedFd>> {
    let file = match File::open(&folder.path) {
        Ok(file) => file,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((file.metadata()?.ino() == folder.inode).then(|| file.into()))
}

fn gone(error: &io::Error) -> bool {
    // ENODEV is what files of a group say that was removed while they were open.
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

fn text(mut file: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    file.by_ref().take(TEXT_MAX).read_to_string(&mut text)?;
    Ok(text)
}

impl Cgroups for Kernel {
    fn hierarchies(&self) -> io::Result<Vec<Hierarchy>> {
        let mut all = parse_mounts(&std::fs::read_to_string("/proc/self/mountinfo")?);
        for two in all.iter_mut().filter(|one| one.version == Version::Two) {
            let offered = std::fs::read_to_string(two.mount.join("cgroup.controllers"))?;
            two.controllers = offered.split_ascii_whitespace().map(str::to_owned).collect();
        }
        Ok(all)
    }

    fn memberships(&self, pid: u32) -> io::Result<Option<Vec<Membership>>> {
        match std::fs::read_to_string(format!("/proc/{pid}/cgroup")) {
            Ok(text) => Ok(Some(parse_memberships(&text))),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn folder(&self, path: &Path) -> io::Result<Option<Folder>> {
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(Some(Folder { path: path.to_owned(), inode: meta.ino() })),
            Ok(_) => Ok(None),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, folder: &Folder, file: &str) -> io::Result<Option<String>> {
        let Some(dir) = open(folder)? else { return Ok(None) };
        let opened = openat(&dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        match text(File::from(opened)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, folder: &Folder, file: &str, text: &str) -> io::Result<bool> {
        let Some(dir) = open(folder)? else { return Ok(false) };
        let opened = openat(&dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        // One write: the kernel reads each as a whole.
        match File::from(opened).write(text.as_bytes()) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                // Also what a device says that is none: only a group that is no longer there has gone.
                if open(folder)?.is_none() { Ok(false) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    fn processes(&self, folder: &Folder) -> io::Result<Vec<u32>> {
        if open(folder)?.is_none() {
            return Ok(Vec::new());
        }
        let (mut found, mut groups, mut looked) = (Vec::new(), vec![folder.path.clone()], 0);
        while let Some(group) = groups.pop() {
            looked += 1;
            if looked > BELOW_MAX || found.len() > PROCESSES_MAX {
                break;
            }
            match std::fs::read_to_string(group.join("cgroup.procs")) {
                Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                // Threaded groups of version 2 list none: those of their domain are all.
                Err(error) if gone(&error) || error.raw_os_error() == Some(95) => {}
                Err(error) => return Err(error),
            }
            let Ok(entries) = std::fs::read_dir(&group) else { continue };
            let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            groups.extend(folders.map(|entry| entry.path()));
        }
        found.sort_unstable();
        found.dedup();
        // What another pid namespace hides has the number 0.
        found.retain(|pid| *pid > 0);
        Ok(found)
    }

    fn writable(&self, folder: &Folder, file: &str) -> bool {
        let Ok(Some(dir)) = open(folder) else { return false };
        accessat(&dir, file, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }
}
