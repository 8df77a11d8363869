//! The HTTP/2 lane against a server of the `h2` crate that does what a test wants.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use engine::load::{Body, Expect, HttpVersion, LoadSpec, RequestSpec};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::server::Seen;
use super::{baseline, latencies, run, spec};

/// What to do about a request.
enum Act {
    /// This status, body and trailers.
    Answer(u16, Bytes, Vec<(&'static str, &'static str)>),
    /// Nothing for so long, then 200.
    Wait(Duration),
    /// Refuse the stream.
    Refuse,
    /// Close the connection without a word.
    Drop,
    /// Answer, and then no further requests on this connection.
    Leave,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    _stop: oneshot::Sender<()>,
}

type Handler = Arc<dyn Fn(u64, &Request<RecvStream>) -> Act + Send + Sync>;

impl Server {
    fn new(
        builder: Builder,
        handler: impl Fn(u64, &Request<RecvStream>) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, mut stopped) = oneshot::channel::<()>();
        let seen = Arc::new(Seen::default());
        let (handler, counts): (Handler, _) = (Arc::new(handler), Arc::clone(&seen));
        std::thread::spawn(move || {
            super::block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            let (tcp, _) = accepted.unwrap();
                            counts.connections.fetch_add(1, SeqCst);
                            tokio::spawn(serve(tcp, builder.clone(), Arc::clone(&handler), Arc::clone(&counts)));
                        }
                        _ = &mut stopped => return,
                    }
                }
            });
        });
        Self { address, seen, _stop: stop }
    }

    fn url(&self) -> String {
        format!("http://{}/some/where", self.address)
    }

    fn requests(&self) -> u64 {
        self.seen.requests.load(SeqCst)
    }
}

