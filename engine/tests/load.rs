//! Laws of the load generator, on real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "load/http2.rs"]
mod http2;
#[cfg(feature = "http3")]
#[path = "load/http3.rs"]
mod http3;
#[path = "load/server.rs"]
mod server;
#[path = "load/wires.rs"]
mod wires;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::load::{
    Body, Expect, LoadError, LoadOutcome, LoadSpec, PhaseCell, RequestSpec, Running, Stop, Tick, prepare,
    start,
};
use engine::schedule::{Profile, Segment};
use reports::Latencies;
use reports::record::{Outcomes, Phase};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use server::{Plan, Server, Then};
use tokio_rustls::TlsAcceptor;

const MS: Duration = Duration::from_millis(1);
#[cfg(feature = "http3")]
const SECOND: Duration = Duration::from_secs(1);

fn hold(rate: f64, seconds: f64) -> Profile {
    Profile::new(vec![Segment::Hold { rate, lasting: Duration::from_secs_f64(seconds) }]).unwrap()
}

fn spec(url: &str, rate: f64, seconds: f64) -> LoadSpec {
    let mut spec = LoadSpec::new("test", vec![RequestSpec::get(url)], hold(rate, seconds));
    spec.deadline = Duration::from_secs(5);
    spec
}

/// Runs on a runtime like the engine's.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn begin(specs: Vec<LoadSpec>, phase: &Arc<PhaseCell>) -> (Running, Instant) {
    let prepared = prepare(specs).await.unwrap();
    let origin = Instant::now() + 50 * MS;
    (start(prepared, phase, origin, 1).unwrap(), origin)
}

fn run(specs: Vec<LoadSpec>) -> LoadOutcome {
    let phase = Arc::new(PhaseCell::new(Phase::Baseline));
    block_on(async { begin(specs, &phase).await.0.finish().await })
}

fn baseline(outcome: &LoadOutcome) -> &Outcomes {
    assert_eq!(outcome.loads[0].phases.len(), 1);
    assert_eq!(outcome.loads[0].phases[0].phase, Phase::Baseline);
    &outcome.loads[0].phases[0].all
}

fn latencies(outcomes: &Outcomes) -> Latencies {
    Latencies::decode(&outcomes.latencies).unwrap()
}

/// Noise of a shared machine can spoil an attempt, a fault of the generator spoils all.
fn eventually(attempt: impl Fn() -> Result<(), String>) {
    let mut failures = Vec::new();
    for _ in 0..10 {
        match attempt() {
            Ok(()) => return,
            Err(why) => failures.push(why),
        }
    }
    panic!("no attempt of ten was good: {failures:#?}");
}

fn near(what: &str, actual: f64, wanted: f64, tolerance: f64) -> Result<(), String> {
    if (actual - wanted).abs() <= tolerance {
        return Ok(());
    }
    Err(format!("{what} is {actual:.6}, not {wanted:.6} ± {tolerance:.6}"))
}

