//! Flows as a target: which packets of a whole network namespace are hit, by whatever interface they go. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::about::{Args, Param, ParamKind};
use crate::sys::aim::{Network, Protocol};
use crate::traffic::{Direction, FROM, Mistake, Traffic, Whose, words};

/// Flows that are hit, wherever they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flows {
    /// Which packets. Without an interface, those of all.
    pub traffic: Traffic,
    /// The namespaces among which they are hit, as written; absent where only one is meant.
    pub among: Option<String>,
}

const TO: Param = Param::text(
    "to",
    "addresses, networks or names of the other side, parted by commas: 10.0.0.2, 2001:db8::/32, api.example.org; a name \
     is asked for from the namespace, by the servers of squall's own resolv.conf, and again every few seconds",
);
const CONNECTIONS_TO: Param = Param::text(
    "to",
    "addresses, networks or names of the other side, parted by commas: 10.0.0.2, 2001:db8::/32, api.example.org; a name \
     means the addresses that it has at the start",
);
const RESOLVERS_TO: Param =
    Param::text("to", "addresses of resolvers, parted by commas; those of its resolv.conf, if left out");
const PORTS: Param = Param::text("ports", "ports of the other side: 443 or 8000-8100, parted by commas");
const LOCAL_PORTS: Param =
    Param::text("local-ports", "ports of this side: 443 or 8000-8100, parted by commas");
const PROTOCOL: Param = Param::optional(
    "protocol",
    ParamKind::Choice(&["tcp", "udp", "icmp"]),
    "tcp, udp (and so QUIC) or icmp; without one, all of IP",
);
const INTERFACE: Param = Param::text("interface", "only what goes by this interface; without one, by any");
const DIRECTION: Param = Param::optional(
    "direction",
    ParamKind::Choice(&["out", "in", "both"]),
    "out (what leaves), in (what arrives) or both; both if left out",
);
const NETNS: Param =
    Param::text("netns", "name of the network namespace, as ip netns lists it; without one, that of squall");
const PID: Param = Param::optional(
    "pid",
    ParamKind::Int { min: 1, max: 4_194_304 },
    "the network namespace of this process, such as one of a container",
);
const CONTAINER: Param = Param::text("container", "the network of this container, by its name or id");
const LABEL: Param =
    Param::text("label", "those of running containers with this label, key=value or key; goes with pick");
const IMAGE: Param = Param::text(
    "image",
    "those of running containers of this image, with or without its tag; goes with pick",
);
const PICK: Param = Param::text(
    "pick",
    "how many of them: one, all, a number or a percentage; required if there are several",
);
const PROTECT: Param = Param::text(
    "protect",
    "addresses or networks of the other side that are never hit, besides SSH; parted by commas",
);

/// The parameters that say which flows are meant.
pub const SELECTORS: &[Param] = &[
    TO,
    FROM,
    PORTS,
    LOCAL_PORTS,
    PROTOCOL,
    INTERFACE,
    DIRECTION,
    NETNS,
    PID,
    CONTAINER,
    LABEL,
    IMAGE,
    PICK,
    PROTECT,
];
/// Those that say which connections are meant.
pub const CONNECTIONS: &[Param] =
    &[CONNECTIONS_TO, FROM, PORTS, LOCAL_PORTS, NETNS, PID, CONTAINER, LABEL, IMAGE, PICK, PROTECT];
/// Those that say which resolvers are meant.
pub const RESOLVERS: &[Param] = &[RESOLVERS_TO, NETNS, PID, CONTAINER, LABEL, IMAGE, PICK, PROTECT];

impl Flows {
    /// Reads the parameters of [`SELECTORS`], [`CONNECTIONS`] or [`RESOLVERS`].
    ///
    /// # Errors
    /// The first mistake.
    pub fn read(given: &BTreeMap<&'static str, String>) -> Result<Self, Mistake> {
        let mut given = given.clone();
        given.entry("direction").or_insert_with(|| "both".to_owned());
        let traffic = Traffic::parse(&given)?;
        Ok(Self { traffic, among: None })
    }

    /// The same, but for these networks of other sides.
    ///
    /// # Errors
    /// They are too many.
    pub fn sparing(mut self, networks: &[Network]) -> Result<Self, Mistake> {
        self.traffic.protect.extend(networks);
        self.traffic.protect.sort();
        self.traffic.protect.dedup();
        self.traffic.bounded()?;
        Ok(self)
    }

    /// The same, with the namespaces that the fault's own parameters name.
    #[must_use]
    pub fn called(mut self, args: &Args) -> Self {
        self.among = args.text("groups").or_else(|| args.text("among")).map(str::to_owned);
        self
    }

    /// Whether anything narrows it beyond the namespace.
    pub fn is_aimed(&self) -> bool {
        let Traffic { interface, from, ports, local_ports, .. } = &self.traffic;
        let listed = !from.is_empty() || !ports.is_empty() || !local_ports.is_empty();
        listed || interface.is_some() || !self.traffic.is_to_anybody()
    }
}

