//! QUIC's streams as h3 wants them. The one door of h3-quinn, whose streams must not be told to stop while something is read
//! from them (0.0.10 panics then); these remember whether that is so.

use std::task::{Context, Poll};

use ::h3::error::Code;
use ::h3::quic::{
    BidiStream, Connection, ConnectionErrorIncoming, OpenStreams, RecvStream, SendStream,
    StreamErrorIncoming, StreamId, WriteBuf,
};
use bytes::Bytes;

use super::quic::Link;

type Poked<T> = Poll<Result<T, StreamErrorIncoming>>;
type Sending = h3_quinn::SendStream<Bytes>;

/// A connection.
pub(super) struct Streams(h3_quinn::Connection);

impl Streams {
    pub(super) fn new(link: &Link) -> Self {
        Self(h3_quinn::Connection::new(link.connection()))
    }
}

/// What opens streams of it.
#[derive(Clone)]
pub(super) struct Opens(h3_quinn::OpenStreams);

/// Both are asked in the same way.
macro_rules! opening {
    ($name:ident) => {
        impl OpenStreams<Bytes> for $name {
            type BidiStream = Both;
            type SendStream = Sending;

            fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poked<Both> {
                OpenStreams::<Bytes>::poll_open_bidi(&mut self.0, cx).map_ok(Both::new)
            }

            fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poked<Sending> {
                self.0.poll_open_send(cx)
            }

            fn close(&mut self, code: Code, reason: &[u8]) {
                OpenStreams::<Bytes>::close(&mut self.0, code, reason);
            }
        }
    };
}

opening!(Streams);
opening!(Opens);

impl Connection<Bytes> for Streams {
    type RecvStream = Reading;
    type OpenStreams = Opens;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reading, ConnectionErrorIncoming>> {
        Connection::<Bytes>::poll_accept_recv(&mut self.0, cx).map_ok(Reading::new)
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        Connection::<Bytes>::poll_accept_bidi(&mut self.0, cx).map_ok(Both::new)
    }

    fn opener(&self) -> Opens {
        Opens(Connection::<Bytes>::opener(&self.0))
    }
}

/// The answer's side of a stream.
pub(super) struct Reading {
    stream: h3_quinn::RecvStream,
    id: StreamId,
    /// Something is waited for.
    waits: bool,
}

impl Reading {
    fn new(stream: h3_quinn::RecvStream) -> Self {
        Self { id: stream.recv_id(), stream, waits: false }
    }
}

impl RecvStream for Reading {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poked<Option<Bytes>> {
        let poll = self.stream.poll_data(cx);
        self.waits = poll.is_pending();
        poll
    }

    fn stop_sending(&mut self, code: u64) {
        // Otherwise that it is dropped tells the server, though not why.
        if !self.waits {
            self.stream.stop_sending(code);
        }
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

/// A stream of a request.
pub(super) struct Both {
    sending: Sending,
    reading: Reading,
}

impl Both {
    fn new(stream: h3_quinn::BidiStream<Bytes>) -> Self {
        let (sending, reading) = stream.split();
        Self { sending, reading: Reading::new(reading) }
    }
}

impl BidiStream<Bytes> for Both {
    type SendStream = Sending;
    type RecvStream = Reading;

    fn split(self) -> (Sending, Reading) {
        (self.sending, self.reading)
    }
}

impl RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poked<Option<Bytes>> {
        self.reading.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.reading.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.reading.recv_id()
    }
}

impl SendStream<Bytes> for Both {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poked<()> {
        self.sending.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.sending.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poked<()> {
        self.sending.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.sending.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.sending.send_id()
    }
}
