//! TCP connections as the kernel sees them, with their round-trip times, and their end: `sock_diag` (`linux/inet_diag.h`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use crate::sys::netem::attributes;

/// How long the kernel may take.
const DEADLINE: Duration = Duration::from_secs(1);
/// The most connections that are read.
const CONNECTIONS_MAX: usize = 65_536;
/// Length of a message's head, and of `inet_diag_req_v2` and `inet_diag_msg`.
const HEAD: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;

/// One established TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// This side.
    pub local: SocketAddr,
    /// The other side.
    pub peer: SocketAddr,
    /// The number by which the kernel tells it from all others.
    pub cookie: u64,
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// How much round trips scatter around it.
    pub scatter: Duration,
    /// Segments with data that this side has sent.
    pub sent: u32,
}

fn socket() -> io::Result<OwnedFd> {
    let protocol = Some(netlink::SOCK_DIAG);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(DEADLINE))?;
    Ok(socket)
}

/// Every established TCP connection of this thread's namespace. Blocks: it belongs on a thread of its own.
pub(super) fn connections() -> io::Result<Vec<Connection>> {
    dump(|body, found| found.extend(connection(body)))
}

/// Ends those TCP connections of this thread's namespace whose numbers these are, as if each were aborted: a reset goes
/// to the other side, and the process here gets an error. Tells which were ended; others have gone before. Blocks.
pub(super) fn destroy(cookies: &[u64]) -> io::Result<Vec<u64>> {
    // As the kernel names them, so that nothing has to be put together: family, then addresses, interface and number.
    let names: Vec<(u64, u8, Vec<u8>)> = dump(|body, found| {
        let cookie = connection(body).map(|one| one.cookie).filter(|cookie| cookies.contains(cookie));
        found.extend(cookie.map(|cookie| (cookie, body[0], body[4..52].to_vec())));
    })?;
    let socket = socket()?;
    let mut ended = Vec::new();
    for (cookie, family, name) in names {
        match end(&socket, family, &name) {
            Ok(()) => ended.push(cookie),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

/// Whether the kernel can end connections of others: it is asked to end one that is not there.
pub(super) fn can_destroy() -> io::Result<()> {
    match end(&socket()?, AddressFamily::INET.as_raw() as u8, &[0; REQUEST - 8]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn end(socket: &OwnedFd, family: u8, name: &[u8]) -> io::Result<()> {
    const SOCK_DESTROY: u16 = 21;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 5;
    let request = request(SOCK_DESTROY, REQUEST_AND_ACKNOWLEDGE, family, name);
    rustix::net::send(socket, &request, SendFlags::empty())?;
    let mut buffer = [0; 4096];
    let (length, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()))?;
    read(&buffer[..length], |_| {}).map(drop)
}

/// What is picked of every established TCP connection.
fn dump<T>(pick: impl Fn(&[u8], &mut Vec<T>)) -> io::Result<Vec<T>> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_AND_DUMP: u16 = 0x301;
    let socket = socket()?;
    let mut found = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        // Any socket.
        let request = request(SOCK_DIAG_BY_FAMILY, REQUEST_AND_DUMP, family.as_raw() as u8, &[]);
        rustix::net::send(&socket, &request, SendFlags::empty())?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (length, _) = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())
            })?;
            match read(&buffer[..length], |body| pick(body, &mut found)) {
                Ok(true) => {}
                Ok(false) => break,
                // A kernel without tcp_diag.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
            if found.len() > CONNECTIONS_MAX {
                return Err(io::Error::other(format!("more than {CONNECTIONS_MAX} connections")));
            }
        }
    }
    Ok(found)
}

/// A request about the established TCP connections of a family, with their `tcp_info`: about one, if it is named.
fn request(kind: u16, flags: u16, family: u8, name: &[u8]) -> Vec<u8> {
    const TCP: u8 = 6;
    const INFO: u8 = 1 << 1;
    const ESTABLISHED: u32 = 1 << 1;
    let mut out = Vec::with_capacity(HEAD + REQUEST);
    out.extend(((HEAD + REQUEST) as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend([0; 8]);
    out.extend([family, TCP, INFO, 0]);
    out.extend(ESTABLISHED.to_ne_bytes());
    out.extend(name);
    out.resize(HEAD + REQUEST, 0);
    out
}

/// Reads the messages of one datagram; false at the end of the answer.
fn read(mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<bool> {
    const DONE: u16 = 3;
    const ERROR: u16 = 2;
    while let Some(head) = bytes.get(..HEAD) {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(body) = bytes.get(HEAD..length) else { break };
        match u16::from_ne_bytes([head[4], head[5]]) {
            DONE => return Ok(false),
            ERROR => {
                let code = body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
                // Without a code, it is done.
                return if code == 0 { Ok(false) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            _ => each(body),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// One connection from an `inet_diag_msg` and its `tcp_info`.
fn connection(body: &[u8]) -> Option<Connection> {
    const INET6: u8 = 10;
    const INFO: u16 = 2;
    let (message, rest) = body.split_at_checked(MESSAGE)?;
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = message.get(at..at + 16)?.try_into().ok()?;
        Some(match message[0] {
            // An IPv4 address in an IPv6 socket sends IPv4 packets.
            INET6 => Ipv6Addr::from(bytes).to_canonical(),
            _ => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        })
    };
    let port = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let cookie = u64::from_ne_bytes(message.get(44..52)?.try_into().ok()?);
    let (_, info) = attributes(rest).flatten().find(|(kind, _)| *kind == INFO)?;
    let word = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    Some(Connection {
        local: (address(8)?, port(4)).into(),
        peer: (address(24)?, port(6)).into(),
        cookie,
        rtt: Duration::from_micros(word(68)?.into()),
        scatter: Duration::from_micros(word(72)?.into()),
        sent: word(156)?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_of_this_process_is_found_with_its_round_trip_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        let all = connections().unwrap();
        let own = all.iter().find(|one| one.local == client.local_addr().unwrap()).unwrap();
        assert_eq!(own.peer, listener.local_addr().unwrap());
        assert!(own.rtt > Duration::ZERO && own.rtt < Duration::from_secs(1) && own.sent == 1, "{own:?}");
    }

    #[test]
    fn a_connection_that_is_destroyed_ends_with_an_error_on_both_sides_and_no_other_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = [(); 2].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let mut servers = [(); 2].map(|()| listener.accept().unwrap().0);
        let own = clients[0].local_addr().unwrap();
        let cookie = connections().unwrap().iter().find(|one| one.local == own).unwrap().cookie;
        let ended = destroy(&[cookie]);
        if ended.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            // Only root may; the tests on real interfaces need it as well, and say so.
            return;
        }
        assert_eq!(ended.unwrap(), [cookie]);
        assert_eq!(destroy(&[cookie]).unwrap(), [0; 0], "it has gone");
        let kind = |stream: &mut TcpStream| stream.read(&mut [0; 4]).unwrap_err().kind();
        assert_eq!(kind(&mut clients[0]), io::ErrorKind::ConnectionAborted);
        assert_eq!(kind(&mut servers[0]), io::ErrorKind::ConnectionReset);
        clients[1].write_all(b"hello").unwrap();
        servers[1].read_exact(&mut [0; 5]).unwrap();
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            let _ = read(&bytes, |_| {});
            let _ = connection(&bytes);
        });
    }
}
