//! The table that leads queries to our resolver and its answers back. Pure.
//!
//! Addresses and ports are rewritten packet by packet, in both directions, instead of by connection: nothing is
//! remembered that would lead anybody astray when the table has gone.
//!
//! A socket that is bound to an interface keeps its queries from the loopback. Those are written back where they leave,
//! and get the true answer.

use std::net::IpAddr;

use crate::faults::cut::Ours;
use crate::faults::cut::rules::{
    Side, TCP, UDP, compare, family_of, named, ports, protocol, ready, unleased, within,
};
use crate::resolver::{HOPS, PORT, loopback};
use crate::sys::aim::Network;
use crate::sys::nft::{Base, Edit, Expression, Hook, IPV4, IPV6, Meta, Point, Relation, Verdict};

/// Before addresses are translated (-100), which may know the resolvers by other ones.
const PRIORITY: i32 = -150;

/// All that makes the table, for each real resolver and the port of ours that stands for it.
pub(super) fn edits(ours: &Ours, pairs: &[(IpAddr, u16)]) -> Vec<Edit> {
    let mut edits = ready(ours);
    let chains =
        [("output", Point::Output, true), ("input", Point::Input, false), ("leave", Point::Leave, false)];
    edits.extend(chains.map(|(chain, point, reroutes)| Edit::AddChain {
        table: ours.table().to_owned(),
        chain: chain.to_owned(),
        hook: Some(Hook { point, priority: PRIORITY, reroutes }),
    }));
    let mut rule = |chain: &str, rule: Vec<Expression>| {
        edits.push(Edit::AddRule { table: ours.table().to_owned(), chain: chain.to_owned(), rule });
    };
    for chain in ["output", "input"] {
        rule(chain, unleased());
    }
    for (version, offset) in [(IPV4, 8), (IPV6, 7)] {
        let hops = Expression::Payload { base: Base::Network, offset, length: 1 };
        let own = [family_of(version), vec![hops, compare(Relation::Equal, &[HOPS])]].concat();
        rule("output", [own, vec![Expression::Decide(Verdict::Return)]].concat());
    }
    for (upstream, port) in pairs {
        for number in [UDP, TCP] {
            let sum = if number == UDP { 6 } else { 16 };
            let whole = |address| Network { address, bits: if upstream.is_ipv4() { 32 } else { 128 } };
            let near = loopback(*upstream);
            let asked = [
                within(&whole(*upstream), Side::Target),
                protocol(number),
                ports(&(PORT..=PORT), Side::Target),
                vec![Expression::Count],
                rewritten(near, *port, Side::Target, sum),
            ];
            rule("output", asked.concat());
            let answered = [
                named(Meta::ArrivesBy, "lo", Relation::Equal),
                within(&whole(near), Side::Source),
                protocol(number),
                ports(&(*port..=*port), Side::Source),
                rewritten(*upstream, PORT, Side::Source, sum),
            ];
            rule("input", answered.concat());
            let astray = [
                named(Meta::LeavesBy, "lo", Relation::Unequal),
                within(&whole(near), Side::Target),
                protocol(number),
                ports(&(*port..=*port), Side::Target),
                rewritten(*upstream, PORT, Side::Target, sum),
            ];
            rule("leave", astray.concat());
        }
    }
    edits
}

/// Writes an address and a port into one side of a packet.
fn rewritten(address: IpAddr, port: u16, side: Side, sum: u32) -> Vec<Expression> {
    let (bytes, first, own) = match address {
        IpAddr::V4(address) => (address.octets().to_vec(), 12, Some(10)),
        IpAddr::V6(address) => (address.octets().to_vec(), 8, None),
    };
    let length = bytes.len() as u32;
    let offset = if side == Side::Source { first } else { first + length };
    let at = if side == Side::Source { 0 } else { 2 };
    vec![
        Expression::Bytes(bytes),
        Expression::Write { base: Base::Network, offset, length, sum: own, above: true },
        Expression::Bytes(port.to_be_bytes().to_vec()),
        Expression::Write { base: Base::Transport, offset: at, length: 2, sum: Some(sum), above: false },
    ]
}
