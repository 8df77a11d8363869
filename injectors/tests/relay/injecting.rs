//! The relay faults as injectors: prepared, applied, proven, renewed, undone.

use std::collections::BTreeMap;

use injectors::about::{Args, ParamKind, Presence, Value};
use injectors::change::{Change, Proof, ProofStatus, Undone};
use injectors::target::{Instance, Inventory, Protocol, Target};
use injectors::{Env, Injector, Request, registry};
use serde_json::json;

use crate::harness::{Bench, Upstream, echo, read_all};

/// The parameters as a user writes them, with the defaults filled in.
fn args(injector: &dyn Injector, written: &[(&str, &str)]) -> Args {
    let mut args = BTreeMap::new();
    for param in injector.about().params {
        let text = written.iter().find(|(name, _)| *name == param.name).map(|(_, text)| *text);
        let default = if let Presence::Default(text) = param.presence { Some(text) } else { None };
        let Some(text) = text.or(default) else { continue };
        let value = match param.kind {
            ParamKind::Map => Value::Map(BTreeMap::from([("x-a".to_owned(), text.to_owned())])),
            kind => kind.parse(text).unwrap(),
        };
        args.insert(param.name.to_owned(), value);
    }
    Args(args)
}

fn env(bench: &Bench) -> Env {
    let instance = Instance {
        service: "auth".to_owned(),
        name: "auth-1".to_owned(),
        pop: None,
        addr: bench.relay.upstream.clone(),
        process: None,
        supervisor: "/nowhere".into(),
        relay: Some("r".to_owned()),
    };
    Env::host(Inventory { instances: vec![instance], relays: vec![bench.relay.clone()], balancer: None })
}

fn request(injector: &dyn Injector, id: &str, written: &[(&str, &str)]) -> Request {
    let target = Target::Instance { service: "auth".to_owned(), instance: "auth-1".to_owned() };
    Request { id: id.to_owned(), args: args(injector, written), target, seed: 5 }
}

/// A small but valid set of parameters of each fault.
fn written(name: &str) -> &'static [(&'static str, &'static str)] {
    match name {
        "http-abort" => &[("status", "503"), ("share", "50%")],
        "http-delay" | "relay-latency" | "relay-slow-close" => &[("delay", "20ms")],
        "http-header" => &[("on", "request"), ("set", "1")],
        "http-truncate" => &[("bytes", "1B"), ("share", "50%")],
        "relay-bandwidth" => &[("rate", "8mbit")],
        "relay-limit-data" => &[("bytes", "100B")],
        "relay-reset" => &[("share", "50%"), ("after", "1MiB")],
        "relay-slice" => &[("size", "10B"), ("delay", "1ms")],
        _ => &[],
    }
}

fn relay_faults() -> impl Iterator<Item = &'static dyn Injector> {
    let ours = |name: &str| name.starts_with("relay-") || name.starts_with("http-");
    registry::INJECTORS.iter().copied().filter(move |injector| ours(injector.about().name))
}

#[tokio::test]
async fn every_relay_fault_goes_through_its_whole_life_and_leaves_no_trace() {
    let bench = Bench::with(Protocol::Http, Upstream::Echo).await;
    let env = env(&bench);
    let mut lived = 0;
    for injector in relay_faults() {
        let name = injector.about().name;
        let request = request(injector, "run/1", written(name));
        injector.check(&request.args, &request.target).unwrap();
        let change = injector.prepare(&env, &request).await.unwrap();
        assert_eq!(bench.route().await["faults"], json!([]), "{name}: prepare wrote");
        assert!(!change.claims.is_empty() && change.manual.contains("3 s"), "{name}");
        // Undo needs the record alone, and tolerates that apply never ran.
        let blind = Env::host(Inventory::default());
        let change: Change = serde_json::from_str(&serde_json::to_string(&change).unwrap()).unwrap();
        assert_eq!(injector.undo(&blind, &change.undo).await.unwrap(), Undone::NothingToDo, "{name}");

        injector.apply(&env, &change).await.unwrap();
        injector.renew(&blind, &change, std::time::Duration::from_secs(1)).await.unwrap();
        let during = injector.picture(&blind, &change.undo).await.unwrap();
        assert_ne!(during, change.picture, "{name}: the picture does not show the fault");
        let again = injector.prepare(&env, &Request { id: "run/2".to_owned(), ..request.clone() }).await;
        assert!(again.unwrap_err().to_string().contains("already carries"), "{name}");

        assert_eq!(injector.undo(&blind, &change.undo).await.unwrap(), Undone::Reverted, "{name}");
        assert_eq!(injector.undo(&blind, &change.undo).await.unwrap(), Undone::NothingToDo, "{name}");
        assert_eq!(injector.picture(&blind, &change.undo).await.unwrap(), change.picture, "{name}");
        assert!(injector.renew(&blind, &change, std::time::Duration::ZERO).await.is_err(), "{name}");
        lived += 1;
    }
    assert_eq!(lived, 12);
}

#[tokio::test]
async fn without_traffic_nothing_is_proven() {
    let bench = Bench::with(Protocol::Http, Upstream::Echo).await;
    let env = env(&bench);
    for injector in relay_faults() {
        let name = injector.about().name;
        let change = injector.prepare(&env, &request(injector, "run/1", written(name))).await.unwrap();
        injector.apply(&env, &change).await.unwrap();
        let proof = injector.observe(&env, &change).await.unwrap();
        assert_eq!(proof.status, ProofStatus::Unproven, "{name}: {proof:?}");
        assert!(!proof.measured.is_empty() && !proof.requested.is_empty(), "{name}");
        injector.undo(&env, &change.undo).await.unwrap();
    }
}

