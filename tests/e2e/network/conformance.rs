//! What every network fault must stand: ends at any step, undo twice and without apply, neighbours, strangers, things that
//! go away, and a kernel that lacks something.

use super::*;
use crate::support::points;

#[test]
fn whatever_ends_an_injection_at_whatever_step_the_interface_is_as_before_within_a_second() {
    let Some(net) = furnished("the kill matrix of a network fault") else { return };
    let _turn = turns(1);
    let home = Home::new();
    let before = net.picture();
    for (case, (step, how)) in
        cases().into_iter().flat_map(|case| points().into_iter().map(move |point| (case, point)))
    {
        let point = format!("{step}:{how}");
        // UDP, so that no packets of our own take time.
        let aim = ["--to", "10.77.0.2", "--protocol", "udp", "--for", "100ms", "--crash-at", &point];
        let done = home.squall(&words(&case.typed(&net, &aim)));
        let point = format!("{case:?} {point}");
        assert_eq!(done.code == 137, matches!(how, "kill" | "kill-both"), "{point}: {done:?}");
        if how == "kill-both" {
            until("the end of engines and guardians", ALONE, || {
                (!home.run_folders().iter().any(|folder| engine::run::store::alive(folder))).then_some(())
            });
            home.squall(&["recover"]).code(0);
        }
        until(&format!("{point}: the picture before"), ALONE, || (net.picture() == before).then_some(()));
        home.squall(&["recover"]).code(0);
    }
    home.assert_nothing_left();
}

#[test]
fn undo_without_apply_and_undo_twice_find_nothing_to_do() {
    let Some(net) = furnished("undo twice") else { return };
    let before = net.picture();
    let cases = cases();
    block_on(async {
        for case in cases {
            let injector = case.injector();
            let change = injector.prepare(&env(), &case.request(&net, "run/1", &[])).await.unwrap();
            assert_eq!(restore(&env(), &change).await.unwrap(), Undone::NothingToDo);
            injector.apply(&env(), &change).await.unwrap();
            assert_ne!(net.picture(), before);
            assert_eq!(restore(&env(), &change).await.unwrap(), Undone::Reverted);
            assert_eq!(net.picture(), before);
            assert_eq!(restore(&env(), &change).await.unwrap(), Undone::NothingToDo);
        }
    });
}

#[test]
fn two_injections_on_one_interface_go_one_by_one_and_what_others_have_there_stays() {
    let Some(net) = furnished("two injections on one interface") else { return };
    for foreign_hooks in [false, true] {
        if foreign_hooks {
            net.near("tc", &["qdisc", "add", "dev", "near", "clsact"]);
            let code = "1,6 0 0 0,";
            net.near("tc", &["filter", "add", "dev", "near", "egress", "pref", "7", "bpf", "bytecode", code]);
        }
        let before = net.picture();
        for (case, first) in cases().into_iter().flat_map(|case| [(case, 0), (case, 1)]) {
            block_on(async {
                let inward = [("direction", "in")];
                let alive = [case.made(&net, "run/1", &[]).await, case.made(&net, "run/2", &inward).await];
                restore(&env(), &alive[first]).await.unwrap();
                let between = net.picture();
                assert_eq!(between.matches(&format!("{}=run/", case.family)).count(), 1, "{between}");
                restore(&env(), &alive[1 - first]).await.unwrap();
            });
            assert_eq!(net.picture(), before, "{case:?}, foreign hooks: {foreign_hooks}, first: {first}");
        }
    }
}

#[test]
fn an_interface_or_a_namespace_that_has_gone_leaves_nothing_to_undo() {
    let Some(net) = furnished("an interface that goes") else { return };
    block_on(async {
        let change = TBF.made(&net, "run/1", &[]).await;
        net.near("ip", &["link", "del", "near"]);
        restore(&env(), &change).await.unwrap();
        let links = net.near("ip", &["-o", "link"]);
        assert_eq!(links.lines().count(), 1, "only the loopback: {links}");
    });
    let Some(net) = furnished("a namespace that goes") else { return };
    block_on(async {
        let change = TBF.made(&net, "run/1", &[]).await;
        net.delete();
        until("the end of the namespace", ALONE, || {
            block_elsewhere(&change).is_some_and(|undone| undone == Undone::NothingToDo).then_some(())
        });
    });
}

