//! What the faults of networks obey besides: how they live side by side, and what kernels lack.

use super::*;
use crate::sys::netlink::DESTROY;

#[tokio::test]
async fn two_network_faults_of_one_aim_are_taken_away_in_any_order_and_each_leaves_the_other() {
    let row = |fault: &str| ROWS.iter().find(|row| row.fault == fault).unwrap();
    for late_first in [false, true] {
        let world = World::new();
        let before = world.look();
        let env = world.env(Inventory::default());
        let mut alive = Vec::new();
        for (number, row) in [row("network-loss"), row("network-duplicate")].into_iter().enumerate() {
            let request = Request { id: format!("run/{number}"), ..row.request() };
            let change = row.injector().prepare(&env, &request).await.unwrap();
            row.apply(&env, &change).await.unwrap();
            alive.push(change);
        }
        if late_first {
            alive.reverse();
        }
        for change in &alive {
            assert_eq!(restore(&env, change).await.unwrap(), Undone::Reverted, "{}", change.fault);
            assert_eq!(restore(&env, change).await.unwrap(), Undone::NothingToDo, "{}", change.fault);
        }
        assert_eq!(world.look(), before);
    }
}

#[tokio::test]
async fn a_second_network_fault_of_a_family_or_of_another_aim_is_refused() {
    let world = World::new();
    let env = world.env(Inventory::default());
    let row = |fault: &str| ROWS.iter().find(|row| row.fault == fault).unwrap();
    let (loss, copies) = (row("network-loss"), row("network-duplicate"));
    let change = loss.injector().prepare(&env, &loss.request()).await.unwrap();
    loss.apply(&env, &change).await.unwrap();
    let again = Request { id: "other/1".to_owned(), ..loss.request() };
    let error = loss.injector().prepare(&env, &again).await.unwrap_err().to_string();
    assert!(error.contains("already have the loss of run/1"), "{error}");
    let target = packets_by(&[("interface", INTERFACE), ("to", "10.0.0.2")]);
    let crossing = Request { id: "other/1".to_owned(), target, ..copies.request() };
    let error = copies.injector().prepare(&env, &crossing).await.unwrap_err().to_string();
    assert!(error.contains("one packet could be among both"), "{error}");
}

#[tokio::test]
async fn two_network_faults_of_aims_that_no_packet_fits_at_once_go_in_any_order() {
    for first in [0, 1] {
        let world = World::new();
        let before = world.look();
        let env = world.env(Inventory::default());
        let loss = ROWS.iter().find(|row| row.fault == "network-loss").unwrap();
        let mut alive = Vec::new();
        for (number, to) in ["10.0.0.2", "10.0.0.3"].into_iter().enumerate() {
            let target = packets_by(&[("interface", INTERFACE), ("to", to)]);
            let request = Request { id: format!("run/{number}"), target, ..loss.request() };
            let change = loss.injector().prepare(&env, &request).await.unwrap();
            loss.apply(&env, &change).await.unwrap();
            alive.push(change);
        }
        assert_eq!(restore(&env, &alive[first]).await.unwrap(), Undone::Reverted);
        assert_eq!(restore(&env, &alive[1 - first]).await.unwrap(), Undone::Reverted);
        assert_eq!(world.look(), before);
    }
}

