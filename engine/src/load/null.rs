//! The built-in null server: it answers every request with an empty 200 as cheaply as it can, on loopback, on a thread of
//! its own. What a load costs against it is what the generator costs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;

use super::LoadSpec;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// The most bytes of a head; a request of ours has no longer one.
const HEAD_MAX: usize = 1 << 20;

/// A server that lives as long as this.
#[derive(Debug)]
pub(super) struct Null {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Null {
    pub(super) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("null-server".to_owned());
        let thread = thread.spawn(move || {
            // Without a runtime nobody answers, and nothing is measured.
            if let Ok(runtime) =
                Builder::new_current_thread().enable_io().build_local(LocalOptions::default())
            {
                runtime.block_on(accept(listener, stopped));
            }
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Null {
    /// The same requests to this server: same methods, paths, header fields and bodies.
    pub(super) fn instead(&self, spec: LoadSpec) -> LoadSpec {
        let mut requests = spec.requests.clone();
        for request in &mut requests {
            let uri = request.url.parse::<hyper::Uri>().ok();
            let path = uri.as_ref().and_then(|uri| uri.path_and_query()).map_or("/", |path| path.as_str());
            request.url = format!("http://{}{path}", self.address);
        }
        LoadSpec { requests, unix: None, sources: Vec::new(), ..spec }
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It ends as soon as it hears that; a panic of it would have shown as requests that failed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn accept(listener: TcpListener, mut stopped: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            taken = listener.accept() => if let Ok((stream, _)) = taken {
                // They end with the runtime.
                tokio::task::spawn_local(serve(stream));
            },
        }
    }
}

async fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (mut buffer, mut parser) = (vec![0; 16 << 10], Requests::default());
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let Some(answers) = parser.feed(&buffer[..read]) else { return };
        for _ in 0..answers {
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

/// Finds the ends of requests.
#[derive(Default)]
struct Requests {
    /// What is there of a head.
    head: Vec<u8>,
    /// Bytes of a body that are still to come.
    body: usize,
}

impl Requests {
    /// How many requests end in these bytes; none if it cannot be told.
    fn feed(&mut self, mut bytes: &[u8]) -> Option<usize> {
        let mut ended = 0;
        loop {
            let skipped = self.body.min(bytes.len());
            (self.body, bytes) = (self.body - skipped, &bytes[skipped..]);
            if skipped > 0 && self.body == 0 {
                ended += 1;
            }
            if bytes.is_empty() {
                return Some(ended);
            }
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let from = before.saturating_sub(3);
            let Some(at) = self.head[from..].windows(4).position(|four| four == b"\r\n\r\n") else {
                return (self.head.len() <= HEAD_MAX).then_some(ended);
            };
            let end = from + at + 4;
            self.body = length(&self.head[..end])?;
            ended += usize::from(self.body == 0);
            bytes = &bytes[end - before..];
            self.head.clear();
        }
    }
}

/// The length of the body after this head.
fn length(head: &[u8]) -> Option<usize> {
    let field = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length:")));
    field.map_or(Some(0), |field| std::str::from_utf8(&field[15..]).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_ends_once_however_it_is_cut() {
        let stream = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n";
        for size in 1..=stream.len() {
            let mut requests = Requests::default();
            let ended: usize = stream.chunks(size).map(|part| requests.feed(part).unwrap()).sum();
            assert_eq!(ended, 3, "in parts of {size}");
        }
        let mut requests = Requests::default();
        assert_eq!(requests.feed(b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"), None);
        assert_eq!(Requests::default().feed(&vec![b'a'; HEAD_MAX + 1]), None);
    }
}
