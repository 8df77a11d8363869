//! HTTP/3 with Debian's caddy, which speaks it by quic-go.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::protocols::{Program, certificate, count, sent};
use crate::support::server::{free_port, program};
use crate::support::{Home, quick, turns, until};

const EXPERIMENT: &str = r#"squall: v1
experiment: three
question: Is HTTP/3 spoken?
load:
  - home: {open: {url: "https://127.0.0.1:1/", http: 3, streams: 7, arrivals: [{hold: {rate: 50/s, for: 20s}}]}}
objectives:
  - home: {availability: ">= 90%"}
relays:
  - web: {upstream: "127.0.0.1:1"}
timeline:
  - {at: 8s, for: 2s, faults: [{relay-latency: {relay: web, delay: 10ms}}]}
"#;

/// caddy on three ports: one that speaks everything, one over TCP alone, one that asks for a certificate.
struct Caddy {
    _program: Program,
    all: u16,
    old: u16,
    asking: u16,
}

impl Caddy {
    fn new(home: &Home, certificate: &str, key: &str) -> Option<Self> {
        let caddy = program("caddy")?;
        let (all, old, asking) = (free_port(), free_port(), free_port());
        let server = |port: u16, protocols: &[&str], policy: Value| {
            let says = |status: u16, body: &str| {
                json!([{"handler": "static_response", "status_code": status, "body": body,
                        "headers": {"Content-Type": ["application/json"]}}])
            };
            json!({
                "listen": [format!("127.0.0.1:{port}")],
                "automatic_https": {"disable": true},
                // An address is no server name.
                "strict_sni_host": false,
                "protocols": protocols,
                "tls_connection_policies": [policy],
                "routes": [
                    {"match": [{"path": ["/missing"]}], "handle": says(404, "{}")},
                    {"match": [{"path": ["/echo"]}], "handle": says(200, "{http.request.body}")},
                    {"handle": says(200, r#"{"spoken": "{http.request.proto}", "from": "{http.request.remote.host}"}"#)},
                ],
            })
        };
        let trusting = json!({"client_authentication": {"mode": "require"}});
        let config = json!({
            "admin": {"disabled": true},
            "logging": {"logs": {"default": {"level": "ERROR"}}},
            "apps": {
                "tls": {"certificates": {"load_files": [{"certificate": certificate, "key": key}]}},
                "http": {"servers": {
                    "all": server(all, &["h1", "h2", "h3"], json!({})),
                    "old": server(old, &["h1", "h2"], json!({})),
                    "asking": server(asking, &["h1", "h2", "h3"], trusting),
                }},
            },
        });
        let file = home.file("caddy.json", &config.to_string());
        let home_is = format!("HOME={}", home.dir().display());
        let argv = ["/usr/bin/env", "-u", "XDG_DATA_HOME", "-u", "XDG_CONFIG_HOME", &home_is];
        let rest = [caddy.to_str().unwrap(), "run", "--config", file.to_str().unwrap()];
        let running = Program::new(&[&argv[..], &rest[..]].concat());
        for port in [all, old, asking] {
            until("caddy listens", Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", port)).ok());
        }
        Some(Self { _program: running, all, old, asking })
    }
}

#[test]
fn http_3_is_spoken_with_caddy() {
    if quick("HTTP/3") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let (certificate, key) = certificate(&home);
    let Some(caddy) = Caddy::new(&home, &certificate, &key) else { return };
    let three = ["--http", "3", "--ca", &certificate, "--connections", "4", "--streams", "10"];
    let load = |port: u16, path: &str, rate: &str, more: &[&str], code: i32| {
        let url = format!("https://127.0.0.1:{port}{path}");
        sent(&home, &[&[&*url, "--rate", rate, "--for", "2s"][..], &three[..], more].concat(), code)
    };
    let none = json!({});
    let good = ["--expect", "json /spoken = \"HTTP/3.0\"", "--expect", "header server contains Caddy"];
    let result = load(caddy.all, "/", "1000/s", &good, 0);
    assert_eq!((count(&result, "ok"), &result["errors"]), (2000, &none), "{result}");
    let handshakes = count(&result["handshakes"], "count");
    assert!((1..=4).contains(&handshakes), "{result}");
    // Requests that differ, with bodies.
    let more = ["--method", "POST", "--body", "{\"n\": ${counter}}", "--expect", "json /n"];
    let result = load(caddy.all, "/echo?n=${counter}", "100/s", &more, 0);
    assert_eq!((count(&result, "ok"), &result["errors"]), (200, &none), "{result}");
    let result = load(caddy.all, "/missing", "50/s", &[], 6);
    assert_eq!(
        (&result["statuses"]["404"], &result["errors"]["status"]),
        (&100.into(), &100.into()),
        "{result}"
    );
    let result = load(caddy.all, "/", "50/s", &["--expect", "json /spoken = \"HTTP/2.0\""], 6);
    assert_eq!(result["errors"]["expectation"], 100, "{result}");
    // A connection, and a handshake, for each request; from an address of our choice.
    let from = ["--no-reuse", "--source", "127.0.0.7", "--expect", "json /from = \"127.0.0.7\""];
    let result = load(caddy.all, "/", "25/s", &from, 0);
    assert_eq!((count(&result, "ok"), count(&result["handshakes"], "count")), (50, 50), "{result}");
    drop(caddy);
    home.assert_nothing_left();
}

#[test]
fn an_authoritys_certificate_is_called_so_over_quic_and_tcp() {
    let (_turn, home) = (turns(1), Home::new());
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    let path = |name: &str, text: &str| home.file(name, text).to_str().unwrap().to_owned();
    let (certificate, key) = (path("own.pem", &made.pem()), path("own.key", &key.serialize_pem()));
    let Some(caddy) = Caddy::new(&home, &certificate, &key) else { return };
    for (http, port) in [("1", caddy.old), ("3", caddy.all)] {
        let url = format!("https://127.0.0.1:{port}/");
        let asked = [&*url, "--http", http, "--ca", &certificate];
        let result = sent(&home, &[&asked[..], &["--rate", "50/s", "--for", "1s"]].concat(), 6);
        let why = result["causes"]["tls"].as_str().unwrap_or_default();
        assert!(why.contains("(CA:TRUE)") && why.contains("CA:FALSE"), "{result}");
    }
    // A search that finds nothing says why as well.
    let url = format!("https://127.0.0.1:{}/", caddy.old);
    let search = [
        "capacity",
        &url,
        "--ca",
        &certificate,
        "--objective",
        "p95 <= 50ms",
        "--start",
        "20/s",
        "--trial",
        "1s",
    ];
    let done = home.squall(&search);
    assert!(done.out.replace('\n', " ").contains("× tls (the certificate is an authority's"), "{done:?}");
    drop(caddy);
    home.assert_nothing_left();
}

#[test]
fn what_keeps_http_3_from_being_spoken_has_a_name() {
    if quick("HTTP/3 that cannot be spoken") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let (certificate, key) = certificate(&home);
    let Some(caddy) = Caddy::new(&home, &certificate, &key) else { return };
    let load = |port: u16, more: &[&str], code: i32| {
        let (url, began) = (format!("https://127.0.0.1:{port}/"), Instant::now());
        let args = [&*url, "--http", "3", "--rate", "50/s", "--for", "1s"];
        let result = sent(&home, &[&args[..], more].concat(), code);
        assert!(began.elapsed() < Duration::from_secs(15), "it ends in time");
        result
    };
    let only = |result: Value, class: &str| assert_eq!(result["errors"], json!({class: 50}), "{result}");
    let trusting = ["--ca", &certificate];
    let refused = |more: &[&str], port: u16, says: &str| {
        let result = load(port, more, 6);
        let why = result["causes"]["tls"].as_str().unwrap_or_default().to_owned();
        assert!(why.contains(says), "{says}: {result}");
        only(result, "tls");
    };
    refused(&[], caddy.all, "unknown issuer");
    refused(&[&trusting[..], &["--server-name", "other.example"]].concat(), caddy.all, "the server refused");
    refused(&trusting, caddy.asking, "the server refused");
    let identity = [&trusting[..], &["--cert", &certificate, "--key", &key]].concat();
    let result = load(caddy.asking, &identity, 0);
    assert_eq!(count(&result, "ok"), 50, "{result}");
    // Over TCP it would be there.
    only(load(caddy.old, &trusting, 6), "refused");
    only(load(free_port(), &trusting, 6), "refused");
    for (url, more, why) in [
        ("http://127.0.0.1:1/", &[][..], "within TLS only"),
        ("https://127.0.0.1:1/", &["--unix-socket", "/tmp/none"][..], "over UDP"),
    ] {
        let args = ["load", url, "--http", "3", "--rate", "50/s", "--for", "1s"];
        let done = home.squall(&[&args[..], more].concat()).code(2);
        assert!(done.err.contains(why), "{}", done.err);
    }
    for (scheme, code) in [("https", 0), ("http", 2)] {
        let text = EXPERIMENT.replace("https", scheme);
        let file = home.file("three.yaml", &text);
        let done = home.squall(&["check", file.to_str().unwrap()]).code(code);
        assert!(code == 0 || done.err.contains("three.yaml:5:5"), "{}", done.err);
    }
    drop(caddy);
    home.assert_nothing_left();
}
