//! Control groups, version 1 and 2, side by side as hosts have them: where a group is, what its files say.
//!
//! All that reads texts is pure; [`host`] is the edge. A group is known by the inode of its folder, so that one that
//! was made again under the same name is not taken for it.

pub mod host;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::InjectError;
use crate::group::Group;

/// The most processes of a group that are listed.
pub const PROCESSES_MAX: usize = 4096;

/// The version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One hierarchy for each controller, or for a few of them.
    One,
    /// One hierarchy for all.
    Two,
}

/// What of a group a fault needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Shares and limits of processor time.
    Cpu,
    /// The account of processor time, apart from the limits only in version 1.
    CpuAccount,
    /// Which processors.
    CpuSet,
    /// Memory.
    Memory,
    /// Block devices.
    Io,
    /// Stopping a group as a whole.
    Freezer,
}

impl Controller {
    /// Its name in a version; none where the version has it without a name.
    pub fn name(self, version: Version) -> Option<&'static str> {
        Some(match (self, version) {
            (Self::Cpu, _) => "cpu",
            (Self::CpuAccount, Version::One) => "cpuacct",
            (Self::CpuSet, _) => "cpuset",
            (Self::Memory, _) => "memory",
            (Self::Io, Version::One) => "blkio",
            (Self::Io, Version::Two) => "io",
            (Self::Freezer, Version::One) => "freezer",
            (Self::CpuAccount | Self::Freezer, Version::Two) => return None,
        })
    }
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its version.
    pub version: Version,
    /// Its controllers. Those of version 2 are what its root offers.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The group of the hierarchy that is seen there; `/` unless a container has a part of it.
    pub within: String,
}

/// In which group of one hierarchy a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The controllers of the hierarchy; none in version 2.
    pub controllers: Vec<String>,
    /// The group's path from the root of the hierarchy.
    pub path: String,
}

/// The folder of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Tells it from a later one of the same name.
    pub inode: u64,
}

/// A group as one controller sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its folder.
    pub folder: Folder,
    /// The version of the hierarchy.
    pub version: Version,
}

/// The port to the host's control groups.
pub trait Cgroups: std::fmt::Debug + Send + Sync {
    /// What is mounted.
    fn hierarchies(&self) -> io::Result<Vec<Hierarchy>>;
    /// In which groups a process is; none if there is no such process.
    fn memberships(&self, pid: u32) -> io::Result<Option<Vec<Membership>>>;
    /// The folder at this path; none if there is none.
    fn folder(&self, path: &Path) -> io::Result<Option<Folder>>;
    /// What a file of a group says; none if the group has gone. A file that the group does not have is an error.
    fn read(&self, folder: &Folder, file: &str) -> io::Result<Option<String>>;
    /// Writes a file of a group in one go. False: the group has gone, and nothing was written.
    fn write(&self, folder: &Folder, file: &str, text: &str) -> io::Result<bool>;
    /// The processes of a group and of all groups below it, at most [`PROCESSES_MAX`] and one more.
    fn processes(&self, folder: &Folder) -> io::Result<Vec<u32>>;
    /// Whether this user may write the file.
    fn writable(&self, folder: &Folder, file: &str) -> bool;
}

/// Hierarchies of a text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Those of version 2 have no controllers yet:
/// they stand in a file of their own.
pub fn parse_mounts(text: &str) -> Vec<Hierarchy> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Hierarchy> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (within, mount) = (unescape(before.next()?), unescape(before.next()?));
    let mut after = after.split(' ');
    let (kind, _, options) = (after.next()?, after.next()?, after.next()?);
    let (version, controllers) = match kind {
        "cgroup2" => (Version::Two, Vec::new()),
        // A hierarchy with a name only, such as systemd's, controls nothing.
        "cgroup" if options.split(',').any(|word| word.starts_with("name=")) => return None,
        "cgroup" => (Version::One, options.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some(Hierarchy { version, controllers, mount: mount.into(), within })
}

/// Octal escapes of blanks and the like, as the kernel writes them into tables of mounts.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => all.extend([char::from(code)].into_iter().chain(part[3..].chars())),
            None => all.extend(['\\'].into_iter().chain(part.chars())),
        }
    }
    all
}

/// Groups of a text of `/proc/PID/cgroup` (cgroups(7)).
pub fn parse_memberships(text: &str) -> Vec<Membership> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let controllers = controllers.split(',').filter(|word| !word.is_empty()).map(str::to_owned);
            Some(Membership { controllers: controllers.collect(), path: path.to_owned() })
        })
        .collect()
}

