//! From which of this side's own addresses a packet has to leave so that an aim hits it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Aim, Network};

impl Aim {
    /// An own address that the aim asks for and that can send to a peer, the likeliest; none if there is none, or if the
    /// aim asks for none. `own` are those of all interfaces but the loopback.
    pub fn source(&self, own: &[IpAddr], peer: IpAddr) -> Option<IpAddr> {
        let written =
            self.locals.iter().filter(|network| network.is_single() && network.address.is_loopback());
        let written = written.map(|network| network.address);
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        // What leaves the host with an address of the loopback comes to nobody.
        let here = peer.is_loopback() || own.contains(&peer);
        own.iter()
            .copied()
            .chain(written.chain(loopback).filter(|_| here))
            .filter(|address| address.is_ipv4() == peer.is_ipv4())
            .filter(|address| self.locals.iter().any(|network: &Network| network.contains(*address)))
            .min_by_key(|address| reach(*address).abs_diff(reach(peer)))
    }
}

/// How far an address is known.
fn reach(address: IpAddr) -> u8 {
    let link = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    match (address.is_loopback(), link) {
        (true, _) => 0,
        (_, true) => 1,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_an_own_address_that_is_asked_for_and_reaches_the_peer() {
        let own: Vec<IpAddr> =
            ["fe80::7", "10.0.0.1", "10.1.0.1", "fd00::1"].map(|text| text.parse().unwrap()).to_vec();
        let source = |from: &str, peer: &str| {
            let aim = Aim::read(&format!(";;;;{from}")).unwrap();
            aim.source(&own, peer.parse().unwrap()).map(|found| found.to_string()).unwrap_or_default()
        };
        assert_eq!(source("", "10.0.0.2"), "", "the kernel chooses");
        assert_eq!(source("10.1.0.0/16", "10.0.0.2"), "10.1.0.1");
        assert_eq!(source("10.0.0.0/8", "10.0.0.2"), "10.0.0.1");
        assert_eq!(source("10.0.0.0/8", "fd00::2"), "", "of the other version");
        assert_eq!(source("::/0", "fd00::2"), "fd00::1");
        assert_eq!(source("::/0", "fe80::2"), "fe80::7");
        assert_eq!(source("192.0.2.0/24", "10.0.0.2"), "", "somebody else's, which this host passes on");
        assert_eq!(source("0.0.0.0/0", "127.0.0.1"), "127.0.0.1");
        assert_eq!(source("127.0.0.9", "127.0.0.1"), "127.0.0.9");
        assert_eq!(source("127.0.0.0/8", "10.0.0.1"), "127.0.0.1", "it goes by the loopback");
        assert_eq!(source("127.0.0.0/8", "10.0.0.2"), "");
    }
}
