//! Mistakes in experiments: all of them, each with its place and the way out; and texts that mean harm. Nothing is
//! touched, and nothing takes long.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use engine::experiment::{Input, Mistakes, Sources, parse};
use proptest::prelude::*;

use crate::support::{Home, root};

/// A small experiment without mistakes.
const BASE: &str = r#"squall: v1
experiment: base
question: Is it?
lab: edge
load:
  - checkout:
      open: {url: "http://${lab.edge}/checkout", arrivals: [{hold: {rate: 50/s, for: 20s}}]}
objectives:
  - checkout: {availability: ">= 99%"}
timeline:
  - at: 5s
    for: 5s
    faults:
      - relay-latency: {service: auth, delay: 200ms}
"#;

/// Uses every field of the language at least once.
pub(crate) const EVERYTHING: &str = r#"# Is everything there?
squall: v1
experiment: all-of-it
question: Is everything there?
owner: nobody
vars: {rate: 20/s, limit: 99%}
lab: {edge: {retries: 2, retry-budget: 10%, cache: false, service-time: {auth: 10ms}}}
allow-hosts: [example.test]
relays:
  - front: {listen: "127.0.0.1:0", upstream: "127.0.0.1:9", protocol: http}
warm-up: 2s
load:
  - shop:
      open:
        requests:
          - look: {url: "http://${lab.edge}/browse", weight: 3, expect: {status: [200, 3xx, 204-206], body-contains: item, headers: {date: present, server: {contains: s}}, json: {/id: present, /n: {equals: 5}}}}
          - buy: {url: "http://${relay.front}/checkout?token=${TOKEN:-none}", method: POST, headers: {x-a: "${counter}"}, body: '{"id": "${uuid}"}'}
        arrivals:
          - ramp: {from: 1/s, to: "${rate}", over: 2s}
          - hold: 10s
          - steps: {to: 40/s, count: 3, each: 2s}
          - spike: {to: 90/s, for: 1s}
          - sine: {mean: 20/s, amplitude: 50%, period: 2s, for: 4s}
          - hold: {rate: 20/s, for: 10s}
        poisson: true
        reuse: false
        deadline: 1.5s
        connect-timeout: 500ms
        connections: 64
        pop-header: x-squall-pop
        tls: {insecure: true, server-name: shop.test, resume: false}
        http: 2
        streams: 20
        when-busy: shed
        exact: true
        sources: [127.0.0.2, 127.0.0.3]
  - people:
      users:
        count: 20
        ramp: 2s
        for: 30s
        rows: each-user
        processes: 2
        deadline: 1s
        connect-timeout: 500ms
        pop-header: x-squall-pop
        tls: {insecure: true}
        journey:
          base: "http://${lab.edge}"
          think: {from: 1s, to: 2s}
          cookies: false
          retry: {attempts: 3, backoff: 50ms, jitter: 20%, budget: 10%}
          on-start: [{login: {path: /login, think: 10ms, extract: {a: {json: /a}, b: {header: date}, c: {cookie: sid}, d: {regex: 'd=([0-9]+)'}, e: {between: ["<", ">"]}}}}]
          steps:
            - choose:
                - one: {weight: 2, steps: [{take: {path: "/${a}/${b}", think: {about: 1s}}}]}
                - two: {steps: [{give: {url: "http://${lab.edge}/${c}", method: POST, headers: {x-d: "${d}"}, body: "${e} ${random.1..6}", expect: {status: 2xx, body-contains: x, headers: {date: present}, json: {/id: present}}}}]}
          on-stop: [{logout: {path: /logout}}]
  - guests:
      sessions:
        arrivals: [{hold: {rate: 5/s, for: 30s}}]
        poisson: true
        at-most: 50
        journey: {steps: [{look: {url: "http://${lab.edge}/browse"}}]}
objectives:
  - shop: {availability: ">= ${limit}", p50: "<= 100ms", p99.9: "<= 1s", throughput: ">= 5/s", phases: [baseline, fault, recovery, after]}
