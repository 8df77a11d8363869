//! Control sockets: one JSON line asks, one JSON line answers, over a Unix stream socket.
//!
//! A request is an object with an `op`. A reply is an object with `ok: true`, or with `ok: false` and `error`.
//! Lines are at most [`LINE_MAX`] bytes, calls have a deadline, and a server holds at most [`PEERS_MAX`] peers.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Pending;

/// The longest line that either side accepts, in bytes.
pub const LINE_MAX: u64 = 1 << 20;
/// The most peers that one server talks to at a time.
pub const PEERS_MAX: usize = 32;
/// How long one call may take in all.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// How long a peer may stay silent.
const IDLE: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there: its owner has ended.
    #[error("nobody listens on {}", shown(.0))]
    Gone(PathBuf),
    /// No answer in time.
    #[error("no answer from {} within {DEADLINE:?}: it may be stopped, or lack something", shown(.0))]
    Deadline(PathBuf),
    /// The owner answered with an error.
    #[error("{0}")]
    Refused(String),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The answer is no JSON object.
    #[error("unreadable answer: {0}")]
    Protocol(#[from] serde_json::Error),
}

/// A path, or a name of the kernel's own as `ss` shows it.
fn shown(path: &Path) -> String {
    path.to_string_lossy().replace('\0', "@")
}

/// The port through which injectors talk to relays, supervisors and balancers.
pub trait Control: std::fmt::Debug + Send + Sync {
    /// Sends one request and waits for the answer, at most [`DEADLINE`].
    fn call<'a>(&'a self, path: &'a Path, request: &'a Value) -> Pending<'a, Result<Value, ControlError>>;
}

/// Real sockets.
#[derive(Debug, Clone, Copy)]
pub struct Sockets;

impl Control for Sockets {
    fn call<'a>(&'a self, path: &'a Path, request: &'a Value) -> Pending<'a, Result<Value, ControlError>> {
        Box::pin(async move {
            match tokio::time::timeout(DEADLINE, call(path, request)).await {
                Ok(answer) => answer,
                Err(_) => Err(ControlError::Deadline(path.to_owned())),
            }
        })
    }
}

async fn call(path: &Path, request: &Value) -> Result<Value, ControlError> {
    let stream = UnixStream::connect(path).await.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::Gone(path.to_owned()),
        _ => ControlError::Io(e),
    })?;
    if !trusted(&stream) {
        let other = io::Error::other("another user listens there");
        return Err(ControlError::Io(other));
    }
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.get_mut().write_all(&line).await?;
    line.clear();
    stream.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(ControlError::Gone(path.to_owned()));
    }
    let answer: Value = serde_json::from_slice(&line)?;
    if answer["ok"] == Value::Bool(true) {
        return Ok(answer);
    }
    Err(ControlError::Refused(answer["error"].as_str().unwrap_or("refused without a reason").to_owned()))
}

/// Whether this user or root is at the other end. Folders keep others away from sockets that are files; nothing else
/// keeps them away from names of the kernel's own, which begin with a NUL byte.
fn trusted(stream: &UnixStream) -> bool {
    let known = |user: u32| user == 0 || user == super::host::user();
    stream.peer_cred().is_ok_and(|peer| known(peer.uid()))
}

/// A descriptor that is given up for a peer when none is left, so that a process that is short of them can still be told
/// to undo what it does. The peer's own takes its place, without a moment in which another could take it.
type Spare = Arc<Mutex<Option<OwnedFd>>>;

fn take(spare: &Spare) -> Option<OwnedFd> {
    spare.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Ends a conversation, and keeps its descriptor if there is no spare one.
fn hang_up(stream: UnixStream, spare: &Spare) {
    let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
    if let (None, Ok(stream)) = (&*spare, stream.into_std()) {
        // The peer has gone already if this fails.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        *spare = Some(stream.into());
    }
}

/// Answers requests until the future is dropped. `handle` returns the fields of the reply or an error text.
pub async fn serve<H>(listener: UnixListener, handle: H)
where
    H: Fn(Value) -> Pending<'static, Result<Value, String>> + Send + Sync + 'static,
{
    let handle = Arc::new(handle);
    let seats = Arc::new(Semaphore::new(PEERS_MAX));
    let spare: Spare = Arc::new(Mutex::new(listener.as_fd().try_clone_to_owned().ok()));
    let mut peers = JoinSet::new();
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        while peers.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) if !trusted(&stream) => hang_up(stream, &spare),
            Ok((stream, _)) => {
                let (handle, spare) = (Arc::clone(&handle), Arc::clone(&spare));
                peers.spawn(async move {
                    let mut stream = BufReader::new(stream);
                    // A peer that breaks off or talks nonsense is its own loss.
                    let _ = converse(&mut stream, &*handle).await;
                    hang_up(stream.into_inner(), &spare);
                    drop(seat);
                });
            }
            // Out of descriptors, most likely.
            Err(_) if take(&spare).is_some() => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn converse<H>(stream: &mut BufReader<UnixStream>, handle: &H) -> Result<(), ControlError>
where
    H: Fn(Value) -> Pending<'static, Result<Value, String>>,
{
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut *stream).take(LINE_MAX);
        let read = limited.read_until(b'\n', &mut line);
        let Ok(read) = tokio::time::timeout(IDLE, read).await else { return Ok(()) };
        if read? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_slice::<Value>(&line) {
            Ok(request) => handle(request).await,
            Err(e) => Err(format!("not a JSON request: {e}")),
        };
        let mut reply = match answer {
            Ok(Value::Object(mut fields)) => {
                fields.insert("ok".to_owned(), Value::Bool(true));
                Value::Object(fields)
            }
            Ok(other) => json!({"ok": true, "value": other}),
            Err(error) => json!({"ok": false, "error": error}),
        }
        .to_string();
        reply.push('\n');
        // A peer that asks and does not read is left alone.
        let written = stream.get_mut().write_all(reply.as_bytes());
        let Ok(written) = tokio::time::timeout(IDLE, written).await else { return Ok(()) };
        written?;
    }
}

/// Binds a control socket that only this user can reach, in place of a dead one.
///
/// # Errors
/// The path is too long for a socket (107 bytes), or its folder cannot be written.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
