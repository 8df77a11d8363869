//! Loads that other processes send: counts, losses, strangers, and who outlives whom.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::home::Going;
use crate::support::server::Server;
use crate::support::{Home, process, quick, turns, until};

const TOKEN: &str = "a-token-of-some-length";

/// The children of a coordinator.
fn children(home: &Home) -> Vec<u32> {
    let own = |pid: &u32| process::command_line(*pid).contains("__load-worker");
    process::of_home(home.dir()).into_iter().filter(own).collect()
}

/// A worker that listens, and where.
fn listening(home: &Home, token: &str) -> (Going, String) {
    let mut command = home.command();
    command.args(["worker", "--listen", "127.0.0.1:0"]).env("SQUALL_WORKER_TOKEN", token);
    let mut worker = home.start_as(command);
    worker.says("listening at ", Duration::from_secs(10));
    let story = worker.story();
    let at = story.split("listening at ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    (worker, at)
}

#[test]
fn four_processes_send_exactly_what_one_would() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/", server.address());
    let args = ["load", &url, "--rate", "2000/s", "--for", "3s", "--workers", "4", "--json"];
    let done = home.squall(&args).code(0);
    let result: Value = serde_json::from_str(&done.out).unwrap();
    for field in ["intended", "sent", "ok"] {
        assert_eq!(result[field], 6000, "{field}: {result}");
    }
    assert_eq!(result["generator"]["workers"], 4);
    for series in ["response", "service", "lag"] {
        assert_eq!(result[series]["count"], 6000, "{series}: the distributions of all four are one");
    }
    let p50 = |series: &str| result[series]["p50_s"].as_f64().unwrap();
    assert!(p50("service") <= p50("response"), "{result}");
    assert!(result["reproduce"].as_str().unwrap().ends_with("--workers 4"));
    server.end();
    home.assert_nothing_left();
}

#[test]
fn a_lost_worker_is_named_and_never_a_smaller_load() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/", server.address());
    let mut going = home.start(&["load", &url, "--rate", "400/s", "--for", "5s", "--workers", "3"]);
    going.says("   2 of 5 s", Duration::from_secs(20));
    let victim = children(&home)[1];
    process::signal(victim, Signal::KILL);
    let done = going.end().code(6);
    let named = format!("(process {victim}) was lost after second");
    assert!(done.out.replace('\n', " ").contains(&named), "{}", done.out);
    assert!(done.out.contains("inconclusive"), "{}", done.out);
    server.end();
    home.assert_nothing_left();
}

#[test]
fn no_worker_outlives_its_coordinator() {
    if quick("workers whose coordinator is killed") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/", server.address());
    let mut going = home.start(&["load", &url, "--rate", "400/s", "--for", "60s", "--workers", "3"]);
    going.says("   1 of 60 s", Duration::from_secs(20));
    assert_eq!(children(&home).len(), 3);
    going.signal(Signal::KILL);
    assert_eq!(going.end().code, 128 + 9);
    until("no worker", Duration::from_secs(5), || children(&home).is_empty().then_some(()));
    // ^C ends them in peace.
    let mut going = home.start(&["load", &url, "--rate", "400/s", "--for", "60s", "--workers", "2"]);
    going.says("   1 of 60 s", Duration::from_secs(20));
    going.signal(Signal::INT);
    let done = going.end_within(Duration::from_secs(10)).code(4);
    assert!(done.out.contains("ended by the operator") && !done.out.contains("lost"), "{}", done.out);
    server.end();
    home.assert_nothing_left();
}

