//! What the kernel answers, as what we call it. Pure.

use std::net::IpAddr;

use rtnetlink::packet_core::{Emitable, Nla};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::packet_route::tc::{TcAttribute, TcMessage, TcOption, TcStats2};

use super::{Filter, Link, Qdisc, wire};

/// `TCA_OPTIONS`.
pub(super) const OPTIONS: u16 = 2;

pub(super) fn filter_of(message: &TcMessage) -> Filter {
    let options = options(&message.attributes);
    Filter {
        kind: kind(&message.attributes),
        pref: (message.header.info >> 16) as u16,
        handle: message.header.handle.into(),
        packets: wire::handed_on(&options),
        action: wire::action_number(&options),
        program: wire::program(&options),
    }
}

/// Whether a neighbour has ever answered and has not failed since.
pub(super) fn has_answered(state: NeighbourState) -> bool {
    use NeighbourState::{Delay, Permanent, Probe, Reachable, Stale};
    matches!(state, Reachable | Stale | Delay | Probe | Permanent)
}

pub(super) fn neighbour(attribute: &NeighbourAttribute) -> Option<IpAddr> {
    match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) if !address.is_multicast() => {
            Some((*address).into())
        }
        _ => None,
    }
}

pub(super) fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some((*address).into()),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

pub(super) fn link(message: LinkMessage) -> Link {
    let down = !message.header.flags.contains(LinkFlags::Up);
    let mut link = Link { index: message.header.index, down, ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Stats64(stats) => {
                link.packets = (stats.rx_packets, stats.tx_packets);
                link.bytes = (stats.rx_bytes, stats.tx_bytes);
            }
            _ => {}
        }
    }
    link
}

pub(super) fn kind(attributes: &[TcAttribute]) -> String {
    let kind = attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    });
    kind.unwrap_or_default()
}

/// The bytes of the options, whatever rtnetlink makes of them.
pub(super) fn options(attributes: &[TcAttribute]) -> Vec<u8> {
    let mut out = Vec::new();
    for attribute in attributes {
        let TcAttribute::Options(options) = attribute else { continue };
        for option in options {
            // What it does not know is whole; what it knows has been taken apart.
            if !matches!(option, TcOption::Other(other) if other.kind() == OPTIONS) {
                let mut bytes = vec![0; option.buffer_len()];
                option.emit(&mut bytes);
                out.extend(bytes);
                continue;
            }
            let mut bytes = vec![0; option.value_len()];
            option.emit_value(&mut bytes);
            out.extend(bytes);
        }
    }
    out
}

pub(super) fn qdisc(message: TcMessage) -> Qdisc {
    let mut qdisc = Qdisc {
        kind: kind(&message.attributes),
        handle: message.header.handle.into(),
        parent: message.header.parent.into(),
        options: options(&message.attributes),
        ..Qdisc::default()
    };
    let stats = message.attributes.into_iter().filter_map(|attribute| match attribute {
        TcAttribute::Stats2(stats) => Some(stats),
        _ => None,
    });
    for part in stats.flatten() {
        match part {
            TcStats2::Basic(basic) => {
                qdisc.bytes = basic.bytes;
                qdisc.packets = u64::from(basic.packets);
            }
            TcStats2::Queue(queue) => {
                qdisc.drops = u64::from(queue.drops);
                qdisc.waiting = u64::from(queue.qlen);
                qdisc.backlog = u64::from(queue.backlog);
            }
            _ => {}
        }
    }
    qdisc
}
