//! The HTTP/3 lane against a server of quinn and h3 that does what a test wants.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use ::h3::error::Code;
use ::h3::server::RequestStream;
use bytes::{Buf, Bytes};
use engine::load::{Body, Expect, HttpVersion, LoadSpec, RequestSpec};
use h3_quinn::BidiStream;
use http::{Request, Response};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, ServerConfig, TransportConfig, VarInt};
use tokio::sync::{mpsc, oneshot};

use super::server::Seen;
use super::{MS, SECOND, baseline, latencies, only_class, run, server_config, spec};

/// What to do about a request.
#[derive(Clone)]
enum Act {
    /// This status and body.
    Answer(u16, Bytes),
    /// A body shorter than it was announced.
    Short,
    /// First that it will take a while, then 200.
    Interim,
    /// Nothing for so long, then 200.
    Wait(Duration),
    /// Say that nothing was done about it.
    Reject,
    /// Break off within the answer.
    Reset,
    /// Close the connection.
    Drop,
    /// Answer, and then no further requests on this connection.
    Leave,
    /// Answer without reading the body.
    Unread,
}

struct Server {
    address: SocketAddr,
    root: String,
    seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
}

type Handler = Arc<dyn Fn(u64, &Request<()>) -> Act + Send + Sync>;

impl Server {
    fn new(handler: impl Fn(u64, &Request<()>) -> Act + Send + Sync + 'static) -> Self {
        Self::with(TransportConfig::default(), handler)
    }

    fn with(
        transport: TransportConfig,
        handler: impl Fn(u64, &Request<()>) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), transport, handler)
    }

    fn at(
        place: SocketAddr,
        transport: TransportConfig,
        handler: impl Fn(u64, &Request<()>) -> Act + Send + Sync + 'static,
    ) -> Self {
        let (root, mut tls) = server_config("127.0.0.1");
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(transport));
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (listening, address) = std::sync::mpsc::channel();
        let seen = Arc::new(Seen::default());
        let (handler, counts): (Handler, _) = (Arc::new(handler), Arc::clone(&seen));
        std::thread::spawn(move || {
            super::block_on(async move {
                let endpoint = Endpoint::server(config, place).unwrap();
                listening.send(endpoint.local_addr().unwrap()).unwrap();
                loop {
                    tokio::select! {
                        Some(incoming) = endpoint.accept() => {
                            tokio::spawn(serve(incoming, Arc::clone(&handler), Arc::clone(&counts)));
                        }
                        // Like a process that is killed: nobody is told.
                        _ = &mut stopped => return,
                    }
                }
            });
        });
        Self { address: address.recv().unwrap(), root, seen, stop: Some(stop) }
    }

    fn spec(&self, rate: f64, seconds: f64) -> LoadSpec {
        let mut spec = spec(&format!("https://{}/some/where", self.address), rate, seconds);
        spec.tls.ca = Some(self.root.clone());
        LoadSpec { http: HttpVersion::Three, max_connections: 4, streams: 10, ..spec }
    }

    fn requests(&self) -> u64 {
        self.seen.requests.load(SeqCst)
    }
}

async fn serve(incoming: quinn::Incoming, handler: Handler, seen: Arc<Seen>) {
    let Ok(connection) = incoming.await else { return };
    seen.connections.fetch_add(1, SeqCst);
    let built = ::h3::server::builder().build(h3_quinn::Connection::new(connection.clone())).await;
    let Ok(mut session) = built else { return };
    let (leave, mut leaving) = mpsc::unbounded_channel::<()>();
    loop {
        tokio::select! {
            accepted = session.accept() => {
                let resolver = match accepted {
                    Ok(Some(resolver)) => resolver,
                    Ok(None) => return,
                    Err(error) => {
                        seen.farewells.fetch_add(u64::from(error.is_h3_no_error()), SeqCst);
                        return;
                    }
                };
                let (handler, seen, leave) = (Arc::clone(&handler), Arc::clone(&seen), leave.clone());
                let connection = connection.clone();
                tokio::spawn(async move {
                    let Ok((request, stream)) = resolver.resolve_request().await else { return };
                    let act = handler(seen.requests.fetch_add(1, SeqCst), &request);
                    match act {
                        Act::Drop => connection.close(VarInt::from_u32(0x102), b""),
                        Act::Leave => leave.send(()).unwrap(),
                        _ => {}
                    }
                    answer(stream, act, &seen).await;
                });
            }
            Some(()) = leaving.recv() => {
                let _ = session.shutdown(0).await;
            }
        }
    }
}

