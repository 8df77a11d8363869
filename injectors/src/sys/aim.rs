//! Which packets a network fault hits, and the program by which the kernel picks them out. Pure.
//!
//! An [`Aim`] becomes one classic BPF program for `cls_bpf`: all networks, ports and exemptions in one filter, for IPv4
//! and IPv6, on every kernel since 3.13. Format and extensions: the kernel's `Documentation/networking/filter.rst` and
//! `linux/filter.h`. Packets are read from their network header on, so the kind of link does not matter.
//!
//! Invariants: an exempt packet is never hit, whatever else fits; a packet of neither IP version is never hit; a fragment
//! without ports, or a header that is cut short, is hit only by aims that do not ask for ports.

mod network;
mod own;
mod words;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

pub use network::Network;

/// The most networks, ranges and exemptions of one aim: its program stays below the kernel's 4,096 instructions.
pub const PARTS_MAX: usize = 256;

/// A protocol above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP, and so QUIC.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

/// Which way packets go, as the faulty host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From this host to others.
    Out,
    /// From others to this host.
    In,
}

/// What is never hit: a connection of the control path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exempt {
    /// The other side; any, if absent.
    pub peer: Option<Network>,
    /// A TCP port on either side; any packet, if absent.
    pub port: Option<u16>,
}

/// Which packets are hit. An empty list means any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Aim {
    /// Networks of the other side.
    pub peers: Vec<Network>,
    /// Networks of this side.
    pub locals: Vec<Network>,
    /// The protocol.
    pub protocol: Option<Protocol>,
    /// Ports of the other side.
    pub peer_ports: Vec<RangeInclusive<u16>>,
    /// Ports of this side.
    pub local_ports: Vec<RangeInclusive<u16>>,
    /// What is never hit.
    pub exempt: Vec<Exempt>,
}

/// One instruction, as `struct sock_filter` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// Instructions to skip if a condition holds.
    pub yes: u8,
    /// Instructions to skip if it does not.
    pub no: u8,
    /// The operand.
    pub k: u32,
}

mod op {
    pub(super) const LOAD_WORD: u16 = 0x20;
    pub(super) const LOAD_HALF: u16 = 0x28;
    pub(super) const LOAD_BYTE: u16 = 0x30;
    /// Half a word at X and k.
    pub(super) const LOAD_HALF_X: u16 = 0x48;
    /// X becomes four times the lower half of a byte: an IPv4 header's length.
    pub(super) const HEADER_TO_X: u16 = 0xb1;
    /// X becomes k.
    pub(super) const SET_X: u16 = 0x01;
    pub(super) const AND: u16 = 0x54;
    pub(super) const JUMP: u16 = 0x05;
    pub(super) const IF_EQUAL: u16 = 0x15;
    pub(super) const IF_GREATER: u16 = 0x25;
    pub(super) const IF_AT_LEAST: u16 = 0x35;
    pub(super) const IF_ANY_BIT: u16 = 0x45;
    pub(super) const RETURN: u16 = 0x06;
}

/// Offsets from here on are counted from the network header.
const NETWORK: u32 = 0xfff0_0000;
/// The Ethernet type of a packet.
const ETHERTYPE: u32 = 0xffff_f000;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
/// What `cls_bpf` takes as "this packet, whatever its class is by default".
const HIT: u32 = u32::MAX;
const MISS: u32 = 0;

/// A place in a program that is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label(usize);

/// A program under construction. Conditions jump over one unconditional jump, so that no distance is too far.
#[derive(Debug, Default)]
struct Assembler {
    code: Vec<Instruction>,
    /// Where each label is.
    places: Vec<Option<usize>>,
    /// Jumps whose distance is still to be filled in.
    open: Vec<(usize, Label)>,
}

impl Assembler {
    fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.code.len());
    }

    fn put(&mut self, code: u16, k: u32) {
        self.code.push(Instruction { code, yes: 0, no: 0, k });
    }

    fn jump(&mut self, to: Label) {
        self.open.push((self.code.len(), to));
        self.put(op::JUMP, 0);
    }

    /// Jumps if the condition holds.
    fn when(&mut self, condition: u16, k: u32, to: Label) {
        self.code.push(Instruction { code: condition, yes: 0, no: 1, k });
        self.jump(to);
    }

    /// Jumps unless the condition holds.
    fn unless(&mut self, condition: u16, k: u32, to: Label) {
        self.code.push(Instruction { code: condition, yes: 1, no: 0, k });
        self.jump(to);
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.open {
            let place = self.places[label.0].expect("every label is placed before the end");
            self.code[at].k = u32::try_from(place - at - 1).expect("programs are short and jump forwards");
        }
        self.code
    }
}

