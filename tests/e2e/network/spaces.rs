//! Network namespaces without a name, known only by a process that lives in them: what a container is to the kernel.

use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::*;
use crate::support::process;

/// A process with mounts, processes and a host name of its own in the near side of a net, whose name is taken away.
struct Boxed {
    net: Net,
    outer: Child,
    /// Its first process.
    pid: u32,
}

impl Boxed {
    fn new(what: &str) -> Option<Self> {
        let net = furnished(what)?;
        let mut unshare = Command::new("ip");
        unshare.args(["netns", "exec", &net.name, "busybox", "unshare", "-m", "-u", "-i", "-p", "-f"]);
        let outer = unshare.args(["busybox", "sleep", "300"]).stdout(Stdio::null()).spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let pid = until("the first process of the box", PATIENCE, || {
            std::fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok()
        });
        until("its own world", PATIENCE, || process::command_line(pid).contains("sleep").then_some(()));
        net.unname();
        Some(Self { net, outer, pid })
    }

    /// `ip` or `tc` in its network.
    fn inside(&self, program: &str, words: &[&str]) -> String {
        let space = std::fs::File::open(format!("/proc/{}/ns/net", self.pid)).unwrap();
        let act = || {
            rustix::thread::move_into_link_name_space(space.as_fd(), None).unwrap();
            Command::new(program).args(words).output().unwrap()
        };
        let done = std::thread::scope(|scope| scope.spawn(act).join()).unwrap();
        assert!(done.status.success(), "{program} {words:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    fn picture(&self) -> String {
        let hooks = ["egress", "ingress"];
        hooks.map(|hook| self.inside("tc", &["filter", "show", "dev", "near", hook])).concat()
            + &self.inside("tc", &["-j", "qdisc", "show"])
            + &self.inside("ip", &["-o", "link"])
    }

    fn end(&mut self) {
        process::signal(self.pid, Signal::KILL);
        let _ = self.outer.wait();
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        self.end();
        self.net.delete();
    }
}

/// All that the host's own network shows of queues.
fn host() -> String {
    String::from_utf8(Command::new("tc").args(["-j", "qdisc", "show"]).output().unwrap().stdout).unwrap()
}

#[test]
fn a_fault_in_the_network_of_a_process_is_confirmed_there_and_nowhere_else_and_leaves_nothing() {
    let Some(boxed) = Boxed::new("the network of a process") else { return };
    let _turn = turns(1);
    let home = Home::new();
    let (before, pid) = (boxed.picture(), boxed.pid.to_string());
    for case in cases() {
        let own = case.args.iter().flat_map(|(name, text)| [format!("--{name}"), (*text).to_owned()]);
        let own: Vec<String> = own.collect();
        for aim in [&["--to", "10.77.0.2"][..], &["--to", "10.77.0.2", "--direction", "in"]] {
            let typed =
                [&["inject", case.fault, "--pid", &pid, "--for", "1200ms"], aim, &words(&own)[..]].concat();
            let mut going = home.start(&typed);
            going.says(&format!("{} on", case.fault), PATIENCE);
            assert_ne!(boxed.picture(), before, "{typed:?}");
            assert!(!host().contains(r#""dev":"sq"#), "{typed:?}");
            let done = going.end().code(0);
            assert!(done.out.contains("confirmed (requested"), "{typed:?}: {}", done.out);
            assert_eq!(boxed.picture(), before, "{typed:?}");
        }
    }
    home.assert_nothing_left();
}

#[test]
fn a_box_that_ends_with_a_fault_in_it_takes_the_fault_along() {
    let Some(mut boxed) = Boxed::new("a process that ends with its network") else { return };
    let _turn = turns(1);
    let home = Home::new();
    let pid = boxed.pid.to_string();
    let rate =
        ["inject", "network-rate", "--pid", &pid, "--to", "10.77.0.2", "--rate", "2mbit", "--by", "tbf"];
    let mut going = home.start(&[&rate[..], &["--for", "60s"]].concat());
    going.says("network-rate on", PATIENCE);
    boxed.end();
    going.signal(Signal::INT);
    let done = going.end();
    assert!(done.code != 5 && done.code != 70, "{done:?}");
    home.squall(&["recover"]).code(0);
    home.assert_nothing_left();
}