#[test]
fn every_arrival_is_sent_once_and_ends_once() {
    let replies = [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\n\r\nto the end",
        "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    ];
    let server = Server::new(move |asked| {
        let which = (asked.nth % 6) as usize;
        Plan::reply(replies[which]).then(if which < 3 { Then::Keep } else { Then::Close })
    });
    for (poisson, reuse) in [(false, true), (true, true), (false, false)] {
        let before = server.requests();
        let outcome = run(vec![LoadSpec { poisson, reuse, ..spec(&server.url("/"), 600.0, 1.0) }]);
        let all = baseline(&outcome);
        assert_eq!(all.failed(), 0, "{:?}", all.errors);
        assert_eq!((all.due, all.ok), (server.requests() - before, all.due));
        assert_eq!(latencies(all).count(), all.due);
        assert!(latencies(all).at_rank(1) > Some(5e-6), "nothing is sent before its time");
        assert_eq!(outcome.generator.due, all.due);
        assert_eq!(outcome.generator.sent, all.due);
        assert_eq!(outcome.loads[0].buckets.iter().map(|b| b.all.due).sum::<u64>(), all.due);
        assert_eq!(outcome.loads[0].buckets.iter().map(|b| b.all.ok).sum::<u64>(), all.due);
        if !poisson {
            assert_eq!(all.due, 600);
        }
    }
}

#[test]
fn kinds_pops_and_statuses_are_told_apart() {
    let server = Server::new(|asked| match asked.head.split(' ').nth(1).unwrap() {
        "/a" => Plan::reply("HTTP/1.1 200 OK\r\nX-Squall-Pop: ams\r\ncontent-length: 0\r\n\r\n"),
        "/b" => Plan::reply("HTTP/1.1 503 Busy\r\nx-squall-pop: fra\r\ncontent-length: 0\r\n\r\n"),
        _ => Plan::reply("").then(Then::Close),
    });
    let mut spec = spec("http://unused/", 400.0, 1.0);
    spec.requests = ["/a", "/b", "/c"].map(|path| RequestSpec::get(&server.url(path))).to_vec();
    spec.requests[0].weight = 2;
    let kinds: Vec<String> = spec.requests.iter().map(|r| r.name.clone()).collect();
    let outcome = run(vec![spec]);
    let stats = &outcome.loads[0].phases[0];
    let counts = |name: &str| (stats.pops[name].ok, stats.pops[name].failed());
    let (a, b, c) = (&stats.kinds[&kinds[0]], &stats.kinds[&kinds[1]], &stats.kinds[&kinds[2]]);
    assert_eq!(stats.all.due, 400);
    assert_eq!((a.failed(), b.ok, c.ok), (0, 0, 0));
    assert!((150..250).contains(&a.ok), "twice the weight: {}", a.ok);
    assert_eq!((counts("ams"), counts("fra"), counts("-")), ((a.ok, 0), (0, b.failed()), (0, c.failed())));
    assert_eq!(stats.statuses, BTreeMap::from([(200, a.ok), (503, b.failed())]));
    assert_eq!(
        stats.all.errors,
        BTreeMap::from([("status".into(), b.failed()), ("reset".into(), c.failed())])
    );
    assert_eq!(outcome.loads[0].buckets.iter().map(|b| b.pops.get("ams").unwrap_or(&0)).sum::<u64>(), a.ok);
}

#[test]
fn several_loads_run_side_by_side() {
    let (one, two) = (Server::new(|_| Plan::ok()), Server::new(|_| Plan::ok()));
    let outcome = run(vec![
        spec(&one.url("/"), 300.0, 1.0),
        LoadSpec { name: "two".into(), ..spec(&two.url("/"), 200.0, 1.0) },
    ]);
    let ok = |i: usize| (outcome.loads[i].name.as_str(), outcome.loads[i].phases[0].all.ok);
    assert_eq!((ok(0), ok(1)), (("test", 300), ("two", 200)));
    assert_eq!((one.requests(), two.requests()), (300, 200));
}

#[test]
fn a_body_is_sent_and_a_body_is_searched() {
    let server = Server::new(|asked| {
        assert!(asked.head.starts_with("POST / HTTP/1.1\r\n"));
        let body = if asked.nth.is_multiple_of(2) { "a needle here" } else { "only hay" };
        Plan::reply(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    });
    let mut spec = spec(&server.url("/"), 200.0, 0.5);
    spec.requests[0].method = "POST".into();
    spec.requests[0].body = Body::Bytes(vec![b'x'; 300_000]);
    spec.requests[0].expect = Expect { body_contains: Some("needle".into()), ..Expect::default() };
    let outcome = run(vec![spec]);
    let all = baseline(&outcome);
    assert_eq!((all.ok, all.errors.get("expectation")), (50, Some(&50)), "{:?}", all.errors);
    assert_eq!(latencies(all).count(), 50, "an answer that is not good has no latency");
}

#[test]
fn a_stall_is_seen_by_every_request_that_was_due_meanwhile() {
    eventually(|| {
        let started: Arc<Mutex<Option<Instant>>> = Arc::default();
        let origin = Arc::clone(&started);
        let server = Server::new(move |_| {
            let t = origin.lock().unwrap().map_or(Duration::ZERO, |o| o.elapsed());
            let stalled = (1000 * MS..1500 * MS).contains(&t);
            Plan::ok().after(if stalled { (1500 * MS).saturating_sub(t) } else { Duration::ZERO })
        });
        let phase = Arc::new(PhaseCell::new(Phase::Baseline));
        let outcome = block_on(async {
            let (running, origin) = begin(vec![spec(&server.url("/"), 1000.0, 3.0)], &phase).await;
            *started.lock().unwrap() = Some(origin);
            running.finish().await
        });
        let all = baseline(&outcome);
        assert_eq!(all.ok, 3000);
        let latencies = latencies(all);
        // A request due x ms into the stall waits 500 - x ms; 500 of 3000 requests do.
        for (q, wanted) in [(0.85, 0.050), (0.90, 0.200), (0.95, 0.350), (0.99, 0.470)] {
            near(&format!("p{q}"), latencies.quantile(q).unwrap(), wanted, 0.010)?;
        }
        near("p50", latencies.quantile(0.5).unwrap(), 0.0, 0.010)
    });
}

#[test]
fn a_single_connection_still_counts_from_the_intended_time() {
    eventually(|| {
        let server =
            Server::new(|asked| Plan::ok().after(if asked.nth == 0 { 400 * MS } else { Duration::ZERO }));
        let one = LoadSpec { max_connections: 1, ..spec(&server.url("/"), 500.0, 1.0) };
        let outcome = run(vec![one]);
        assert_eq!(baseline(&outcome).ok, 500);
        // 200 requests wait behind the slow one, evenly from 400 ms down to none.
        let latencies = latencies(baseline(&outcome));
        near("p80", latencies.quantile(0.80).unwrap(), 0.200, 0.050)?;
        near("max", latencies.max().unwrap(), 0.400, 0.050)
    });
}

/// What the client may add to the server's own time: two wake-ups on loopback and the parsing of an unoptimised build.
const ALLOWANCE_S: f64 = 400e-6;

#[test]
fn quantiles_are_those_of_the_server() {
    eventually(|| {
        let served: Arc<Mutex<Latencies>> = Arc::default();
        let record = Arc::clone(&served);
        let server = Server::new(move |asked| {
            let slow = [(200, 499), (50, 99), (5, 1)];
            let delay = slow.iter().find(|(_, every)| asked.nth % every == every - 1).unwrap().0 * MS;
            // The handler is the server's whole work: it waits exactly, and notes how long it took.
            let from = Instant::now();
            let record = Arc::clone(&record);
            let late = move || record.lock().unwrap().record(from.elapsed().as_micros() as u64);
            Plan::ok().after(delay).noting(late)
        });
        let outcome = run(vec![spec(&server.url("/"), 500.0, 4.0)]);
        assert_eq!(baseline(&outcome).ok, 2000);
        let (ours, theirs) = (latencies(baseline(&outcome)), served.lock().unwrap());
        for q in [0.5, 0.99, 0.999] {
            let (ours, theirs) = (ours.quantile(q).unwrap(), theirs.quantile(q).unwrap());
            near(&format!("p{q}"), ours, theirs, (0.01 * theirs).max(100e-6) + ALLOWANCE_S)?;
        }
        Ok(())
    });
}

/// Runs against a server that treats each request like this, and returns the only class of errors.
fn only_class(spec: LoadSpec) -> String {
    let due = spec.profile.total() as u64;
    let outcome = run(vec![spec]);
    let all = baseline(&outcome);
    assert_eq!((all.ok, all.failed(), all.due), (0, due, due), "{:?}", all.errors);
    assert_eq!(all.errors.len(), 1, "{:?}", all.errors);
    all.errors.keys().next().unwrap().clone()
}

fn class_of(plan: impl Fn() -> Plan + Send + Sync + 'static) -> String {
    let server = Server::new(move |_| plan());
    only_class(LoadSpec { deadline: 300 * MS, ..spec(&server.url("/"), 100.0, 0.3) })
}

#[test]
fn a_closed_port_is_refused() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(only_class(spec(&format!("http://{closed}/"), 100.0, 0.3)), "refused");
}

#[test]
fn requests_that_must_not_wait_are_shed_and_counted() {
    let server = Server::new(|_| Plan::ok().after(20 * MS));
    let outcome =
        run(vec![LoadSpec { max_connections: 2, shed: true, ..spec(&server.url("/"), 500.0, 1.0) }]);
    let all = baseline(&outcome);
    let shed = all.errors["shed"];
    assert_eq!((all.due, all.ok + shed, all.errors.len()), (500, 500, 1), "{:?}", all.errors);
    // Two connections carry at most a hundred in a second.
    assert!((60..=102).contains(&all.ok), "{}", all.ok);
    assert!(latencies(all).max() < Some(0.2), "nobody waited");
    assert_eq!(outcome.generator.saturated, Vec::<String>::new());
}

#[test]
fn an_exact_pacer_is_late_by_microseconds() {
    let server = Server::new(|_| Plan::ok());
    eventually(|| {
        let outcome = run(vec![LoadSpec { exact: true, ..spec(&server.url("/"), 500.0, 1.0) }]);
        let lag = outcome.facts.lag.quantile(0.5).unwrap();
        if lag < 15e-6 { Ok(()) } else { Err(format!("{lag}")) }
    });
}

#[test]
fn a_listener_that_never_accepts_is_a_connect_timeout() {
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 0).unwrap();
    let address: std::net::SocketAddr = getsockname(&listener).unwrap().try_into().unwrap();
    let fill = |_| std::net::TcpStream::connect_timeout(&address, 200 * MS).ok();
    let _held: Vec<_> = (0..3).map(fill).collect();
    let mut spec = spec(&format!("http://{address}/"), 50.0, 0.2);
    spec.connect_timeout = 200 * MS;
    assert_eq!(only_class(spec), "connect-timeout");
}

