//! Pressure in control groups that the test makes: the kill matrix, what others change meanwhile, groups that go, and
//! what is refused. On any kernel with cgroup v1 or v2; without root these tests are skipped and say so.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use injectors::group::Group;
use injectors::restore::restore;
use injectors::sys::cgroup::{Cgroups as _, Controller, Hierarchy, Version, host::Kernel};
use injectors::sys::resources::{Host as Disk, Resources as _};
use injectors::{Args, Change, Env, Inventory, Request, Target, Undone, registry};

use rustix::process::Signal;

use crate::support::home::Going;
use crate::support::{Home, points, process, skipped, turns, until};

const ALONE: Duration = Duration::from_secs(1);

/// The faults that are tried here.
pub(crate) const FAULTS: &[&str] = &["cpu-throttle", "io-limit", "memory-limit", "process-freeze"];

/// How one fault is tried.
struct Case {
    fault: &'static str,
    args: &'static [&'static str],
    controller: Controller,
    /// The files that it writes, in version 1 and in version 2.
    files: [&'static str; 2],
    /// What somebody else writes there.
    foreign: [&'static str; 2],
    /// Who lives in the group, so that something feels it.
    dweller: &'static str,
}

const CASES: &[Case] = &[
    Case {
        fault: "cpu-throttle",
        args: &["--cores", "0.1"],
        controller: Controller::Cpu,
        files: ["cpu.cfs_quota_us", "cpu.max"],
        foreign: ["70000", "70000 100000"],
        dweller: "while :; do :; done",
    },
    Case {
        fault: "io-limit",
        args: &["--path", "/tmp", "--write", "100kB/s"],
        controller: Controller::Io,
        files: ["blkio.throttle.write_bps_device", "io.max"],
        foreign: ["DEVICE 70000", "DEVICE wbps=70000"],
        // The dd of busybox knows no oflag=dsync.
        dweller: "cd $HOLE; fill() { dd if=/dev/zero of=f bs=4k count=20 $* 2>/dev/null; }; \
                  while :; do fill oflag=dsync conv=notrunc || fill conv=notrunc,fsync; done",
    },
    Case {
        fault: "memory-limit",
        args: &["--size", "16MiB"],
        controller: Controller::Memory,
        files: ["memory.limit_in_bytes", "memory.max"],
        foreign: ["67108864", "67108864"],
        // Pages of a file are dropped at the limit, and nobody is ended.
        dweller: "cd $HOLE; sleep 0.5; while :; do dd if=/dev/zero of=f bs=1M count=48 2>/dev/null; rm f; sleep 0.1; done",
    },
    Case {
        fault: "process-freeze",
        args: &[],
        controller: Controller::Freezer,
        files: ["freezer.state", "cgroup.freeze"],
        foreign: ["THAWED", "0"],
        dweller: "while :; do sleep 0.01; done",
    },
];

/// A group of the test's own with a process in it.
struct Cage {
    name: String,
    folder: PathBuf,
    version: Version,
    dweller: Child,
    /// Where the dweller writes.
    _hole: tempfile::TempDir,
}

impl Cage {
    /// None, and why, on a host that gives this test no groups.
    fn new(what: &str, case: &Case) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("sqt-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let has = |one: &&Hierarchy| one.has(case.controller);
        let mut all = Kernel.hierarchies().unwrap();
        all.sort_by_key(|one| one.version == Version::Two);
        let Some(hierarchy) = all.iter().find(has) else {
            skipped(&format!("{what}: no cgroup controller for {}", case.fault));
            return None;
        };
        if ["io-limit", "memory-limit"].contains(&case.fault)
            && Disk.device("/tmp".as_ref()).unwrap().is_none()
        {
            // Files in memory meet no disk, and cannot be dropped from memory.
            skipped(&format!("{what}: {}: /tmp is on no disk", case.fault));
            return None;
        }
        let folder = hierarchy.mount.join(&name);
        if let Err(error) = std::fs::create_dir(&folder) {
            skipped(&format!("{what}: no control group: {error}"));
            return None;
        }
        let hole = tempfile::tempdir_in("/tmp").unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", case.dweller]).env("HOLE", hole.path()).stdout(Stdio::null()).process_group(0);
        let dweller = shell.spawn().unwrap();
        std::fs::write(folder.join("cgroup.procs"), dweller.id().to_string()).unwrap();
        Some(Self { name, folder, version: hierarchy.version, dweller, _hole: hole })
    }

    fn file(&self, names: [&str; 2]) -> PathBuf {
        self.folder.join(names[usize::from(self.version == Version::Two)])
    }

    fn says(&self, names: [&str; 2]) -> String {
        std::fs::read_to_string(self.file(names)).unwrap()
    }

    /// Ends who lives in it, and removes it.
    fn remove(&mut self) {
        for thawed in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let path = self.folder.join(thawed.0);
            if path.exists() {
                let _ = std::fs::write(path, thawed.1);
            }
        }
        if let Some(group) = rustix::process::Pid::from_raw(self.dweller.id() as i32) {
            // The shell leads a group of its own.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = self.dweller.wait();
        // What has ended leaves the group a moment later.
        until("the end of the group", Duration::from_secs(5), || {
            let removed = std::fs::remove_dir(&self.folder);
            (removed.is_ok() || !self.folder.exists()).then_some(())
        });
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Case {
    fn inject<'a>(&'a self, cage: &'a Cage, more: &[&'a str]) -> Vec<&'a str> {
        [&["inject", self.fault, "--cgroup", &cage.name][..], self.args, more].concat()
    }

    async fn prepared(&self, cage: &Cage) -> Change {
        let injector = registry::find(self.fault).unwrap();
        let given = self.args.chunks(2).map(|pair| (pair[0].trim_start_matches("--"), pair[1]));
        let given: std::collections::BTreeMap<&str, &str> = given.collect();
        let mut args = Args::default();
        for param in injector.about().params {
            let default = match param.presence {
                injectors::about::Presence::Default(text) => Some(text),
                _ => None,
            };
            let Some(text) = given.get(param.name).copied().or(default) else { continue };
            args.0.insert(param.name.to_owned(), param.kind.parse(text).unwrap());
        }
        let target = Target::Group(Group::Path(cage.name.clone()));
        let request = Request { id: "run/1".to_owned(), args, target, seed: 1 };
        injector.prepare(&env(), &request).await.unwrap()
    }
}

