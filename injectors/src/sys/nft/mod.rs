//! What nftables is told, as bytes: tables, chains, rules and the elements of a set. Pure; the tests hold it against
//! what `nft` sends.
//!
//! Edits go to the kernel as one batch: all of them hold, or none. Formats: `linux/netfilter/nf_tables.h` and
//! `linux/netfilter/nfnetlink.h`. Everything is of the family `inet`: one table for IPv4 and IPv6.

pub mod read;
#[cfg(test)]
mod tests;

use crate::sys::netem::attribute;

/// The kernel's flag for an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`, in its place within a message's type.
const SUBSYSTEM: u16 = 10 << 8;
/// Bytes of a message's head.
const HEAD: usize = 16;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;
/// What every value passes through on its way from one expression to the next: `NFT_REG_1`.
const REGISTER: u32 = 1;
/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// The number of the only set of a batch; for one that is there already, its name alone counts.
const SET: u32 = 1;
/// The longest name of a table or chain that is told in full by all tools.
pub const NAME_MAX: usize = 127;

/// One change of a ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Makes a table; it must not be there.
    AddTable {
        /// Its name.
        table: String,
        /// What it says of itself.
        comment: String,
    },
    /// Removes the table with this handle, and all that is in it.
    DropTable {
        /// As the kernel numbers it; never given again.
        handle: u64,
    },
    /// Makes a set of protocol families whose elements fade.
    AddSet {
        /// Its table.
        table: String,
        /// Its name.
        set: &'static str,
        /// How long an element lasts, in milliseconds.
        lasts_ms: u64,
    },
    /// Adds protocol families to a set.
    AddElements {
        /// Its table.
        table: String,
        /// Its name.
        set: &'static str,
        /// The families.
        families: Vec<u8>,
    },
    /// Takes protocol families out of a set; each must be there.
    DropElements {
        /// Its table.
        table: String,
        /// Its name.
        set: &'static str,
        /// The families.
        families: Vec<u8>,
    },
    /// Makes a chain.
    AddChain {
        /// Its table.
        table: String,
        /// Its name.
        chain: String,
        /// Where packets enter it by themselves; others are led into it by rules.
        hook: Option<Hook>,
    },
    /// Adds a rule to the end of a chain.
    AddRule {
        /// Its table.
        table: String,
        /// Its chain.
        chain: String,
        /// What it does, in order.
        rule: Vec<Expression>,
    },
    /// Removes a rule.
    DropRule {
        /// Its table.
        table: String,
        /// Its chain.
        chain: String,
        /// As the kernel numbers it in its table.
        handle: u64,
    },
}

/// Where packets enter a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// On their way.
    pub point: Point,
    /// Smaller ones come first.
    pub priority: i32,
    /// Whether packets whose address has been rewritten are routed anew.
    pub reroutes: bool,
}

/// A point on the way of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// They have arrived for this host.
    Input,
    /// They pass through this host.
    Forward,
    /// This host has made them.
    Output,
    /// They leave this host, behind all routing.
    Leave,
}

/// One step of a rule. Values go from one to the next; a comparison that does not hold ends the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Takes what the kernel knows of a packet.
    Meta(Meta),
    /// Takes bytes of a packet.
    Payload {
        /// Counted from here.
        base: Base,
        /// The first.
        offset: u32,
        /// How many, at most 16.
        length: u32,
    },
    /// Keeps only these bits.
    Mask(Vec<u8>),
    /// Goes on only if the value compares so.
    Compare(Relation, Vec<u8>),
    /// Goes on only if the value is in a set, or only if it is not.
    Lookup {
        /// Its name.
        set: &'static str,
        /// Only if it is not.
        absent: bool,
    },
    /// Takes a number below this one by chance.
    Random(u32),
    /// Brings a number into the order in which it can be compared.
    NetworkOrder,
    /// Takes these bytes.
    Bytes(Vec<u8>),
    /// Writes what was taken into the packet.
    Write {
        /// Counted from here.
        base: Base,
        /// The first.
        offset: u32,
        /// How many.
        length: u32,
        /// The offset of the header's own checksum, if it is to be kept right.
        sum: Option<u32>,
        /// Whether the checksum of the protocol above covers it, and is to be kept right.
        above: bool,
    },
    /// Counts the packet.
    Count,
    /// Decides what becomes of the packet.
    Decide(Verdict),
    /// Ends the packet, and tells its sender.
    Reject(Reject),
}

/// What the kernel knows of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// The interface by which it came: 16 bytes.
    ArrivesBy,
    /// The interface by which it leaves: 16 bytes.
    LeavesBy,
    /// The number of the interface by which it came, 0 if this host has made it: four bytes in the host's order.
    Origin,
    /// IPv4 or IPv6: one byte.
    Family,
    /// The protocol above IP, behind all of its headers: one byte.
    Protocol,
}

