//! Packet filters by nfnetlink: one batch, or one question. Blocks: it belongs on a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use crate::sys::nft::read::{Counted, Part, Picked, Table, parts};
use crate::sys::nft::{self, Edit};

/// How long the kernel may take to answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// The most tables and rules that are read.
const PARTS_MAX: usize = 65_536;
/// How often an answer may be torn by changes that others make meanwhile.
const TRIES: u32 = 5;
/// Room for the largest batch: every way of an aim of 256 parts.
const SEND_BYTES: usize = 1 << 20;

fn socket() -> io::Result<OwnedFd> {
    let protocol = Some(netlink::NETFILTER);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    for which in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&socket, which, Some(DEADLINE))?;
    }
    Ok(socket)
}

/// Makes all edits, or none.
pub(super) fn commit(edits: &[Edit]) -> io::Result<()> {
    let (bytes, last) = nft::batch(edits);
    let socket = socket()?;
    // Beyond the limit for all only with a capability; then the batch shows whether it fits.
    if sockopt::set_socket_send_buffer_size_force(&socket, SEND_BYTES).is_err() {
        sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES)?;
    }
    rustix::net::send(&socket, &bytes, SendFlags::empty())?;
    let mut answered = false;
    hear(&socket, |part| {
        answered |= part == Part::Done(last);
        !answered
    })
}

/// Every table of our family.
pub(super) fn tables() -> io::Result<Vec<Table>> {
    ask(&nft::ask_tables(), |part| if let Part::Table(table) = part { Some(table) } else { None })
}

/// What the rules of a table have counted, in their order.
pub(super) fn counted(table: &str) -> io::Result<Vec<Counted>> {
    ask(&nft::ask_rules(table), |part| match part {
        // Some kernels tell the rules of every table, whatever was asked.
        Part::Rule(of, counted) if of == table => Some(counted),
        _ => None,
    })
}

/// The rules of a table that ask for a single address and count nothing, in their order.
pub(super) fn picked(table: &str) -> io::Result<Vec<Picked>> {
    ask(&nft::ask_rules(table), |part| match part {
        Part::Pick(of, picked) if of == table => Some(picked),
        _ => None,
    })
}

/// Asks until an answer is whole.
fn ask<T>(request: &[u8], pick: impl Fn(Part) -> Option<T>) -> io::Result<Vec<T>> {
    for _ in 0..TRIES {
        let socket = socket()?;
        rustix::net::send(&socket, request, SendFlags::empty())?;
        let (mut found, mut torn, mut ended) = (Vec::new(), false, false);
        let heard = hear(&socket, |part| {
            torn |= part == Part::Torn;
            ended |= part == Part::End;
            found.extend(pick(part));
            !ended && found.len() <= PARTS_MAX
        });
        match heard {
            // As the kernel says that the ruleset has changed since.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INTR.raw_os_error()) => {}
            Err(error) => return Err(error),
            Ok(()) if found.len() > PARTS_MAX => {
                return Err(io::Error::other("the kernel's answer does not end"));
            }
            Ok(()) if !torn => return Ok(found),
            Ok(()) => {}
        }
    }
    Err(io::Error::other("others change the packet filters all the time"))
}

/// Hears datagrams until there is enough: the whole last one is looked at.
fn hear(socket: &OwnedFd, mut more: impl FnMut(Part) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // A signal to another part of squall, such as ^C, says nothing of the answer.
        let (length, _) =
            rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()))?;
        let mut enough = false;
        for part in parts(&buffer[..length]) {
            enough |= !more(part?);
        }
        if enough {
            return Ok(());
        }
    }
}
