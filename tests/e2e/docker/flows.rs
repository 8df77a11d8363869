//! Cuts, resets and wrong names inside several containers at once, and in those that are restarted meanwhile.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use injectors::LEASE;
use rustix::process::Signal;

use super::inside::shaped;
use super::*;
use crate::support::net::{connects, uninterrupted};
use crate::support::process;

fn all_serve(all: &[Container<'_>], docker: &Dockerd) {
    for container in all {
        served(container, docker);
    }
}

/// Engine, guardian, resolvers: all that this home has started.
fn kill_all(home: &Home) {
    for pid in process::of_home(home.dir()) {
        process::signal(pid, Signal::KILL);
    }
}

/// A server of pages that waits for a request says nothing: as many connections to it as these.
fn open(docker: &Dockerd, container: &Container<'_>, count: usize) -> Vec<TcpStream> {
    let to = format!("{}:80", container.address());
    docker.inside(|| (0..count).map(|_| TcpStream::connect(&to).unwrap()).collect())
}

/// How many of them are reset within a second.
fn broken(streams: &mut [TcpStream]) -> usize {
    let ends = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
        let told = stream.write_all(b"G").and_then(|()| uninterrupted(|| stream.read(&mut [0; 4])));
        told.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
    };
    streams.iter_mut().filter_map(|stream| ends(stream).then_some(())).count()
}

