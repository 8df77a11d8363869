//! Network faults on real interfaces, in namespaces of our own. Delay and loss need netem, and are tried in the vm lane;
//! here, on any kernel, a rate by tbf, which goes through the same steps.

use std::time::Duration;

use injectors::about::Value as Arg;
use injectors::restore::restore;
use injectors::sys::netlink::{Network as _, host::Kernel};
use injectors::target::Target;
use injectors::traffic::Traffic;
use injectors::units::{Bandwidth, Span};
use injectors::{Args, Change, Env, Inventory, Request, Undone, registry};

use crate::support::net::Net;
use crate::support::{Home, skipped, turns, until};

const STEPS: [&str; 8] =
    ["prepared", "intended", "held", "applied", "journalled", "undoing", "undone", "settled"];
const HOWS: [&str; 4] = ["error", "kill", "kill-guardian", "kill-both"];
const ALONE: Duration = Duration::from_secs(1);

/// The near side, with queueing, hooks and a filter that somebody else has set up.
fn furnished(what: &str) -> Option<Net> {
    let net = Net::new(what)?;
    net.near("tc", &["qdisc", "add", "dev", "near", "root", "handle", "8:", "htb", "default", "1"]);
    net.near(
        "tc",
        &["class", "add", "dev", "near", "parent", "8:", "classid", "8:1", "htb", "rate", "10gbit"],
    );
    Some(net)
}

