//! Packets of our own, one or many, counted: ICMP echoes, or TCP handshakes where only TCP is hit. Blocks: it belongs on a
//! thread in the namespace that is meant.
//!
//! Formats: RFC 792, RFC 4443. Invariants: never more packets than [`COUNT_MAX`], never longer than the stream says; an
//! answer counts only if it carries what was sent, byte by byte; what this side lacks is an error, and says nothing of
//! the other.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};
use serde::{Deserialize, Serialize};

use crate::sys::aim::Aim;

/// The most packets of one stream.
pub const COUNT_MAX: u16 = 400;
/// The most handshakes: each is a connection to somebody's server.
const HANDSHAKES_MAX: u16 = 50;
/// The most bytes of one echo besides its head: what an Ethernet frame holds.
const PAYLOAD_MAX: u16 = 1400;
const HEAD: usize = 8;

/// Somebody who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Where.
    pub address: IpAddr,
    /// The interface that leads there.
    pub link: u32,
    /// The TCP port whose handshake is measured; an ICMP echo, if absent.
    pub port: Option<u16>,
    /// The address of this side from which it is asked; as the kernel chooses, if absent.
    #[serde(default)]
    pub from: Option<IpAddr>,
}

/// A stream of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// How many, at most [`COUNT_MAX`].
    pub count: u16,
    /// How far apart.
    pub pace: Duration,
    /// How long to wait for answers after the last.
    pub wait: Duration,
    /// How long to listen on for second answers when all have been answered.
    pub linger: Duration,
    /// Bytes of each; a handshake carries none.
    pub payload: u16,
}

impl Stream {
    /// One packet.
    pub const fn once(wait: Duration) -> Self {
        Self { count: 1, pace: Duration::ZERO, wait, linger: Duration::ZERO, payload: 8 }
    }
}

/// One packet that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// How long the first answer took.
    pub took: Duration,
    /// When it came, since the first was sent.
    pub at: Duration,
    /// How many answers came.
    pub times: u32,
}

/// What became of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Echoed {
    /// This side's address.
    pub from: Option<IpAddr>,
    /// Packets sent.
    pub sent: u64,
    /// Those that were answered, in the order of sending.
    pub answers: Vec<Answer>,
    /// How many of them were refusals: nobody listens there, or somebody in between says so.
    pub refused: u64,
    /// Answers that were not what was sent.
    pub damaged: u64,
}

impl Peer {
    /// Somebody at an address, asked so that the packets are of an aim; none if this side has no address that the aim
    /// asks for.
    pub fn of(aim: &Aim, own: &[IpAddr], (address, port): (IpAddr, Option<u16>), link: u32) -> Option<Self> {
        let from = aim.source(own, address);
        (from.is_some() || aim.locals.is_empty()).then_some(Self { address, link, port, from })
    }

    /// As people name it.
    pub fn name(&self) -> String {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).to_string(),
            None => self.address.to_string(),
        }
    }

    fn place(&self, address: IpAddr, port: u16) -> SocketAddr {
        match address {
            IpAddr::V6(address) if address.is_unicast_link_local() => {
                SocketAddrV6::new(address, port, 0, self.link).into()
            }
            address => (address, port).into(),
        }
    }

    /// A socket that sends from where it should.
    fn open(&self, kind: SocketType, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
        let family = if self.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, kind, flags, protocol)?;
        if let Some(from) = self.from {
            rustix::net::bind(&socket, &self.place(from, 0))?;
        }
        Ok(socket)
    }

    fn connect(&self, socket: &OwnedFd) -> Result<(), Errno> {
        rustix::net::connect(socket, &self.place(self.address, self.port.unwrap_or(0)))
    }
}

/// Whether this process may not, or has not got what it takes: that says nothing of the other side.
fn is_lack(error: Errno) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL].contains(&error)
}

