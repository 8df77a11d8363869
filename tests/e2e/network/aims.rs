//! Which packets are hit, and that no others are.

use super::*;
use crate::support::Lab;
use crate::support::client::get;
use crate::support::net::Cluster;

/// What 40 kB at 2 Mbit/s take at least, but for the burst, and at most without a limit.
const SLOW: Duration = Duration::from_millis(100);
pub(super) const FAST: Duration = Duration::from_millis(80);

/// How long 40 kB take to an address of the far side and back, from a port of the near side. A limit slows every try, a
/// busy host only some: the best of a few.
pub(super) fn took(net: &Net, (address, port, from): (&'static str, u16, u16)) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        best = best.min(net.round_trips(address, port, 40, from));
        if best < FAST {
            break;
        }
    }
    best
}

#[test]
fn each_way_is_slowed_alone_or_with_the_other_and_only_for_the_packets_that_are_meant() {
    let Some(net) = furnished("ways and ports") else { return };
    let _turn = turns(1);
    for (aim, hit, spared) in [
        (&[("to", "10.77.0.2")][..], ("10.77.0.2", 9001, 0), ("10.77.0.3", 9001, 0)),
        (&[("to", "10.77.0.2"), ("direction", "in")], ("10.77.0.2", 9001, 0), ("10.77.0.3", 9001, 0)),
        (&[("to", "10.77.0.2"), ("direction", "both")], ("10.77.0.2", 9001, 0), ("10.77.0.3", 9001, 0)),
        (&[("ports", "9001")], ("10.77.0.2", 9001, 0), ("10.77.0.2", 9002, 0)),
        (&[("ports", "9000-9001"), ("direction", "in")], ("10.77.0.3", 9001, 0), ("10.77.0.3", 9002, 0)),
        (&[("local-ports", "9100-9200")], ("10.77.0.2", 9001, 9150), ("10.77.0.2", 9001, 9250)),
        (
            &[("local-ports", "9150"), ("direction", "in")],
            ("10.77.0.2", 9001, 9150),
            ("10.77.0.2", 9001, 9151),
        ),
        (&[("protocol", "udp")], ("10.77.0.2", 9001, 0), ("", 0, 0)),
        (&[("protocol", "tcp")], ("", 0, 0), ("10.77.0.2", 9001, 0)),
        (&[("protect", "10.77.0.3")], ("10.77.0.2", 9001, 0), ("10.77.0.3", 9001, 0)),
        (&[("to", "fd77::2"), ("direction", "both")], ("fd77::2", 9001, 0), ("10.77.0.2", 9001, 0)),
        (&[("to", "10.77.0.0/24,fd77::/64"), ("ports", "9001")], ("fd77::2", 9001, 0), ("fd77::2", 9002, 0)),
    ] {
        if aim.iter().any(|(_, text)| text.contains("fd77")) && !net.has_six() {
            skipped("IPv6 packets: this kernel has none");
            continue;
        }
        let change = block_on(TBF.made(&net, "run/1", aim));
        if hit.1 > 0 {
            let took = took(&net, hit);
            assert!(took > SLOW, "{aim:?} hits {hit:?}: {took:?}");
        }
        if spared.1 > 0 {
            let took = took(&net, spared);
            assert!(took < FAST, "{aim:?} spares {spared:?}: {took:?}");
        }
        block_on(restore(&env(), &change)).unwrap();
    }
}

