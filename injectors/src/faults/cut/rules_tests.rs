//! The rules of a cut against the plain meaning of its aim, on packets made for the purpose.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::traffic::Traffic;

/// A packet as the kernel shows it to a rule.
struct Packet {
    protocol: u8,
    source: SocketAddr,
    target: SocketAddr,
}

impl Packet {
    fn bytes(&self, base: Base) -> Vec<u8> {
        match (base, self.source.ip(), self.target.ip()) {
            (Base::Network, IpAddr::V4(source), IpAddr::V4(target)) => {
                [vec![0x45; 12], source.octets().to_vec(), target.octets().to_vec()].concat()
            }
            (Base::Network, IpAddr::V6(source), IpAddr::V6(target)) => {
                [vec![0x60; 8], source.octets().to_vec(), target.octets().to_vec()].concat()
            }
            // An echo, which is no discovery of neighbours.
            (_, from, _) if self.protocol == ICMP || self.protocol == ICMP_6 => {
                vec![if from.is_ipv4() { 8 } else { 128 }; 16]
            }
            _ => {
                let ports = [self.source.port().to_be_bytes(), self.target.port().to_be_bytes()];
                [ports.concat(), vec![0; 12]].concat()
            }
        }
    }

    /// Whether any of these chains, from this one on, counts it.
    fn is_counted(&self, chains: &BTreeMap<String, Vec<Rule>>, chain: &str) -> Option<bool> {
        for rule in &chains[chain] {
            let mut value = Vec::new();
            for expression in rule {
                let goes_on = match expression {
                    Expression::Meta(Meta::Family) => {
                        value = vec![if self.source.is_ipv4() { IPV4 } else { IPV6 }];
                        true
                    }
                    Expression::Meta(Meta::Protocol) => {
                        value = vec![self.protocol];
                        true
                    }
                    Expression::Payload { base, offset, length } => {
                        let at = *offset as usize;
                        value = self.bytes(*base)[at..at + *length as usize].to_vec();
                        true
                    }
                    Expression::Mask(mask) => {
                        value.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
                        true
                    }
                    Expression::Compare(Relation::Equal, other) => value == *other,
                    Expression::Compare(Relation::Unequal, other) => value != *other,
                    Expression::Compare(Relation::AtLeast, other) => value >= *other,
                    Expression::Compare(Relation::AtMost, other) => value <= *other,
                    Expression::Count => return Some(true),
                    Expression::Decide(Verdict::Return) => return Some(false),
                    Expression::Decide(Verdict::Goto(next)) => return self.is_counted(chains, next),
                    other => panic!("no rule before the count has {other:?}"),
                };
                if !goes_on {
                    break;
                }
            }
        }
        None
    }
}

fn address(four: bool) -> impl Strategy<Value = IpAddr> {
    (0_u8..3, 0_u8..3).prop_map(move |(a, b)| {
        if four {
            Ipv4Addr::new(10, a, 0, b).into()
        } else {
            Ipv6Addr::new(0xfd00, a.into(), 0, 0, 0, 0, 0, b.into()).into()
        }
    })
}

fn networks() -> impl Strategy<Value = Vec<Network>> {
    let one = any::<bool>().prop_flat_map(|four| (address(four), 0..=(if four { 32_u8 } else { 128 })));
    let whole = one.prop_map(|(address, bits)| Network { address, bits }.whole());
    proptest::collection::vec(whole, 0..3)
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(22_u16), Just(80), Just(443), 1000_u16..1004]
}

fn ranges() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    proptest::collection::vec((port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b)), 0..2)
}

