//! What a load is sent over: TCP and UDP without HTTP, Unix sockets, source addresses, certificates of its own.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::load::{Body, Identity, LoadSpec, Reply, prepare};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::{Plan, Server, baseline, block_on, only_class, run, spec};

/// A request of these bytes and its reply.
fn raw(url: &str, body: &str, reply: Reply, rate: f64) -> LoadSpec {
    let mut spec = LoadSpec { max_connections: 5, ..spec(url, rate, 1.0) };
    spec.requests[0].body = Body::Bytes(body.as_bytes().to_vec());
    spec.requests[0].reply = reply;
    spec.deadline = Duration::from_millis(500);
    spec
}

/// A server that answers each line; connections are counted.
fn lines(answer: impl Fn(u64, &str) -> Vec<Vec<u8>> + Send + Sync + 'static) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let (connections, answer, nth) =
        (Arc::new(AtomicU64::new(0)), Arc::new(answer), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            stream.set_nodelay(true).unwrap();
            count.fetch_add(1, SeqCst);
            let (answer, nth) = (Arc::clone(&answer), Arc::clone(&nth));
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                    for piece in answer(nth.fetch_add(1, SeqCst), &line) {
                        let _ = stream.write_all(&piece);
                    }
                    line.clear();
                }
            });
        }
    });
    (url, connections)
}

#[test]
fn bytes_over_tcp_have_their_echo() {
    let (url, connections) =
        lines(|_, line| vec![line.as_bytes()[..3].to_vec(), line.as_bytes()[3..].to_vec()]);
    let outcome = run(vec![raw(&url, "ping 1\n", Reply::Echo, 500.0)]);
    assert_eq!((baseline(&outcome).ok, baseline(&outcome).failed()), (500, 0));
    assert!(connections.load(SeqCst) <= 5, "connections are kept");
    let (url, _) = lines(|nth, line| {
        vec![if nth % 10 == 0 { line.to_uppercase() } else { line.to_owned() }.into_bytes()]
    });
    let outcome = run(vec![raw(&url, "ping 1\n", Reply::Echo, 100.0)]);
    assert_eq!(
        (baseline(&outcome).ok, &baseline(&outcome).errors),
        (90, &[("expectation".into(), 10)].into())
    );
}

#[test]
fn a_reply_over_tcp_ends_where_it_is_said_to() {
    let pong = |nth: u64, _: &str| match nth % 4 {
        0 => vec![b"+PONG\r\n".to_vec()],
        1 => vec![b"+PO".to_vec(), b"NG\r".to_vec(), b"\n".to_vec()],
        // More than was asked for: a good reply, on a connection that is of no further use.
        2 => vec![b"+PONG\r\n+PONG\r\n".to_vec()],
        _ => vec![b"+PONG and more\r\n".to_vec()],
    };
    let (url, connections) = lines(pong);
    let outcome = run(vec![raw(&url, "PING\r\n", Reply::Until("\r\n".into()), 200.0)]);
    assert_eq!((baseline(&outcome).ok, &baseline(&outcome).errors), (200, &BTreeMap::new()));
    assert!(connections.load(SeqCst) >= 50);
    let (url, _) = lines(|_, _| vec![b"12345678".to_vec()]);
    assert_eq!(baseline(&run(vec![raw(&url, "x\n", Reply::Bytes(8), 100.0)])).ok, 100);
    assert_eq!(baseline(&run(vec![raw(&url, "x\n", Reply::First, 100.0)])).ok, 100);
    let silent = raw(&url, "no line", Reply::First, 50.0);
    assert_eq!(only_class(silent), "deadline");
    let mut picky = raw(&url, "x\n", Reply::Bytes(8), 50.0);
    picky.requests[0].expect.body_contains = Some("456".into());
    assert_eq!(baseline(&run(vec![picky.clone()])).ok, 50);
    picky.requests[0].expect.body_contains = Some("465".into());
    assert_eq!(only_class(picky), "expectation");
}

/// A UDP server, and what it does with each datagram.
fn hears(act: impl Fn(u64, &UdpSocket, &[u8], SocketAddr) + Send + 'static) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}", socket.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        for nth in 0.. {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
            act(nth, &socket, &buffer[..length], from);
        }
    });
    url
}

/// One that answers each datagram as it is told: how much later, and with what.
fn datagrams(answer: impl Fn(u64, &[u8]) -> Option<(Duration, Vec<u8>)> + Send + 'static) -> String {
    hears(move |nth, socket, sent, from| {
        let Some((delay, reply)) = answer(nth, sent) else { return };
        let socket = socket.try_clone().unwrap();
        let send = move || {
            let (_never, wait) = std::sync::mpsc::channel::<()>();
            let _ = wait.recv_timeout(delay);
            let _ = socket.send_to(&reply, from);
        };
        if delay.is_zero() { send() } else { drop(std::thread::spawn(send)) }
    })
}

#[test]
fn datagrams_have_an_echo_or_meet_their_deadline() {
    let url = datagrams(|nth, sent| (nth % 10 != 3).then(|| (Duration::ZERO, sent.to_vec())));
    let outcome = run(vec![raw(&url, "ping", Reply::Echo, 200.0)]);
    assert_eq!((baseline(&outcome).ok, &baseline(&outcome).errors), (180, &[("deadline".into(), 20)].into()));
}