steady-state:
  - http: {name: front, url: "http://${lab.edge}/healthz", status: 2xx, body-contains: ok, every: 500ms, deadline: 1s, share: 90%}
  - tcp: {name: port, address: "${lab.edge}", phases: [baseline]}
  - command: {name: runs, argv: ["true"], exit: 0}
timeline:
  - at: 8s
    for: 2s
    faults:
      - http-abort: {relay: front, status: 503, share: 10%}
      - process-pause: {service: catalog, pick: one}
guards:
  - abort: {when: "errors of shop > 90% for 3s"}
  - abort: "p99 of shop > 2s for 5s"
recover-within: 5s
"#;

/// Nothing lies beside the experiment.
struct Alone;

impl Sources for Alone {
    fn read(&self, _path: &str) -> Result<String, String> {
        Err("there is nothing".to_owned())
    }

    fn bytes(&self, path: &str, _most: usize) -> Result<Vec<u8>, String> {
        self.read(path).map(String::into_bytes)
    }
}

/// Reads and resolves a text, as `squall check` does.
fn check(text: &str) -> Result<(), Mistakes> {
    let input = Input {
        file: PathBuf::from("x.yaml"),
        text: text.to_owned(),
        set: BTreeMap::new(),
        env: BTreeMap::new(),
    };
    let experiment = parse(&input, &Alone)?;
    engine::plan::resolve(&experiment, 1).map(drop).map_err(|found| Mistakes::locate("x.yaml", text, found))
}

/// One mistake: what is written instead of what, where it shows, and what is said.
struct Slip {
    name: &'static str,
    from: &'static str,
    to: &'static str,
    /// The text at whose start the caret stands.
    at: &'static str,
    says: &'static str,
    helps: &'static str,
    /// It is wrong in shape, so that the schema refuses it as well.
    by_shape: bool,
}

const fn slip(
    name: &'static str,
    (from, to): (&'static str, &'static str),
    at: &'static str,
    says: &'static str,
    helps: &'static str,
    by_shape: bool,
) -> Slip {
    Slip { name, from, to, at, says, helps, by_shape }
}

