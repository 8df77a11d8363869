//! One connection: opening it, one request after another on it, and waiting for the next.
//!
//! Per request: one write, one read, no allocation, no timer. The deadline is the sweep's business (`Lane::sweep`).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ErrorClass;
use super::http::{Parser, Progress, Rules};
use super::lane::{Job, Lane, Shared, Slot, overdue_class};
use super::spec::Request;
use super::tally::Ending;

/// What lies between HTTP and TCP.
pub(super) trait Transport {
    /// What HTTP is spoken over.
    type Stream: AsyncRead + AsyncWrite + Unpin;

    /// Turns a connection into such a stream.
    fn secure(&self, tcp: TcpStream) -> impl Future<Output = io::Result<Self::Stream>>;
}

/// Nothing.
pub(super) struct Plain;

impl Transport for Plain {
    type Stream = TcpStream;

    async fn secure(&self, tcp: TcpStream) -> io::Result<TcpStream> {
        Ok(tcp)
    }
}

/// TLS.
pub(super) struct Secure(pub(super) TlsConnector, pub(super) ServerName<'static>);

impl Transport for Secure {
    type Stream = TlsStream<TcpStream>;

    async fn secure(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.connect(self.1.clone(), tcp).await
    }
}

/// An open socket, counted.
struct Counted(Rc<Shared>);

impl Counted {
    fn new(shared: &Rc<Shared>) -> Self {
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

/// An open connection and how far its current exchange is.
struct Connection<S> {
    stream: S,
    parser: Parser,
    /// The request, if it was made for this exchange alone.
    made: Vec<u8>,
    /// Responses so far.
    served: u64,
    written: usize,
    flushed: bool,
    write_failed: Option<ErrorClass>,
    _counted: Counted,
}

/// What became of an exchange.
enum Exchange {
    /// A complete response; whether the connection may be used again.
    Answered { reusable: bool },
    /// None.
    Failed(ErrorClass),
    /// The server had closed the idle connection before it saw the request.
    Stale,
}

/// What comes after a connection.
enum Next {
    /// This job, on a new connection.
    Job(Job),
    /// Nothing.
    Rest,
}

/// The task of a slot. Ends only with the worker's runtime.
pub(super) async fn drive<T: Transport>(lane: Rc<Lane>, index: u32, transport: T) {
    let slot = &lane.slots[index as usize];
    poll_fn(|cx| {
        *slot.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Ready(())
    })
    .await;
    loop {
        let mut job = poll_fn(|_| slot.job.take().map_or(Poll::Pending, Poll::Ready)).await;
        loop {
            let next = match connect(&lane, slot, &job, &transport).await {
                Ok(connection) => serve(&lane, index, job, connection).await,
                Err(class) => {
                    lane.end(job, &Ending::failed(class));
                    lane.next().map_or(Next::Rest, Next::Job)
                }
            };
            match next {
                Next::Job(next) => job = next,
                Next::Rest => break,
            }
        }
        lane.park(index);
    }
}

async fn connect<T: Transport>(
    lane: &Lane,
    slot: &Slot,
    job: &Job,
    transport: &T,
) -> Result<Connection<T::Stream>, ErrorClass> {
    let deadline = job.due + lane.load.deadline;
    let limit = deadline.min(lane.shared.clock.now() + lane.load.connect_within);
    slot.expired.set(false);
    slot.limit.set(limit);
    let counted = Counted::new(&lane.shared);
    let reached = Cell::new(false);
    let mut attempt = pin!(open(lane, transport, &reached));
    let opened = poll_fn(|cx| match attempt.as_mut().poll(cx) {
        Poll::Pending if slot.expired.take() => Poll::Ready(Err(match overdue_class(deadline, limit) {
            ErrorClass::ConnectTimeout if reached.get() => ErrorClass::Tls,
            class => class,
        })),
        poll => poll,
    })
    .await;
    slot.limit.set(u64::MAX);
    Ok(Connection {
        stream: opened?,
        parser: Parser::default(),
        made: Vec::new(),
        served: 0,
        written: 0,
        flushed: false,
        write_failed: None,
        _counted: counted,
    })
}

/// Tries the addresses in turn, beginning with the next one of the rotation; tells when one is reached.
async fn open<T: Transport>(
    lane: &Lane,
    transport: &T,
    reached: &Cell<bool>,
) -> Result<T::Stream, ErrorClass> {
    let addresses = &lane.load.origins[lane.origin].addresses;
    let first = lane.rotation.replace(lane.rotation.get().wrapping_add(1));
    let mut failure = ErrorClass::Local;
    for i in 0..addresses.len() {
        match TcpStream::connect(addresses[first.wrapping_add(i) % addresses.len()]).await {
            Ok(tcp) => {
                reached.set(true);
                // Only a matter of speed.
                let _ = tcp.set_nodelay(true);
                return transport.secure(tcp).await.map_err(|e| ErrorClass::of_handshake(&e));
            }
            Err(error) => failure = ErrorClass::of_connect(&error),
        }
    }
    Err(failure)
}

/// Sends this job and then whatever comes, as long as the connection lasts.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    lane: &Lane,
    index: u32,
    mut job: Job,
    mut connection: Connection<S>,
) -> Next {
    let slot = &lane.slots[index as usize];
    loop {
        let request = &lane.load.checked.requests[usize::from(job.kind)];
        connection.begin();
        lane.load.make(&job, &mut connection.made);
        slot.expired.set(false);
        slot.limit.set(job.due + lane.load.deadline);
        let taken_on = lane.shared.clock.now();
        let exchange = poll_fn(|cx| connection.poll_exchange(cx, lane, slot, request)).await;
        slot.limit.set(u64::MAX);
        let reusable = match exchange {
            Exchange::Stale => {
                lane.shared.recorder.borrow_mut().reconnected();
                return Next::Job(job);
            }
            Exchange::Answered { reusable } => reusable && lane.load.reuse,
            Exchange::Failed(_) => false,
        };
        let ended = ending(&exchange, &connection.parser, request);
        lane.end(job, &Ending { taken_on: Some(taken_on), ..ended });
        connection.served += 1;
        match lane.next() {
            Some(next) if !reusable => return Next::Job(next),
            Some(next) => job = next,
            None if !reusable => return Next::Rest,
            None => {
                lane.rest(index);
                let Some(next) = poll_fn(|cx| connection.poll_idle(cx, lane, slot)).await else {
                    lane.unrest(index);
                    return Next::Rest;
                };
                job = next;
            }
        }
    }
}

fn ending<'a>(exchange: &Exchange, parser: &'a Parser, request: &Request) -> Ending<'a> {
    let status = parser.status();
    let failure = match exchange {
        Exchange::Failed(class) => Some(*class),
        _ if !status.is_some_and(|code| request.statuses.iter().any(|good| good.contains(&code))) => {
            Some(ErrorClass::Status)
        }
        _ if !parser.found(request.needle.as_ref()) => Some(ErrorClass::Expectation),
        _ if !parser.meets(request.checks.as_ref()) => Some(ErrorClass::Expectation),
        _ => None,
    };
    Ending { failure, status, pop: parser.pop(), path: parser.path(), sent: true, taken_on: None }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn begin(&mut self) {
        self.parser.reset();
        self.written = 0;
        self.flushed = false;
        self.write_failed = None;
    }

    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        lane: &Lane,
        slot: &Slot,
        request: &Request,
    ) -> Poll<Exchange> {
        if slot.expired.take() {
            return Poll::Ready(Exchange::Failed(ErrorClass::Deadline));
        }
        if !self.flushed {
            let made = std::mem::take(&mut self.made);
            self.poll_send(cx, if request.recipe.slotted() { &made } else { &request.bytes });
            self.made = made;
        }
        let rules = Rules {
            head_request: request.bodiless,
            pop_header: &lane.load.checked.pop_header,
            needle: request.needle.as_ref(),
            checks: request.checks.as_ref(),
        };
        let mut scratch = lane.shared.scratch.borrow_mut();
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            let arrived = buffer.filled();
            match read {
                Err(error) => return Poll::Ready(self.broken(request, ErrorClass::of_stream(&error))),
                Ok(()) if arrived.is_empty() && self.parser.end() => {
                    return Poll::Ready(Exchange::Answered { reusable: false });
                }
                Ok(()) if arrived.is_empty() => {
                    let class = self.write_failed.unwrap_or(ErrorClass::Reset);
                    return Poll::Ready(self.broken(request, class));
                }
                Ok(()) => {}
            }
            match self.parser.feed(&rules, arrived) {
                Err(_) => return Poll::Ready(Exchange::Failed(ErrorClass::Protocol)),
                Ok(Progress::More) => {}
                Ok(Progress::Complete(used)) => {
                    // Bytes that nobody asked for, or a request that was answered before it was read: no second use.
                    let whole = used == arrived.len() && self.flushed && self.write_failed.is_none();
                    return Poll::Ready(Exchange::Answered { reusable: whole && self.parser.keep_alive() });
                }
            }
        }
    }

    /// Writes as much of the request as fits. A failure does not end the exchange yet: the answer may be there.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        while self.written < bytes.len() && self.write_failed.is_none() {
            match Pin::new(&mut self.stream).poll_write(cx, &bytes[self.written..]) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => self.write_failed = Some(ErrorClass::Reset),
                Poll::Ready(Ok(n)) => self.written += n,
                Poll::Ready(Err(error)) => self.write_failed = Some(ErrorClass::of_stream(&error)),
            }
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.flushed = true,
            Poll::Ready(Err(error)) => {
                self.flushed = true;
                self.write_failed = Some(ErrorClass::of_stream(&error));
            }
        }
    }

    /// The connection ended within an exchange. On a used connection, before any byte of the answer, that is the race
    /// with the server's idle timeout: the request goes out again if the server cannot have acted on it, or if acting
    /// twice does no harm (RFC 9110, section 9.2.2).
    fn broken(&self, request: &Request, class: ErrorClass) -> Exchange {
        let harmless = request.idempotent || self.written == 0;
        if self.served > 0 && !self.parser.started() && harmless && class == ErrorClass::Reset {
            Exchange::Stale
        } else {
            Exchange::Failed(class)
        }
    }

    /// Waits for the next job; none if the server closed the connection, or spoke without being asked.
    fn poll_idle(&mut self, cx: &mut Context<'_>, lane: &Lane, slot: &Slot) -> Poll<Option<Job>> {
        if let Some(job) = slot.job.take() {
            return Poll::Ready(Some(job));
        }
        let mut scratch = lane.shared.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        // Data, end or error: either way of no further use. TLS tickets are read along the way and leave it pending.
        Pin::new(&mut self.stream).poll_read(cx, &mut buffer).map(|_| None)
    }
}
