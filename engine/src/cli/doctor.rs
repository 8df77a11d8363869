//! `squall doctor`: what this host can and cannot do, and why.

use std::net::TcpListener;

use injectors::registry::INJECTORS;
use injectors::sys::cgroup::{Cgroups as _, Controller, Hierarchy, Version, host::Kernel};
use injectors::sys::docker::Docker as _;
use injectors::sys::host as system;
use injectors::sys::netlink::Network as _;
use injectors::sys::proc::{Host, Procs};
use serde::Serialize;
use serde_json::json;

use super::Global;
use super::out::{Out, plural};
use crate::lab;
use crate::slo::exit;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    says: String,
}

pub(super) fn doctor(global: &Global, out: &mut Out) -> u8 {
    let store = global.store();
    let findings = vec![
        host(),
        loopback(),
        sockets(),
        runs(&store),
        leftovers(&store),
        processes(),
        files(),
        ports(),
        standing(),
        containers(),
    ];
    let network = network();
    let pressure = pressure();
    let well = findings.iter().all(|finding| finding.ok);
    let faults: Vec<_> = INJECTORS
        .iter()
        .map(|injector| json!({"fault": injector.about().name, "needs": injector.about().needs}))
        .collect();
    if out.json {
        out.document(&json!({"ok": well, "findings": findings, "network": network, "pressure": pressure, "faults": faults}));
    } else {
        let mut text = String::new();
        for finding in &findings {
            text += &format!(
                "{} {:<16} {}\n",
                if finding.ok { "ok  " } else { "FAIL" },
                finding.what,
                finding.says
            );
        }
        text += "\nwhat the kernel has for network faults\n";
        text += &features(&network);
        text += "\nwhat there is for pressure in control groups\n";
        text += &features(&pressure);
        text += "\nfaults on this host\n";
        for injector in INJECTORS {
            let about = injector.about();
            let needs = if about.needs.is_empty() { "nothing".to_owned() } else { about.needs.join("; ") };
            text += &format!("  {:<20} needs {needs}\n", about.name);
        }
        out.result(text.as_bytes());
    }
    if well { exit::HELD } else { exit::REFUSED }
}

fn finding(what: &'static str, looked: Result<String, String>) -> Finding {
    let ok = looked.is_ok();
    Finding { what, ok, says: looked.unwrap_or_else(|why| why) }
}

fn host() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let who = if system::user() == 0 { "root".to_owned() } else { format!("user {}", system::user()) };
    finding("host", Ok(format!("{}, {cores} cores, as {who}", system::kernel())))
}

fn loopback() -> Finding {
    let bound = TcpListener::bind("127.0.0.1:0");
    finding(
        "loopback",
        bound
            .map(|_| "127.0.0.1 can be listened on".to_owned())
            .map_err(|error| format!("127.0.0.1 cannot be listened on: {error}")),
    )
}

fn sockets() -> Finding {
    let place = lab::Place::user();
    finding(
        "control sockets",
        place.map(|place| format!("in {}", place.root().display())).map_err(|error| error.to_string()),
    )
}

fn runs(store: &crate::run::Store) -> Finding {
    let root = store.root();
    let tried = std::fs::create_dir_all(root).and_then(|()| {
        let probe = root.join(".doctor");
        std::fs::write(&probe, b"")?;
        std::fs::remove_file(probe)
    });
    let says = format!("{}, {} kept", root.display(), store.folders().len());
    finding(
        "runs",
        tried.map(|()| says).map_err(|error| {
            format!("{} cannot be written: {error}; choose another with --runs", root.display())
        }),
    )
}

fn leftovers(store: &crate::run::Store) -> Finding {
    let looked = match store.leftovers() {
        Ok(left) if left.is_empty() => Ok("nothing is left of earlier runs".to_owned()),
        Ok(left) => {
            let runs = plural(left.len(), "earlier run");
            Err(format!(
                "{runs} left something changed; look: squall recover --list; restore: squall recover"
            ))
        }
        Err(error) => Err(error.to_string()),
    };
    finding("leftovers", looked)
}

fn processes() -> Finding {
    let looked = match Host.look(std::process::id()) {
        Ok(Some(_)) => match system::pidfd_works() {
            Ok(()) => {
                Ok("/proc and pidfd work: processes are identified before they are signalled".to_owned())
            }
            Err(error) => Err(format!("no pidfd ({error}): Linux 5.3 or later is needed for process faults")),
        },
        Ok(None) => {
            Err("/proc does not show this process: mount it, or leave the other pid namespace".to_owned())
        }
        Err(error) => Err(format!("/proc cannot be read: {error}")),
    };
    finding("processes", looked)
}