/// Sends the stream and gathers the answers.
pub(super) fn send(peer: &Peer, stream: &Stream) -> io::Result<Echoed> {
    match peer.port {
        Some(_) => handshakes(peer, stream),
        None => echoes(peer, stream),
    }
}

/// When each packet was sent, and what came back.
struct Tally {
    began: Instant,
    sent: Vec<Instant>,
    answers: Vec<Option<Answer>>,
    refused: u64,
    damaged: u64,
}

impl Tally {
    fn new() -> Self {
        Self { began: Instant::now(), sent: Vec::new(), answers: Vec::new(), refused: 0, damaged: 0 }
    }

    fn hear(&mut self, number: usize) {
        let (Some(sent), Some(answer)) = (self.sent.get(number), self.answers.get_mut(number)) else {
            return;
        };
        match answer {
            Some(answer) => answer.times += 1,
            None => {
                let now = Instant::now();
                *answer = Some(Answer { took: now - *sent, at: now - self.began, times: 1 });
            }
        }
    }

    fn refuse(&mut self, number: usize) {
        self.refused += 1;
        self.hear(number);
    }

    fn end(self, from: IpAddr) -> Echoed {
        let sent = self.sent.len() as u64;
        Echoed {
            from: Some(from),
            sent,
            answers: self.answers.into_iter().flatten().collect(),
            refused: self.refused,
            damaged: self.damaged,
        }
    }
}

fn echoes(peer: &Peer, stream: &Stream) -> io::Result<Echoed> {
    let four = peer.address.is_ipv4();
    let protocol = if four { ipproto::ICMP } else { ipproto::ICMPV6 };
    let socket = peer.open(SocketType::RAW, Some(protocol))?;
    // So that only answers of that address are heard.
    match peer.connect(&socket) {
        Ok(()) => {}
        Err(error) if is_lack(error) => return Err(error.into()),
        // No way leads there.
        Err(_) => return Ok(Echoed::default()),
    }
    let from = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?.ip();
    let mark = RandomState::new().build_hasher().finish();
    let payload = usize::from(stream.payload.min(PAYLOAD_MAX));
    let count = usize::from(stream.count.min(COUNT_MAX));
    let mut tally = Tally::new();
    loop {
        let due = tally.began + stream.pace * tally.sent.len() as u32;
        if tally.sent.len() < count && due <= Instant::now() {
            let packet = packet(four, mark, tally.sent.len() as u16, payload);
            tally.sent.push(Instant::now());
            tally.answers.push(None);
            // What does not leave, for whatever reason, will not be answered.
            let _ = rustix::net::send(&socket, &packet, SendFlags::empty());
        }
        hear(&socket, four, mark, payload, &mut tally);
        let end = tally.began + stream.pace * count.saturating_sub(1) as u32 + stream.wait;
        let next =
            if tally.sent.len() < count { tally.began + stream.pace * tally.sent.len() as u32 } else { end };
        let whole = tally.sent.len() == count && tally.answers.iter().all(Option::is_some);
        let now = Instant::now();
        let until = if whole { next.min(now + stream.linger) } else { next };
        let heard = now < until && ready(&socket, PollFlags::IN, until - now)?;
        if tally.sent.len() == count && (Instant::now() >= end || whole && !heard) {
            return Ok(tally.end(from));
        }
    }
}

/// Reads all answers that have come.
fn hear(socket: &OwnedFd, four: bool, mark: u64, payload: usize, tally: &mut Tally) {
    let mut buffer = [0; 2048];
    while let Ok((length, _)) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
        match read(&buffer[..length], four, mark, payload) {
            Some(Ok(number)) => tally.hear(number.into()),
            Some(Err(Damaged)) => tally.damaged += 1,
            None => {}
        }
    }
}

/// An answer that is not what was sent.
#[derive(Debug, PartialEq, Eq)]
struct Damaged;