async fn answer(mut stream: RequestStream<BidiStream<Bytes>, Bytes>, act: Act, seen: &Seen) {
    seen.at_once.fetch_max(seen.now.fetch_add(1, SeqCst) + 1, SeqCst);
    if !matches!(act, Act::Unread) {
        while let Ok(Some(piece)) = stream.recv_data().await {
            seen.uploaded.fetch_add(piece.remaining() as u64, SeqCst);
        }
    }
    let head =
        |status: u16| Response::builder().status(status).header("x-squall-pop", "ams").body(()).unwrap();
    let (status, reply) = match act {
        Act::Answer(status, reply) => (status, reply),
        Act::Short => {
            seen.now.fetch_sub(1, SeqCst);
            let head = Response::builder().header("content-length", "10").body(()).unwrap();
            let _ = stream.send_response(head).await;
            let _ = stream.send_data(Bytes::from_static(b"short")).await;
            let _ = stream.finish().await;
            return;
        }
        Act::Interim => {
            let _ = stream.send_response(head(103)).await;
            (200, Bytes::from_static(b"hello"))
        }
        Act::Wait(time) => {
            tokio::time::sleep(time).await;
            (200, Bytes::new())
        }
        Act::Reject | Act::Reset => {
            seen.now.fetch_sub(1, SeqCst);
            if matches!(act, Act::Reject) {
                stream.stop_stream(Code::H3_REQUEST_REJECTED);
            } else {
                let _ = stream.send_response(head(200)).await;
                stream.stop_stream(Code::H3_INTERNAL_ERROR);
            }
            return;
        }
        Act::Drop | Act::Leave | Act::Unread => (200, Bytes::new()),
    };
    seen.now.fetch_sub(1, SeqCst);
    let sent = async {
        stream.send_response(head(status)).await?;
        if !reply.is_empty() {
            stream.send_data(reply).await?;
        }
        stream.finish().await
    };
    if sent.await.is_err() {
        seen.cancelled.fetch_add(1, SeqCst);
    }
}

fn ok() -> Act {
    Act::Answer(200, Bytes::from_static(b"hello"))
}

#[test]
fn every_arrival_is_a_stream_that_ends_once() {
    let server = Server::new(|nth, request| {
        assert_eq!((request.method().as_str(), request.uri().path()), ("GET", "/some/where"));
        assert_eq!(request.headers()["accept"], "x");
        match nth % 3 {
            0 => Act::Answer(204, Bytes::new()),
            1 => Act::Interim,
            _ => ok(),
        }
    });
    let mut spec = server.spec(1_000.0, 1.0);
    spec.requests[0].headers = vec![("accept".to_owned(), "x".to_owned())];
    let outcome = run(vec![spec]);
    let all = baseline(&outcome);
    assert_eq!((all.due, all.ok, &all.errors), (1_000, 1_000, &BTreeMap::default()));
    assert_eq!((server.requests(), latencies(all).count()), (1_000, 1_000));
    assert_eq!(outcome.loads[0].phases[0].pops["ams"].ok, 1_000);
    let connections = server.seen.connections.load(SeqCst);
    assert!(connections <= 4, "many requests share a connection");
    let handshakes = reports::Latencies::decode(&outcome.loads[0].phases[0].handshakes).unwrap();
    assert_eq!(handshakes.count(), connections);
    let farewells = || server.seen.farewells.load(SeqCst) == connections;
    assert!(within(500 * MS, farewells), "servers are told that this was all");
}

/// Waits for something that another thread does.
fn within(time: Duration, done: impl Fn() -> bool) -> bool {
    let until = Instant::now() + time;
    super::block_on(async {
        while !done() && Instant::now() < until {
            tokio::time::sleep(MS).await;
        }
    });
    done()
}

#[test]
fn no_more_requests_at_a_time_than_the_server_allows() {
    for allowed in [1, 3] {
        let mut transport = TransportConfig::default();
        transport.max_concurrent_bidi_streams(VarInt::from_u32(allowed));
        let server = Server::with(transport, |_, _| Act::Wait(5 * MS));
        let mut spec = server.spec(200.0, 1.0);
        spec.max_connections = 4;
        let outcome = run(vec![spec]);
        let all = baseline(&outcome);
        assert_eq!((all.ok, all.failed()), (200, 0), "{allowed}: {:?}", all.errors);
        let at_once = server.seen.at_once.load(SeqCst);
        assert!(at_once <= 4 * u64::from(allowed), "{allowed}: {at_once} at once");
        // What one connection must not carry yet, another one does.
        let connections = server.seen.connections.load(SeqCst);
        assert!(allowed > 1 || connections > 1, "{connections} connections");
    }
}

#[test]
fn a_server_that_leaves_or_rejects_costs_no_request() {
    for act in [Act::Leave, Act::Reject] {
        let leaves = matches!(act, Act::Leave);
        let server = Server::new(move |nth, _| if nth % 20 == 19 { act.clone() } else { ok() });
        let outcome = run(vec![server.spec(400.0, 1.0)]);
        let all = baseline(&outcome);
        assert_eq!((all.due, all.ok), (400, 400), "{:?}", all.errors);
        assert!(!leaves || server.seen.connections.load(SeqCst) > 5, "it left often");
    }
}

