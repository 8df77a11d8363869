//! What a user has written of a DNS fault, and which resolvers are meant.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::about::Args;
use crate::change::InjectError;
use crate::faults::contained::Place;
use crate::flows::Flows;
use crate::resolver::Answer;
use crate::resolver::message;
use crate::traffic::Whose;

/// The most resolvers, and the most names.
const UPSTREAMS_MAX: usize = 8;
const NAMES_MAX: usize = 64;
/// The longest delay: clients give up long before.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// The most of a `resolv.conf` that is read.
const CONF_MAX: u64 = 1 << 16;

/// Only single addresses are resolvers.
pub(super) fn aimed(flows: &Flows) -> Result<(), String> {
    let traffic = &flows.traffic;
    if traffic.to.iter().any(|network| network.bits != if network.address.is_ipv4() { 32 } else { 128 }) {
        return Err("to: write the addresses of resolvers, not networks".to_owned());
    }
    if let Some(name) = traffic.names.first() {
        return Err(format!("to: `{name}` is no address: write the addresses of resolvers"));
    }
    if traffic.to.len() > UPSTREAMS_MAX {
        return Err(format!("to: at most {UPSTREAMS_MAX} resolvers"));
    }
    Ok(())
}

/// What is asked for, without the place.
pub(super) fn asked(args: &Args) -> Result<(Vec<String>, Vec<u16>, Answer), String> {
    let list = |name: &str| -> Vec<String> {
        let text = args.text(name).unwrap_or_default().to_ascii_lowercase();
        text.split(',')
            .map(|one| one.trim().trim_end_matches('.').to_owned())
            .filter(|one| !one.is_empty())
            .collect()
    };
    for name in ["names", "types", "addresses"] {
        // Perhaps a variable that is not set: it must not mean everything.
        if args.text(name).is_some() && list(name).is_empty() {
            return Err(format!("{name}: nothing is written; leave it out to mean all"));
        }
    }
    let name = |text: &String| {
        let (star, bare) = text.strip_prefix("*.").map_or(("", text.as_str()), |bare| ("*.", bare));
        let canonical = message::canonical(bare).filter(|name| !name.contains('*'));
        let wrong = || format!("names: `{text}` is neither a name nor `*.` and what it ends with");
        canonical.map(|name| format!("{star}{name}")).ok_or_else(wrong)
    };
    let names = list("names").iter().map(name).collect::<Result<Vec<_>, _>>()?;
    if names.len() > NAMES_MAX {
        return Err(format!("names: at most {NAMES_MAX}"));
    }
    let kind = |text: &String| message::kind(text).map_err(|error| format!("types: {error}"));
    let types = list("types").iter().map(kind).collect::<Result<_, _>>()?;
    if args.share("share").is_some_and(|share| share <= 0.0) {
        return Err("it would hit nothing".to_owned());
    }
    let addresses: Result<Vec<IpAddr>, String> = list("addresses")
        .iter()
        .map(|text| text.parse().map_err(|_| format!("addresses: `{text}` is no address")))
        .collect();
    let addresses = addresses?;
    let answer = match (args.text("answer").unwrap_or_default(), args.span("delay"), addresses.is_empty()) {
        ("delay", Some(delay), true) if delay > Duration::ZERO && delay <= DELAY_MAX => {
            Answer::Delay(delay.as_secs_f64())
        }
        ("delay", _, true) => return Err("it needs `delay`, more than zero and at most 60s".to_owned()),
        ("wrong", None, false) => Answer::Wrong(addresses),
        ("wrong", None, true) => return Err("it needs `addresses`".to_owned()),
        (_, Some(_), _) => return Err("`delay` goes with `answer: delay`".to_owned()),
        (_, _, false) => return Err("`addresses` goes with `answer: wrong`".to_owned()),
        ("nxdomain", ..) => Answer::Nxdomain,
        ("servfail", ..) => Answer::Servfail,
        ("refused", ..) => Answer::Refused,
        ("timeout", ..) => Answer::Timeout,
        _ => Answer::Stale,
    };
    Ok((names, types, answer))
}

