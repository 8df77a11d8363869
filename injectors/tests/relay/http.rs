//! HTTP faults between a real client socket and a real server.

use std::time::{Duration, Instant};

use injectors::target::Protocol;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Bench, PATIENCE, read_all};

const GET: &[u8] = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n";

/// A server that answers each request with 100 bytes; returns the relay before it.
async fn bench() -> Bench {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = Bench::before(listener.local_addr().unwrap(), Protocol::Http);
    tokio::spawn(async move {
        let mut peers = tokio::task::JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            peers.spawn(async move {
                let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                    got.extend_from_slice(&buffer[..read]);
                    while let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
                        got.drain(..end + 4);
                        let answer =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}", "b".repeat(100));
                        let _ = socket.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    bench
}

/// Sends a request and reads the head and 100 bytes, or less if the head says so.
async fn get(client: &mut TcpStream) -> String {
    client.write_all(GET).await.unwrap();
    let mut got = Vec::new();
    let read = async {
        loop {
            let text = String::from_utf8_lossy(&got).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
                if body.len() >= length.parse::<usize>().unwrap() {
                    return text;
                }
            }
            let mut part = [0; 4096];
            let read = client.read(&mut part).await.unwrap();
            assert!(read > 0, "closed after {text:?}");
            got.extend_from_slice(&part[..read]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("no answer")
}

#[tokio::test]
async fn an_abort_answers_a_share_of_requests_and_keeps_the_connection() {
    let bench = bench().await;
    let mut client = bench.connect().await;
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));
    bench.add("x", json!({"kind": "http-abort", "status": 503, "share": 0.4})).await;
    let mut aborted = 0;
    for _ in 0..300 {
        aborted += u64::from(get(&mut client).await.starts_with("HTTP/1.1 503"));
    }
    let seen = bench.clear("x").await;
    assert_eq!((seen.eligible, seen.hit), (300, aborted));
    assert!((90..=150).contains(&aborted), "{aborted} of 300");
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_delay_holds_requests_and_lets_go_of_them_when_it_ends() {
    let bench = bench().await;
    let mut client = bench.connect().await;
    bench.add("x", json!({"kind": "http-delay", "delay": 0.05})).await;
    for _ in 0..5 {
        let start = Instant::now();
        get(&mut client).await;
        let time = start.elapsed();
        assert!(time >= Duration::from_millis(50) && time < Duration::from_millis(500), "{time:?}");
    }
    let seen = bench.clear("x").await;
    assert_eq!(seen.delays.samples, 5);
    assert!((seen.delays.p50 - 0.05).abs() < 0.02);
    bench.add("y", json!({"kind": "http-delay", "delay": 60})).await;
    let waiting = tokio::spawn(async move { get(&mut client).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    bench.clear("y").await;
    let answer = tokio::time::timeout(Duration::from_secs(1), waiting).await.expect("still held").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_truncated_response_ends_with_an_orderly_close() {
    let bench = bench().await;
    bench.add("x", json!({"kind": "http-truncate", "bytes": 30, "share": 1})).await;
    let mut client = bench.connect().await;
    // The second request is never answered; its bytes must not turn the close into a reset.
    client.write_all(&[GET, GET].concat()).await.unwrap();
    let got = String::from_utf8(read_all(&mut client).await.unwrap()).unwrap();
    assert!(got.ends_with(&format!("\r\n\r\n{}", "b".repeat(30))), "{got}");
    assert_eq!(bench.clear("x").await.hit, 1);
}

#[tokio::test]
async fn headers_are_edited_on_the_way_back() {
    let bench = bench().await;
    let fault = json!({"kind": "http-header", "on": "response", "set": {"Retry-After": "9"}, "match": {"path": "/x"}});
    bench.add("x", fault).await;
    let mut client = bench.connect().await;
    assert!(get(&mut client).await.contains("\r\nRetry-After: 9\r\n"));
    bench.clear("x").await;
    assert!(!get(&mut client).await.contains("Retry-After"));
}