fn env() -> Env {
    Env::host(Inventory::default())
}

fn block_on<T>(act: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(act)
}

#[test]
fn every_fault_of_a_group_is_tried_here() {
    let cases: Vec<&str> = CASES.iter().map(|case| case.fault).collect();
    assert_eq!(cases, FAULTS);
}

#[test]
fn a_fault_of_a_group_is_felt_and_leaves_the_group_as_it_was() {
    for case in CASES {
        let Some(cage) = Cage::new("a fault of a group", case) else { continue };
        let _turn = turns(1);
        let home = Home::new();
        let before = cage.says(case.files);
        // A host that has no time for the dweller leaves it without anything to feel.
        let inject = |length| home.squall(&case.inject(&cage, &["--for", length]));
        let mut done = inject("2s");
        for length in ["4s", "8s"] {
            if done.code == 6 {
                done = inject(length);
            }
        }
        assert_eq!(cage.says(case.files), before, "{}", case.fault);
        let done = done.code(0);
        assert!(done.out.contains("confirmed"), "{}", done.out);
        home.assert_nothing_left();
    }
}

#[test]
fn whatever_ends_an_injection_at_whatever_step_the_group_is_as_before_within_a_second() {
    for case in CASES {
        let Some(cage) = Cage::new("the kill matrix of a fault of a group", case) else { continue };
        let _turn = turns(1);
        let home = Home::new();
        let before = cage.says(case.files);
        for (step, how) in points() {
            let point = format!("{step}:{how}");
            let done = home.squall(&case.inject(&cage, &["--for", "100ms", "--crash-at", &point]));
            assert_eq!(done.code == 137, matches!(how, "kill" | "kill-both"), "{point}: {done:?}");
            if how == "kill-both" {
                until("the end of engines and guardians", ALONE, || {
                    (!home.run_folders().iter().any(|folder| engine::run::store::alive(folder))).then_some(())
                });
                home.squall(&["recover"]).code(0);
            }
            until(&format!("{} {point}: the group as before", case.fault), ALONE, || {
                (cage.says(case.files) == before).then_some(())
            });
            home.squall(&["recover"]).code(0);
        }
        home.assert_nothing_left();
    }
}