fn aims() -> impl Strategy<Value = Aim> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)];
    let of = proptest::option::of(protocol);
    (networks(), networks(), of, ranges(), ranges(), networks()).prop_map(
        |(peers, locals, protocol, peer_ports, local_ports, protect)| {
            let given = [("interface", "eth0".to_owned())].into();
            let traffic = Traffic { protect, ..Traffic::read(&given).unwrap() };
            Aim { peers, locals, protocol, peer_ports, local_ports, ..traffic.aim() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_cut_counts_what_its_aim_hits_and_nothing_else(
        aim in aims(),
        way in prop_oneof![Just(Way::Out), Just(Way::In)],
        (near, far) in any::<bool>().prop_flat_map(|four| (address(four), address(four))),
        (near_port, far_port) in (port(), port()),
        protocol in prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)],
    ) {
        let number = match protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
            Protocol::Icmp if near.is_ipv4() => ICMP,
            Protocol::Icmp => ICMP_6,
        };
        let (local, peer) = (SocketAddr::new(near, near_port), SocketAddr::new(far, far_port));
        let (source, target) = if way == Way::Out { (local, peer) } else { (peer, local) };
        let packet = Packet { protocol: number, source, target };
        let hits = aim.hits(protocol, peer, local);
        let rules = Rules { aim, ways: vec![way], interface: None, by: By::Drop };
        let chains = rules.way(way).into_iter().map(|(name, _, rules)| (name, rules)).collect();
        prop_assert_eq!(packet.is_counted(&chains, prefix(way)).unwrap_or(false), hits);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn whatever_a_name_comes_to_mean_is_cut_with_what_was_prepared_and_the_rules_stay_bounded(
        looks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 1..8),
    ) {
        let given = [("to", "10.0.0.1,10.1.0.0/16".to_owned())].into();
        let aim = Traffic::read(&given).unwrap().aim();
        let rules = Rules { aim, ways: vec![Way::Out, Way::In], interface: None, by: By::Lose(0.5) };
        let ours = Ours::new("run/1");
        let mut there: Vec<Picked> = Vec::new();
        for (number, look) in looks.iter().enumerate() {
            let new: Vec<IpAddr> =
                look.iter().map(|last| Ipv4Addr::new(10, number as u8 % 3, 0, *last).into()).collect();
            for edit in rules.widened(&ours, &there, &new) {
                match edit {
                    Edit::DropRule { handle, .. } => there.retain(|one| one.handle != handle),
                    Edit::AddRule { chain, rule, .. } => {
                        let end = Expression::Decide(Verdict::Goto(cut(if chain.starts_with("out") { Way::Out } else { Way::In })));
                        prop_assert_eq!(rule.last(), Some(&end));
                        let bytes = rule.iter().find_map(|one| match one {
                            Expression::Compare(_, value) => <[u8; 4]>::try_from(&value[..]).ok(),
                            _ => None,
                        });
                        let handle = there.last().map_or(1, |one| one.handle + 1);
                        there.push(Picked { chain, handle, address: bytes.unwrap().into() });
                    }
                    other => panic!("it only adds and removes rules: {other:?}"),
                }
            }
            for chain in ["out_peers", "in_peers"] {
                let own: Vec<IpAddr> =
                    there.iter().filter(|one| one.chain == chain).map(|one| one.address).collect();
                prop_assert!(own.len() <= ADDRESSES_MAX);
                let prepared = |address| rules.aim.peers.iter().any(|network| network.contains(address));
                prop_assert!(new.iter().all(|address| own.contains(address) || prepared(*address)));
            }
        }
    }
}

#[test]
fn rules_that_are_aligned_ask_for_whom_they_should_and_leave_those_that_stay() {
    let rules = |to: &str| {
        let aim = Traffic::read(&[("to", to.to_owned())].into()).unwrap().aim();
        Rules { aim, ways: vec![Way::Out, Way::In], interface: None, by: By::Drop }
    };
    let picked = |chain: &str, handle, address: &str| Picked {
        chain: chain.to_owned(),
        handle,
        address: address.parse().unwrap(),
    };
    let there: Vec<Picked> = ["out_peers", "in_peers"]
        .into_iter()
        .zip([10, 20])
        .flat_map(|(chain, at)| {
            [picked(chain, at, "10.0.0.1"), picked(chain, at + 1, "10.0.0.2"), picked("other", 9, "10.0.0.7")]
        })
        .collect();
    let ours = Ours::new("run/1");
    assert_eq!(rules("10.0.0.1,10.0.0.2").aligned(&ours, &there), []);
    let wanted = rules("10.0.0.2,10.0.0.3");
    let mut expected = Vec::new();
    for (way, handle) in [(Way::Out, 10), (Way::In, 20)] {
        let (table, chain) = (ours.table().to_owned(), chain(way, PEERS));
        let made = wanted.way(way).into_iter().find(|(name, ..)| *name == chain).unwrap();
        expected.push(Edit::DropRule { table: table.clone(), chain: chain.clone(), handle });
        // The second of those that would be made anew is the one that is missing.
        expected.push(Edit::AddRule { table, chain, rule: made.2[1].clone() });
    }
    assert_eq!(wanted.aligned(&ours, &there), expected);
}
