//! Faults of the network and of control groups inside containers, which follow them into their next life.

use super::*;

/// Whether anything of ours is in the network of a container.
pub(super) fn shaped(container: &Container<'_>) -> bool {
    let network = container.network();
    network.contains("clsact") || network.contains(": sq") || network.contains("squall")
}

#[test]
fn a_network_fault_in_containers_is_there_again_after_a_restart_and_nothing_is_left_in_any_namespace() {
    let Some(docker) = Dockerd::shared("a network fault in containers") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let all = ["slow-1", "slow-2"].map(|name| docker.serving(name, &["--label", "sq=slow"]));
    let other = docker.serving("slow-3", &[]);
    for container in &all {
        served(container, docker);
    }
    let (slow, fast) = (Duration::from_millis(600), Duration::from_millis(300));
    let rate = ["inject", "network-rate", "--label", "sq=slow", "--pick", "all", "--rate", "2mbit"];
    let args = [&rate[..], &["--by", "tbf", "--wait", "1s", "--for", "12s", "--json"]].concat();
    let mut going = docker.begin(&home, &args);
    going.says("network-rate on eth0 of all containers with label sq=slow", START);
    for container in &all {
        let took = docker.large(&container.address());
        assert!(took > slow, "{took:?}");
    }
    let took = docker.large(&other.address());
    assert!(took < fast && !shaped(&other), "another container feels nothing: {took:?}");
    docker.docker(&["restart", "-t", "0", &all[0].id]);
    until("the fault in the next life", START, || shaped(&all[0]).then_some(()));
    served(&all[0], docker);
    let took = docker.large(&all[0].address());
    assert!(took > slow, "{took:?}");
    let done = going.end().code(0);
    let proof = proof(&done);
    assert_eq!(proof["status"], "confirmed", "{proof}");
    assert!(proof["measured"].as_str().unwrap().ends_with("covered again after a restart: 1"), "{proof}");
    assert!(all.iter().all(|container| !shaped(container)), "{}", all[0].network());
    home.assert_nothing_left();
}

#[test]
fn a_network_fault_in_a_container_that_was_restarted_is_taken_away_when_squall_is_killed_and_by_recover() {
    if quick("a killed network fault in a container") {
        return;
    }
    let Some(docker) = Dockerd::shared("a killed network fault in a container") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("cut-off", &[]);
    for both in [false, true] {
        let rate = ["inject", "network-rate", "--container", "cut-off", "--rate", "2mbit", "--by", "tbf"];
        let mut going = docker.begin(&home, &[&rate[..], &["--for", "60s"]].concat());
        going.says("network-rate on eth0 of container cut-off", START);
        docker.docker(&["restart", "-t", "0", &web.id]);
        until("the fault in the next life", START, || {
            assert!(going.child.try_wait().unwrap().is_none(), "{}", going.story());
            shaped(&web).then_some(())
        });
        if both {
            let all = crate::support::process::of_home(home.dir());
            for pid in all {
                crate::support::process::signal(pid, rustix::process::Signal::KILL);
            }
        } else {
            going.signal(rustix::process::Signal::KILL);
        }
        going.end().code(137);
        if both {
            alone(&home);
            assert!(shaped(&web));
            home.squall(&["recover"]).code(0);
        }
        until("an untouched network", ALONE, || (!shaped(&web)).then_some(()));
        alone(&home);
    }
    home.squall(&["recover"]).code(0);
    home.assert_nothing_left();
}

#[test]
fn a_container_with_the_network_of_the_host_is_no_place_for_a_network_fault() {
    let Some(docker) = Dockerd::shared("a container without a network of its own") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.run("hosted", &["--network", "host"], &["sleep", "1000"]);
    let rate =
        ["inject", "network-rate", "--container", "hosted", "--rate", "2mbit", "--by", "tbf", "--for", "1s"];
    let refused = docker.squall(&home, &rate).code(3);
    assert!(refused.err.contains("container hosted has the network of this host"), "{}", refused.err);
    assert!(!shaped(&web));
    let _host = docker.serving("hostess", &[]);
    let _guest = docker.run("guest", &["--network", "container:hostess"], &["sleep", "1000"]);
    let rate =
        ["inject", "network-rate", "--container", "guest", "--rate", "2mbit", "--by", "tbf", "--for", "1s"];
    let refused = docker.squall(&home, &rate).code(3);
    assert!(refused.err.contains("container guest lives in the network of container"), "{}", refused.err);
}