impl fmt::Display for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Traffic { space, interface, direction, from, ports, local_ports, protocol, protect, .. } =
            &self.traffic;
        match &self.among {
            Some(names) => f.write_str(names)?,
            None if self.traffic.is_to_anybody() => f.write_str("anybody")?,
            None => words(f, "", &self.traffic.others())?,
        }
        words(f, " port ", ports)?;
        words(f, " from ", from)?;
        words(f, " local port ", local_ports)?;
        match protocol {
            None => {}
            Some(Protocol::Tcp) => f.write_str(" tcp")?,
            Some(Protocol::Udp) => f.write_str(" udp")?,
            Some(Protocol::Icmp) => f.write_str(" icmp")?,
        }
        if let Some(interface) = interface {
            write!(f, " by {interface}")?;
        }
        match space {
            Whose::Own => {}
            Whose::Named(name) => write!(f, " in netns {name}")?,
            Whose::Process(pid) => write!(f, " of process {pid}")?,
            Whose::Containers(containers) => write!(f, " of {containers}")?,
        }
        match direction {
            Direction::Out => f.write_str(", outbound")?,
            Direction::In => f.write_str(", inbound")?,
            Direction::Both => {}
        }
        words(f, " sparing ", protect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&'static str, &str)]) -> Result<Flows, Mistake> {
        Flows::read(&given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect())
    }

    #[test]
    fn flows_go_both_ways_unless_written_and_read_as_they_were_written() {
        let both =
            read(&[("netns", "a"), ("to", "10.0.0.3,10.0.0.2"), ("ports", "443"), ("protocol", "tcp")]);
        assert_eq!(both.unwrap().to_string(), "10.0.0.2,10.0.0.3 port 443 tcp in netns a");
        let out = read(&[("interface", "eth0"), ("direction", "out")]).unwrap();
        assert_eq!(out.to_string(), "anybody by eth0, outbound");
        let from = read(&[("from", "10.0.0.0/24"), ("local-ports", "80")]).unwrap();
        assert_eq!(from.to_string(), "anybody from 10.0.0.0/24 local port 80");
        assert!(read(&[("from", "10.0.0.1")]).unwrap().is_aimed());
        assert!(out.is_aimed() && !read(&[("netns", "a"), ("protocol", "tcp")]).unwrap().is_aimed());
    }

    #[test]
    fn what_can_never_be_hit_is_refused_instead_of_being_waited_for() {
        let says =
            |given: &[(&'static str, &str)]| read(given).map_or_else(|(_, why)| why, |_| String::new());
        assert!(says(&[("to", "10.0.0.2"), ("ports", "22")]).contains("port 22 is always exempt"));
        assert!(says(&[("local-ports", "22"), ("protocol", "tcp")]).contains("port 22 is always exempt"));
        assert!(says(&[("to", "10.0.0.2,10.0.1.0/24"), ("protect", "10.0.0.0/16")]).contains("protected"));
        for given in [
            &[("to", "10.0.0.2"), ("ports", "22,80")][..],
            &[("ports", "22"), ("protocol", "udp")],
            &[("to", "10.0.0.0/16"), ("protect", "10.0.0.0/24")],
            &[("to", "10.0.0.2,api.example.org"), ("protect", "10.0.0.2")],
        ] {
            assert_eq!(says(given), "", "{given:?}");
        }
    }

    #[test]
    fn what_is_protected_by_the_experiment_is_spared_as_well() {
        let flows = read(&[("to", "10.0.0.0/8"), ("protect", "10.9.0.1")]).unwrap();
        let spared = flows.sparing(&["10.1.0.0/16".parse().unwrap()]).unwrap();
        assert_eq!(spared.traffic.protect.len(), 2);
        assert!(spared.to_string().ends_with(" sparing 10.1.0.0/16,10.9.0.1"));
        let many: Vec<Network> = (0..200).map(|n| format!("10.0.{n}.0/24").parse().unwrap()).collect();
        assert!(read(&[("to", "10.0.0.0/8")]).unwrap().sparing(&many).is_err());
    }

    #[test]
    fn a_mistake_names_its_parameter() {
        assert_eq!(read(&[("ports", "1"), ("protocol", "icmp")]).unwrap_err().0, Some("protocol"));
        assert_eq!(read(&[("to", "10.0.0.256")]).unwrap_err().0, Some("to"));
    }

    #[test]
    fn a_name_is_an_other_side_as_well() {
        let flows = read(&[("to", "api.example.org, 10.0.0.2"), ("ports", "443")]).unwrap();
        assert_eq!(flows.to_string(), "10.0.0.2,api.example.org port 443");
        assert!(read(&[("to", "api.example.org")]).unwrap().is_aimed());
    }
}
