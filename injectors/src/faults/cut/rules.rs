//! What the table of one cut is made of. Pure.
//!
//! For each way, a packet goes through a chain for each thing that the aim asks of it, from one to the next by `goto`;
//! whoever does not fit leaves the table. The last chain counts it and ends it.
//!
//! A packet that this host itself has made must not be dropped: Linux would tell its sender, who would fail at once
//! instead of waiting for an answer. It is sent to the loopback instead, as a protocol that nobody speaks and with a
//! checksum that is wrong, and ends there. Its sender knows nothing of it. Only a socket that is bound to an interface
//! keeps its packets from the loopback: those are dropped where they would leave, and their sender is told.
//!
//! Invariants: what is exempt leaves before anything is asked; without the lease, every packet leaves at once; what tells
//! a sender that it was rejected is itself never hit, nor is the discovery of neighbours and routers, whose loss would
//! outlive the fault.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::Ours;
use crate::LEASE;
use crate::faults::shape::ADDRESSES_MAX;
use crate::sys::aim::{Aim, Exempt, Network, Protocol, Way};
use crate::sys::nft::read::Picked;
use crate::sys::nft::{Base, Edit, Expression, Hook, IPV4, IPV6, Meta, Point, Reject, Relation, Verdict};

/// Behind the translation of addresses (-100), so that they are the real ones, and before the filters of others (0).
const PRIORITY: i32 = -50;
/// The set whose elements fade.
pub(super) const LEASE_SET: &str = "lease";
/// The chain that asks for the other side.
const PEERS: &str = "peers";
/// The chain that ends packets without a word.
const SINK: &str = "sink";
/// Of so many packets, a share is hit.
const DRAWS: u32 = 1 << 24;
pub(in crate::faults) const TCP: u8 = 6;
pub(in crate::faults) const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP_6: u8 = 58;

/// What becomes of packets that are hit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum By {
    /// They vanish.
    Drop,
    /// Their sender is told that no way leads there.
    Unreachable,
    /// TCP is reset; anything else vanishes.
    Reset,
    /// As if nobody listened: TCP is reset, anything else is told so.
    Refuse,
    /// This share of them vanishes.
    Lose(f64),
}

/// Which packets of a namespace are hit, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rules {
    /// The packets.
    pub(crate) aim: Aim,
    /// Their ways.
    pub(crate) ways: Vec<Way>,
    /// The only interface; any, if absent.
    pub(crate) interface: Option<String>,
    /// What becomes of them.
    pub(crate) by: By,
}

pub(in crate::faults) type Rule = Vec<Expression>;
type Chain = (String, Option<Hook>, Vec<Rule>);

impl Rules {
    /// All that makes the table.
    pub(super) fn edits(&self, ours: &Ours) -> Vec<Edit> {
        let mut edits = ready(ours);
        let table = ours.table();
        let chains = self.chains();
        edits.extend(chains.iter().map(|(chain, hook, _)| Edit::AddChain {
            table: table.to_owned(),
            chain: chain.clone(),
            hook: *hook,
        }));
        for (chain, _, rules) in chains {
            edits.extend(rules.into_iter().map(|rule| Edit::AddRule {
                table: table.to_owned(),
                chain: chain.clone(),
                rule,
            }));
        }
        edits
    }