#[test]
fn a_cut_in_a_container_is_there_again_after_a_restart_and_gone_afterwards() {
    let Some(docker) = Dockerd::shared("a cut in a container") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("cut", &["--ip", "10.88.0.40"]);
    served(&web, docker);
    let args = ["inject", "port-block", "--container", "cut", "--local-ports", "80", "--for", "7s", "--json"];
    let mut going = docker.begin(&home, &args);
    going.says("port-block on", START);
    assert!(!docker.serves("10.88.0.40"));
    docker.docker(&["restart", "-t", "0", &web.id]);
    until("the cut in the next life", START, || shaped(&web).then_some(()));
    assert!(!docker.serves("10.88.0.40"));
    let done = going.end().code(0);
    let proof = proof(&done);
    assert!(proof["measured"].as_str().unwrap().ends_with("covered again after a restart: 1"), "{proof}");
    assert!(!shaped(&web), "{}", web.network());
    served(&web, docker);
    home.assert_nothing_left();
}

/// A file of the control group of a container's main process.
fn group_file(container: &Container<'_>, controller: &str, file: &str) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).ok()?;
    let path = |wanted: &str| {
        let line = groups
            .lines()
            .find(|line| line.split(':').nth(1).is_some_and(|all| all.split(',').any(|one| one == wanted)));
        line.and_then(|line| line.splitn(3, ':').nth(2)).map(str::to_owned)
    };
    let (root, path) = match path(controller) {
        Some(path) => (format!("/sys/fs/cgroup/{controller}"), path),
        None => ("/sys/fs/cgroup".to_owned(), path("")?),
    };
    std::fs::read_to_string(format!("{root}{path}/{file}")).ok().map(|text| text.trim().to_owned())
}

#[test]
fn a_limit_of_a_containers_group_is_there_again_after_a_restart_and_gone_afterwards() {
    let Some(docker) = Dockerd::shared("a limit of a container") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let busy = docker.run("busy", &["--label", "sq=busy"], &["sh", "-c", "while :; do :; done"]);
    let quota = || {
        group_file(&busy, "cpu", "cpu.cfs_quota_us")
            .or_else(|| group_file(&busy, "cpu", "cpu.max"))
            .unwrap_or_default()
    };
    let before = quota();
    let args = ["inject", "cpu-throttle", "--label", "sq=busy", "--pick", "one", "--cores", "0.1"];
    let mut going = docker.begin(&home, &[&args[..], &["--for", "7s", "--json"]].concat());
    going.says("cpu-throttle on the cgroup of one of the containers with label sq=busy", START);
    assert!(quota().starts_with("10000"), "{}", quota());
    docker.docker(&["restart", "-t", "0", &busy.id]);
    until("the limit in the next life", START, || quota().starts_with("10000").then_some(()));
    let done = going.end().code(0);
    let proof = proof(&done);
    assert_eq!(proof["status"], "confirmed", "{proof}");
    assert!(proof["measured"].as_str().unwrap().ends_with("covered again after a restart: 1"), "{proof}");
    assert_eq!(quota(), before);
    home.assert_nothing_left();
}

#[test]
fn a_stressor_burns_inside_a_container_and_goes() {
    let Some(docker) = Dockerd::shared("a stressor in a container") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("burnt", &[]);
    let members = || {
        let mut found = Vec::new();
        for process in crate::support::process::of_home(home.dir()) {
            let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
            if groups.contains(&web.id) {
                found.push(process);
            }
        }
        found
    };
    let args =
        ["inject", "cpu-stress", "--container", "burnt", "--cores", "1", "--load", "30%", "--for", "3s"];
    let going = docker.begin(&home, &[&args[..], &["--json"]].concat());
    until("a stressor in the group of the container", START, || (members().len() == 1).then_some(()));
    let done = going.end().code(0);
    assert_eq!(proof(&done)["status"], "confirmed", "{done:?}");
    assert!(members().is_empty());
    home.assert_nothing_left();
}
