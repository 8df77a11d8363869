//! Laws of reading logs: what is taken, what is left out and told, and that no bytes make it panic.

use proptest::prelude::*;

use super::*;

fn read(log: &str, change: impl FnOnce(&mut Options)) -> Result<Trace, String> {
    let mut options = Options::default();
    change(&mut options);
    Trace::read(log.as_bytes(), &options)
}

/// Milliseconds and targets.
fn told(trace: &Trace) -> Vec<(u64, String)> {
    let entry = |(at, shot): &(u64, u32)| (at / 1_000_000, trace.shots[*shot as usize].target.to_string());
    trace.entries.iter().map(entry).collect()
}

const NGINX: &str = r#"127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a?b=c HTTP/1.1" 200 12 "-" "curl/8"
127.0.0.1 - ann [x] [10/Oct/2000:13:55:38 -0700] "HEAD /h HTTP/1.1" 200 12
nonsense
127.0.0.1 - - [10/Oct/2000:13:55:38 -0700] "GET /\x22quoted\xC3\xBC HTTP/1.1" 200 12 "-" "a"
127.0.0.1 - - [10/Oct/2000:13:55:37 -0700] "GET /a?b=c HTTP/2.0" 200 12 "-" "a"

127.0.0.1 - - [10/Oct/2000:13:55:38 -0700] "POST /p HTTP/1.1" 200 12 "-" "a"
127.0.0.1 - - [10/Oct/2000:13:55:38 -0700] "\x16\x03\x01" 400 150 "-" "-"
127.0.0.1 - - [yesterday] "GET / HTTP/1.1" 200 12 "-" "a"
127.0.0.1 - - [10/Oct/2000:13:55:38 -0700] "GET * HTTP/1.1" 200 12 "-" "a"
"#;

#[test]
fn a_log_in_the_combined_format_becomes_what_was_asked_for_and_when() {
    let trace = read(NGINX, |_| ()).unwrap();
    let expected = [(0, "/a?b=c"), (1000, "/a?b=c"), (2000, "/h"), (2500, "/\"quoted%C3%BC")];
    let told: Vec<_> = told(&trace);
    assert_eq!(told.iter().map(|(at, path)| (*at, path.as_str())).collect::<Vec<_>>(), expected);
    assert_eq!(trace.distinct(), 3, "what is the same is kept once");
    assert_eq!(trace.methods(), ["GET", "HEAD"]);
    let notes = trace.notes().join("\n");
    for note in [
        "2 entries of the log are left out: not as the format wants it (first in line 3, 8)",
        "1 entry of the log is left out: with a method that is not sent again (say `methods` to send it) (first in line 7)",
        "without a time that can be read (first in line 9)",
        "without a path that can be sent (first in line 10)",
        "whole seconds",
    ] {
        assert!(notes.contains(note), "{note}\n{notes}");
    }
    let posts = read(NGINX, |o| o.methods = vec!["POST".to_owned()]).unwrap_err();
    assert!(
        posts.contains("nothing in it can be sent again") && posts.contains("a body that is not in the log")
    );
    assert!(read("", |_| ()).unwrap_err().contains("it is empty"));
}

#[test]
fn json_lines_are_read_as_nginx_envoy_and_caddy_write_them() {
    let nginx = r#"{"msec": "971211336.250", "request_time": "0.250", "request": "GET /n HTTP/1.1"}
{"msec": "971211336.500", "request_time": "0.000", "request": "GET /m HTTP/1.1"}"#;
    assert_eq!(told(&read(nginx, |_| ()).unwrap()), [(0, "/n".to_owned()), (500, "/m".to_owned())]);
    let envoy = r#"{"start_time": "2000-10-10T20:55:36.100Z", "duration": 900, "method": "GET", "path": "/e"}
{"start_time": "2000-10-10T20:55:36.350Z", "duration": 5, "method": "GET", "path": "/f"}"#;
    assert_eq!(told(&read(envoy, |_| ()).unwrap()), [(0, "/e".to_owned()), (250, "/f".to_owned())]);
    let caddy = r#"{"ts": 971211337.5, "duration": 1.5, "request": {"method": "GET", "host": "x", "uri": "/c"}}
{"ts": 971211336.75, "duration": 0.5, "request": {"method": "GET", "host": "x", "uri": "/d"}}"#;
    assert_eq!(told(&read(caddy, |_| ()).unwrap()), [(0, "/c".to_owned()), (250, "/d".to_owned())]);
    let own = r#"{"when": 1000, "verb": "PUT", "at": {"what": "/o"}, "sent": "{\"a\":1}"}"#;
    let trace = read(own, |options| {
        for (what, key) in [("time", "when"), ("method", "verb"), ("path", "at.what"), ("body", "sent")] {
            options.fields.set(what, key).unwrap();
        }
        options.methods = methods(["PUT"]).unwrap();
    });
    let trace = trace.unwrap();
    assert_eq!((&*trace.shot(0).body, &*trace.shot(0).content_type), (&b"{\"a\":1}"[..], "application/json"));
    assert!(Fields::default().set("tim", "x").unwrap_err().contains("did you mean `time`?"));
}