    /// What also cuts these addresses, in one transaction: rules at the end of the chains that ask for the other side, so
    /// that those that count go on. Of those that were added before, the oldest make room.
    pub(super) fn widened(&self, ours: &Ours, there: &[Picked], new: &[IpAddr]) -> Vec<Edit> {
        let table = || ours.table().to_owned();
        let prepared = |address| self.aim.peers.iter().any(|network| network.contains(address));
        let mut edits = Vec::new();
        for way in &self.ways {
            let name = chain(*way, PEERS);
            let chains = self.way(*way);
            let first =
                chains.iter().find(|(chain, ..)| *chain == name).and_then(|(.., rules)| rules.first());
            let Some(goto) = first.and_then(|rule| rule.last()) else { continue };
            let added = there.iter().filter(|one| one.chain == name && !prepared(one.address));
            let added: Vec<&Picked> = added.collect();
            let known = |address| added.iter().any(|one| one.address == address) || prepared(address);
            let fresh = new.iter().copied().filter(|address| !known(*address)).take(ADDRESSES_MAX);
            let fresh: Vec<IpAddr> = fresh.collect();
            let over = (added.len() + fresh.len()).saturating_sub(ADDRESSES_MAX);
            let idle = added.iter().filter(|one| !new.contains(&one.address)).take(over);
            edits.extend(idle.map(|one| Edit::DropRule {
                table: table(),
                chain: name.clone(),
                handle: one.handle,
            }));
            let side = sides(*way).0;
            edits.extend(fresh.into_iter().map(|address| Edit::AddRule {
                table: table(),
                chain: name.clone(),
                rule: with(within(&Network::single(address), side), goto.clone()),
            }));
        }
        edits
    }

    /// What makes a table that is there ask for the single addresses of these rules and no others, in one transaction: the
    /// rules that count go on.
    pub(super) fn aligned(&self, ours: &Ours, there: &[Picked]) -> Vec<Edit> {
        let table = || ours.table().to_owned();
        let peers = &self.aim.peers;
        let mut edits = Vec::new();
        for way in &self.ways {
            let name = chain(*way, PEERS);
            let (kept, stale): (Vec<&Picked>, Vec<&Picked>) = there
                .iter()
                .filter(|one| one.chain == name)
                .partition(|one| peers.contains(&Network::single(one.address)));
            edits.extend(stale.into_iter().map(|one| Edit::DropRule {
                table: table(),
                chain: name.clone(),
                handle: one.handle,
            }));
            let known = |network: &Network| kept.iter().any(|one| Network::single(one.address) == *network);
            // One for each of them, in their order.
            let rules = self.way(*way).into_iter().find(|(chain, ..)| *chain == name);
            let rules = peers.iter().zip(rules.into_iter().flat_map(|(.., rules)| rules));
            edits.extend(rules.filter(|(network, _)| !known(network)).map(|(_, rule)| Edit::AddRule {
                table: table(),
                chain: name.clone(),
                rule,
            }));
        }
        edits
    }

    fn chains(&self) -> Vec<Chain> {
        let mut chains: Vec<Chain> = self.ways.iter().flat_map(|way| self.way(*way)).collect();
        let points = [
            ("output", Point::Output, &[Way::Out][..]),
            ("input", Point::Input, &[Way::In]),
            ("forward", Point::Forward, &[Way::Out, Way::In]),
        ];
        for (name, point, ways) in points {
            let led: Vec<&Way> = ways.iter().filter(|way| self.ways.contains(way)).collect();
            if led.is_empty() {
                continue;
            }
            let mut rules = vec![unleased()];
            rules.extend(
                led.iter().map(|way| vec![Expression::Decide(Verdict::Jump(prefix(**way).to_owned()))]),
            );
            let hook = Hook { point, priority: PRIORITY, reroutes: point == Point::Output };
            chains.push((name.to_owned(), Some(hook), rules));
        }
        if self.ways.contains(&Way::Out) {
            let hook = Hook { point: Point::Leave, priority: PRIORITY, reroutes: false };
            chains.push(("leave".to_owned(), Some(hook), astray()));
        }
        chains
    }

