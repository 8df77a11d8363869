//! Network faults on real interfaces, in namespaces of our own. Each law is tried on every fault that the kernel can do:
//! a rate by tbf on any, and all of them where there is netem, as in the vm lane, which runs this same binary.
//!
//! Needed besides this binary: `ip` and `tc`, and for some laws `busybox` and `/etc/hosts`.

mod aims;
mod conformance;
mod spaces;

use std::collections::BTreeMap;
use std::time::Duration;

use engine::experiment::{Selector, parse_args};
use injectors::restore::restore;
use injectors::sys::netlink::{Network as _, host::Kernel};
use injectors::{Change, Env, Injector, Inventory, Request, Undone, registry};

use crate::support::net::Net;
use crate::support::{Home, skipped, turns, until};

/// What must be over within a second is; what only has to come may take longer, as in a machine that is emulated.
const ALONE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// A network fault as a user writes it, and the qdisc that it needs.
#[derive(Debug, Clone, Copy)]
struct Case {
    fault: &'static str,
    args: &'static [(&'static str, &'static str)],
    needs: &'static str,
    family: &'static str,
}

const TBF: Case = Case {
    fault: "network-rate",
    args: &[("rate", "2mbit"), ("by", "tbf"), ("wait", "1s")],
    needs: "tbf",
    family: "rate",
};

const fn netem(
    fault: &'static str,
    args: &'static [(&'static str, &'static str)],
    family: &'static str,
) -> Case {
    Case { fault, args, needs: "netem", family }
}

const CASES: [Case; 6] = [
    TBF,
    netem("network-corrupt", &[("share", "30%")], "corrupt"),
    netem("network-delay", &[("delay", "20ms")], "delay"),
    netem("network-duplicate", &[("share", "30%")], "duplicate"),
    netem("network-loss", &[("share", "30%")], "loss"),
    netem("network-rate", &[("rate", "2mbit")], "rate"),
];

/// What this kernel can do; the others are said to be skipped.
fn cases() -> Vec<Case> {
    let features = block_on(Kernel.features()).unwrap();
    let there = |needed: &str| features.iter().any(|one| one.name == needed && one.lack.is_none());
    let (can, cannot): (Vec<Case>, Vec<Case>) = CASES.into_iter().partition(|case| there(case.needs));
    if !cannot.is_empty() {
        let names: Vec<&str> = cannot.iter().map(|case| case.fault).collect();
        skipped(&format!("{}: this kernel has no netem; the vm lane has", names.join(", ")));
    }
    can
}

impl Case {
    fn injector(&self) -> &'static dyn Injector {
        registry::find(self.fault).unwrap()
    }

    /// As it is typed, in the namespace of the near side.
    fn typed(&self, net: &Net, more: &[&str]) -> Vec<String> {
        let mut words =
            vec!["inject".to_owned(), self.fault.to_owned(), "--netns".to_owned(), net.name.clone()];
        for (name, text) in self.args {
            words.extend([format!("--{name}"), (*text).to_owned()]);
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words
    }

    /// The same as a request, aimed at the interface `near` and by what more is said.
    fn request(&self, net: &Net, id: &str, more: &[(&str, &str)]) -> Request {
        let own = [("netns", net.name.as_str()), ("interface", "near")];
        let all = own.iter().chain(self.args).chain(more);
        let mut given: BTreeMap<String, Vec<String>> =
            all.map(|(name, text)| ((*name).to_owned(), vec![(*text).to_owned()])).collect();
        // What is said to be nothing is not said.
        given.retain(|_, texts| texts.iter().all(|text| !text.is_empty()));
        let (args, selector) = parse_args(self.injector(), &given).unwrap();
        let Selector::Exactly(target) = selector else { panic!("no packets: {selector:?}") };
        Request { id: id.to_owned(), args, target, seed: 3 }
    }

    async fn made(&self, net: &Net, id: &str, more: &[(&str, &str)]) -> Change {
        let change = self.injector().prepare(&env(), &self.request(net, id, more)).await.unwrap();
        self.injector().apply(&env(), &change).await.unwrap();
        change
    }
}

fn words(typed: &[String]) -> Vec<&str> {
    typed.iter().map(String::as_str).collect()
}

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

