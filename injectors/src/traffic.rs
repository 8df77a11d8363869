//! Traffic as a target: which packets of which interface are hit. Pure; the interface is looked up when a run prepares.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::about::{Param, ParamKind, Presence};
use crate::sys::aim::{Aim, Exempt, Network, PARTS_MAX, Protocol, Way};
use crate::target::{INSTANCE, Inventory, PICK, SERVICE};

mod whose;

pub use whose::Whose;

/// The port of SSH: whoever came by it must be able to leave by it.
const SSH: u16 = 22;

/// Packets that are hit, wherever they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Traffic {
    /// The namespace.
    pub space: Whose,
    /// The interface; the one that leads to [`Traffic::to`], if absent.
    pub interface: Option<String>,
    /// Which way they go.
    pub direction: Direction,
    /// Networks of the other side; any, if empty and there are no names.
    pub to: Vec<Network>,
    /// Names of the other side, which stand for the addresses that they have at the time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Networks of this side: where what leaves comes from, and where what arrives goes to; any, if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Network>,
    /// Ports of the other side; any, if empty.
    pub ports: Vec<Ports>,
    /// Ports of this side; any, if empty.
    pub local_ports: Vec<Ports>,
    /// The protocol.
    pub protocol: Option<Protocol>,
    /// Networks of other sides that are never hit.
    pub protect: Vec<Network>,
    /// The instance (or service, until one is picked) whose address and port are the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// Which way packets go, as the owner of the interface sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To others.
    Out,
    /// From others.
    In,
    /// Both.
    Both,
}

/// Ports from one to another, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// Which addresses of this side are meant.
pub(crate) const FROM: Param = Param::text(
    "from",
    "addresses or networks of this side, parted by commas: its own, or of others whose packets it passes on",
);

/// The parameters that say which packets are meant.
pub const SELECTORS: &[Param] = &[
    Param { help: "service of the lab whose instances' packets are hit, by address and port", ..SERVICE },
    Param { help: "one instance by name: what it is sent; with direction, what it answers", ..INSTANCE },
    PICK,
    Param::text(
        "interface",
        "interface whose packets are hit; found from the route to `to`, or the only one of a named namespace",
    ),
    Param::text(
        "to",
        "addresses, networks or names of the other side, parted by commas: 10.0.0.2, 2001:db8::/32, api.example.org; a name \
         is asked for from the namespace, by the servers of squall's own resolv.conf, and again every few seconds",
    ),
    FROM,
    Param {
        name: "direction",
        kind: ParamKind::Choice(&["out", "in", "both"]),
        presence: Presence::Default("out"),
        help: "out (what leaves by the interface), in (what arrives) or both; of an instance: what it is sent, what it answers \
               or both, on the loopback as well",
    },
    Param::text("ports", "ports of the other side: 443 or 8000-8100, parted by commas"),
    Param::text("local-ports", "ports of this side: 443 or 8000-8100, parted by commas"),
    Param::optional(
        "protocol",
        ParamKind::Choice(&["tcp", "udp", "icmp"]),
        "tcp, udp (and so QUIC) or icmp; without one, all of IP",
    ),
    Param::text("netns", "name of the network namespace, as ip netns lists it; without one, that of squall"),
    Param::optional(
        "pid",
        ParamKind::Int { min: 1, max: 4_194_304 },
        "the network namespace of this process, such as one of a container",
    ),
    Param::text("container", "the network of this container, by its name or id, also after a restart of it"),
    Param::text("label", "those of running containers with this label, key=value or key; goes with pick"),
    Param::text(
        "image",
        "those of running containers of this image, with or without its tag; goes with pick",
    ),
    Param::text(
        "protect",
        "addresses or networks of the other side that are never hit, besides SSH; parted by commas",
    ),
];

