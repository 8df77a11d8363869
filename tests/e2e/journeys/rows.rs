//! What people send, and whether it is theirs from the first step to the last; and how soon they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{children, experiment, kind};
use crate::support::clerk::{Asked, Told, clerk};
use crate::support::{Home, quick, turns};

/// Everything that a clerk was asked, in order.
type Book = Arc<Mutex<Vec<Asked>>>;

/// A clerk that writes everything down, gives each who enters a cookie and a token in a page, and tells the even from the odd.
fn bookkeeper() -> (u16, Book) {
    let book = Book::default();
    let own = Arc::clone(&book);
    let port = clerk(move |asked: &Asked| -> Told {
        own.lock().unwrap().push(asked.clone());
        let id = value(&asked.target, "id");
        let cookie = if id.is_empty() { String::new() } else { format!("set-cookie: sid={id}; Path=/\r\n") };
        let pause = if asked.target == "/slow" { "x-pause-ms: 300\r\n" } else { "" };
        let headers = format!("{cookie}{pause}x-kind: clerk\r\n");
        let even = id.parse::<u32>().is_ok_and(|id| id % 2 == 0);
        let body = format!(r#"{{"ok": {even}, "page": "<i name=csrf value=t-{id}>"}}"#);
        Some(("200 OK", headers, body))
    });
    (port, book)
}

/// A parameter of a target, as it was sent.
fn value(target: &str, name: &str) -> String {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    found.map(|(_, value)| value.to_owned()).unwrap_or_default()
}

/// Rows whose second column is a nuisance wherever it stands, and whose third has no place in a header.
fn feed(home: &Home, name: &str, rows: usize) {
    let row = |id: usize| format!("{id},\"p {id}&\"\"=\",\"a\nb\"\n");
    home.file(name, &("id,pin,split\n".to_owned() + &(0..rows).map(row).collect::<String>()));
}

/// The same experiment with feeds.
fn with_feeds(home: &Home, port: u16, feeds: &str, loads: &str, objective: &str) -> String {
    let path = experiment(home, port, loads, objective);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("relays:\n", &format!("feeds: {feeds}\nrelays:\n"))).unwrap();
    path
}

/// Sessions that show who they are at every step, in every place.
fn visitors(processes: u32) -> String {
    format!(
        r#"  - visitors:
      sessions:
        arrivals: [{{ramp: {{to: 20/s, over: 2s}}}}, {{hold: 11s}}]
        processes: {processes}
        journey:
          base: "http://${{relay.a}}"
          think: {{about: 20ms}}
          steps:
            - enter:
                path: "/enter?id=${{once.id}}&pin=${{once.pin}}&n=${{counter}}&key=${{uuid}}&dice=${{random.1..6}}"
                expect: {{headers: {{x-kind: {{equals: clerk}}}}, json: {{/ok: present}}, body-contains: csrf}}
                extract: {{token: {{regex: 'value=([^>]+)'}}, sid: {{cookie: sid}}}}
            - choose:
                - left: {{weight: 2, steps: [{{left: {{path: "/left?of=${{once.id}}&n=${{counter}}&key=${{uuid}}"}}}}]}}
                - right: {{weight: 1, steps: [{{right: {{path: "/right?of=${{once.id}}&n=${{counter}}&key=${{uuid}}"}}}}]}}
            - pay:
                method: POST
                path: "/pay?n=${{counter}}&key=${{uuid}}"
                headers: {{x-id: "${{once.id}}", x-token: "${{token}}"}}
                body: '{{"id": "${{once.id}}", "pin": "${{once.pin}}", "sid": "${{sid}}"}}'
"#
    )
}