    /// The chains of one way, each with what leads to the next.
    fn way(&self, way: Way) -> Vec<Chain> {
        let aim = &self.aim;
        let (peer, local) = sides(way);
        let mut stages: Vec<(&str, Vec<Rule>)> = vec![("", Vec::new())];
        for (name, networks, side) in [(PEERS, &aim.peers, peer), ("locals", &aim.locals, local)] {
            if !networks.is_empty() {
                stages.push((name, networks.iter().map(|network| within(network, side)).collect()));
            }
        }
        if !aim.peer_ports.is_empty() || !aim.local_ports.is_empty() {
            // Only TCP and UDP have ports where they are looked for.
            stages.push(("ported", vec![protocol(TCP), protocol(UDP)]));
        }
        for (name, ranges, side) in
            [("peer_ports", &aim.peer_ports, peer), ("local_ports", &aim.local_ports, local)]
        {
            if !ranges.is_empty() {
                stages.push((name, ranges.iter().map(|range| ports(range, side)).collect()));
            }
        }
        let names: Vec<String> = stages.iter().map(|(name, _)| chain(way, name)).collect();
        let nexts = names[1..].iter().cloned().chain([cut(way)]);
        let mut chains = Vec::new();
        for ((at, (_, conditions)), next) in stages.into_iter().enumerate().zip(nexts) {
            let goto = || Expression::Decide(Verdict::Goto(next.clone()));
            let rules = if at == 0 {
                let mut rules = self.leaving(way, peer);
                rules.push(vec![goto()]);
                rules
            } else {
                conditions.into_iter().map(|condition| with(condition, goto())).collect()
            };
            chains.push((names[at].clone(), None, rules));
        }
        chains.push((cut(way), None, self.ending(way)));
        if way == Way::Out {
            chains.push((chain(way, SINK), None, sink()));
        }
        chains
    }

    /// What leaves before anything is asked of it.
    fn leaving(&self, way: Way, peer: Side) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut leave = |condition| rules.push(with(condition, Expression::Decide(Verdict::Return)));
        if let Some(name) = &self.interface {
            let which = if way == Way::Out { Meta::LeavesBy } else { Meta::ArrivesBy };
            leave(named(which, name, Relation::Unequal));
        }
        for exempt in &self.aim.exempt {
            exemptions(exempt, peer).into_iter().for_each(&mut leave);
        }
        match self.aim.protocol {
            None => {}
            Some(Protocol::Tcp) => leave(not_protocol(TCP)),
            Some(Protocol::Udp) => leave(not_protocol(UDP)),
            Some(Protocol::Icmp) => {
                for (version, number) in [(IPV4, ICMP), (IPV6, ICMP_6)] {
                    leave([family_of(version), not_protocol(number)].concat());
                }
            }
        }
        // Neighbours and routers: types 133 to 137.
        leave([family_of(IPV6), icmp(ICMP_6, 133, 137)].concat());
        if matches!(self.by, By::Reset | By::Refuse) {
            let flags = [
                Expression::Payload { base: Base::Transport, offset: 13, length: 1 },
                Expression::Mask(vec![4]),
                compare(Relation::Equal, &[4]),
            ];
            leave([&protocol(TCP)[..], &flags].concat());
        }
        if matches!(self.by, By::Unreachable | By::Refuse) {
            // Destination unreachable.
            leave([family_of(IPV4), icmp(ICMP, 3, 3)].concat());
            leave([family_of(IPV6), icmp(ICMP_6, 1, 1)].concat());
        }
        rules
    }

    /// What becomes of packets that are hit.
    fn ending(&self, way: Way) -> Vec<Rule> {
        let count = || vec![Expression::Count];
        let silence = match way {
            Way::Out => Verdict::Goto(chain(way, SINK)),
            Way::In => Verdict::Drop,
        };
        let drop = || with(count(), Expression::Decide(silence.clone()));
        let reset = || [protocol(TCP), count(), vec![Expression::Reject(Reject::Reset)]].concat();
        match self.by {
            By::Drop => vec![drop()],
            By::Unreachable => vec![with(count(), Expression::Reject(Reject::Host))],
            By::Reset => vec![reset(), drop()],
            By::Refuse => vec![reset(), with(count(), Expression::Reject(Reject::Port))],
            By::Lose(share) => {
                let below = (share.clamp(0.0, 1.0) * f64::from(DRAWS)).round() as u32;
                let draw = [
                    Expression::Random(DRAWS),
                    Expression::NetworkOrder,
                    compare(Relation::Below, &below.to_be_bytes()),
                ];
                vec![count(), [&draw[..], &drop()].concat()]
            }
        }
    }
}

