//! A host that is short of something, and undos that fail at first.

use std::process::Command;
use std::time::Duration;

use super::{PATIENCE, unjudged};
use crate::support::{Home, exe, quick, turns, until};

/// An experiment of its own targets whose `command` fault cannot be undone at the first tries.
fn stubborn(home: &Home, failures: u32) -> String {
    let (mark, tries) = (home.dir().join("broken"), home.dir().join("tries"));
    let undo = home.file(
        "undo.sh",
        &format!(
            "echo x >> {tries}\n[ $(wc -l < {tries}) -gt {failures} ] || {{ echo not yet; exit 1; }}\nrm -f {mark}\n",
            tries = tries.display(),
            mark = mark.display()
        ),
    );
    let (mark, undo) = (mark.display(), undo.display());
    unjudged(
        &format!("- command: {{do: [touch, {mark}], undo: [sh, {undo}], effect: [test, -e, {mark}]}}"),
        "",
    )
}

#[test]
fn what_the_engine_cannot_undo_the_guardian_undoes() {
    if quick("stubborn undo") {
        return;
    }
    let _turn = turns(1);
    let home = Home::new();
    let done = home.run(&stubborn(&home, 3)).code(4);
    assert!(done.err.contains("not yet"), "{}", done.err);
    assert!(done.err.contains("the guardian has undone command"), "{}", done.err);
    assert_eq!(home.record()["restoration"]["verified"], true);
    assert!(!home.dir().join("broken").exists());
    home.assert_no_leftovers();
    home.assert_nothing_left();
}

#[test]
fn what_nobody_can_undo_stays_open_for_recover() {
    if quick("hopeless undo") {
        return;
    }
    let _turn = turns(1);
    let home = Home::new();
    let done = home.run(&stubborn(&home, 6)).code(5);
    assert!(done.err.contains("squall recover --run"), "{}", done.err);
    assert!(home.dir().join("broken").exists());
    home.squall(&["recover"]).code(0);
    assert!(!home.dir().join("broken").exists());
    home.assert_no_leftovers();
}

#[test]
fn with_few_file_descriptors_everything_is_restored() {
    if quick("few descriptors") {
        return;
    }
    let _turn = turns(1);
    for (limit, expected) in
        [(24, &[3][..]), (70, &[0, 1, 3, 4, 6]), (100, &[0, 1, 4, 6]), (300, &[0, 1, 4, 6])]
    {
        let home = Home::new();
        let fault =
            "- process-pause: {service: auth}\n      - relay-latency: {instance: catalog-1, delay: 2s}";
        let text = unjudged(fault, "").replace("rate: 40/s", "rate: 400/s");
        let file = home.file("run.yaml", &text);
        let mut command = home.command();
        let narrow = Command::new("sh");
        let squall = std::mem::replace(&mut command, narrow);
        command.env_clear().envs(squall.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]).arg(exe());
        command.args(["run", file.to_str().unwrap()]).current_dir(crate::support::root());
        let done = home.start_as(command).end_within(PATIENCE + Duration::from_secs(30));
        assert!(expected.contains(&done.code), "with {limit} descriptors: {done:?}");
        home.assert_no_leftovers();
        home.assert_nothing_left();
    }
}

/// One request to a control socket, and its answer.
fn told(control: &std::path::Path, request: &str) -> serde_json::Value {
    use std::io::{BufRead as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(control).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{request}").unwrap();
    let mut answer = String::new();
    std::io::BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[test]
fn a_relay_that_has_no_descriptor_left_still_does_what_it_is_told() {
    use std::io::{BufRead as _, Write as _};
    let home = Home::new();
    let control = home.dir().join("relay.sock");
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = serde_json::json!({"control": control, "routes": [
        {"name": "web", "listen": "127.0.0.1:0", "upstream": upstream.local_addr().unwrap().to_string()},
    ]});
    let mut relay = Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$0\" __relay"])
        .arg(exe())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Its end is the relay's.
    let mut parent = relay.stdin.take().unwrap();
    writeln!(parent, "{config}").unwrap();
    let mut entries = String::new();
    std::io::BufReader::new(relay.stdout.take().unwrap()).read_line(&mut entries).unwrap();
    let entries: serde_json::Value = serde_json::from_str(&entries).unwrap();
    let listen = entries[0]["listen"].as_str().unwrap();
    let crowd: Vec<_> = (0..60).map(|_| std::net::TcpStream::connect(listen).unwrap()).collect();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", relay.id())).unwrap().count();
    until("a relay without descriptors", PATIENCE, || (open() >= 40).then_some(()));
    for _ in 0..20 {
        let answer = told(&control, r#"{"op": "list"}"#);
        assert_eq!(answer["ok"], true, "{answer}");
    }
    drop((crowd, parent));
    assert!(relay.wait().unwrap().success());
}