/// The parameter that is wrong, if it is one, and what is wrong with it.
pub type Mistake = (Option<&'static str>, String);

impl Traffic {
    /// Reads the parameters of [`SELECTORS`].
    ///
    /// # Errors
    /// The first mistake.
    pub fn read(given: &BTreeMap<&'static str, String>) -> Result<Self, Mistake> {
        Self::parse(given)?.check()
    }

    /// Reads them without asking that they name an interface.
    pub(crate) fn parse(given: &BTreeMap<&'static str, String>) -> Result<Self, Mistake> {
        let get = |name: &str| given.get(name).map(String::as_str);
        let space = Whose::read(given)?;
        let interface = get("interface").map(str::to_owned);
        if interface.as_deref().is_some_and(|name| !is_name(name) || name.len() > 15) {
            return Err((
                Some("interface"),
                "an interface has a name of 1 to 15 bytes without slashes and blanks".to_owned(),
            ));
        }
        let instance = get("instance").or(get("service")).map(str::to_owned);
        let told = ["to", "from", "ports", "local-ports", "protocol"];
        let told = told.into_iter().find(|name| get(name).is_some());
        if let (Some(name), true) = (told, instance.is_some()) {
            let text = format!("`{name}` does not go with an instance, whose address says it: write `to`");
            return Err((Some(name), text));
        }
        let others = list("to", get("to"), other)?;
        let traffic = Self {
            space,
            instance,
            interface,
            direction: match get("direction") {
                None | Some("out") => Direction::Out,
                Some("in") => Direction::In,
                Some("both") => Direction::Both,
                Some(other) => {
                    return Err((Some("direction"), format!("`{other}` is not one of out, in, both")));
                }
            },
            to: others.iter().filter_map(|one| one.clone().ok()).collect(),
            names: others.into_iter().filter_map(Result::err).collect(),
            from: list("from", get("from"), str::parse)?,
            ports: list("ports", get("ports"), ports)?,
            local_ports: list("local-ports", get("local-ports"), ports)?,
            protocol: match get("protocol") {
                None => None,
                Some("tcp") => Some(Protocol::Tcp),
                Some("udp") => Some(Protocol::Udp),
                Some("icmp") => Some(Protocol::Icmp),
                Some(other) => {
                    return Err((Some("protocol"), format!("`{other}` is not one of tcp, udp, icmp")));
                }
            },
            protect: list("protect", get("protect"), str::parse)?,
        };
        let ported = !traffic.ports.is_empty() || !traffic.local_ports.is_empty();
        if ported && traffic.protocol == Some(Protocol::Icmp) {
            return Err((Some("protocol"), "icmp has no ports".to_owned()));
        }
        if traffic.is_of_two_versions() {
            let text = "no packet has both sides: one is of IPv4, the other of IPv6".to_owned();
            return Err((Some("from"), text));
        }
        traffic.bounded()?;
        Ok(traffic)
    }

    /// Whether `to` and `from` have no version of IP in common.
    fn is_of_two_versions(&self) -> bool {
        let four = |network: &Network| network.address.is_ipv4();
        let known = self.names.is_empty() && !self.to.is_empty() && !self.from.is_empty();
        known && self.to.iter().all(|to| self.from.iter().all(|from| four(to) != four(from)))
    }

    fn check(self) -> Result<Self, Mistake> {
        // A namespace that is named is named on purpose; the one in which squall runs is not.
        let anywhere = self.interface.is_none() && self.is_to_anybody() && self.instance.is_none();
        if anywhere && self.space == Whose::Own {
            return Err((None, "it is aimed at nothing: write `interface`, `to` or both".to_owned()));
        }
        self.bounded()?;
        Ok(self)
    }

    /// Refuses more than fits into one filter, and what can never hit a packet, as all of it is exempt.
    pub(crate) fn bounded(&self) -> Result<(), Mistake> {
        const SSH: Ports = Ports { first: 22, last: 22 };
        let only_ssh = |ports: &[Ports]| !ports.is_empty() && ports.iter().all(|ports| *ports == SSH);
        if self.protocol != Some(Protocol::Udp) && (only_ssh(&self.ports) || only_ssh(&self.local_ports)) {
            return Err((None, "it would hit nothing: port 22 is always exempt".to_owned()));
        }
        let spared = |to: &Network| self.protect.iter().any(|network| network.covers(to));
        if self.names.is_empty() && !self.to.is_empty() && self.to.iter().all(spared) {
            return Err((Some("to"), "it would hit nothing: all of it is protected".to_owned()));
        }
        let parts = self.aim().parts();
        if parts <= PARTS_MAX {
            return Ok(());
        }
        let text =
            format!("{parts} networks, ports and exemptions do not fit into one filter of {PARTS_MAX}");
        Err((None, text))
    }

    /// The same, but for these networks of other sides.
    ///
    /// # Errors
    /// They are too many for one filter.
    pub fn sparing(mut self, networks: &[Network]) -> Result<Self, Mistake> {
        self.protect.extend(networks);
        self.protect.sort();
        self.protect.dedup();
        self.check()
    }

    /// The same, to this instance.
    #[must_use]
    pub fn around(self, instance: &str) -> Self {
        Self { instance: Some(instance.to_owned()), ..self }
    }

    /// The same, with the address and the port of its instance.
    ///
    /// # Errors
    /// Nobody knows where it listens.
    pub fn found(&self, inventory: &Inventory) -> Result<Self, String> {
        let Some(name) = &self.instance else { return Ok(self.clone()) };
        let known = inventory.instances.iter().find(|instance| instance.name == *name);
        let listens: SocketAddr = known
            .and_then(|instance| instance.addr.parse().ok())
            .ok_or_else(|| format!("nobody knows where {name} listens: write `to` and `ports`"))?;
        Ok(Self {
            to: vec![Network::single(listens.ip())],
            ports: vec![Ports { first: listens.port(), last: listens.port() }],
            protocol: Some(Protocol::Tcp),
            ..self.clone()
        })
    }

    /// The same by this interface, once it is found.
    #[must_use]
    pub fn by(&self, interface: &str) -> Self {
        Self { interface: Some(interface.to_owned()), ..self.clone() }
    }

    /// Whether no other side is written.
    pub fn is_to_anybody(&self) -> bool {
        self.to.is_empty() && self.names.is_empty()
    }

    /// The other side as it was written.
    pub(crate) fn others(&self) -> Vec<String> {
        self.to.iter().map(ToString::to_string).chain(self.names.iter().cloned()).collect()
    }

    /// The same, with these addresses in place of its names, if it has any.
    ///
    /// # Errors
    /// There are too many, or none though there are names.
    pub fn resolved(mut self, addresses: &[IpAddr]) -> Result<Self, String> {
        if self.names.is_empty() {
            return Ok(self);
        }
        if addresses.is_empty() {
            return Err(format!("{} has no address that is reached from here", self.names.join(", ")));
        }
        self.names.clear();
        self.to.extend(addresses.iter().map(|address| Network::single(*address)));
        self.to.sort();
        self.to.dedup();
        self.check().map_err(|(_, message)| message)
    }

    /// The packets, without their way; those of its names once they are resolved. SSH and what is protected are never among them.
    pub fn aim(&self) -> Aim {
        let range = |ports: &Ports| ports.first..=ports.last;
        let ssh = Exempt { peer: None, port: Some(SSH) };
        let protected = self.protect.iter().map(|network| Exempt { peer: Some(*network), port: None });
        Aim {
            peers: self.to.clone(),
            locals: self.from.clone(),
            protocol: self.protocol,
            peer_ports: self.ports.iter().map(range).collect(),
            local_ports: self.local_ports.iter().map(range).collect(),
            exempt: std::iter::once(ssh).chain(protected).collect(),
        }
    }

    /// Whether a TCP connection from this host to an address is among the packets, as far as the aim alone tells.
    pub fn meets(&self, peer: SocketAddr) -> bool {
        let told = self.space == Whose::Own
            && !self.to.is_empty()
            && self.from.is_empty()
            && self.local_ports.is_empty();
        let unknown = SocketAddr::new(peer.ip(), 0);
        told && self.aim().hits(Protocol::Tcp, peer, unknown)
    }

    /// What may be meant as long as its names are not resolved.
    fn wide(&self) -> Aim {
        let mut aim = self.aim();
        if !self.names.is_empty() {
            aim.peers.clear();
        }
        aim
    }

    /// The ways of its packets.
    pub fn ways(&self) -> &'static [Way] {
        match self.direction {
            Direction::Out => &[Way::Out],
            Direction::In => &[Way::In],
            Direction::Both => &[Way::Out, Way::In],
        }
    }

    /// What it occupies of an interface, as far as a plan can tell: one word for each way.
    pub fn slots(&self) -> Vec<String> {
        let whole = Self { direction: Direction::Out, ..self.clone() };
        self.ways().iter().map(|way| format!("{whole} {way:?}").to_lowercase()).collect()
    }

    /// Whether one packet could be among both, as far as a plan can tell, though they are not the same.
    pub fn crosses(&self, other: &Self) -> bool {
        let apart = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        self.space == other.space
            && !apart(&self.interface, &other.interface)
            && !apart(&self.instance, &other.instance)
            && self.ways().iter().any(|way| other.ways().contains(way))
            && (self.aim() != other.aim()
                || self.interface != other.interface
                || self.instance != other.instance
                || self.names != other.names)
            && self.wide().meets(&other.wide())
    }
}

pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !matches!(text, "." | "..")
        && !text.chars().any(|c| c == '/' || c.is_whitespace() || c.is_control())
}

fn list<T: Ord>(
    name: &'static str,
    text: Option<&str>,
    item: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Mistake> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let items: Result<Vec<T>, String> = text.split(',').map(|one| item(one.trim())).collect();
    let mut items = items.map_err(|error| (Some(name), error))?;
    // The same aim, however it is written, is the same aim.
    items.sort();
    items.dedup();
    Ok(items)
}

/// A network or a name of the other side.
fn other(text: &str) -> Result<Result<Network, String>, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // What ends in a number is no name (RFC 3696): it is an address with a slip.
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let named = last.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text.len() <= 253
        && text.trim_end_matches('.').split('.').all(label);
    match text.parse() {
        Ok(network) => Ok(Ok(network)),
        Err(_) if named => Ok(Err(text.to_ascii_lowercase())),
        Err(error) => Err(error),
    }
}

fn ports(text: &str) -> Result<Ports, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Ports { first, last }),
        _ => Err(format!("`{text}` is neither a port such as 443 nor a range such as 8000-8100")),
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.instance, self.direction) {
            (None, _) => f.write_str(self.interface.as_deref().unwrap_or("the interface"))?,
            (Some(name), Direction::Out) => write!(f, "packets to {name}")?,
            (Some(name), Direction::In) => write!(f, "packets from {name}")?,
            (Some(name), Direction::Both) => write!(f, "packets to and from {name}")?,
        }
        match &self.space {
            Whose::Own => {}
            Whose::Named(name) => write!(f, " in netns {name}")?,
            Whose::Process(pid) => write!(f, " of process {pid}")?,
            Whose::Containers(containers) => write!(f, " of {containers}")?,
        }
        if self.instance.is_some() {
            return words(f, " sparing ", &self.protect);
        }
        match self.direction {
            Direction::Out => {}
            Direction::In => f.write_str(", inbound")?,
            Direction::Both => f.write_str(", both ways")?,
        }
        words(f, " to ", &self.others())?;
        words(f, " port ", &self.ports)?;
        words(f, " from ", &self.from)?;
        words(f, " local port ", &self.local_ports)?;
        match self.protocol {
            None => {}
            Some(Protocol::Tcp) => f.write_str(" tcp")?,
            Some(Protocol::Udp) => f.write_str(" udp")?,
            Some(Protocol::Icmp) => f.write_str(" icmp")?,
        }
        words(f, " sparing ", &self.protect)
    }
}

pub(crate) fn words<T: fmt::Display>(f: &mut fmt::Formatter<'_>, first: &str, items: &[T]) -> fmt::Result {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    if texts.is_empty() { Ok(()) } else { write!(f, "{first}{}", texts.join(",")) }
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
