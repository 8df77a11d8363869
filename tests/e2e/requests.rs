//! What is sent and what is expected: data from feeds, replayed logs. nginx says what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::schema::misfits;
use crate::support::server::Server;
use crate::support::text::yaml;
use crate::support::{Home, quick, root, turns, until};

/// Milliseconds, method, path with query, and the header x-id.
const SEEN: &str = "log_format seen escape=json '$msec|$request_method|$request_uri|$http_x_id';";
/// As nginx writes JSON, with the time of a request's end and how long it took.
const JSON: &str = r#"log_format json escape=json '{"msec": "$msec", "request_time": "$request_time", "request": "$request"}';"#;

/// nginx that keeps three logs: `seen`, `access.log` (combined), `access.json`.
fn nginx(home: &Home) -> Option<Server> {
    let dir = home.dir().display().to_string();
    let http = format!(
        "{SEEN} {JSON} access_log {dir}/seen seen; access_log {dir}/access.log combined; access_log {dir}/access.json json;"
    );
    let location = "location /json { default_type application/json; add_header x-cache HIT; return 200 '{\"ok\": true, \"items\": [{\"id\": 7}]}'; } \
                    location / { return 200 'nginx here'; }";
    Server::nginx_with(home, &http, location)
}

/// One request as nginx saw it.
#[derive(Debug, Clone)]
struct Seen {
    ms: f64,
    method: String,
    target: String,
    id: String,
}

/// What nginx has seen, once it has seen so much.
fn seen(home: &Home, at_least: usize) -> Vec<Seen> {
    let read = || {
        let text = std::fs::read_to_string(home.dir().join("seen")).unwrap();
        let one = |line: &str| {
            let mut parts = line.splitn(4, '|').map(str::to_owned);
            let mut next = || parts.next().unwrap();
            let ms = next().parse::<f64>().unwrap() * 1000.0;
            Seen { ms, method: next(), target: next(), id: next() }
        };
        let all: Vec<Seen> = text.lines().map(one).collect();
        (all.len() >= at_least).then_some(all)
    };
    until("a log of all requests", Duration::from_secs(10), read)
}

fn json(home: &Home, args: &[&str], code: i32) -> Value {
    let done = home.squall(&[args, &["--json"]].concat());
    // Where this machine has no time to spare, the result is doubted; what was sent is what the tests look at.
    let done = if code == 0 && done.code == 6 { done } else { done.code(code) };
    serde_json::from_str(&done.out).unwrap()
}

