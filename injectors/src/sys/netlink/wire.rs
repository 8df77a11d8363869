//! Options of filters, actions and qdiscs as the kernel reads them. Pure; the tests hold them against what `tc` sends.
//!
//! Formats: `linux/pkt_cls.h` (`TCA_BPF_*`), `linux/tc_act/tc_mirred.h`, `linux/pkt_sched.h` (`TCA_TBF_*`).

use std::time::Duration;

use crate::sys::aim::Instruction;
use crate::sys::netem::{attribute, attributes};

/// The kernel's flag for an attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// `TCA_OPTIONS` of a `bpf` filter that hands what its program returns non-zero for to the device with this index.
/// With the number of an action, that one goes on with its counts, in place of a new one.
pub(super) fn redirecting(program: &[Instruction], device: u32, action: u32) -> Vec<u8> {
    const CLASS: u16 = 3;
    const ACTIONS: u16 = 1;
    const LENGTH: u16 = 4;
    const PROGRAM: u16 = 5;
    let mut out = Vec::new();
    // A class of no meaning: without one, the kernel would take the program's answer for one.
    attribute(&mut out, CLASS, &0x0001_0001_u32.to_ne_bytes());
    attribute(&mut out, ACTIONS, &actions(device, action));
    let length =
        u16::try_from(program.len()).expect("the parts of an aim are bounded, and with them its program");
    attribute(&mut out, LENGTH, &length.to_ne_bytes());
    let code = |one: &Instruction| {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&one.code.to_ne_bytes());
        (bytes[2], bytes[3]) = (one.yes, one.no);
        bytes[4..].copy_from_slice(&one.k.to_ne_bytes());
        bytes
    };
    attribute(&mut out, PROGRAM, &program.iter().flat_map(code).collect::<Vec<u8>>());
    out
}

/// A list of one action: `mirred egress redirect dev DEVICE`.
fn actions(device: u32, index: u32) -> Vec<u8> {
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    const PARAMETERS: u16 = 2;
    /// `TC_ACT_STOLEN`: the packet has gone elsewhere.
    const STOLEN: u32 = 4;
    /// `TCA_EGRESS_REDIR`.
    const REDIRECT: u32 = 1;
    // index, capab, action, refcnt, bindcnt, eaction, ifindex
    let words = [index, 0, STOLEN, 0, 0, REDIRECT, device];
    let mut options = Vec::new();
    attribute(
        &mut options,
        PARAMETERS,
        &words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>(),
    );
    let mut action = Vec::new();
    attribute(&mut action, KIND, b"mirred\0");
    attribute(&mut action, OPTIONS | NESTED, &options);
    let mut list = Vec::new();
    attribute(&mut list, 1, &action);
    list
}

fn within(bytes: &[u8], wanted: u16) -> Vec<u8> {
    let found = attributes(bytes).flatten().find(|(kind, _)| kind & !NESTED == wanted);
    found.map(|(_, value)| value.to_vec()).unwrap_or_default()
}

/// The first action of a filter, from the filter's options.
fn action(options: &[u8]) -> Vec<u8> {
    const ACTIONS: u16 = 1;
    within(&within(options, ACTIONS), 1)
}

