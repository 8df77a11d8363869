//! The client's side of one HTTP/2 connection (RFC 9113): bytes in, bytes and events out. No socket, no clock.
//!
//! Invariants: a slot has at most one stream; what is kept is bounded by the slots, one header block and
//! [`UNREAD_MAX`] bytes that the server does not read.

use std::rc::Rc;

use super::super::http::{HEAD_MAX, Search};
use super::super::recipe::Made;
use super::super::spec::Request;
use super::frame::{self, Frame, Frames, Malformed};
use super::head::{Head, Heads};
use crate::expect::{Checks, JSON_MAX};

/// The window of this side: the protocol's largest, so that no answer waits for leave.
const WINDOW: u32 = 0x7fff_ffff;
/// After so many bytes the window is opened again.
const REOPEN: u32 = 1 << 30;
/// The most bytes that wait to be sent: a server that asks without end and does not read gets no more.
const UNREAD_MAX: usize = 1 << 20;
/// How far ahead of the socket bodies are written.
const AHEAD: usize = 128 * 1024;

const REFUSED_STREAM: u32 = 7;
const PROTOCOL_ERROR: u32 = 1;
const CANCEL: u32 = 8;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// What happened to a request or to the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A complete answer: its head, its trailers, whether it held what it should.
    Answered { slot: usize, head: Rc<Head>, trailers: Option<Rc<Head>>, found: bool },
    /// The server has not acted on it: it may be sent again.
    Unprocessed { slot: usize },
    /// The server gave it up.
    Reset { slot: usize },
    /// The answer breaks the rules; the connection goes on.
    Broken { slot: usize },
    /// The server takes so many requests at a time.
    Allowed(u32),
    /// The server takes no further requests on this connection.
    Leaving,
}

/// One request on its way.
#[derive(Debug)]
struct Stream {
    kind: u16,
    /// The request's body, if it was made for it alone.
    made: Option<Vec<u8>>,
    head: Option<Rc<Head>>,
    /// The answer's body, if it must be looked at as a whole; none once it is too large.
    content: Option<Vec<u8>>,
    search: Search,
    /// Bytes of the answer's body.
    received: u64,
    /// Of them, those for which the window was not opened again.
    consumed: u32,
    /// What the server still takes.
    window: i64,
    /// Bytes of the request's body that are written.
    sent: usize,
    closed: bool,
}

/// See the module.
pub(super) struct Session {
    frames: Frames,
    core: Core,
}

struct Core {
    heads: Heads,
    /// By slot: its stream's number, 0 for none; apart from the streams, since it is searched.
    ids: Vec<u32>,
    streams: Vec<Option<Stream>>,
    /// Slots whose body is not written to its end.
    unwritten: Vec<usize>,
    next: u32,
    leaving: bool,
    /// A header block that has not ended: its stream, whether it ends the stream, its bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    out: Vec<u8>,
    events: Vec<Event>,
    window: i64,
    consumed: u32,
    stream_window: i64,
    payload_max: usize,
}

/// What a session knows about the load.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) requests: &'a [Request],
    /// In lower case.
    pub(super) pop_header: &'a [u8],
    /// Whether the fields of answers are looked at.
    pub(super) fields: bool,
}