/// Where things are in the header of one IP version.
struct Header {
    ipv4: bool,
    /// Offsets of the addresses of the other side and of this side.
    peer: u32,
    local: u32,
    /// Offset of the protocol's number.
    protocol: u32,
    icmp: u32,
}

impl Header {
    fn new(ipv4: bool, way: Way) -> Self {
        let (source, target, protocol, icmp) = if ipv4 { (12, 16, 9, 1) } else { (8, 24, 6, 58) };
        let (peer, local) = match way {
            Way::Out => (target, source),
            Way::In => (source, target),
        };
        Self { ipv4, peer, local, protocol, icmp }
    }

    fn fits(&self, network: &Network) -> bool {
        network.address.is_ipv4() == self.ipv4
    }
}

impl Aim {
    /// Networks, ranges and exemptions in all; more than [`PARTS_MAX`] do not fit into a program.
    pub fn parts(&self) -> usize {
        self.peers.len()
            + self.locals.len()
            + self.peer_ports.len()
            + self.local_ports.len()
            + 2 * self.exempt.len()
    }

    /// Whether a packet is hit: the plain meaning of [`Aim::program`]. Ports count where the protocol has some.
    pub fn hits(&self, protocol: Protocol, peer: SocketAddr, local: SocketAddr) -> bool {
        let within = |networks: &[Network], address| {
            networks.is_empty() || networks.iter().any(|network| network.contains(address))
        };
        let ported = protocol != Protocol::Icmp;
        let among = |ranges: &[RangeInclusive<u16>], port| {
            ranges.is_empty() || ported && ranges.iter().any(|range| range.contains(&port))
        };
        let spared = self.exempt.iter().any(|exempt| {
            let at = |port| protocol == Protocol::Tcp && [peer.port(), local.port()].contains(&port);
            exempt.peer.is_none_or(|network| network.contains(peer.ip())) && exempt.port.is_none_or(at)
        });
        !spared
            && self.protocol.is_none_or(|wanted| wanted == protocol)
            && within(&self.peers, peer.ip())
            && within(&self.locals, local.ip())
            && among(&self.peer_ports, peer.port())
            && among(&self.local_ports, local.port())
    }

    /// The single addresses of other sides that a program of this way asks for: the way back from a filter that lives.
    pub fn addresses(program: &[Instruction], way: Way) -> Vec<IpAddr> {
        let six = program.iter().position(|one| one.code == op::IF_EQUAL && one.k == IPV6);
        let (four, six) = program.split_at(six.unwrap_or(program.len()));
        let word = |part: &[Instruction], at: usize, offset: u32| match part.get(at..at + 2) {
            Some([load, equal])
                if (load.code, load.k, equal.code) == (op::LOAD_WORD, NETWORK + offset, op::IF_EQUAL) =>
            {
                Some(equal.k)
            }
            _ => None,
        };
        let (v4, v6) = (Header::new(true, way).peer, Header::new(false, way).peer);
        let fours =
            (0..four.len()).filter_map(|at| word(four, at, v4)).map(|k| Ipv4Addr::from_bits(k).into());
        // Each word is a load, a comparison and a jump.
        let sixes = (0..six.len()).filter_map(|at| {
            let word = |index: u32| word(six, at + 3 * index as usize, v6 + 4 * index).map(u128::from);
            Some(Ipv6Addr::from_bits(word(0)? << 96 | word(1)? << 64 | word(2)? << 32 | word(3)?).into())
        });
        let mut found: Vec<IpAddr> = fours.chain(sixes).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The program that returns all ones for packets that are hit, going this way, and zero for all others.
    pub fn program(&self, way: Way) -> Vec<Instruction> {
        let mut asm = Assembler::default();
        let (six, hit, miss) = (asm.label(), asm.label(), asm.label());
        asm.put(op::LOAD_HALF, ETHERTYPE);
        asm.unless(op::IF_EQUAL, IPV4, six);
        self.version(&mut asm, &Header::new(true, way), way, (hit, miss));
        asm.place(six);
        asm.unless(op::IF_EQUAL, IPV6, miss);
        self.version(&mut asm, &Header::new(false, way), way, (hit, miss));
        asm.place(hit);
        asm.put(op::RETURN, HIT);
        asm.place(miss);
        asm.put(op::RETURN, MISS);
        asm.finish()
    }

    fn version(&self, asm: &mut Assembler, header: &Header, way: Way, (hit, miss): (Label, Label)) {
        for exempt in &self.exempt {
            exempt_packet(asm, header, exempt, miss);
        }
        for (networks, offset) in [(&self.peers, header.peer), (&self.locals, header.local)] {
            if !networks.is_empty() {
                let fits = asm.label();
                for network in networks.iter().filter(|network| header.fits(network)) {
                    in_network(asm, network, offset, fits);
                }
                asm.jump(miss);
                asm.place(fits);
            }
        }
        let number = |protocol| match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Icmp => header.icmp,
        };
        if let Some(protocol) = self.protocol {
            asm.put(op::LOAD_BYTE, NETWORK + header.protocol);
            asm.unless(op::IF_EQUAL, number(protocol), miss);
        }
        if !self.peer_ports.is_empty() || !self.local_ports.is_empty() {
            // Only TCP and UDP have ports where they are looked for.
            let ported = asm.label();
            asm.put(op::LOAD_BYTE, NETWORK + header.protocol);
            asm.when(op::IF_EQUAL, 6, ported);
            asm.unless(op::IF_EQUAL, 17, miss);
            asm.place(ported);
            ports_at_x(asm, header, miss);
            let (source, target) = (0, 2);
            let (peer, local) = if way == Way::Out { (target, source) } else { (source, target) };
            for (ranges, offset) in [(&self.peer_ports, peer), (&self.local_ports, local)] {
                in_ranges(asm, ranges, offset, miss);
            }
        }
        asm.jump(hit);
    }
}