#[test]
fn a_handshake_that_nobody_answers_is_a_failure_of_tls() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut spec = spec(&format!("https://{}/", mute.local_addr().unwrap()), 50.0, 0.2);
    spec.connect_timeout = 200 * MS;
    assert_eq!(only_class(spec), "tls");
}

#[test]
fn every_kind_of_bad_answer_has_its_class() {
    assert_eq!(class_of(|| Plan::reply("").then(Then::Reset)), "reset");
    assert_eq!(class_of(|| Plan::reply("").then(Then::Close)), "reset");
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhell";
    assert_eq!(class_of(move || Plan::reply(cut).then(Then::Close)), "reset");
    assert_eq!(class_of(move || Plan::reply(cut).then(Then::Reset)), "reset");
    assert_eq!(class_of(|| Plan::reply("").then(Then::Hang)), "deadline");
    assert_eq!(class_of(move || Plan::reply(cut).then(Then::Hang)), "deadline");
    assert_eq!(class_of(|| Plan::reply("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")), "status");
    assert_eq!(class_of(|| Plan::reply("220 smtp ready\r\n").then(Then::Hang)), "protocol");
    let huge = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(70_000));
    assert_eq!(class_of(move || Plan::reply(huge.clone()).then(Then::Hang)), "protocol");
}