/// Answers every second datagram twice and no other: half of them have an answer, be it the same for all.
#[test]
fn a_datagram_that_comes_twice_answers_once() {
    let url = hears(|nth, socket, sent, from| {
        for _ in 0..nth % 2 * 2 {
            let _ = socket.send_to(sent, from);
        }
    });
    let outcome = run(vec![raw(&url, "ping", Reply::First, 100.0)]);
    assert_eq!((baseline(&outcome).ok, &baseline(&outcome).errors), (50, &[("deadline".into(), 50)].into()));
}

#[test]
fn a_late_datagram_is_not_taken_for_the_next_answer() {
    let number = |sent: &[u8]| std::str::from_utf8(sent).unwrap().parse::<u64>().unwrap();
    let url = datagrams(move |_, sent| {
        let late = number(sent) % 5 == 0;
        Some((Duration::from_millis(if late { 250 } else { 0 }), sent.to_vec()))
    });
    let mut spec = raw(&url, "", Reply::Echo, 100.0);
    spec.requests[0].body = Body::Text("${counter}".into());
    spec.deadline = Duration::from_millis(150);
    let outcome = run(vec![spec]);
    assert_eq!((baseline(&outcome).ok, &baseline(&outcome).errors), (80, &[("deadline".into(), 20)].into()));
}

#[test]
fn a_port_on_which_nobody_listens_refuses_datagrams() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(only_class(raw(&format!("udp://{free}"), "x", Reply::Echo, 50.0)), "refused");
}

#[test]
fn a_unix_socket_takes_the_place_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 4000];
                while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                }
            });
        }
    });
    let mut spec = spec("http://some.where/", 200.0, 1.0);
    spec.unix = Some(path.clone());
    assert_eq!(baseline(&run(vec![spec.clone()])).ok, 200);
    spec.unix = Some(folder.path().join("nobody"));
    assert_eq!(only_class(spec), "refused");
}

#[test]
fn source_addresses_take_turns() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let seen: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let counts = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let from = stream.peer_addr().unwrap().ip().to_string();
            *counts.lock().unwrap().entry(from).or_default() += 1;
            let _ = stream.read(&mut [0; 4000]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let mut spec = LoadSpec { reuse: false, ..spec(&url, 100.0, 1.0) };
    spec.sources = vec!["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
    assert_eq!(baseline(&run(vec![spec.clone()])).ok, 100);
    assert_eq!(*seen.lock().unwrap(), BTreeMap::from([("127.0.0.2".into(), 50), ("127.0.0.3".into(), 50)]));
    spec.sources = vec!["::1".parse().unwrap()];
    let refused = block_on(prepare(vec![spec])).err().unwrap().to_string();
    assert!(refused.contains("another family"), "{refused}");
    let mut elsewhere = LoadSpec { reuse: false, ..super::spec(&url, 100.0, 1.0) };
    elsewhere.sources = vec!["192.0.2.1".parse().unwrap()];
    let refused = block_on(prepare(vec![elsewhere])).err().unwrap().to_string();
    assert!(refused.contains("cannot connect from 192.0.2.1"), "{refused}");
}

/// A CA, an acceptor that asks for certificates of it, and such a certificate.
fn mutual() -> (String, TlsAcceptor, Identity) {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let root = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let leaf = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let ((server, server_key), (client, client_key)) = (leaf("127.0.0.1"), leaf("client"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(root.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![server.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der())),
        )
        .unwrap();
    let identity = Identity { certificate: client.pem(), key: client_key.serialize_pem() };
    (root.pem(), TlsAcceptor::from(Arc::new(config)), identity)
}

#[test]
fn servers_that_ask_for_a_certificate_are_shown_one() {
    let (root, acceptor, identity) = mutual();
    let server = Server::tls(acceptor, |_| Plan::ok());
    let mut spec = LoadSpec { reuse: false, ..spec(&format!("https://{}/", server.address), 50.0, 1.0) };
    spec.tls.ca = Some(root);
    spec.tls.resume = false;
    let without = run(vec![spec.clone()]);
    assert_eq!(baseline(&without).ok, 0, "{:?}", baseline(&without).errors);
    spec.tls.identity = Some(identity.clone());
    let outcome = run(vec![spec.clone()]);
    assert_eq!((baseline(&outcome).ok, baseline(&outcome).failed()), (50, 0));
    let handshakes = reports::Latencies::decode(&outcome.loads[0].phases[0].handshakes).unwrap();
    assert_eq!(handshakes.count(), 50, "a handshake for each connection, with a time of its own");
    assert!(handshakes.max() < Some(0.5));
    for (certificate, key, says) in [
        ("no PEM", identity.key.as_str(), "certificate: there is none"),
        (identity.certificate.as_str(), "no PEM", "the client's key"),
        (identity.certificate.as_str(), mutual().2.key.as_str(), "certificate and key"),
    ] {
        spec.tls.identity = Some(Identity { certificate: certificate.into(), key: key.into() });
        let refused = block_on(prepare(vec![spec.clone()])).err().unwrap().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}
