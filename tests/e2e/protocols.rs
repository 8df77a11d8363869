//! What a load speaks besides HTTP/1.1, with servers from Debian: nginx and nghttpd over HTTP/2, dnsmasq.

use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::server::{Server, free_port, program};
use crate::support::{Home, quick, turns, until};

/// A program that runs in the foreground until this is dropped.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn new(argv: &[&str]) -> Self {
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate for 127.0.0.1 and its key, in files; it is its own authority.
pub(crate) fn certificate(home: &Home) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let path = |name: &str, text: &str| home.file(name, text).to_str().unwrap().to_owned();
    (path("server.pem", &certificate), path("server.key", &key))
}

/// What came of a load. Where this machine has no time to spare, a good result is doubted (6): what was answered is answered.
pub(crate) fn sent(home: &Home, args: &[&str], code: i32) -> Value {
    let done = home.squall(&[&["load"], args, &["--deadline", "20s", "--json"]].concat());
    let done = if code == 0 && done.code == 6 { done } else { done.code(code) };
    serde_json::from_str(&done.out).unwrap()
}

pub(crate) fn count(result: &Value, what: &str) -> u64 {
    result[what].as_u64().unwrap()
}

#[test]
fn http_2_within_tls_survives_the_connections_that_nginx_ends() {
    if quick("HTTP/2 within TLS") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let (certificate, key) = certificate(&home);
    let (both, old, asking) = (free_port(), free_port(), free_port());
    let tls = format!("ssl_certificate {certificate}; ssl_certificate_key {key};");
    let body = "location / { default_type text/plain; return 200 'nginx here'; }";
    let http = format!(
        "access_log off; keepalive_requests 100;\n\
         server {{ listen 127.0.0.1:{both} ssl http2; {tls} {body} }}\n\
         server {{ listen 127.0.0.1:{old} ssl; {tls} {body} }}\n\
         server {{ listen 127.0.0.1:{asking} ssl http2; {tls} ssl_client_certificate {certificate};\n\
         ssl_verify_client on; {body} }}\n"
    );
    let Some(server) = Server::nginx_with(&home, &http, "location / { return 200; }") else { return };
    let url = |port: u16| format!("https://127.0.0.1:{port}/");
    let (url_both, url_old, url_asking) = (url(both), url(old), url(asking));
    let two = ["--http", "2", "--ca", &certificate, "--connections", "4", "--streams", "10"];
    let short = ["--rate", "50/s", "--for", "1s"];
    let result = sent(&home, &[&[&*url_both, "--rate", "200/s", "--for", "4s"][..], &two[..]].concat(), 0);
    assert_eq!((count(&result, "intended"), count(&result, "ok")), (800, 800), "{result}");
    // 100 requests on each: nginx said goodbye again and again, and nobody noticed.
    assert!(count(&result["handshakes"], "count") >= 6, "{result}");
    // A server that speaks only HTTP/1.1 is no success, and no wait without an end.
    let result = sent(&home, &[&[&*url_old][..], &short[..], &two[..]].concat(), 6);
    assert_eq!(count(&result, "ok"), 0, "{result}");
    assert!(result["errors"].get("tls").or(result["errors"].get("protocol")).is_some(), "{result}");
    // One that asks for a certificate answers 400 to those who have none.
    let result = sent(&home, &[&[&*url_asking][..], &short[..], &two[..]].concat(), 6);
    assert_eq!(result["statuses"]["400"], 50, "{result}");
    let identity = ["--cert", &certificate, "--key", &key];
    let result = sent(&home, &[&[&*url_asking][..], &short[..], &two[..], &identity[..]].concat(), 0);
    assert_eq!(count(&result, "ok"), 50, "{result}");
    server.end();
    home.assert_nothing_left();
}

#[test]
fn http_2_without_tls_is_spoken_with_nghttpd() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(nghttpd) = program("nghttpd") else { return };
    let (port, folder) = (free_port().to_string(), home.dir().to_str().unwrap().to_owned());
    home.file("page", "hello from nghttpd");
    let argv = [nghttpd.to_str().unwrap(), "--no-tls", "-a", "127.0.0.1", "-d", &folder, &port];
    let _server = Program::new(&argv);
    let address = format!("127.0.0.1:{port}");
    until("nghttpd listens", Duration::from_secs(10), || TcpStream::connect(&address).ok());
    let url = format!("http://{address}/page");
    let args = [
        &*url,
        "--http",
        "2",
        "--rate",
        "2000/s",
        "--for",
        "2s",
        "--expect",
        "header server contains nghttpd",
    ];
    let result = sent(&home, &args, 0);
    assert_eq!((count(&result, "ok"), &result["errors"]), (4000, &serde_json::json!({})), "{result}");
    let missing = format!("http://{address}/missing");
    let result = sent(&home, &[&missing, "--http", "2", "--rate", "50/s", "--for", "1s"], 6);
    assert_eq!(
        (&result["statuses"]["404"], &result["errors"]["status"]),
        (&50.into(), &50.into()),
        "{result}"
    );
}

#[test]
fn names_are_asked_for_and_codes_are_told() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(dnsmasq) = program("dnsmasq") else { return };
    let port = free_port();
    let (listen, pid) = (format!("--port={port}"), format!("--pid-file={}/dns.pid", home.dir().display()));
    let argv = [
        dnsmasq.to_str().unwrap(),
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        &pid,
        &listen,
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--address=/known.example/192.0.2.7",
    ];
    let _server = Program::new(&argv);
    // Once the port is taken it listens.
    until("dnsmasq listens", Duration::from_secs(10), || UdpSocket::bind(("127.0.0.1", port)).err());
    let ask = |name: &str, rate: &str, code: i32| {
        let url = format!("dns://127.0.0.1:{port}/{name}");
        sent(&home, &[&url, "--rate", rate, "--for", "2s", "--connections", "20"], code)
    };
    let result = ask("known.example?type=A", "500/s", 0);
    assert_eq!((count(&result, "ok"), &result["errors"]), (1000, &serde_json::json!({})), "{result}");
    let result = ask("other.example", "50/s", 6);
    let (status, answers) = (&result["errors"]["status"], &result["statuses"]["5"]);
    assert_eq!((status, answers), (&100.into(), &100.into()), "dnsmasq refuses (5): {result}");
}