#[test]
fn a_deadline_miss_is_recorded_at_its_age() {
    eventually(|| {
        let server = Server::new(|_| Plan::reply("").then(Then::Hang));
        let outcome = run(vec![LoadSpec { deadline: 200 * MS, ..spec(&server.url("/"), 200.0, 0.5) }]);
        let latencies = latencies(baseline(&outcome));
        assert_eq!(latencies.count(), 100);
        near("p50", latencies.quantile(0.5).unwrap(), 0.204, 0.004)?;
        near("max", latencies.max().unwrap(), 0.206, 0.006)
    });
}

/// Descriptors are limited for a whole process, so this runs in one of its own.
#[test]
fn descriptors_that_run_out_are_a_local_error() {
    const INNER: &str = "SQUALL_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(INNER).is_none() {
        let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
        inner.args(["--exact", "descriptors_that_run_out_are_a_local_error"]).env(INNER, "1");
        assert!(inner.status().unwrap().success());
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let few = Some(open + 20);
    setrlimit(Resource::Nofile, Rlimit { current: few, maximum: few }).unwrap();
    let outcome = run(vec![LoadSpec { deadline: 300 * MS, ..spec(&url, 200.0, 0.5) }]);
    let all = baseline(&outcome);
    assert_eq!(all.failed(), 100);
    assert!(all.errors["local"] > 50, "{:?}", all.errors);
    let reasons = outcome.generator.saturated;
    assert!(
        reasons.iter().any(|reason| reason.contains("EMFILE") && reason.contains("ulimit -n")),
        "{reasons:?}"
    );
}

#[test]
fn the_race_with_a_server_that_closes_idle_connections_harms_no_request() {
    let closing = || {
        Server::new(|asked| match asked.nth_here {
            0 => Plan::ok(),
            _ => Plan::reply("").then(Then::Close),
        })
    };
    let server = closing();
    let outcome = run(vec![LoadSpec { max_connections: 2, ..spec(&server.url("/"), 200.0, 1.0) }]);
    assert_eq!(baseline(&outcome).ok, 200, "{:?}", baseline(&outcome).errors);
    assert!(outcome.facts.reconnects > 50, "{}", outcome.facts.reconnects);
    assert_eq!(server.requests(), 200 + outcome.facts.reconnects);
    // What may have acted must not be asked twice.
    let server = closing();
    let mut post = LoadSpec { max_connections: 2, ..spec(&server.url("/"), 200.0, 1.0) };
    post.requests[0].method = "POST".into();
    let outcome = run(vec![post]);
    assert_eq!(server.requests(), 200);
    assert_eq!(baseline(&outcome).ok + baseline(&outcome).errors["reset"], 200);
}