const HAR: &str = r#"{"log": {"version": "1.2", "entries": [
 {"startedDateTime": "2000-10-10T20:55:37.000Z", "time": 5, "request": {"method": "POST", "url": "https://a/login", "headers": [{"name": "Cookie", "value": "s=1"}],
  "postData": {"mimeType": "application/x-www-form-urlencoded", "text": "user=a&password=hunter2"}}, "response": {"status": 200}},
 {"startedDateTime": "2000-10-10T20:55:36.500Z", "request": {"method": "GET", "url": "https://a?token=hunter2#x"}},
 {"startedDateTime": "2000-10-10T20:55:38.000Z", "request": {"method": "GET", "url": "https://cdn/x.js"}}
]}}"#;

#[test]
fn a_har_is_sent_again_without_its_secrets() {
    let both = |keep: bool| {
        let change = |options: &mut Options| {
            options.methods = methods(["GET", "POST"]).unwrap();
            options.keep_secrets = keep;
        };
        read(HAR, change).unwrap()
    };
    let clean = both(false);
    assert_eq!(told(&clean), [(0, "/?token=scrubbed".to_owned()), (500, "/login".to_owned())]);
    assert_eq!(&*clean.shot(1).body, b"user=a&password=scrubbed");
    assert!(!format!("{clean:?}").contains("hunter2"), "it is not even kept");
    let notes = clean.notes().join("\n");
    assert!(notes.contains("another host") && notes.contains("2 values that look secret"), "{notes}");
    assert_eq!(&*both(true).shot(1).body, b"user=a&password=hunter2");
    assert!(read("{\"log\": 5}", |_| ()).unwrap_err().contains("no HAR: see line 1"));
}

#[test]
fn gaps_shrink_with_the_speed_and_equal_times_keep_their_order() {
    let log: String = (0..100)
        .map(|n| {
            format!("{{\"ts\": {}, \"method\": \"GET\", \"uri\": \"/{n}\"}}\n", 1e9 + f64::from(n / 10) * 0.5)
        })
        .collect();
    for (speed, gap) in [(0.5, 1000), (1.0, 500), (2.0, 250)] {
        let trace = read(&log, |options| options.speed = speed).unwrap();
        let expected: Vec<_> = (0..100).map(|n| (n / 10 * gap, format!("/{n}"))).collect();
        assert_eq!(told(&trace), expected);
        assert_eq!(trace.profile().unwrap().total().round() as usize, 100);
    }
    assert_eq!((speed("2x"), speed("0.5")), (Ok(2.0), Ok(0.5)));
    for wrong in ["", "x", "0", "-1x", "1e9", "NaN", "fast"] {
        assert!(speed(wrong).is_err(), "{wrong}");
    }
    assert!(methods(["GET", "BREW"]).unwrap_err().contains("`BREW`"));
}

#[test]
fn what_a_log_looks_like() {
    assert_eq!(Format::of(HAR.as_bytes()), Format::Har);
    assert_eq!(Format::of(NGINX.as_bytes()), Format::Combined);
    assert_eq!(Format::of(b"\n{\"ts\": 1}"), Format::Json);
    assert_eq!(Format::of(b""), Format::Combined);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..3usize) {
        let format = Some(Format::WORDS[kind].1);
        let _ = Trace::read(&bytes, &Options { format, ..Options::default() });
    }

    #[test]
    fn nearly_good_lines_do_not_either(line in "[\\[\\]\" GET/x\\\\:0-9+{}]{0,80}") {
        let good = NGINX.lines().next().unwrap();
        let log = format!("{good}\n{line}\n{}{line}", &good[..20]);
        let trace = read(&log, |options| options.format = Some(Format::Combined)).unwrap();
        prop_assert!(!trace.is_empty());
    }

    #[test]
    fn what_is_sent_is_always_a_target(path in any::<String>()) {
        if let Some(target) = sendable(&path) {
            prop_assert!(target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic()));
            let again = sendable(&target);
            prop_assert_eq!(again.as_deref(), Some(target.as_str()));
        }
    }
}