impl Hierarchy {
    /// Whether it has a controller.
    pub fn has(&self, controller: Controller) -> bool {
        match controller.name(self.version) {
            Some(name) => self.controllers.iter().any(|known| known == name),
            // Every group of version 2 can be frozen. The account of its time is a part of the controller cpu.
            None => controller == Controller::Freezer,
        }
    }

    /// The folder of a group; the text if it is not seen here.
    fn at(&self, path: &str) -> Result<PathBuf, String> {
        let within = self.within.trim_end_matches('/');
        let below = match path.strip_prefix(within) {
            Some(below) if below.is_empty() || below.starts_with('/') => below,
            _ => return Err(format!("the group {path} lies outside of what {} shows", self.mount.display())),
        };
        // As a process of another cgroup namespace shows it.
        if below.split('/').any(|part| part == "..") {
            return Err(format!("the group {path} lies outside of the cgroup namespace of squall"));
        }
        Ok(self.mount.join(below.trim_matches('/')))
    }

    /// Where a group of this name would be.
    fn named(&self, path: &str) -> Result<PathBuf, String> {
        // A whole path is that of one hierarchy, whichever it is: its rest is the name.
        match Path::new(path).strip_prefix(&self.mount) {
            Ok(below) if path.starts_with('/') => Ok(self.mount.join(below)),
            _ if path.starts_with('/') => Err(format!("it is not below {}", self.mount.display())),
            _ => Ok(self.mount.join(path)),
        }
    }

    fn of(&self, all: &[Membership]) -> Option<String> {
        let own = |one: &&Membership| match self.version {
            Version::Two => one.controllers.is_empty(),
            Version::One => one.controllers.iter().any(|name| self.controllers.contains(name)),
        };
        all.iter().find(own).map(|one| one.path.clone())
    }
}

/// Finds a group where this controller has it. Only reads.
///
/// # Errors
/// There is no such group or controller, or it is the root group, which holds everything.
pub fn find(cgroups: &dyn Cgroups, group: &Group, controller: Controller) -> Result<Place, InjectError> {
    let hierarchies = cgroups.hierarchies().map_err(system("look for control groups".to_owned()))?;
    let mut candidates: Vec<&Hierarchy> = hierarchies.iter().filter(|one| one.has(controller)).collect();
    candidates.sort_by_key(|one| one.version == Version::Two);
    let name = controller.name(Version::One).unwrap_or_default();
    if candidates.is_empty() {
        let name = controller.name(Version::Two).unwrap_or(name);
        let text = format!(
            "this host has no cgroup controller {name}: neither a hierarchy of version 1 nor cgroup2 has it; see \
             `squall doctor`"
        );
        return Err(InjectError::Lack(text));
    }
    let mut why = None;
    for hierarchy in candidates {
        match look(cgroups, group, hierarchy) {
            Ok(place) => return Ok(place),
            Err(error) => why = why.or(Some(error)),
        }
    }
    Err(why.unwrap_or_else(|| InjectError::Target(format!("there is no {group}"))))
}

fn look(cgroups: &dyn Cgroups, group: &Group, hierarchy: &Hierarchy) -> Result<Place, InjectError> {
    let path = match group {
        Group::Host => Err("name a control group: `cgroup`, `pid` or a container".to_owned()),
        Group::Containers(_) => Err(format!("{group} is not known here")),
        Group::Path(path) => hierarchy.named(path),
        Group::Process(pid) => {
            let all = cgroups.memberships(*pid).map_err(system(format!("look at process {pid}")))?;
            let all = all.ok_or_else(|| InjectError::Target(format!("there is no process {pid}")))?;
            let path = hierarchy.of(&all).unwrap_or_else(|| "/".to_owned());
            if path == "/" {
                let text = format!(
                    "process {pid} is in the root group of {}, which holds everything: put it into a group of its own \
                     first (systemd-run --scope, or mkdir and cgroup.procs)",
                    hierarchy.mount.display()
                );
                return Err(InjectError::Target(text));
            }
            hierarchy.at(&path)
        }
    };
    let path = path.map_err(InjectError::Target)?;
    if path == hierarchy.mount {
        let text = format!("{} is the root group, which holds everything; refused", path.display());
        return Err(InjectError::Target(text));
    }
    match cgroups.folder(&path).map_err(system(format!("look at {}", path.display())))? {
        Some(folder) => Ok(Place { folder, version: hierarchy.version }),
        None => Err(InjectError::Target(format!("there is no control group {}", path.display()))),
    }
}

