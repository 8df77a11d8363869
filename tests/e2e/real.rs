//! Real servers: nginx and HAProxy from Debian, broken by relays and by signals.

use std::time::Duration;

use serde_json::Value;

use crate::support::client::get;
use crate::support::server::{Server, free_port};
use crate::support::{Done, Home, quick, turns};

/// An experiment of eleven seconds against a URL, with one fault from the third to the sixth second.
fn experiment(url: &str, relay: &str, fault: &str) -> String {
    format!(
        r#"# Does a real server survive?
squall: v1
experiment: real
question: Does a real server survive?
{relay}
warm-up: 1s
load:
  - web:
      open: {{url: "{url}", deadline: 3s, arrivals: [{{hold: {{rate: 40/s, for: 11s}}}}]}}
objectives:
  - web: {{availability: ">= 90%", p90: "<= 1s"}}
timeline:
  - at: 3s
    for: 3s
    faults:
      - {fault}
recover-within: 4s
"#
    )
}

/// A relay named `front` before a server.
fn relays(server: &Server) -> String {
    format!("relays:\n  - front: {{upstream: \"{}\", protocol: http}}", server.address())
}

/// Runs an experiment whose fault must be proven and restored, whatever becomes of the objectives.
fn proven(home: &Home, text: &str, code: i32) -> (Done, Value) {
    let done = home.run_clearly(text).code(code);
    let record = home.record();
    assert_eq!(record["injections"][0]["proof"]["status"], "confirmed", "{}", record["injections"]);
    assert_eq!(record["injections"][0]["undo"], "restored", "{}", record["injections"]);
    assert_eq!(record["restoration"]["verified"], true);
    home.assert_no_leftovers();
    (done, record)
}

fn answers(server: &Server) {
    let (status, body) = get(&server.address(), "/", Duration::from_secs(2)).unwrap();
    assert_eq!((status, body.as_str()), (200, "nginx here"));
}

#[test]
fn a_relay_in_front_of_nginx_slows_its_answers() {
    if quick("nginx behind a slow relay") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let Some(nginx) = Server::nginx(&home) else { return };
    let text =
        experiment("http://${relay.front}/", &relays(&nginx), "relay-latency: {relay: front, delay: 1200ms}");
    let (_, record) = proven(&home, &text, 1);
    let reasons = record["judgement"]["reasons"].to_string();
    assert!(reasons.contains("p90") && !reasons.contains("availability"), "{reasons}");
    answers(&nginx);
    nginx.end();
    home.assert_nothing_left();
}

#[test]
fn a_relay_in_front_of_nginx_answers_in_its_place() {
    if quick("nginx behind an aborting relay") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let Some(nginx) = Server::nginx(&home) else { return };
    let fault = "http-abort: {relay: front, status: 503, share: 40%}";
    let (_, record) = proven(&home, &experiment("http://${relay.front}/", &relays(&nginx), fault), 1);
    assert!(record["judgement"]["reasons"].to_string().contains("availability"), "{}", record["judgement"]);
    answers(&nginx);
    nginx.end();
    home.assert_nothing_left();
}

#[test]
fn nginx_is_paused_with_all_its_workers_by_its_port() {
    if quick("paused nginx") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let Some(nginx) = Server::nginx(&home) else { return };
    let fault = format!("process-pause: {{port: {}}}", nginx.port);
    let text = experiment(&format!("http://{}/", nginx.address()), "", &fault);
    let (_, record) = proven(&home, &text, 1);
    // The master and both workers hold the socket.
    assert_eq!(record["injections"][0]["proof"]["requested"], "3 stopped");
    answers(&nginx);
    nginx.end();
    home.assert_nothing_left();
}

#[test]
fn nginx_is_killed_by_its_port_and_started_again() {
    if quick("killed nginx") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let Some(nginx) = Server::nginx(&home) else { return };
    let before = nginx.pid();
    let restart = serde_json::to_string(&nginx.argv).unwrap();
    let fault = format!("process-kill: {{port: {}, restart: {restart}}}", nginx.port);
    proven(&home, &experiment(&format!("http://{}/", nginx.address()), "", &fault), 1);
    assert_ne!(nginx.pid(), before);
    answers(&nginx);
    nginx.end();
    home.assert_nothing_left();
}

#[test]
fn haproxy_is_killed_by_its_pid_file_and_started_again() {
    if quick("killed HAProxy") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let Some(nginx) = Server::nginx(&home) else { return };
    let Some(haproxy) = Server::haproxy(&home, nginx.port) else { return nginx.end() };
    answers(&haproxy);
    let restart = serde_json::to_string(&haproxy.argv).unwrap();
    let fault = format!("process-kill: {{pid-file: \"{}\", restart: {restart}}}", haproxy.pid_file.display());
    proven(&home, &experiment(&format!("http://{}/", haproxy.address()), "", &fault), 1);
    answers(&haproxy);
    haproxy.end();
    nginx.end();
    home.assert_nothing_left();
}

#[test]
fn haproxy_is_paused_by_its_port_and_a_killed_squall_lets_it_run_again() {
    let (_turn, home) = (turns(2), Home::new());
    let Some(nginx) = Server::nginx(&home) else { return };
    let Some(haproxy) = Server::haproxy(&home, nginx.port) else { return nginx.end() };
    let port = haproxy.port.to_string();
    let mut going = home.start(&["inject", "process-pause", "--port", &port, "--for", "30s"]);
    going.says("pause haproxy", Duration::from_secs(10));
    assert!(get(&haproxy.address(), "/", Duration::from_millis(300)).is_err());
    going.signal(rustix::process::Signal::KILL);
    going.end().code(137);
    crate::support::until("HAProxy again", Duration::from_secs(1), || {
        get(&haproxy.address(), "/", Duration::from_millis(300)).ok()
    });
    haproxy.end();
    nginx.end();
    home.assert_nothing_left();
}

#[test]
fn a_relay_whose_port_is_taken_refuses_the_run() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let listen = taken.local_addr().unwrap();
    let relay =
        format!("relays:\n  - front: {{listen: \"{listen}\", upstream: \"127.0.0.1:{}\"}}", free_port());
    let fault = "relay-latency: {relay: front, delay: 10ms}";
    let done = home.run(&experiment("http://${relay.front}/", &relay, fault)).code(3);
    assert!(done.err.contains(&listen.to_string()), "{}", done.err);
    assert!(home.run_folders().is_empty());
    home.assert_nothing_left();
}