#[test]
fn undo_without_apply_and_undo_twice_find_nothing_to_do_in_a_group() {
    for case in CASES {
        let Some(cage) = Cage::new("undo twice in a group", case) else { continue };
        let before = cage.says(case.files);
        block_on(async {
            let change = case.prepared(&cage).await;
            let injector = registry::find(case.fault).unwrap();
            assert_eq!(restore(&env(), &change).await.unwrap(), Undone::NothingToDo);
            injector.apply(&env(), &change).await.unwrap();
            assert_ne!(cage.says(case.files), before, "{}", case.fault);
            assert_eq!(restore(&env(), &change).await.unwrap(), Undone::Reverted);
            assert_eq!(cage.says(case.files), before, "{}", case.fault);
            assert_eq!(restore(&env(), &change).await.unwrap(), Undone::NothingToDo);
        });
    }
}

#[test]
fn what_somebody_else_has_written_into_a_real_group_is_left_alone_until_it_is_forgotten_or_put_back() {
    for case in CASES.iter().filter(|case| case.fault != "process-freeze") {
        let Some(cage) = Cage::new("a foreign change of a group", case) else { continue };
        let change = block_on(async {
            let change = case.prepared(&cage).await;
            registry::find(case.fault).unwrap().apply(&env(), &change).await.unwrap();
            change
        });
        let device = change.undo["settings"][0]["device"].as_str().unwrap_or_default().to_owned();
        let foreign = case.foreign.map(|text| text.replace("DEVICE", &device));
        let ours = cage.says(case.files);
        std::fs::write(cage.file(case.files), &foreign[usize::from(cage.version == Version::Two)]).unwrap();
        let theirs = cage.says(case.files);
        assert_ne!(theirs, ours, "{}", case.fault);
        let error = block_on(restore(&env(), &change)).unwrap_err().to_string();
        assert!(error.contains("somebody else has written"), "{}: {error}", case.fault);
        assert_eq!(cage.says(case.files), theirs, "{}", case.fault);
    }
}

#[test]
fn a_group_that_has_gone_or_was_made_again_under_its_name_is_left_alone() {
    for case in CASES {
        let Some(mut cage) = Cage::new("a group that goes", case) else { continue };
        let change = block_on(async {
            let change = case.prepared(&cage).await;
            registry::find(case.fault).unwrap().apply(&env(), &change).await.unwrap();
            change
        });
        cage.remove();
        assert_eq!(block_on(restore(&env(), &change)).unwrap(), Undone::NothingToDo, "{}", case.fault);
        std::fs::create_dir(&cage.folder).unwrap();
        let fresh = cage.says(case.files);
        assert_eq!(block_on(restore(&env(), &change)).unwrap(), Undone::NothingToDo, "{}", case.fault);
        assert_eq!(cage.says(case.files), fresh);
    }
}

