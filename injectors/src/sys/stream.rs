//! Reading and writing connected sockets by the bare system call: libc's are cancellation points, which costs a tenth of a
//! microsecond for each where a process has threads.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, SendFlags};

/// Reads what has arrived; 0 at the end.
///
/// # Errors
/// Nothing has (`WouldBlock`), or the connection broke.
pub fn receive(socket: impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    let (read, _) = rustix::net::recv(socket, into, RecvFlags::DONTWAIT)?;
    Ok(read)
}

/// Writes as much as fits, without a signal if the other side has gone.
///
/// # Errors
/// Nothing fits (`WouldBlock`), or the connection broke.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}
