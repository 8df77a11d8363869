//! Two aims beside each other, and an aim in one word. Pure.

use std::ops::RangeInclusive;

use super::{Aim, Network, Protocol};

impl Aim {
    /// Whether one packet could be hit by both, exemptions aside.
    pub fn meets(&self, other: &Self) -> bool {
        let networks = |one: &[Network], other: &[Network]| {
            let any = one.is_empty() || other.is_empty();
            any || one.iter().any(|a| other.iter().any(|b| a.contains(b.address) || b.contains(a.address)))
        };
        let ports = |one: &[RangeInclusive<u16>], other: &[RangeInclusive<u16>]| {
            let any = one.is_empty() || other.is_empty();
            any || one.iter().any(|a| other.iter().any(|b| a.start() <= b.end() && b.start() <= a.end()))
        };
        let ported = |aim: &Self| !aim.peer_ports.is_empty() || !aim.local_ports.is_empty();
        let icmp = |aim: &Self| aim.protocol == Some(Protocol::Icmp);
        let protocols = match (self.protocol, other.protocol) {
            (Some(one), Some(other)) => one == other,
            _ => !(icmp(self) && ported(other) || icmp(other) && ported(self)),
        };
        protocols
            && networks(&self.peers, &other.peers)
            && networks(&self.locals, &other.locals)
            && ports(&self.peer_ports, &other.peer_ports)
            && ports(&self.local_ports, &other.local_ports)
    }

    /// All but the exemptions in one word: `tcp;10.0.0.2;443,8000-8100;;`. What is left out means any.
    pub fn short(&self) -> String {
        fn list<T>(items: &[T], word: impl Fn(&T) -> String) -> String {
            items.iter().map(word).collect::<Vec<_>>().join(",")
        }
        let range = |range: &RangeInclusive<u16>| {
            if range.start() == range.end() {
                range.start().to_string()
            } else {
                format!("{}-{}", range.start(), range.end())
            }
        };
        let protocol = match self.protocol {
            None => "",
            Some(Protocol::Tcp) => "tcp",
            Some(Protocol::Udp) => "udp",
            Some(Protocol::Icmp) => "icmp",
        };
        let (peers, locals) = (list(&self.peers, Network::to_string), list(&self.locals, Network::to_string));
        let (ports, own) = (list(&self.peer_ports, range), list(&self.local_ports, range));
        format!("{protocol};{peers};{ports};{own};{locals}")
    }

    /// Reads what [`Aim::short`] wrote; none if it is nothing like it.
    pub fn read(word: &str) -> Option<Self> {
        fn list<T>(text: &str, item: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
            if text.is_empty() { Some(Vec::new()) } else { text.split(',').map(item).collect() }
        }
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some(first..=last)
        };
        let network = |text: &str| text.parse().ok();
        let parts: Vec<&str> = word.split(';').collect();
        let &[protocol, peers, ports, own, locals] = parts.as_slice() else { return None };
        Some(Self {
            protocol: match protocol {
                "" => None,
                "tcp" => Some(Protocol::Tcp),
                "udp" => Some(Protocol::Udp),
                "icmp" => Some(Protocol::Icmp),
                _ => return None,
            },
            peers: list(peers, network)?,
            peer_ports: list(ports, range)?,
            local_ports: list(own, range)?,
            locals: list(locals, network)?,
            exempt: Vec::new(),
        })
    }
}
