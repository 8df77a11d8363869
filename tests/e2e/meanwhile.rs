//! What others do to control groups and containers while squall presses on them: they end, remove, restart and freeze.
//! Without root, cgroups or a Docker engine these tests are skipped and say so.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use injectors::sys::cgroup::{Cgroups as _, Controller, Version, host::Kernel};
use injectors::sys::resources::{Host as Disk, Resources as _};
use serde_json::Value;

use crate::support::docker::{Container, Dockerd, NETWORK};
use crate::support::{Done, Home, skipped, turns, until};

/// How long an engine may take to do as it is told.
const SOON: Duration = Duration::from_secs(5);

fn proof(done: &Done) -> Value {
    let document: Value = serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    document["injections"][0]["proof"].clone()
}

/// The folders that a container has in all hierarchies.
fn groups(container: &Container<'_>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        // `cpu` may be a link to `cpu,cpuacct`: links are not followed.
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name().to_string_lossy().contains(&container.id) {
                found.push(entry.path());
            }
            open.push(entry.path());
        }
    }
    found
}

#[test]
fn a_stressor_leaves_a_container_that_is_removed_so_that_nothing_of_its_groups_stays_and_nothing_is_confirmed()
 {
    let Some(docker) = Dockerd::shared("a stressor in a container that is removed") else { return };
    let (_turn, home) = (turns(1), Home::new());
    for (fault, args) in [
        ("cpu-stress", ["--cores", "1", "--load", "20%"]),
        ("memory-stress", ["--size", "256MiB", "--reserve", "64MiB"]),
    ] {
        let web = docker.run("removed", &[], &["sleep", "1000"]);
        let asked = ["inject", fault, "--container", "removed", "--for", "4s", "--json"];
        let mut going = docker.begin(&home, &[&asked[..], &args].concat());
        going.says(&format!("{fault} on"), SOON);
        assert!(!groups(&web).is_empty());
        docker.docker(&["rm", "-f", &web.id]);
        until(&format!("{fault}: the end of the container's groups"), SOON, || {
            groups(&web).is_empty().then_some(())
        });
        let done = going.end().code(6);
        let proof = proof(&done);
        assert_eq!(proof["status"], "mismatch", "{proof}");
        assert!(proof["measured"].as_str().unwrap().contains("its container has ended"), "{proof}");
        home.assert_nothing_left();
    }
}

#[test]
fn a_container_restarts_under_a_stressor_and_is_pressed_on_again() {
    let Some(docker) = Dockerd::shared("a stressor in a container that is restarted") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.run("pressed", &[], &["sleep", "1000"]);
    let inside = || {
        let all = crate::support::process::of_home(home.dir()).into_iter();
        let groups = |pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        all.filter(|pid| groups(*pid).contains(&web.id)).collect::<Vec<u32>>()
    };
    let asked = ["inject", "cpu-stress", "--container", "pressed", "--cores", "1", "--load", "30%"];
    let mut going = docker.begin(&home, &[&asked[..], &["--for", "8s", "--json"]].concat());
    going.says("cpu-stress on", SOON);
    let first = inside();
    assert_eq!(first.len(), 1);
    docker.docker(&["restart", "-t", "0", &web.id]);
    until("a stressor in the next life", SOON, || {
        let now = inside();
        (now.len() == 1 && now != first).then_some(())
    });
    let proof = proof(&going.end().code(0));
    assert_eq!(proof["status"], "confirmed", "{proof}");
    assert!(proof["measured"].as_str().unwrap().ends_with("covered again after a restart: 1"), "{proof}");
    assert!(inside().is_empty());
    home.assert_nothing_left();
}

/// Control groups of the test's own, one inside the other, with a process in the inner one.
struct Nested {
    outer: PathBuf,
    inner: PathBuf,
    name: String,
    version: Version,
    dweller: Child,
}

