//! What travels between the lab's processes, and the server that each of them is.
//!
//! Invariants: every answer names the instances that served it (`x-squall-path`) and, if it is an error of the lab's own,
//! the one that failed (`x-squall-failed`); at most [`IN_FLIGHT_MAX`] requests and [`PEERS_MAX`] connections at a time;
//! whoever calls says how long it will wait, and the callee gives up a little earlier, so that blame falls on the right hop.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use injectors::Pending;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The most requests in hand; beyond it the answer is 503 at once.
const IN_FLIGHT_MAX: usize = 2048;
/// The most connections; beyond it new ones wait in the listen queue.
const PEERS_MAX: usize = 4096;
/// How long a connection may stay without a request.
const IDLE: Duration = Duration::from_mins(1);
/// How long the outermost caller waits, and the longest that a request may live.
pub(super) const CLIENT_DEADLINE: Duration = Duration::from_secs(2);
/// How much earlier than its caller a process gives up: a tenth of the wait, for a busy host delays answers as well.
const MARGIN: f64 = 0.1;

/// How long the caller will wait, in milliseconds.
pub(super) const DEADLINE: HeaderName = HeaderName::from_static("x-squall-deadline-ms");
const PATH: HeaderName = HeaderName::from_static("x-squall-path");
const POP: HeaderName = HeaderName::from_static("x-squall-pop");
const CACHE: HeaderName = HeaderName::from_static("x-squall-cache");
const STALE: HeaderName = HeaderName::from_static("x-squall-stale");
const FAILED: HeaderName = HeaderName::from_static("x-squall-failed");

/// One request, as far as the lab looks at it.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// Path and query as received.
    pub(super) target: String,
    /// When the answer must be on its way.
    pub(super) until: Instant,
}

impl Ask {
    fn read(request: &Request<Incoming>) -> Self {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let wait = request.headers().get(DEADLINE).and_then(|value| value.to_str().ok()?.parse().ok());
        let wait = wait.map_or(CLIENT_DEADLINE, |ms| {
            let wait = Duration::from_millis(ms).min(CLIENT_DEADLINE);
            wait.mul_f64(1.0 - MARGIN)
        });
        Self { target, until: Instant::now() + wait }
    }

    /// The path without the query.
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// One answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its body, text or JSON.
    pub(super) body: Bytes,
    /// The instances that served it, in order, separated by commas.
    pub(super) path: String,
    /// The PoP through which it came.
    pub(super) pop: Option<String>,
    /// `hit`, `miss` or `stale`.
    pub(super) cache: Option<String>,
    /// The optional dependency whose last known value stands in for a fresh one.
    pub(super) stale: Option<String>,
    /// The instance that refused or failed.
    pub(super) failed: Option<String>,
}

impl Reply {
    /// 200 with a body.
    pub(super) fn ok(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            body: body.into(),
            path: String::new(),
            pop: None,
            cache: None,
            stale: None,
            failed: None,
        }
    }

    /// An error with the instance to blame and a sentence.
    pub(super) fn error(status: StatusCode, failed: &str, why: &str) -> Self {
        let body = format!("{}: {failed} {why}\n", status.as_u16());
        Self { status, failed: Some(failed.to_owned()), ..Self::ok(body) }
    }

    /// 404.
    pub(super) fn unknown() -> Self {
        let body = "no such path; there are /checkout, /browse, /asset/NAME, /login and /healthz\n";
        Self { status: StatusCode::NOT_FOUND, ..Self::ok(body) }
    }

    /// Puts an instance at the head of the path.
    #[must_use]
    pub(super) fn through(mut self, instance: &str) -> Self {
        self.path =
            if self.path.is_empty() { instance.to_owned() } else { format!("{instance},{}", self.path) };
        self
    }

    /// Reads what another process of the lab answered.
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            status,
            body,
            path: text(PATH).unwrap_or_default(),
            pop: text(POP),
            cache: text(CACHE),
            stale: text(STALE),
            failed: text(FAILED),
        }
    }

    fn write(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let path = Some(self.path).filter(|path| !path.is_empty());
        let marks =
            [(PATH, path), (POP, self.pop), (CACHE, self.cache), (STALE, self.stale), (FAILED, self.failed)];
        for (name, value) in marks {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// What a process of the lab does with a request.
pub(super) trait App: Send + Sync + 'static {
    /// The instance's name.
    fn name(&self) -> &str;
    /// Answers one request; `/healthz` never comes here.
    fn answer(self: Arc<Self>, ask: Ask) -> Pending<'static, Reply>;
}

/// Serves until dropped.
pub(super) async fn serve(listener: TcpListener, app: Arc<impl App>) {
    let seats = Arc::new(Semaphore::new(PEERS_MAX));
    let in_flight = Arc::new(AtomicUsize::new(0));
    let mut peers = JoinSet::new();
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        while peers.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (app, in_flight) = (Arc::clone(&app), Arc::clone(&in_flight));
                peers.spawn(async move {
                    converse(stream, app, in_flight).await;
                    drop(seat);
                });
            }
            // Out of file descriptors, most likely: connections that end free some.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn converse(stream: TcpStream, app: Arc<impl App>, in_flight: Arc<AtomicUsize>) {
    // Small answers must not wait for acknowledgements; a socket that refuses is served all the same.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let (app, in_flight) = (Arc::clone(&app), Arc::clone(&in_flight));
        async move { Ok::<_, Infallible>(answer(app, in_flight, &request).await.write()) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE);
    // A peer that breaks off is its own loss.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(app: Arc<impl App>, in_flight: Arc<AtomicUsize>, request: &Request<Incoming>) -> Reply {
    let ask = Ask::read(request);
    if ask.path() == "/healthz" {
        return Reply::ok("ok\n").through(app.name());
    }
    let seat = Seat::take(in_flight);
    if seat.number > IN_FLIGHT_MAX {
        return Reply::error(StatusCode::SERVICE_UNAVAILABLE, app.name(), "has too many requests in hand");
    }
    app.answer(ask).await
}

/// One request in hand, until dropped: also when its caller breaks off.
struct Seat {
    in_flight: Arc<AtomicUsize>,
    number: usize,
}

impl Seat {
    fn take(in_flight: Arc<AtomicUsize>) -> Self {
        let number = in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        Self { in_flight, number }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_survives_the_wire() {
        let sent = Reply {
            pop: Some("fra".to_owned()),
            cache: Some("miss".to_owned()),
            stale: Some("kv".to_owned()),
            ..Reply::error(StatusCode::BAD_GATEWAY, "auth-1", "broke the connection")
        }
        .through("origin-1")
        .through("edge-fra");
        let response = sent.clone().write();
        let read = Reply::read(response.status(), response.headers(), sent.body.clone());
        assert_eq!(format!("{read:?}"), format!("{sent:?}"));
        assert_eq!(read.path, "edge-fra,origin-1");
    }
}