/// An empty table with the lease taken: what every table of ours begins with.
pub(in crate::faults) fn ready(ours: &Ours) -> Vec<Edit> {
    let table = ours.table();
    vec![
        Edit::AddTable { table: table.to_owned(), comment: ours.comment().to_owned() },
        Edit::AddSet {
            table: table.to_owned(),
            set: LEASE_SET,
            lasts_ms: u64::try_from(LEASE.as_millis()).expect("a lease is short"),
        },
        lease(table),
    ]
}

/// Leaves if the lease has run out: the first rule wherever packets enter.
pub(in crate::faults) fn unleased() -> Vec<Expression> {
    let absent = Expression::Lookup { set: LEASE_SET, absent: true };
    vec![Expression::Meta(Meta::Family), absent, Expression::Decide(Verdict::Return)]
}

/// A packet that has been ended, of one family.
struct Ended {
    /// Where its head is marked, and with what.
    mark: (u32, [u8; 2]),
    /// Where its head says what it is sent to.
    target: u32,
    /// What it is sent to.
    loopback: Network,
}

const ENDED: [Ended; 2] = [
    // Time to live, and protocol 254: for experiments.
    Ended {
        mark: (8, [64, 254]),
        target: 16,
        loopback: Network { address: IpAddr::V4(Ipv4Addr::LOCALHOST), bits: 32 },
    },
    // Next header 59: nothing follows; and hop limit.
    Ended {
        mark: (6, [59, 64]),
        target: 24,
        loopback: Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 },
    },
];

/// Ends packets without a word, whoever has made them.
fn sink() -> Vec<Rule> {
    let others = [Expression::Meta(Meta::Origin), compare(Relation::Unequal, &[0; 4])];
    let write = |offset, bytes: &[u8]| {
        let length = bytes.len() as u32;
        // The checksum is left wrong.
        let write = Expression::Write { base: Base::Network, offset, length, sum: None, above: false };
        vec![Expression::Bytes(bytes.to_vec()), write]
    };
    let mut rules = vec![with(others.to_vec(), Expression::Decide(Verdict::Drop))];
    rules.extend(ENDED.map(|Ended { mark: (at, mark), target, loopback }| {
        let (version, address) = parts(loopback.address);
        [family_of(version), write(at, &mark), write(target, &address)].concat()
    }));
    rules
}

/// Ends what was to go to the loopback and is about to leave by another interface.
fn astray() -> Vec<Rule> {
    let rule = |Ended { mark: (offset, mark), loopback, .. }| {
        let mut rule = named(Meta::LeavesBy, "lo", Relation::Unequal);
        rule.extend(within(&loopback, Side::Target));
        rule.push(Expression::Payload { base: Base::Network, offset, length: 2 });
        rule.push(compare(Relation::Equal, &mark));
        with(rule, Expression::Decide(Verdict::Drop))
    };
    ENDED.map(rule).to_vec()
}

/// Takes the lease.
pub(super) fn lease(table: &str) -> Edit {
    Edit::AddElements { table: table.to_owned(), set: LEASE_SET, families: vec![IPV4, IPV6] }
}

/// Takes the lease anew; fails if it has run out.
pub(super) fn renewal(table: &str) -> [Edit; 2] {
    let families = vec![IPV4, IPV6];
    [Edit::DropElements { table: table.to_owned(), set: LEASE_SET, families }, lease(table)]
}

/// The chain that counts and ends what goes this way.
pub(super) fn cut(way: Way) -> String {
    chain(way, "cut")
}

/// Where the other side and this side stand in a packet.
fn sides(way: Way) -> (Side, Side) {
    match way {
        Way::Out => (Side::Target, Side::Source),
        Way::In => (Side::Source, Side::Target),
    }
}