impl Session {
    /// A connection with so many slots, which has only just been opened.
    pub(super) fn new(slots: usize) -> Self {
        let mut out = frame::PREFACE.to_vec();
        let mut settings = Vec::new();
        for (name, value) in
            [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, WINDOW), (MAX_HEADER_LIST_SIZE, HEAD_MAX as u32)]
        {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&u32::to_be_bytes(value));
        }
        frame::write(&mut out, frame::SETTINGS, 0, 0, &settings);
        frame::write(&mut out, frame::WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
        let core = Core {
            heads: Heads::new(),
            ids: vec![0; slots],
            streams: (0..slots).map(|_| None).collect(),
            unwritten: Vec::new(),
            next: 1,
            leaving: false,
            block: None,
            out,
            events: Vec::new(),
            window: 65_535,
            consumed: 0,
            stream_window: 65_535,
            payload_max: frame::PAYLOAD_MAX,
        };
        Self { frames: Frames::default(), core }
    }

    /// Sends a request of this kind in an empty slot; `made` if it is not the same each time.
    pub(super) fn send(&mut self, slot: usize, kind: u16, made: Option<&Made>, rules: Rules<'_>) {
        let core = &mut self.core;
        let request = &rules.requests[usize::from(kind)];
        let Made { head, body, .. } = made.unwrap_or(&request.made);
        let id = core.next;
        core.next += 2;
        core.ids[slot] = id;
        core.streams[slot] = Some(Stream {
            kind,
            // What goes out at once need not be kept; but windows may be shut.
            made: made.filter(|made| !made.body.is_empty()).map(|made| made.body.clone()),
            head: None,
            content: request.checks.as_ref().is_some_and(Checks::looks_at_bodies).then(Vec::new),
            search: Search::default(),
            received: 0,
            consumed: 0,
            window: core.stream_window,
            sent: 0,
            closed: body.is_empty(),
        });
        frame::write_block(&mut core.out, id, head, body.is_empty(), core.payload_max);
        if !body.is_empty() {
            core.unwritten.push(slot);
        }
        if core.next > WINDOW - 2 {
            core.leave();
        }
    }

    /// Gives a request up.
    pub(super) fn cancel(&mut self, slot: usize) {
        self.core.close(slot, CANCEL);
    }

    /// Whether any byte of the answer in this slot has come.
    pub(super) fn started(&self, slot: usize) -> bool {
        self.core.streams[slot].as_ref().is_some_and(|stream| stream.head.is_some())
    }

    /// What is to be written; the caller takes from its front what it wrote.
    pub(super) fn out(&mut self, rules: Rules<'_>) -> &mut Vec<u8> {
        self.core.write_bodies(rules);
        &mut self.core.out
    }

    /// What has happened since the last call.
    pub(super) fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.core.events.drain(..)
    }

    /// Reads what arrived.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub(super) fn feed(&mut self, mut input: &[u8], rules: Rules<'_>) -> Result<(), Malformed> {
        while let Some(frame) = self.frames.next(&mut input)? {
            self.core.take(&frame, rules)?;
        }
        if self.core.out.len() > UNREAD_MAX + AHEAD { Err(Malformed) } else { Ok(()) }
    }
}