/// Tries until the fault is confirmed. A host that stalls the relay makes a delay longer than requested, and the
/// proof rightly says so; it does not do that each time.
async fn confirmed<F: Future<Output = Proof>>(name: &str, attempt: impl Fn() -> F) -> Proof {
    let mut others = Vec::new();
    for _ in 0..5 {
        let proof = attempt().await;
        if proof.status == ProofStatus::Confirmed {
            return proof;
        }
        others.push(proof);
    }
    panic!("{name}: {others:?}");
}

#[tokio::test]
async fn traffic_proves_latency_and_the_proof_outlives_the_fault() {
    let attempt = || async {
        let bench = Bench::new(Upstream::Echo).await;
        let (env, injector) = (env(&bench), registry::find("relay-latency").unwrap());
        let request = request(injector, "run/1", &[("delay", "50ms"), ("jitter", "5ms")]);
        let change = injector.prepare(&env, &request).await.unwrap();
        injector.apply(&env, &change).await.unwrap();
        let mut client = bench.connect().await;
        for _ in 0..20 {
            echo(&mut client, b"ping").await;
        }
        injector.undo(&env, &change.undo).await.unwrap();
        injector.observe(&env, &change).await.unwrap()
    };
    assert_eq!(confirmed("relay-latency", attempt).await.samples, 20);
}

#[tokio::test]
async fn traffic_proves_bandwidth_blackhole_reset_slice_limit_and_slow_close() {
    for (name, written) in [
        ("relay-bandwidth", &[("rate", "8mbit")][..]),
        ("relay-blackhole", &[("direction", "down")]),
        ("relay-reset", &[("share", "100%")]),
        ("relay-slice", &[("size", "30kB"), ("delay", "20ms")]),
        ("relay-limit-data", &[("bytes", "1kB")]),
        ("relay-slow-close", &[("delay", "200ms")]),
    ] {
        let attempt = || async {
            let bench = Bench::new(Upstream::Send(300_000)).await;
            let (env, injector) = (env(&bench), registry::find(name).unwrap());
            let change = injector.prepare(&env, &request(injector, "run/1", written)).await.unwrap();
            injector.apply(&env, &change).await.unwrap();
            let mut client = bench.connect().await;
            if name == "relay-blackhole" {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            } else {
                let _ = read_all(&mut client).await;
            }
            injector.observe(&env, &change).await.unwrap()
        };
        confirmed(name, attempt).await;
    }
}

#[tokio::test]
async fn clients_that_come_before_and_are_refused_prove_a_refusal() {
    let bench = Bench::new(Upstream::Echo).await;
    let (env, injector) = (env(&bench), registry::find("relay-refuse").unwrap());
    let change = injector.prepare(&env, &request(injector, "run/1", &[])).await.unwrap();
    for _ in 0..3 {
        echo(&mut bench.connect().await, b"before").await;
    }
    injector.apply(&env, &change).await.unwrap();
    for _ in 0..5 {
        tokio::net::TcpStream::connect(bench.addr).await.unwrap_err();
    }
    let proof = injector.observe(&env, &change).await.unwrap();
    assert_eq!(proof.status, ProofStatus::Confirmed, "{proof:?}");
    assert!(proof.measured.contains("; 3 clients had connected in the 10 s before"), "{proof:?}");
    injector.undo(&env, &change.undo).await.unwrap();
}

#[tokio::test]
async fn a_relay_that_is_gone_took_its_faults_along() {
    let bench = Bench::new(Upstream::Echo).await;
    let (env, injector) = (env(&bench), registry::find("relay-blackhole").unwrap());
    let change = injector.prepare(&env, &request(injector, "run/1", &[])).await.unwrap();
    injector.apply(&env, &change).await.unwrap();
    bench.call(json!({"op": "stop"})).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(injector.undo(&env, &change.undo).await.unwrap(), Undone::NothingToDo);
    assert_eq!(injector.picture(&env, &change.undo).await.unwrap(), json!({"gone": true}));
    assert_eq!(injector.observe(&env, &change).await.unwrap().status, ProofStatus::Unproven);
    assert!(injector.prepare(&env, &request(injector, "run/2", &[])).await.is_err());
}

#[tokio::test]
async fn what_cannot_be_is_refused_while_nothing_has_been_touched() {
    let bench = Bench::new(Upstream::Echo).await;
    let mut env = env(&bench);
    let abort = registry::find("http-abort").unwrap();
    let error = abort.prepare(&env, &request(abort, "run/1", written("http-abort"))).await.unwrap_err();
    assert!(error.to_string().contains("protocol: http"), "{error}");
    let latency = registry::find("relay-latency").unwrap();
    let too_much = args(latency, &[("delay", "10ms"), ("jitter", "20ms")]);
    assert!(latency.check(&too_much, &Target::Nothing).unwrap_err()[0].contains("jitter"));
    env.inventory.instances[0].relay = None;
    let error = latency.prepare(&env, &request(latency, "run/1", &[("delay", "1ms")])).await.unwrap_err();
    assert!(error.to_string().contains("no relay stands in front of auth-1"), "{error}");
}
