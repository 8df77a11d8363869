//! QUIC connections: opening one on a socket of its own, what became of it, saying goodbye. The one door of quinn.
//!
//! The socket is connected to its server, so the kernel tells when nobody listens there (any more), as it does over TCP.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{
    AsyncTimer, AsyncUdpSocket, ClientConfig, ConnectionError, Endpoint, EndpointConfig, Runtime,
    TokioRuntime, TransportConfig, TransportErrorCode, UdpPoller, VarInt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, yield_now};

use super::super::dial::{Counted, source};
use super::super::lane::{Lane, Shared};
use super::super::origin::Place;
use super::super::{ErrorClass, cause};

/// H3_NO_ERROR (RFC 9114, section 8.1).
const NO_ERROR: u32 = 0x100;
/// Streams that servers may open: one for control, two for header tables, and some that are to be ignored.
const SERVER_STREAMS: u32 = 8;
/// The most bytes of bodies that one connection keeps until they are acknowledged.
const UNACKNOWLEDGED: u64 = 1 << 20;

/// An open connection. Dropping it closes its socket.
pub(super) struct Link {
    connection: quinn::Connection,
    socket: Arc<Socket>,
    tasks: Arc<Tasks>,
    shared: Rc<Shared>,
    // Last: what it knows must outlive the connection.
    _endpoint: Endpoint,
    _counted: Counted,
}

impl Link {
    /// Tries the addresses in turn, beginning with the next one of the rotation; tells when one is reached. The handshake's time
    /// is recorded.
    ///
    /// # Errors
    /// The class of the failure.
    pub(super) async fn open(lane: &Lane, reached: &Cell<bool>) -> Result<Self, ErrorClass> {
        let origin = &lane.load.origins[lane.origin];
        let (Place::Addresses(addresses), Some((config, name))) = (&origin.place, &origin.tls) else {
            return Err(ErrorClass::Local);
        };
        let crypto = QuicClientConfig::try_from(Arc::clone(config)).map_err(|_| ErrorClass::Tls)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport()));
        let turn = lane.rotation.replace(lane.rotation.get().wrapping_add(1));
        let mut failure = ErrorClass::Local;
        for i in 0..addresses.len() {
            let address = addresses[turn.wrapping_add(i) % addresses.len()];
            let counted = Counted::new(&lane.shared);
            let (socket, tasks) = match Socket::connected(address, source(&origin.sources, address, turn)) {
                Ok(socket) => (Arc::new(socket), Arc::new(Tasks::default())),
                Err(error) => {
                    failure = ErrorClass::of_connect(&error);
                    if failure == ErrorClass::Local {
                        lane.shared.recorder.borrow_mut().lacked(&error);
                    }
                    continue;
                }
            };
            let began = lane.shared.clock.now();
            match shake_hands(&config, address, &name.to_str(), &socket, &tasks, reached).await {
                Ok((endpoint, connection)) => {
                    let took = lane.shared.clock.now().saturating_sub(began);
                    let phase = lane.shared.phase.get();
                    lane.shared.recorder.borrow_mut().shook_hands(lane.load_index, phase, took);
                    lane.shared.farewells.set(lane.shared.farewells.get() + 1);
                    let shared = Rc::clone(&lane.shared);
                    return Ok(Self {
                        connection,
                        socket,
                        tasks,
                        shared,
                        _endpoint: endpoint,
                        _counted: counted,
                    });
                }
                Err((class @ (ErrorClass::Refused | ErrorClass::Local), _)) => failure = class,
                Err((class, why)) => {
                    lane.explain(class, why);
                    return Err(class);
                }
            }
        }
        Err(failure)
    }

    /// For the protocol that is spoken over it.
    pub(super) fn connection(&self) -> quinn::Connection {
        self.connection.clone()
    }

    /// How often something came from the server so far.
    pub(super) fn heard(&self) -> u64 {
        self.socket.heard.load(Relaxed)
    }

    /// What the end of it means for requests that were under way. A server that wants a certificate says so after its own
    /// handshake: that is told here.
    pub(super) fn lost(&self, lane: &Lane) -> ErrorClass {
        match self.connection.close_reason() {
            _ if self.socket.refused.load(Relaxed) => ErrorClass::Reset,
            Some(error) => {
                lane.explain(class(&error), why(&error));
                class(&error)
            }
            None => ErrorClass::Reset,
        }
    }

    /// Tells the server that this is the end. The socket is closed at once: no late datagram finds anybody who would answer it
    /// (RFC 9000, section 10.2).
    pub(super) async fn close(self) {
        self.connection.close(VarInt::from_u32(NO_ERROR), b"");
        // The task that sends this was woken just now, and comes before this one again.
        for _ in 0..2 {
            yield_now().await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.farewells.set(self.shared.farewells.get() - 1);
        self.tasks.end();
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(SERVER_STREAMS))
        .send_window(UNACKNOWLEDGED)
        .datagram_receive_buffer_size(None);
    transport
}

async fn shake_hands(
    config: &ClientConfig,
    address: SocketAddr,
    name: &str,
    socket: &Arc<Socket>,
    tasks: &Arc<Tasks>,
    reached: &Cell<bool>,
) -> Result<(Endpoint, quinn::Connection), (ErrorClass, Option<String>)> {
    let guard = Ending(tasks);
    tasks.spawn(Box::pin(Arc::clone(socket).watch()));
    let (runtime, abstracted) =
        (Arc::clone(tasks) as Arc<dyn Runtime>, Arc::clone(socket) as Arc<dyn AsyncUdpSocket>);
    let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, abstracted, runtime)
        .map_err(|_| (ErrorClass::Local, None))?;
    // What is wrong with a name was told when it was read; an address that cannot be is nobody's fault but ours.
    let connecting =
        endpoint.connect_with(config.clone(), address, name).map_err(|_| (ErrorClass::Local, None))?;
    let mut connecting = pin!(connecting);
    let shaken = poll_fn(|cx| {
        let poll = connecting.as_mut().poll(cx);
        reached.set(reached.get() || socket.heard.load(Relaxed) > 0);
        poll
    });
    match shaken.await {
        Ok(connection) => {
            std::mem::forget(guard);
            Ok((endpoint, connection))
        }
        Err(_) if socket.refused.load(Relaxed) => Err((ErrorClass::Refused, None)),
        Err(ConnectionError::TimedOut) => Err((ErrorClass::ConnectTimeout, None)),
        Err(error) => Err((class(&error), why(&error))),
    }
}