/// Closed users: rows each time through until there are none, rows for life, and what goes wrong.
const WALKERS: &str = r#"  - spending:
      users:
        count: 4
        for: 13s
        journey:
          base: "http://${relay.a}"
          think: 30ms
          on-start: [{hello: {path: "/hello?of=${few.id}"}}]
          steps:
            - spend: {path: "/spend?id=${few.id}"}
            - keep: {path: "/keep?of=${few.id}"}
          on-stop: [{bye: {path: "/bye?of=${few.id}"}}]
  - living:
      users:
        count: 3
        rows: each-user
        for: 13s
        journey:
          base: "http://${relay.a}"
          think: 200ms
          on-start: [{born: {path: "/born?id=${some.id}"}}]
          steps:
            - live: {path: "/live?of=${some.id}"}
  - patient: {users: {count: 1, for: 13s, journey: {base: "http://${relay.a}", steps: [{slow: {path: /slow}}]}}}
  - failing:
      users:
        count: 2
        for: 13s
        journey:
          base: "http://${relay.a}"
          think: 50ms
          steps:
            - choose:
                - odd: {steps: [{odd: {path: "/odd?id=${some.id}", expect: {json: {/ok: {equals: true}}}}}]}
                - lost: {steps: [{lost: {path: /lost, extract: {x: {regex: nowhere}}}}]}
                - split: {steps: [{split: {path: /split, headers: {x-a: "${some.split}"}}}]}
                - file: {steps: [{file: {method: PUT, path: /file, body: {file: body.txt}}}, {tmpl: {method: PUT, path: /tmpl, body: {template: body.txt}}}]}
"#;

#[test]
fn everybody_is_himself_from_the_first_step_to_the_last() {
    let (_turn, home) = (turns(2), Home::new());
    let (port, book) = bookkeeper();
    for (name, rows) in [("once.csv", 300), ("few.csv", 12), ("some.csv", 40)] {
        feed(&home, name, rows);
    }
    home.file("body.txt", "me: ${some.id}\n");
    let feeds = "{once: {file: once.csv, order: unique}, few: {file: few.csv, order: unique}, some: {file: some.csv}}";
    let loads = visitors(2) + WALKERS;
    let path = with_feeds(&home, port, feeds, &loads, "visitors: {availability: \">= 90%\"}");
    let mut going = home.start(&["run", &path]);
    going.says("baseline begins", Duration::from_secs(30));
    assert_eq!(children(&home).len(), 6);
    // What fails all the time is a load without an objective: it fails no more than before.
    let done = going.end().code_or_hindered(0);
    let folder = home.run_folders().pop().unwrap();
    let record: Value = serde_json::from_slice(&std::fs::read(folder.join("record.json")).unwrap()).unwrap();
    let asked = book.lock().unwrap().clone();
    sessions(&asked, &record);
    spenders(&asked, &record);
    let to = |path: &str| asked.iter().filter(|asked| asked.target.starts_with(path)).collect::<Vec<_>>();
    let ids =
        |path: &str, name: &str| to(path).iter().map(|one| value(&one.target, name)).collect::<BTreeSet<_>>();
    assert_eq!(ids("/born", "id"), ["0", "1", "2"].map(str::to_owned).into());
    assert!(to("/live").len() > 60 && ids("/live", "of") == ids("/born", "id"), "rows for life");
    failures(&to("/odd"), &record);
    slow(&record);
    let split = kind(&record, "failing", "split");
    assert!(split.0 == 0 && split.1 > 5 && to("/split").is_empty(), "{split:?}: nothing gets into a header");
    assert!(to("/file").iter().all(|one| one.method == "PUT" && one.body == "me: ${some.id}\n"));
    assert!(to("/tmpl").iter().all(|one| one.body.starts_with("me: ") && !one.body.contains('$')));
    assert!(!to("/file").is_empty() && !to("/tmpl").is_empty(), "{}", done.out);
    let doubts = record["generator"]["saturated"].as_array().unwrap();
    assert!(doubts.is_empty() || done.code == 6, "{}", record["generator"]);
    home.assert_nothing_left();
}

