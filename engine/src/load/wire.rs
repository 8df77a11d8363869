//! Which protocol is spoken with an origin: the one place where its driver is chosen.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio_rustls::TlsConnector;

use super::connection::drive;
use super::dial::{Plain, Secure, Transport};
#[cfg(feature = "http3")]
use super::h3;
use super::http::Parser;
use super::lane::Lane;
use super::reply::Replies;
use super::{datagram, h2};

/// What is spoken with an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Http1,
    Http2,
    Http3,
    /// Bytes over a connection, and a reply.
    Tcp,
    /// A datagram, and one in reply.
    Udp,
    /// A query over UDP.
    Dns,
}

impl Protocol {
    /// Whether a connection carries several requests at a time.
    pub(super) fn multiplexed(self) -> bool {
        matches!(self, Self::Http2 | Self::Http3)
    }

    /// Whether it is some version of HTTP.
    pub(super) fn http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Http3)
    }

    /// Whether it is spoken over datagrams.
    pub(super) fn datagrams(self) -> bool {
        matches!(self, Self::Udp | Self::Dns)
    }

    /// What is offered within TLS; nothing if the protocol has no name there.
    pub(super) fn alpn(self) -> Option<&'static [u8]> {
        match self {
            Self::Http1 => Some(b"http/1.1"),
            Self::Http2 => Some(b"h2"),
            Self::Http3 => Some(b"h3"),
            Self::Tcp | Self::Udp | Self::Dns => None,
        }
    }
}

/// Starts the task of a connection. It ends with the worker's runtime, which drops it.
pub(super) fn spawn(lane: &Rc<Lane>, connection: u32) {
    let origin = &lane.load.origins[lane.origin];
    match (&origin.tls, origin.protocol) {
        (_, Protocol::Udp | Protocol::Dns) => {
            tokio::task::spawn_local(datagram::drive(Rc::clone(lane), connection));
        }
        #[cfg(feature = "http3")]
        (_, Protocol::Http3) => {
            tokio::task::spawn_local(h3::drive(Rc::clone(lane), connection));
        }
        (None, protocol) => spawn_over(lane, connection, protocol, Plain),
        (Some((config, name)), protocol) => {
            // A server that agrees to nothing may still speak HTTP/1.1.
            let agreed = (protocol == Protocol::Http2).then_some(protocol.alpn()).flatten();
            let connector = TlsConnector::from(Arc::clone(config));
            let secure = Secure { connector, name: name.clone(), agreed, failed: RefCell::default() };
            spawn_over(lane, connection, protocol, secure);
        }
    }
}

fn spawn_over<T: Transport + 'static>(lane: &Rc<Lane>, connection: u32, protocol: Protocol, transport: T) {
    let lane = Rc::clone(lane);
    match protocol {
        Protocol::Http2 => tokio::task::spawn_local(h2::drive(lane, connection, transport)),
        Protocol::Tcp => tokio::task::spawn_local(drive::<T, Replies>(lane, connection, transport)),
        _ => tokio::task::spawn_local(drive::<T, Parser>(lane, connection, transport)),
    };
}
