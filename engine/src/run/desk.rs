//! Where a load that is under way hears that its rate shall change: a Unix socket that only this user can reach.

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use injectors::Pending;
use injectors::sys::control::{self, Control as _, ControlError};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::load::{Knob, Turned};

/// The socket's name in the folder of a run.
pub const FILE: &str = "rate.sock";
/// Requests that wait to be heard.
const WAITING: usize = 8;

/// Somebody asks for a change, and waits for the answer.
#[derive(Debug)]
pub struct Wish {
    /// Which change.
    pub knob: Knob,
    /// Of which load; of all if none is named.
    pub load: Option<String>,
    answer: oneshot::Sender<Result<Vec<Turned>, String>>,
}

impl Wish {
    /// Tells what came of it.
    pub fn answer(self, came: Result<Vec<Turned>, String>) {
        // Whoever asked may have gone.
        let _ = self.answer.send(came);
    }
}

/// A socket, or none. It is removed when this is dropped.
#[derive(Debug, Default)]
pub struct Desk(Option<(PathBuf, JoinHandle<()>, mpsc::Receiver<Wish>)>);

impl Desk {
    /// Opens it at this path, in place of a dead one. Needs a tokio runtime.
    ///
    /// # Errors
    /// There is something that is no dead socket, or the folder cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt as _;
        if let Ok(there) = path.symlink_metadata() {
            let socket = there.file_type().is_socket();
            if !socket || std::os::unix::net::UnixStream::connect(short(path)?.1).is_ok() {
                let what =
                    if socket { "another process listens there" } else { "it exists and is no socket" };
                return Err(io::Error::other(what));
            }
        }
        let (_folder, reached) = short(path)?;
        let listener = control::bind(&reached)?;
        let (wish, wishes) = mpsc::channel(WAITING);
        let serving = tokio::spawn(control::serve(listener, move |request| hear(request, wish.clone())));
        Ok(Self(Some((path.to_owned(), serving, wishes))))
    }

    /// Opens it, or says why the rate cannot be changed.
    pub(super) fn or_why(path: &Path) -> (Self, Option<String>) {
        match Self::open(path) {
            Ok(desk) => (desk, None),
            Err(error) => (Self::default(), Some(format!("the rate cannot be changed on the way: {error}"))),
        }
    }

    /// The next wish; never, if there is no socket.
    pub async fn next(&mut self) -> Wish {
        if let Some((_, _, wishes)) = &mut self.0
            && let Some(wish) = wishes.recv().await
        {
            return wish;
        }
        pending().await
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some((path, serving, _)) = self.0.take() {
            serving.abort();
            // It may have been removed by hand.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn hear(request: Value, wishes: mpsc::Sender<Wish>) -> Pending<'static, Result<Value, String>> {
    Box::pin(async move {
        if request["op"] != "rate" {
            return Err("this socket changes rates, and nothing else".to_owned());
        }
        let knob = Knob::parse(request["to"].as_str().unwrap_or_default())?;
        let load = request["load"].as_str().map(str::to_owned);
        let (answer, answered) = oneshot::channel();
        let ended = || "the load has ended".to_owned();
        wishes.send(Wish { knob, load, answer }).await.map_err(|_| ended())?;
        let turned = answered.await.map_err(|_| ended())??;
        Ok(json!({"changes": turned}))
    })
}

/// Asks for a change; the answer holds the `changes`.
///
/// # Errors
/// Nobody listens, or it was refused.
pub async fn ask(path: &Path, to: &str, load: Option<&str>) -> Result<Value, ControlError> {
    let (_folder, reached) = short(path)?;
    let request = json!({"op": "rate", "to": to, "load": load});
    match control::Sockets.call(&reached, &request).await {
        // The path that was taken means nothing to anybody.
        Err(ControlError::Gone(_)) => Err(ControlError::Gone(path.to_owned())),
        Err(ControlError::Deadline(_)) => Err(ControlError::Deadline(path.to_owned())),
        came => came,
    }
}

/// A path of a socket has at most 107 bytes: it is reached through its folder, which must stay open meanwhile.
fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = File::open(parent.unwrap_or(Path::new(".")))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("this path names no file"))?;
    let reached = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((folder, reached))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_wish_is_heard_and_answered_however_long_the_path_is() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join(FILE);
        let mut desk = Desk::open(&path).unwrap();
        assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Desk::open(&path).unwrap_err().to_string().contains("another process"));
        let answering = async {
            let wish = desk.next().await;
            assert_eq!((wish.knob, wish.load.as_deref()), (Knob::Times(2.0), Some("a")));
            wish.answer(Err("no such load".to_owned()));
        };
        let (asked, ()) = tokio::join!(ask(&path, "x2", Some("a")), answering);
        assert_eq!(asked.unwrap_err().to_string(), "no such load");
        let wrong = ask(&path, "faster", None).await.unwrap_err().to_string();
        assert!(wrong.contains("x1.5"), "{wrong}");
        drop(desk);
        assert!(!path.exists());
        assert!(
            matches!(ask(&path, "x2", None).await.unwrap_err(), ControlError::Gone(gone) if gone == path)
        );
        std::fs::write(&path, "precious").unwrap();
        assert!(Desk::open(&path).is_err() && path.exists(), "what is no socket stays");
    }
}
