//! Which flows are cut, and that no others are.

use super::*;
use crate::support::skipped;

/// A TCP connection from an address, tried for a second.
fn opened(from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
    // A child of another test would keep it open, and it would go on.
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(ALONE))?;
    bind(&socket, &from)?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

#[test]
fn a_cut_of_one_address_of_this_side_leaves_the_other_alone() {
    let Some(net) = net("addresses of this side") else { return };
    net.second_addresses();
    let (_server, home) = (net.serve(PORT), Home::new());
    let before = ruleset(&net);
    let opens = |from: &'static str, to: &'static str| net.act(move || opened(at(from), at(to)));
    for more in [&["--to", "10.77.0.2"][..], &["--direction", "in"], &["--direction", "out"]] {
        let args = [&["--from", "10.77.0.8/29", "--for", "60s"], more].concat();
        let mut going = home.start(&partition(&net, &args));
        going.says("from 10.77.0.8/29", SLACK);
        let seen = ["10.77.0.11:0", "10.77.0.1:0"].map(|from| opens(from, "10.77.0.2:7000").is_ok());
        // The packet of our own that proves it comes from there as well.
        crate::support::wait::pass(ALONE);
        going.signal(rustix::process::Signal::INT);
        let done = going.end().code(0);
        assert_eq!(seen, [false, true], "{more:?}");
        let said = if more[0] == "--to" { "before, and now does not answer" } else { "could be tried" };
        assert!(done.out.contains("confirmed") && done.out.contains(said), "{more:?}: {}", done.out);
    }
    assert_eq!(ruleset(&net), before);
    let others = net.serve(PORT + 1);
    let mut open = ["10.77.0.1:0", "10.77.0.11:0"].map(|from| opens(from, "10.77.0.2:7001").unwrap());
    let reset =
        ["inject", "connection-reset", "--netns", &net.name, "--from", "10.77.0.11", "--for", "200ms"];
    let done = home.squall(&[&reset[..], &["--share", "100%"]].concat()).code(0);
    assert!(done.out.contains("requested 1 of 1 connections reset"), "{}", done.out);
    let alive = open.each_mut().map(|stream| {
        stream.set_read_timeout(Some(ALONE)).unwrap();
        stream.write_all(b"?").and_then(|()| uninterrupted(|| stream.read(&mut [0; 4]))).is_ok()
    });
    assert_eq!(alive, [true, false]);
    drop(others);
    home.assert_nothing_left();
}

#[test]
fn what_a_router_passes_on_is_cut_by_the_address_of_its_sender_alone() {
    let Some(cluster) = Cluster::new("packets that are passed on", 3) else { return };
    let [near, far, router] = &cluster.names[..] else { unreachable!("there are three") };
    Cluster::run(near, &["ip", "addr", "add", "10.78.0.11/24", "dev", "eth0"]);
    Cluster::run(near, &["ip", "route", "add", "10.99.0.2", "via", "10.78.0.3"]);
    Cluster::run(far, &["ip", "addr", "add", "10.99.0.2/32", "dev", "eth0"]);
    Cluster::run(router, &["ip", "route", "add", "10.99.0.2", "via", "10.78.0.2"]);
    for setting in ["ip_forward=1", "conf.all.send_redirects=0", "conf.eth0.send_redirects=0"] {
        Cluster::run(router, &["busybox", "sysctl", "-q", "-w", &format!("net.ipv4.{setting}")]);
    }
    let (_server, home) = (serve(far, PORT), Home::new());
    let opens = |from: &'static str| {
        inside(near, move || opened(at(from), at("10.99.0.2:7000")).is_ok()).join().unwrap()
    };
    assert!(opens("10.78.0.1:0") && opens("10.78.0.11:0"), "the router passes it on");
    let args = ["inject", "network-partition", "--netns", router, "--from", "10.78.0.11", "--for", "60s"];
    let mut going = home.start(&args);
    going.says("network-partition on anybody from 10.78.0.11", SLACK);
    let seen = ["10.78.0.1:0", "10.78.0.11:0"].map(opens);
    crate::support::wait::pass(ALONE);
    going.signal(rustix::process::Signal::INT);
    let done = going.end().code(0);
    assert_eq!(seen, [true, false]);
    // None of its own packets comes from there: its counters tell, and it says so.
    let said = done.out.contains("confirmed") && done.out.contains("no packet of our own could be tried");
    assert!(said, "{}", done.out);
    assert!(opens("10.78.0.11:0"));
    home.assert_nothing_left();
}

