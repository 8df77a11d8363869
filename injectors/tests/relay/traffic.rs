//! A relay without faults is a cable: bytes, closes and resets arrive as they would without it.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;

use injectors::target::Protocol;
use proptest::prelude::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::harness::{Bench, PATIENCE, Upstream, bytes, echo, read_all, until};

#[tokio::test]
async fn closing_one_way_leaves_the_other_open() {
    for protocol in [Protocol::Tcp, Protocol::Http] {
        let bench = Bench::with(protocol, Upstream::Count).await;
        let mut client = bench.connect().await;
        client.write_all(&vec![b'x'; 100_000]).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await.unwrap(), b"100000");
    }
}

#[tokio::test]
async fn a_reset_of_the_server_arrives_as_a_reset() {
    let bench = Bench::new(Upstream::Reset).await;
    let mut client = bench.connect().await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(read_all(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_of_the_client_arrives_as_a_reset() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = Bench::before(listener.local_addr().unwrap(), Protocol::Tcp);
    let mut client = bench.connect().await;
    client.write_all(b"x").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(read_all(&mut server).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn without_an_upstream_the_client_gets_a_reset() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    drop(listener);
    let bench = Bench::before(upstream, Protocol::Tcp);
    let mut client = bench.connect().await;
    assert_eq!(read_all(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_upstream_that_never_accepts_does_not_hold_up_other_routes_or_the_control_socket() {
    // A listener whose queue is full drops further handshakes.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut queued = Vec::new();
    let full = listener.local_addr().unwrap();
    for _ in 0..600 {
        let dial = tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(full));
        match dial.await {
            Ok(Ok(stream)) => queued.push(stream),
            _ => break,
        }
    }
    let bench = Bench::before(full, Protocol::Tcp);
    let _waiting: Vec<_> =
        [bench.connect().await, bench.connect().await, bench.connect().await].into_iter().collect();
    until("all three are accepted", || async { bench.route().await["connections"] == 3 }).await;
}

#[tokio::test]
async fn a_thousand_connections_live_at_once_and_survive_a_fault_that_comes_and_goes() {
    let bench = Bench::new(Upstream::Echo).await;
    let mut clients = JoinSet::new();
    for n in 0..1000 {
        let mut client = bench.connect().await;
        clients.spawn(async move {
            for round in 0..5 {
                echo(&mut client, format!("{n} {round}").as_bytes()).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            client
        });
    }
    until("all are there", || async { bench.route().await["connections"] == 1000 }).await;
    bench.add("x", json!({"kind": "latency", "direction": "down", "delay": 0.05})).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let seen = bench.clear("x").await;
    assert_eq!((seen.connections_seen, seen.connections_affected), (1000, 1000));
    let clients = tokio::time::timeout(PATIENCE, clients.join_all()).await.unwrap();
    assert_eq!(bench.accepted.load(Ordering::Relaxed), 1000);
    drop(clients);
    until("all are gone", || async { bench.route().await["connections"] == 0 }).await;
}

/// Sends all and reads the echo at the same time.
async fn round_trip(bench: &Bench, message: Vec<u8>, step: usize) -> Vec<u8> {
    let (mut read, mut write) = bench.connect().await.into_split();
    let sending = tokio::spawn(async move {
        for part in message.chunks(step) {
            write.write_all(part).await.unwrap();
        }
        write.shutdown().await.unwrap();
        write
    });
    let mut back = Vec::new();
    tokio::time::timeout(PATIENCE, read.read_to_end(&mut back)).await.expect("the end never came").unwrap();
    sending.await.unwrap();
    back
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_arrive_unchanged_and_in_order(
        length in 0usize..300_000,
        step in 1usize..100_000,
        http: bool,
        kind in 0usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let protocol = if http { Protocol::Http } else { Protocol::Tcp };
            let bench = Bench::with(protocol, Upstream::Echo).await;
            match kind {
                1 => {
                    let jitter = json!({"kind": "latency", "direction": "both", "delay": 0.01, "jitter": 0.01});
                    bench.add("x", jitter).await;
                }
                2 => {
                    let slice = json!({
                        "kind": "slice", "direction": "both", "size": 5000, "variation": 4000, "delay": 0,
                    });
                    bench.add("x", slice).await;
                }
                3 => bench.add("x", json!({"kind": "bandwidth", "direction": "both", "rate": 2e6})).await,
                _ => {}
            }
            // Small steps of long messages only test the patience.
            let message = bytes(length);
            let back = round_trip(&bench, message.clone(), step.max(length / 200 + 1)).await;
            assert!(back == message, "{} of {} bytes came back", back.len(), message.len());
        });
    }
}