#[test]
fn packets_of_another_address_of_this_side_are_untouched_on_the_same_interface() {
    let Some(net) = furnished("addresses of this side") else { return };
    let _turn = turns(1);
    net.second_addresses();
    let took = |source: &'static str| {
        let to = if source.contains(':') { "fd77::2" } else { "10.77.0.2" };
        let tries = (0..5).map(|_| net.round_trips_from((source, 0), (to, 9001), 40));
        let mut best = Duration::MAX;
        for took in tries {
            best = best.min(took);
            if best < FAST {
                break;
            }
        }
        best
    };
    let before = net.picture();
    for (aim, hit, spared) in [
        (&[("from", "10.77.0.11")][..], "10.77.0.11", "10.77.0.1"),
        (&[("from", "10.77.0.0/29"), ("direction", "in")], "10.77.0.1", "10.77.0.11"),
        (&[("from", "10.77.0.8/29"), ("to", "10.77.0.2")], "10.77.0.11", "10.77.0.1"),
        (&[("from", "fd77::11"), ("direction", "both")], "fd77::11", "fd77::1"),
        (&[("from", "10.77.0.11,fd77::1"), ("direction", "both")], "fd77::1", "10.77.0.1"),
    ] {
        if hit.contains(':') && !net.has_six() {
            skipped("IPv6 packets: this kernel has none");
            continue;
        }
        let change = block_on(TBF.made(&net, "run/1", aim));
        let (slow, fast) = (took(hit), took(spared));
        assert!(slow > SLOW && fast < FAST, "{aim:?} hits {hit}: {slow:?}, and spares {spared}: {fast:?}");
        block_on(restore(&env(), &change)).unwrap();
        assert_eq!(net.picture(), before);
    }
}

#[test]
fn a_fault_of_one_address_of_this_side_is_proven_from_there_and_unproven_if_it_is_of_others() {
    let Some(net) = furnished("proof from an address of this side") else { return };
    let _turn = turns(1);
    net.second_addresses();
    let home = Home::new();
    for case in cases() {
        for more in [&["--direction", "out"][..], &["--direction", "both"]] {
            let aim = ["--to", "10.77.0.2", "--from", "10.77.0.11", "--for", "1200ms"];
            let done = home.squall(&words(&case.typed(&net, &[&aim, more].concat()))).code(0);
            assert!(done.out.contains("confirmed (requested"), "{case:?} {more:?}: {}", done.out);
        }
    }
    let base = ["--to", "10.77.0.2", "--for", "300ms", "--from"];
    let done = home.squall(&words(&TBF.typed(&net, &[&base[..], &["192.0.2.0/24"]].concat()))).code(6);
    assert!(done.out.contains("from no address of this side in `from` has anybody answered"), "{}", done.out);
    home.assert_nothing_left();
}

#[test]
fn the_interface_is_that_of_the_route_from_the_address_of_this_side() {
    let Some(net) = furnished("routes by address of this side") else { return };
    net.second_addresses();
    // By this address alone another interface leads there.
    net.near("ip", &["link", "add", "aside", "type", "ifb"]);
    net.near("ip", &["link", "set", "aside", "up"]);
    net.near("ip", &["rule", "add", "from", "10.77.0.1", "table", "7"]);
    net.near("ip", &["route", "add", "10.77.0.0/24", "dev", "aside", "table", "7"]);
    let home = Home::new();
    let mut going =
        home.start(&words(&TBF.typed(&net, &["--to", "10.77.0.2", "--from", "10.77.0.1", "--for", "5s"])));
    going.says("by tbf", PATIENCE);
    assert!(net.near("tc", &["filter", "show", "dev", "aside", "egress"]).contains("Egress Redirect"));
    going.signal(rustix::process::Signal::INT);
    going.end();
    home.assert_nothing_left();
}

#[test]
fn what_others_send_through_a_bridge_is_hit_by_their_address_alone() {
    let Some(cluster) = Cluster::new("packets that are bridged", 3) else { return };
    let hub = cluster.bridge.as_str();
    let given = [("netns", hub), ("interface", "port1"), ("from", "10.78.0.2")];
    let all = given.iter().chain(TBF.args);
    let given = all.map(|(name, text)| ((*name).to_owned(), vec![(*text).to_owned()])).collect();
    let (args, Selector::Exactly(target)) = parse_args(TBF.injector(), &given).unwrap() else {
        panic!("no packets");
    };
    let ping = |member: usize| {
        Cluster::run(&cluster.names[member], &["busybox", "ping", "-q", "-c", "3", "-i", "0.1", "10.78.0.1"])
    };
    let hit = || Cluster::run(hub, &["tc", "-s", "filter", "show", "dev", "port1", "egress"]);
    block_on(async {
        let request = Request { id: "run/1".to_owned(), args, target, seed: 3 };
        let change = TBF.injector().prepare(&env(), &request).await.unwrap();
        TBF.injector().apply(&env(), &change).await.unwrap();
        ping(2);
        assert!(hit().contains(" 0 pkt"), "{}", hit());
        ping(1);
        assert!(hit().contains(" 3 pkt"), "{}", hit());
        restore(&env(), &change).await.unwrap();
    });
    assert!(!hit().contains("Redirect"), "{}", hit());
}