#[test]
fn a_connection_that_the_server_closes_while_idle_is_not_used_again() {
    let server = Server::new(|_| Plan::ok().then(Then::Close));
    let outcome = run(vec![spec(&server.url("/"), 50.0, 1.0)]);
    assert_eq!((baseline(&outcome).ok, server.requests()), (50, 50));
}

fn certificate(name: &str) -> (String, TlsAcceptor) {
    let (root, config) = server_config(name);
    (root, TlsAcceptor::from(Arc::new(config)))
}

/// A CA of our own and a server that shows a certificate for this name.
fn server_config(name: &str) -> (String, rustls::ServerConfig) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf =
        rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    (root, config)
}

#[test]
fn tls_is_spoken_and_certificates_are_verified() {
    let (root, acceptor) = certificate("127.0.0.1");
    let server = Server::tls(acceptor, |_| Plan::ok());
    let url = format!("https://{}/", server.address);
    let mut trusting = spec(&url, 200.0, 1.0);
    trusting.tls.ca = Some(root.clone());
    let outcome = run(vec![trusting.clone()]);
    assert_eq!((baseline(&outcome).ok, server.requests()), (200, 200), "{:?}", baseline(&outcome).errors);
    assert!(server.seen.connections.load(SeqCst) < 200, "connections are kept");
    let mut insecure = spec(&url, 100.0, 0.5);
    insecure.tls.insecure = true;
    insecure.reuse = false;
    assert_eq!(baseline(&run(vec![insecure])).ok, 50);
    assert_eq!(only_class(spec(&url, 100.0, 0.3)), "tls", "an unknown CA");
    let mut misnamed = spec(&url, 100.0, 0.3);
    misnamed.tls.ca = Some(root);
    misnamed.tls.server_name = Some("other.example".into());
    assert_eq!(only_class(misnamed), "tls", "a certificate for another name");
    let plain = Server::new(|_| Plan::ok());
    let speaks_http = spec(&format!("https://{}/", plain.address), 100.0, 0.1);
    assert!(
        ["tls", "deadline"].contains(&only_class(LoadSpec { deadline: 500 * MS, ..speaks_http }).as_str())
    );
    trusting.tls.ca = Some("no certificate".into());
    assert!(matches!(block_on(prepare(vec![trusting])), Err(LoadError::Origin { .. })));
}

#[test]
fn requests_belong_to_the_phase_that_they_touched() {
    eventually(|| {
        let server = Server::new(|_| Plan::ok().after(200 * MS));
        let phase = Arc::new(PhaseCell::new(Phase::Baseline));
        let outcome = block_on(async {
            let (running, origin) = begin(vec![spec(&server.url("/"), 100.0, 3.0)], &phase).await;
            for (at, next) in [(1, Phase::Fault), (2, Phase::Recovery)] {
                tokio::time::sleep_until((origin + at * 1000 * MS).into()).await;
                phase.set(next);
            }
            running.finish().await
        });
        let stats = &outcome.loads[0].phases;
        assert_eq!(stats.iter().map(|s| s.all.ok).sum::<u64>(), 300);
        let count = |phase| stats.iter().find(|s| s.phase == phase).map_or(0.0, |s| s.all.due as f64);
        // The fault has its own 100 and the 20 that were under way when it began.
        near("baseline", count(Phase::Baseline), 80.0, 3.0)?;
        near("fault", count(Phase::Fault), 120.0, 3.0)?;
        near("recovery", count(Phase::Recovery), 100.0, 3.0)
    });
}

#[test]
fn a_thousand_connections_are_held_at_a_time() {
    let server = Server::new(|_| Plan::ok().after(1500 * MS));
    let outcome = run(vec![LoadSpec { max_connections: 1000, ..spec(&server.url("/"), 1000.0, 1.0) }]);
    assert_eq!(baseline(&outcome).ok, 1000, "{:?}", baseline(&outcome).errors);
    assert_eq!(server.seen.open_max.load(SeqCst), 1000);
    assert_eq!(outcome.generator.connections_max, 1000);
}

#[test]
fn arrivals_beyond_the_connections_wait_until_their_deadline() {
    let server = Server::new(|_| Plan::reply("").then(Then::Hang));
    let capped = LoadSpec { max_connections: 3, deadline: 400 * MS, ..spec(&server.url("/"), 3000.0, 0.3) };
    let outcome = run(vec![capped]);
    assert_eq!(baseline(&outcome).errors, BTreeMap::from([("deadline".to_owned(), 900)]));
    assert!(outcome.generator.sent >= server.requests());
    assert_eq!(outcome.generator.connections_max, 3);
    assert!(
        outcome.generator.saturated.iter().any(|reason| reason.contains("of 900 requests were sent in time"))
    );
}

