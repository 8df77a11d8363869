//! One way of one connection with its sockets: reads, lets the line work, writes.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Ending;
use super::fault::{Direction, RelayFault};
use super::line::{End, Item, Line};
use super::table::Live;
use crate::sys::socket;

/// How much one read takes.
const SCRATCH: usize = 256 * 1024;
/// How often a lane moves bytes before it lets other connections run.
const TURNS: usize = 16;

thread_local! {
    /// Shared by all connections of the thread: it holds nothing between two polls.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Takes what was read, or the end of the stream, to the line.
pub(crate) type Feed<'a> = &'a mut dyn FnMut(Option<&[u8]>, &mut Line, Instant);

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    way: Direction,
    pub(crate) line: Line,
    /// Whether it may read, as far as the other way is concerned.
    pub(crate) gate: bool,
    /// Nothing more will be written.
    pub(crate) done: bool,
    /// The receiver is gone.
    pub(crate) broken: bool,
    /// The end of the whole connection.
    pub(crate) ending: Option<Ending>,
    blocked: bool,
    noted: Vec<Arc<Live>>,
}

impl Lane {
    /// A lane at its start.
    pub(crate) fn new(way: Direction, number: u64) -> Self {
        Self {
            way,
            line: Line::new(way, number),
            gate: true,
            done: false,
            broken: false,
            ending: None,
            blocked: false,
            noted: Vec::new(),
        }
    }

    /// When the line has something to do next by itself.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.blocked || self.done { None } else { self.line.due() }
    }

    /// Moves bytes until something must be waited for; whether any moved. `feed` is absent on bare bytes.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &mut TcpStream,
        faults: &[(Arc<Live>, bool)],
        mut feed: Option<Feed<'_>>,
    ) -> bool {
        let mut progress = false;
        for _ in 0..TURNS {
            if self.done || self.ending.is_some() {
                return progress;
            }
            if !self.flush(cx, sink) {
                return progress;
            }
            if let Some(end) = self.line.end() {
                self.finish(end, cx, sink);
                return true;
            }
            if !self.line.is_bare() {
                self.line.advance(Instant::now());
                if self.line.head().is_some() || self.line.end().is_some() {
                    progress = true;
                    continue;
                }
            }
            if !self.line.wants_input() {
                self.note_held(cx, source);
                return progress;
            }
            if !self.gate || !self.fill(cx, source, sink, faults, &mut feed) {
                return progress;
            }
            progress = true;
        }
        cx.waker().wake_by_ref();
        progress
    }

    /// Writes what is out; false if the sink takes no more for now, or ever.
    fn flush(&mut self, cx: &mut Context<'_>, sink: &mut TcpStream) -> bool {
        while let Some(head) = self.line.head() {
            match Pin::new(&mut *sink).poll_write(cx, head) {
                Poll::Ready(Ok(written)) => self.line.taken(written),
                Poll::Ready(Err(_)) => {
                    self.die();
                    return false;
                }
                Poll::Pending => {
                    self.blocked = true;
                    self.line.stall();
                    if self.line.end() == Some(End::Reset) {
                        // As in TCP itself, a reset overtakes what the receiver does not read.
                        self.ending = Some(Ending::Reset);
                    }
                    return false;
                }
            }
        }
        self.blocked = false;
        true
    }

    fn finish(&mut self, end: End, cx: &mut Context<'_>, sink: &mut TcpStream) {
        match end {
            End::Fin | End::FinBack => {
                // Shutdown of a TCP socket never waits; one that is broken shows that on the other way.
                let _ = Pin::new(sink).poll_shutdown(cx);
                self.done = true;
            }
            End::Reset => self.ending = Some(Ending::Reset),
            End::Close => self.ending = Some(Ending::Close),
        }
    }

    /// The receiver is gone. What it sent before still reaches the other side on the other way, whose end then
    /// ends the connection.
    fn die(&mut self) {
        self.line.abandon();
        self.done = true;
        self.broken = true;
    }

    /// Reads once; false if there is nothing for now, or never again.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &mut TcpStream,
        faults: &[(Arc<Live>, bool)],
        feed: &mut Option<Feed<'_>>,
    ) -> bool {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            match Pin::new(source).poll_read(cx, &mut buffer) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => {
                    self.line.push(Item::End(End::Reset), Instant::now());
                    return true;
                }
                Poll::Ready(Ok(())) => {}
            }
            let bytes = buffer.filled();
            count_leaks(faults, self.way, bytes.len());
            match feed {
                Some(feed) => feed((!bytes.is_empty()).then_some(bytes), &mut self.line, Instant::now()),
                None if bytes.is_empty() => self.line.push(Item::End(End::Fin), Instant::now()),
                None if self.line.is_bare() => return self.pass(cx, bytes, sink),
                None => self.line.push(Item::Data(Bytes::copy_from_slice(bytes)), Instant::now()),
            }
            true
        })
    }

    /// Writes bytes past the line; what the sink does not take goes into it.
    fn pass(&mut self, cx: &mut Context<'_>, bytes: &[u8], sink: &mut TcpStream) -> bool {
        let written = match Pin::new(sink).poll_write(cx, bytes) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) => {
                self.die();
                return false;
            }
            Poll::Pending => 0,
        };
        if written < bytes.len() {
            self.line.push(Item::Data(Bytes::copy_from_slice(&bytes[written..])), Instant::now());
        }
        true
    }

    /// Takes note, once for each blackhole, that something waits in front of it.
    fn note_held(&mut self, cx: &mut Context<'_>, source: &mut TcpStream) {
        self.noted.retain(|live| !live.ended());
        let new: Vec<_> = self
            .line
            .blackholes()
            .filter(|live| !self.noted.iter().any(|noted| Arc::ptr_eq(noted, live)))
            .map(Arc::clone)
            .collect();
        if new.is_empty() || !source.poll_read_ready(cx).is_ready() {
            return;
        }
        for live in &new {
            let mut stats = live.stats.edit();
            stats.seen.held_connections += 1;
            stats.seen.held_bytes += socket::waiting(&*source);
        }
        self.noted.extend(new);
    }
}

/// Counts what was read against each blackhole that should have prevented it: the proof that none was.
fn count_leaks(faults: &[(Arc<Live>, bool)], way: Direction, bytes: usize) {
    for (live, chosen) in faults {
        if *chosen
            && let RelayFault::Blackhole { direction, .. } = live.fault
            && direction.covers(way)
            && !live.ended()
        {
            live.stats.edit().seen.bytes += bytes as u64;
        }
    }
}