impl Nested {
    /// None, and why, on a host that gives this test no groups.
    fn new(what: &str, controller: Controller, dweller: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("sqm-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut all = Kernel.hierarchies().unwrap();
        all.sort_by_key(|one| one.version == Version::Two);
        let Some(hierarchy) = all.iter().find(|one| one.has(controller)) else {
            skipped(&format!("{what}: no cgroup controller {controller:?}"));
            return None;
        };
        let (outer, inner) = (hierarchy.mount.join(&name), hierarchy.mount.join(&name).join("in"));
        if let Err(error) = std::fs::create_dir(&outer) {
            skipped(&format!("{what}: no control group: {error}"));
            return None;
        }
        if let (Version::Two, Some(name)) = (hierarchy.version, controller.name(Version::Two)) {
            std::fs::write(outer.join("cgroup.subtree_control"), format!("+{name}")).unwrap();
        }
        std::fs::create_dir(&inner).unwrap();
        let dweller = Command::new("sh").args(["-c", dweller]).stdout(Stdio::null()).spawn().unwrap();
        std::fs::write(inner.join("cgroup.procs"), dweller.id().to_string()).unwrap();
        Some(Self { outer, inner, name: format!("{name}/in"), version: hierarchy.version, dweller })
    }

    /// Writes a file of the outer group: its name and the text, in version 1 and in version 2.
    fn write(&self, files: [(&str, &str); 2]) {
        let (file, text) = files[usize::from(self.version == Version::Two)];
        std::fs::write(self.outer.join(file), text).unwrap();
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            for folder in [&self.outer, &self.inner] {
                if folder.join(file).exists() {
                    let _ = std::fs::write(folder.join(file), thawed);
                }
            }
        }
        let _ = self.dweller.kill();
        let _ = self.dweller.wait();
        until("the end of the groups", SOON, || {
            let _ = std::fs::remove_dir(&self.inner);
            let _ = std::fs::remove_dir(&self.outer);
            (!self.outer.exists()).then_some(())
        });
    }
}

#[test]
fn a_group_is_thawed_again_whoever_has_frozen_the_one_above_it_meanwhile() {
    let Some(groups) = Nested::new("a frozen parent", Controller::Freezer, "exec sleep 60") else { return };
    let home = Home::new();
    let mut going = home.start(&["inject", "process-freeze", "--cgroup", &groups.name, "--for", "2s"]);
    going.says("process-freeze on", SOON);
    groups.write([("freezer.state", "FROZEN"), ("cgroup.freeze", "1")]);
    let done = going.end().code(0);
    assert!(done.out.contains("confirmed"), "{}", done.out);
    let (own, thawed) = match groups.version {
        Version::One => ("freezer.self_freezing", "0"),
        Version::Two => ("cgroup.freeze", "0"),
    };
    assert_eq!(std::fs::read_to_string(groups.inner.join(own)).unwrap().trim(), thawed);
    let refused = home.squall(&["inject", "process-freeze", "--cgroup", &groups.name, "--for", "1s"]).code(3);
    assert!(refused.err.contains("frozen already, by somebody else"), "{}", refused.err);
    home.assert_nothing_left();
}

#[test]
fn a_share_of_a_processor_that_the_period_does_not_allow_is_refused_with_the_least_that_it_does() {
    let Some(groups) = Nested::new("a short period", Controller::Cpu, "while :; do :; done") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let (file, text) = match groups.version {
        Version::One => ("cpu.cfs_period_us", "10000"),
        Version::Two => ("cpu.max", "max 10000"),
    };
    std::fs::write(groups.inner.join(file), text).unwrap();
    let inject = |cores: &str| {
        home.squall(&["inject", "cpu-throttle", "--cgroup", &groups.name, "--cores", cores, "--for", "2s"])
    };
    for cores in ["0.01", "0.05"] {
        let refused = inject(cores).code(3);
        assert!(refused.err.contains("ask for 0.1 cores or more"), "{}", refused.err);
    }
    let done = inject("0.15").code(0);
    assert!(done.out.contains("at most 0.15 cores"), "{}", done.out);
    home.assert_nothing_left();
}

#[test]
fn the_limit_of_a_group_above_counts_for_what_memory_may_be_held_below_it() {
    let Some(groups) = Nested::new("a limit above", Controller::Memory, "exec sleep 60") else { return };
    let home = Home::new();
    let inject = |how: &[&str]| {
        let asked =
            ["inject", "memory-stress", "--cgroup", &groups.name, "--reserve", "64MiB", "--for", "1500ms"];
        home.squall(&[&asked[..], how].concat())
    };
    let refused = inject(&["--fill", "1%"]).code(3);
    assert!(
        refused.err.contains("no limit of memory") && refused.err.contains("write `size`"),
        "{}",
        refused.err
    );
    groups.write([("memory.limit_in_bytes", "104857600"), ("memory.max", "104857600")]);
    let refused = inject(&["--size", "300MiB"]).code(3);
    assert!(refused.err.contains("would meet the limit of cgroup"), "{}", refused.err);
    assert!(refused.err.contains(groups.outer.to_str().unwrap()), "{}", refused.err);
    let done = inject(&["--fill", "50%"]).code(0);
    assert!(done.out.contains("confirmed"), "{}", done.out);
    home.assert_nothing_left();
}