fn stopped(how: Stop) -> (LoadOutcome, Duration, u64) {
    let server = Server::new(|_| Plan::ok().after(300 * MS));
    let phase = Arc::new(PhaseCell::new(Phase::Baseline));
    block_on(async {
        let (running, _) = begin(vec![spec(&server.url("/"), 100.0, 60.0)], &phase).await;
        tokio::time::sleep(1000 * MS).await;
        let asked = Instant::now();
        running.stop(how);
        let outcome = running.finish().await;
        (outcome, asked.elapsed(), server.requests())
    })
}

#[test]
fn a_stop_in_the_middle_ends_within_a_second() {
    let (outcome, took, seen) = stopped(Stop::Now);
    assert!(took < 1000 * MS, "{took:?}");
    let (due, aborted) = (outcome.generator.due, outcome.facts.aborted);
    assert!((20..=45).contains(&aborted), "{aborted} were under way");
    assert_eq!(baseline(&outcome).ok, due);
    assert!(due + aborted >= seen && due + aborted <= seen + 1);
    let (outcome, took, seen) = stopped(Stop::Graceful);
    assert!(took < 1000 * MS, "{took:?}");
    assert_eq!((outcome.facts.aborted, baseline(&outcome).ok), (0, seen));
}

#[test]
fn a_run_that_is_dropped_sends_nothing_more() {
    let server = Server::new(|_| Plan::ok());
    let phase = Arc::new(PhaseCell::new(Phase::Baseline));
    block_on(async {
        let (running, _) = begin(vec![spec(&server.url("/"), 500.0, 60.0)], &phase).await;
        tokio::time::sleep(300 * MS).await;
        drop(running);
        tokio::time::sleep(500 * MS).await;
        let after = server.requests();
        assert!(after > 0);
        tokio::time::sleep(300 * MS).await;
        assert_eq!(server.requests(), after);
        assert_eq!(server.seen.open.load(SeqCst), 0, "its connections are closed");
    });
}

#[test]
fn each_second_has_a_tick_with_everything_that_happened() {
    let server =
        Server::new(|_| Plan::reply("HTTP/1.1 200 OK\r\nx-squall-pop: ams\r\ncontent-length: 0\r\n\r\n"));
    let phase = Arc::new(PhaseCell::new(Phase::Baseline));
    let ticks: Vec<Tick> = block_on(async {
        let (mut running, _) = begin(vec![spec(&server.url("/"), 200.0, 3.0)], &phase).await;
        let mut ticks = running.ticks().unwrap();
        assert!(running.ticks().is_none());
        let mut seen = Vec::new();
        while let Some(tick) = ticks.recv().await {
            seen.push(tick);
        }
        running.finish().await;
        seen
    });
    let seconds: Vec<u64> = ticks.iter().map(|t| t.second).collect();
    assert_eq!(seconds[..3], [0, 1, 2]);
    let phases = || ticks.iter().flat_map(|t| &t.loads[0].phases);
    assert_eq!(phases().map(|p| p.due).sum::<u64>(), 600);
    assert_eq!(phases().map(|p| p.ok).sum::<u64>(), 600);
    assert_eq!(phases().flat_map(|p| &p.pops).map(|(_, n)| n).sum::<u64>(), 600);
    assert_eq!(ticks[0].loads[0].phases[0].due, 200);
    assert!(ticks[0].lag_p99_s.is_some() && ticks[0].connections > 0);
    assert!(phases().all(|p| p.latencies.quantile(0.5) <= p.latencies.quantile(0.99)));
}

#[test]
fn names_are_resolved_once_and_every_address_is_tried() {
    let server = Server::new(|_| Plan::ok());
    // `localhost` may have an address on which nobody listens; that must not cost a request.
    let outcome = run(vec![spec(&format!("http://localhost:{}/", server.address.port()), 100.0, 0.5)]);
    assert_eq!(baseline(&outcome).ok, 50);
    let unknown = prepare(vec![spec("http://no-such-host.invalid/", 1.0, 1.0)]);
    assert!(matches!(block_on(unknown), Err(LoadError::Origin { .. })));
    assert!(matches!(block_on(prepare(vec![])), Err(LoadError::Count)));
}
