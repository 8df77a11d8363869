//! Every aim against its plain meaning, on packets made for the purpose.

use proptest::prelude::*;

use super::*;

/// A packet as a test thinks of it.
#[derive(Debug, Clone)]
struct Packet {
    source: IpAddr,
    target: IpAddr,
    protocol: u8,
    ports: (u16, u16),
    /// Words of IPv4 options.
    options: u8,
    /// A later fragment: no ports.
    fragment: bool,
}

impl Packet {
    fn ethertype(&self) -> u16 {
        if self.source.is_ipv4() { 0x0800 } else { 0x86dd }
    }

    /// From the network header on.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match (self.source, self.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                bytes.extend([0x45 + self.options, 0, 0, 0, 0, 0, 0x40, u8::from(self.fragment)]);
                bytes.extend([64, self.protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(target.octets());
                bytes.extend(std::iter::repeat_n(0xff, usize::from(self.options) * 4));
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                bytes.extend([0x60, 0, 0, 0, 0, 0, self.protocol, 64]);
                bytes.extend(source.octets());
                bytes.extend(target.octets());
            }
            _ => unreachable!("both sides are of one version"),
        }
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        bytes
    }
}

/// The kernel's machine, as far as these programs use it. What lies outside of the packet ends the program with 0.
fn interpret(program: &[Instruction], ethertype: u16, packet: &[u8]) -> u32 {
    let load = |offset: u32, length: usize| -> Option<u32> {
        if offset == ETHERTYPE {
            return Some(u32::from(ethertype));
        }
        let at = usize::try_from(offset.checked_sub(NETWORK)?).ok()?;
        let bytes = packet.get(at..at + length)?;
        Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    };
    let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
    for _ in 0..program.len() {
        let Instruction { code, yes, no, k } = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { yes } else { no });
        let loaded = match code {
            op::LOAD_WORD => load(k, 4),
            op::LOAD_HALF => load(k, 2),
            op::LOAD_BYTE | op::HEADER_TO_X => load(k, 1),
            op::LOAD_HALF_X => load(x.wrapping_add(k), 2),
            op::SET_X => Some(k),
            op::AND => Some(a & k),
            op::IF_EQUAL => {
                branch(a == k);
                continue;
            }
            op::IF_GREATER => {
                branch(a > k);
                continue;
            }
            op::IF_AT_LEAST => {
                branch(a >= k);
                continue;
            }
            op::IF_ANY_BIT => {
                branch(a & k != 0);
                continue;
            }
            op::JUMP => {
                at += k as usize;
                continue;
            }
            op::RETURN => return k,
            other => panic!("unknown operation {other:#x}"),
        };
        let Some(value) = loaded else { return 0 };
        match code {
            op::HEADER_TO_X => x = 4 * (value & 0xf),
            op::SET_X => x = value,
            _ => a = value,
        }
    }
    panic!("the program does not end");
}

/// What an aim means, in the plainest words.
fn meant(aim: &Aim, way: Way, packet: &Packet) -> bool {
    let (peer, local) = match way {
        Way::Out => (packet.target, packet.source),
        Way::In => (packet.source, packet.target),
    };
    let (peer_port, local_port) = match way {
        Way::Out => (packet.ports.1, packet.ports.0),
        Way::In => (packet.ports.0, packet.ports.1),
    };
    let of = |networks: &[Network], address| {
        networks.is_empty() || networks.iter().any(|network| network.contains(address))
    };
    let in_ranges = |ranges: &[RangeInclusive<u16>], port| {
        ranges.is_empty() || ranges.iter().any(|range| range.contains(port))
    };
    let ported = matches!(packet.protocol, 6 | 17) && !packet.fragment;
    let exempt = aim.exempt.iter().any(|exempt| {
        exempt.peer.is_none_or(|network| network.contains(peer))
            && exempt.port.is_none_or(|port| {
                packet.protocol == 6 && !packet.fragment && [packet.ports.0, packet.ports.1].contains(&port)
            })
    });
    let protocol = aim.protocol.is_none_or(|protocol| match protocol {
        Protocol::Tcp => packet.protocol == 6,
        Protocol::Udp => packet.protocol == 17,
        Protocol::Icmp => packet.protocol == if packet.source.is_ipv4() { 1 } else { 58 },
    });
    let ports = (aim.peer_ports.is_empty() && aim.local_ports.is_empty())
        || ported && in_ranges(&aim.peer_ports, &peer_port) && in_ranges(&aim.local_ports, &local_port);
    !exempt && of(&aim.peers, peer) && of(&aim.locals, local) && protocol && ports
}