/// The group in which a process is, in the hierarchy of this folder; none if it cannot be seen from here.
///
/// # Errors
/// The process cannot be looked at.
pub fn seat(cgroups: &dyn Cgroups, pid: u32, beside: &Folder) -> io::Result<Option<Folder>> {
    let hierarchies = cgroups.hierarchies()?;
    of_folder(&hierarchies, beside).map_or(Ok(None), |hierarchy| within(cgroups, pid, hierarchy))
}

/// The group in which a process is, whichever hierarchy has the controller, be it the root group; none if it cannot be
/// seen from here.
///
/// # Errors
/// The process cannot be looked at.
pub fn place_of(cgroups: &dyn Cgroups, pid: u32, controller: Controller) -> io::Result<Option<Place>> {
    let mut hierarchies = cgroups.hierarchies()?;
    hierarchies.sort_by_key(|one| one.version == Version::Two);
    let Some(hierarchy) = hierarchies.iter().find(|one| one.has(controller)) else { return Ok(None) };
    let folder = within(cgroups, pid, hierarchy)?;
    Ok(folder.map(|folder| Place { folder, version: hierarchy.version }))
}

fn within(cgroups: &dyn Cgroups, pid: u32, hierarchy: &Hierarchy) -> io::Result<Option<Folder>> {
    let memberships = cgroups.memberships(pid)?.unwrap_or_default();
    match hierarchy.of(&memberships).map(|path| hierarchy.at(&path)) {
        Some(Ok(path)) => cgroups.folder(&path),
        _ => Ok(None),
    }
}

/// The folders above that of a group, from the nearest on, as far as they are seen here.
///
/// # Errors
/// The groups cannot be looked at.
pub fn above(cgroups: &dyn Cgroups, folder: &Folder) -> io::Result<Vec<Folder>> {
    let hierarchies = cgroups.hierarchies()?;
    let Some(hierarchy) = of_folder(&hierarchies, folder) else { return Ok(Vec::new()) };
    let parents = folder.path.ancestors().skip(1).take_while(|path| path.starts_with(&hierarchy.mount));
    parents.filter_map(|path| cgroups.folder(path).transpose()).collect()
}

/// The hierarchy in which a folder lies.
fn of_folder<'h>(all: &'h [Hierarchy], folder: &Folder) -> Option<&'h Hierarchy> {
    let around = all.iter().filter(|one| folder.path.starts_with(&one.mount));
    around.max_by_key(|one| one.mount.components().count())
}

fn system(what: String) -> impl FnOnce(io::Error) -> InjectError {
    move |source| InjectError::System { what, source }
}

/// How long a process has been kept from running so far because its group, or one above it, had used up its time; none if
/// the kernel does not say.
pub fn throttled(cgroups: &dyn Cgroups, pid: u32) -> Option<Duration> {
    let place = place_of(cgroups, pid, Controller::Cpu).ok()??;
    let groups = above(cgroups, &place.folder).ok()?.into_iter().chain([place.folder]);
    let of = |folder: Folder| {
        let stat = cgroups.read(&folder, "cpu.stat").ok()??;
        match place.version {
            Version::One => flat(&stat, "throttled_time").map(Duration::from_nanos),
            Version::Two => flat(&stat, "throttled_usec").map(Duration::from_micros),
        }
    };
    groups.filter_map(of).max()
}

/// The number behind a word at the beginning of a line: `usage_usec 12`.
pub fn flat(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().map(|line| line.split_ascii_whitespace());
    words.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok())?)
}

/// The fields of a device's line, `8:0 rbps=max wbps=4096`; none if it has no line.
pub fn nested<'t>(text: &'t str, device: &str) -> Option<Vec<(&'t str, &'t str)>> {
    let line = text.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' '))?;
    Some(line.split_ascii_whitespace().filter_map(|word| word.split_once('=')).collect())
}

/// Memory of a group without the pages of files, which the kernel can drop, from its use and its `memory.stat`.
pub fn unreclaimable(used: u64, stat: &str) -> u64 {
    let pages =
        |name: &str| flat(stat, &format!("total_{name}")).or_else(|| flat(stat, name)).unwrap_or_default();
    used.saturating_sub(pages("inactive_file") + pages("active_file"))
}
