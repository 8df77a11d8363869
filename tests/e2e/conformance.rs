//! One suite that every fault passes: whatever breaks off an injection, at whatever step, the world is as before.
//!
//! The world is a standing lab and its picture. A fault without an entry in [`CASES`] fails a test, and so does an
//! entry without a fault.

use std::time::{Duration, Instant};

use injectors::registry::INJECTORS;
use injectors::restore::restore;
use injectors::target::TargetKind;
use injectors::{Change, Env, Inventory, Undone, journal};
use serde_json::{Value, json};

use crate::support::client::Crowd;
use crate::support::{Home, Lab, exe, process, quick, turns, until};

/// The steps of an injection at which it may be broken off.
const STEPS: [&str; 8] =
    ["prepared", "intended", "held", "applied", "journalled", "undoing", "undone", "settled"];
/// How it may be broken off.
const HOWS: [&str; 4] = ["error", "kill", "kill-guardian", "kill-both"];
/// The world must be as before within this, without any help.
const ALONE: Duration = Duration::from_secs(1);
/// The longest that a relay or the balancer keeps a fault that nobody renews, with some slack for a busy host.
const LEASE: Duration = Duration::from_millis(4500);
/// What is run with `SQUALL_QUICK=1`.
const QUICK: [&str; 3] = ["pop-drain", "process-pause", "relay-latency"];
const QUICK_STEPS: [&str; 3] = ["held", "applied", "undone"];

/// Who needs the fault's attention, so that it has something to prove itself on.
enum Traffic {
    None,
    /// Requests to the relay in front of an instance.
    Relay(&'static str, &'static str),
    /// Requests to the balancer.
    Front,
}

/// How one fault is tried.
struct Case {
    fault: &'static str,
    args: &'static [&'static str],
    traffic: Traffic,
    /// It ends by itself where it lives, without anybody's help.
    leased: bool,
}