fn inject<'a>(net: &'a Net, more: &[&'a str]) -> Vec<&'a str> {
    let own = [
        "inject",
        "network-rate",
        "--netns",
        &net.name,
        "--to",
        "10.77.0.2",
        "--rate",
        "2mbit",
        "--by",
        "tbf",
    ];
    [&own[..], more].concat()
}

fn request(net: &Net, id: &str, more: &[(&'static str, &str)]) -> Request {
    let mut given =
        std::collections::BTreeMap::from([("netns", net.name.clone()), ("interface", "near".to_owned())]);
    given.extend(more.iter().map(|(name, text)| (*name, (*text).to_owned())));
    let args = [
        ("rate".to_owned(), Arg::Bandwidth(Bandwidth(250_000.0))),
        ("by".to_owned(), Arg::Text("tbf".to_owned())),
        ("wait".to_owned(), Arg::Span(Span(Duration::from_secs(1)))),
    ];
    let target = Target::Traffic(Traffic::read(&given).unwrap());
    Request { id: id.to_owned(), args: Args(args.into()), target, seed: 3 }
}

fn block_on<T>(act: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(act)
}

fn env() -> Env {
    Env::host(Inventory::default())
}

async fn made(net: &Net, id: &str, more: &[(&'static str, &str)]) -> Change {
    let injector = registry::find("network-rate").unwrap();
    let change = injector.prepare(&env(), &request(net, id, more)).await.unwrap();
    injector.apply(&env(), &change).await.unwrap();
    change
}

#[test]
fn a_rate_is_confirmed_and_another_address_of_the_same_interface_does_not_feel_it() {
    let Some(net) = furnished("a rate on a real interface") else { return };
    let _turn = turns(1);
    let home = Home::new();
    let before = net.picture();
    let flood = net.flood("10.77.0.2", 9000);
    let mut going = home.start(&inject(&net, &["--for", "3s"]));
    going.says("by tbf", Duration::from_secs(5));
    // 40 kB at 2 Mbit/s would take 160 ms.
    let took = net.round_trips("10.77.0.3", 9001, 40);
    assert!(took < Duration::from_millis(80), "{took:?}");
    let during = net.picture();
    assert_ne!(during, before);
    assert!(during.contains(r#""kind":"htb","handle":"8:","dev":"near","root":true"#), "{during}");
    let done = going.end().code(0);
    assert!(done.out.contains("confirmed (requested 2.000 Mbit/s"), "{}", done.out);
    drop(flood);
    assert_eq!(net.picture(), before);
    home.assert_nothing_left();
}

#[test]
fn a_rate_that_no_packet_meets_is_unproven() {
    let Some(net) = furnished("a rate without traffic") else { return };
    let done = Home::new().squall(&inject(&net, &["--for", "300ms"])).code(6);
    assert!(done.out.contains("no packet met it"), "{}", done.out);
}

#[test]
fn whatever_ends_an_injection_at_whatever_step_the_interface_is_as_before_within_a_second() {
    let Some(net) = furnished("the kill matrix of a network fault") else { return };
    let _turn = turns(1);
    let home = Home::new();
    let before = net.picture();
    for (step, how) in STEPS.iter().flat_map(|step| HOWS.iter().map(move |how| (step, how))) {
        let point = format!("{step}:{how}");
        let done = home.squall(&inject(&net, &["--for", "100ms", "--crash-at", &point]));
        assert_eq!(done.code == 137, matches!(*how, "kill" | "kill-both"), "{point}: {done:?}");
        if *how == "kill-both" {
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
    block_on(async {
        let injector = registry::find("network-rate").unwrap();
        let change = injector.prepare(&env(), &request(&net, "run/1", &[])).await.unwrap();
        assert_eq!(restore(&env(), &change).await.unwrap(), Undone::NothingToDo);
        injector.apply(&env(), &change).await.unwrap();
        assert_ne!(net.picture(), before);
        assert_eq!(restore(&env(), &change).await.unwrap(), Undone::Reverted);
        assert_eq!(net.picture(), before);
        assert_eq!(restore(&env(), &change).await.unwrap(), Undone::NothingToDo);
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
        for first in [0, 1] {
            block_on(async {
                let alive =
                    [made(&net, "run/1", &[]).await, made(&net, "run/2", &[("direction", "in")]).await];
                restore(&env(), &alive[first]).await.unwrap();
                let between = net.picture();
                assert_eq!(between.matches("rate=run/").count(), 1, "{between}");
                restore(&env(), &alive[1 - first]).await.unwrap();
            });
            assert_eq!(net.picture(), before, "foreign hooks: {foreign_hooks}, first: {first}");
        }
    }
}

#[test]
fn a_second_rate_of_the_same_packets_or_of_others_that_could_be_the_same_is_refused() {
    let Some(net) = furnished("crossing aims") else { return };
    block_on(async {
        let change = made(&net, "run/1", &[]).await;
        let injector = registry::find("network-rate").unwrap();
        let again = |more: &[(&'static str, &str)]| {
            let request = request(&net, "other/1", more);
            async move { injector.prepare(&env(), &request).await.unwrap_err().to_string() }
        };
        let same = again(&[]).await;
        assert!(same.contains("already have the rate of run/1"), "{same}");
        let crossing = again(&[("to", "10.77.0.3")]).await;
        assert!(crossing.contains("already carries faults of other packets"), "{crossing}");
        restore(&env(), &change).await.unwrap();
    });
}

#[test]
fn an_interface_or_a_namespace_that_has_gone_leaves_nothing_to_undo() {
    let Some(net) = furnished("an interface that goes") else { return };
    block_on(async {
        let change = made(&net, "run/1", &[]).await;
        net.near("ip", &["link", "del", "near"]);
        restore(&env(), &change).await.unwrap();
        let links = net.near("ip", &["-o", "link"]);
        assert_eq!(links.lines().count(), 1, "only the loopback: {links}");
    });
    let Some(net) = furnished("a namespace that goes") else { return };
    block_on(async {
        let change = made(&net, "run/1", &[]).await;
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
    let change = block_on(made(&net, "run/1", &[]));
    let seen = || std::fs::read_link(format!("/proc/{}/ns/net", dweller.id())).unwrap();
    let space = change.undo["space"]["inode"].to_string();
    until("the dweller in its namespace", ALONE, || seen().to_string_lossy().contains(&space).then_some(()));
    net.delete();
    let undone = block_on(restore(&env(), &change));
    dweller.kill().unwrap();
    dweller.wait().unwrap();
    assert_eq!(undone.unwrap(), Undone::Reverted);
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