/// Few addresses and ports, so that aims often hit.
fn address(v4: bool) -> impl Strategy<Value = IpAddr> {
    (0u8..3, 0u8..3).prop_map(move |(a, b)| {
        if v4 {
            Ipv4Addr::new(10, a, 0, b).into()
        } else {
            Ipv6Addr::new(0xfd00, a.into(), 0, 0, 0, 0, 0, b.into()).into()
        }
    })
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(22), Just(80), Just(443), 1000u16..1010, any::<u16>()]
}

fn network() -> impl Strategy<Value = Network> {
    any::<bool>()
        .prop_flat_map(|v4| (address(v4), 0..=(if v4 { 32u8 } else { 128 })))
        .prop_map(|(address, bits)| Network { address: Network { address, bits }.first(), bits })
}

fn ranges() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    proptest::collection::vec((port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b)), 0..3)
}

fn aim() -> impl Strategy<Value = Aim> {
    use proptest::collection::vec;
    use proptest::option::of;
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)];
    let exempt = (of(network()), of(port())).prop_map(|(peer, port)| Exempt { peer, port });
    (vec(network(), 0..4), vec(network(), 0..3), of(protocol), ranges(), ranges(), vec(exempt, 0..2))
        .prop_map(|(peers, locals, protocol, peer_ports, local_ports, exempt)| Aim {
            peers,
            locals,
            protocol,
            peer_ports,
            local_ports,
            exempt,
        })
}

fn packet() -> impl Strategy<Value = Packet> {
    let protocol = prop_oneof![Just(6u8), Just(17), Just(1), Just(58), any::<u8>()];
    any::<bool>()
        .prop_flat_map(|v4| (address(v4), address(v4)))
        .prop_flat_map(move |(source, target)| {
            (Just(source), Just(target), protocol.clone(), (port(), port()), 0u8..=10, any::<bool>())
        })
        .prop_map(|(source, target, protocol, ports, options, fragment)| {
            let v4 = source.is_ipv4();
            Packet {
                source,
                target,
                protocol,
                ports,
                options: if v4 { options } else { 0 },
                fragment: v4 && fragment,
            }
        })
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(Way::Out), Just(Way::In)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn a_program_hits_what_its_aim_means((aim, way, packet) in (aim(), way(), packet())) {
        let hit = interpret(&aim.program(way), packet.ethertype(), &packet.bytes());
        prop_assert_eq!(hit == HIT, meant(&aim, way, &packet));
        prop_assert!(hit == HIT || hit == MISS);
        let protocol = match (packet.protocol, packet.source.is_ipv4()) {
            (6, _) => Some(Protocol::Tcp),
            (17, _) => Some(Protocol::Udp),
            (1, true) | (58, false) => Some(Protocol::Icmp),
            _ => None,
        };
        if let Some(protocol) = protocol.filter(|_| !packet.fragment) {
            let (source, target) = ((packet.source, packet.ports.0).into(), (packet.target, packet.ports.1).into());
            let (peer, local) = if way == Way::Out { (target, source) } else { (source, target) };
            prop_assert_eq!(aim.hits(protocol, peer, local), hit == HIT);
        }
    }

    #[test]
    fn no_packet_is_hit_by_two_aims_that_do_not_meet((one, other, way, packet) in (aim(), aim(), way(), packet())) {
        let hit = |aim: &Aim| interpret(&aim.program(way), packet.ethertype(), &packet.bytes()) == HIT;
        prop_assert_eq!(one.meets(&other), other.meets(&one));
        prop_assert!(one.meets(&other) || !(hit(&one) && hit(&other)));
        prop_assert!(one.meets(&one));
    }

    #[test]
    fn a_program_tells_the_single_addresses_that_it_asks_for((aim, way) in (aim(), way())) {
        let exempt = aim.exempt.iter().filter_map(|exempt| exempt.peer.as_ref());
        let single = aim.peers.iter().chain(exempt).filter(|network| network.is_single());
        let mut single: Vec<IpAddr> = single.map(|network| network.address).collect();
        single.sort_unstable();
        single.dedup();
        prop_assert_eq!(Aim::addresses(&aim.program(way), way), single);
    }

    #[test]
    fn an_aim_reads_as_it_was_shortened_and_nothing_else_reads(aim in aim(), text in "\\PC{0,40}") {
        let read = Aim::read(&aim.short());
        prop_assert_eq!(read, Some(Aim { exempt: Vec::new(), ..aim }));
        if let Some(aim) = Aim::read(&text) {
            prop_assert_eq!(Aim::read(&aim.short()), Some(aim));
        }
    }

    #[test]
    fn networks_are_read_as_they_are_printed(network in network()) {
        prop_assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
    }
}

