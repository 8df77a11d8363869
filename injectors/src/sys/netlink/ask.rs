//! One datagram and its answer. Blocks: it belongs on a thread in the namespace that is meant.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

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