const fn relay(fault: &'static str, args: &'static [&'static str], path: &'static str) -> Case {
    Case { fault, args, traffic: Traffic::Relay("origin-1", path), leased: true }
}

const fn stressor(fault: &'static str, args: &'static [&'static str]) -> Case {
    Case { fault, args, traffic: Traffic::None, leased: true }
}

/// `@` stands for the home of the test.
const CASES: &[Case] = &[
    Case {
        fault: "command",
        args: &[
            "--do=touch",
            "--do=@/broken",
            "--undo=rm",
            "--undo=-f",
            "--undo=@/broken",
            "--effect=test",
            "--effect=-e",
            "--effect=@/broken",
        ],
        traffic: Traffic::None,
        leased: false,
    },
    stressor("cpu-stress", &["--cores=1", "--load=20%"]),
    stressor("disk-fill", &["--path=@", "--size=64MiB"]),
    Case {
        fault: "fd-exhaust",
        args: &["--instance=origin-1", "--spare=0"],
        traffic: Traffic::None,
        leased: false,
    },
    relay("http-abort", &["--instance=origin-1", "--status=503", "--share=50%"], "/login"),
    relay("http-delay", &["--instance=origin-1", "--delay=40ms", "--share=50%"], "/login"),
    relay(
        "http-header",
        &["--instance=origin-1", "--on=response", "--set=x-odd=yes", "--share=50%"],
        "/login",
    ),
    relay("http-truncate", &["--instance=origin-1", "--bytes=16B", "--share=50%"], "/asset/logo"),
    stressor("io-stress", &["--path=@", "--workers=1", "--block=4KiB", "--rate=200kB/s"]),
    stressor("memory-stress", &["--size=64MiB"]),
    Case {
        fault: "pop-drain",
        args: &["--pop=fra", "--steps=50%", "--steps=0%", "--soak=300ms"],
        traffic: Traffic::Front,
        leased: true,
    },
    Case { fault: "process-kill", args: &["--instance=origin-1"], traffic: Traffic::None, leased: false },
    Case { fault: "process-pause", args: &["--instance=origin-1"], traffic: Traffic::None, leased: false },
    relay("relay-bandwidth", &["--instance=origin-1", "--rate=1mbit"], "/asset/logo"),
    relay("relay-blackhole", &["--instance=origin-1"], "/login"),
    relay("relay-latency", &["--instance=origin-1", "--delay=30ms", "--jitter=5ms"], "/login"),
    relay("relay-limit-data", &["--instance=origin-1", "--bytes=64B"], "/asset/logo"),
    relay("relay-refuse", &["--instance=origin-1"], "/login"),
    relay("relay-reset", &["--instance=origin-1", "--share=50%"], "/login"),
    relay("relay-slice", &["--instance=origin-1", "--size=64B", "--delay=2ms"], "/asset/logo"),
    relay("relay-slow-close", &["--instance=origin-1", "--delay=50ms"], "/login"),
];

/// One test per fault, by its name.
macro_rules! conform {
    ($($test:ident: $fault:literal),* $(,)?) => {
        const TESTED: &[&str] = &[$($fault),*];
        $(
            #[test]
            fn $test() {
                conform($fault);
            }
        )*
    };
}

conform! {
    a_command_conforms: "command",
    cpu_stress_conforms: "cpu-stress",
    disk_fill_conforms: "disk-fill",
    fd_exhaust_conforms: "fd-exhaust",
    http_abort_conforms: "http-abort",
    http_delay_conforms: "http-delay",
    http_header_conforms: "http-header",
    http_truncate_conforms: "http-truncate",
    io_stress_conforms: "io-stress",
    memory_stress_conforms: "memory-stress",
    pop_drain_conforms: "pop-drain",
    process_kill_conforms: "process-kill",
    process_pause_conforms: "process-pause",
    relay_bandwidth_conforms: "relay-bandwidth",
    relay_blackhole_conforms: "relay-blackhole",
    relay_latency_conforms: "relay-latency",
    relay_limit_data_conforms: "relay-limit-data",
    relay_refuse_conforms: "relay-refuse",
    relay_reset_conforms: "relay-reset",
    relay_slice_conforms: "relay-slice",
    relay_slow_close_conforms: "relay-slow-close",
}

#[test]
fn every_fault_of_the_registry_is_tested_here() {
    // Those of the network need interfaces instead of a lab (`network.rs`, `cutting.rs`, `names.rs`), those of containers an
    // engine (`docker.rs`), and some need control groups (`pressure.rs`).
    let elsewhere = |about: &&injectors::About| {
        use TargetKind::{Connections, Container, Flows, Resolvers, Traffic};
        matches!(about.target, Traffic | Flows | Connections | Resolvers | Container)
            || crate::pressure::FAULTS.contains(&about.name)
    };
    let abouts = INJECTORS.iter().map(|injector| injector.about());
    let registry: Vec<&str> = abouts.filter(|about| !elsewhere(about)).map(|about| about.name).collect();
    let cases: Vec<&str> = CASES.iter().map(|case| case.fault).collect();
    assert_eq!(registry, cases, "a fault without a case, or a case without a fault");
    assert_eq!(registry, TESTED, "a case without a test");
}

/// One fault in a lab of its own.
struct Bench {
    home: Home,
    lab: Lab,
    case: &'static Case,
}

fn conform(fault: &str) {
    if !QUICK.contains(&fault) && quick(&format!("conformance of {fault}")) {
        return;
    }
    let quick = std::env::var_os("SQUALL_QUICK").is_some();
    let _turn = turns(1);
    let case = CASES.iter().find(|case| case.fault == fault).unwrap();
    let home = Home::new();
    let lab = Lab::up(&home);
    let bench = Bench { home, lab, case };
    let before = bench.picture();
    bench.proves_itself_and_goes(&before);
    for step in if quick { &QUICK_STEPS[..] } else { &STEPS[..] } {
        for how in HOWS {
            bench.survives(step, how, &before);
        }
    }
    bench.undoes_without_apply_and_twice(&before);
    bench.lab.down(&bench.home);
}

impl Bench {
    fn args(&self, length: &str, crash: Option<&str>) -> Vec<String> {
        let home = self.home.dir().to_str().unwrap();
        let own = self.case.args.iter().map(|arg| arg.replace('@', home));
        let mut args = vec!["inject".to_owned(), self.case.fault.to_owned()];
        args.extend(own);
        args.extend(["--for".to_owned(), length.to_owned(), "--json".to_owned()]);
        args.extend(crash.into_iter().flat_map(|crash| ["--crash-at".to_owned(), crash.to_owned()]));
        args
    }

    fn inject(&self, length: &str, crash: Option<&str>) -> crate::support::Done {
        let args = self.args(length, crash);
        self.home.squall(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The whole lab, what `command` breaks, and the stressors of this home.
    fn picture(&self) -> Value {
        let mut picture = self.lab.picture();
        picture["broken"] = json!(self.home.dir().join("broken").exists());
        let own = process::of_home(self.home.dir()).into_iter().map(process::command_line);
        picture["stressors"] = json!(own.filter(|line| line.contains("__stress")).count());
        picture
    }

    fn traffic(&self) -> Option<Crowd> {
        match self.case.traffic {
            Traffic::None => None,
            Traffic::Front => Some(Crowd::of(3, &self.lab.address, "/login")),
            Traffic::Relay(instance, path) => Some(Crowd::of(3, &self.lab.relay(instance), path)),
        }
    }

    /// Waits until the world is as before.
    #[track_caller]
    fn as_before(&self, what: &str, before: &Value, deadline: Duration) {
        let mut seen = Value::Null;
        let began = Instant::now();
        let equal = || {
            seen = self.picture();
            (seen == *before).then_some(())
        };
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until(what, deadline, equal)));
        let took = began.elapsed();
        assert!(
            found.is_ok(),
            "{} {what}: after {took:?} the world is {seen}, it was {before}",
            self.case.fault
        );
    }

    fn proves_itself_and_goes(&self, before: &Value) {
        let traffic = self.traffic();
        // A host that has no time for the traffic leaves a fault unproven or blurs what is measured.
        let lengths = ["1s", "3s", "8s"];
        let mut tries = lengths.iter().map(|length| self.inject(length, None));
        let done = tries.find(|done| done.code != 6).expect("a proof within one of three tries").code(0);
        let document: Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!(document["injections"][0]["proof"]["status"], "confirmed", "{document}");
        assert_eq!(document["injections"][0]["undo"], "restored", "{document}");
        drop(traffic);
        self.as_before("after a plain run", before, ALONE);
        assert_eq!(
            self.home.run_folders(),
            Vec::<std::path::PathBuf>::new(),
            "an ad hoc fault keeps no folder"
        );
    }

    /// Breaks an injection off and watches the world come back.
    fn survives(&self, step: &str, how: &str, before: &Value) {
        let point = format!("{step}:{how}");
        let done = self.inject("250ms", Some(&point));
        let killed = matches!(how, "kill" | "kill-both");
        assert_eq!(done.code == 137, killed, "{point}: {done:?}");
        assert!(killed || matches!(done.code, 0 | 3 | 4 | 6), "{point}: {done:?}");
        if how != "kill-both" {
            self.as_before(&point, before, ALONE);
            let left = self.left();
            // What the guardian has undone it has written down by now, or a moment later.
            if !left.is_empty() {
                until(&format!("{point}: a settled journal"), ALONE, || self.left().is_empty().then_some(()));
            }
            return;
        }
        if self.case.leased && step == "applied" {
            self.as_before(&format!("{point}, by the lease"), before, LEASE);
        }
        // Before the intent nothing was promised, and after the outcome nothing is owed.
        let owed = !matches!(step, "prepared" | "settled");
        self.blocks_the_next_until_recovered(&point, owed);
        self.as_before(&point, before, ALONE);
    }

    /// What runs have left behind, once nobody is at work in their folders: a killed guardian holds its lock until the
    /// kernel has ended it.
    fn left(&self) -> Vec<Value> {
        until("the end of engines and guardians", ALONE, || {
            (!self.home.run_folders().iter().any(|folder| engine::run::store::alive(folder))).then_some(())
        });
        let listed = self.home.json(&["recover", "--list", "--json"]);
        listed["runs"].as_array().unwrap().clone()
    }

    /// Leftovers block the next injection and name the way out; recovering is idempotent.
    fn blocks_the_next_until_recovered(&self, point: &str, owed: bool) {
        let left = self.left();
        assert_eq!(left.len(), usize::from(owed), "{} {point}: {left:?}", self.case.fault);
        if let Some(run) = left.first().map(|run| run["run"].as_str().unwrap().to_owned()) {
            let refused = self.inject("100ms", None).code(3);
            assert!(refused.err.contains(&format!("squall recover --run {run}")), "{point}: {}", refused.err);
            let recovered = self.home.json(&["recover", "--run", &run, "--json"]);
            assert_eq!(recovered["ok"], true, "{} {point}: {recovered}", self.case.fault);
            self.home.squall(&["recover", "--run", &run]).code(0);
        }
        self.home.squall(&["recover"]).code(0);
        assert!(self.left().is_empty(), "{point}");
    }

    /// Takes a change from the journal of a run that was killed before it applied anything.
    fn prepared(&self) -> Change {
        self.inject("100ms", Some("intended:kill-both"));
        let left = self.left();
        let folder = self.home.runs().join(left[0]["run"].as_str().unwrap());
        let story = journal::read(&folder).unwrap();
        story.open().first().map(|change| (*change).clone()).unwrap()
    }

    fn undoes_without_apply_and_twice(&self, before: &Value) {
        let change = self.prepared();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let env = Env { program: exe(), ..Env::host(Inventory::default()) };
            let injector = injectors::registry::find(&change.fault).unwrap();
            assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo, "undo without apply");
            injector.apply(&env, &change).await.unwrap();
            // A signal may take a moment until it shows.
            let changed = async {
                while injector.picture(&env, &change.undo).await.unwrap() == change.picture {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(ALONE, changed).await.expect("the picture shows the fault");
            assert_eq!(restore(&env, &change).await.unwrap(), Undone::Reverted, "undo");
            assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo, "undo twice");
        });
        self.as_before("after undo twice", before, ALONE);
        self.home.squall(&["recover"]).code(0);
    }
}