/// From where bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The IP header.
    Network,
    /// The header behind it; a later fragment has none, and ends the rule.
    Transport,
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// They are equal.
    Equal,
    /// They are not.
    Unequal,
    /// The packet's is smaller.
    Below,
    /// The packet's is at most as large.
    AtMost,
    /// The packet's is at least as large.
    AtLeast,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It ends, and nobody is told.
    Drop,
    /// It leaves this chain.
    Return,
    /// It goes through another chain, and comes back.
    Jump(String),
    /// It goes on in another chain.
    Goto(String),
}

/// How a sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// By a reset; only TCP.
    Reset,
    /// By ICMP: nobody listens there.
    Port,
    /// By ICMP: no way leads there.
    Host,
}

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`, as [`Meta::Family`] tells them.
pub const IPV4: u8 = 2;
/// See [`IPV4`].
pub const IPV6: u8 = 10;

impl Edit {
    /// The type of its message, without the subsystem, and its flags.
    fn kind(&self) -> (u16, u16) {
        match self {
            Self::AddTable { .. } => (0, CREATE | EXCLUSIVE),
            Self::DropTable { .. } => (2, 0),
            Self::AddChain { .. } => (3, CREATE),
            Self::AddRule { .. } => (6, CREATE | APPEND),
            Self::DropRule { .. } => (8, 0),
            Self::AddSet { .. } => (9, CREATE),
            Self::AddElements { .. } => (12, CREATE),
            Self::DropElements { .. } => (14, 0),
        }
    }

    /// Its message, without the head.
    fn body(&self) -> Vec<u8> {
        let mut out = family();
        match self {
            Self::AddTable { table, comment } => {
                text(&mut out, 1, table);
                word(&mut out, 2, 0);
                let mut data = vec![0, u8::try_from(comment.len() + 1).expect("comments are short")];
                data.extend(comment.bytes());
                data.push(0);
                attribute(&mut out, 6, &data);
            }
            Self::DropTable { handle } => attribute(&mut out, 4, &handle.to_be_bytes()),
            Self::AddSet { table, set, lasts_ms } => {
                /// `NFT_SET_TIMEOUT`.
                const FADES: u32 = 0x10;
                /// nft's own number for protocol families, by which it shows the elements.
                const KEY: u32 = 2;
                text(&mut out, 1, table);
                text(&mut out, 2, set);
                words(&mut out, &[(3, FADES), (4, KEY), (5, 1), (10, SET)]);
                attribute(&mut out, 11, &lasts_ms.to_be_bytes());
                // For nft: the key's order of bytes.
                attribute(&mut out, 13, &[0, 4, 0, 0, 0, 0]);
            }
            Self::AddElements { table, set, families } | Self::DropElements { table, set, families } => {
                text(&mut out, 1, table);
                text(&mut out, 2, set);
                if matches!(self, Self::AddElements { .. }) {
                    word(&mut out, 4, SET);
                }
                nested(&mut out, 3, |list| {
                    for (family, number) in families.iter().zip(1..) {
                        nested(list, number, |element| {
                            nested(element, 1, |key| attribute(key, 1, &[*family]));
                        });
                    }
                });
            }
            Self::AddChain { table, chain, hook } => {
                text(&mut out, 1, table);
                text(&mut out, 3, chain);
                if let Some(hook) = hook {
                    text(&mut out, 7, if hook.reroutes { "route" } else { "filter" });
                    // What no rule decides about passes.
                    word(&mut out, 5, 1);
                    nested(&mut out, 4, |at| {
                        word(at, 1, hook.point as u32 + 1);
                        word(at, 2, hook.priority.cast_unsigned());
                    });
                }
            }
            Self::AddRule { table, chain, rule } => {
                text(&mut out, 1, table);
                text(&mut out, 2, chain);
                nested(&mut out, 4, |list| rule.iter().for_each(|one| nested(list, 1, |out| one.put(out))));
            }
            Self::DropRule { table, chain, handle } => {
                text(&mut out, 1, table);
                text(&mut out, 2, chain);
                attribute(&mut out, 3, &handle.to_be_bytes());
            }
        }
        out
    }
}

impl Expression {
    fn put(&self, out: &mut Vec<u8>) {
        text(out, 1, self.name());
        nested(out, 2, |data| self.fill(data));
    }

    /// As the kernel calls it.
    fn name(&self) -> &'static str {
        match self {
            Self::Meta(_) => "meta",
            Self::Payload { .. } | Self::Write { .. } => "payload",
            Self::Mask(_) => "bitwise",
            Self::Compare(..) => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Random(_) => "numgen",
            Self::NetworkOrder => "byteorder",
            Self::Bytes(_) | Self::Decide(_) => "immediate",
            Self::Count => "counter",
            Self::Reject(_) => "reject",
        }
    }

    fn fill(&self, data: &mut Vec<u8>) {
        match self {
            Self::Meta(meta) => words(data, &[(2, meta.number()), (1, REGISTER)]),
            Self::Payload { base, offset, length } => {
                words(data, &[(1, REGISTER), (2, base.number()), (3, *offset), (4, *length)]);
            }
            Self::Write { base, offset, length, sum, above } => {
                words(data, &[(5, REGISTER), (2, base.number()), (3, *offset), (4, *length)]);
                if let Some(sum) = sum {
                    words(data, &[(6, 1), (7, *sum)]);
                }
                if *above {
                    word(data, 8, 1);
                }
            }
            Self::Mask(mask) => {
                words(data, &[(1, REGISTER), (2, REGISTER), (3, mask.len() as u32)]);
                nested(data, 4, |out| attribute(out, 1, mask));
                nested(data, 5, |out| attribute(out, 1, &vec![0; mask.len()]));
            }
            Self::Compare(relation, value) => {
                words(data, &[(1, REGISTER), (2, relation.number())]);
                nested(data, 3, |out| attribute(out, 1, value));
            }
            Self::Lookup { set, absent } => {
                word(data, 2, REGISTER);
                text(data, 1, set);
                words(data, &[(4, SET), (5, u32::from(*absent))]);
            }
            Self::Random(below) => words(data, &[(1, REGISTER), (2, *below), (3, 1), (4, 0)]),
            Self::NetworkOrder => words(data, &[(1, REGISTER), (2, REGISTER), (3, 1), (4, 4), (5, 4)]),
            Self::Bytes(bytes) => {
                word(data, 1, REGISTER);
                nested(data, 2, |out| attribute(out, 1, bytes));
            }
            Self::Count => {}
            Self::Decide(verdict) => {
                word(data, 1, VERDICT);
                nested(data, 2, |out| nested(out, 2, |out| verdict.put(out)));
            }
            Self::Reject(reject) => {
                let (kind, code) = match reject {
                    Reject::Reset => (1, 0),
                    Reject::Port => (2, 1),
                    Reject::Host => (2, 2),
                };
                word(data, 1, kind);
                attribute(data, 2, &[code]);
            }
        }
    }
}

impl Meta {
    fn number(self) -> u32 {
        match self {
            Self::Origin => 4,
            Self::ArrivesBy => 6,
            Self::LeavesBy => 7,
            Self::Family => 15,
            Self::Protocol => 16,
        }
    }
}

impl Base {
    fn number(self) -> u32 {
        if self == Self::Network { 1 } else { 2 }
    }
}

impl Relation {
    fn number(self) -> u32 {
        match self {
            Self::Equal => 0,
            Self::Unequal => 1,
            Self::Below => 2,
            Self::AtMost => 3,
            Self::AtLeast => 5,
        }
    }
}

impl Verdict {
    fn put(&self, out: &mut Vec<u8>) {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5_i32, None),
        };
        word(out, 1, code.cast_unsigned());
        if let Some(chain) = chain {
            text(out, 2, chain);
        }
    }
}

/// The bytes of one batch, and the number of its last edit, which the kernel answers.
pub fn batch(edits: &[Edit]) -> (Vec<u8>, u32) {
    const BEGIN: u16 = 0x10;
    const END: u16 = 0x11;
    /// `struct nfgenmsg`: of no family, and for nf_tables.
    const BODY: [u8; 4] = [0, 0, 0, 10];
    let last = u32::try_from(edits.len()).expect("rulesets of ours are short");
    let mut out = Vec::new();
    message(&mut out, BEGIN, 0, 0, &BODY);
    for (edit, number) in edits.iter().zip(1..) {
        let (kind, flags) = edit.kind();
        let asks = if number == last { ACKNOWLEDGE } else { 0 };
        message(&mut out, SUBSYSTEM | kind, flags | asks, number, &edit.body());
    }
    message(&mut out, END, 0, last + 1, &BODY);
    (out, last)
}

/// Asks for all tables.
pub fn ask_tables() -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, SUBSYSTEM | 1, DUMP, 1, &family());
    out
}

/// Asks for all rules of a table.
pub fn ask_rules(table: &str) -> Vec<u8> {
    let mut body = family();
    text(&mut body, 1, table);
    let mut out = Vec::new();
    message(&mut out, SUBSYSTEM | 7, DUMP, 1, &body);
    out
}

/// `struct nfgenmsg` of our family.
fn family() -> Vec<u8> {
    vec![INET, 0, 0, 0]
}

fn message(out: &mut Vec<u8>, kind: u16, flags: u16, number: u32, body: &[u8]) {
    out.extend(u32::try_from(HEAD + body.len()).expect("messages are short").to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((REQUEST | flags).to_ne_bytes());
    out.extend(number.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn text(out: &mut Vec<u8>, kind: u16, text: &str) {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    attribute(out, kind, &bytes);
}

fn word(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, &value.to_be_bytes());
}

fn words(out: &mut Vec<u8>, all: &[(u16, u32)]) {
    for (kind, value) in all {
        word(out, *kind, *value);
    }
}

fn nested(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    attribute(out, kind | NESTED, &inner);
}
