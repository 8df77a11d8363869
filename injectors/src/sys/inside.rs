//! What `/proc` and the cgroups tell of a process that lives in namespaces and cgroups of its own, such as one of a
//! container. Only reads.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use rustix::io::Errno;

/// Digits of a container's full id.
const ID: usize = 64;

/// The cgroups of a process: lines of `HIERARCHY:CONTROLLERS:PATH`.
pub(crate) fn cgroups(pid: u32) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
}

/// Whether the kernel says that every process of this one's cgroup is frozen; none if it has no freezer that can be read.
pub(crate) fn frozen(pid: u32) -> io::Result<Option<bool>> {
    let text = match cgroups(pid) {
        // It has ended between the open and the read.
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
            return Err(io::ErrorKind::NotFound.into());
        }
        other => other?,
    };
    for (file, wanted) in freezers(&text) {
        match std::fs::read_to_string(&file) {
            Ok(text) => return Ok(Some(text.lines().any(|line| line.trim() == wanted))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Files that tell whether a cgroup is frozen, and the line that says so: the hierarchy of the freezer, then version 2.
fn freezers(cgroups: &str) -> Vec<(PathBuf, &'static str)> {
    let parts = cgroups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    let mut found = Vec::new();
    for (controllers, path) in parts {
        let under =
            |root: &str, file: &str| PathBuf::from(format!("{root}{}/{file}", path.trim_end_matches('/')));
        if controllers.split(',').any(|name| name == "freezer") {
            found.insert(0, (under("/sys/fs/cgroup/freezer", "freezer.state"), "FROZEN"));
        } else if controllers.is_empty() {
            for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
                found.push((under(root, "cgroup.events"), "frozen 1"));
            }
        }
    }
    found
}

/// The addresses of the network namespace in which a process lives, without the loopback's.
pub(crate) fn addresses(pid: u32) -> io::Result<Vec<IpAddr>> {
    let trie = std::fs::read_to_string(format!("/proc/{pid}/net/fib_trie"))?;
    let six = std::fs::read_to_string(format!("/proc/{pid}/net/if_inet6")).unwrap_or_default();
    let mut found = local_ipv4(&trie);
    found.extend(six.lines().filter_map(|line| {
        let bits = u128::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok()?;
        Some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
    }));
    found.retain(|address| !address.is_loopback());
    Ok(found.into_iter().collect())
}

/// Addresses that `/proc/PID/net/fib_trie` calls local: each stands on the line before `/32 host LOCAL`.
fn local_ipv4(trie: &str) -> BTreeSet<IpAddr> {
    let lines: Vec<&str> = trie.lines().collect();
    let local = lines.windows(2).filter(|pair| pair[1].trim() == "/32 host LOCAL");
    local.filter_map(|pair| pair[0].trim().strip_prefix("|-- ")?.parse().ok()).collect()
}

/// The ids of the containers in which this very process runs, outermost and innermost.
pub(crate) fn enclosing() -> BTreeSet<String> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    ids(&read("cgroup"), &read("mountinfo"))
}

/// The ids of the containers whose cgroups these lines name.
pub(crate) fn containers_in(cgroups: &str) -> BTreeSet<String> {
    ids(cgroups, "")
}

/// The id of the innermost container whose cgroups these are; none if they are those of no container.
pub(crate) fn container(cgroups: &str) -> Option<String> {
    words(cgroups.lines().filter_map(path_of)).last().map(str::to_owned)
}

/// Full ids that stand in the path of a cgroup, or in the source of the files that an engine mounts over `/etc`.
fn ids(cgroups: &str, mounts: &str) -> BTreeSet<String> {
    let mounted = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(5).collect();
        let over = *fields.get(4)?;
        matches!(over, "/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf").then(|| fields[3])
    });
    words(cgroups.lines().filter_map(path_of).chain(mounted)).map(str::to_owned).collect()
}

fn path_of(line: &str) -> Option<&str> {
    line.splitn(3, ':').nth(2)
}

/// What may be the full id of a container in these paths.
fn words<'a>(paths: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let words = paths.flat_map(|path| path.split(|c: char| !c.is_ascii_alphanumeric()));
    words.filter(|word| word.len() == ID && word.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ab5359dbaab62250bd73573b4eea70af6d5506f769d25826ad6381d5289611f5";
    const B: &str = "f5cf59e5c3d7eb1f46e19d622a84add2e820cb40731e2edfea9fb2b4a203035f";

    #[test]
    fn the_containers_around_a_process_are_found_by_cgroup_or_by_mount_and_a_host_has_none() {
        let both = [A.to_owned(), B.to_owned()];
        for cgroup in [
            format!("6:freezer:/docker/{A}/docker/{B}\n"),
            format!("0::/system.slice/docker-{A}.scope/libpod-{B}.scope\n"),
        ] {
            assert_eq!(ids(&cgroup, "").into_iter().collect::<Vec<_>>(), both);
            assert_eq!(container(&cgroup).as_deref(), Some(B), "the innermost");
        }
        let mount = format!(
            "660 640 254:1 /var/lib/docker/containers/{A}/hostname /etc/hostname rw - ext4 /dev/vda rw"
        );
        assert_eq!(ids("0::/\n", &mount).into_iter().collect::<Vec<_>>(), [A]);
        // As a host sees the containers that it runs.
        let host = format!("77 25 0:56 / /var/lib/docker/containers/{A}/mounts/shm rw - tmpfs shm rw");
        assert_eq!(ids("0::/user.slice/user-0.slice/session-1.scope\n", &host), BTreeSet::new());
    }

    #[test]
    fn the_freezer_of_a_cgroup_is_found_in_either_version() {
        let files = |text: &str| freezers(text).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        let v1 = files("9:name=systemd:/d/x\n6:freezer:/d/x\n0::/d/x\n");
        assert_eq!(v1[0], PathBuf::from("/sys/fs/cgroup/freezer/d/x/freezer.state"));
        assert_eq!(files("0::/d/x\n")[0], PathBuf::from("/sys/fs/cgroup/d/x/cgroup.events"));
        assert!(frozen(std::process::id()).unwrap().is_none_or(|frozen| !frozen), "this test runs");
    }

    #[test]
    fn local_addresses_are_read_from_the_routing_trie() {
        let trie = "Local:\n  +-- 10.88.0.0/24 2 0 2\n     |-- 10.88.0.0\n        /24 link UNICAST\n     |-- 10.88.0.10\n        \
                    /32 host LOCAL\n     |-- 10.88.0.255\n        /32 link BROADCAST\n  |-- 127.0.0.1\n        /32 host LOCAL\n";
        let found: Vec<String> = local_ipv4(trie).into_iter().map(|address| address.to_string()).collect();
        assert_eq!(found, ["10.88.0.10", "127.0.0.1"]);
        assert!(addresses(std::process::id()).unwrap().iter().all(|address| !address.is_loopback()));
    }
}
