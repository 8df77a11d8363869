//! The few system calls that tokio does not offer. The only file of the relay that names rustix.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};
use rustix::process::Resource;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

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

/// A timer that becomes readable when it fires.
pub(crate) fn timer() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    Ok(rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

/// Makes the timer fire once after this time, or as soon as possible if it is zero.
pub(crate) fn set_timer(timer: impl AsFd, after: Duration) -> io::Result<()> {
    let after = after.max(Duration::from_nanos(1));
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: after.as_secs() as i64, tv_nsec: i64::from(after.subsec_nanos()) },
    };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

/// Raises the limit of open files as far as allowed: a relay needs two for each connection.
pub(crate) fn raise_file_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it the relay still works, with fewer connections.
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
}

/// A second handle of this process's standard input.
pub(crate) fn standard_input() -> io::Result<OwnedFd> {
    Ok(rustix::io::dup(rustix::stdio::stdin())?)
}