#[test]
fn connections_of_several_containers_are_reset_and_one_that_felt_nothing_is_named() {
    let Some(docker) = Dockerd::shared("resets in containers") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let all = ["reset-1", "reset-2"].map(|name| docker.serving(name, &["--label", "sq=reset"]));
    let other = docker.serving("reset-3", &[]);
    all_serve(&all, docker);
    served(&other, docker);
    let mut hit = all.each_ref().map(|container| open(docker, container, 4));
    let mut spared = open(docker, &other, 2);
    let reset = ["inject", "connection-reset", "--label", "sq=reset", "--pick", "all", "--local-ports", "80"];
    let args = [&reset[..], &["--share", "50%", "--for", "1s", "--json"]].concat();
    let done = docker.squall(&home, &args).code(0);
    let proof = proof(&done);
    assert_eq!(proof["status"], "confirmed", "{proof}");
    let measured = proof["measured"].as_str().unwrap();
    for container in &all {
        let name = format!("2 of 2 in container {} ({})", container.name(), &container.id[..12]);
        assert!(measured.contains(&name), "{measured}");
    }
    assert_eq!((hit.each_mut().map(|streams| broken(streams)), broken(&mut spared)), ([2, 2], 0));
    drop(hit);
    // One without a connection has felt nothing, and one that is restarted meanwhile is left alone.
    let _kept = open(docker, &all[0], 1);
    until("the end of connections", START, || {
        let open = all[1].inside(|| std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
        (!open.lines().any(|line| line.contains(":0050 ") && line.contains(" 01 "))).then_some(())
    });
    let args = [&reset[..], &["--share", "100%", "--for", "1s", "--json"]].concat();
    let done = docker.squall(&home, &args).code(6);
    let proof = super::proof(&done);
    let told = format!("none fitted in container reset-2 ({})", &all[1].id[..12]);
    assert!(proof["measured"].as_str().unwrap().contains(&told), "{proof}");
    home.assert_nothing_left();
}

#[test]
fn repeated_resets_go_on_in_the_next_life_of_a_container_and_end_with_it() {
    let Some(docker) = Dockerd::shared("repeated resets in containers") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let all = ["again-a", "again-b"].map(|name| docker.serving(name, &["--label", "sq=again-reset"]));
    all_serve(&all, docker);
    let _first = all.each_ref().map(|container| open(docker, container, 1));
    let reset = ["inject", "connection-reset", "--label", "sq=again-reset", "--pick", "all"];
    let more = ["--local-ports", "80", "--share", "100%", "--repeat", "true", "--for", "60s", "--json"];
    let mut going = docker.begin(&home, &[&reset[..], &more].concat());
    going.says("connection-reset on", START);
    docker.docker(&["restart", "-t", "0", &all[0].id]);
    served(&all[0], docker);
    let mut later = all.each_ref().map(|container| open(docker, container, 1));
    until("the reset of later connections", START, || {
        (later.each_mut().map(|streams| broken(streams)) == [1, 1]).then_some(())
    });
    crate::support::wait::pass(ALONE + ALONE / 5);
    docker.docker(&["rm", "-f", &all[1].id]);
    going.signal(Signal::INT);
    let done = going.end().code(0);
    let proof = proof(&done);
    assert_eq!(proof["status"], "confirmed", "{proof}");
    assert!(proof["measured"].as_str().unwrap().ends_with("covered again after a restart: 1"), "{proof}");
    let mut after = open(docker, &all[0], 2);
    crate::support::wait::pass(ALONE + ALONE / 5);
    assert_eq!(broken(&mut after), 0);
    home.assert_nothing_left();
}

/// What a program in a container is told by the engine's own resolver about another container.
fn resolved(container: &Container<'_>, name: &str) -> &'static str {
    let told = container.says(&["busybox", "nslookup", "-type=a", name]);
    match told {
        told if told.contains("NXDOMAIN") => "no such name",
        told if told.contains("10.88.0.99") => "a lie",
        told if told.contains(&format!("Name:\t{name}")) && told.contains("Address: 10.88.0.") => "true",
        told => panic!("{told}"),
    }
}

fn resolvers(home: &Home) -> usize {
    let all = process::of_home(home.dir());
    all.into_iter().filter(|pid| process::command_line(*pid).contains("__resolver")).count()
}

#[test]
fn names_are_wrong_in_several_containers_and_again_after_a_restart_and_true_afterwards_everywhere() {
    let Some(docker) = Dockerd::shared("wrong names in containers") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let all = ["names-1", "names-2"].map(|name| docker.serving(name, &["--label", "sq=names"]));
    let other = docker.serving("names-3", &[]);
    let fault = ["inject", "dns-fault", "--label", "sq=names", "--pick", "all", "--names", "names-3"];
    let wrong =
        ["--answer", "wrong", "--addresses", "10.88.0.99", "--share", "100%", "--for", "60s", "--json"];
    let mut going = docker.begin(&home, &[&fault[..], &wrong].concat());
    going.says("dns-fault at 127.0.0.11 in names-1 (", START);
    for container in &all {
        assert_eq!((resolved(container, "names-3"), resolved(container, "names-1")), ("a lie", "true"));
    }
    assert_eq!(resolved(&other, "names-3"), "true", "nobody has named it");
    docker.docker(&["restart", "-t", "0", &all[0].id]);
    until("a wrong name in the next life", START, || (resolved(&all[0], "names-3") == "a lie").then_some(()));
    until("the end of the resolver of the first life", START, || (resolvers(&home) == 2).then_some(()));
    assert_eq!((resolved(&all[0], "names-2"), resolved(&all[1], "names-3")), ("true", "a lie"));
    crate::support::wait::pass(ALONE + ALONE / 5);
    going.signal(Signal::INT);
    let done = going.end().code(0);
    let proof = proof(&done);
    assert_eq!(proof["status"], "confirmed", "{proof}");
    let measured = proof["measured"].as_str().unwrap();
    assert!(measured.starts_with("2 of 2 resolvers answered our own query for names-3 so; "), "{proof}");
    assert!(measured.ends_with("covered again after a restart: 1"), "{proof}");
    for container in &all {
        assert_eq!(resolved(container, "names-3"), "true");
        assert!(!shaped(container), "{}", container.network());
    }
    home.assert_nothing_left();
}

#[test]
fn names_are_true_again_in_every_life_of_a_container_when_squall_is_killed_and_recover_leaves_nothing() {
    if quick("a killed DNS fault in containers") {
        return;
    }
    let Some(docker) = Dockerd::shared("a killed DNS fault in containers") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let all = ["lied-1", "lied-2"].map(|name| docker.serving(name, &["--label", "sq=lied"]));
    let fault = ["inject", "dns-fault", "--label", "sq=lied", "--pick", "all", "--answer", "nxdomain"];
    for both in [false, true] {
        let mut going = docker.begin(&home, &[&fault[..], &["--share", "100%", "--for", "60s"]].concat());
        going.says("dns-fault at", START);
        docker.docker(&["restart", "-t", "0", &all[0].id]);
        until("the fault in the next life", START, || (resolved(&all[0], "lied-2") != "true").then_some(()));
        if both {
            kill_all(&home);
        } else {
            going.signal(Signal::KILL);
        }
        going.end().code(137);
        if both {
            alone(&home);
            assert!(all.iter().all(shaped));
            // Whoever asks meanwhile waits for his own timeouts.
            until("healed names", LEASE + START * 2, || {
                let asked = |container| container_hears(container, "lied-2");
                all.iter().all(asked).then_some(())
            });
            // One that is removed meanwhile has nothing to undo.
            docker.docker(&["rm", "-f", &all[1].id]);
            home.squall(&["recover"]).code(0);
            assert!(!shaped(&all[0]), "{}", all[0].network());
        } else {
            until("an untouched network", ALONE * 2, || (!all.iter().any(shaped)).then_some(()));
            assert_eq!(all.each_ref().map(|container| resolved(container, "lied-2")), ["true", "true"]);
            alone(&home);
        }
    }
    home.squall(&["recover"]).code(0);
    home.assert_nothing_left();
}

/// Whether a name is found, where nothing may answer as yet.
fn container_hears(container: &Container<'_>, name: &str) -> bool {
    container.says(&["busybox", "nslookup", "-type=a", name]).contains(&format!("Name:\t{name}"))
}

/// Which containers fetch a page of which others.
fn reached(all: &[Container<'_>]) -> Vec<BTreeSet<usize>> {
    let addresses: Vec<String> = all.iter().map(|container| format!("{}:80", container.address())).collect();
    let from = |(at, container): (usize, &Container<'_>)| {
        let others = || addresses.iter().enumerate().filter(|(other, _)| *other != at);
        let open = || {
            let probe = |(other, to): (usize, &String)| {
                let to = to.parse().unwrap();
                std::thread::scope(|_| (connects(to) == "open").then_some(other))
            };
            others().filter_map(probe).collect()
        };
        container.inside(open)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.iter().enumerate().map(|one| scope.spawn(move || from(one))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn sets(each: &[&[usize]]) -> Vec<BTreeSet<usize>> {
    each.iter().map(|one| one.iter().copied().collect()).collect()
}

#[test]
fn halves_rings_and_bridges_part_containers_of_a_label_as_they_say_and_come_together_again() {
    let Some(docker) = Dockerd::shared("parted containers") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let all: Vec<Container<'_>> =
        (1..=4).map(|number| docker.serving(&format!("part-{number}"), &["--label", "sq=part"])).collect();
    all_serve(&all, docker);
    let whole = reached(&all);
    assert!(whole.iter().all(|others| others.len() == 3), "{whole:?}");
    for (split, sizes) in [
        ("halves", [1, 1, 1, 1]),
        ("majority-ring", [2, 2, 2, 2]),
        ("isolate", [0, 2, 2, 2]),
        ("bridge", [1, 2, 2, 3]),
    ] {
        let args = ["inject", "network-partition", "--among", "label:sq=part", "--split", split];
        let mut going =
            docker.begin(&home, &[&args[..], &["--for", "60s", "--seed", "5", "--json"]].concat());
        going.says("network-partition on label:sq=part (part-", START);
        let seen = reached(&all);
        let mut counts: Vec<usize> = seen.iter().map(BTreeSet::len).collect();
        counts.sort_unstable();
        assert_eq!(counts, sizes, "{split}: {seen:?}");
        for (member, others) in seen.iter().enumerate() {
            assert!(others.iter().all(|other| seen[*other].contains(&member)), "{split}: {seen:?}");
        }
        going.signal(Signal::INT);
        let done = going.end().code(0);
        assert_eq!(proof(&done)["status"], "confirmed", "{done:?}");
        assert_eq!(reached(&all), whole, "{split}");
        assert!(!all.iter().any(shaped), "{split}");
    }
    home.assert_nothing_left();
}

#[test]
fn groups_of_containers_processes_and_labels_stay_parted_when_restarts_swap_their_addresses() {
    let Some(docker) = Dockerd::shared("groups of containers") else { return };
    let (_turn, home) = (turns(1), Home::new());
    // A network of its own: nobody else takes an address that is free for a moment.
    docker.docker(&["network", "create", "--subnet", "10.89.0.0/24", "sides"]);
    let side = |name: &str, side: &str| {
        docker.serving(name, &["--network", "sides", "--label", &format!("sq-side={side}")])
    };
    let all =
        [side("side-1", "left"), side("side-2", "left"), side("side-3", "right"), side("side-4", "none")];
    all_serve(&all, docker);
    let pid = format!("pid:{}", all[3].pid());
    let groups = format!("label:sq-side=left | container:side-3, {pid}");
    let args = ["inject", "network-partition", "--groups", &groups, "--for", "60s", "--json"];
    let mut going = docker.begin(&home, &args);
    going.says("network-partition on label:sq-side=left", START);
    let words = format!("side-3 ({}), side-4 ({})", &all[2].id[..12], &all[3].id[..12]);
    assert!(going.story().contains(&words), "{}", going.story());
    let parted = sets(&[&[1], &[0], &[3], &[2]]);
    assert_eq!(reached(&all), parted);
    let before = [&all[0], &all[2]].map(Container::address);
    docker.start_anew(&[&all[2], &all[0]]);
    assert_eq!([&all[2], &all[0]].map(Container::address), before, "their addresses are swapped");
    until("parted again", START * 2, || (reached(&all) == parted).then_some(()));
    crate::support::wait::pass(ALONE + ALONE / 5);
    assert_eq!(reached(&all), parted);
    going.signal(Signal::INT);
    let done = going.end().code(0);
    let proof = proof(&done);
    assert_eq!(proof["status"], "confirmed", "{proof}");
    assert!(proof["measured"].as_str().unwrap().ends_with("covered again after a restart: 2"), "{proof}");
    assert!(reached(&all).iter().all(|others| others.len() == 3));
    assert!(!all.iter().any(shaped));
    home.assert_nothing_left();
}

#[test]
fn a_partition_of_containers_is_gone_when_squall_is_killed_in_whatever_life_they_are() {
    if quick("a killed partition of containers") {
        return;
    }
    let Some(docker) = Dockerd::shared("a killed partition of containers") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let all = ["torn-1", "torn-2", "torn-3"].map(|name| docker.serving(name, &["--label", "sq=torn"]));
    all_serve(&all, docker);
    for both in [false, true] {
        let args = ["inject", "network-partition", "--among", "label:sq=torn", "--split", "isolate"];
        let mut going = docker.begin(&home, &[&args[..], &["--for", "60s"]].concat());
        going.says("network-partition on", START);
        docker.docker(&["restart", "-t", "0", &all[0].id]);
        until("the cut in the next life", START, || all.iter().all(shaped).then_some(()));
        if both {
            kill_all(&home);
        } else {
            going.signal(Signal::KILL);
        }
        going.end().code(137);
        if both {
            alone(&home);
            assert!(all.iter().all(shaped));
            home.squall(&["recover"]).code(0);
        }
        until("untouched networks", ALONE * 2, || (!all.iter().any(shaped)).then_some(()));
        until("whole again", START, || reached(&all).iter().all(|others| others.len() == 2).then_some(()));
        alone(&home);
    }
    home.squall(&["recover"]).code(0);
    home.assert_nothing_left();
}

#[test]
fn what_cannot_be_parted_is_refused_with_the_way_out() {
    let Some(docker) = Dockerd::shared("refused partitions") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let web = docker.serving("lonely", &["--label", "sq=lonely"]);
    for (args, code, says) in [
        (
            &["--among", "label:sq=lonely", "--split", "halves"][..],
            3,
            "halves needs at least 2 members, and there are 1",
        ),
        (&["--groups", "lonely | container:lonely"], 3, "a container is written container:lonely"),
        (
            &["--groups", "container:lonely | label:sq=nobody"],
            3,
            "none of the containers with label sq=nobody runs",
        ),
        (
            &["--groups", "container:lonely | pod:x"],
            2,
            "`pod:x` is neither a namespace such as a, nor pid:4711",
        ),
        (&["--groups", "a | b", "--direction", "out"], 2, "leave out `direction`"),
        (&["--groups", "a | b", "--container", "lonely"], 2, "leave out to, from, interface"),
    ] {
        let done = docker.squall(&home, &[&["inject", "network-partition"], args, &["--for", "1s"]].concat());
        let done = done.code(code);
        assert!(done.err.contains(says), "{args:?}: {done:?}");
    }
    assert!(!shaped(&web));
}