#[test]
fn disjoint_addresses_of_this_side_are_disjoint_aims_and_others_are_refused() {
    let Some(net) = furnished("disjoint addresses of this side") else { return };
    let before = net.picture();
    block_on(async {
        let one = TBF.made(&net, "run/1", &[("from", "10.77.0.1")]).await;
        let two = TBF.made(&net, "other/1", &[("from", "10.77.0.11")]).await;
        assert_eq!(net.picture().matches("Egress Redirect").count(), 2);
        let request = TBF.request(&net, "third/1", &[("from", "10.77.0.0/24")]);
        let refused = TBF.injector().prepare(&env(), &request).await.unwrap_err().to_string();
        assert!(refused.contains("already carries faults of other packets"), "{refused}");
        assert!(refused.contains("`from`"), "the way out is named: {refused}");
        restore(&env(), &one).await.unwrap();
        assert_eq!(net.picture().matches("Egress Redirect").count(), 1);
        restore(&env(), &two).await.unwrap();
    });
    assert_eq!(net.picture(), before);
}

#[test]
fn the_loopback_and_ipv6_are_proven_by_packets_of_our_own() {
    let Some(net) = furnished("the loopback of a namespace") else { return };
    let _turn = turns(1);
    let home = Home::new();
    for aim in [
        &["--interface", "lo"][..],
        &["--to", "127.0.0.1", "--direction", "in"],
        &["--to", "::1", "--direction", "both"],
        &["--to", "fd77::2"],
    ] {
        if aim[1].contains(':') && !net.has_six() {
            skipped("IPv6 packets: this kernel has none");
            continue;
        }
        for case in cases() {
            let done = home.squall(&words(&case.typed(&net, &[aim, &["--for", "1200ms"]].concat()))).code(0);
            assert!(done.out.contains("confirmed (requested"), "{case:?} {aim:?}: {}", done.out);
        }
    }
}

#[test]
fn two_disjoint_aims_on_one_interface_and_way_go_one_by_one_in_any_order() {
    let Some(net) = furnished("two disjoint aims") else { return };
    let before = net.picture();
    let aims = [("to", "10.77.0.2"), ("to", "10.77.0.3")];
    for first in [0, 1] {
        block_on(async {
            let alive =
                [TBF.made(&net, "run/1", &aims[..1]).await, TBF.made(&net, "other/1", &aims[1..]).await];
            assert_eq!(net.picture().matches("Egress Redirect").count(), 2);
            restore(&env(), &alive[first]).await.unwrap();
            let between = net.picture();
            let left = if first == 0 { "rate=other/1" } else { "rate=run/1" };
            assert!(between.contains(left) && between.matches("rate=").count() == 1, "{between}");
            assert!(between.contains("clsact"), "{between}");
            assert_eq!(restore(&env(), &alive[first]).await.unwrap(), Undone::NothingToDo);
            assert_eq!(net.picture(), between);
            restore(&env(), &alive[1 - first]).await.unwrap();
        });
        assert_eq!(net.picture(), before, "first: {first}");
    }
}

