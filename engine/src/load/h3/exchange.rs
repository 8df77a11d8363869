//! One request and its answer on a stream of its own, and the state of their connection. The door of h3, with `streams`.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use ::h3::client::{self, RequestStream, SendRequest};
use ::h3::error::{Code, ConnectionError, StreamError};
use bytes::{Buf, Bytes};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};

use super::super::ErrorClass;
use super::super::http::{HEAD_MAX, PATH_HEADER, PATH_MAX, POP_MAX, Search};
use super::super::lane::Lane;
use super::super::recipe::Made;
use super::super::spec::{Checked, Request};
use super::super::tally::Ending;
use super::quic::Link;
use super::streams::{Opens, Reading as Stream, Streams};
use crate::expect::{Checks, JSON_MAX};

/// The client's side of one HTTP/3 connection (RFC 9114).
pub(super) struct Session {
    driver: client::Connection<Streams, Bytes>,
    sender: SendRequest<Opens, Bytes>,
}

impl Session {
    /// Begins it on a QUIC connection.
    ///
    /// # Errors
    /// The class of the failure.
    pub(super) async fn begin(link: &Link, lane: &Lane) -> Result<Self, ErrorClass> {
        let mut builder = client::builder();
        builder.max_field_section_size(HEAD_MAX as u64).send_grease(false);
        let built = builder.build(Streams::new(link)).await;
        let (driver, sender) = built.map_err(|_| link.lost(lane))?;
        Ok(Self { driver, sender })
    }

    /// Ready when the connection has ended; not to be asked again then.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.driver.poll_close(cx).map(|_| ())
    }

    /// What opens streams on it.
    pub(super) fn opener(&self) -> Opener {
        Opener(self.sender.clone())
    }
}

/// Opens streams.
pub(super) struct Opener(SendRequest<Opens, Bytes>);

/// A request as this protocol wants it.
#[derive(Clone)]
pub(super) struct Ask {
    head: hyper::Request<()>,
    body: Bytes,
}

impl Ask {
    /// From its head as HTTP/1.1 writes it, and its body; none if a value in it cannot be sent.
    pub(super) fn new(made: &Made) -> Option<Self> {
        let mut lines = std::str::from_utf8(&made.head).ok()?.split("\r\n");
        let (method, rest) = lines.next()?.split_once(' ')?;
        let (target, _) = rest.rsplit_once(' ')?;
        let (mut host, mut fields) = (None, HeaderMap::new());
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ")?;
            let (name, value) = (HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.trim()).ok()?);
            // It has a place of its own; the others stay in their order.
            if name == HOST {
                host = Some(value);
            } else {
                fields.append(name, value);
            }
        }
        let host = host?;
        let uri = Uri::builder().scheme("https").authority(host.as_bytes()).path_and_query(target);
        let mut head = hyper::Request::new(());
        *head.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
        *head.uri_mut() = uri.build().ok()?;
        *head.headers_mut() = fields;
        Some(Self { head, body: Bytes::copy_from_slice(&made.body) })
    }
}

/// A complete answer.
pub(super) struct Answer {
    status: u16,
    pop: Option<HeaderValue>,
    path: Option<HeaderValue>,
    /// Whether it held what it should.
    found: bool,
}

impl Answer {
    /// What it means for its request.
    pub(super) fn ending(&self, request: &Request) -> Ending<'_> {
        let good = request.statuses.iter().any(|good| good.contains(&self.status));
        let failure = match (good, self.found) {
            (false, _) => Some(ErrorClass::Status),
            (true, false) => Some(ErrorClass::Expectation),
            (true, true) => None,
        };
        let pop = self.pop.as_ref().map(|name| {
            let fits = name.len() <= POP_MAX && name.as_bytes().iter().all(u8::is_ascii_graphic);
            if fits { name.as_bytes() } else { b"" }
        });
        let path = self.path.as_ref().map(|path| if path.len() <= PATH_MAX { path.as_bytes() } else { b"" });
        Ending { failure, status: Some(self.status), pop, path, sent: true, late: false, taken_on: None }
    }
}