#[test]
fn a_server_that_always_rejects_is_a_failure_and_no_loop() {
    let server = Server::new(|_, _| Act::Reject);
    let outcome = run(vec![server.spec(50.0, 1.0)]);
    assert_eq!(baseline(&outcome).errors, [("reset".to_owned(), 50)].into());
    assert_eq!(server.requests(), 200, "each request is tried four times");
}

#[test]
fn a_connection_that_breaks_fails_what_must_not_be_sent_twice() {
    let run = |method: &str| {
        let server = Server::new(|nth, _| if nth % 50 == 49 { Act::Drop } else { ok() });
        let mut spec = server.spec(500.0, 1.0);
        spec.requests[0].method = method.to_owned();
        let outcome = run(vec![spec]);
        (baseline(&outcome).ok, baseline(&outcome).errors.clone())
    };
    let (good, errors) = run("GET");
    assert_eq!((good, errors.len()), (500, 0), "{errors:?}");
    let (good, errors) = run("POST");
    assert!((350..=492).contains(&good), "{good} {errors:?}");
    assert_eq!((errors["reset"], errors.len()), (500 - good, 1));
}

#[test]
fn what_breaks_one_answer_fails_one_request() {
    for (act, class) in [(Act::Reset, "reset"), (Act::Short, "protocol")] {
        let server = Server::new(move |nth, _| if nth % 10 == 0 { act.clone() } else { ok() });
        let outcome = run(vec![server.spec(200.0, 1.0)]);
        let all = baseline(&outcome);
        assert_eq!((all.ok, &all.errors), (180, &[(class.to_owned(), 20)].into()));
        assert!(server.seen.connections.load(SeqCst) <= 4);
    }
}

#[test]
fn bodies_larger_than_any_window_pass() {
    const SIZE: usize = 300_000;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(20_000)).receive_window(VarInt::from_u32(70_000));
    let mut end = vec![b'.'; 2_000_000];
    end.extend_from_slice(b"the end");
    let reply = Bytes::from(end);
    let server = Server::with(transport, move |_, _| Act::Answer(200, reply.clone()));
    let mut spec = server.spec(10.0, 1.0);
    spec.deadline = Duration::from_secs(20);
    spec.requests[0] = RequestSpec {
        method: "POST".to_owned(),
        body: Body::Bytes(vec![7; SIZE]),
        expect: Expect { body_contains: Some("the end".to_owned()), ..Expect::default() },
        ..spec.requests[0].clone()
    };
    let outcome = run(vec![spec.clone()]);
    let all = baseline(&outcome);
    assert_eq!((all.ok, &all.errors), (10, &BTreeMap::default()));
    assert_eq!(server.seen.uploaded.load(SeqCst), 10 * SIZE as u64);
    // A server that answers what it has not read has answered.
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(20_000));
    let server = Server::with(transport, |_, _| Act::Unread);
    let mut hasty = server.spec(20.0, 1.0);
    hasty.requests[0].method = "POST".to_owned();
    hasty.requests[0].body = Body::Bytes(vec![7; SIZE]);
    let outcome = run(vec![hasty]);
    assert_eq!((baseline(&outcome).ok, &baseline(&outcome).errors), (20, &BTreeMap::default()));
}

#[test]
fn a_request_without_an_answer_is_given_up_and_the_others_go_on() {
    let server =
        Server::new(|nth, _| if nth % 10 == 0 { Act::Wait(Duration::from_millis(900)) } else { ok() });
    let mut spec = server.spec(200.0, 1.0);
    spec.max_connections = 1;
    spec.streams = 50;
    spec.deadline = Duration::from_millis(400);
    let outcome = run(vec![spec]);
    let all = baseline(&outcome);
    assert_eq!((all.ok, &all.errors), (180, &[("deadline".to_owned(), 20)].into()));
    assert_eq!(server.seen.connections.load(SeqCst), 1);
    assert!(latencies(all).max() >= Some(0.4));
    assert!(server.seen.cancelled.load(SeqCst) >= 5, "the server is told");
}

#[test]
fn each_request_has_a_connection_if_none_is_kept() {
    let server = Server::new(|_, _| ok());
    let outcome = run(vec![LoadSpec { reuse: false, ..server.spec(50.0, 1.0) }]);
    assert_eq!((baseline(&outcome).ok, server.requests()), (50, 50));
    assert_eq!(server.seen.connections.load(SeqCst), 50);
    assert!(within(500 * MS, || server.seen.farewells.load(SeqCst) == 50));
}

