//! The simplest clients: one HTTP request, one control request, and a crowd that keeps asking.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// One GET on a connection of its own: status and body.
pub(crate) fn get(address: &str, path: &str, patience: Duration) -> std::io::Result<(u16, String)> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

/// One request on a control socket.
pub(crate) fn control(path: &Path, request: &Value) -> std::io::Result<Value> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    (&stream).write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(std::io::Error::other)
}

/// Clients that ask again and again until dropped.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// This many clients, each with one request at a time and a new connection for each.
    pub(crate) fn of(count: usize, address: &str, path: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = || {
            let (stop, address, path) = (Arc::clone(&stop), address.to_owned(), path.to_owned());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Whatever becomes of it: the fault decides.
                    let _ = get(&address, &path, Duration::from_millis(400));
                    super::wait::pass(Duration::from_millis(2));
                }
            })
        };
        let clients = (0..count).map(|_| client()).collect();
        Self { stop, clients }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}