#[test]
fn a_worker_elsewhere_stops_by_its_own_lease() {
    if quick("a worker's lease") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = Server::nginx(&home) else { return };
    let url = format!("http://{}/", server.address());
    let (mut worker, at) = listening(&home, TOKEN);
    let coordinator = |length: &str| {
        let mut command = home.command();
        command.args(["load", &url, "--rate", "300/s", "--for", length, "--worker", &at]);
        command.env("SQUALL_WORKER_TOKEN", TOKEN);
        home.start_as(command)
    };
    coordinator("2s").end().code(0);
    let mut going = coordinator("60s");
    going.says("   1 of 60 s", Duration::from_secs(20));
    // While it serves one, another is told so.
    let done = coordinator("2s").end().code(3);
    assert!(done.err.contains("it is sending another load"), "{}", done.err);
    // Stopped, it hangs up nothing: only the lease tells.
    going.signal(Signal::STOP);
    worker.says("it said nothing for 5 s", Duration::from_secs(15));
    going.signal(Signal::CONT);
    let done = going.end().code(6);
    assert!(done.out.replace('\n', " ").contains("was lost after second"), "{}", done.out);
    // It serves the next.
    coordinator("2s").end().code(0);
    worker.signal(Signal::INT);
    worker.end().code(0);
    server.end();
    home.assert_nothing_left();
}

#[test]
fn strangers_are_answered_in_time_and_get_nothing() {
    let (_turn, home) = (turns(1), Home::new());
    let (worker, at) = listening(&home, TOKEN);
    let answer = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(&at).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(bytes).unwrap();
        let (began, mut said) = (Instant::now(), Vec::new());
        // Ends with its hanging up.
        let _ = socket.read_to_end(&mut said);
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        String::from_utf8_lossy(&said).into_owned()
    };
    let framed = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let nonce = "A".repeat(43) + "=";
    let hello =
        |version: u32| framed(&format!(r#"{{"word":"hello","protocol":{version},"nonce":"{nonce}"}}"#));
    let guess = framed(r#"{"word":"proof","proof":"AAAA"}"#);
    let says = |bytes: &[u8], text: &str| {
        let said = answer(bytes);
        assert!(said.contains("refused") && said.contains(text), "{said}");
        assert!(!said.contains(TOKEN));
    };
    // All at once: the silent ones take the five seconds that they are given.
    std::thread::scope(|scope| {
        scope.spawn(|| says(b"", "it said nothing for 5 s"));
        scope.spawn(|| says(&hello(2)[..30], "it said nothing for 5 s"));
        scope.spawn(|| says(&hello(2), "it said nothing for 5 s"));
        scope.spawn(|| says(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "a frame of"));
        scope.spawn(|| says(&framed("{}"), "no word that is known"));
        scope.spawn(|| says(&framed(r#"{"word":"renew"}"#), "that was no hello"));
        scope.spawn(|| says(&hello(1), "version 1 of the protocol"));
        scope.spawn(|| says(&[hello(2), guess.clone()].concat(), "its token is another one"));
    });
    let url = "http://127.0.0.1:1/";
    let load = |token: &str| {
        let mut command = home.command();
        command.args(["load", url, "--rate", "5/s", "--for", "1s", "--worker", &at]);
        home.start_as({
            command.env("SQUALL_WORKER_TOKEN", token);
            command
        })
    };
    let done = load("another-token-of-length").end().code(3);
    assert!(done.err.contains("its token is another one"), "{}", done.err);
    // Nobody answers at port 1, but it is sent all the same: the worker is as good as new.
    assert!(load(TOKEN).end().code(6).out.contains("refused"));
    worker.signal(Signal::INT);
    worker.end().code(0);
    for (args, code, says) in [
        (&["worker", "--listen", "0.0.0.0:0"][..], 2, "--token-file"),
        (&["worker", "--listen", "nonsense"], 2, "write it as"),
        (&["worker", "--token-file", "/nowhere"], 2, "/nowhere"),
        (&["load", url, "--rate", "5/s", "--for", "1s", "--worker", "127.0.0.1:1"], 3, "no connection"),
        (&["load", url, "--rate", "5/s", "--for", "1s", "--workers", "65"], 2, "1..=64"),
        (
            &["load", url, "--rate", "5/s", "--for", "1s", "--workers", "4", "--connections", "2"],
            2,
            "cannot share 2",
        ),
    ] {
        let done = home.squall(args).code(code);
        assert!(done.err.contains(says), "{args:?}: {}", done.err);
    }
    home.assert_nothing_left();
}
