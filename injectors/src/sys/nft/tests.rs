//! Held against what Debian's nft 1.0.6 sends; the line above each is what it was given. Recorded by `strace -e write=all`.

use proptest::prelude::*;

use super::Base::{Network, Transport};
use super::Expression::{
    Bytes, Compare, Count, Decide, Lookup, Mask, Meta, NetworkOrder, Payload, Random, Reject as Refuse, Write,
};
use super::Meta::{Family, LeavesBy, Origin, Protocol};
use super::Relation::{AtLeast, AtMost, Below, Equal, Unequal};
use super::Verdict::{Drop, Goto, Jump, Return};
use super::*;
use crate::sys::nft::read::{Counted, Part, Picked, Table, parts};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[track_caller]
fn golden(edit: &Edit, nft: &str) {
    assert_eq!(edit.body(), bytes(nft));
}

fn table() -> String {
    "squall_X_1".to_owned()
}

fn rule(chain: &str, rule: Vec<Expression>) -> Edit {
    Edit::AddRule { table: table(), chain: chain.to_owned(), rule }
}

fn chain(name: &str, hook: Option<Hook>) -> Edit {
    Edit::AddChain { table: table(), chain: name.to_owned(), hook }
}

#[test]
fn tables_sets_and_chains_are_what_nft_sends() {
    // table inet squall_X_1 { comment "squall X/1" }
    golden(
        &Edit::AddTable { table: table(), comment: "squall X/1".to_owned() },
        "010000000f000100737175616c6c5f585f310000080002000000000011000600000b737175616c6c20582f3100000000",
    );
    // delete rule inet squall_X_1 out handle 6
    golden(
        &Edit::DropRule { table: table(), chain: "out".to_owned(), handle: 6 },
        "010000000f000100737175616c6c5f585f310000080002006f7574000c0003000000000000000006",
    );
    // delete table inet handle 2
    golden(&Edit::DropTable { handle: 2 }, "010000000c0004000000000000000002");
    // chain out_cut {}
    golden(&chain("out_cut", None), "010000000f000100737175616c6c5f585f3100000c0003006f75745f63757400");
    // chain output { type filter hook output priority -190; policy accept; }
    golden(
        &chain("output", Some(Hook { point: Point::Output, priority: -190, reroutes: false })),
        "010000000f000100737175616c6c5f585f3100000b0003006f757470757400000b00070066696c746572000008000500\
             0000000114000480080001000000000308000200ffffff42",
    );
    // set lease { type nf_proto; flags timeout; timeout 3s; }
    golden(
        &Edit::AddSet { table: table(), set: "lease", lasts_ms: 3000 },
        "010000000f000100737175616c6c5f585f3100000a0002006c6561736500000008000300000000100800040000000002\
             080005000000000108000a00000000010c000b000000000000000bb80a000d000004000000000000",
    );
    // add element inet squall_X_1 lease { ipv4, ipv6 }
    golden(
        &Edit::AddElements { table: table(), set: "lease", families: vec![IPV4, IPV6] },
        "010000000f000100737175616c6c5f585f3100000a0002006c6561736500000008000400000000012400038010000180\
             0c0001800500010002000000100002800c000180050001000a000000",
    );
    // delete element inet squall_X_1 lease { ipv4, ipv6 }
    golden(
        &Edit::DropElements { table: table(), set: "lease", families: vec![IPV4, IPV6] },
        "010000000f000100737175616c6c5f585f3100000a0002006c6561736500000024000380100001800c00018005000100\
             02000000100002800c000180050001000a000000",
    );
}