fn prefix(way: Way) -> &'static str {
    if way == Way::Out { "out" } else { "in" }
}

fn chain(way: Way, name: &str) -> String {
    if name.is_empty() { prefix(way).to_owned() } else { format!("{}_{name}", prefix(way)) }
}

/// One side of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::faults) enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes to.
    Target,
}

/// An interface has this name, or has not.
pub(in crate::faults) fn named(which: Meta, name: &str, relation: Relation) -> Rule {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(16, 0);
    vec![Expression::Meta(which), compare(relation, &padded)]
}

fn with(mut rule: Rule, last: Expression) -> Rule {
    rule.push(last);
    rule
}

pub(in crate::faults) fn compare(relation: Relation, value: &[u8]) -> Expression {
    Expression::Compare(relation, value.to_vec())
}

pub(in crate::faults) fn family_of(version: u8) -> Rule {
    vec![Expression::Meta(Meta::Family), compare(Relation::Equal, &[version])]
}

pub(in crate::faults) fn protocol(number: u8) -> Rule {
    vec![Expression::Meta(Meta::Protocol), compare(Relation::Equal, &[number])]
}

fn not_protocol(number: u8) -> Rule {
    vec![Expression::Meta(Meta::Protocol), compare(Relation::Unequal, &[number])]
}

/// A type of ICMP from one to another.
fn icmp(number: u8, first: u8, last: u8) -> Rule {
    let kind = Expression::Payload { base: Base::Transport, offset: 0, length: 1 };
    [protocol(number), vec![kind], from_to(&[first], &[last])].concat()
}

fn from_to(first: &[u8], last: &[u8]) -> Rule {
    if first == last {
        return vec![compare(Relation::Equal, first)];
    }
    vec![compare(Relation::AtLeast, first), compare(Relation::AtMost, last)]
}

/// The family and the bytes of an address.
fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    }
}

/// An address of one side lies in a network.
pub(in crate::faults) fn within(network: &Network, side: Side) -> Rule {
    let (version, address) = parts(network.address);
    let first = if version == IPV4 { 12 } else { 8 };
    let whole = address.len();
    let offset = if side == Side::Source { first } else { first + whole as u32 };
    let bits = usize::from(network.bits);
    let mut rule = family_of(version);
    if bits == 0 {
        return rule;
    }
    // As nft writes it: whole bytes are compared alone.
    let length = if bits.is_multiple_of(8) { bits / 8 } else { whole };
    rule.push(Expression::Payload { base: Base::Network, offset, length: length as u32 });
    if !bits.is_multiple_of(8) {
        let mask = |at: usize| (0xff00_u16 >> bits.saturating_sub(at * 8).min(8)) as u8;
        rule.push(Expression::Mask((0..whole).map(mask).collect()));
    }
    rule.push(compare(Relation::Equal, &address[..length]));
    rule
}

/// A port of one side lies in a range. Only behind [`protocol`].
pub(in crate::faults) fn ports(range: &RangeInclusive<u16>, side: Side) -> Rule {
    let offset = if side == Side::Source { 0 } else { 2 };
    let port = Expression::Payload { base: Base::Transport, offset, length: 2 };
    with(vec![], port)
        .into_iter()
        .chain(from_to(&range.start().to_be_bytes(), &range.end().to_be_bytes()))
        .collect()
}

/// The conditions of which any makes a packet exempt.
fn exemptions(exempt: &Exempt, peer: Side) -> Vec<Rule> {
    let of_peer = exempt.peer.map_or(Vec::new(), |network| within(&network, peer));
    let Some(port) = exempt.port else { return vec![of_peer] };
    let either = [Side::Source, Side::Target].map(|side| {
        let own = protocol(TCP).into_iter().chain(ports(&(port..=port), side));
        of_peer.iter().cloned().chain(own).collect()
    });
    either.to_vec()
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
