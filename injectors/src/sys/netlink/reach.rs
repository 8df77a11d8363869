//! Whether somebody is reached: one ICMP echo or one TCP connection. Blocks: it belongs on a thread of its own, which is
//! in the namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with, sockopt,
};
use serde::{Deserialize, Serialize};

/// One look at whether somebody is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// An ICMP echo request.
    Echo(IpAddr),
    /// A TCP connection, closed at once.
    Connect(SocketAddr),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// An answer, after this many microseconds.
    Answered(u64),
    /// A reset.
    Refused,
    /// Nothing in time, or no way there.
    Nothing,
}

/// Sends one probe from this thread's namespace and waits so long for the reply.
pub(super) fn reach(probe: Probe, patience: Duration) -> io::Result<Reply> {
    let began = Instant::now();
    let answered = match probe {
        Probe::Connect(to) => match TcpStream::connect_timeout(&to, patience) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(Reply::Refused),
            Err(error) if is_lack(&error) => return Err(error),
            Err(_) => false,
        },
        Probe::Echo(to) => echo(to, began + patience)?,
    };
    let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(if answered { Reply::Answered(micros) } else { Reply::Nothing })
}

/// Sends one datagram from this thread's namespace and waits so long for one back.
pub(super) fn ask(to: SocketAddr, query: &[u8], patience: Duration) -> io::Result<Option<Vec<u8>>> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(patience))?;
    let mut buffer = vec![0; 1 << 16];
    // No way there, or nobody there: nothing comes.
    let mut heard =
        socket.connect(to).and_then(|()| socket.send(query)).and_then(|_| socket.recv(&mut buffer));
    let until = Instant::now() + patience;
    // A signal to another part of squall is no answer.
    while heard.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
        && Instant::now() < until
    {
        heard = socket.recv(&mut buffer);
    }
    Ok(heard.ok().map(|length| buffer[..length].to_vec()))
}

/// Whether this process may not, or has not got what it takes: that says nothing of the other side.
fn is_lack(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL];
    lacks.iter().any(|lack| error.raw_os_error() == Some(lack.raw_os_error()))
}

/// Whether an echo comes back in time.
fn echo(to: IpAddr, until: Instant) -> io::Result<bool> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    let token = token(&socket);
    // No route, or a filter that tells its sender: nobody is reached.
    if sendto(&socket, &request(to, token), SendFlags::empty(), &SocketAddr::new(to, 0)).is_err() {
        return Ok(false);
    }
    let mut buffer = [0; 2048];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(left))?;
        match rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) if answers(to, &buffer[..length], token) => return Ok(true),
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => return Ok(false),
        }
    }
}

/// What tells our echo from those of others: the socket's number and the time.
fn token(socket: &OwnedFd) -> [u8; 8] {
    use std::hash::{BuildHasher as _, RandomState};
    use std::os::fd::AsRawFd as _;
    RandomState::new().hash_one(socket.as_raw_fd()).to_ne_bytes()
}

const REQUEST_4: u8 = 8;
const REPLY_4: u8 = 0;
const REQUEST_6: u8 = 128;
const REPLY_6: u8 = 129;
/// Type, code, checksum, identifier and number of an echo.
const HEAD: usize = 8;

fn request(to: IpAddr, token: [u8; 8]) -> Vec<u8> {
    let kind = if to.is_ipv4() { REQUEST_4 } else { REQUEST_6 };
    let mut out = vec![kind, 0, 0, 0, token[0], token[1], 0, 1];
    out.extend(token);
    if to.is_ipv4() {
        // For IPv6, the kernel does it: it knows the sender's address.
        let sum = out.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        out[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    out
}

/// Whether a packet that has come in answers our request.
fn answers(to: IpAddr, packet: &[u8], token: [u8; 8]) -> bool {
    let (kind, header) = match to {
        // A raw socket gets IPv4 packets with their header.
        IpAddr::V4(_) => (REPLY_4, packet.first().map_or(0, |first| usize::from(first & 0xf) * 4)),
        IpAddr::V6(_) => (REPLY_6, 0),
    };
    let Some(icmp) = packet.get(header..) else { return false };
    icmp.first() == Some(&kind) && icmp.get(HEAD..HEAD + token.len()) == Some(&token)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_is_answered_or_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let patience = Duration::from_secs(1);
        assert!(matches!(reach(Probe::Connect(to), patience).unwrap(), Reply::Answered(_)));
        drop(listener);
        assert_eq!(reach(Probe::Connect(to), patience).unwrap(), Reply::Refused);
    }

    #[test]
    fn an_echo_is_answered_by_its_own_reply_alone() {
        let token = *b"squall!!";
        for to in ["10.0.0.1", "fd00::1"] {
            let to: IpAddr = to.parse().unwrap();
            let header: &[u8] = if to.is_ipv4() { &[0x45; 20] } else { &[] };
            let mut packet = [header, &request(to, token)].concat();
            assert!(!answers(to, &packet, token), "our own request is no reply");
            packet[header.len()] = if to.is_ipv4() { REPLY_4 } else { REPLY_6 };
            assert!(answers(to, &packet, token));
            assert!(!answers(to, &packet, *b"somebody"));
            assert!(!answers(to, &packet[..packet.len() - 1], token));
        }
    }

    #[test]
    fn the_checksum_of_an_echo_makes_all_words_sum_to_ones() {
        let sent = request("10.0.0.1".parse().unwrap(), [0xff; 8]);
        let sum = sent.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_packets_never_panic(packet: Vec<u8>, four: bool) {
            let to: IpAddr = if four { "10.0.0.1" } else { "fd00::1" }.parse().unwrap();
            let _ = answers(to, &packet, [0; 8]);
        }
    }
}
