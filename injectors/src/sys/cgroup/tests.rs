//! Texts of real hosts: version 1, version 2, both at once, and a container's part of one.

use super::*;

const ONE: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
const TWO: &str = "\
30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";
const CONTAINER: &str = "\
700 690 0:32 /docker/8f2a /sys/fs/cgroup/memory\\040of\\040it ro,relatime master:15 - cgroup cgroup rw,memory
";
const PROCESS_ONE: &str = "\
9:name=systemd:/system.slice/nginx.service
6:freezer:/
4:memory:/system.slice/nginx.service
1:cpu,cpuacct:/web
0::/system.slice/nginx.service
";
const PROCESS_TWO: &str = "0::/kubepods.slice/pod:7/x\n";

#[test]
fn hierarchies_are_read_from_the_table_of_mounts() {
    let all = parse_mounts(ONE);
    let shown: Vec<String> =
        all.iter().map(|one| format!("{} {}", one.mount.display(), one.controllers.join("+"))).collect();
    assert_eq!(
        shown,
        [
            "/sys/fs/cgroup/cpu,cpuacct rw+cpu+cpuacct",
            "/sys/fs/cgroup/memory rw+memory",
            "/sys/fs/cgroup/freezer rw+freezer",
            "/sys/fs/cgroup/unified ",
        ]
    );
    let two = parse_mounts(TWO);
    assert_eq!((two.len(), two[0].version), (1, Version::Two));
    let part = parse_mounts(CONTAINER);
    assert_eq!(
        (part[0].mount.to_str(), part[0].within.as_str()),
        (Some("/sys/fs/cgroup/memory of it"), "/docker/8f2a")
    );
    assert!(parse_mounts("garbage\n1 2 3 - cgroup\n").is_empty());
}

#[test]
fn the_groups_of_a_process_are_read_with_colons_in_their_names() {
    let one = parse_memberships(PROCESS_ONE);
    assert_eq!((one.len(), one[3].controllers.join("+").as_str()), (5, "cpu+cpuacct"));
    let two = parse_memberships(PROCESS_TWO);
    assert_eq!((two[0].controllers.len(), two[0].path.as_str()), (0, "/kubepods.slice/pod:7/x"));
    assert!(parse_memberships("nonsense").is_empty());
}

#[test]
fn flat_and_nested_files_give_their_numbers() {
    let stat = "usage_usec 52\nuser_usec 40\nnr_throttled 3\n";
    assert_eq!((flat(stat, "nr_throttled"), flat(stat, "nr")), (Some(3), None));
    let io = "8:0 rbytes=1 wbytes=22\n253:0 rbytes=5 wbytes=6\n";
    assert_eq!(nested(io, "8:0").unwrap()[1], ("wbytes", "22"));
    assert!(nested(io, "3:0").is_none());
    assert_eq!(unreclaimable(100, "anon 60\ninactive_file 10\nactive_file 20\n"), 70);
    // Version 1 tells of the group alone as well; its use is that of the groups below it, too.
    assert_eq!(unreclaimable(100, "inactive_file 1\ntotal_inactive_file 10\ntotal_active_file 200\n"), 0);
}

/// A host that has these mounts, every group, and one process.
#[derive(Debug)]
struct Texts {
    mounts: &'static str,
    process: &'static str,
    absent: &'static str,
}

impl Cgroups for Texts {
    fn hierarchies(&self) -> io::Result<Vec<Hierarchy>> {
        let mut all = parse_mounts(self.mounts);
        let offered =
            if self.mounts == TWO { vec!["cpu".to_owned(), "memory".to_owned()] } else { Vec::new() };
        all.iter_mut()
            .filter(|one| one.version == Version::Two)
            .for_each(|one| one.controllers.clone_from(&offered));
        Ok(all)
    }
    fn memberships(&self, pid: u32) -> io::Result<Option<Vec<Membership>>> {
        Ok((pid == 7).then(|| parse_memberships(self.process)))
    }
    fn folder(&self, path: &Path) -> io::Result<Option<Folder>> {
        let there = self.absent.is_empty() || !path.to_string_lossy().contains(self.absent);
        Ok(there.then(|| Folder { path: path.to_owned(), inode: 1 }))
    }
    fn read(&self, _folder: &Folder, _file: &str) -> io::Result<Option<String>> {
        Ok(None)
    }
    fn write(&self, _folder: &Folder, _file: &str, _text: &str) -> io::Result<bool> {
        Ok(false)
    }
    fn processes(&self, _folder: &Folder) -> io::Result<Vec<u32>> {
        Ok(Vec::new())
    }
    fn writable(&self, _folder: &Folder, _file: &str) -> bool {
        true
    }
}