/// Each has a row of his own, in every place and at every step, with his cookie and his token.
fn sessions(asked: &[Asked], record: &Value) {
    let entered: Vec<&Asked> = asked.iter().filter(|one| one.target.starts_with("/enter")).collect();
    let ids: BTreeSet<u32> = entered.iter().map(|one| value(&one.target, "id").parse().unwrap()).collect();
    assert_eq!((entered.len(), ids), (240, (0..240).collect()), "each row once, and none left out");
    assert_eq!(kind(record, "visitors", "enter"), (240, 0));
    for one in &entered {
        assert_eq!(value(&one.target, "pin"), format!("p%20{}%26%22%3D", value(&one.target, "id")));
        assert!((1..=6).contains(&value(&one.target, "dice").parse::<u32>().unwrap()), "{}", one.target);
    }
    let paid: Vec<&Asked> = asked.iter().filter(|one| one.target.starts_with("/pay")).collect();
    assert!(paid.len() >= 230, "{}", paid.len());
    for one in &paid {
        let id = one.header("x-id");
        assert_eq!(one.header("x-token"), format!("t-{id}"));
        assert_eq!(one.header("cookie"), format!("sid={id}"));
        assert_eq!(one.body, format!(r#"{{"id": "{id}", "pin": "p {id}&\"=", "sid": "{id}"}}"#));
    }
    let ways = |way: &str| asked.iter().filter(|one| one.target.starts_with(way)).collect::<Vec<_>>();
    let (left, right) = (ways("/left"), ways("/right"));
    assert!(
        left.iter()
            .chain(&right)
            .all(|one| one.header("cookie") == format!("sid={}", value(&one.target, "of")))
    );
    assert!(left.len() > right.len() && right.len() > 40, "{} {}", left.len(), right.len());
    let of_all = |name: &str| {
        let all = entered.iter().chain(&paid).chain(&left).chain(&right);
        let values: Vec<String> = all.map(|one| value(&one.target, name)).collect();
        (values.len(), values.into_iter().collect::<BTreeSet<_>>().len())
    };
    for name in ["n", "key"] {
        let (all, different) = of_all(name);
        assert_eq!(all, different, "{name} is different in every request");
    }
}

/// Twelve rows for four users: three times through each, and then the end, which has a name.
fn spenders(asked: &[Asked], record: &Value) {
    let to = |path: &str, name: &str| {
        let all = asked.iter().filter(|one| one.target.starts_with(path)).map(|one| value(&one.target, name));
        let mut ids: Vec<u32> = all.map(|id| id.parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    };
    let all: Vec<u32> = (0..12).collect();
    assert_eq!((to("/spend", "id"), to("/keep", "of")), (all.clone(), all));
    assert_eq!(to("/hello", "of"), [0, 1, 2, 3], "first steps have the first row");
    assert_eq!(to("/bye", "of"), [8, 9, 10, 11], "last steps have the last one");
    let of = |name: &str| kind(record, "spending", name);
    assert_eq!((of("spend"), of("journey"), of("bye")), ((12, 4), (12, 4), (4, 0)));
    let load = record["loads"].as_array().unwrap().iter().find(|load| load["name"] == "spending").unwrap();
    let phases = load["phases"].as_array().unwrap();
    let data: u64 = phases.iter().filter_map(|phase| phase["all"]["errors"]["data"].as_u64()).sum();
    assert_eq!(data, 4, "{load}");
}

/// A step takes until the last byte of its answer is there.
fn slow(record: &Value) {
    let load = record["loads"].as_array().unwrap().iter().find(|load| load["name"] == "patient").unwrap();
    let mut counted = 0;
    for phase in load["phases"].as_array().unwrap() {
        let text = phase["kinds"]["slow"]["latencies"].as_str().unwrap();
        let latencies = reports::Latencies::decode(text).unwrap();
        assert!(latencies.quantile(0.0).unwrap() >= 0.29, "{:?}", latencies.quantile(0.0));
        counted += latencies.count();
    }
    assert!((30..=45).contains(&counted), "{counted} in 13 s, one after another");
}

/// What is expected is looked at, and what is not found fails.
fn failures(odd: &[&Asked], record: &Value) {
    let of = |name: &str| kind(record, "failing", name);
    let even =
        odd.iter().filter(|one| value(&one.target, "id").parse::<u32>().unwrap() % 2 == 0).count() as u64;
    assert_eq!(of("odd"), (even, odd.len() as u64 - even));
    assert!(even > 0 && even < odd.len() as u64);
    let (found, lost) = of("lost");
    assert!(found == 0 && lost > 5, "{lost}");
    let load = record["loads"].as_array().unwrap().iter().find(|load| load["name"] == "failing").unwrap();
    let phases = load["phases"].as_array().unwrap();
    let expectation: u64 =
        phases.iter().filter_map(|phase| phase["all"]["errors"]["expectation"].as_u64()).sum();
    assert_eq!(expectation, lost + of("odd").1);
}

#[test]
fn a_seed_makes_the_same_people_whoever_walks_for_them() {
    if quick("journeys of one seed") {
        return;
    }
    let _turn = turns(1);
    let run = |processes: u32| {
        let home = Home::new();
        let (port, book) = bookkeeper();
        feed(&home, "once.csv", 300);
        let feeds = "{once: {file: once.csv, order: unique}}";
        let path =
            with_feeds(&home, port, feeds, &visitors(processes), "visitors: {availability: \">= 90%\"}");
        home.squall(&["run", &path, "--seed", "7"]).code_or_hindered(0);
        home.assert_nothing_left();
        let mut people: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        for asked in book.lock().unwrap().iter() {
            let id = ["id", "of"].map(|name| value(&asked.target, name)).concat();
            let id = if id.is_empty() { asked.header("x-id").to_owned() } else { id };
            people.entry(id.parse().unwrap()).or_default().insert(asked.target.clone());
        }
        // The last ones may be cut short anywhere.
        people.split_off(&220);
        people
    };
    let (one, three) = (run(1), run(3));
    assert_eq!(one.len(), 220);
    assert!(one.values().all(|asked| asked.len() == 3));
    assert_eq!(one, three);
}

#[test]
fn nobody_waits_long_for_a_server_that_has_fallen_silent() {
    if quick("journeys to a silent server") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let silent = Arc::new(AtomicBool::new(false));
    let own = Arc::clone(&silent);
    let port =
        clerk(move |_| (!own.load(Ordering::Relaxed)).then(|| ("200 OK", String::new(), "hi".to_owned())));
    let loads = r#"  - patient:
      users:
        count: 20
        for: 13s
        deadline: 1s
        journey:
          base: "http://${relay.a}"
          think: 20ms
          retry: {attempts: 5, backoff: 100ms}
          steps: [{a: {path: /a}}]
          on-stop: [{b: {path: /b}}, {c: {path: /c}}, {d: {path: /d}}, {e: {path: /e}}]
"#;
    let path = experiment(&home, port, loads, "patient: {availability: \">= 90%\"}");
    let mut going = home.start(&["run", &path]);
    going.says("recovery begins", Duration::from_secs(30));
    silent.store(true, Ordering::Relaxed);
    going.says(
        "waiting for requests under way, each for 1s at most, and for the last steps",
        Duration::from_secs(20),
    );
    // It says so a second after the end of the load; two deadlines are left of the wait at most, of which one is over.
    let since = Instant::now();
    let done = going.end_within(Duration::from_secs(20)).code_or_hindered(1);
    assert!(since.elapsed() < Duration::from_secs(4), "{:?} {}", since.elapsed(), done.err);
    home.assert_nothing_left();
}

#[test]
fn rows_that_do_not_suffice_and_names_that_mean_two_things_are_mistakes() {
    let home = Home::new();
    feed(&home, "few.csv", 12);
    let says = |load: &str, texts: &[&str]| {
        let feeds = "{few: {file: few.csv, order: unique}}";
        let path = with_feeds(
            &home,
            1,
            feeds,
            &format!("  - shoppers: {load}\n"),
            "shoppers: {availability: \">= 90%\"}",
        );
        let done = home.squall(&["check", &path]).code(2);
        let said = done.err + &done.out;
        assert!(texts.iter().all(|text| said.contains(text)), "{load}: {said}");
    };
    let journey = |extract: &str| {
        format!(r#"{{base: "http://127.0.0.1:1", steps: [{{a: {{path: "/${{few.id}}"{extract}}}}}]}}"#)
    };
    says(
        &format!("{{users: {{count: 13, for: 13s, journey: {}}}}}", journey("")),
        &["load shoppers: feed few has 12 rows", "13 users take one each", "journeys.yaml:8:"],
    );
    says(
        &format!("{{sessions: {{arrivals: [{{hold: {{rate: 1/s, for: 13s}}}}], journey: {}}}}}", journey("")),
        &["13 sessions take one each"],
    );
    says(
        &format!("{{users: {{count: 2, for: 13s, journey: {}}}}}", journey(", extract: {few: {header: a}}")),
        &["`${few}` is that of a feed already", "journeys.yaml:8:", "a name of its own"],
    );
    says(
        &format!("{{users: {{count: 2, for: 13s, journey: {}}}}}", journey(", headers: {a: \"${few.idd}\"}")),
        &["`${few.idd}` is not set", "did you mean `${few.id}`?"],
    );
    // Where it cannot be known, it is foreseen.
    let load = format!("  - shoppers: {{users: {{count: 2, for: 13s, journey: {}}}}}\n", journey(""));
    let feeds = "{few: {file: few.csv, order: unique}}";
    let path = with_feeds(&home, 1, feeds, &load, "shoppers: {availability: \">= 90%\"}");
    let plan = home.squall(&["plan", &path]).code(0).out.replace('\n', " ");
    assert!(
        plan.contains("shoppers: its users may go through some 2,600 times, and feed few has 12 rows"),
        "{plan}"
    );
}