#[test]
fn a_server_that_is_killed_is_noticed_at_once() {
    let mut server = Server::new(|_, _| ok());
    let mut spec = server.spec(100.0, 1.5);
    spec.deadline = Duration::from_secs(5);
    let stop = server.stop.take().unwrap();
    std::thread::spawn(move || {
        within(700 * MS, || false);
        drop(stop);
    });
    let began = Instant::now();
    let outcome = run(vec![spec]);
    assert!(began.elapsed() < Duration::from_secs(3), "nobody waited for a deadline");
    let all = baseline(&outcome);
    assert!(all.ok >= 20 && all.ok + all.failed() == 150, "{} {:?}", all.ok, all.errors);
    assert!(
        all.errors.keys().all(|class| ["refused", "reset"].contains(&class.as_str())),
        "{:?}",
        all.errors
    );
    assert!(all.errors["refused"] > 20, "{:?}", all.errors);
}

#[test]
fn what_cannot_be_connected_to_has_a_class() {
    let server = Server::new(|_, _| ok());
    let mut stranger = server.spec(50.0, 0.3);
    stranger.tls.ca = None;
    assert_eq!(only_class(stranger), "tls");
    let mut misnamed = server.spec(50.0, 0.3);
    misnamed.tls.server_name = Some("other.example".to_owned());
    assert_eq!(only_class(misnamed), "tls");
    // Bound, and nobody reads it.
    let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = |address: SocketAddr| LoadSpec {
        http: HttpVersion::Three,
        connect_timeout: 200 * MS,
        ..spec(&format!("https://{address}/"), 50.0, 0.3)
    };
    assert_eq!(only_class(to(mute.local_addr().unwrap())), "connect-timeout");
    let address = mute.local_addr().unwrap();
    drop(mute);
    assert_eq!(only_class(to(address)), "refused");
}

#[test]
fn sources_take_turns() {
    let server = Server::new(|_, _| ok());
    let mut spec = server.spec(50.0, 1.0);
    spec.sources = ["127.0.0.2", "127.0.0.3"].map(|text| text.parse().unwrap()).to_vec();
    assert_eq!(baseline(&run(vec![spec])).ok, 50);
}

#[test]
fn connections_of_a_server_that_was_started_anew_are_given_up() {
    let mut first = Server::new(|_, _| ok());
    let mut spec = first.spec(100.0, 4.0);
    spec.deadline = 300 * MS;
    spec.tls.insecure = true;
    let (stop, address) = (first.stop.take().unwrap(), first.address);
    let second = std::thread::spawn(move || {
        within(700 * MS, || false);
        drop(stop);
        // Until the port is free.
        within(5 * SECOND, || std::net::UdpSocket::bind(address).is_ok());
        Server::at(address, TransportConfig::default(), |_, _| ok())
    });
    let outcome = run(vec![spec]);
    let (all, second) = (baseline(&outcome), second.join().unwrap());
    // It takes one deadline to find out, and the first one had 70.
    assert!(all.ok >= 270 && second.requests() >= 200, "{} {:?} {}", all.ok, all.errors, second.requests());
}

/// What a server writes on each stream: `0xd8` is status 103, `0x5f 0x09 …` a status of its own (RFC 9204, section 4.5).
fn raw(bytes: &'static [u8]) -> (SocketAddr, oneshot::Sender<()>) {
    let mut tls = server_config("127.0.0.1").1;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let (stop, mut stopped) = oneshot::channel::<()>();
    let (listening, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        super::block_on(async move {
            let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
            listening.send(endpoint.local_addr().unwrap()).unwrap();
            let answer = async move |incoming: quinn::Incoming| {
                let Ok(connection) = incoming.await else { return };
                let mut kept = Vec::new();
                while let Ok((mut send, recv)) = connection.accept_bi().await {
                    let _ = send.write_all(bytes).await;
                    kept.push((send, recv));
                }
            };
            loop {
                tokio::select! {
                    Some(incoming) = endpoint.accept() => { tokio::spawn(answer(incoming)); }
                    _ = &mut stopped => return,
                }
            }
        });
    });
    (address.recv().unwrap(), stop)
}

#[test]
fn answers_that_break_the_rules_are_failures_of_the_protocol() {
    let cases: [&[u8]; 4] = [
        // A status that is none, by itself and after another head.
        b"\x01\x08\0\0\x5f\x09\x032x0",
        b"\x01\x03\0\0\xd8\x01\x08\0\0\x5f\x09\x032x0",
        // A body without a head, and a head that cannot be read.
        b"\0\x05hello",
        b"\x01\x02\xff\xff",
    ];
    for (index, bytes) in cases.into_iter().enumerate() {
        let (address, _stop) = raw(bytes);
        let mut spec = spec(&format!("https://{address}/"), 20.0, 0.5);
        spec.http = HttpVersion::Three;
        spec.tls.insecure = true;
        assert_eq!(only_class(spec), "protocol", "case {index}");
    }
}