#[test]
fn squall_never_touches_the_group_that_it_is_in_itself() {
    let case = CASES.iter().find(|case| case.fault == "process-freeze").unwrap();
    let Some(cage) = Cage::new("a group of squall's own", case) else { return };
    let home = Home::new();
    let before = cage.says(case.files);
    // A shell joins the group, and becomes squall there.
    let script = format!("echo $$ > {}; exec \"$@\" $$", cage.folder.join("cgroup.procs").display());
    let squall = home.command();
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(squall.get_program());
    command.args(["inject", case.fault, "--for", "1s", "--pid"]);
    command.envs(squall.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = home.start_as(command).end().code(3);
    assert!(done.err.contains("which is squall itself"), "{done:?}");
    assert_eq!(cage.says(case.files), before);
}

/// A group whose dweller sleeps, for a controller.
fn quiet(what: &str, controller: Controller) -> Option<Cage> {
    let (files, foreign) = (["cgroup.procs", "cgroup.procs"], ["", ""]);
    let dweller = "exec sleep 60";
    Cage::new(what, &Case { fault: "a stressor", args: &[], controller, files, foreign, dweller })
}

#[test]
fn a_stressor_is_a_member_of_the_group_and_is_kept_to_its_share_of_the_processors() {
    let Some(cage) = quiet("a stressor in a group", Controller::Cpu) else { return };
    let _turn = turns(1);
    let home = Home::new();
    let (file, tenth) = match cage.version {
        Version::One => ("cpu.cfs_quota_us", "10000"),
        Version::Two => ("cpu.max", "10000 100000"),
    };
    std::fs::write(cage.folder.join(file), tenth).unwrap();
    let asked = ["inject", "cpu-stress", "--cgroup", &cage.name, "--cores", "1", "--load", "60%"];
    let mut going = home.start(&[&asked[..], &["--for", "3s", "--json"]].concat());
    going.says("cpu-stress on", Duration::from_secs(5));
    let inside = || std::fs::read_to_string(cage.folder.join("cgroup.procs")).unwrap().lines().count();
    until("the stressor in the group", ALONE, || (inside() == 2).then_some(()));
    let done = going.end().code(0);
    assert!(done.out.contains("ready to run, it waited for"), "{}", done.out);
    until("the group without it", ALONE, || (inside() == 1).then_some(()));
    home.assert_nothing_left();
}

#[test]
fn a_stressor_takes_no_more_memory_than_its_group_may_have() {
    let Some(cage) = quiet("a stressor in a group with a limit", Controller::Memory) else { return };
    let _turn = turns(1);
    let home = Home::new();
    let (limit, used) = match cage.version {
        Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        Version::Two => ("memory.max", "memory.current"),
    };
    std::fs::write(cage.folder.join(limit), (96 << 20).to_string()).unwrap();
    let inject = |size: &'static str, length: &'static str| {
        let asked = ["inject", "memory-stress", "--cgroup", &cage.name, "--size", size, "--for", length];
        home.start(&[&asked[..], &["--reserve", "64MiB"]].concat())
    };
    let refused = inject("90MiB", "1s").end().code(3);
    assert!(refused.err.contains("would meet the limit of cgroup"), "{refused:?}");
    let going = inject("40MiB", "5s");
    let holds = || std::fs::read_to_string(cage.folder.join(used)).unwrap().trim().parse::<u64>().unwrap();
    until("the memory on account of the group", Duration::from_secs(5), || {
        (holds() >= 40 << 20).then_some(())
    });
    assert!(going.end().code(0).out.contains("confirmed"));
    until("the memory given back", ALONE, || (holds() < 20 << 20).then_some(()));
    home.assert_nothing_left();
}

/// A file system of the test's own, in memory.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new(what: &str) -> Option<Self> {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "squall-test"])
            .arg(folder.path())
            .output()
            .is_ok_and(|done| done.status.success());
        if !mounted {
            skipped(&format!("{what}: no file system of its own"));
        }
        mounted.then_some(Self(folder))
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn available(&self) -> u64 {
        let vfs = rustix::fs::statvfs(self.0.path()).unwrap();
        vfs.f_bavail * vfs.f_frsize
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn whatever_ends_a_full_disk_at_whatever_step_all_of_its_room_is_back_within_a_second() {
    let Some(volume) = Volume::new("the kill matrix of a full disk") else { return };
    let _turn = turns(1);
    let home = Home::new();
    let before = volume.available();
    for (step, how) in points() {
        let point = format!("{step}:{how}");
        let asked = ["inject", "disk-fill", "--path", volume.path(), "--fill", "90%", "--reserve", "1MiB"];
        let done = home.squall(&[&asked[..], &["--for", "100ms", "--crash-at", &point]].concat());
        assert_eq!(done.code == 137, matches!(how, "kill" | "kill-both"), "{point}: {done:?}");
        // Even of both that were killed nothing is left, without any help: the kernel takes it back.
        until(&format!("{point}: the room as before"), ALONE, || {
            (volume.available() == before).then_some(())
        });
        until("the end of engines and guardians", Duration::from_secs(5), || {
            (!home.run_folders().iter().any(|folder| engine::run::store::alive(folder))).then_some(())
        });
        home.squall(&["recover"]).code(0);
    }
    home.assert_nothing_left();
}

#[test]
fn a_full_disk_gives_room_back_when_others_take_its_reserve() {
    let Some(volume) = Volume::new("the reserve of a full disk") else { return };
    let home = Home::new();
    let before = volume.available();
    let asked = ["inject", "disk-fill", "--path", volume.path(), "--size", "40MiB", "--reserve", "16MiB"];
    let mut going = home.start(&[&asked[..], &["--for", "4s"]].concat());
    going.says("disk-fill on", Duration::from_secs(5));
    until("a full disk", Duration::from_secs(5), || {
        (volume.available() <= before - (40 << 20)).then_some(())
    });
    let other = volume.0.path().join("log");
    std::fs::write(&other, vec![1; 20 << 20]).unwrap();
    until("the reserve", Duration::from_secs(5), || (volume.available() >= 16 << 20).then_some(()));
    let done = going.end().code(6);
    assert!(done.out.contains("mismatch") && done.out.contains("reserve);"), "{}", done.out);
    std::fs::remove_file(other).unwrap();
    assert_eq!(volume.available(), before);
}

/// How many stressors of this home live.
fn stressors(home: &Home) -> usize {
    let own = process::of_home(home.dir()).into_iter().map(process::command_line);
    own.filter(|line| line.contains("__stress")).count()
}

/// A stressor at work, with its engine and the number of its guardian.
fn at_work(home: &Home, fault: &[&str]) -> (Going, u32) {
    let mut going = home.start(&[&["inject"][..], fault, &["--for", "60s"]].concat());
    going.says(&format!("{} on", fault[0]), Duration::from_secs(5));
    assert_eq!(stressors(home), 1, "{fault:?}: {}", going.story());
    let all = process::of_home(home.dir());
    let guardian = all.iter().find(|pid| process::command_line(**pid).contains("__guardian")).copied();
    (going, guardian.unwrap())
}

#[test]
fn a_stressor_ends_at_once_with_an_engine_that_is_killed_together_with_its_guardian() {
    let Some(volume) = Volume::new("stressors without engine and guardian") else { return };
    let before = volume.available();
    for fault in [
        &["cpu-stress", "--cores", "1", "--load", "5%"][..],
        &["memory-stress", "--size", "32MiB"],
        &["disk-fill", "--path", volume.path(), "--size", "16MiB", "--reserve", "1MiB"],
    ] {
        let home = Home::new();
        let (going, guardian) = at_work(&home, fault);
        process::signal(guardian, Signal::KILL);
        going.signal(Signal::KILL);
        until(&format!("the end of {}", fault[0]), ALONE, || (stressors(&home) == 0).then_some(()));
        going.end().code(137);
        until("the end of engines and guardians", ALONE, || {
            (!home.run_folders().iter().any(|folder| engine::run::store::alive(folder))).then_some(())
        });
        home.squall(&["recover"]).code(0);
        home.assert_nothing_left();
    }
    assert_eq!(volume.available(), before);
}

#[test]
fn a_stressor_ends_with_a_stopped_engine_by_its_lease() {
    let home = Home::new();
    let (going, guardian) = at_work(&home, &["cpu-stress", "--cores", "1", "--load", "5%"]);
    // The guardian would act as well: it is stopped too, so that nothing but the lease is left.
    process::signal(guardian, Signal::STOP);
    going.signal(Signal::STOP);
    until("the end of the lease", Duration::from_secs(6), || (stressors(&home) == 0).then_some(()));
    process::signal(guardian, Signal::CONT);
    going.signal(Signal::CONT);
    going.end();
    home.squall(&["recover"]);
    home.assert_nothing_left();
}