/// Jumps to `miss` if the packet is exempt.
fn exempt_packet(asm: &mut Assembler, header: &Header, exempt: &Exempt, miss: Label) {
    let (of_peer, next) = (asm.label(), asm.label());
    match &exempt.peer {
        Some(network) if !header.fits(network) => return,
        Some(network) => {
            in_network(asm, network, header.peer, of_peer);
            asm.jump(next);
        }
        None => {}
    }
    asm.place(of_peer);
    match exempt.port {
        None => asm.jump(miss),
        Some(port) => {
            asm.put(op::LOAD_BYTE, NETWORK + header.protocol);
            asm.unless(op::IF_EQUAL, 6, next);
            ports_at_x(asm, header, next);
            for offset in [0, 2] {
                asm.put(op::LOAD_HALF_X, NETWORK + offset);
                asm.when(op::IF_EQUAL, u32::from(port), miss);
            }
        }
    }
    asm.place(next);
}

/// Jumps to `fits` if the address at this offset is in the network.
fn in_network(asm: &mut Assembler, network: &Network, offset: u32, fits: Label) {
    let bytes = match network.address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let next = asm.label();
    let mut bits = u32::from(network.bits);
    for (index, word) in bytes.chunks(4).enumerate() {
        if bits == 0 {
            break;
        }
        let mask = u32::MAX << (32 - bits.min(32));
        let word = word.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        asm.put(op::LOAD_WORD, NETWORK + offset + 4 * index as u32);
        if mask != u32::MAX {
            asm.put(op::AND, mask);
        }
        asm.unless(op::IF_EQUAL, word & mask, next);
        bits = bits.saturating_sub(32);
    }
    asm.jump(fits);
    asm.place(next);
}

/// Makes X point to the ports; jumps to `none` where a fragment has none.
fn ports_at_x(asm: &mut Assembler, header: &Header, none: Label) {
    if header.ipv4 {
        asm.put(op::LOAD_HALF, NETWORK + 6);
        asm.when(op::IF_ANY_BIT, 0x1fff, none);
        asm.put(op::HEADER_TO_X, NETWORK);
    } else {
        asm.put(op::SET_X, 40);
    }
}

/// Jumps to `miss` unless the port at X and this offset is in one of the ranges, or there are none.
fn in_ranges(asm: &mut Assembler, ranges: &[RangeInclusive<u16>], offset: u32, miss: Label) {
    if ranges.is_empty() {
        return;
    }
    let fits = asm.label();
    asm.put(op::LOAD_HALF_X, NETWORK + offset);
    for range in ranges {
        let next = asm.label();
        asm.unless(op::IF_AT_LEAST, u32::from(*range.start()), next);
        asm.unless(op::IF_GREATER, u32::from(*range.end()), fits);
        asm.place(next);
    }
    asm.jump(miss);
    asm.place(fits);
}

#[cfg(test)]
#[path = "aim_tests.rs"]
mod tests;