/// The resolvers whose queries are led to ours; none that is protected.
pub(super) fn upstreams(flows: &Flows, place: &Place) -> Result<Vec<IpAddr>, InjectError> {
    let protected = |address: &IpAddr| flows.traffic.protect.iter().any(|network| network.contains(*address));
    let mut all = known(flows, place)?;
    all.retain(|address| !protected(address));
    all.truncate(UPSTREAMS_MAX);
    if all.is_empty() {
        let text = format!("all resolvers of {} are protected", place.name);
        return Err(InjectError::Target(text));
    }
    Ok(all)
}

/// Those that are written, or those of the namespace's own `resolv.conf`.
fn known(flows: &Flows, place: &Place) -> Result<Vec<IpAddr>, InjectError> {
    let written: Vec<IpAddr> = flows.traffic.to.iter().map(|network| network.address).collect();
    if !written.is_empty() {
        return Ok(written);
    }
    let inside = |pid: u32| vec![format!("/proc/{pid}/root/etc/resolv.conf").into()];
    let files: Vec<PathBuf> = match &flows.traffic.space {
        Whose::Own => vec!["/etc/resolv.conf".into()],
        Whose::Process(pid) => inside(*pid),
        Whose::Named(name) => {
            vec![format!("/etc/netns/{name}/resolv.conf").into(), "/etc/resolv.conf".into()]
        }
        Whose::Containers(_) => place.of.map_or_else(Vec::new, |of| inside(of.process.pid)),
    };
    let read = |path: &PathBuf| {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path).ok()?.take(CONF_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let text = files.iter().find_map(read).unwrap_or_default();
    let found = nameservers(&text);
    if found.is_empty() {
        let text = format!("the resolv.conf of {} names no resolver: write them in `to`", place.name);
        return Err(InjectError::Target(text));
    }
    Ok(found)
}

/// The resolvers that a `resolv.conf` names, each once.
fn nameservers(text: &str) -> Vec<IpAddr> {
    let mut known = BTreeSet::new();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok());
    addresses.filter(|address| known.insert(*address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::about::Value as Arg;
    use crate::units::{Share, Span};

    fn args(given: &[(&str, &str)]) -> Args {
        let value = |name: &str, text: &str| match name {
            "delay" => Arg::Span(text.parse::<Span>().unwrap()),
            "share" => Arg::Share(text.parse::<Share>().unwrap()),
            _ => Arg::Text(text.to_owned()),
        };
        Args(given.iter().map(|(name, text)| ((*name).to_owned(), value(name, text))).collect())
    }

    #[test]
    fn what_is_asked_for_reads_as_it_was_written_or_is_refused() {
        let given = [("answer", "servfail"), ("names", "API.example.com., *.b.org"), ("types", "A, srv")];
        let (names, types, answer) = asked(&args(&given)).unwrap();
        assert_eq!(
            (names.join(" ").as_str(), types, answer),
            ("api.example.com *.b.org", vec![1, 33], Answer::Servfail)
        );
        for wrong in [
            &[("answer", "servfail"), ("names", "a.*.b")][..],
            &[("answer", "servfail"), ("types", "b")],
            &[("answer", "servfail"), ("delay", "1s")],
            &[("answer", "servfail"), ("addresses", "192.0.2.1")],
            &[("answer", "servfail"), ("share", "0%")],
            &[("answer", "delay")],
            &[("answer", "wrong")],
            &[("answer", "wrong"), ("addresses", "nowhere")],
        ] {
            assert!(asked(&args(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_resolver_that_is_protected_is_left_alone() {
        let given = |protect: &str| {
            let given = [("to", "10.0.0.1,10.0.0.2"), ("protect", protect)];
            Flows::read(&given.map(|(name, text)| (name, text.to_owned())).into())
        };
        let space = crate::sys::netlink::Space { path: "/proc/self/ns/net".into(), inode: 1 };
        let place = Place { space, name: "this host".to_owned(), key: String::new(), of: None };
        let left = upstreams(&given("10.0.0.2").unwrap(), &place).unwrap();
        assert_eq!(left, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(given("10.0.0.0/24").is_err());
    }

    #[test]
    fn resolvers_are_read_from_resolv_conf_each_once() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.0.1\nnameserver fd00::1 # b\nnameserver 10.0.0.1\n";
        let all: Vec<IpAddr> = ["10.0.0.1", "fd00::1"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(nameservers(text), all);
    }
}
