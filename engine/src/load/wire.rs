//! Which protocol is spoken with an origin: the one place where its driver is chosen.

use std::rc::Rc;

use super::connection;
use super::dial::{Plain, Secure, Transport};
use super::h2;
use super::lane::Lane;

/// What is spoken with an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// Whether a connection carries several requests at a time.
    pub(super) fn multiplexed(self) -> bool {
        matches!(self, Self::Http2)
    }

    /// What is offered within TLS.
    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// Starts the task of a connection. It ends with the worker's runtime, which drops it.
pub(super) fn spawn(lane: &Rc<Lane>, connection: u32) {
    let origin = &lane.load.origins[lane.origin];
    match &origin.tls {
        None => spawn_over(lane, connection, origin.protocol, Plain),
        Some((connector, name)) => {
            let agreed = (origin.protocol == Protocol::Http2).then(|| origin.protocol.alpn());
            let secure = Secure { connector: connector.clone(), name: name.clone(), agreed };
            spawn_over(lane, connection, origin.protocol, secure);
        }
    }
}

fn spawn_over<T: Transport + 'static>(lane: &Rc<Lane>, connection: u32, protocol: Protocol, transport: T) {
    let lane = Rc::clone(lane);
    match protocol {
        Protocol::Http1 => tokio::task::spawn_local(connection::drive(lane, connection, transport)),
        Protocol::Http2 => tokio::task::spawn_local(h2::drive(lane, connection, transport)),
    };
}