#[rustfmt::skip]
const SLIPS: &[Slip] = &[
    slip("unknown field", ("timeline:", "guard: []\ntimeline:"), "guard:", "no field `guard`", "did you mean `guards`?", true),
    slip("unknown fault", ("relay-latency", "relay-latancy"), "relay-latancy", "no fault `relay-latancy`", "did you mean `relay-latency`?", true),
    slip("unknown parameter", ("delay: 200ms", "delay: 200ms, jiter: 5ms"), "jiter", "no field `jiter`", "did you mean `jitter`?", true),
    slip("missing parameter", (", delay: 200ms", ""), "{service: auth}", "lacks `delay`", "duration", true),
    slip("missing unit", ("delay: 200ms", "delay: \"200\""), "\"200\"", "the unit is missing", "", true),
    slip("negative", ("delay: 200ms", "delay: -200ms"), "-200ms", "must not be negative", "", true),
    slip("not a number", ("for: 20s", "for: NaN"), "NaN", "must start with a number", "", true),
    slip("infinite", ("for: 20s", "for: .inf"), ".inf", "it must start with a number", "", false),
    slip("a century", ("for: 20s", "for: 900000h"), "900000h", "longer than 7 days", "", false),
    slip("overflow", ("for: 20s", "for: 99999999999999999999999999999s"), "99999999999999", "too many digits", "", false),
    slip("zero length", ("    for: 5s", "    for: 0s"), "0s\n    faults", "longer than zero", "", false),
    slip("absurd rate", ("50/s", "99999999/s"), "99999999/s", "more than 10,000,000/s", "", false),
    slip("share beyond all", (">= 99%", ">= 101%"), "\">= 101%", "more than 100%", "", false),
    slip("wrong version", ("squall: v1", "squall: v2"), "v2", "unknown word `v2`", "v1", true),
    slip("illegal name", ("experiment: base", "experiment: Base Camp"), "Base Camp", "is no name", "small letters", true),
    slip("unknown lab", ("lab: edge", "lab: edgy"), "edgy", "no lab `edgy`", "did you mean `edge`?", true),
    slip("unknown service of the lab", ("lab: edge", "lab: {edge: {service-time: {outh: 5ms}}}"), "outh", "no service `outh` with workers", "did you mean `auth`?", true),
    slip("a slow lab", ("lab: edge", "lab: {edge: {service-time: {auth: 5s}}}"), "5s}", "must be from 500us to 1s", "", false),
    slip("unknown service", ("service: auth", "service: outh"), "outh", "no service `outh`", "did you mean `auth`?", false),
    slip("unknown instance", ("service: auth", "instance: auth-3"), "auth-3", "no instance `auth-3`", "did you mean `auth-1`?", false),
    slip("undeclared relay", ("service: auth", "relay: front"), "front", "no relay `front`", "declare it", false),
    slip("which of several", ("service: auth", "service: catalog"), "catalog, delay", "has 2 instances", "pick: one", false),
    slip("two targets", ("service: auth", "service: auth, instance: auth-1"), "", "aimed at two things", "aim it by", false),
    slip("no target", ("service: auth, ", ""), "{delay", "aimed at nothing", "aim it by", false),
    slip("judging what is not loaded", ("- checkout: {avail", "- chekout: {avail"), "chekout", "no load `chekout`", "did you mean `checkout`?", false),
    slip("unknown objective", ("availability", "availabilty"), "availabilty", "no field `availabilty`", "did you mean `availability`?", true),
    slip("limit on the wrong side", (">= 99%", "<= 99%"), "\"<= 99%", "lower limit", ">= 99.9%", true),
    slip("stranger's host", ("http://${lab.edge}", "http://example.com"), "", "is not this machine", "allow-hosts", false),
    slip("password in a URL", ("http://${lab.edge}", "http://me:secret@127.0.0.1"), "", "user name or password", "", false),
    slip("no scheme", ("http://${lab.edge}", "ftp://127.0.0.1"), "\"ftp:", "starts with no scheme that can be loaded", "http://, https://", false),
    slip("unknown variable", ("delay: 200ms", "delay: \"${dely}\""), "\"${dely}", "`${dely}` is not set", "vars", false),
    slip("unset environment", ("delay: 200ms", "delay: \"${DELAY}\""), "\"${DELAY}", "`${DELAY}` is not set", "default", false),
    slip("unclosed braces", ("delay: 200ms", "delay: \"${x\""), "\"${x", "is not closed", "$${", false),
    slip("unknown arrivals", ("hold: {rate", "hould: {rate"), "hould", "no `hould`", "did you mean `hold`?", true),
    slip("a map for a list", ("    faults:\n      - relay-latency", "    faults:\n      relay-latency"), "relay-latency", "must be a list, not a map", "", true),
    slip("two keys in one item", ("delay: 200ms}", "delay: 200ms}\n        process-kill: {service: auth}"), "relay-latency", "must have one key, not 2", "- name: {…}", true),
    slip("the same key twice", ("lab: edge", "lab: edge\nlab: edge"), "lab: edge\nload", "twice", "", false),
    slip("missing objectives", ("objectives:\n  - checkout: {availability: \">= 99%\"}\n", ""), "squall", "lacks `objectives`", "", true),
    slip("no baseline", ("at: 5s", "at: 1s"), "- at: 1s", "leaves no baseline", "or later", false),
    slip("no time to recover", ("    for: 5s", "    for: 14s"), "- at", "the load at 20s", "make the load last", false),
    slip("a tag", ("question: Is it?", "question: !secret Is it?"), "!secret", "tags are not part", "in quotes", false),
    slip("a bad status", ("/checkout\", ", "/checkout\", expect: {status: 9xx}, "), "9xx", "`9xx` is no status", "2xx", true),
    slip("a bad header", ("/checkout\", ", "/checkout\", headers: {\"a b\": c}, "), "\"a b\"", "no header name", "", false),
    slip("killing without a way back", ("relay-latency: {service: auth, delay: 200ms}", "process-kill: {port: 80}"), "process-kill", "say how it comes back", "", false),
    slip("a command name alone", ("relay-latency: {service: auth, delay: 200ms}", "process-pause: {command: nginx}"), "nginx", "may match strangers", "", false),
    slip("a drain of nowhere", ("relay-latency: {service: auth, delay: 200ms}", "pop-drain: {pop: fro, steps: [0%], soak: 1s}"), "fro,", "fro", "did you mean `fra`?", false),
];