fn files() -> Finding {
    let limit = system::file_limit();
    let says = limit.map_or("no limit".to_owned(), |limit| format!("{limit} open files per process"));
    let enough = limit.is_none_or(|limit| limit >= 1024);
    let looked = if enough {
        Ok(says)
    } else {
        Err(format!("only {says}: a load may run out; raise it with `ulimit -n 65536`"))
    };
    finding("open files", looked)
}

/// What network faults need of the kernel, tried for real. What is missing is no fault of the host.
fn network() -> Vec<Finding> {
    let kernel = injectors::sys::netlink::host::Kernel;
    let tried = super::out::runtime().and_then(|runtime| {
        runtime.block_on(async {
            let shaping = kernel.features().await?;
            Ok([shaping, kernel.cuts().await?].concat())
        })
    });
    match tried {
        Ok(features) => features
            .into_iter()
            .map(|feature| {
                let lack = feature.lack.map_or(Ok("works".to_owned()), |why| Err(format!("missing: {why}")));
                finding(feature.name, lack)
            })
            .collect(),
        Err(error) => vec![finding("network namespaces", Err(format!("{error}; network faults need root")))],
    }
}

/// A line for each feature. What is missing is no fault of the host.
fn features(all: &[Finding]) -> String {
    let line = |one: &Finding| {
        let word = if one.ok { "ok  " } else { "none" };
        format!("{word} {:<24} {}\n", one.what, one.says)
    };
    all.iter().map(line).collect()
}

/// Which controllers of control groups are there, in which version, and whether groups may be changed.
fn pressure() -> Vec<Finding> {
    let all = [
        ("cpu (cpu-throttle)", Controller::Cpu),
        ("memory (memory-limit)", Controller::Memory),
        ("io (io-limit)", Controller::Io),
        ("freezer (process-freeze)", Controller::Freezer),
    ];
    let hierarchies = Kernel.hierarchies();
    all.into_iter()
        .map(|(what, controller)| {
            let looked = hierarchies.as_ref().map_err(ToString::to_string);
            finding(what, looked.and_then(|all| controller_of(all, controller)))
        })
        .collect()
}

fn controller_of(all: &[Hierarchy], controller: Controller) -> Result<String, String> {
    let found: Vec<&Hierarchy> = all.iter().filter(|one| one.has(controller)).collect();
    if found.is_empty() {
        return Err("missing: neither a hierarchy of version 1 nor cgroup2 has it".to_owned());
    }
    let shown: Vec<String> = found
        .iter()
        .map(|one| {
            let version = if one.version == Version::One { "v1" } else { "v2" };
            let here = Kernel.folder(&one.mount).ok().flatten();
            let writable = here.is_some_and(|folder| Kernel.writable(&folder, "cgroup.procs"));
            let who = if writable { "writable" } else { "only delegated groups are writable as this user" };
            format!("{version} at {}, {who}", one.mount.display())
        })
        .collect();
    Ok(shown.join("; "))
}

/// Whether a container engine answers. Where none does, nothing is wrong with the host.
fn containers() -> Finding {
    let engine = injectors::sys::docker::api::Sockets;
    let asked = engine.socket().map_err(|error| error.to_string()).and_then(|socket| {
        let runtime = super::out::runtime().map_err(|error| error.to_string())?;
        let version = runtime.block_on(engine.version(&socket)).map_err(|error| error.to_string())?;
        Ok(format!("{version}, on {}", socket.display()))
    });
    finding("containers", Ok(asked.unwrap_or_else(|why| format!("none for container faults: {why}"))))
}

fn ports() -> Finding {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let bounds: Vec<u32> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let looked = match bounds.as_slice() {
        [low, high] if high > low => {
            Ok(format!("{} local ports for connections to one address", high - low + 1))
        }
        _ => Ok("the range of local ports cannot be read".to_owned()),
    };
    finding("local ports", looked)
}

fn standing() -> Finding {
    let says = lab::standing().map_or("none stands; start one: squall lab up".to_owned(), |lab| {
        format!("edge stands at http://{}/", lab.address)
    });
    finding("lab", Ok(says))
}
