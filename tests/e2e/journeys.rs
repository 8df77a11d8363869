//! Journeys: users and sessions walk through a shop that knows who they are; and nobody outlives the run.

/// Rows of feeds, expectations, and what is left of people at the end.
mod rows;

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::clerk::clerk;
use crate::support::home::Going;
use crate::support::{Home, process, quick, turns, until};

/// What a shop has seen.
#[derive(Default)]
struct Seen {
    logins: AtomicU64,
    /// With the right cookie and token.
    used: AtomicU64,
    /// Without.
    strangers: AtomicU64,
    farewells: AtomicU64,
    fails: AtomicU64,
}

/// A server that gives each who logs in a cookie and a token, and asks for both.
fn shop() -> (u16, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let own = Arc::clone(&seen);
    (clerk(move |asked| Some(answer(&asked.target, asked.header("cookie"), &asked.body, &own))), seen)
}

fn answer(target: &str, cookie: &str, body: &str, seen: &Seen) -> (&'static str, String, String) {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed) + 1;
    match target {
        "/login" => {
            let id = count(&seen.logins);
            // A token that has to be escaped wherever it goes.
            let json = format!(r#"{{"user": {{"token": "t {id}/\"&"}}}}"#);
            ("200 OK", format!("set-cookie: sid={id}; Path=/\r\nx-id: {id}\r\n"), json)
        }
        "/bye" => {
            count(&seen.farewells);
            ("200 OK", String::new(), "bye".to_owned())
        }
        "/fail" => {
            count(&seen.fails);
            ("503 Busy", String::new(), String::new())
        }
        other => {
            let id = cookie.strip_prefix("sid=").unwrap_or_default();
            let right = other == format!("/use/t%20{id}%2F%22%26")
                && body == format!(r#"{{"t":"t {id}/\"&","i":"{id}"}}"#);
            count(if right { &seen.used } else { &seen.strangers });
            (if right { "200 OK" } else { "403 No" }, String::new(), "page <b>7</b>".to_owned())
        }
    }
}

/// An experiment with a relay before a server, and these loads.
fn experiment(home: &Home, port: u16, loads: &str, objective: &str) -> String {
    let text = format!(
        "squall: v1\nexperiment: journeys\nquestion: Do they walk?\nrelays:\n  - a: {{upstream: \"127.0.0.1:{port}\", \
         protocol: http}}\nload:\n{loads}objectives:\n  - {objective}\ntimeline:\n  - at: 6s\n    for: 1s\n    faults:\n      \
         - relay-latency: {{relay: a, delay: 5ms}}\nrecover-within: 5s\n"
    );
    home.file("journeys.yaml", &text).to_str().unwrap().to_owned()
}

const SHOPPERS: &str = r#"
  - shoppers:
      users:
        count: 5
        ramp: 1s
        for: 13s
        processes: 2
        journey:
          base: "http://${relay.a}"
          think: {from: 20ms, to: 60ms}
          on-start:
            - login: {path: /login, extract: {token: {json: /user/token}, id: {header: x-id}}}
          steps:
            - choose:
                - often: {weight: 9, steps: [{page: {method: POST, path: "/use/${token}", body: "{\"t\":\"${token}\",\"i\":\"${id}\"}", extract: {n: {between: ["<b>", "</b>"]}}}}]}
                - seldom: {weight: 1, steps: [{again: {method: POST, path: "/use/${token}", body: "{\"t\":\"${token}\",\"i\":\"${id}\"}"}}]}
          on-stop:
            - bye: {path: /bye}
"#;

const VISITORS: &str = r#"
  - visitors:
      sessions:
        arrivals: [{hold: {rate: 20/s, for: 13s}}]
        journey:
          base: "http://${relay.a}"
          think: 30ms
          steps:
            - enter: {path: /login, extract: {token: {json: /user/token}, id: {header: x-id}}}
            - use: {method: POST, path: "/use/${token}", body: "{\"t\":\"${token}\",\"i\":\"${id}\"}"}
"#;

/// Clients that try thrice, with and without a budget.
fn stubborn(name: &str, budget: &str) -> String {
    format!(
        "  - {name}:\n      users: {{count: 4, for: 13s, journey: {{base: \"http://${{relay.a}}\", think: 40ms, retry: \
         {{attempts: 3, backoff: 5ms{budget}}}, steps: [{{ask: {{path: /fail}}}}]}}}}\n"
    )
}

/// Of one kind of one load, over all phases: good and failed.
fn kind(record: &Value, load: &str, kind: &str) -> (u64, u64) {
    let loads = record["loads"].as_array().unwrap();
    let found = loads.iter().find(|found| found["name"] == load).unwrap();
    let phases = found["phases"].as_array().unwrap();
    let of = phases.iter().filter_map(|phase| phase["kinds"].get(kind));
    let failed =
        |kind: &Value| kind["errors"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
    of.fold((0, 0), |sum, kind| (sum.0 + kind["ok"].as_u64().unwrap(), sum.1 + failed(kind)))
}

#[test]
fn people_walk_through_a_shop_that_knows_them() {
    let (_turn, home) = (turns(1), Home::new());
    let (port, seen) = shop();
    let storm = stubborn("storm", "") + &stubborn("thrifty", ", budget: 10%");
    let loads = format!("{}{}{storm}", SHOPPERS.trim_start_matches('\n'), VISITORS.trim_start_matches('\n'));
    let path = experiment(&home, port, &loads, "shoppers: {availability: \">= 90%\"}");
    let mut going = home.start(&["run", &path]);
    going.says("baseline begins", Duration::from_secs(30));
    // goose would listen at these by itself.
    for port in [5116, 5117] {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "somebody listens at {port}");
    }
    let done = going.end().code_or_hindered(0);
    let folder = home.run_folders().pop().unwrap();
    let record: Value = serde_json::from_slice(&std::fs::read(folder.join("record.json")).unwrap()).unwrap();
    let of = |load: &str, name: &str| kind(&record, load, name);
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    // Everybody comes with what he was given, whatever characters are in it.
    assert_eq!(load(&seen.strangers), 0, "{}", done.out);
    assert_eq!((of("shoppers", "login"), of("shoppers", "bye")), ((5, 0), (5, 0)));
    assert_eq!(load(&seen.farewells), 5, "last steps are made at the end");
    let (often, seldom) = (of("shoppers", "page").0, of("shoppers", "again").0);
    assert!(often > 5 * seldom && seldom > 0, "{often} {seldom}");
    let (through, failed) = of("shoppers", "journey");
    assert!(through <= often + seldom && through + 10 > often + seldom && failed == 0, "{through} {failed}");
    // Sessions arrive whatever happens: every one of them is there.
    assert_eq!(of("visitors", "enter"), (260, 0));
    let (used, whole) = (of("visitors", "use"), of("visitors", "journey"));
    assert!(used.0 >= 255 && used.1 == 0 && whole.0 >= 250 && whole.1 == 0, "{used:?} {whole:?}");
    assert_eq!(load(&seen.used), often + seldom + used.0);
    // Without a budget, each failure is tried twice more; with one of 10 %, one in ten, and ten in ten seconds are free.
    let (asked, again) = (of("storm", "ask").1, of("storm", "retry").1);
    assert!(asked > 100 && again + 8 >= 2 * asked && again <= 2 * asked, "{asked} {again}");
    let (asked_thrifty, again_thrifty) = (of("thrifty", "ask").1, of("thrifty", "retry").1);
    assert!(
        again_thrifty >= 10 && again_thrifty <= asked_thrifty / 10 + 25,
        "{asked_thrifty} {again_thrifty}"
    );
    assert_eq!(load(&seen.fails), asked + again + asked_thrifty + again_thrifty, "{}", done.out);
    let doubts = record["generator"]["saturated"].as_array().unwrap();
    assert!(doubts.is_empty() || done.code == 6, "{}", record["generator"]);
    home.assert_nothing_left();
}

fn children(home: &Home) -> Vec<u32> {
    let own = |pid: &u32| process::command_line(*pid).contains("__load-worker");
    process::of_home(home.dir()).into_iter().filter(own).collect()
}

fn walking(home: &Home) -> Going {
    let (port, _) = shop();
    let loads = format!("{}{}", SHOPPERS.trim_start_matches('\n'), VISITORS.trim_start_matches('\n'));
    let path = experiment(home, port, &loads, "shoppers: {availability: \">= 90%\"}");
    let mut going = home.start(&["run", &path]);
    going.says("baseline begins", Duration::from_secs(30));
    assert_eq!(children(home).len(), 3, "as many as each load of journeys has");
    going
}

#[test]
fn nobody_walks_on_when_the_run_is_over() {
    if quick("journeys that are killed") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let going = walking(&home);
    going.signal(Signal::INT);
    let done = going.end_within(Duration::from_secs(20)).code(4);
    assert!(children(&home).is_empty(), "{}", done.out);
    home.assert_nothing_left();
    // A child that dies is missed.
    let home = Home::new();
    let going = walking(&home);
    let victim = children(&home)[0];
    process::signal(victim, Signal::KILL);
    let done = going.end().code(6);
    assert!(done.out.replace("\n ", "").contains(&format!("(process {victim}) was lost")), "{}", done.out);
    home.assert_nothing_left();
    // And all of them end with the engine, however that ends.
    let home = Home::new();
    let going = walking(&home);
    going.signal(Signal::KILL);
    assert_eq!(going.end().code, 128 + 9);
    until("no child", Duration::from_secs(5), || children(&home).is_empty().then_some(()));
    home.assert_nothing_left();
}

#[test]
fn mistakes_in_journeys_are_told_with_their_place() {
    let home = Home::new();
    let says = |load: &str, text: &str| {
        let path =
            experiment(&home, 1, &format!("  - shoppers: {load}\n"), "shoppers: {availability: \">= 90%\"}");
        let done = home.squall(&["check", &path]).code(2);
        assert!(done.err.contains(text) || done.out.contains(text), "{load}: {}{}", done.out, done.err);
    };
    let users = |journey: &str| format!("{{users: {{count: 5, for: 13s, journey: {journey}}}}}");
    let base = r#"base: "http://127.0.0.1:1""#;
    says("{}", "a load lacks `open`");
    says("{users: {count: 0, for: 13s, journey: {}}}", "from 1 to 20,000");
    says("{users: {count: 5, ramp: 14s, for: 13s, journey: {}}}", "ramp must end before");
    says(&users("{steps: [{a: {path: /}}]}"), "has no `base`");
    says(&users("{base: \"http://127.0.0.1:1/x?y=1\", steps: [{a: {path: /}}]}"), "it has no query");
    says(
        &users(&format!("{{{base}, steps: [{{a: {{path: /, reply: echo}}}}]}}")),
        "only tcp, tls and udp have replies",
    );
    says(&users(&format!("{{{base}, steps: []}}")), "there are no steps");
    says(&users(&format!("{{{base}, steps: [{{a: {{}}}}]}}")), "a `path` below the journey's `base`");
    says(
        &users(&format!("{{{base}, steps: [{{a: {{path: /}}}}, {{a: {{path: /}}}}]}}")),
        "another step named `a`",
    );
    says(&users(&format!("{{{base}, steps: [{{journey: {{path: /}}}}]}}")), "squall's own");
    says(&users(&format!("{{{base}, steps: [{{a: {{path: \"/${{tokn}}\"}}}}]}}")), "`${tokn}` is not set");
    says(
        &users(&format!("{{{base}, steps: [{{a: {{path: /, extract: {{x: {{jsn: /a}}}}}}}}]}}")),
        "an answer has no `jsn`",
    );
    says(
        &users(&format!("{{{base}, steps: [{{a: {{path: /, think: {{from: 2s, to: 1s}}}}}}]}}")),
        "longer than `to`",
    );
    let extract =
        |what: &str| users(&format!("{{{base}, steps: [{{a: {{path: /, extract: {{{what}}}}}}}]}}"));
    says(&extract("x: {regex: '('}"), "regex: unclosed group");
    says(&extract("x: {regex: '(a)(b)'}"), "more than one group");
    says(&extract("x: {json: a}"), "a pointer starts with `/`");
    says(&extract("uuid: {header: a}"), "`${uuid}` is squall's own already");
    says(&extract("a.b: {header: a}"), "`a.b` has a dot");
    says("{users: {count: 5, for: 13s, processes: 17, journey: {}}}", "processes must be from 1 to 16");
    says("{users: {count: 5, for: 13s, rows: mine, journey: {}}}", "each-walk");
    says(
        &users(&format!("{{{base}, steps: [{{a: {{path: /, think: {{about: 1s, to: 2s}}}}}}]}}")),
        "think has no field `to`",
    );
    says(&users(&format!("{{{base}, steps: [{{a: {{path: /, body: {{file: nowhere}}}}}}]}}")), "nowhere");
    says(
        &users(&format!("{{{base}, retry: {{attempts: 1}}, steps: [{{a: {{path: /}}}}]}}")),
        "attempts count the first one as well",
    );
    says(&users(r#"{base: "http://192.0.2.1", steps: [{a: {path: /}}]}"#), "is not this machine");
}