fn block_on<T>(act: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(act)
}

fn env() -> Env {
    Env::host(Inventory::default())
}

#[test]
fn every_fault_is_confirmed_by_packets_of_our_own_alone() {
    let Some(net) = furnished("proof by packets of our own") else { return };
    let _turn = turns(1);
    let home = Home::new();
    let before = net.picture();
    for case in cases() {
        // A name, an address and a namespace alone: somebody who answers is found in each.
        net.near("busybox", &["ping", "-q", "-c", "1", "10.77.0.2"]);
        for more in [&["--to", "10.77.0.2"][..], &[], &["--direction", "both"]] {
            let typed = case.typed(&net, &[more, &["--for", "1200ms"]].concat());
            let done = home.squall(&words(&typed)).code(0);
            assert!(done.out.contains("confirmed (requested"), "{case:?} {more:?}: {}", done.out);
        }
        assert_eq!(net.picture(), before, "{case:?}");
    }
    home.assert_nothing_left();
}

#[test]
fn a_rate_is_confirmed_and_another_address_of_the_same_interface_does_not_feel_it() {
    let Some(net) = furnished("a rate on a real interface") else { return };
    let _turn = turns(1);
    let home = Home::new();
    let before = net.picture();
    let flood = net.flood("10.77.0.2", 9000);
    let mut going = home.start(&words(&TBF.typed(&net, &["--to", "10.77.0.2", "--for", "3s"])));
    going.says("by tbf", PATIENCE);
    let took = aims::took(&net, ("10.77.0.3", 9001, 0));
    assert!(took < aims::FAST, "{took:?}");
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
fn a_filter_of_others_that_comes_first_leaves_unproven_what_only_packets_of_our_own_meet() {
    let Some(net) = furnished("filters of others") else { return };
    let _turn = turns(1);
    let home = Home::new();
    net.near("tc", &["qdisc", "add", "dev", "near", "clsact"]);
    let udp = ["match", "ip", "protocol", "17", "0xff", "flowid", "1:10"];
    let filter = ["filter", "add", "dev", "near", "egress", "protocol", "ip", "prio", "5", "u32"];
    net.near("tc", &[&filter[..], &udp].concat());
    let before = net.picture();
    let typed = TBF.typed(&net, &["--to", "10.77.0.2", "--for", "1s"]);
    let done = home.squall(&words(&typed)).code(6);
    for text in ["unproven", "filters of others (near egress pref 5) come first"] {
        assert!(done.out.contains(text), "{text}: {}", done.out);
    }
    assert_eq!(net.picture(), before);
    // What others send, and what comes past that filter, tells all the same.
    let flood = net.flood("10.77.0.2", 9000);
    let done = home.squall(&words(&TBF.typed(&net, &["--to", "10.77.0.2", "--for", "2s"]))).code(0);
    assert!(done.out.contains("confirmed") && done.out.contains("come first"), "{}", done.out);
    drop(flood);
    home.assert_nothing_left();
}

#[test]
fn a_rate_that_no_packet_meets_is_unproven() {
    let Some(net) = furnished("a rate without traffic") else { return };
    let rate = ["inject", "network-rate", "--netns", &net.name, "--to", "10.77.0.9", "--rate", "2mbit"];
    let done = Home::new().squall(&[&rate[..], &["--by", "tbf", "--for", "300ms"]].concat()).code(6);
    assert!(done.out.contains("no packet met it"), "{}", done.out);
}

#[test]
fn a_rate_that_nobody_else_meets_is_confirmed_by_a_short_transfer_of_our_own() {
    let Some(net) = furnished("a rate by our own transfer") else { return };
    let _turn = turns(1);
    for (direction, rate) in [("out", "2mbit"), ("in", "200kbit"), ("both", "5mbit")] {
        let known = ["inject", "network-rate", "--netns", &net.name, "--to", "10.77.0.2", "--by", "tbf"];
        let more = ["--rate", rate, "--direction", direction, "--for", "300ms"];
        let done = Home::new().squall(&[&known[..], &more].concat()).code(0);
        assert!(done.out.contains("confirmed (requested"), "{direction}: {}", done.out);
    }
}