/// The undo of a change on a thread with a runtime of its own.
fn block_elsewhere(change: &Change) -> Option<Undone> {
    let change = change.clone();
    std::thread::spawn(move || block_on(async { restore(&env(), &change).await.ok() })).join().unwrap()
}

#[test]
fn a_namespace_that_has_lost_its_name_is_found_by_what_lives_in_it() {
    let Some(net) = furnished("a namespace without a name") else { return };
    let mut dweller =
        std::process::Command::new("ip").args(["netns", "exec", &net.name, "sleep", "60"]).spawn().unwrap();
    let change = block_on(TBF.made(&net, "run/1", &[]));
    let seen = || std::fs::read_link(format!("/proc/{}/ns/net", dweller.id())).unwrap();
    let space = change.undo["sites"][0]["space"]["inode"].to_string();
    until("the dweller in its namespace", ALONE, || seen().to_string_lossy().contains(&space).then_some(()));
    net.delete();
    let undone = block_on(restore(&env(), &change));
    dweller.kill().unwrap();
    dweller.wait().unwrap();
    assert_eq!(undone.unwrap(), Undone::Reverted);
}

#[test]
fn an_injection_in_several_networks_is_undone_in_those_that_are_left() {
    let Some(one) = furnished("an injection in several networks") else { return };
    let Some(other) = furnished("an injection in several networks") else { return };
    for gone in [false, true] {
        let before = one.picture();
        let mut both = block_on(async {
            let injector = TBF.injector();
            let mut both = injector.prepare(&env(), &TBF.request(&one, "run/1", &[])).await.unwrap();
            let second = injector.prepare(&env(), &TBF.request(&other, "run/1", &[])).await.unwrap();
            for (all, more) in [(&mut both.apply, &second.apply), (&mut both.undo, &second.undo)] {
                all["sites"].as_array_mut().unwrap().extend(more["sites"].as_array().unwrap().clone());
            }
            both.picture.as_array_mut().unwrap().extend(second.picture.as_array().unwrap().clone());
            injector.apply(&env(), &both).await.unwrap();
            both
        });
        both.claims.clear();
        assert!(one.picture().contains("rate=run/1") && other.picture().contains("rate=run/1"));
        if gone {
            other.delete();
        }
        assert_eq!(block_elsewhere(&both), Some(Undone::Reverted));
        assert_eq!(one.picture(), before);
        assert_eq!(block_elsewhere(&both), Some(Undone::NothingToDo));
    }
}

#[test]
fn a_kernel_without_netem_refuses_with_what_is_missing_and_what_would_serve() {
    let Some(net) = Net::new("a refusal without netem") else { return };
    let features = block_on(Kernel.features()).unwrap();
    if features.iter().any(|feature| feature.name == "netem" && feature.lack.is_none()) {
        skipped("a refusal without netem: this kernel has it");
        return;
    }
    let home = Home::new();
    let before = net.picture();
    for (fault, more, serves) in [
        ("network-corrupt", ["--share", "5%"], "no relay can turn bits unseen"),
        ("network-delay", ["--delay", "50ms"], "relay-latency"),
        ("network-loss", ["--share", "5%"], "relay-reset"),
        ("network-duplicate", ["--share", "5%"], "no relay can duplicate packets"),
        ("network-rate", ["--rate", "1mbit"], "by: tbf"),
    ] {
        let args = ["inject", fault, "--netns", &net.name, "--to", "10.77.0.2", "--for", "5s"];
        let done = home.squall(&[&args[..], &more].concat()).code(3);
        assert!(
            done.err.contains("this kernel has no sch_netem") && done.err.contains("modprobe sch_netem"),
            "{done:?}"
        );
        assert!(done.err.contains(serves), "{done:?}");
    }
    assert_eq!(net.picture(), before);
    let doctor = home.json(&["doctor", "--json"]);
    let netem = doctor["network"].as_array().unwrap().iter().find(|one| one["what"] == "netem").unwrap();
    assert_eq!(netem["ok"], false, "{doctor}");
}