#[test]
fn rules_that_pick_interfaces_and_ports_are_what_nft_sends() {
    // oifname != "near" return
    golden(
        &rule(
            "out",
            vec![Meta(LeavesBy), Compare(Unequal, b"near\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()), Decide(Return)],
        ),
        "010000000f000100737175616c6c5f585f310000080002006f7574009000048024000180090001006d65746100000000\
             14000280080002000000000708000100000000013800018008000100636d70002c000280080001000000000108000200\
             0000000118000380140001006e656172000000000000000000000000300001800e000100696d6d656469617465000000\
             1c0002800800010000000000100002800c00028008000100fffffffb",
    );
    // tcp dport 22 return
    golden(
        &rule(
            "out",
            vec![
                Meta(Protocol),
                Compare(Equal, vec![6]),
                Payload { base: Transport, offset: 2, length: 2 },
                Compare(Equal, vec![0, 22]),
                Decide(Return),
            ],
        ),
        "010000000f000100737175616c6c5f585f310000080002006f757400e400048024000180090001006d65746100000000\
             14000280080002000000001008000100000000012c00018008000100636d700020000280080001000000000108000200\
             000000000c0003800500010006000000340001800c0001007061796c6f61640024000280080001000000000108000200\
             00000002080003000000000208000400000000022c00018008000100636d700020000280080001000000000108000200\
             000000000c0003800600010000160000300001800e000100696d6d6564696174650000001c0002800800010000000000\
             100002800c00028008000100fffffffb",
    );
}

#[test]
fn rules_that_pick_networks_are_what_nft_sends() {
    // ip daddr 10.76.0.0/15 goto out_cut
    golden(
        &rule(
            "out",
            vec![
                Meta(Family),
                Compare(Equal, vec![IPV4]),
                Payload { base: Network, offset: 16, length: 4 },
                Mask(vec![255, 254, 0, 0]),
                Compare(Equal, vec![10, 76, 0, 0]),
                Decide(Goto("out_cut".to_owned())),
            ],
        ),
        "010000000f000100737175616c6c5f585f310000080002006f7574003401048024000180090001006d65746100000000\
             14000280080002000000000f08000100000000012c00018008000100636d700020000280080001000000000108000200\
             000000000c0003800500010002000000340001800c0001007061796c6f61640024000280080001000000000108000200\
             0000000108000300000000100800040000000004440001800c0001006269747769736500340002800800010000000001\
             080002000000000108000300000000040c00048008000100fffe00000c00058008000100000000002c00018008000100\
             636d700020000280080001000000000108000200000000000c000380080001000a4c00003c0001800e000100696d6d65\
             64696174650000002800028008000100000000001c0002801800028008000100fffffffc0c0002006f75745f63757400",
    );
    // ip6 daddr fd77::/63 goto out_cut
    golden(
        &rule(
            "out",
            vec![
                Meta(Family),
                Compare(Equal, vec![IPV6]),
                Payload { base: Network, offset: 24, length: 16 },
                Mask(bytes("fffffffffffffffe0000000000000000")),
                Compare(Equal, bytes("fd770000000000000000000000000000")),
                Decide(Goto("out_cut".to_owned())),
            ],
        ),
        "010000000f000100737175616c6c5f585f310000080002006f7574005801048024000180090001006d65746100000000\
             14000280080002000000000f08000100000000012c00018008000100636d700020000280080001000000000108000200\
             000000000c000380050001000a000000340001800c0001007061796c6f61640024000280080001000000000108000200\
             00000001080003000000001808000400000000105c0001800c00010062697477697365004c0002800800010000000001\
             080002000000000108000300000000101800048014000100fffffffffffffffe00000000000000001800058014000100\
             000000000000000000000000000000003800018008000100636d70002c00028008000100000000010800020000000000\
             1800038014000100fd7700000000000000000000000000003c0001800e000100696d6d65646961746500000028000280\
             08000100000000001c0002801800028008000100fffffffc0c0002006f75745f63757400",
    );
}

#[test]
fn rules_that_pick_networks_of_this_side_are_what_nft_sends() {
    // ip saddr 10.76.0.0/15 goto out_cut
    golden(
        &rule(
            "out",
            vec![
                Meta(Family),
                Compare(Equal, vec![IPV4]),
                Payload { base: Network, offset: 12, length: 4 },
                Mask(vec![255, 254, 0, 0]),
                Compare(Equal, vec![10, 76, 0, 0]),
                Decide(Goto("out_cut".to_owned())),
            ],
        ),
        "010000000f000100737175616c6c5f585f310000080002006f7574003401048024000180090001006d65746100000000\
             14000280080002000000000f08000100000000012c00018008000100636d700020000280080001000000000108000200\
             000000000c0003800500010002000000340001800c0001007061796c6f61640024000280080001000000000108000200\
             00000001080003000000000c0800040000000004440001800c0001006269747769736500340002800800010000000001\
             080002000000000108000300000000040c00048008000100fffe00000c00058008000100000000002c00018008000100\
             636d700020000280080001000000000108000200000000000c000380080001000a4c00003c0001800e000100696d6d65\
             64696174650000002800028008000100000000001c0002801800028008000100fffffffc0c0002006f75745f63757400",
    );
    // ip6 daddr fd77::9 goto out_cut, in the chain of what arrives
    golden(
        &rule(
            "in",
            vec![
                Meta(Family),
                Compare(Equal, vec![IPV6]),
                Payload { base: Network, offset: 24, length: 16 },
                Compare(Equal, bytes("fd770000000000000000000000000009")),
                Decide(Goto("out_cut".to_owned())),
            ],
        ),
        "010000000f000100737175616c6c5f585f31000007000200696e0000fc00048024000180090001006d65746100000000\
             14000280080002000000000f08000100000000012c00018008000100636d700020000280080001000000000108000200\
             000000000c000380050001000a000000340001800c0001007061796c6f61640024000280080001000000000108000200\
             00000001080003000000001808000400000000103800018008000100636d70002c000280080001000000000108000200\
             000000001800038014000100fd7700000000000000000000000000093c0001800e000100696d6d656469617465000000\
             2800028008000100000000001c0002801800028008000100fffffffc0c0002006f75745f63757400",
    );
}

#[test]
fn rules_that_pick_ranges_shares_and_leases_are_what_nft_sends() {
    // meta l4proto udp th dport 8000-8100 goto out_cut
    golden(
        &rule(
            "out",
            vec![
                Meta(Protocol),
                Compare(Equal, vec![17]),
                Payload { base: Transport, offset: 2, length: 2 },
                Compare(AtLeast, 8000_u16.to_be_bytes().to_vec()),
                Compare(AtMost, 8100_u16.to_be_bytes().to_vec()),
                Decide(Goto("out_cut".to_owned())),
            ],
        ),
        "010000000f000100737175616c6c5f585f310000080002006f7574001c01048024000180090001006d65746100000000\
             14000280080002000000001008000100000000012c00018008000100636d700020000280080001000000000108000200\
             000000000c0003800500010011000000340001800c0001007061796c6f61640024000280080001000000000108000200\
             00000002080003000000000208000400000000022c00018008000100636d700020000280080001000000000108000200\
             000000050c000380060001001f4000002c00018008000100636d70002000028008000100000000010800020000000003\
             0c000380060001001fa400003c0001800e000100696d6d6564696174650000002800028008000100000000001c000280\
             1800028008000100fffffffc0c0002006f75745f63757400",
    );
    // numgen random mod 65536 < 655 goto out_cut
    golden(
        &rule(
            "out",
            vec![
                Random(65_536),
                NetworkOrder,
                Compare(Below, 655_u32.to_be_bytes().to_vec()),
                Decide(Goto("out_cut".to_owned())),
            ],
        ),
        "010000000f000100737175616c6c5f585f310000080002006f757400e0000480340001800b0001006e756d67656e0000\
             240002800800010000000001080002000001000008000300000000010800040000000000400001800e00010062797465\
             6f726465720000002c000280080001000000000108000200000000010800030000000001080004000000000408000500\
             000000042c00018008000100636d700020000280080001000000000108000200000000020c000380080001000000028f\
             3c0001800e000100696d6d6564696174650000002800028008000100000000001c0002801800028008000100fffffffc\
             0c0002006f75745f63757400",
    );
    // meta nfproto != @lease return
    golden(
        &rule("output", vec![Meta(Family), Lookup { set: "lease", absent: true }, Decide(Return)]),
        "010000000f000100737175616c6c5f585f3100000b0002006f757470757400009000048024000180090001006d657461\
             0000000014000280080002000000000f0800010000000001380001800b0001006c6f6f6b757000002800028008000200\
             000000010a0001006c6561736500000008000400000000010800050000000001300001800e000100696d6d6564696174\
             650000001c0002800800010000000000100002800c00028008000100fffffffb",
    );
}

#[test]
fn rules_that_decide_are_what_nft_sends() {
    // meta iif != 0 drop, in a table sinktry and a chain out_sink
    let others = vec![Meta(Origin), Compare(Unequal, vec![0; 4]), Decide(Drop)];
    let others = Edit::AddRule { table: "sinktry".to_owned(), chain: "out_sink".to_owned(), rule: others };
    golden(
        &others,
        "010000000c00010073696e6b747279000d0002006f75745f73696e6b000000008400048024000180090001006d657461\
         0000000014000280080002000000000408000100000000012c00018008000100636d7000200002800800010000000001\
         08000200000000010c0003800800010000000000300001800e000100696d6d6564696174650000001c00028008000100\
         00000000100002800c0002800800010000000000",
    );
    // meta l4proto tcp counter reject with tcp reset
    golden(
        &rule("out_cut", vec![Meta(Protocol), Compare(Equal, vec![6]), Count, Refuse(Reject::Reset)]),
        "010000000f000100737175616c6c5f585f3100000c0002006f75745f637574008c00048024000180090001006d657461\
             0000000014000280080002000000001008000100000000012c00018008000100636d7000200002800800010000000001\
             08000200000000000c0003800500010006000000140001800c000100636f756e7465720004000280240001800b000100\
             72656a65637400001400028008000100000000010500020000000000",
    );
    // counter reject with icmpx host-unreachable
    golden(
        &rule("out_cut", vec![Count, Refuse(Reject::Host)]),
        "010000000f000100737175616c6c5f585f3100000c0002006f75745f637574003c000480140001800c000100636f756e\
             7465720004000280240001800b00010072656a65637400001400028008000100000000020500020002000000",
    );
    // counter drop
    golden(
        &rule("out_cut", vec![Count, Decide(Drop)]),
        "010000000f000100737175616c6c5f585f3100000c0002006f75745f6375740048000480140001800c000100636f756e\
             7465720004000280300001800e000100696d6d6564696174650000001c0002800800010000000000100002800c000280\
             0800010000000000",
    );
    // jump out
    golden(
        &rule("output", vec![Decide(Jump("out".to_owned()))]),
        "010000000f000100737175616c6c5f585f3100000b0002006f757470757400003c000480380001800e000100696d6d65\
             6469617465000000240002800800010000000000180002801400028008000100fffffffd080002006f757400",
    );
}

/// The list of expressions of a rule, without the rule.
fn expressions(list: &[Expression]) -> Vec<u8> {
    let mut out = Vec::new();
    for one in list {
        nested(&mut out, 1, |out| one.put(out));
    }
    out
}

#[test]
fn rules_that_rewrite_are_what_nft_sends() {
    let port = |sum| {
        [
            Bytes(5353_u16.to_be_bytes().to_vec()),
            Write { base: Transport, offset: 2, length: 2, sum: Some(sum), above: false },
        ]
    };
    let four = [
        Bytes(vec![127, 0, 0, 1]),
        Write { base: Network, offset: 16, length: 4, sum: Some(10), above: true },
    ];
    let six = [
        Bytes(bytes("00000000000000000000000000000001")),
        Write { base: Network, offset: 24, length: 16, sum: None, above: true },
    ];
    // ip daddr set 127.0.0.1 udp dport set 5353
    let nft = "2c0001800e000100696d6d6564696174650000001800028008000100000000010c000280080001007f0000014c000180\
         0c0001007061796c6f6164003c0002800800050000000001080002000000000108000300000000100800040000000004\
         0800060000000001080007000000000a08000800000000012c0001800e000100696d6d65646961746500000018000280\
         08000100000000010c0002800600010014e90000440001800c0001007061796c6f616400340002800800050000000001\
         08000200000000020800030000000002080004000000000208000600000000010800070000000006";
    assert_eq!(expressions(&[&four[..], &port(6)].concat()), bytes(nft));
    // ip6 daddr set ::1 tcp dport set 5353
    let nft = "380001800e000100696d6d65646961746500000024000280080001000000000118000280140001000000000000000000\
         00000000000000013c0001800c0001007061796c6f6164002c0002800800050000000001080002000000000108000300\
         00000018080004000000001008000800000000012c0001800e000100696d6d6564696174650000001800028008000100\
         000000010c0002800600010014e90000440001800c0001007061796c6f61640034000280080005000000000108000200\
         000000020800030000000002080004000000000208000600000000010800070000000010";
    assert_eq!(expressions(&[&six[..], &port(16)].concat()), bytes(nft));
    // @nh,64,16 set 0x40fe @nh,128,32 set 0x7f000001
    let plain = |offset, bytes: &[u8]| {
        let length = bytes.len() as u32;
        [Bytes(bytes.to_vec()), Write { base: Network, offset, length, sum: None, above: false }]
    };
    let nft = "2c0001800e000100696d6d6564696174650000001800028008000100000000010c0002800600010040fe000034000180\
         0c0001007061796c6f616400240002800800050000000001080002000000000108000300000000080800040000000002\
         2c0001800e000100696d6d6564696174650000001800028008000100000000010c000280080001007f00000134000180\
         0c0001007061796c6f616400240002800800050000000001080002000000000108000300000000100800040000000004";
    assert_eq!(expressions(&[plain(8, &[64, 254]), plain(16, &[127, 0, 0, 1])].concat()), bytes(nft));
    // chain output { type route hook output priority -150; policy accept; }, in a table dnstry
    let hook = Hook { point: Point::Output, priority: -150, reroutes: true };
    let chain = Edit::AddChain { table: "dnstry".to_owned(), chain: "output".to_owned(), hook: Some(hook) };
    golden(
        &chain,
        "010000000b000100646e7374727900000b0003006f757470757400000a000700726f7574650000000800050000000001\
         14000480080001000000000308000200ffffff6a",
    );
}

#[test]
fn a_batch_begins_and_ends_and_asks_for_one_answer() {
    let edits = [chain("a", None), chain("b", None), Edit::DropTable { handle: 7 }];
    let (sent, last) = batch(&edits);
    assert_eq!(last, 3);
    // nft's own first and last message, whose number is one more than the last edit's.
    assert!(sent.starts_with(&bytes("140000001000010000000000000000000000000a")));
    assert!(sent.ends_with(&bytes("140000001100010004000000000000000000000a")));
    let mut rest = &sent[..];
    let mut flags = Vec::new();
    while let Some(head) = rest.get(..HEAD) {
        let length = u32::from_ne_bytes(head[..4].try_into().unwrap()) as usize;
        flags.push(u16::from_ne_bytes([head[6], head[7]]) & ACKNOWLEDGE);
        rest = &rest[length.next_multiple_of(4)..];
    }
    assert_eq!(flags, [0, 0, 0, ACKNOWLEDGE, 0]);
}

/// A message as the kernel sends it.
fn told(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, kind, flags, 9, body);
    out
}

#[test]
fn tables_and_counters_are_read_as_they_were_written() {
    let mut made = Edit::AddTable { table: table(), comment: "squall X/1".to_owned() }.body();
    attribute(&mut made, 4, &5_u64.to_be_bytes());
    let told_table = Table { name: table(), handle: 5, comment: "squall X/1".to_owned() };
    let mut bare = family();
    text(&mut bare, 1, "foreign");
    attribute(&mut bare, 4, &6_u64.to_be_bytes());
    let foreign = Table { name: "foreign".to_owned(), handle: 6, comment: String::new() };

    let mut counting = family();
    text(&mut counting, 1, "squall_X_1");
    text(&mut counting, 2, "out_cut");
    nested(&mut counting, 4, |list| {
        nested(list, 1, |out| Meta(Protocol).put(out));
        nested(list, 1, |out| {
            text(out, 1, "counter");
            nested(out, 2, |data| {
                attribute(data, 1, &840_u64.to_be_bytes());
                attribute(data, 2, &10_u64.to_be_bytes());
            });
        });
    });
    let counted = Counted { chain: "out_cut".to_owned(), packets: 10, bytes: 840 };
    let silent = rule("output", vec![Decide(Jump("out".to_owned()))]).body();

    let answer = [
        told(SUBSYSTEM, 0, &made),
        told(SUBSYSTEM, 0, &bare),
        told(SUBSYSTEM | 6, 0, &counting),
        told(SUBSYSTEM | 6, 0, &silent),
        told(3, 0, &[0; 4]),
    ];
    let read: Vec<Part> = parts(&answer.concat()).map(Result::unwrap).collect();
    let expected =
        [Part::Table(told_table), Part::Table(foreign), Part::Rule(table(), counted), Part::Other, Part::End];
    assert_eq!(read, expected);
}

#[test]
fn a_rule_that_asks_for_one_address_is_read_and_no_other_is_taken_for_one() {
    let asks = |offset, length, between: Vec<Expression>, value: Vec<u8>| {
        let load = Payload { base: Network, offset, length };
        let list = [vec![load], between, vec![Compare(Equal, value), Decide(Goto("out_cut".to_owned()))]];
        let mut body = rule("out_peers", list.concat()).body();
        attribute(&mut body, 3, &9_u64.to_be_bytes());
        parts(&told(SUBSYSTEM | 6, 0, &body)).next().unwrap().unwrap()
    };
    let picked = |address: &str| {
        let picked = Picked { chain: "out_peers".to_owned(), handle: 9, address: address.parse().unwrap() };
        Part::Pick(table(), picked)
    };
    assert_eq!(asks(16, 4, vec![], vec![10, 0, 0, 2]), picked("10.0.0.2"));
    let six = bytes("fd770000000000000000000000000009");
    assert_eq!(asks(24, 16, vec![], six), picked("fd77::9"));
    assert_eq!(asks(16, 2, vec![], vec![10, 0]), Part::Other, "a network");
    assert_eq!(asks(16, 4, vec![Mask(vec![255, 254, 0, 0])], vec![10, 0, 0, 0]), Part::Other, "a network");
}

#[test]
fn an_error_is_the_kernels_and_a_torn_answer_says_so() {
    let refused = told(2, 0, &(-2_i32).to_ne_bytes());
    assert_eq!(parts(&refused).next().unwrap().unwrap_err().raw_os_error(), Some(2));
    let done = told(2, 0, &[0; 4]);
    assert_eq!(parts(&done).map(Result::unwrap).collect::<Vec<_>>(), [Part::Done(9)]);
    let torn = told(3, 0x10, &[0; 4]);
    assert_eq!(parts(&torn).map(Result::unwrap).collect::<Vec<_>>(), [Part::End, Part::Torn]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(data: Vec<u8>, kind in 0_u16..4) {
        let kind = [SUBSYSTEM, SUBSYSTEM | 6, 2, 3][usize::from(kind)];
        prop_assert!(parts(&data).take(1000).count() <= 1000);
        let _ = parts(&told(kind, 0, &data)).count();
    }

    #[test]
    fn every_message_of_a_batch_is_whole_and_aligned(names in prop::collection::vec("[a-z]{1,40}", 1..20)) {
        let edits: Vec<Edit> = names.iter().map(|name| chain(name, None)).collect();
        let (sent, last) = batch(&edits);
        prop_assert_eq!(last as usize, edits.len());
        let (mut rest, mut count) = (&sent[..], 0);
        while let Some(head) = rest.get(..HEAD) {
            let length = u32::from_ne_bytes(head[..4].try_into().unwrap()) as usize;
            prop_assert!(length.is_multiple_of(4) && length <= rest.len());
            rest = &rest[length..];
            count += 1;
        }
        prop_assert_eq!((rest.len(), count), (0, edits.len() + 2));
    }
}