/// The number of the first action of a filter; 0 if it has none.
pub(super) fn action_number(options: &[u8]) -> u32 {
    const OPTIONS: u16 = 2;
    const PARAMETERS: u16 = 2;
    let parameters = within(&within(&action(options), OPTIONS), PARAMETERS);
    parameters.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// The program of a filter.
pub(super) fn program(options: &[u8]) -> Vec<Instruction> {
    const PROGRAM: u16 = 5;
    let code = |bytes: &[u8]| Instruction {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        yes: bytes[2],
        no: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    within(options, PROGRAM).chunks_exact(8).map(code).collect()
}

/// How many packets the first action of a filter has seen, from the filter's options; 0 if they do not tell.
pub(super) fn handed_on(options: &[u8]) -> u64 {
    const STATISTICS: u16 = 4;
    const BASIC: u16 = 1;
    const PACKETS: u16 = 8;
    let action = action(options);
    let statistics = within(&action, STATISTICS);
    let wide = within(&statistics, PACKETS);
    if let Ok(packets) = wide.as_slice().try_into() {
        return u64::from_ne_bytes(packets);
    }
    // Bytes, then packets.
    let basic = within(&statistics, BASIC);
    basic
        .get(8..12)
        .and_then(|packets| packets.try_into().ok())
        .map_or(0, |packets| u32::from_ne_bytes(packets).into())
}

/// A token bucket: bytes per second, bytes that may pass at once, and how long packets wait at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Bytes per second.
    pub bytes: u64,
    /// Bytes that may pass at once.
    pub burst: u32,
    /// What would wait longer is dropped.
    pub wait: Duration,
}

impl Bucket {
    /// `TCA_OPTIONS` of the `tbf` qdisc.
    pub fn encode(&self) -> Vec<u8> {
        const PARAMETERS: u16 = 1;
        const RATE64: u16 = 4;
        const BURST: u16 = 6;
        let limit = self.bytes as f64 * self.wait.as_secs_f64() + f64::from(self.burst);
        let mut out = Vec::new();
        let mut head = Vec::with_capacity(36);
        // tc_ratespec: cell_log, linklayer (Ethernet), overhead, cell_align, mpu, rate.
        head.extend([0_u8, 1]);
        head.extend([0_u8; 6]);
        let rate = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        head.extend(rate.to_ne_bytes());
        // No peak rate.
        head.extend([0_u8; 12]);
        head.extend((limit.min(f64::from(u32::MAX)) as u32).to_ne_bytes());
        // The buffer in ticks, which TCA_TBF_BURST replaces, and no MTU of the peak rate.
        let ticks = f64::from(self.burst) / self.bytes as f64 * 1e9 / 64.0;
        head.extend((ticks.min(f64::from(u32::MAX)) as u32).to_ne_bytes());
        head.extend([0_u8; 4]);
        attribute(&mut out, PARAMETERS, &head);
        if u64::from(rate) != self.bytes {
            attribute(&mut out, RATE64, &self.bytes.to_ne_bytes());
        }
        attribute(&mut out, BURST, &self.burst.to_ne_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirecting_filter_is_what_tc_sends() {
        let all = [Instruction { code: 6, yes: 0, no: 0, k: u32::MAX }];
        // strace tc filter add dev lo egress bpf bytecode "1,6 0 0 4294967295," flowid 1:1 \
        //   action mirred egress redirect dev sq0 (whose index was 2)
        let tc = b"\x08\x00\x03\x00\x01\x00\x01\x00\x38\x00\x01\x00\x34\x00\x01\x00\x0b\x00\x01\x00\x6d\x69\x72\x72\
            \x65\x64\x00\x00\x24\x00\x02\x80\x20\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\
            \x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x06\x00\x04\x00\x01\x00\x00\x00\x0c\x00\x05\x00\
            \x06\x00\x00\x00\xff\xff\xff\xff";
        assert_eq!(redirecting(&all, 2, 0), tc);
    }

    #[test]
    fn a_filter_tells_its_program_and_the_number_of_its_action() {
        let aim = crate::sys::aim::Aim::read("tcp;10.0.0.0/8,2001:db8::1;443;;").unwrap();
        let code = aim.program(crate::sys::aim::Way::Out);
        let options = redirecting(&code, 2, 77);
        assert_eq!((program(&options), action_number(&options)), (code, 77));
        assert_eq!((program(&[]), action_number(&[])), (Vec::new(), 0));
    }

    #[test]
    fn a_bucket_is_what_tc_sends_but_for_the_table_that_no_kernel_reads_any_more() {
        // strace tc qdisc add dev sq0 root tbf rate 1mbit burst 10kb limit 100kb
        let tc = b"\x28\x00\x01\x00\x03\x01\x00\x00\xff\xff\x00\x00\x48\xe8\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\
            \x00\x00\x00\x00\x00\x90\x01\x00\x00\x88\x13\x00\x00\x00\x00\x00\x08\x00\x06\x00\x00\x28\x00\x00";
        let bucket = Bucket { bytes: 125_000, burst: 10_240, wait: Duration::from_secs_f64(0.73728) };
        let mut ours = bucket.encode();
        // How to look a size up in that table.
        assert_eq!((ours[4], &ours[8..10]), (0, &[0, 0][..]));
        (ours[4], ours[8], ours[9]) = (3, 0xff, 0xff);
        assert_eq!(ours, tc);
        assert!(Bucket { bytes: 1 << 40, ..bucket }.encode().len() > ours.len());
    }
}
