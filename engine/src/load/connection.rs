//! One connection: opening it, one request after another on it, and waiting for the next.
//!
//! Per request: one write, one read, no allocation, no timer. The deadline is the sweep's business (`Lane::sweep`).

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ErrorClass;
use super::dial::{Counted, Transport, connect};
use super::http::{Parser, Progress, Rules};
use super::lane::{Job, Lane, Slot};
use super::spec::Request;
use super::tally::Ending;

/// An open connection and how far its current exchange is.
struct Connection<S> {
    stream: S,
    parser: Parser,
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
        *lane.posts[index as usize].waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Ready(())
    })
    .await;
    loop {
        let mut job = poll_fn(|_| slot.job.take().map_or(Poll::Pending, Poll::Ready)).await;
        loop {
            let deadline = job.due + lane.load.deadline;
            let next = match connect(&lane, &slot.alarm, deadline, &transport).await {
                Ok(opened) => serve(&lane, index, job, Connection::new(opened)).await,
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
        slot.alarm.set(job.due + lane.load.deadline);
        let taken_on = lane.shared.clock.now();
        let exchange = poll_fn(|cx| connection.poll_exchange(cx, lane, slot, request)).await;
        slot.alarm.clear();
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
        _ => None,
    };
    Ending { failure, status, pop: parser.pop(), path: parser.path(), sent: true, taken_on: None }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new((stream, counted): (S, Counted)) -> Self {
        Self {
            stream,
            parser: Parser::default(),
            served: 0,
            written: 0,
            flushed: false,
            write_failed: None,
            _counted: counted,
        }
    }

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
        if slot.alarm.rang() {
            return Poll::Ready(Exchange::Failed(ErrorClass::Deadline));
        }
        if !self.flushed {
            self.poll_send(cx, &request.message.head);
        }
        let rules = Rules {
            head_request: request.bodiless,
            pop_header: &lane.load.checked.pop_header,
            needle: request.needle.as_ref(),
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