/// One echo request.
fn packet(four: bool, mark: u64, number: u16, payload: usize) -> Vec<u8> {
    let mut out = vec![if four { 8 } else { 128 }, 0, 0, 0];
    out.extend(identifier(mark).to_be_bytes());
    out.extend(number.to_be_bytes());
    out.extend(filling(mark, number, payload));
    if four {
        // The kernel does it for IPv6.
        let sum = checksum(&out);
        out[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    out
}

fn identifier(mark: u64) -> u16 {
    (mark >> 48) as u16
}

/// What an echo carries: different for each, so that no answer passes for another.
fn filling(mark: u64, number: u16, payload: usize) -> impl Iterator<Item = u8> {
    let mark = mark.to_be_bytes();
    (0..payload).map(move |at| mark[at % 8].wrapping_add(number as u8).wrapping_add((at / 8) as u8))
}

/// The number of the request that these bytes answer, if they answer one of ours.
fn read(bytes: &[u8], four: bool, mark: u64, payload: usize) -> Option<Result<u16, Damaged>> {
    let (bytes, kind) = if four {
        let head = usize::from(bytes.first()? & 0xf) * 4;
        (bytes.get(head..)?, 0)
    } else {
        (bytes, 129)
    };
    let head = bytes.get(..HEAD)?;
    if head[0] != kind || head[4..6] != identifier(mark).to_be_bytes() {
        return None;
    }
    let number = u16::from_be_bytes([head[6], head[7]]);
    let whole =
        (!four || checksum(bytes) == 0) && bytes[HEAD..].iter().copied().eq(filling(mark, number, payload));
    Some(if whole { Ok(number) } else { Err(Damaged) })
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

fn ready(socket: &OwnedFd, what: PollFlags, patience: Duration) -> io::Result<bool> {
    wait(&mut [PollFd::new(socket, what)], patience)
}

/// Waits until something happens; a signal is nothing, for whoever waits looks at the time again.
fn wait(asked: &mut [PollFd<'_>], patience: Duration) -> io::Result<bool> {
    let time = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
    match rustix::event::poll(asked, Some(&time)) {
        Ok(happened) => Ok(happened > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Any answer to the first packet of a connection tells of its way there and back, be it a refusal.
fn handshakes(peer: &Peer, stream: &Stream) -> io::Result<Echoed> {
    let count = usize::from(stream.count.min(HANDSHAKES_MAX));
    let (mut tally, mut open, mut from) = (Tally::new(), Vec::<(usize, OwnedFd)>::new(), peer.address);
    loop {
        let due = tally.began + stream.pace * tally.sent.len() as u32;
        if tally.sent.len() < count && due <= Instant::now() {
            let socket = peer.open(SocketType::STREAM, None)?;
            if count > 1 {
                // Each ends at once, and leaves nothing that waits; one alone ends politely.
                sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
            }
            tally.sent.push(Instant::now());
            tally.answers.push(None);
            let number = tally.sent.len() - 1;
            match peer.connect(&socket) {
                Ok(()) => tally.hear(number),
                Err(Errno::CONNREFUSED) => tally.refuse(number),
                Err(Errno::INPROGRESS) => {
                    from = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?.ip();
                    open.push((number, socket));
                }
                Err(error) if is_lack(error) => return Err(error.into()),
                Err(_) => {}
            }
        }
        let end = tally.began + stream.pace * count.saturating_sub(1) as u32 + stream.wait;
        let next =
            if tally.sent.len() < count { tally.began + stream.pace * tally.sent.len() as u32 } else { end };
        let now = Instant::now();
        if tally.sent.len() == count && (open.is_empty() || now >= end) {
            return Ok(tally.end(from));
        }
        settle(&mut open, &mut tally, next.saturating_duration_since(now))?;
    }
}

/// Waits until a connection has been answered, and lets those go.
fn settle(open: &mut Vec<(usize, OwnedFd)>, tally: &mut Tally, patience: Duration) -> io::Result<()> {
    let mut asked: Vec<PollFd<'_>> =
        open.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::OUT)).collect();
    let happened = wait(&mut asked, patience)?;
    let done: Vec<bool> = asked.iter().map(|one| happened && !one.revents().is_empty()).collect();
    drop(asked);
    let mut done = done.into_iter();
    open.retain(|(number, socket)| {
        if !done.next().unwrap_or_default() {
            return true;
        }
        match sockopt::socket_error(socket).and_then(|outcome| outcome) {
            Ok(()) => tally.hear(*number),
            Err(Errno::CONNREFUSED | Errno::CONNRESET) => tally.refuse(*number),
            Err(_) => {}
        }
        false
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Stream = Stream {
        count: 20,
        pace: Duration::from_millis(1),
        wait: Duration::from_millis(500),
        linger: Duration::ZERO,
        payload: 56,
    };

    #[test]
    fn every_echo_on_the_loopback_is_answered_once() {
        for address in ["127.0.0.1", "::1"] {
            let peer = Peer { address: address.parse().unwrap(), link: 1, port: None, from: None };
            let echoed = match send(&peer, &STREAM) {
                Ok(echoed) => echoed,
                // Without root, or without IPv6.
                Err(error) if matches!(error.raw_os_error(), Some(1 | 97 | 99 | 101)) => continue,
                Err(error) => panic!("{error}"),
            };
            assert_eq!((echoed.sent, echoed.answers.len(), echoed.damaged), (20, 20, 0));
            assert!(echoed.answers.iter().all(|answer| answer.times == 1));
            assert_eq!(echoed.from, Some(peer.address));
        }
    }

    #[test]
    fn a_handshake_is_answered_by_a_listener_and_by_a_refusal() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut listener = Some(listener);
        for gone in [false, true] {
            let peer = Peer { address: [127, 0, 0, 1].into(), link: 1, port: Some(port), from: None };
            let listener = (!gone).then(|| listener.take().unwrap());
            for (stream, count) in [(STREAM, 20), (Stream::once(Duration::from_secs(1)), 1)] {
                let echoed = send(&peer, &stream).unwrap();
                assert_eq!((echoed.sent, echoed.answers.len()), (count, count as usize), "gone: {gone}");
                assert_eq!(echoed.refused, if gone { count } else { 0 });
            }
            drop(listener);
        }
    }

    #[test]
    fn a_packet_leaves_from_the_address_that_it_should_and_from_none_that_is_not_ours() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ask = |from: &str, port: Option<u16>| {
            let from = Some(from.parse().unwrap());
            let peer = Peer { address: [127, 0, 0, 1].into(), link: 1, port, from };
            send(&peer, &Stream::once(Duration::from_secs(1)))
        };
        ask("127.0.0.9", Some(port)).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.0.0.9");
        let lack = ask("192.0.2.1", Some(port)).unwrap_err();
        assert_eq!(lack.kind(), io::ErrorKind::AddrNotAvailable);
        // Only root may send echoes.
        if let Ok(echoed) = ask("127.0.0.9", None) {
            assert_eq!((echoed.from, echoed.answers.len()), (Some([127, 0, 0, 9].into()), 1));
        }
    }

    #[test]
    fn what_was_not_sent_like_this_is_no_answer() {
        let mark = 0x0123_4567_89ab_cdef;
        let mut answer = packet(false, mark, 7, 100);
        answer[0] = 129;
        assert_eq!(read(&answer, false, mark, 100), Some(Ok(7)));
        assert_eq!(read(&answer, false, !mark, 100), None, "somebody else's");
        for at in HEAD..answer.len() {
            let mut turned = answer.clone();
            turned[at] ^= 4;
            assert_eq!(read(&turned, false, mark, 100), Some(Err(Damaged)), "{at}");
        }
        let four = packet(true, mark, 7, 100);
        assert_eq!(checksum(&four), 0);
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        proptest::proptest!(|(bytes: Vec<u8>, four: bool)| {
            let _ = read(&bytes, four, 0, 56);
        });
    }
}
