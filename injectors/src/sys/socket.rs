//! Listening sockets that can stop and start again while their port stays ours.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};

/// How many connections wait in the kernel until the relay accepts them.
const BACKLOG: i32 = 4096;

/// Binds a listening socket. The port stays reserved even while the socket does not listen.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    if addr.port() == 0 {
        // A port that the kernel chose is given back when the socket stops listening, one that was asked for
        // is not. So the kernel chooses once, and a second socket asks while the first still holds the port.
        let (chooser, chosen) = bound(addr)?;
        let (socket, addr) = bound(chosen)?;
        drop(chooser);
        return Ok((listening(socket)?, addr));
    }
    let (socket, addr) = bound(addr)?;
    Ok((listening(socket)?, addr))
}

/// Lets packets of a socket pass so many routers.
pub(crate) fn travels(socket: impl AsFd, hops: u8) -> io::Result<()> {
    use rustix::net::sockopt::{set_ip_ttl, set_ipv6_unicast_hops};
    let own = rustix::net::getsockname(&socket)?;
    if own.address_family() == AddressFamily::INET6 {
        return Ok(set_ipv6_unicast_hops(&socket, Some(hops))?);
    }
    Ok(set_ip_ttl(&socket, u32::from(hops))?)
}

fn bound(addr: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &addr)?;
    let addr = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, addr))
}

fn listening(socket: OwnedFd) -> io::Result<TcpListener> {
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Stops listening: new connections are refused, the port stays ours.
pub(crate) fn stop_listening(listener: &TcpListener) -> io::Result<()> {
    // A port may be shared by sockets that do not listen if all of them agree: while it is closed, ours does not.
    rustix::net::sockopt::set_socket_reuseaddr(listener, false)?;
    Ok(rustix::net::shutdown(listener, Shutdown::Read)?)
}

/// Listens again after [`stop_listening`].
pub(crate) fn listen_again(listener: &TcpListener) -> io::Result<()> {
    // The connections that were accepted share the port, and listening is only allowed if we agree as well.
    rustix::net::sockopt::set_socket_reuseaddr(listener, true)?;
    Ok(rustix::net::listen(listener, BACKLOG)?)
}

/// Bytes that wait to be read.
pub(crate) fn waiting(socket: impl AsFd) -> u64 {
    rustix::io::ioctl_fionread(socket).unwrap_or(0)
}
