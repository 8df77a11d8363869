//! Opening a connection: the addresses in turn, from the source addresses in turn, with TLS where it is asked for.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use injectors::sys::stream;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::lane::{Alarm, Lane, Shared};
use super::origin::Place;
use super::{ErrorClass, cause};

/// A stream socket of either family.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The same call on either.
macro_rules! either {
    ($self:ident, $socket:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Tcp($socket) => $call,
            Socket::Unix($socket) => $call,
        }
    };
}

/// As tokio reads and writes, but by the bare system call: waits until the socket is ready, and after less than was asked
/// for, knows without another call that it is not any more.
macro_rules! attempt {
    ($socket:ident, $cx:ident, $ready:ident, $interest:expr, $asked:expr, $call:expr) => {
        loop {
            ready!($socket.$ready($cx))?;
            let mut part = None;
            let came = $socket.try_io($interest, || match $call {
                Ok(count) if count > 0 && count < $asked => {
                    part = Some(count);
                    Err(io::ErrorKind::WouldBlock.into())
                }
                came => came,
            });
            match (part, came) {
                (Some(count), _) | (None, Ok(count)) => break Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, Err(error)) => break Poll::Ready(Err(error)),
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let into = buffer.initialize_unfilled();
        let read: Poll<io::Result<usize>> = either!(self, socket => attempt!(
            socket, cx, poll_read_ready, Interest::READABLE, into.len(), stream::receive(&*socket, into)
        ));
        read.map_ok(|count| buffer.advance(count))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, socket => attempt!(
            socket, cx, poll_write_ready, Interest::WRITABLE, bytes.len(), stream::send(&*socket, bytes)
        ))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => Pin::new(socket).poll_shutdown(cx))
    }
}

/// What lies between a protocol and its socket.
pub(super) trait Transport {
    /// What the protocol is spoken over.
    type Stream: AsyncRead + AsyncWrite + Unpin;

    /// Turns a connection into such a stream.
    fn secure(&self, socket: Socket) -> impl Future<Output = Result<Self::Stream, ErrorClass>>;

    /// Why the last connection could not become one, in words.
    fn cause(&self) -> Option<String> {
        None
    }

    /// Whether there is a handshake whose time is of interest.
    const HANDSHAKE: bool;
}

/// Nothing.
pub(super) struct Plain;

impl Transport for Plain {
    type Stream = Socket;
    const HANDSHAKE: bool = false;

    async fn secure(&self, socket: Socket) -> Result<Socket, ErrorClass> {
        Ok(socket)
    }
}

/// TLS, and the protocol that the server must agree to within it, if any.
pub(super) struct Secure {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
    pub(super) agreed: Option<&'static [u8]>,
    /// Why the last handshake failed.
    pub(super) failed: RefCell<Option<String>>,
}

impl Transport for Secure {
    type Stream = TlsStream<Socket>;
    const HANDSHAKE: bool = true;

    async fn secure(&self, socket: Socket) -> Result<TlsStream<Socket>, ErrorClass> {
        let stream = self.connector.connect(self.name.clone(), socket).await;
        let stream = stream.map_err(|error| {
            *self.failed.borrow_mut() = cause::of(&error);
            ErrorClass::of_handshake(&error)
        })?;
        match self.agreed {
            Some(wanted) if stream.get_ref().1.alpn_protocol() != Some(wanted) => Err(ErrorClass::Protocol),
            _ => Ok(stream),
        }
    }

    fn cause(&self) -> Option<String> {
        self.failed.take()
    }
}

/// An open socket, counted.
pub(super) struct Counted(Rc<Shared>);