#[test]
fn requests_are_filled_from_a_feed_and_numbered_without_gaps() {
    let (_turn, home) = (turns(2), Home::new());
    let Some(server) = nginx(&home) else { return };
    let feed = home.file("users.csv", "id,name\na/1,Ann\nb&2,\"Bo \"\"B\"\"\"\nc 3,Čez\n");
    let (feed, url) = (format!("users={}", feed.display()), format!("http://{}", server.address()));
    let url = format!("{url}/u/${{users.id}}?n=${{counter}}&r=${{random.5..6}}");
    // More than one thread: what is shared by several must still be unique.
    let args = [
        "load",
        &url,
        "--rate",
        "40000/s",
        "--for",
        "100ms",
        "--feed",
        &feed,
        "--header",
        "x-id: ${uuid}",
        "--connections",
        "100",
        "--deadline",
        "10s",
        "--seed",
        "5",
    ];
    let result = json(&home, &args, 0);
    assert_eq!((&result["ok"], &result["intended"]), (&4000.into(), &4000.into()), "{result}");
    if std::thread::available_parallelism().unwrap().get() > 1 {
        assert_eq!(result["generator"]["workers"], 2);
    }
    assert!(!result.to_string().contains("Ann"), "what a feed holds is told to nobody");
    let first = seen(&home, 4000);
    let number = |seen: &Seen| -> usize {
        seen.target.split("n=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap()
    };
    let by_number: BTreeMap<usize, Seen> = first.iter().map(|seen| (number(seen), seen.clone())).collect();
    assert!(by_number.keys().copied().eq(0..4000), "each number once");
    for (number, seen) in &by_number {
        let id = ["a%2F1", "b%262", "c%203"][number % 3];
        let random = seen.target.ends_with("&r=5") || seen.target.ends_with("&r=6");
        assert!(seen.target.starts_with(&format!("/u/{id}?n={number}&")) && random, "{seen:?}");
    }
    assert_eq!(
        by_number.values().map(|seen| &seen.id).collect::<BTreeSet<_>>().len(),
        4000,
        "each uuid once"
    );
    // The same seed gives the same requests, whatever the number of threads.
    let again: Vec<&str> = args
        .iter()
        .map(|arg| {
            if *arg == "40000/s" {
                "4000/s"
            } else if *arg == "100ms" {
                "1s"
            } else {
                arg
            }
        })
        .collect();
    assert_eq!(json(&home, &again, 0)["generator"]["workers"], 1);
    for seen in seen(&home, 8000).iter().skip(4000) {
        let before = &by_number[&number(seen)];
        assert_eq!((&seen.target, &seen.id), (&before.target, &before.id));
    }
    server.end();
    home.assert_nothing_left();
}

#[test]
fn rows_that_may_be_taken_once_are_and_what_cannot_be_sent_fails_by_name() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = nginx(&home) else { return };
    let rows: String = (0..100).map(|n| format!("{{\"id\": {n}, \"key\": \"k{n}\"}}\n")).collect();
    let feed = format!("users={},unique", home.file("users.jsonl", &rows).display());
    let url = format!("http://{}/u/${{users.id}}", server.address());
    let load = |rate, feed: &str, more: &[&str], code| {
        let args = ["load", &url, "--rate", rate, "--for", "1s", "--feed", feed];
        json(&home, &[&args[..], more].concat(), code)
    };
    assert_eq!(load("100/s", &feed, &[], 0)["ok"], 100);
    let mut ids: Vec<String> = seen(&home, 100).into_iter().map(|seen| seen.target).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100, "each row once");
    let refused = home.squall(&["load", &url, "--rate", "101/s", "--for", "1s", "--feed", &feed]).code(2);
    assert!(
        refused.err.contains("feed users has 100 rows") && refused.err.contains("101 requests"),
        "{refused:?}"
    );
    // A line break in what would become a header: that request fails here, the others are sent.
    let rows = "id,key\n1,good\n2,\"bad\nx-evil: 1\"\n3,good\n";
    let feed = format!("users={}", home.file("users.csv", rows).display());
    let result = load("30/s", &feed, &["--header", "x-id: ${users.key}"], 0);
    assert_eq!((&result["ok"], &result["errors"]["data"]), (&20.into(), &10.into()), "{result}");
    assert_eq!((&result["sent"], &result["intended"]), (&20.into(), &30.into()));
    let after = seen(&home, 120);
    assert_eq!(after.len(), 120, "nothing else was sent");
    assert!(after.iter().skip(100).all(|seen| seen.id == "good"));
    for (url, more, says) in [
        (&*url.replace("users.id", "user.id"), &[][..], "did you mean `${users.id}`?"),
        ("http://${users.id}/", &[], "is no URL"),
        (&url, &["--feed", "users=/nowhere.csv"], "/nowhere.csv"),
        (&url, &["--feed", "counter=x.csv"], "no name for a feed"),
        (&url, &["--expect", "status = 200"], "is no expectation"),
        (&url, &["--expect", "json /a/b", "--body", "${nothing}"], "body: `${nothing}` is not known here"),
    ] {
        let feed = ["--feed", &feed];
        let feed = if more.first() == Some(&"--feed") { &[][..] } else { &feed };
        let args = [&["load", url, "--rate", "5/s", "--for", "1s"], feed, more].concat();
        let done = home.squall(&args).code(2);
        assert!(done.err.contains(says), "{args:?}: {}", done.err);
    }
    server.end();
    home.assert_nothing_left();
}

#[test]
fn answers_are_good_if_headers_and_json_are_as_expected() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = nginx(&home) else { return };
    let url = format!("http://{}/json", server.address());
    let load = |expects: &[&str], code| {
        let mut args = vec!["load", &url, "--rate", "50/s", "--for", "1s"];
        for clause in expects {
            args.extend(["--expect", clause]);
        }
        json(&home, &args, code)
    };
    let good =
        ["header x-cache = HIT", "header content-type contains json", "json /items/0/id = 7", "json /ok"];
    assert_eq!(load(&good, 0)["ok"], 50);
    for wrong in ["header x-cache = MISS", "header etag", "json /items/1", "json /ok = false"] {
        let result = load(&["json /ok", wrong], 6);
        assert_eq!(result["errors"]["expectation"], 50, "{wrong}: {result}");
    }
    server.end();
    home.assert_nothing_left();
}

/// How far each path's distance from the first is from what was intended, in milliseconds; sorted.
fn off(before: &[Seen], after: &[Seen], speed: f64) -> Vec<f64> {
    let times: BTreeMap<&str, f64> = after.iter().map(|seen| (seen.target.as_str(), seen.ms)).collect();
    assert_eq!(times.len(), before.len(), "each path once");
    let (first, first_again) = (&before[0], times[before[0].target.as_str()]);
    let far =
        |seen: &Seen| ((times[seen.target.as_str()] - first_again) - (seen.ms - first.ms) / speed).abs();
    let mut off: Vec<f64> = before.iter().map(far).collect();
    off.sort_by(f64::total_cmp);
    off
}