#[test]
fn faults_of_one_aim_share_a_device_and_leave_it_in_any_order() {
    let Some(net) = furnished("faults of one aim") else { return };
    let sharing: Vec<Case> = cases().into_iter().filter(|case| case.needs == "netem").collect();
    let before = net.picture();
    for (one, other) in sharing.iter().zip(sharing.iter().skip(1)) {
        for first in [0, 1] {
            block_on(async {
                let alive = [one.made(&net, "run/1", &[]).await, other.made(&net, "run/2", &[]).await];
                restore(&env(), &alive[first]).await.unwrap();
                let (gone, left) = if first == 0 { (one, other) } else { (other, one) };
                let between = net.picture();
                assert!(!between.contains(&format!("{}=run", gone.family)), "{between}");
                assert!(between.contains(&format!("{}=run", left.family)), "{between}");
                restore(&env(), &alive[1 - first]).await.unwrap();
            });
            assert_eq!(net.picture(), before, "{one:?} and {other:?}, first: {first}");
        }
    }
}

/// Everything of an interface that queues or sorts packets.
fn furniture(net: &Net, link: &str) -> String {
    let show = |what: &str| net.near("tc", &["-d", what, "show", "dev", link]);
    show("qdisc") + &show("class") + &show("filter")
}

#[test]
fn whatever_queueing_others_have_on_an_interface_is_neither_refused_nor_touched() {
    let Some(net) = Net::new("the queueing of others") else { return };
    let multi = ["link", "add", "multi", "numtxqueues", "4", "type", "veth", "peer", "name", "multi2"];
    net.near("ip", &multi);
    net.near("ip", &["link", "set", "multi", "up"]);
    // The kernel says a moment later that nobody is at the other end.
    until("the state of the link", PATIENCE, || net.picture().contains("LOWERLAYERDOWN").then_some(()));
    let htb = [
        &["qdisc", "add", "dev", "multi", "root", "handle", "1:", "htb", "default", "20"][..],
        &["class", "add", "dev", "multi", "parent", "1:", "classid", "1:1", "htb", "rate", "1gbit"],
        &[
            "class", "add", "dev", "multi", "parent", "1:1", "classid", "1:10", "htb", "rate", "1mbit",
            "ceil", "2mbit",
        ],
        &["class", "add", "dev", "multi", "parent", "1:1", "classid", "1:20", "htb", "rate", "9mbit"],
        &["qdisc", "add", "dev", "multi", "parent", "1:10", "handle", "10:", "pfifo", "limit", "7"],
    ];
    let root = |kind: &'static str| vec![vec!["qdisc", "add", "dev", "multi", "root", "handle", "1:", kind]];
    let mut tried = Vec::new();
    for (kind, steps) in [
        ("htb", htb.iter().map(|step| step.to_vec()).collect()),
        ("mq", root("mq")),
        ("fq_codel", root("fq_codel")),
        ("fq", root("fq")),
        ("prio", root("prio")),
    ] {
        if steps.iter().any(|step| net.try_near("tc", step).is_err()) {
            continue;
        }
        tried.push(kind);
        let before = (furniture(&net, "multi"), net.picture());
        for case in cases() {
            block_on(async {
                let change = case.made(&net, "run/1", &[("interface", "multi"), ("direction", "both")]).await;
                assert_eq!(furniture(&net, "multi").replace(CLSACT, ""), before.0, "{case:?} on {kind}");
                restore(&env(), &change).await.unwrap();
            });
            assert_eq!((furniture(&net, "multi"), net.picture()), before, "{case:?} on {kind}");
        }
        net.near("tc", &["qdisc", "del", "dev", "multi", "root"]);
    }
    assert!(tried.contains(&"htb"), "{tried:?}");
}

/// Our hooks, as `tc` shows them among the qdiscs of an interface.
const CLSACT: &str = "qdisc clsact ffff: parent ffff:fff1 \n";