#[test]
fn the_rules_of_a_name_are_widened_in_one_step_and_go_on_counting() {
    if std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 0)).is_err() {
        skipped("a name whose addresses change: this host does not know localhost (/etc/hosts)");
        return;
    }
    let Some(net) = net("a name that is cut") else { return };
    let _server = serve(&net.name, PORT);
    let before = ruleset(&net);
    let counted = || {
        let ruleset = ruleset(&net);
        let cut = ruleset.split("chain out_cut {").nth(1).unwrap();
        let packets = cut.split("counter packets ").nth(1).unwrap();
        packets.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let local = || net.act(|| connects(at("127.0.0.1:7000")));
    block_on(async {
        let injector = registry::find("network-partition").unwrap();
        let mut change = made(&net, "run/1").await;
        assert_eq!(net.act(|| connects(at("10.77.0.2:7000"))), "TimedOut");
        let (met, open) = (counted(), local());
        assert!(met > 0 && open == "open", "{met} {open}");
        // As if this name had meant that address.
        change.apply["names"] = serde_json::json!(["localhost"]);
        for seconds in [5, 10] {
            injector.renew(&env(), &change, Duration::from_secs(seconds)).await.unwrap();
            let now = ruleset(&net);
            // One rule for each way, however often it is asked for.
            assert_eq!(now.matches("addr 127.0.0.1 goto").count(), 2, "{now}");
            assert_eq!(now.matches("addr 10.77.0.2 goto").count(), 2, "{now}");
        }
        assert_eq!(local(), "TimedOut");
        assert!(counted() > met, "what was counted before is still counted");
        let proof = injector.observe(&env(), &change).await.unwrap();
        assert_eq!(proof.status, injectors::ProofStatus::Confirmed, "{proof:?}");
        restore(&env(), &change).await.unwrap();
        assert_eq!(ruleset(&net), before);
        injector.renew(&env(), &change, Duration::from_secs(15)).await.unwrap_err();
        assert_eq!(ruleset(&net), before);
    });
    assert_eq!(local(), "open");
}

#[test]
fn a_name_is_cut_by_the_addresses_that_it_has_in_the_namespace_that_is_meant() {
    if std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 0)).is_err() {
        skipped("a name that is cut: this host does not know localhost (/etc/hosts)");
        return;
    }
    let Some(net) = net("a name in a namespace") else { return };
    let (_server, home) = (serve(&net.name, PORT), Home::new());
    let before = ruleset(&net);
    let mut going = home.start(&partition(&net, &["--to", "localhost", "--for", "60s"]));
    going.says("network-partition on localhost", SLACK);
    assert_eq!(net.act(|| connects(at("127.0.0.1:7000"))), "TimedOut");
    going.signal(rustix::process::Signal::INT);
    let done = going.end().code(0);
    assert!(done.out.contains("confirmed"), "{}", done.out);
    let lossy = ["inject", "network-loss", "--netns", &net.name, "--to", "localhost", "--by", "nft"];
    let mut going = home.start(&[&lossy[..], &["--share", "100%", "--for", "60s"]].concat());
    going.says("network-loss on", SLACK);
    assert_eq!(net.act(|| connects(at("127.0.0.1:7000"))), "TimedOut");
    going.signal(rustix::process::Signal::INT);
    going.end();
    let block = ["inject", "port-block", "--netns", &net.name, "--to", "no.invalid", "--ports", "7000"];
    let done = home.squall(&[&block[..], &["--for", "1s"]].concat()).code(3);
    assert!(done.err.contains("no address is found for no.invalid"), "{}", done.err);
    let _open = net.act(|| TcpStream::connect("127.0.0.1:7000").unwrap());
    let reset = ["inject", "connection-reset", "--netns", &net.name, "--to", "localhost", "--ports", "7000"];
    let done = home.squall(&[&reset[..], &["--share", "100%", "--for", "200ms"]].concat()).code(0);
    assert!(done.out.contains("requested 1 of 1 connections reset"), "{}", done.out);
    assert_eq!(ruleset(&net), before);
    home.assert_nothing_left();
}

#[test]
fn a_loss_on_a_quiet_network_is_felt_by_packets_of_our_own() {
    let Some(net) = net("a quiet network") else { return };
    let home = Home::new();
    let loss =
        ["inject", "network-loss", "--netns", &net.name, "--by", "nft", "--share", "30%", "--for", "3s"];
    for aim in [&["--to", "10.77.0.2"][..], &["--to", "fd77::2", "--direction", "both"]] {
        let going = home.start(&[&loss[..], aim].concat());
        let done = going.end().code(0);
        assert!(
            done.out.contains("of our own to") && done.out.contains("confirmed"),
            "{aim:?}: {}",
            done.out
        );
    }
    home.assert_nothing_left();
}