#[test]
fn a_log_of_nginx_is_sent_again_with_its_paths_and_its_gaps() {
    if quick("the gaps of a log") {
        return;
    }
    let (_turn, home) = (turns(2), Home::new());
    let Some(server) = nginx(&home) else { return };
    let url = format!("http://{}", server.address());
    let asked = format!("{url}/r/${{counter}}?api_key=hush-hush");
    json(&home, &["load", &asked, "--rate", "150/s", "--for", "3s", "--poisson", "--seed", "7"], 0);
    let before = seen(&home, 300);
    let count = before.len();
    let scrubbed: Vec<Seen> = before
        .iter()
        .map(|seen| Seen { target: seen.target.replace("hush-hush", "scrubbed"), ..seen.clone() })
        .collect();
    let [combined, lines] = ["access.log", "access.json"].map(|name| {
        let path = home.dir().join(name);
        let copy = home.file(&format!("copy-{name}"), &std::fs::read_to_string(path).unwrap());
        copy.to_str().unwrap().to_owned()
    });
    let mut total = count;
    for speed in [1.0, 2.0, 0.8] {
        // Noise of a shared machine can spoil one; a fault spoils all.
        let spoilt: Vec<String> = (0..5)
            .map_while(|_| {
                let factor = format!("{speed}x");
                let result = json(&home, &["load", &url, "--replay", &lines, "--speed", &factor], 0);
                assert_eq!((&result["ok"], &result["intended"]), (&count.into(), &count.into()), "{result}");
                total += count;
                let after = seen(&home, total).split_off(total - count);
                let off = off(&scrubbed, &after, speed);
                let (half, most) = (off[count / 2], off[count * 19 / 20]);
                // nginx tells milliseconds, at the end of each of two requests.
                (half > 2.0 || most > 10.0).then(|| format!("{speed}x: median {half} ms, p95 {most} ms"))
            })
            .collect();
        assert!(spoilt.len() < 5, "{spoilt:#?}");
    }
    let result = home.squall(&["load", &url, "--replay", &combined, "--keep-secrets", "--json"]).code(0);
    assert!(result.err.contains("whole seconds"), "{}", result.err);
    let after = seen(&home, total + count).split_off(total);
    let paths = |all: &[Seen]| all.iter().map(|seen| seen.target.clone()).collect::<BTreeSet<_>>();
    assert_eq!(paths(&after), paths(&before), "kept as they were, since that was asked for");
    // The log has whole seconds: nothing is further from its time than that.
    assert!(off(&before, &after, 1.0).last() < Some(&1100.0));
    server.end();
    home.assert_nothing_left();
}

#[test]
fn only_what_is_harmless_is_sent_again_and_the_rest_is_told() {
    let (_turn, home) = (turns(1), Home::new());
    let Some(server) = nginx(&home) else { return };
    let har = r#"{"log": {"entries": [
      {"startedDateTime": "2026-01-01T00:00:00.000Z", "request": {"method": "GET", "url": "https://shop.example/a", "headers": [{"name": "Cookie", "value": "hush-hush"}]}},
      {"startedDateTime": "2026-01-01T00:00:00.200Z", "request": {"method": "POST", "url": "https://shop.example/b", "postData": {"mimeType": "application/json", "text": "{\"password\": \"hush-hush\"}"}}},
      {"startedDateTime": "2026-01-01T00:00:00.100Z", "request": {"method": "HEAD", "url": "https://shop.example/c?x=1"}},
      {"startedDateTime": "2026-01-01T00:00:00.300Z", "request": {"method": "GET", "url": "https://cdn.example/d"}}]}}"#;
    let har = home.file("shop.har", har).to_str().unwrap().to_owned();
    let url = format!("http://{}/v2", server.address());
    let again = |more: &[&str]| {
        home.squall(&[&["load", &url, "--replay", &har, "--header", "x-id: ${counter}"], more].concat())
    };
    let done = again(&[]).code(0);
    for told in ["with a method that is not sent again", "another host"] {
        assert!(done.err.contains(told) || done.out.contains(told), "{told}: {done:?}");
    }
    let of = |seen: &[Seen]| -> Vec<String> {
        seen.iter().map(|s| format!("{} {} {}", s.method, s.target, s.id)).collect()
    };
    assert_eq!(of(&seen(&home, 2)), ["GET /v2/a 0", "HEAD /v2/c?x=1 1"]);
    again(&["--methods", "GET,POST"]).code(0);
    assert_eq!(of(&seen(&home, 4))[2..], ["GET /v2/a 0", "POST /v2/b 1"]);
    for (args, says) in [
        (&["--replay", "/nowhere"][..], "/nowhere"),
        (&["--replay", &har, "--methods", "BREW"], "`BREW` is no method"),
        (&["--replay", &har, "--methods", "PUT"], "nothing in it can be sent again"),
        (&["--replay", &har, "--speed", "0x"], "is no speed"),
        (&["--replay", &har, "--rate", "5/s"], "cannot be used with"),
        (&["--replay", &har, "--field", "tim=ts"], "did you mean `time`?"),
        (&["--speed", "2x", "--profile", "smoke"], "--replay"),
    ] {
        let done = home.squall(&[&["load", &url], args].concat()).code(2);
        assert!(done.err.contains(says), "{args:?}: {}", done.err);
    }
    server.end();
    home.assert_nothing_left();
}

