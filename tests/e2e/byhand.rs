//! What people do by hand: recovering, declaring something put right, injecting before a server of their own; and that
//! nothing of it shows what is secret.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use crate::lifecycle::experiment;
use crate::support::client::get;
use crate::support::{Home, turns};

/// A fault whose undo never succeeds, as long as it is not put right by hand.
fn stuck(home: &Home) -> Vec<String> {
    let broken = home.dir().join("broken").display().to_string();
    let words = ["inject", "command", "--for", "300ms", "--undo", "false", "--do", "touch", "--do", &broken];
    let effect = ["--effect", "test", "--effect", "-e", "--effect", &broken];
    words.iter().chain(&effect).map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_change_that_cannot_be_undone_can_be_declared_put_right_and_the_journal_says_by_whom() {
    let _turn = turns(1);
    let home = Home::new();
    let stuck = stuck(&home);
    let inject: Vec<&str> = stuck.iter().map(String::as_str).collect();
    home.squall(&inject).code(5);
    let run = home.json(&["recover", "--list", "--json"])["runs"][0]["run"].as_str().unwrap().to_owned();

    let refused = home.squall(&inject).code(3);
    assert!(refused.err.contains("ended with what it could not undo: 1 change"), "{}", refused.err);
    assert!(!refused.err.contains("cut off"), "{}", refused.err);
    let failed = home.squall(&["recover"]).code(5);
    for says in ["failed to restore command", "by hand: false", &format!("recover --run {run} --forget 1")] {
        assert!(failed.err.contains(says), "{says}: {}", failed.err);
    }
    let listed = home.squall(&["recover", "--list"]).code(0);
    assert!(listed.out.contains("undo failed: `false` ended with code 1"), "{}", listed.out);

    home.squall(&["recover", "--forget", "1"]).code(2);
    let wrong = home.squall(&["recover", "--run", &run, "--forget", "7"]).code(2);
    assert!(wrong.err.contains("no open change `7`; open: 1"), "{}", wrong.err);
    home.squall(&["recover", "--list"]).code(0);
    let declared = home.squall(&["recover", "--run", &run, "--forget", "1"]).code(0);
    for says in ["declared put right by", "may still be there: run `touch", "by hand: false"] {
        assert!(declared.err.contains(says), "{says}: {}", declared.err);
    }
    let journal = std::fs::read_to_string(home.run_folders()[0].join("journal.jsonl")).unwrap();
    assert!(journal.contains("\"declared\"") && journal.contains("uid "), "{journal}");
    assert!(home.dir().join("broken").exists(), "nothing is undone");
    home.assert_no_leftovers();
    // What is still broken cannot be broken again, but nothing is in the way of others.
    let other = home.squall(&inject);
    assert!(other.err.contains("says that it is broken already"), "{other:?}");
    home.assert_nothing_left();
}

#[test]
fn a_fault_can_be_injected_before_a_server_of_ones_own() {
    let _turn = turns(1);
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // The whole head: what is left unread at the end would reset the connection.
            let head = BufReader::new(&stream).lines().map_while(Result::ok);
            let _ = head.take_while(|line| !line.is_empty()).count();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        }
    });
    let relay = format!("own={server}");
    let mut going = home.start(&[
        "inject",
        "http-abort",
        "--relay",
        &relay,
        "--status",
        "503",
        "--share",
        "100%",
        "--for",
        "4s",
    ]);
    going.says("http-abort on relay own", Duration::from_secs(10));
    let story = going.story();
    let (_, rest) = story.split_once("listens on ").unwrap_or_else(|| panic!("{story}"));
    let address = rest.split(' ').next().unwrap();
    assert_eq!(get(address, "/", Duration::from_secs(2)).unwrap().0, 503);
    assert_eq!(get(&server.to_string(), "/", Duration::from_secs(2)).unwrap().0, 200);
    let done = going.end().code(0);
    assert!(done.out.contains("confirmed"), "{}", done.out);
    for (wrong, says) in
        [("own", "NAME=HOST:PORT"), ("own=192.0.2.1:80", "not this machine"), ("own=x", "HOST:PORT")]
    {
        let call = ["inject", "relay-latency", "--delay", "1ms", "--for", "1s", "--relay", wrong];
        let done = home.squall(&call).code(2);
        assert!(done.err.contains(says), "{wrong}: {}", done.err);
    }
    home.assert_nothing_left();
}

/// With characters that every format escapes in its own way.
const SECRET: &str = "s3cr\"t-\\-\u{fc}-token";

#[test]
fn what_a_failing_command_says_hides_secrets_wherever_it_is_told() {
    let _turn = turns(2);
    let home = Home::new();
    let marker = home.dir().join("marker").display().to_string();
    let undo = home.file("undo.sh", "printf 'denied for %s\\n' \"$1\"; exit 4\n").display().to_string();
    let fault = format!(
        "- command: {{do: [touch, '{marker}'], undo: [sh, '{undo}', '${{TOKEN}}'], effect: [test, -e, '{marker}']}}"
    );
    let file = home.file("run.yaml", &experiment(&fault, ""));
    let wrong = home.file("wrong.yaml", &experiment(&fault, "").replace("3s\n", "\"${TOKEN}\"\n"));
    let (file, wrong) = (file.to_str().unwrap(), wrong.to_str().unwrap());
    let pieces = ["s3cr", "-token"];
    let calls: [(&[&str], i32); 8] = [
        (&["check", wrong], 2),
        (&["plan", wrong, "--json"], 2),
        (&["plan", file], 0),
        (&["plan", file, "--json"], 0),
        (&["run", file, "--json"], 5),
        (&["recover"], 5),
        (&["recover", "--list"], 0),
        (&["run", file], 3),
    ];
    for (call, code) in calls {
        let squall = || {
            let mut command = home.command();
            command.args(call).env("TOKEN", SECRET);
            home.start_as(command).end()
        };
        let done = if code == 5 && call[0] == "run" { home.clearly(squall) } else { squall() };
        let done = done.code(code);
        for text in [&done.out, &done.err] {
            assert!(!pieces.iter().any(|piece| text.contains(piece)), "{call:?}: {text}");
        }
        if call[0] == "plan" && code == 0 {
            assert!(done.out.contains("${env:TOKEN}"), "{call:?}: {}", done.out);
        }
    }
    let folder = &home.run_folders()[0];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(!pieces.iter().any(|piece| text.contains(piece)), "{}: {text}", path.display());
    }
    let journal = std::fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    assert!(journal.contains("denied for ${env:TOKEN}"), "the message itself is kept: {journal}");
    std::fs::remove_file(&marker).unwrap();
    let mut command = home.command();
    command.arg("recover").env("TOKEN", SECRET);
    home.start_as(command).end().code(0);
    home.assert_no_leftovers();
    home.assert_nothing_left();
}
