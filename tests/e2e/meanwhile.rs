//! What others do to control groups and containers while squall presses on them: they end, remove, restart and freeze.
//! Without root, cgroups or a Docker engine these tests are skipped and say so.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::docker::{Container, Dockerd};
use crate::support::{Done, Home, turns, until};

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
