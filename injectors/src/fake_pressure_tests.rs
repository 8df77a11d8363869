//! The control groups and resources of the fake world: one group of version 2 with a server in it, which behaves as the
//! kernel does where it matters.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fake_tests::World;
use crate::sys::cgroup::{Cgroups, Folder, Hierarchy, Membership, Version};
use crate::sys::resources::{Files, Memory, Resources, Volume};
use crate::target::ProcessId;

/// The only group, with the server in it.
pub(crate) const GROUP: &str = "web";
const INODE: u64 = 77;
const GIB: u64 = 1 << 30;

/// What faults of pressure can change.
#[derive(Debug)]
pub(crate) struct Pressure {
    files: BTreeMap<String, String>,
    /// Soft limits of descriptors, by process.
    limits: BTreeMap<u32, u64>,
    /// The group was removed, and made again.
    pub(crate) made_again: bool,
    /// The number of the group's folder.
    inode: u64,
}

impl Pressure {
    /// The group is removed, and another one made in its place, as a container's at its restart.
    pub(crate) fn make_anew(&mut self) {
        *self = Self { inode: self.inode + 1, ..Self::new() };
    }

    pub(crate) fn new() -> Self {
        let files = [
            ("cgroup.procs", ""),
            ("cgroup.subtree_control", ""),
            ("cgroup.freeze", "0"),
            ("cgroup.events", "populated 1\nfrozen 0"),
            ("cpu.max", "max 100000"),
            ("cpu.stat", "usage_usec 5\nnr_periods 0\nnr_throttled 0"),
            ("memory.max", "max"),
            ("memory.high", "max"),
            ("memory.current", "104857600"),
            ("memory.stat", "inactive_file 4096"),
            ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0"),
            ("io.max", ""),
            ("io.stat", "8:0 rbytes=0 wbytes=0 rios=0 wios=0"),
        ];
        let files = files.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        Self { files, limits: BTreeMap::new(), inode: INODE, made_again: false }
    }

    pub(crate) fn look(&self) -> Value {
        let lowered: Vec<u64> = self.limits.values().copied().filter(|limit| *limit != 1024).collect();
        json!({"files": self.files, "lowered": lowered})
    }

    /// Somebody else writes a file of the group.
    pub(crate) fn set(&mut self, file: &str, text: &str) {
        self.files.insert(file.to_owned(), text.to_owned());
    }

    fn write(&mut self, file: &str, text: &str) -> io::Result<()> {
        let old = self.files.get(file).ok_or(io::ErrorKind::NotFound)?.clone();
        match file {
            "cgroup.freeze" => self.set("cgroup.events", &format!("populated 1\nfrozen {text}")),
            // The kernel keeps one line for each device that has any limit.
            "io.max" => {
                let (device, asked) = text.split_once(' ').ok_or(io::ErrorKind::InvalidInput)?;
                let has = |fields: &str, name: &str| {
                    let found = fields.split(' ').find_map(|field| field.strip_prefix(&format!("{name}=")));
                    found.map(str::to_owned)
                };
                let field = |name: &str| {
                    let value =
                        has(asked, name).or_else(|| has(&old, name)).unwrap_or_else(|| "max".to_owned());
                    format!("{name}={value}")
                };
                let fields = ["rbps", "wbps", "riops", "wiops"].map(field).join(" ");
                let none = !fields.contains(|c: char| c.is_ascii_digit());
                self.set(file, &if none { String::new() } else { format!("{device} {fields}") });
                return Ok(());
            }
            _ => {}
        }
        self.set(file, text);
        Ok(())
    }

    fn same(&self, folder: &Folder) -> bool {
        folder.inode == self.inode && !self.made_again
    }
}

impl Cgroups for World {
    fn hierarchies(&self) -> io::Result<Vec<Hierarchy>> {
        let controllers = ["cpu", "cpuset", "memory", "io"].map(str::to_owned).to_vec();
        let mount = "/sys/fs/cgroup".into();
        self.os(|_| vec![Hierarchy { version: Version::Two, controllers, mount, within: "/".to_owned() }])
    }

    fn memberships(&self, pid: u32) -> io::Result<Option<Vec<Membership>>> {
        // Any container's group is the only one.
        let member = || vec![Membership { controllers: Vec::new(), path: format!("/{GROUP}") }];
        self.os(|state| state.is_frozen(pid).is_some().then(member))
    }

    fn folder(&self, path: &Path) -> io::Result<Option<Folder>> {
        let there = path == Path::new("/sys/fs/cgroup").join(GROUP);
        self.os(|state| there.then(|| Folder { path: path.to_owned(), inode: state.pressure.inode }))
    }

    fn read(&self, folder: &Folder, file: &str) -> io::Result<Option<String>> {
        let seen = self.os(|state| {
            let there = state.pressure.same(folder);
            there.then(|| state.pressure.files.get(file).cloned())
        })?;
        match seen {
            None => Ok(None),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            Some(text) => Ok(text),
        }
    }

    fn write(&self, folder: &Folder, file: &str, text: &str) -> io::Result<bool> {
        self.os(|state| {
            let there = state.pressure.same(folder);
            if there { state.pressure.write(file, text).map(|()| true) } else { Ok(false) }
        })?
    }

    fn processes(&self, _folder: &Folder) -> io::Result<Vec<u32>> {
        self.os(|state| state.servers())
    }

    fn writable(&self, _folder: &Folder, _file: &str) -> bool {
        true
    }
}

impl Resources for World {
    fn own_cores(&self) -> usize {
        2
    }

    fn cores(&self) -> usize {
        4
    }

    fn memory(&self) -> io::Result<Memory> {
        self.os(|_| Memory { total: 8 * GIB, available: 4 * GIB })
    }

    fn volume(&self, path: &Path) -> io::Result<Volume> {
        self.os(|_| Volume {
            used: 10 * GIB,
            available: 90 * GIB,
            in_memory: path.starts_with("/dev/shm"),
            writable: true,
            of_root: false,
        })
    }

    fn device(&self, _path: &Path) -> io::Result<Option<String>> {
        self.os(|_| Some("8:0".to_owned()))
    }

    fn cpu_time(&self, _pids: &[u32]) -> Duration {
        Duration::ZERO
    }

    fn files(&self, pid: u32) -> io::Result<Option<Files>> {
        self.os(|state| {
            let soft = state.pressure.limits.get(&pid).copied().unwrap_or(1024);
            Some(Files { soft, hard: 4096, open: vec![0, 1, 2, 3] })
        })
    }

    fn limit_files(&self, id: ProcessId, soft: u64) -> io::Result<bool> {
        self.os(|state| {
            let same = state.has(id);
            if same {
                state.pressure.limits.insert(id.pid, soft);
            }
            same
        })
    }

    fn may_limit(&self, _pid: u32) -> io::Result<Option<String>> {
        self.os(|_| None)
    }
}