/// What came of a request.
pub(super) enum Came {
    Answer(Answer),
    /// The server has not acted on it: it may be sent again.
    Unprocessed,
    /// The same, and the connection takes no further requests.
    Leaving,
    /// This, and the connection goes on.
    Failed(ErrorClass),
    /// The connection ended. Whether the server cannot have acted on it, whether any of the answer had come, and whether it was
    /// against the rules.
    Lost {
        unsent: bool,
        started: bool,
        broken: bool,
    },
}

/// What an exchange tells while it goes on.
pub(super) struct Watch<'a> {
    /// How many exchanges of the connection wait for leave to open a stream.
    pub(super) waiting: &'a Cell<u32>,
    /// Called when the request has its stream.
    pub(super) opened: &'a dyn Fn(),
}

/// Counts an exchange that waits.
struct Waits<'a>(&'a Cell<u32>);

impl<'a> Waits<'a> {
    fn new(waiting: &'a Cell<u32>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Sends a request and reads its answer, until `overdue` says that it is too late.
pub(super) async fn exchange(
    Opener(mut sender): Opener,
    Ask { head, body }: Ask,
    request: &Request,
    load: &Checked,
    watch: Watch<'_>,
    overdue: impl Fn(&mut Context<'_>) -> bool,
) -> Came {
    let opened = {
        let (mut opening, mut waits) = (pin!(sender.send_request(head)), None);
        poll_fn(|cx| {
            if overdue(cx) {
                return Poll::Ready(None);
            }
            let poll = opening.as_mut().poll(cx).map(Some);
            if poll.is_pending() {
                waits.get_or_insert_with(|| Waits::new(watch.waiting));
            }
            poll
        })
        .await
    };
    let stream = match opened {
        None => return Came::Failed(ErrorClass::Deadline),
        Some(Ok(stream)) => stream,
        Some(Err(error)) => return unsent(&error),
    };
    (watch.opened)();
    let (mut up, mut down) = stream.split();
    let (came, sent) = {
        let mut sending = pin!(async {
            if !body.is_empty() {
                up.send_data(body).await?;
            }
            up.finish().await
        });
        let (mut reading, mut sent) = (pin!(read(&mut down, request, load)), None);
        poll_fn(|cx| {
            if overdue(cx) {
                return Poll::Ready((Came::Failed(ErrorClass::Deadline), sent == Some(true)));
            }
            if sent.is_none()
                && let Poll::Ready(result) = sending.as_mut().poll(cx)
            {
                // What is wrong with it, the answer tells: a server may answer what it has not read to its end.
                sent = Some(result.is_ok());
            }
            reading.as_mut().poll(cx).map(|came| (came, sent == Some(true)))
        })
        .await
    };
    if !sent {
        up.stop_stream(Code::H3_REQUEST_CANCELLED);
    }
    came
}

async fn read(down: &mut RequestStream<Stream, Bytes>, request: &Request, load: &Checked) -> Came {
    let mut reading = Reading::default();
    match reading.read(down, request).await {
        Ok(head) => reading.judged(&head, request, load),
        Err(error) => failed(&error, reading.started),
    }
}

/// How far an answer has come.
#[derive(Default)]
struct Reading {
    started: bool,
    search: Search,
    /// The body, if it must be looked at as a whole; none once it is too large.
    content: Option<Vec<u8>>,
    received: u64,
}

impl Reading {
    async fn read(
        &mut self,
        down: &mut RequestStream<Stream, Bytes>,
        request: &Request,
    ) -> Result<hyper::Response<()>, StreamError> {
        self.content = request.checks.as_ref().is_some_and(Checks::looks_at_bodies).then(Vec::new);
        let mut head = down.recv_response().await?;
        self.started = true;
        while head.status().is_informational() {
            head = down.recv_response().await?;
        }
        while let Some(mut piece) = down.recv_data().await? {
            while piece.has_remaining() {
                let bytes = piece.chunk();
                self.feed(bytes, request);
                let length = bytes.len();
                piece.advance(length);
            }
        }
        down.recv_trailers().await?;
        Ok(head)
    }

    fn feed(&mut self, bytes: &[u8], request: &Request) {
        self.received += bytes.len() as u64;
        if let Some(needle) = &request.needle {
            self.search.feed(needle, bytes);
        }
        if let Some(kept) = &mut self.content {
            kept.extend_from_slice(bytes);
            if kept.len() > JSON_MAX {
                self.content = None;
            }
        }
    }

    fn judged(&self, head: &hyper::Response<()>, request: &Request, load: &Checked) -> Came {
        let (status, fields) = (head.status().as_u16(), head.headers());
        let mut lengths =
            fields.get_all(CONTENT_LENGTH).iter().map(|value| value.to_str().ok()?.parse().ok());
        let bodiless = request.bodiless || matches!(status, 204 | 304);
        if !lengths.all(|length: Option<u64>| length.is_some_and(|n| bodiless || n == self.received)) {
            return Came::Failed(ErrorClass::Protocol);
        }
        let found = request.needle.as_ref().is_none_or(|needle| self.search.found(needle))
            && request.checks.as_ref().is_none_or(|checks| {
                let met = fields
                    .iter()
                    .map(|(name, value)| checks.met_by(name.as_str().as_bytes(), value.as_bytes()));
                checks.all_met(met.fold(0, |all, met| all | met))
                    && checks.body_holds(self.content.as_deref())
            });
        let named =
            |name: &[u8]| HeaderName::from_bytes(name).ok().and_then(|name| fields.get(name).cloned());
        Came::Answer(Answer {
            status,
            pop: named(&load.pop_header),
            path: named(PATH_HEADER.as_bytes()),
            found,
        })
    }
}

/// Why a request got no stream.
fn unsent(error: &StreamError) -> Came {
    match error {
        StreamError::RemoteClosing { .. } => Came::Leaving,
        // The server told what it takes at most.
        StreamError::HeaderTooBig { .. } => Came::Failed(ErrorClass::Data),
        StreamError::RemoteTerminate { .. } => failed(error, false),
        _ => Came::Lost { unsent: true, started: false, broken: false },
    }
}

/// Why there is no whole answer.
fn failed(error: &StreamError, started: bool) -> Came {
    match error {
        StreamError::RemoteTerminate { code, .. } if *code == Code::H3_REQUEST_REJECTED && !started => {
            Came::Unprocessed
        }
        StreamError::RemoteTerminate { .. } | StreamError::Undefined { .. } => {
            Came::Failed(ErrorClass::Reset)
        }
        // What this side found out closes the connection only a little later.
        StreamError::ConnectionError { 0: ConnectionError::Local { .. }, .. } => {
            Came::Lost { unsent: false, started, broken: true }
        }
        StreamError::ConnectionError { .. } => Came::Lost { unsent: false, started, broken: false },
        _ => Came::Failed(ErrorClass::Protocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_becomes_a_request() {
        let made = |head: &str| {
            let mut made = Made::default();
            made.head.extend_from_slice(head.as_bytes());
            made.body.extend_from_slice(b"abc");
            made
        };
        let ask = Ask::new(&made(
            "POST /a?b=c HTTP/1.1\r\nhost: [::1]:8443\r\naccept: x\r\naccept: y: z\r\ncontent-length: 3\r\n",
        ))
        .expect("a good one");
        assert_eq!(
            (ask.head.method(), ask.head.uri().to_string()),
            (&Method::POST, "https://[::1]:8443/a?b=c".into())
        );
        let fields: Vec<_> =
            ask.head.headers().iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
        assert_eq!(fields, ["accept=x", "accept=y: z", "content-length=3"]);
        assert_eq!(ask.body, b"abc"[..]);
        for wrong in ["GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: a b\r\n", "GET\r\nhost: a\r\n", ""] {
            assert!(Ask::new(&made(wrong)).is_none(), "{wrong}");
        }
    }
}
