//! The life of a relay: its leases, its parent, its end.

use std::time::{Duration, Instant};

use injectors::relay::{self, Relay};
use injectors::sys::control::{Control, ControlError, Sockets};
use injectors::target::{self, Protocol};
use injectors::units::Span;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Bench, PATIENCE, Upstream, config, echo, until};

fn blackhole(lease_s: f64) -> Value {
    let fault = json!({"kind": "blackhole", "direction": "both"});
    json!({"op": "add", "route": "r", "id": "x", "fault": fault, "lease_s": lease_s, "seed": 1})
}

#[tokio::test]
async fn a_fault_that_nobody_renews_ends_by_itself() {
    let bench = Bench::new(Upstream::Echo).await;
    let mut client = bench.connect().await;
    echo(&mut client, b"ready").await;
    let start = Instant::now();
    bench.call(blackhole(0.4)).await.unwrap();
    echo(&mut client, b"waits for the lease").await;
    let time = start.elapsed();
    assert!(time >= Duration::from_millis(390) && time < Duration::from_millis(700), "{time:?}");
    let late = bench.call(json!({"op": "renew", "id": "x", "lease_s": 1.0})).await;
    assert!(matches!(late, Err(ControlError::Refused(why)) if why.contains("expired")));
    let answer = bench.call(json!({"op": "clear", "id": "x"})).await.unwrap();
    assert_eq!(answer["cleared"], false);
    assert_eq!(answer["observation"]["held_connections"], 1);
}

#[tokio::test]
async fn renewing_keeps_a_fault_alive() {
    let bench = Bench::new(Upstream::Echo).await;
    bench.call(blackhole(0.3)).await.unwrap();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bench.call(json!({"op": "renew", "id": "x", "lease_s": 0.3})).await.unwrap();
    }
    assert_eq!(bench.route().await["faults"][0]["id"], "x");
    assert_eq!(bench.call(json!({"op": "observe", "id": "x"})).await.unwrap()["active"], true);
}

#[tokio::test]
async fn nonsense_is_refused_with_a_reason_and_changes_nothing() {
    let bench = Bench::new(Upstream::Echo).await;
    for (request, word) in [
        (json!({"op": "explode"}), "request"),
        (
            json!({"op": "add", "route": "other", "id": "x", "fault": {"kind": "refuse"}, "lease_s": 1}),
            "route",
        ),
        (json!({"op": "add", "route": "r", "id": "x", "fault": {"kind": "refuse"}, "lease_s": -1}), "lease"),
        (
            json!({"op": "add", "route": "r", "id": "x", "fault": {"kind": "http-delay", "delay": 1}, "lease_s": 1}),
            "http",
        ),
        (json!({"op": "observe", "id": "x"}), "no fault"),
    ] {
        let Err(ControlError::Refused(why)) = bench.call(request.clone()).await else {
            panic!("{request} passed");
        };
        assert!(why.contains(word), "{why}");
    }
    assert_eq!(bench.route().await["faults"], json!([]));
}

#[tokio::test]
async fn a_relay_that_cannot_bind_says_which_route() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&dir, taken.local_addr().unwrap(), Protocol::Tcp);
    config.routes[0].listen = taken.local_addr().unwrap().to_string();
    let error = Relay::bind(&config).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("route `r`"), "{error}");
}

/// Runs the process's main function here: its standard input, and what it said, and its outcome.
async fn start(config: &relay::RelayConfig) -> (tokio::io::DuplexStream, target::Relay, Running) {
    let (mut stdin, remote) = tokio::io::duplex(4096);
    let mut line = serde_json::to_vec(config).unwrap();
    line.push(b'\n');
    stdin.write_all(&line).await.unwrap();
    let said = Said::default();
    let heard = said.clone();
    let task = tokio::spawn(async move { relay::main(remote, said).await });
    until("it has said where it listens", || async { heard.0.lock().unwrap().ends_with(b"\n") }).await;
    let entries: Vec<target::Relay> = serde_json::from_slice(&heard.0.lock().unwrap()).unwrap();
    (stdin, entries[0].clone(), task)
}

type Running = tokio::task::JoinHandle<std::io::Result<()>>;

#[derive(Debug, Clone, Default)]
struct Said(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn when_its_parent_dies_a_relay_heals_carries_on_and_ends_with_its_connections() {
    let bench = Bench::new(Upstream::Echo).await;
    let dir = tempfile::tempdir().unwrap();
    let (stdin, entry, task) = start(&config(&dir, bench.addr, Protocol::Tcp)).await;
    let mut client = TcpStream::connect(&entry.listen).await.unwrap();
    echo(&mut client, b"ready").await;
    Sockets.call(&entry.control, &blackhole(60.0)).await.unwrap();
    drop(stdin);
    echo(&mut client, b"healed").await;
    assert!(Sockets.call(&entry.control, &blackhole(60.0)).await.is_err(), "it took another fault");
    let mut new = TcpStream::connect(&entry.listen).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    echo(&mut new, b"carried on").await;
    assert!(!task.is_finished());
    drop((client, new));
    tokio::time::timeout(PATIENCE, task).await.expect("it never ends").unwrap().unwrap();
    assert!(!entry.control.exists());
}

#[tokio::test]
async fn after_its_parent_a_relay_lives_no_longer_than_its_linger() {
    let bench = Bench::new(Upstream::Echo).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir, bench.addr, Protocol::Tcp);
    config.linger = Span(Duration::from_millis(300));
    let (stdin, entry, task) = start(&config).await;
    let mut client = TcpStream::connect(&entry.listen).await.unwrap();
    echo(&mut client, b"ready").await;
    drop(stdin);
    let start = Instant::now();
    tokio::time::timeout(PATIENCE, task).await.expect("it never ends").unwrap().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(280) && start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_standing_relay_outlives_its_input_and_ends_when_told_to() {
    let bench = Bench::new(Upstream::Echo).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir, bench.addr, Protocol::Tcp);
    config.parent = false;
    let (stdin, entry, task) = start(&config).await;
    drop(stdin);
    tokio::time::sleep(Duration::from_millis(200)).await;
    echo(&mut TcpStream::connect(&entry.listen).await.unwrap(), b"still there").await;
    Sockets.call(&entry.control, &json!({"op": "stop"})).await.unwrap();
    tokio::time::timeout(PATIENCE, task).await.expect("it never ends").unwrap().unwrap();
    assert!(matches!(Sockets.call(&entry.control, &json!({"op": "list"})).await, Err(ControlError::Gone(_))));
}