#[test]
fn aims_meet_unless_protocols_ports_or_networks_keep_them_apart() {
    let aim = |text: &str| Aim::read(text).unwrap();
    for (one, other, meet) in [
        (";;;;", ";;;;", true),
        ("tcp;;;;", "udp;;;;", false),
        ("tcp;;;;", ";;;;", true),
        ("icmp;;;;", ";;443;;", false),
        (";10.0.0.0/8;;;", ";10.1.0.0/16,2001:db8::/32;;;", true),
        (";10.0.0.0/8;;;", ";11.0.0.1,2001:db8::/32;;;", false),
        ("tcp;10.0.0.1;443;;", "tcp;10.0.0.1;80,8000-8100;;", false),
        ("tcp;10.0.0.1;8050;;", "tcp;10.0.0.1;80,8000-8100;;", true),
        ("tcp;10.0.0.1;80;;", "tcp;10.0.0.1;;80;", true),
        (";;;80;", ";;;81;", false),
        (";;;;10.0.0.1", ";;;;10.0.0.2", false),
    ] {
        assert_eq!(aim(one).meets(&aim(other)), meet, "{one} and {other}");
    }
}

#[test]
fn what_is_no_ip_is_never_hit() {
    assert_eq!(interpret(&Aim::default().program(Way::Out), 0x0806, &[0; 60]), MISS, "ARP");
    assert_eq!(interpret(&Aim::default().program(Way::Out), 0x0800, &[0x45; 60]), HIT);
}

#[test]
fn the_largest_aim_fits_into_the_kernels_machine() {
    let network = |n: usize| Network { address: Ipv6Addr::from(n as u128 + 1).into(), bits: 128 };
    let aim = Aim { peers: (0..PARTS_MAX).map(network).collect(), ..Aim::default() };
    assert!(aim.program(Way::Out).len() <= 4096, "{}", aim.program(Way::Out).len());
    let exempt = |n: usize| Exempt { peer: Some(network(n)), port: Some(22) };
    let aim = Aim { exempt: (0..PARTS_MAX / 2).map(exempt).collect(), ..Aim::default() };
    assert!(aim.parts() <= PARTS_MAX && aim.program(Way::In).len() <= 4096, "{}", aim.program(Way::In).len());
}

#[test]
fn a_network_with_bits_beyond_its_length_is_a_slip_and_says_what_was_meant() {
    let wrong = |text: &str| text.parse::<Network>().unwrap_err();
    assert!(wrong("10.0.0.1/8").contains("did you mean 10.0.0.0/8?"));
    assert!(wrong("10.0.0.0/33").contains("from 0 to 32"));
    assert!(wrong("example.com").contains("neither an address nor a network"));
    assert_eq!("::1".parse::<Network>().unwrap().bits, 128);
}