fn found(host: &Texts, group: &Group, controller: Controller) -> String {
    match find(host, group, controller) {
        Ok(place) => place.folder.path.display().to_string(),
        Err(error) => format!("! {error}"),
    }
}

#[test]
fn a_group_is_found_where_its_controller_has_it() {
    let one = Texts { mounts: ONE, process: PROCESS_ONE, absent: "" };
    let two = Texts { mounts: TWO, process: PROCESS_TWO, absent: "" };
    let path = |path: &str| Group::Path(path.to_owned());
    for (host, group, controller, wanted) in [
        (&one, path("web"), Controller::Cpu, "/sys/fs/cgroup/cpu,cpuacct/web"),
        (&one, path("web"), Controller::Freezer, "/sys/fs/cgroup/freezer/web"),
        (&one, path("/sys/fs/cgroup/memory/web"), Controller::Memory, "/sys/fs/cgroup/memory/web"),
        (&one, Group::Process(7), Controller::Cpu, "/sys/fs/cgroup/cpu,cpuacct/web"),
        (&one, Group::Process(7), Controller::Memory, "/sys/fs/cgroup/memory/system.slice/nginx.service"),
        // Its group of the freezer is the root, but it has one of its own in version 2.
        (&one, Group::Process(7), Controller::Freezer, "/sys/fs/cgroup/unified/system.slice/nginx.service"),
        (&two, path("web"), Controller::Freezer, "/sys/fs/cgroup/web"),
        (&two, Group::Process(7), Controller::Memory, "/sys/fs/cgroup/kubepods.slice/pod:7/x"),
    ] {
        assert_eq!(found(host, &group, controller), wanted, "{group} {controller:?}");
    }
    let hybrid = Texts { absent: "freezer", ..one };
    assert_eq!(found(&hybrid, &path("web"), Controller::Freezer), "/sys/fs/cgroup/unified/web");
    assert!(found(&two, &path("web"), Controller::CpuAccount).contains("no cgroup controller"));
}

#[test]
fn what_is_no_group_of_its_own_is_refused_with_the_way_out() {
    let one = Texts { mounts: ONE, process: "4:memory:/\n0::/\n", absent: "nowhere" };
    let refused = |group: Group, controller: Controller, words: &str| {
        let text = found(&one, &group, controller);
        assert!(text.starts_with("! ") && text.contains(words), "{text}");
    };
    refused(Group::Process(7), Controller::Memory, "in the root group");
    refused(Group::Process(8), Controller::Memory, "there is no process 8");
    refused(
        Group::Path("nowhere".to_owned()),
        Controller::Memory,
        "there is no control group /sys/fs/cgroup/memory/nowhere",
    );
    refused(Group::Path("/sys/fs/cgroup/memory".to_owned()), Controller::Memory, "root group");
    refused(Group::Path("/elsewhere/web".to_owned()), Controller::Memory, "not below /sys/fs/cgroup/memory");
    refused(Group::Path("web".to_owned()), Controller::Io, "no cgroup controller io");
    let part = Texts { mounts: CONTAINER, process: "4:memory:/docker/other\n", absent: "" };
    assert!(found(&part, &Group::Process(7), Controller::Memory).contains("lies outside of what"));
    let outside = Texts { mounts: TWO, process: "0::/../../other\n", absent: "" };
    assert!(found(&outside, &Group::Process(7), Controller::Memory).contains("cgroup namespace"));
}

#[test]
fn a_real_group_is_made_read_written_and_known_from_a_later_one_of_its_name() {
    let kernel = host::Kernel;
    let Some(root) = kernel.hierarchies().unwrap().into_iter().find(|one| one.has(Controller::Cpu)) else {
        return;
    };
    let path = root.mount.join(format!("squall-test-{}", std::process::id()));
    if std::fs::create_dir(&path).is_err() {
        // Not root: the end-to-end tests say so.
        return;
    }
    let first = kernel.folder(&path).unwrap().unwrap();
    assert!(kernel.writable(&first, "cgroup.procs") && kernel.processes(&first).unwrap().is_empty());
    assert_eq!(kernel.read(&first, "cgroup.procs").unwrap().as_deref(), Some(""));
    assert_eq!(kernel.read(&first, "no.such").unwrap_err().kind(), io::ErrorKind::NotFound);
    std::fs::remove_dir(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_ne!(kernel.folder(&path).unwrap().unwrap(), first);
    assert_eq!(kernel.read(&first, "cgroup.procs").unwrap(), None);
    assert!(!kernel.write(&first, "cgroup.procs", "0").unwrap());
    std::fs::remove_dir(&path).unwrap();
    assert!(kernel.folder(&path).unwrap().is_none());
}
