//! What nftables tells: its tables, and what the rules of one have counted. Pure.

use std::io;
use std::net::IpAddr;

use super::{HEAD, SUBSYSTEM};
use crate::sys::netem::attributes;

/// One table of the family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its number, which the kernel never gives again.
    pub handle: u64,
    /// What it says of itself; empty if nothing.
    pub comment: String,
}

/// What one rule has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its chain.
    pub chain: String,
    /// Packets, large ones that a card would cut as one.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One rule that asks for a single address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked {
    /// Its chain.
    pub chain: String,
    /// Its number in its table.
    pub handle: u64,
    /// The address.
    pub address: IpAddr,
}

/// One part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A table.
    Table(Table),
    /// A rule that counts, of the table with this name.
    Rule(String, Counted),
    /// A rule that asks for a single address and counts nothing.
    Pick(String, Picked),
    /// Something else.
    Other,
    /// The request with this number was done.
    Done(u32),
    /// No more comes.
    End,
    /// The ruleset has changed meanwhile: what was told may be neither the old nor the new one.
    Torn,
}

/// The parts of one datagram, up to the first error.
pub fn parts(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<Part>> {
    let mut torn = false;
    std::iter::from_fn(move || {
        const INTERRUPTED: u16 = 0x10;
        if torn {
            torn = false;
            return Some(Ok(Part::Torn));
        }
        let head = bytes.get(..HEAD)?;
        let number = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let sequence = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
        let (kind, flags) = (number(4), number(6));
        let body = bytes.get(HEAD..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        torn = flags & INTERRUPTED != 0;
        Some(part(kind, sequence, body))
    })
}

fn part(kind: u16, sequence: u32, body: &[u8]) -> io::Result<Part> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    const TABLE: u16 = SUBSYSTEM;
    const RULE: u16 = SUBSYSTEM | 6;
    let code = || body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    match kind {
        ERROR | DONE if code() < 0 => Err(io::Error::from_raw_os_error(-code())),
        ERROR => Ok(Part::Done(sequence)),
        DONE => Ok(Part::End),
        TABLE => Ok(table(body).map_or(Part::Other, Part::Table)),
        RULE => Ok(rule(body).unwrap_or(Part::Other)),
        _ => Ok(Part::Other),
    }
}

/// The value of the first attribute of a kind.
fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    const FLAGS: u16 = 0xc000;
    attributes(bytes).flatten().find(|(kind, _)| kind & !FLAGS == wanted).map(|(_, value)| value)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn table(body: &[u8]) -> Option<Table> {
    const COMMENT: u8 = 0;
    let attributes = body.get(4..)?;
    // A list of kind, length, value.
    let comment = find(attributes, 6).and_then(|data| match data {
        [COMMENT, length, value @ ..] => value.get(..usize::from(*length)),
        _ => None,
    });
    Some(Table {
        name: text(find(attributes, 1)?),
        handle: number(find(attributes, 4)?)?,
        comment: comment.map(text).unwrap_or_default(),
    })
}

/// What the first counter of a rule has counted, or the address that it asks for; none if it does neither.
fn rule(body: &[u8]) -> Option<Part> {
    let own = body.get(4..)?;
    let list: Vec<&[u8]> = attributes(find(own, 4)?).flatten().map(|(_, one)| one).collect();
    let named = |one: &[u8], name: &str| find(one, 1).map(text).as_deref() == Some(name);
    let (table, chain) = (text(find(own, 1)?), text(find(own, 2)?));
    if let Some(counter) = list.iter().find(|one| named(one, "counter")) {
        let data = find(counter, 2)?;
        let (packets, bytes) = (number(find(data, 2)?)?, number(find(data, 1)?)?);
        return Some(Part::Rule(table, Counted { chain, packets, bytes }));
    }
    let loads = |pair: &&[&[u8]]| named(pair[0], "payload") && named(pair[1], "cmp");
    let pair = list.windows(2).find(loads)?;
    let address = address(find(pair[0], 2)?, find(pair[1], 2)?)?;
    Some(Part::Pick(table, Picked { chain, handle: number(find(own, 3)?)?, address }))
}

/// The address that is compared with one of a header; none if it is something else.
fn address(payload: &[u8], compare: &[u8]) -> Option<IpAddr> {
    const NETWORK: [u8; 4] = [0, 0, 0, 1];
    const EQUAL: [u8; 4] = [0; 4];
    if find(payload, 2)? != NETWORK || find(compare, 2)? != EQUAL {
        return None;
    }
    let value = find(find(compare, 3)?, 1)?;
    let four = <[u8; 4]>::try_from(value).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}
