//! One connection that carries one request at a time: opening it, one request after another on it, and waiting for the next.
//!
//! Per request: one write, one read, no allocation, no timer. The deadline is the sweep's business (`Lane::sweep`).

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial::{Counted, Transport, connect};
use super::http::{NotHttp, Parser, Progress, Rules};
use super::lane::{Job, Lane, Slot};
use super::recipe::Made;
use super::spec::{Checked, Request};
use super::tally::Ending;
use super::{ErrorClass, cause};

/// Reads the answers of one connection, one at a time.
pub(super) trait Reading: Default {
    /// Forgets the last answer.
    fn reset(&mut self);

    /// Whether any byte of this answer has come.
    fn started(&self) -> bool;

    /// Reads what arrived, in answer to what was sent.
    fn feed(
        &mut self,
        load: &Checked,
        request: &Request,
        sent: &[u8],
        input: &[u8],
    ) -> Result<Progress, NotHttp>;

    /// The connection ended: whether the answer is complete by that.
    fn end(&mut self) -> bool;

    /// Whether the connection may serve another request.
    fn reusable(&self) -> bool;

    /// Whether the answer is as expected, and what it says, as far as it has come.
    fn judged(&self, request: &Request) -> Ending<'_>;
}

impl Reading for Parser {
    fn reset(&mut self) {
        self.reset();
    }

    fn started(&self) -> bool {
        self.started()
    }

    fn feed(
        &mut self,
        load: &Checked,
        request: &Request,
        _: &[u8],
        input: &[u8],
    ) -> Result<Progress, NotHttp> {
        let rules = Rules {
            head_request: request.bodiless,
            pop_header: &load.pop_header,
            needle: request.needle.as_ref(),
            checks: request.checks.as_ref(),
        };
        self.feed(&rules, input)
    }

    fn end(&mut self) -> bool {
        self.end()
    }

    fn reusable(&self) -> bool {
        self.keep_alive()
    }

    fn judged(&self, request: &Request) -> Ending<'_> {
        let status = self.status();
        let good = status.is_some_and(|code| request.statuses.iter().any(|good| good.contains(&code)));
        let failure = if !good {
            Some(ErrorClass::Status)
        } else if self.found(request.needle.as_ref()) && self.meets(request.checks.as_ref()) {
            None
        } else {
            Some(ErrorClass::Expectation)
        };
        Ending {
            failure,
            status,
            pop: self.pop(),
            path: self.path(),
            sent: true,
            late: false,
            taken_on: None,
        }
    }
}

/// An open connection and how far its current exchange is.
struct Connection<S, R> {
    stream: S,
    reading: R,
    /// The request, if it was made for this exchange alone.
    made: Made,
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
pub(super) async fn drive<T: Transport, R: Reading>(lane: Rc<Lane>, index: u32, transport: T) {
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
                Ok(opened) => serve(&lane, index, job, Connection::<_, R>::new(opened)).await,
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
async fn serve<S: AsyncRead + AsyncWrite + Unpin, R: Reading>(
    lane: &Lane,
    index: u32,
    mut job: Job,
    mut connection: Connection<S, R>,
) -> Next {
    let slot = &lane.slots[index as usize];
    loop {
        let request = &lane.load.checked.requests[usize::from(job.kind)];
        connection.begin();
        lane.load.make(&job, &mut connection.made);
        slot.alarm.set(job.due + lane.load.deadline);
        let taken_on = lane.begin(&mut job);
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
        let judged = connection.reading.judged(request);
        let failure = if let Exchange::Failed(class) = exchange { Some(class) } else { judged.failure };
        lane.end(job, &Ending { failure, taken_on: Some(taken_on), ..judged });
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

impl<S: AsyncRead + AsyncWrite + Unpin, R: Reading> Connection<S, R> {
    fn new((stream, counted): (S, Counted)) -> Self {
        Self {
            stream,
            reading: R::default(),
            made: Made::default(),
            served: 0,
            written: 0,
            flushed: false,
            write_failed: None,
            _counted: counted,
        }
    }

    fn begin(&mut self) {
        self.reading.reset();
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
        let made = std::mem::take(&mut self.made);
        let sent = if request.recipe.slotted() { &made.head } else { &request.made.head };
        if !self.flushed {
            self.poll_send(cx, sent);
        }
        let exchange = self.poll_answer(cx, lane, request, sent);
        self.made = made;
        exchange
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        lane: &Lane,
        request: &Request,
        sent: &[u8],
    ) -> Poll<Exchange> {
        let mut scratch = lane.shared.scratch.borrow_mut();
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            let arrived = buffer.filled();
            match read {
                Err(error) => {
                    // A server that wants a certificate says so only now.
                    lane.explain(ErrorClass::Tls, cause::of(&error));
                    return Poll::Ready(self.broken(request, ErrorClass::of_stream(&error)));
                }
                Ok(()) if arrived.is_empty() && self.reading.end() => {
                    return Poll::Ready(Exchange::Answered { reusable: false });
                }
                Ok(()) if arrived.is_empty() => {
                    let class = self.write_failed.unwrap_or(ErrorClass::Reset);
                    return Poll::Ready(self.broken(request, class));
                }
                Ok(()) => {}
            }
            match self.reading.feed(&lane.load.checked, request, sent, arrived) {
                Err(_) => return Poll::Ready(Exchange::Failed(ErrorClass::Protocol)),
                Ok(Progress::More) => {}
                Ok(Progress::Complete(used)) => {
                    // Bytes that nobody asked for, or a request that was answered before it was read: no second use.
                    let whole = used == arrived.len() && self.flushed && self.write_failed.is_none();
                    return Poll::Ready(Exchange::Answered { reusable: whole && self.reading.reusable() });
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
        if self.served > 0 && !self.reading.started() && harmless && class == ErrorClass::Reset {
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