/// Whether a fault refuses where the kernel lacks this, takes what serves if it may, and leaves nothing of it.
async fn serves(fault: &str, args: &[(&str, &str)], target: Target, lacks: &[&'static str], taken: &str) {
    let world = World::new();
    world.lacks(lacks);
    let (env, before) = (world.env(world.inventory()), world.look());
    let row = ROWS.iter().find(|row| row.fault == fault).unwrap();
    let mut request = Request { target, ..row.request() };
    request
        .args
        .0
        .extend(args.iter().map(|(name, text)| ((*name).to_owned(), Arg::Text((*text).to_owned()))));
    let error = row.injector().prepare(&env, &request).await.unwrap_err().to_string();
    let named = if lacks[0] == DESTROY { "CONFIG_INET_DIAG_DESTROY" } else { lacks[0] };
    assert!(error.contains(named) && error.contains("fallback: relay"), "{fault}: {error}");
    request.args.0.insert("fallback".to_owned(), Arg::Text("relay".to_owned()));
    let change = row.injector().prepare(&env, &request).await.unwrap();
    assert_eq!(change.fault, taken, "{fault}");
    assert!(change.summary.contains("serves, as this kernel"), "{}", change.summary);
    let maker = registry::find(taken).unwrap();
    maker.apply(&env, &change).await.unwrap();
    assert_ne!(world.look(), before, "{fault}");
    maker.renew(&env, &change, Duration::from_secs(1)).await.unwrap();
    maker.observe(&env, &change).await.unwrap();
    assert_eq!(restore(&env, &change).await.unwrap(), Undone::Reverted, "{fault}");
    assert_eq!(world.look(), before, "{fault}");
    // No relay stands before everybody, and none knows from which address of this side somebody comes.
    let (wide, some) = (
        [("interface", INTERFACE), ("ports", "443")],
        [("to", "127.0.0.1"), ("from", "127.0.0.1"), ("ports", "1")],
    );
    let wide = if matches!(request.target, Target::Flows(_)) { flows(&wide) } else { packets("out") };
    let some = if matches!(request.target, Target::Flows(_)) { flows(&some) } else { packets_by(&some) };
    for target in [wide, some] {
        request.target = target;
        let wide = row.injector().prepare(&env, &request).await;
        assert_eq!(wide.is_err(), taken != fault, "{fault}: {wide:?}");
        let why = wide.err().map_or_else(String::new, |error| error.to_string());
        assert!(taken == fault || why.contains("no relay"), "{fault}: {why}");
    }
}

fn flows(given: &[(&'static str, &str)]) -> Target {
    let given = given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    Target::Flows(Flows::read(&given).unwrap())
}

#[tokio::test]
async fn what_serves_in_place_of_a_missing_feature_is_taken_only_if_the_experiment_says_so() {
    for (fault, lacks, taken) in [
        ("network-delay", &["netem"][..], "relay-latency"),
        ("network-rate", &["netem"], "network-rate"),
        ("network-rate", &["netem", "tbf"], "relay-bandwidth"),
        ("network-rate", &["ifb"], "relay-bandwidth"),
    ] {
        let target = packets_by(&[("instance", INSTANCE), ("direction", "both")]);
        serves(fault, &[], target, lacks, taken).await;
    }
    for (fault, args, lacks, taken) in [
        ("network-partition", &[][..], "nf_tables", "relay-blackhole"),
        ("network-partition", &[("by", "reset")], "nf_tables", "relay-reset"),
        ("port-block", &[("by", "drop")], "nf_tables", "relay-blackhole"),
        ("port-block", &[("by", "reject")], "nft_reject_inet", "relay-reset"),
        ("connection-reset", &[], DESTROY, "relay-reset"),
    ] {
        let upstream = World::new().inventory().relays[0].upstream.clone();
        let (to, port) = upstream.rsplit_once(':').unwrap();
        serves(fault, args, flows(&[("to", to), ("ports", port)]), &[lacks], taken).await;
    }
}

#[tokio::test]
async fn two_network_faults_on_two_ways_share_the_hooks_until_the_last_one_goes() {
    for first in [0, 1] {
        let world = World::new();
        let before = world.look();
        let env = world.env(Inventory::default());
        let loss = ROWS.iter().find(|row| row.fault == "network-loss").unwrap();
        let mut alive = Vec::new();
        for (number, way) in ["out", "in"].into_iter().enumerate() {
            let request = Request { id: format!("run/{number}"), target: packets(way), ..loss.request() };
            let change = loss.injector().prepare(&env, &request).await.unwrap();
            loss.apply(&env, &change).await.unwrap();
            alive.push(change);
        }
        restore(&env, &alive[first]).await.unwrap();
        restore(&env, &alive[1 - first]).await.unwrap();
        assert_eq!(world.look(), before);
    }
}

#[tokio::test]
async fn a_kernel_that_cannot_cut_is_refused_with_what_to_load_and_what_would_serve() {
    for (fault, lacks, load, serves) in [
        ("network-partition", "nf_tables", "modprobe nf_tables", "relay-blackhole"),
        ("port-block", "nft_reject_inet", "modprobe nft_reject_inet", "relay-reset"),
        ("network-loss", "nft_numgen", "modprobe nft_numgen", "relay-reset"),
        ("connection-reset", "inet_diag_destroy", "CONFIG_INET_DIAG_DESTROY", "by: reset"),
    ] {
        let cuts = |row: &&Row| fault != "network-loss" || row.args.contains(&("by", "nft"));
        let row = ROWS.iter().filter(|row| row.fault == fault).find(cuts).unwrap();
        let world = World::new();
        world.state().network.lacks.push(lacks);
        let env = world.env(world.inventory());
        let error = row.injector().prepare(&env, &row.request()).await.unwrap_err();
        assert!(matches!(error, InjectError::Lack(_)), "{fault}: {error}");
        let error = error.to_string();
        assert!(error.contains(load) && error.contains(serves), "{fault}: {error}");
    }
}