async fn serve(tcp: tokio::net::TcpStream, builder: Builder, handler: Handler, seen: Arc<Seen>) {
    let Ok(mut connection) = builder.handshake::<_, Bytes>(tcp).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let nth = seen.requests.fetch_add(1, SeqCst);
        let act = handler(nth, &request);
        match act {
            Act::Drop => return,
            Act::Leave => connection.graceful_shutdown(),
            _ => {}
        }
        tokio::spawn(answer(request, respond, act, Arc::clone(&seen)));
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, act: Act, seen: Arc<Seen>) {
    seen.at_once.fetch_max(seen.now.fetch_add(1, SeqCst) + 1, SeqCst);
    let mut body = request.into_body();
    while let Some(Ok(piece)) = body.data().await {
        seen.uploaded.fetch_add(piece.len() as u64, SeqCst);
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    let (status, reply, trailers) = match act {
        Act::Answer(status, reply, trailers) => (status, reply, trailers),
        Act::Wait(time) => {
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {
                    seen.cancelled.fetch_add(1, SeqCst);
                }
            }
            (200, Bytes::new(), Vec::new())
        }
        Act::Refuse => {
            seen.now.fetch_sub(1, SeqCst);
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        Act::Drop | Act::Leave => (200, Bytes::new(), Vec::new()),
    };
    seen.now.fetch_sub(1, SeqCst);
    let head = Response::builder().status(status).header("x-squall-pop", "ams").body(()).unwrap();
    let Ok(mut stream) = respond.send_response(head, reply.is_empty() && trailers.is_empty()) else { return };
    if !reply.is_empty() {
        let _ = stream.send_data(reply, trailers.is_empty());
    }
    if !trailers.is_empty() {
        let mut fields = HeaderMap::new();
        for (name, value) in trailers {
            fields.insert(name, value.parse().unwrap());
        }
        let _ = stream.send_trailers(fields);
    }
}

fn two(url: &str, rate: f64, seconds: f64) -> LoadSpec {
    LoadSpec { http: HttpVersion::Two, max_connections: 4, streams: 10, ..spec(url, rate, seconds) }
}

fn ok() -> Act {
    Act::Answer(200, Bytes::from_static(b"hello"), Vec::new())
}

#[test]
fn every_arrival_is_a_stream_that_ends_once() {
    let server = Server::new(Builder::new(), |nth, request| {
        assert_eq!((request.method().as_str(), request.uri().path()), ("GET", "/some/where"));
        if nth % 3 == 0 { Act::Answer(204, Bytes::new(), Vec::new()) } else { ok() }
    });
    let outcome = run(vec![two(&server.url(), 2_000.0, 1.0)]);
    let all = baseline(&outcome);
    assert_eq!((all.due, all.ok, &all.errors), (2_000, 2_000, &BTreeMap::default()));
    assert_eq!(server.requests(), 2_000);
    assert_eq!(latencies(all).count(), 2_000);
    assert_eq!(outcome.loads[0].phases[0].pops["ams"].ok, 2_000);
    assert!(server.seen.connections.load(SeqCst) <= 4, "many requests share a connection");
}

#[test]
fn no_more_requests_at_a_time_than_the_server_allows() {
    for allowed in [1, 3] {
        let mut builder = Builder::new();
        builder.max_concurrent_streams(allowed);
        let server = Server::new(builder, |_, _| Act::Wait(Duration::from_millis(2)));
        let mut spec = two(&server.url(), 600.0, 1.0);
        spec.max_connections = 2;
        let outcome = run(vec![spec]);
        let all = baseline(&outcome);
        assert_eq!((all.ok, all.failed()), (600, 0), "{allowed}: {:?}", all.errors);
        let at_once = server.seen.at_once.load(SeqCst);
        assert!(at_once <= 2 * u64::from(allowed), "{allowed}: {at_once} at once");
    }
}

#[test]
fn a_server_that_leaves_or_refuses_costs_no_request() {
    type Case = fn(u64) -> Act;
    let cases: [Case; 2] = [
        |nth| if nth % 20 == 19 { Act::Leave } else { ok() },
        |nth| if nth % 20 == 19 { Act::Refuse } else { ok() },
    ];
    for (index, case) in cases.into_iter().enumerate() {
        let server = Server::new(Builder::new(), move |nth, _| case(nth));
        let outcome = run(vec![two(&server.url(), 500.0, 1.0)]);
        let all = baseline(&outcome);
        assert_eq!((all.due, all.ok), (500, 500), "case {index}: {:?}", all.errors);
    }
}

#[test]
fn a_server_that_always_refuses_is_a_failure_and_no_loop() {
    let server = Server::new(Builder::new(), |_, _| Act::Refuse);
    let outcome = run(vec![two(&server.url(), 50.0, 1.0)]);
    assert_eq!(baseline(&outcome).errors, [("reset".to_owned(), 50)].into());
    assert_eq!(server.requests(), 200, "each request is tried four times");
}

#[test]
fn a_connection_that_breaks_fails_what_must_not_be_sent_twice() {
    let run = |method: &str| {
        let server = Server::new(Builder::new(), |nth, _| if nth % 50 == 49 { Act::Drop } else { ok() });
        let mut spec = two(&server.url(), 500.0, 1.0);
        spec.requests[0].method = method.to_owned();
        let outcome = run(vec![spec]);
        (baseline(&outcome).ok, baseline(&outcome).errors.clone(), server.requests())
    };
    let (good, errors, _) = run("GET");
    assert_eq!((good, errors.len()), (500, 0), "{errors:?}");
    let (good, errors, seen) = run("POST");
    // Whatever was under way on a connection that broke is lost, if the server has seen it or not.
    assert!((400..=492).contains(&good), "{good} {errors:?}");
    assert_eq!((errors["reset"], errors.len()), (500 - good, 1));
    assert!((good..=500).contains(&seen), "{seen}");
}

#[test]
fn bodies_larger_than_any_window_pass() {
    const SIZE: usize = 300_000;
    let mut builder = Builder::new();
    builder.initial_window_size(20_000).initial_connection_window_size(70_000);
    let mut end = vec![b'.'; 2_000_000];
    end.extend_from_slice(b"the end");
    let reply = Bytes::from(end);
    let server = Server::new(builder, move |_, _| Act::Answer(200, reply.clone(), Vec::new()));
    let mut spec = two(&server.url(), 20.0, 1.0);
    spec.requests[0] = RequestSpec {
        method: "POST".to_owned(),
        body: Body::Bytes(vec![7; SIZE]),
        expect: Expect { body_contains: Some("the end".to_owned()), ..Expect::default() },
        ..spec.requests[0].clone()
    };
    let outcome = run(vec![spec]);
    let all = baseline(&outcome);
    assert_eq!((all.ok, &all.errors), (20, &BTreeMap::default()));
    assert_eq!(server.seen.uploaded.load(SeqCst), 20 * SIZE as u64);
}

#[test]
fn a_request_without_an_answer_is_given_up_and_the_others_go_on() {
    let server =
        Server::new(
            Builder::new(),
            |nth, _| {
                if nth % 10 == 0 { Act::Wait(Duration::from_secs(20)) } else { ok() }
            },
        );
    let mut spec = two(&server.url(), 200.0, 1.0);
    spec.max_connections = 1;
    spec.streams = 30;
    spec.deadline = Duration::from_millis(300);
    let outcome = run(vec![spec]);
    let all = baseline(&outcome);
    assert_eq!((all.ok, &all.errors), (180, &[("deadline".to_owned(), 20)].into()));
    assert_eq!(server.seen.connections.load(SeqCst), 1);
    assert!(server.seen.cancelled.load(SeqCst) >= 19, "the server is told");
    assert!(latencies(all).max() >= Some(0.3));
}

#[test]
fn calls_have_a_status_of_their_own() {
    let script = VecDeque::from([
        Act::Answer(200, Bytes::from_static(b"\0\0\0\0\x01x"), vec![("grpc-status", "0")]),
        Act::Answer(200, Bytes::new(), vec![("grpc-status", "14")]),
        Act::Answer(200, Bytes::from_static(b"\0\0\0\0\x01x"), Vec::new()),
        Act::Answer(503, Bytes::new(), Vec::new()),
    ]);
    let script = std::sync::Mutex::new(script);
    let server = Server::new(Builder::new(), move |_, request| {
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/pets.Pets/List"));
        let field = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((field("te"), field("content-type")), ("trailers".into(), "application/grpc".into()));
        script.lock().unwrap().pop_front().unwrap()
    });
    let mut spec = two(&format!("grpc://{}/pets.Pets/List", server.address), 4.0, 1.0);
    spec.requests[0].body = Body::Bytes(b"abc".to_vec());
    let outcome = run(vec![spec]);
    let stats = &outcome.loads[0].phases[0];
    assert_eq!((stats.all.ok, &stats.all.errors), (1, &[("status".to_owned(), 3)].into()));
    assert_eq!(stats.statuses, [(200, 1), (14, 1), (2, 1), (503, 1)].into());
    assert_eq!(server.seen.uploaded.load(SeqCst), 4 * 8, "a prefix of five bytes, and the message");
}

#[test]
fn what_does_not_speak_it_is_a_failure_of_the_protocol() {
    let server = super::Server::new(|_| super::Plan::ok());
    let outcome = run(vec![two(&server.url("/"), 50.0, 0.2)]);
    let errors = &baseline(&outcome).errors;
    assert_eq!(errors.get("protocol"), Some(&10), "{errors:?}");
}