/// Every mistake of the table: its name, the whole text, and whether a schema can see it.
pub(crate) fn mistakes() -> Vec<(&'static str, String, bool)> {
    SLIPS.iter().map(|slip| (slip.name, slip.text(), slip.by_shape)).collect()
}

impl Slip {
    fn text(&self) -> String {
        assert!(BASE.contains(self.from), "{}: the base lacks `{}`", self.name, self.from);
        BASE.replacen(self.from, self.to, 1)
    }

    /// Line and column at which the caret must stand.
    fn place(&self, text: &str) -> (usize, usize) {
        let at = text.find(self.at).unwrap_or_else(|| panic!("{}: no `{}`", self.name, self.at));
        let before = &text[..at];
        (before.matches('\n').count() + 1, at - before.rfind('\n').map_or(0, |line| line + 1) + 1)
    }
}

#[test]
fn the_base_and_everything_are_without_mistakes() {
    check(BASE).unwrap_or_else(|mistakes| panic!("{}", mistakes.render()));
    check(EVERYTHING).unwrap_or_else(|mistakes| panic!("{}", mistakes.render()));
}

#[test]
fn each_single_mistake_is_one_mistake_with_its_place_and_a_way_out() {
    let mut wrong = String::new();
    for slip in SLIPS {
        let text = slip.text();
        let Err(mistakes) = check(&text) else {
            wrong += &format!("{}: it passed\n", slip.name);
            continue;
        };
        let [found] = mistakes.diagnostics.as_slice() else {
            wrong +=
                &format!("{}: {} mistakes: {}\n", slip.name, mistakes.diagnostics.len(), mistakes.render());
            continue;
        };
        let help = found.help.clone().unwrap_or_default();
        if !found.message.contains(slip.says) || !help.contains(slip.helps) {
            wrong += &format!("{}: says `{}`, helps `{help}`\n", slip.name, found.message);
        }
        let place = (found.line, found.column);
        if !slip.at.is_empty() && place != slip.place(&text) {
            wrong +=
                &format!("{}: at {place:?}, not {:?}: {}\n", slip.name, slip.place(&text), mistakes.render());
        }
        if found.line == 0 {
            wrong += &format!("{}: no place: {}\n", slip.name, found.message);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Five mistakes of five kinds, with the places at which they stand.
const FIVE: &str = r#"squall: v1
experiment: five
question: How many?
lab: edgy
load:
  - checkout:
      open: {url: "http://127.0.0.1:1/", arrivals: [{hold: {rate: 50, for: 20s}}]}
objectives:
  - chekout: {availability: ">= 99%"}
timeline:
  - at: 5s
    for: 5s
    faults:
      - relay-latancy: {service: auth, delay: 200ms}
gards: []
"#;
const PLACES: [(usize, usize); 5] = [(4, 6), (7, 67), (9, 5), (14, 9), (15, 1)];

#[test]
fn a_file_with_five_mistakes_lists_five() {
    let home = Home::new();
    let file = home.file("five.yaml", FIVE);
    let name = file.to_str().unwrap();
    for verb in ["check", "plan", "run"] {
        let done = home.squall(&[verb, name]).code(2);
        assert_eq!(done.err.matches("error: ").count(), 5, "{}", done.err);
        assert!(done.err.contains("5 mistakes in"), "{}", done.err);
        for (line, column) in PLACES {
            assert!(
                done.err.contains(&format!("{name}:{line}:{column}")),
                "no {line}:{column}: {}",
                done.err
            );
            let caret = format!("| {}^", " ".repeat(column - 1));
            assert!(done.err.contains(&caret), "no caret at {column}: {}", done.err);
        }
        assert!(done.err.matches("= help: ").count() >= 4, "{}", done.err);
        assert!(done.out.is_empty(), "{}", done.out);
    }
    let document = home.json(&["check", name, "--json"]);
    let found = document["files"][0]["mistakes"].as_array().unwrap();
    let places: Vec<(u64, u64)> = found
        .iter()
        .map(|mistake| (mistake["line"].as_u64().unwrap(), mistake["column"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, PLACES.map(|(line, column)| (line as u64, column as u64)));
    assert!(found.iter().all(|mistake| mistake["file"] == name), "{document}");
    assert!(home.run_folders().is_empty());
}

#[test]
fn mistakes_that_only_the_plan_sees_are_listed_with_the_others() {
    let home = Home::new();
    let text = BASE.replace("service: auth", "service: outh").replace("question:", "qestion:");
    let file = home.file("two.yaml", &text);
    let done = home.squall(&["check", file.to_str().unwrap()]).code(2);
    assert_eq!(done.err.matches("error: ").count(), 2, "{}", done.err);
    assert!(done.err.contains("`outh`") && done.err.contains("`qestion`"), "{}", done.err);
}

#[test]
fn injections_that_claim_one_thing_at_one_time_are_a_mistake_of_the_plan() {
    let twice = "      - relay-latency: {service: auth, delay: 200ms}\n";
    let mistakes = check(&BASE.replace(twice, &twice.repeat(2))).unwrap_err();
    assert_eq!(mistakes.diagnostics.len(), 1, "{}", mistakes.render());
    assert!(mistakes.diagnostics[0].message.contains("overlap"), "{}", mistakes.render());
    // One after the other is well.
    let later = format!("{BASE}  - at: 10s\n    for: 4s\n    faults:\n{twice}");
    check(&later).unwrap_or_else(|mistakes| panic!("{}", mistakes.render()));
}

/// Texts that mean harm, by name.
fn harmful() -> Vec<(&'static str, String)> {
    let mut laughs = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        laughs += &format!("b{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
    }
    let long = "9".repeat(300);
    vec![
        ("laughs", format!("{BASE}{laughs}")),
        ("ten megabytes", format!("{BASE}# {}\n", "x".repeat(10 << 20))),
        ("ten megabytes of list", format!("{BASE}owner: [{}]\n", "1,".repeat(5 << 20))),
        ("deep lists", "[".repeat(200_000)),
        ("deep maps", "{a: ".repeat(50_000)),
        ("deep maps with quoted brackets", "{\"}\": ".repeat(40_000)),
        ("deep lists with brackets in comments", "[#]]\n".repeat(40_000)),
        (
            "deep maps behind an unclear quote",
            "a, \"b: [\", ]\n".to_owned() + &", \", [[[[[ \", ]]]]]\n".repeat(10_000),
        ),
        ("thousands of aliases", (0..9000).map(|n| format!("a{n}: &a{n} x\nb{n}: *a{n}\n")).collect()),
        ("thousands of mistakes", (0..9000).map(|n| format!("k{n}: [1, 2]\n")).collect()),
        ("one long line", format!("a: {}", "x ".repeat(120_000))),
        ("deep dashes", "- ".repeat(100_000)),
        ("deep questions", "? ".repeat(100_000)),
        ("deep blocks", (0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect()),
        ("many keys", (0..60_000).map(|n| format!("k{n}: 1\n")).collect()),
        ("a long number", BASE.replace("200ms", &format!("{long}ms"))),
        ("a long list", BASE.replace("lab: edge", &format!("allow-hosts: [{}]", "a,".repeat(2000)))),
        ("a self-reference", format!("{BASE}owner: &a [*a]\n")),
        ("merge keys", format!("{BASE}x: &x {{a: 1}}\ny: {{<<: *x}}\n")),
        ("two documents", format!("{BASE}---\n{BASE}")),
        ("no document", String::new()),
        ("only a comment", "# nothing\n".to_owned()),
        ("a byte order mark and noise", "\u{feff}\u{0}\u{1b}[31m: x".to_owned()),
        ("a text", "hello".to_owned()),
        ("a list", "- squall: v1\n".to_owned()),
        ("tabs", BASE.replace("  ", "\t")),
        (
            "a variable in itself",
            BASE.replace("lab: edge", "vars: {a: \"${b}\", b: \"${a}\"}\nlab: edge")
                .replace("200ms", "\"${a}\""),
        ),
        ("a billion arrivals", BASE.replace("50/s", "10000000/s").replace("for: 20s", "for: 999h")),
        ("escape sequences", BASE.replace("lab: edge", "lab: \"\\e[2J\\a\"")),
    ]
}

#[test]
fn texts_that_mean_harm_are_refused_quickly_and_touch_nothing() {
    let home = Home::new();
    for (name, text) in harmful() {
        let file = home.file("harm.yaml", &text);
        let mut command = home.command();
        command.args(["check", file.to_str().unwrap()]);
        // A hundred times what a quiet host takes.
        let done = home.start_as(command).end_within(Duration::from_secs(60));
        assert_eq!(done.code, 2, "{name}: {done:?}");
        assert!(done.err.len() < 64 << 10, "{name}: {} bytes of complaints", done.err.len());
        assert!(!done.err.contains('\u{1b}'), "{name}: an escape sequence gets through: {:?}", done.err);
    }
    assert!(home.run_folders().is_empty() && !home.dir().join("squall").exists());
}

#[test]
fn no_text_needs_much_memory() {
    // An address space of 512 MiB holds the program, its threads and 256 KiB of text.
    let home = Home::new();
    for (name, text) in harmful() {
        let file = home.file("harm.yaml", &text);
        let mut command = std::process::Command::new("prlimit");
        command.arg("--as=536870912").arg(crate::support::exe()).args(["check", file.to_str().unwrap()]);
        // A hundred times what a quiet host takes.
        let done = home.start_as(command).end_within(Duration::from_secs(60));
        assert_eq!(done.code, 2, "{name}: {done:?}");
    }
}

#[test]
fn a_file_that_is_no_text_or_is_not_there_is_refused() {
    let home = Home::new();
    let file = home.dir().join("noise.yaml");
    std::fs::write(&file, [0xff, 0xfe, 0x00, 0x80]).unwrap();
    for path in [file.to_str().unwrap(), "/nowhere/x.yaml", "/", "/dev/zero"] {
        let done = home.squall(&["run", path]).code(2);
        assert!(done.err.contains(path), "{}", done.err);
    }
    assert!(home.run_folders().is_empty());
}

#[test]
fn an_encoding_other_than_utf_8_is_named_and_a_byte_order_mark_is_nothing() {
    let home = Home::new();
    let file = home.dir().join("x.yaml");
    let name = file.to_str().unwrap();
    std::fs::write(&file, format!("\u{feff}{BASE}")).unwrap();
    home.squall(&["check", name]).code(0);
    let wide: Vec<u8> = BASE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases = [
        ([b"\xff\xfe".to_vec(), wide.clone()].concat(), "UTF-16"),
        (wide, "UTF-16"),
        (BASE.replace("Is it", "Is\0it").into_bytes(), "x.yaml:3:13"),
        (BASE.replace("Is it", "Is \u{e9}").chars().map(|c| c as u8).collect(), "line 3, column 14"),
        (
            BASE.replace("Is it", "!!python/object:os.system it").into_bytes(),
            "tags are not part of the language",
        ),
        (BASE.replace("Is it", "!!str it").into_bytes(), "x.yaml:3:11"),
    ];
    for (bytes, says) in cases {
        std::fs::write(&file, bytes).unwrap();
        let done = home.squall(&["check", name]).code(2);
        assert!(done.err.contains(says), "{says}: {}", done.err);
    }
}

#[test]
fn what_is_no_regular_file_is_read_like_one_or_given_up() {
    let home = Home::new();
    let pipe = |name: &str| {
        let path = home.dir().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    };
    let verbs = ["check", "plan", "run"];
    let mute: Vec<_> = verbs.iter().map(|verb| (verb, pipe(verb))).collect();
    let going: Vec<_> = mute.iter().map(|(verb, path)| home.start(&[verb, path.to_str().unwrap()])).collect();
    for one in going {
        let done = one.end_within(Duration::from_secs(20)).code(2);
        assert!(done.err.contains("did not end within 10 s"), "{}", done.err);
    }
    let written = pipe("written");
    let going = home.start(&["check", written.to_str().unwrap()]);
    std::fs::write(&written, BASE).unwrap();
    going.end().code(0);
    let file = home.file("good.yaml", BASE);
    let mut command = home.command();
    command.args(["check", "-"]).stdin(std::fs::File::open(file).unwrap());
    assert!(home.start_as(command).end().code(0).out.contains("-: ok"));
}

#[test]
fn a_variable_that_the_file_does_not_use_is_a_mistake() {
    let home = Home::new();
    let (text, other) = (BASE.replace("50/s", "\"${rate:-50/s}\""), home.file("other.yaml", BASE));
    let file = home.file("x.yaml", &text);
    let (file, other) = (file.to_str().unwrap(), other.to_str().unwrap());
    home.squall(&["check", file, "--set", "rate=40/s"]).code(0);
    home.squall(&["check", file, other, "--set", "rate=40/s"]).code(0);
    for (set, says) in [
        ("rat=1", "did you mean `rate`?"),
        ("=1", "no name of a variable"),
        ("rate", "NAME=VALUE"),
        ("TOKEN=x", "come from the environment"),
    ] {
        for verb in ["check", "plan", "run"] {
            let done = home.squall(&[verb, file, "--set", set]).code(2);
            assert!(done.err.contains(says), "{verb} --set {set}: {}", done.err);
        }
    }
}

#[test]
fn objectives_that_cannot_be_decided_are_warned_of() {
    let home = Home::new();
    let file = home.file("x.yaml", &BASE.replace(">= 99%", ">= 100%"));
    let done = home.squall(&["check", file.to_str().unwrap()]).code(0);
    assert!(done.err.contains("warning: checkout: availability >= 100% can never be held"), "{}", done.err);
    let document = home.json(&["check", file.to_str().unwrap(), "--json"]);
    assert_eq!(document["files"][0]["warnings"].as_array().unwrap().len(), 1, "{document}");
}

#[test]
fn checking_is_fast() {
    let text = std::fs::read_to_string(root().join("scenarios/quickstart.yaml")).unwrap();
    let began = Instant::now();
    for _ in 0..50 {
        check(&text).unwrap();
    }
    // The bench has the figure; here only a blunder would show, also without optimisation.
    assert!(began.elapsed() < Duration::from_secs(5), "50 checks took {:?}", began.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_quickstart_with_anything_wrong_in_it_is_read_or_refused(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[ -~\n\t\\x1bé]{0,8}"), 1..6)
    ) {
        let mut text: Vec<char> =
            std::fs::read_to_string(root().join("scenarios/quickstart.yaml")).unwrap().chars().collect();
        for (at, length, with) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, with.chars());
        }
        let text: String = text.into_iter().collect();
        let began = Instant::now();
        if let Err(mistakes) = check(&text) {
            prop_assert!(!mistakes.diagnostics.is_empty());
            let escapes = mistakes.render().contains('\u{1b}');
            prop_assert!(!escapes, "an escape sequence gets through");
        }
        prop_assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn lines_in_any_order_are_read_or_refused(order in Just(()).prop_perturb(|(), mut rng| {
        let mut order: Vec<usize> = (0..28).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, (rng.next_u32() as usize) % (i + 1));
        }
        order
    })) {
        let text = std::fs::read_to_string(root().join("scenarios/quickstart.yaml")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let shuffled: String = order.iter().filter_map(|n| lines.get(*n)).map(|line| format!("{line}\n")).collect();
        let _ = check(&shuffled);
    }
}