#[test]
fn a_second_rate_of_the_same_packets_or_of_others_that_could_be_the_same_is_refused() {
    let Some(net) = furnished("crossing aims") else { return };
    block_on(async {
        let change = TBF.made(&net, "run/1", &[]).await;
        let injector = TBF.injector();
        let again = |more: &[(&'static str, &str)]| {
            let request = TBF.request(&net, "other/1", more);
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
fn the_filter_of_a_name_is_widened_in_place_and_goes_on_counting() {
    if std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 0)).is_err() {
        skipped("a name whose addresses change: this host does not know localhost (/etc/hosts)");
        return;
    }
    let Some(net) = furnished("a name whose addresses change") else { return };
    let before = net.picture();
    block_on(async {
        let injector = TBF.injector();
        let mut change = TBF.made(&net, "run/1", &[("to", "10.77.0.2")]).await;
        net.near("busybox", &["ping", "-q", "-c", "3", "-i", "0.1", "10.77.0.2"]);
        // As if this name had meant that address.
        change.apply["names"] = serde_json::json!(["localhost"]);
        injector.renew(&env(), &change, Duration::from_secs(5)).await.unwrap();
        let links = net.near("ip", &["-o", "link"]);
        assert!(links.contains("127.0.0.1") && links.contains("10.77.0.2"), "{links}");
        let filters = net.near("tc", &["-s", "filter", "show", "dev", "near", "egress"]);
        assert!(filters.contains(" 3 pkt"), "{filters}");
        restore(&env(), &change).await.unwrap();
        assert_eq!(net.picture(), before);
        injector.renew(&env(), &change, Duration::from_secs(5)).await.unwrap();
        assert_eq!(net.picture(), before);
        // Names are asked for in the namespace that is meant; there, localhost is the loopback.
        let named = TBF.request(&net, "run/2", &[("interface", ""), ("to", "localhost")]);
        let change = injector.prepare(&env(), &named).await.unwrap();
        injector.apply(&env(), &change).await.unwrap();
        assert!(net.near("tc", &["filter", "show", "dev", "lo", "egress"]).contains("Egress Redirect"));
        restore(&env(), &change).await.unwrap();
        let unknown = TBF.request(&net, "run/2", &[("to", "no.invalid")]);
        let error = injector.prepare(&env(), &unknown).await.unwrap_err().to_string();
        assert!(error.contains("no address is found for no.invalid"), "{error}");
    });
    assert_eq!(net.picture(), before);
}

#[test]
fn a_namespace_that_is_named_alone_means_its_only_interface() {
    let Some(net) = furnished("the only interface of a namespace") else { return };
    let home = Home::new();
    let before = net.picture();
    let args = ["inject", "network-rate", "--netns", &net.name, "--rate", "2mbit", "--by", "tbf", "--for"];
    let mut going = home.start(&[&args[..], &["3s"]].concat());
    going.says("by tbf", PATIENCE);
    assert_ne!(net.picture(), before);
    going.end();
    assert_eq!(net.picture(), before);
    net.near("ip", &["link", "add", "second", "type", "ifb"]);
    let done = home.squall(&[&args[..], &["1s"]].concat()).code(3);
    assert!(done.err.contains("several interfaces") && done.err.contains("second"), "{done:?}");
    let done =
        home.squall(&["inject", "network-rate", "--rate", "2mbit", "--by", "tbf", "--for", "1s"]).code(2);
    assert!(done.err.contains("aimed at nothing"), "{done:?}");
}

#[test]
fn an_interface_that_a_route_has_found_is_named_in_plans_summaries_results_and_refusals() {
    let Some(net) = furnished("the name of an interface that is found") else { return };
    let home = Home::new();
    let name = net.name.as_str();
    let faults = format!("network-rate: {{netns: {name}, to: 10.77.0.2, rate: 2mbit, by: tbf}}");
    let text = format!(
        "squall: v1\nexperiment: found\nquestion: Is it named?\nload:\n  - a: {{open: {{url: \"http://127.0.0.1:1/\", \
         arrivals: [{{hold: {{rate: 1/s, for: 15s}}}}]}}}}\nobjectives:\n  - a: {{availability: \">= 1%\"}}\n\
         timeline:\n  - {{at: 6s, for: 1s, faults: [{{{faults}}}]}}\n"
    );
    let file = home.file("found.yaml", &text);
    let named = format!("network-rate on near in netns {name} to 10.77.0.2");
    let plan = home.squall(&["plan", file.to_str().unwrap()]).code(0);
    assert!(plan.out.contains(&named) && !plan.out.contains("the interface in"), "{}", plan.out);
    let rate =
        ["inject", "network-rate", "--netns", name, "--to", "10.77.0.2", "--rate", "2mbit", "--by", "tbf"];
    let mut going = home.start(&[&rate[..], &["--for", "4s"]].concat());
    going.says(&named, PATIENCE);
    let again = Home::new().squall(&[&rate[..], &["--for", "1s"]].concat()).code(3);
    assert!(again.err.contains("these packets of near already have the rate of"), "{}", again.err);
    let listed = home.squall(&["recover", "--list"]);
    let done = going.end();
    assert!(done.out.starts_with(&named), "{}", done.out);
    assert!(
        !listed.out.contains("the interface in") && !listed.err.contains("the interface in"),
        "{listed:?}"
    );
    // A route that leads nowhere has no name to tell.
    net.near("ip", &["link", "set", "near", "down"]);
    let plan = home.squall(&["plan", file.to_str().unwrap()]).code(0);
    assert!(plan.out.contains(&format!("the interface in netns {name} to 10.77.0.2")), "{}", plan.out);
}

#[test]
fn packets_to_an_instance_of_the_lab_are_hit_by_its_port_alone_and_a_relay_serves_if_it_may() {
    let Some(_net) = Net::new("packets to an instance") else { return };
    let _turn = turns(1);
    let home = Home::new();
    let lab = Lab::up(&home);
    let show = |args: &[&str]| {
        let done = std::process::Command::new("tc").args(args).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    let before = show(&["qdisc", "show", "dev", "lo"]);
    let rate = ["inject", "network-rate", "--service", "catalog", "--pick", "all", "--rate", "8mbit"];
    let going = home.start(&[&rate[..], &["--by", "tbf", "--direction", "both", "--for", "2s"]].concat());
    let count = |hook: &str| show(&["filter", "show", "dev", "lo", hook]).matches("Egress Redirect").count();
    let (began, mut most) = (std::time::Instant::now(), [0, 0]);
    // Nothing may fail before the end: this is the host's own loopback.
    while began.elapsed() < PATIENCE && most != [2, 2] {
        most = [most[0].max(count("egress")), most[1].max(count("ingress"))];
    }
    let done = going.end().code(6);
    assert_eq!(most, [2, 2], "{done:?}");
    assert!(done.out.contains("packets to and from catalog-1"), "{}", done.out);
    assert_eq!(show(&["qdisc", "show", "dev", "lo"]), before);
    // On a kernel with netem it is the kernel's, elsewhere the relay's; both are felt.
    let delay = ["inject", "network-delay", "--instance", "auth-1", "--delay", "20ms", "--for", "1200ms"];
    let mut going = home.start(&[&delay[..], &["--fallback", "relay"]].concat());
    going.says("network-delay on packets to auth-1", PATIENCE);
    for _ in 0..20 {
        let _ = get(&lab.address, "/checkout", Duration::from_secs(1));
    }
    let done = going.end();
    // How exact a relay is on a busy host is no matter of this test.
    let felt = done.out.contains("by relay-latency: +") || done.out.contains("confirmed");
    assert!(felt && done.out.contains("undo: restored"), "{}", done.out);
    lab.down(&home);
}

#[test]
fn loss_falls_back_to_nftables_where_it_may_and_says_why() {
    let Some(net) = Net::new("loss without netem") else { return };
    let home = Home::new();
    let before = net.picture();
    let loss = ["inject", "network-loss", "--netns", &net.name, "--to", "10.77.0.2", "--share", "100%"];
    let more = ["--fallback", "relay", "--for", "2s"];
    let mut going = home.start(&[&loss[..], &more].concat());
    going.says("network-loss on", PATIENCE);
    // On a kernel with netem nothing has to serve for it.
    let _ = net.try_near("busybox", &["ping", "-q", "-c", "3", "-i", "0.2", "-W", "1", "10.77.0.2"]);
    let done = going.end().code(0);
    assert!(done.out.contains("confirmed"), "{done:?}");
    let features = block_on(Kernel.features()).unwrap();
    if features.iter().any(|one| one.name == "netem" && one.lack.is_some()) {
        assert!(done.err.contains("nft serves, as this kernel has no sch_netem"), "{done:?}");
    }
    assert_eq!(net.picture(), before);
    home.assert_nothing_left();
}
