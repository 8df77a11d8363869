//! Small servers that do exactly what a test wants, and count what they see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// What a server saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) open_max: AtomicU64,
    /// Connections whose client said goodbye.
    pub(crate) farewells: AtomicU64,
    /// Bytes of bodies.
    pub(crate) uploaded: AtomicU64,
    /// Requests under way.
    pub(crate) now: AtomicU64,
    /// The most of them at a time, over all connections.
    pub(crate) at_once: AtomicU64,
    pub(crate) cancelled: AtomicU64,
}

/// A request that came.
pub(crate) struct Asked<'a> {
    /// Among those of all connections, from 0.
    pub(crate) nth: u64,
    /// Among those of its connection, from 0.
    pub(crate) nth_here: u64,
    pub(crate) head: &'a str,
}

/// What to do about it.
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    pub(crate) reply: Vec<u8>,
    pub(crate) then: Then,
    /// Called when the reply is written.
    pub(crate) note: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(PartialEq)]
pub(crate) enum Then {
    Keep,
    Close,
    Reset,
    Hang,
}

impl Plan {
    pub(crate) fn reply(text: impl Into<Vec<u8>>) -> Self {
        Self { delay: Duration::ZERO, reply: text.into(), then: Then::Keep, note: None }
    }

    pub(crate) fn ok() -> Self {
        Self::reply("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub(crate) fn noting(self, note: impl FnOnce() + Send + 'static) -> Self {
        Self { note: Some(Box::new(note)), ..self }
    }

    pub(crate) fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }
}

type Handler = Arc<dyn Fn(Asked<'_>) -> Plan + Send + Sync>;

/// A server in a thread of its own; dropping it ends it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    _stop: oneshot::Sender<()>,
}

impl Server {
    pub(crate) fn new(handler: impl Fn(Asked<'_>) -> Plan + Send + Sync + 'static) -> Self {
        Self::start(Arc::new(handler), None)
    }

    pub(crate) fn tls(
        acceptor: TlsAcceptor,
        handler: impl Fn(Asked<'_>) -> Plan + Send + Sync + 'static,
    ) -> Self {
        Self::start(Arc::new(handler), Some(acceptor))
    }

    fn start(handler: Handler, tls: Option<TlsAcceptor>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (stop, mut stopped) = oneshot::channel::<()>();
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let accepted = tokio::select! {
                        _ = &mut stopped => return,
                        accepted = listener.accept() => accepted,
                    };
                    if let Ok((tcp, _)) = accepted {
                        let _ = tcp.set_nodelay(true);
                        tokio::spawn(serve(tcp, tls.clone(), Arc::clone(&handler), Arc::clone(&shared)));
                    }
                }
            });
        });
        Self { address, seen, _stop: stop }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.seen.requests.load(SeqCst)
    }
}

async fn serve(tcp: TcpStream, tls: Option<TlsAcceptor>, handler: Handler, seen: Arc<Seen>) {
    seen.connections.fetch_add(1, SeqCst);
    let open = seen.open.fetch_add(1, SeqCst) + 1;
    seen.open_max.fetch_max(open, SeqCst);
    match tls {
        None => {
            let mut tcp = tcp;
            if converse(&mut tcp, &handler, &seen).await == Then::Reset {
                tcp.set_zero_linger().unwrap();
            }
        }
        Some(acceptor) => {
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                converse(&mut stream, &handler, &seen).await;
                let _ = stream.shutdown().await;
            }
        }
    }
    seen.open.fetch_sub(1, SeqCst);
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, handler: &Handler, seen: &Seen) -> Then {
    let mut buffer = Vec::new();
    for nth_here in 0.. {
        let Some(head) = read_request(stream, &mut buffer).await else { return Then::Close };
        let nth = seen.requests.fetch_add(1, SeqCst);
        let plan = handler(Asked { nth, nth_here, head: &head });
        if !plan.delay.is_zero() {
            tokio::time::sleep(plan.delay).await;
        }
        if stream.write_all(&plan.reply).await.is_err() {
            return Then::Close;
        }
        let _ = stream.flush().await;
        if let Some(note) = plan.note {
            note();
        }
        match plan.then {
            Then::Keep => {}
            Then::Hang => {
                let _ = stream.read(&mut [0; 1]).await;
                return Then::Close;
            }
            end => return end,
        }
    }
    Then::Close
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end + 4].to_vec()).unwrap();
            let body = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |n| n.parse::<usize>().unwrap());
            if buffer.len() >= end + 4 + body {
                buffer.drain(..end + 4 + body);
                return Some(head);
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