#[test]
fn many_writers_of_little_write_as_much_as_was_asked_for() {
    if Disk.device("/tmp".as_ref()).unwrap().is_none() {
        skipped("many writers of little: /tmp is on no disk");
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let hole = tempfile::tempdir_in("/tmp").unwrap();
    let path = hole.path().to_str().unwrap();
    let asked =
        ["inject", "io-stress", "--path", path, "--workers", "16", "--rate", "200KB/s", "--for", "3s"];
    let done = home.squall(&asked).code(0);
    assert!(done.out.contains("confirmed"), "{}", done.out);
    let asked = ["inject", "io-stress", "--path", path, "--workers", "1", "--rate", "10KB/s", "--for", "3s"];
    let refused = home.squall(&asked).code(2);
    assert!(refused.err.contains("write a smaller `block`"), "{}", refused.err);
    home.assert_nothing_left();
}

#[test]
fn a_stressor_without_descriptors_says_what_it_lacks() {
    if Disk.device("/tmp".as_ref()).unwrap().is_none() {
        skipped("a stressor without descriptors: /tmp is on no disk");
        return;
    }
    let home = Home::new();
    let hole = tempfile::tempdir_in("/tmp").unwrap();
    let squall = home.command();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]).arg(squall.get_program());
    command.args(["inject", "io-stress", "--workers", "64", "--for", "1s", "--path"]).arg(hole.path());
    command.envs(squall.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = home.start_as(command).end();
    assert!(done.code != 0 && done.err.contains("Too many open files"), "{done:?}");
    assert!(!done.err.contains('\0'), "{done:?}");
    home.assert_nothing_left();
}

#[test]
fn a_protected_container_is_spared_however_its_group_is_named() {
    let Some(docker) = Dockerd::shared("a protected container") else { return };
    let home = Home::new();
    let kept = docker.run("kept", &["--label", "squall.protect=yes"], &["sleep", "1000"]);
    let pid = kept.pid().to_string();
    let folder = groups(&kept).pop().unwrap();
    let mount =
        Kernel.hierarchies().unwrap().into_iter().find(|one| folder.starts_with(&one.mount)).unwrap().mount;
    // That of all containers of the engine, this one included.
    let name = folder.parent().unwrap().strip_prefix(mount).unwrap().to_str().unwrap().to_owned();
    for aim in [["--pid", &pid], ["--cgroup", &name]] {
        for fault in [&["process-freeze"][..], &["cpu-stress", "--cores", "1", "--load", "5%"]] {
            let done =
                docker.squall(&home, &[&["inject"][..], fault, &aim, &["--for", "1s"]].concat()).code(3);
            assert!(done.err.contains("container kept lives in"), "{aim:?} {fault:?}: {}", done.err);
        }
    }
    home.assert_nothing_left();
}

#[test]
fn a_container_that_nothing_has_back_after_a_crash_is_started_and_the_record_says_so() {
    let Some(docker) = Dockerd::shared("a container that does not come back") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.run("overdue", &[], &["sleep", "1000"]);
    let asked = ["inject", "container-kill", "--container", "overdue", "--comes-back", "1s", "--for", "1s"];
    let done = docker.squall(&home, &[&asked[..], &["--json"]].concat()).code(0);
    assert!(
        proof(&done)["measured"].as_str().unwrap().contains("did not come back by itself"),
        "{}",
        done.out
    );
    assert_eq!(web.status(), "running");
    home.assert_nothing_left();
}

#[test]
fn a_container_that_somebody_else_has_attached_again_is_left_alone_until_it_is_as_before_by_hand() {
    let Some(docker) = Dockerd::shared("a container that is attached again by somebody else") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("taken", &["--network-alias", "front"]);
    let asked = ["inject", "container-disconnect", "--container", "taken", "--for", "3s", "--json"];
    let mut going = docker.begin(&home, &asked);
    going.says("container-disconnect on", SOON);
    docker.docker(&["network", "connect", NETWORK, &web.id]);
    let done = going.end().code(5);
    assert!(done.err.contains("somebody else has attached taken"), "{}", done.err);
    let document: Value = serde_json::from_str(&done.out).unwrap();
    let manual = document["injections"][0]["manual"].as_str().unwrap();
    let by_hand = Command::new("sh").args(["-c", manual]).output().unwrap();
    assert!(by_hand.status.success(), "{manual}: {by_hand:?}");
    docker.squall(&home, &["recover"]).code(0);
    let ends = web.inspect()["NetworkSettings"]["Networks"][NETWORK]["Aliases"].to_string();
    assert!(ends.contains("front"), "{ends}");
    home.assert_nothing_left();
}