impl Counted {
    pub(super) fn new(shared: &Rc<Shared>) -> Self {
        shared.open.set(shared.open.get() + 1);
        shared.recorder.borrow_mut().opened(shared.open.get());
        Self(Rc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// Opens a connection within the time for that, and before `deadline`.
///
/// # Errors
/// The class of the failure.
pub(super) async fn connect<T: Transport>(
    lane: &Lane,
    alarm: &Alarm,
    deadline: u64,
    transport: &T,
) -> Result<(T::Stream, Counted), ErrorClass> {
    let counted = Counted::new(&lane.shared);
    let reached = Cell::new(false);
    let stream = within(lane, alarm, deadline, &reached, open(lane, transport, &reached)).await?;
    Ok((stream, counted))
}

/// Ends an attempt to connect when the time for that or `deadline` has passed; the class tells how far it had come.
pub(super) async fn within<O>(
    lane: &Lane,
    alarm: &Alarm,
    deadline: u64,
    reached: &Cell<bool>,
    attempt: impl Future<Output = Result<O, ErrorClass>>,
) -> Result<O, ErrorClass> {
    let limit = deadline.min(lane.shared.clock.now() + lane.load.connect_within);
    alarm.set(limit);
    let mut attempt = pin!(attempt);
    let opened = poll_fn(|cx| match attempt.as_mut().poll(cx) {
        Poll::Pending if alarm.rang() => Poll::Ready(Err(if limit >= deadline {
            ErrorClass::Deadline
        } else if reached.get() {
            lane.explain(ErrorClass::Tls, Some(cause::SLOW.to_owned()));
            ErrorClass::Tls
        } else {
            ErrorClass::ConnectTimeout
        })),
        poll => poll,
    })
    .await;
    alarm.clear();
    opened
}

/// Tries the addresses in turn, beginning with the next one of the rotation; tells when one is reached.
async fn open<T: Transport>(
    lane: &Lane,
    transport: &T,
    reached: &Cell<bool>,
) -> Result<T::Stream, ErrorClass> {
    let origin = &lane.load.origins[lane.origin];
    let turn = lane.rotation.replace(lane.rotation.get().wrapping_add(1));
    let secure = async |socket: Socket| {
        reached.set(true);
        let began = lane.shared.clock.now();
        let stream = transport.secure(socket).await;
        let stream = stream.inspect_err(|class| lane.explain(*class, transport.cause()))?;
        if T::HANDSHAKE {
            let took = lane.shared.clock.now().saturating_sub(began);
            let phase = lane.shared.phase.get();
            lane.shared.recorder.borrow_mut().shook_hands(lane.load_index, phase, took);
        }
        Ok(stream)
    };
    match &origin.place {
        Place::Unix(path) => match UnixStream::connect(path).await {
            Ok(socket) => secure(Socket::Unix(socket)).await,
            // Where there is no socket, nobody listens.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ErrorClass::Refused),
            Err(error) => Err(ErrorClass::of_connect(&error)),
        },
        Place::Addresses(addresses) => {
            let mut failure = ErrorClass::Local;
            for i in 0..addresses.len() {
                let address = addresses[turn.wrapping_add(i) % addresses.len()];
                match dial(address, source(&origin.sources, address, turn)).await {
                    Ok(tcp) => {
                        // Only a matter of speed.
                        let _ = tcp.set_nodelay(true);
                        return secure(Socket::Tcp(tcp)).await;
                    }
                    Err(error) => {
                        failure = ErrorClass::of_connect(&error);
                        if failure == ErrorClass::Local {
                            lane.shared.recorder.borrow_mut().lacked(&error);
                        }
                    }
                }
            }
            Err(failure)
        }
    }
}

/// Whose turn it is among the source addresses of the target's family; none if the kernel may choose.
pub(super) fn source(sources: &[IpAddr], target: SocketAddr, turn: usize) -> Option<IpAddr> {
    let fits = || sources.iter().filter(|source| source.is_ipv4() == target.is_ipv4());
    fits().nth(turn.checked_rem(fits().count())?).copied()
}

async fn dial(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address).await };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_the_targets_family_take_turns() {
        let sources: Vec<IpAddr> =
            ["127.0.0.2", "::1", "127.0.0.3"].iter().map(|text| text.parse().expect("an address")).collect();
        let four: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        let six: SocketAddr = "[::1]:80".parse().expect("an address");
        let turns = |target| [0, 1, 2].map(|turn| source(&sources, target, turn));
        assert_eq!(turns(four), [Some(sources[0]), Some(sources[2]), Some(sources[0])]);
        assert_eq!(turns(six), [Some(sources[1]); 3]);
        assert_eq!(source(&sources[..1], six, 7), None);
    }
}