/// An experiment with feeds, files and a log beside it.
const WITH_FILES: &str = r#"# Is it?
squall: v1
experiment: with-files
question: Is it?
lab: edge
feeds: {users: {file: users.csv, order: random}, once: {file: once.jsonl, order: unique}}
load:
  - shop:
      open:
        requests:
          - buy: {url: "http://${lab.edge}/checkout?u=${users.id}", method: POST, headers: {x-n: "${counter}"}, body: '{"n": ${random.1..9}}'}
          - file: {url: "http://${lab.edge}/login", method: POST, body: {file: body.bin}, expect: {headers: {date: present, x-a: {equals: b}}}}
          - form: {url: "http://${lab.edge}/login", method: POST, body: {template: body.txt}, expect: {json: {/ok: {equals: true}, /id: present}}}
        arrivals: [{hold: {rate: 5/s, for: 20s}}]
  - old:
      open: {url: "http://${lab.edge}", replay: {log: access.log, format: combined, speed: 2, methods: [GET]}}
objectives:
  - shop: {availability: ">= 99%"}
timeline:
  - at: 5s
    for: 5s
    faults:
      - relay-latency: {service: auth, delay: 200ms}
"#;

#[test]
fn an_experiment_names_feeds_bodies_and_logs_beside_it() {
    let home = Home::new();
    home.file("users.csv", "id,name\n1,a\n");
    home.file("once.jsonl", "{\"id\": 1}\n");
    home.file("body.bin", "${not a slot}");
    home.file("body.txt", "u=${users.name}");
    home.file("access.log", "h - - [01/Jan/2026:00:00:00 +0000] \"GET /browse HTTP/1.1\" 200 1\nh - - [01/Jan/2026:00:00:20 +0000] \"GET /browse HTTP/1.1\" 200 1\n");
    let schema = jsonschema::validator_for(&home.json(&["schema"])).unwrap();
    assert_eq!(misfits(&schema, &yaml(WITH_FILES)), Vec::<String>::new());
    let check = |text: &str, code| {
        let file = home.file("with-files.yaml", text);
        home.squall(&["check", file.to_str().unwrap()]).code(code)
    };
    check(WITH_FILES, 0);
    for (from, to, says) in [
        ("u=${users.id}", "u=${usrs.id}", "did you mean `${users.id}`?"),
        ("u=${users.id}", "u=${users.age}", "is not set"),
        ("question: Is it?", "question: Is it ${counter}?", "filled in for each request"),
        ("file: users.csv", "file: nowhere.csv", "feed users: nowhere.csv"),
        ("file: users.csv", "fil: users.csv", "did you mean `file`?"),
        ("order: random", "order: rnd", "unknown word `rnd`"),
        ("feeds: {users:", "feeds: {uuid:", "cannot be named `uuid`"),
        ("lab: edge\n", "lab: edge\nvars: {counter: 5}\n", "filled in by squall itself"),
        ("{file: body.bin}", "{file: body.bin, template: body.txt}", "body names one file"),
        ("{template: body.txt}", "{template: body.bin}", "`${not a slot}` is not known here"),
        ("/ok: {equals: true}", "ok: {equals: true}", "write `/ok`"),
        ("x-a: {equals: b}", "x-a: {is: b}", "no expectation"),
        ("u=${users.id}", "u=${once.id}", "feed once has 1 rows"),
        ("speed: 2", "speed: fast", "is no speed"),
        ("methods: [GET]", "methods: [HEAD]", "nothing in it can be sent again"),
        ("replay: {", "arrivals: [{hold: 5s}], replay: {", "a load with `replay` has no `arrivals`"),
        ("http://${lab.edge}\", replay", "http://${lab.edge}/?a=b\", replay", "a log brings its own paths"),
    ] {
        let text = WITH_FILES.replacen(from, to, 1);
        assert_ne!(text, WITH_FILES, "{from}");
        let done = check(&text, 2);
        assert!(done.err.contains(says), "{to}: {}", done.err);
        // Only the file as a whole has no place.
        assert!(done.err.contains("with-files.yaml:"), "{}", done.err);
    }
    assert!(root().join("scenarios/long-tail.yaml").exists());
    home.assert_nothing_left();
}