impl Core {
    fn slot(&self, id: u32) -> Option<usize> {
        self.ids.iter().position(|other| *other == id).filter(|_| id != 0)
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.events.push(Event::Leaving);
        }
    }

    /// Forgets a stream, and tells the server if it would go on with it.
    fn close(&mut self, slot: usize, code: u32) {
        let id = std::mem::take(&mut self.ids[slot]);
        if self.streams[slot].take().is_some() {
            self.unwritten.retain(|other| *other != slot);
            frame::write(&mut self.out, frame::RST_STREAM, 0, id, &code.to_be_bytes());
        }
    }

    fn forget(&mut self, slot: usize) {
        self.ids[slot] = 0;
        self.streams[slot] = None;
        self.unwritten.retain(|other| *other != slot);
    }

    fn take(&mut self, frame: &Frame<'_>, rules: Rules<'_>) -> Result<(), Malformed> {
        if self.block.is_some() != (frame.kind == frame::CONTINUATION) {
            return Err(Malformed);
        }
        match frame.kind {
            frame::DATA => self.data(frame, rules),
            frame::HEADERS => {
                let (id, last) = (frame.stream, frame.has(frame::END_STREAM));
                if id == 0 {
                    return Err(Malformed);
                }
                if frame.has(frame::END_HEADERS) {
                    return self.head(id, last, frame.content()?, rules);
                }
                self.block = Some((id, last, frame.content()?.to_vec()));
                Ok(())
            }
            frame::CONTINUATION => {
                let Some((id, last, mut block)) = self.block.take() else { return Err(Malformed) };
                block.extend_from_slice(frame.payload);
                if id != frame.stream || block.len() > HEAD_MAX {
                    return Err(Malformed);
                }
                if frame.has(frame::END_HEADERS) {
                    return self.head(id, last, &block, rules);
                }
                self.block = Some((id, last, block));
                Ok(())
            }
            frame::RST_STREAM => self.reset(frame),
            frame::SETTINGS if frame.has(frame::ACK) => Ok(()),
            frame::SETTINGS => self.settings(frame),
            frame::PUSH_PROMISE => Err(Malformed),
            frame::PING if frame.payload.len() != 8 => Err(Malformed),
            frame::PING if frame.has(frame::ACK) => Ok(()),
            frame::PING => {
                frame::write(&mut self.out, frame::PING, frame::ACK, 0, frame.payload);
                Ok(())
            }
            frame::GOAWAY => self.goaway(frame),
            frame::WINDOW_UPDATE => self.widen(frame),
            // Unknown frames are for others (section 5.5); PRIORITY asks for nothing.
            _ => Ok(()),
        }
    }

    fn reset(&mut self, frame: &Frame<'_>) -> Result<(), Malformed> {
        let code = frame.number(0)?;
        if let Some(slot) = self.slot(frame.stream) {
            self.forget(slot);
            let unprocessed = code == REFUSED_STREAM;
            self.events.push(if unprocessed { Event::Unprocessed { slot } } else { Event::Reset { slot } });
        }
        Ok(())
    }

    fn goaway(&mut self, frame: &Frame<'_>) -> Result<(), Malformed> {
        let last = frame.number(0)? & WINDOW;
        self.leave();
        for slot in 0..self.ids.len() {
            if self.ids[slot] > last {
                self.forget(slot);
                self.events.push(Event::Unprocessed { slot });
            }
        }
        Ok(())
    }

    fn widen(&mut self, frame: &Frame<'_>) -> Result<(), Malformed> {
        let more = i64::from(frame.number(0)? & WINDOW);
        let window = if frame.stream == 0 {
            Some(&mut self.window)
        } else {
            self.slot(frame.stream).and_then(|slot| self.streams[slot].as_mut()).map(|s| &mut s.window)
        };
        let Some(window) = window else { return Ok(()) };
        *window += more;
        if *window > i64::from(WINDOW) { Err(Malformed) } else { Ok(()) }
    }

    fn settings(&mut self, frame: &Frame<'_>) -> Result<(), Malformed> {
        if !frame.payload.len().is_multiple_of(6) {
            return Err(Malformed);
        }
        for at in (0..frame.payload.len()).step_by(6) {
            let name = u16::from_be_bytes([frame.payload[at], frame.payload[at + 1]]);
            let value = frame.number(at + 2)?;
            match name {
                MAX_CONCURRENT_STREAMS => self.events.push(Event::Allowed(value)),
                INITIAL_WINDOW_SIZE if value > WINDOW => return Err(Malformed),
                INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - self.stream_window;
                    self.stream_window = i64::from(value);
                    self.streams.iter_mut().flatten().for_each(|stream| stream.window += change);
                }
                MAX_FRAME_SIZE if !(16_384..1 << 24).contains(&value) => return Err(Malformed),
                MAX_FRAME_SIZE => self.payload_max = value as usize,
                // The size of a table that this side does not use, and what does not concern a client.
                _ => {}
            }
        }
        frame::write(&mut self.out, frame::SETTINGS, frame::ACK, 0, &[]);
        Ok(())
    }

    fn data(&mut self, frame: &Frame<'_>, rules: Rules<'_>) -> Result<(), Malformed> {
        if frame.stream == 0 {
            return Err(Malformed);
        }
        let (length, content) = (frame.payload.len() as u32, frame.content()?);
        self.consumed += length;
        if self.consumed >= REOPEN {
            let more = std::mem::take(&mut self.consumed);
            frame::write(&mut self.out, frame::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
        let Some(slot) = self.slot(frame.stream) else { return Ok(()) };
        let Some(stream) = &mut self.streams[slot] else { return Ok(()) };
        stream.received += content.len() as u64;
        stream.consumed += length;
        if let Some(needle) = &rules.requests[usize::from(stream.kind)].needle {
            stream.search.feed(needle, content);
        }
        if let Some(kept) = &mut stream.content {
            kept.extend_from_slice(content);
            if kept.len() > JSON_MAX {
                stream.content = None;
            }
        }
        let unasked = stream.head.is_none();
        if stream.consumed >= REOPEN {
            let more = std::mem::take(&mut stream.consumed);
            frame::write(&mut self.out, frame::WINDOW_UPDATE, 0, frame.stream, &more.to_be_bytes());
        }
        if unasked {
            self.close(slot, PROTOCOL_ERROR);
            self.events.push(Event::Broken { slot });
        } else if frame.has(frame::END_STREAM) {
            self.end(slot, None, rules);
        }
        Ok(())
    }

    fn head(&mut self, id: u32, last: bool, block: &[u8], rules: Rules<'_>) -> Result<(), Malformed> {
        // Even what nobody waits for any more changes the table.
        let head = self.heads.read(block, rules.pop_header, rules.fields)?;
        let Some(slot) = self.slot(id) else { return Ok(()) };
        let Some(stream) = &mut self.streams[slot] else { return Ok(()) };
        let trailers = stream.head.is_some();
        let interim = head.status.is_some_and(|status| status < 200);
        let misplaced = trailers != head.status.is_none() || (trailers && !last) || (interim && last);
        if head.malformed || misplaced {
            self.close(slot, PROTOCOL_ERROR);
            self.events.push(Event::Broken { slot });
        } else if trailers {
            self.end(slot, Some(head), rules);
        } else if !interim {
            stream.head = Some(head);
            if last {
                self.end(slot, None, rules);
            }
        }
        Ok(())
    }

    /// The answer is complete.
    fn end(&mut self, slot: usize, trailers: Option<Rc<Head>>, rules: Rules<'_>) {
        let Some(Stream { kind, head: Some(head), content, search, received, closed, .. }) =
            self.streams[slot].take()
        else {
            return;
        };
        let id = std::mem::take(&mut self.ids[slot]);
        if !closed {
            // Answered before the request was read: the rest of it is not wanted.
            self.unwritten.retain(|other| *other != slot);
            frame::write(&mut self.out, frame::RST_STREAM, 0, id, &CANCEL.to_be_bytes());
        }
        let request = &rules.requests[usize::from(kind)];
        let bodiless = request.bodiless || matches!(head.status, Some(204 | 304));
        let short = !bodiless && head.length.is_some_and(|length| length != received);
        let found = request.needle.as_ref().is_none_or(|needle| search.found(needle))
            && request.checks.as_ref().is_none_or(|checks| {
                let fields = head.fields.iter().map(|(name, value)| checks.met_by(name, value));
                let holds = match (request.recipe.call(), &content) {
                    (Some(call), Some(body)) => checks.document_holds(call.decode(body).as_ref()),
                    _ => checks.body_holds(content.as_deref()),
                };
                checks.all_met(fields.fold(0, |all, met| all | met)) && holds
            });
        self.events.push(if short {
            Event::Broken { slot }
        } else {
            Event::Answered { slot, head, trailers, found }
        });
    }

    /// Writes of the bodies what the windows allow.
    fn write_bodies(&mut self, rules: Rules<'_>) {
        let Self { unwritten, streams, ids, out, window, payload_max, .. } = self;
        unwritten.retain(|slot| {
            let Some(stream) = &mut streams[*slot] else { return false };
            let body = stream.made.as_ref().unwrap_or(&rules.requests[usize::from(stream.kind)].made.body);
            while out.len() < AHEAD && !stream.closed {
                let allowed = (*window).min(stream.window).max(0);
                let rest = &body[stream.sent..];
                let piece = &rest[..rest.len().min(*payload_max).min(allowed as usize)];
                if piece.is_empty() {
                    break;
                }
                stream.closed = piece.len() == rest.len();
                let flags = if stream.closed { frame::END_STREAM } else { 0 };
                frame::write(out, frame::DATA, flags, ids[*slot], piece);
                stream.sent += piece.len();
                stream.window -= piece.len() as i64;
                *window -= piece.len() as i64;
            }
            !stream.closed
        });
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
