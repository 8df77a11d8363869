//! One connection through a route: two sockets, one lane for each way, all polled by one task.
//!
//! Invariants: a close of one way is passed on alone, a reset is passed on as a reset; without faults bytes go
//! from socket to socket through a buffer that all connections of the thread share, so an idle connection
//! costs no buffer; nothing waits without a deadline but for the peers themselves.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::target::Protocol;

use super::alarm::Timer;
use super::chosen::Faults;
use super::fault::Direction;
use super::http::Http;
use super::lane::Lane;
use super::line::Line;
use super::route::{Change, Route};

/// How long the upstream may take to accept.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a closed connection is read on, so that its peer gets all that was sent before.
const DRAIN: Duration = Duration::from_secs(1);
/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Both ways are closed.
    Done,
    /// Both sockets get a reset.
    Reset,
    /// Both sockets are closed after what was sent.
    Close,
}

/// Carries one accepted connection to its end.
pub(crate) async fn carry(route: Arc<Route>, client: TcpStream, number: u64, timer: Timer) {
    let mut change = route.watch(number);
    let mut faults = Faults::new(number);
    // A socket that is already broken shows that when it is read.
    let _ = client.set_nodelay(true);
    loop {
        change.seen();
        if faults.update(&route) {
            let _ = client.set_zero_linger();
            return;
        }
        if !faults.partitioned() {
            break;
        }
        faults.held(&client);
        if abandoned(&client, &mut change).await {
            return;
        }
    }
    let dial = TcpStream::connect(route.upstream.as_str());
    let Ok(Ok(upstream)) = tokio::time::timeout(CONNECT_DEADLINE, dial).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = upstream.set_nodelay(true);
    let http = (route.protocol == Protocol::Http).then(|| Http::new(number));
    let (up, down) = (Lane::new(Direction::Up, number), Lane::new(Direction::Down, number));
    let mut carrier = Carrier { client, upstream, up, down, http, faults, route, timer, change, fresh: true };
    let ending = std::future::poll_fn(|cx| carrier.poll(cx)).await;
    let Carrier { client, upstream, .. } = carrier;
    match ending {
        Ending::Done => {}
        Ending::Reset => {
            let _ = client.set_zero_linger();
            let _ = upstream.set_zero_linger();
        }
        Ending::Close => {
            let drained = async { tokio::join!(drain(client), drain(upstream)) };
            let _ = tokio::time::timeout(DRAIN, drained).await;
        }
    }
}

/// Waits for the route's faults to change; true if the client has given up meanwhile. Nothing of such a
/// connection has passed, and without this a partition would pile up the connections of clients that retry.
async fn abandoned(client: &TcpStream, change: &mut Change) -> bool {
    let gone = async {
        let ready = client.ready(tokio::io::Interest::ERROR).await;
        ready.map_or(true, tokio::io::Ready::is_error)
    };
    tokio::select! {
        () = std::future::poll_fn(|cx| change.poll(cx)) => false,
        gone = gone => gone,
    }
}

/// Closes a socket so that the peer gets all that was written: a socket dropped with unread bytes resets.
async fn drain(mut socket: TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let _ = socket.shutdown().await;
    let mut rest = vec![0; 16 * 1024];
    while socket.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

struct Carrier {
    client: TcpStream,
    upstream: TcpStream,
    up: Lane,
    down: Lane,
    http: Option<Http>,
    faults: Faults,
    route: Arc<Route>,
    timer: Timer,
    change: Change,
    fresh: bool,
}

impl Carrier {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        // A fault that comes while the connection is dialled is met here as well.
        if self.change.poll(cx).is_ready() || self.fresh {
            self.fresh = false;
            self.change.seen();
            let _ = self.change.poll(cx);
            if self.faults.update(&self.route) {
                return Poll::Ready(Ending::Reset);
            }
            let now = Instant::now();
            self.up.line.refit(&self.faults.decided, now);
            self.down.line.refit(&self.faults.decided, now);
        }
        loop {
            let up = self.poll_up(cx);
            let down = self.poll_down(cx);
            if let Some(ending) = self.ending() {
                return Poll::Ready(ending);
            }
            // Only HTTP makes one way depend on the other.
            if self.http.is_none() || !(up || down) {
                break;
            }
        }
        let due = self.up.due().into_iter().chain(self.down.due()).min();
        self.timer.set(due, cx.waker());
        Poll::Pending
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> bool {
        let Self { client, upstream, up, down, http, faults, .. } = self;
        up.line.answers = down.line.closed();
        let Some(http) = http else { return up.poll(cx, client, upstream, &faults.decided, None) };
        if http.has_waiting_requests() {
            http.resume(&faults.http, &mut up.line, &mut down.line, Instant::now());
        }
        up.gate = http.takes_requests();
        let mut feed = |input: Option<&[u8]>, line: &mut Line, now: Instant| {
            http.on_client(input, &faults.http, line, &mut down.line, now);
        };
        up.poll(cx, client, upstream, &faults.decided, Some(&mut feed))
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> bool {
        let Self { client, upstream, up, down, http, faults, .. } = self;
        down.line.answers = up.line.closed();
        let Some(http) = http else { return down.poll(cx, upstream, client, &faults.decided, None) };
        let mut feed = |input: Option<&[u8]>, line: &mut Line, now: Instant| http.on_server(input, line, now);
        down.poll(cx, upstream, client, &faults.decided, Some(&mut feed))
    }

    fn ending(&self) -> Option<Ending> {
        if let Some(ending) = self.up.ending.or(self.down.ending) {
            return Some(ending);
        }
        let broken = self.up.broken || self.down.broken;
        (self.up.done && self.down.done).then_some(if broken { Ending::Reset } else { Ending::Done })
    }
}