/// Why a handshake failed, in words; none if it is not TLS that did.
fn why(error: &ConnectionError) -> Option<String> {
    let said = match error {
        _ if class(error) != ErrorClass::Tls => return None,
        ConnectionError::TransportError(error) => cause::of_text(&error.reason),
        ConnectionError::ConnectionClosed(close) => format!("the server refused: {}", close.error_code),
        _ => return None,
    };
    Some(cause::bounded(&said))
}

/// The class of whatever ended a connection.
fn class(error: &ConnectionError) -> ErrorClass {
    let of_code = |code: TransportErrorCode, other: ErrorClass| match u64::from(code) {
        // Alerts of TLS (RFC 9001, section 4.8).
        0x100..=0x1ff => ErrorClass::Tls,
        _ if code == TransportErrorCode::CONNECTION_REFUSED => ErrorClass::Refused,
        _ => other,
    };
    match error {
        ConnectionError::TransportError(error) => of_code(error.code, ErrorClass::Protocol),
        ConnectionError::ConnectionClosed(close) => of_code(close.error_code, ErrorClass::Reset),
        // The server broke the rules of HTTP/3, and was told so by us.
        ConnectionError::VersionMismatch | ConnectionError::LocallyClosed => ErrorClass::Protocol,
        _ => ErrorClass::Reset,
    }
}

/// The tasks of one connection, in the runtime of its worker.
#[derive(Debug, Default)]
struct Tasks(Mutex<Vec<AbortHandle>>);

impl Tasks {
    fn end(&self) {
        let handles = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        handles.iter().for_each(AbortHandle::abort);
    }
}

/// Ends them unless it is forgotten.
struct Ending<'a>(&'a Tasks);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Runtime for Tasks {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let handle = tokio::spawn(future).abort_handle();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }
}

/// A socket that hears only its server.
#[derive(Debug)]
struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    /// How often something came from the server.
    heard: AtomicU64,
    /// Nobody listens there.
    refused: AtomicBool,
    receiver: AtomicWaker,
}

impl Socket {
    fn connected(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Self> {
        let any: IpAddr =
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind((source.unwrap_or(any), 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(address)?;
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            io: UdpSocket::from_std(socket)?,
            heard: AtomicU64::new(0),
            refused: AtomicBool::new(false),
            receiver: AtomicWaker::new(),
        })
    }

    /// Waits for the network's word that nobody listens: that is no datagram, and would be read with the next one only.
    async fn watch(self: Arc<Self>) {
        while self.io.ready(Interest::ERROR).await.is_ok() {
            // What comes from now on makes it ready again.
            let _ = self.io.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            let told = self.io.take_error().ok().flatten();
            if told.is_some_and(|error| self.fatal(&error)) {
                self.receiver.wake();
                return;
            }
        }
    }

    /// Whether this is the network's word that it is of no use to go on. A network that is gone for a while is not, once the
    /// server was heard.
    fn fatal(&self, error: &io::Error) -> bool {
        let fatal = match error.kind() {
            io::ErrorKind::ConnectionRefused => true,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                self.heard.load(Relaxed) == 0
            }
            _ => false,
        };
        if fatal {
            self.refused.store(true, Relaxed);
        }
        fatal
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), transmit)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // What an earlier datagram met is heard with the next call, whichever that is; what is lost is sent again.
            Err(error) => {
                if self.fatal(&error) {
                    self.receiver.wake();
                }
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.receiver.register(cx.waker());
        loop {
            if self.refused.load(Relaxed) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
            }
            ready!(self.io.poll_recv_ready(cx))?;
            let receive = || self.state.recv((&self.io).into(), buffers, meta);
            match self.io.try_io(Interest::READABLE, receive) {
                Ok(count) => {
                    self.heard.fetch_add(1, Relaxed);
                    return Poll::Ready(Ok(count));
                }
                Err(error) => {
                    self.fatal(&error);
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Tells when a socket takes datagrams again.
#[derive(Debug)]
struct Poller(Arc<Socket>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.io.poll_send_ready(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_classes() {
        let closed = |error_code: TransportErrorCode| {
            ConnectionError::ConnectionClosed(quinn::ConnectionClose {
                error_code,
                frame_type: None,
                reason: Vec::new().into(),
            })
        };
        assert_eq!(
            class(&closed(TransportErrorCode::crypto(116))),
            ErrorClass::Tls,
            "a certificate is required"
        );
        assert!(why(&closed(TransportErrorCode::crypto(116))).is_some_and(|why| why.contains("refused")));
        assert_eq!(class(&closed(TransportErrorCode::CONNECTION_REFUSED)), ErrorClass::Refused);
        assert_eq!(why(&closed(TransportErrorCode::CONNECTION_REFUSED)), None);
        assert_eq!(class(&closed(TransportErrorCode::INTERNAL_ERROR)), ErrorClass::Reset);
        assert_eq!(class(&ConnectionError::VersionMismatch), ErrorClass::Protocol);
        assert_eq!(class(&ConnectionError::TimedOut), ErrorClass::Reset);
    }
}
