//! The process that carries an experiment's own relays.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use injectors::target::Relay;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::experiment::RelayDecl;

/// How long it may take to listen.
const START_DEADLINE: Duration = Duration::from_secs(5);
/// How long it may take to end: longer than it lingers.
const END_DEADLINE: Duration = Duration::from_secs(8);

/// A running relay process.
#[derive(Debug)]
pub(super) struct Relays {
    child: Child,
    stdin: ChildStdin,
    control: PathBuf,
    /// What it carries.
    pub carried: Vec<Relay>,
}

impl Relays {
    /// Starts it and waits until every relay listens.
    ///
    /// # Errors
    /// In words: an address is taken, or the process did not answer in time.
    pub(super) async fn start(exe: &Path, run: &str, declared: &[RelayDecl]) -> Result<Self, String> {
        let place = crate::lab::Place::user().map_err(|error| error.to_string())?;
        let control =
            place.root().join(format!("run-{}.sock", run.get(run.len().saturating_sub(8)..).unwrap_or(run)));
        sweep(place.root());
        let routes: Vec<serde_json::Value> = declared
            .iter()
            .map(|relay| serde_json::json!({"name": relay.name, "listen": relay.listen, "upstream": relay.upstream, "protocol": relay.protocol}))
            .collect();
        let config = serde_json::json!({
            "routes": routes, "control": control, "parent": true, "linger": 30.0,
        });
        let start = async {
            let mut child = Command::new(exe)
                .arg("__relay")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .map_err(|error| format!("the relay process could not be started: {error}"))?;
            let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
                return Err("the relay process has no pipes".to_owned());
            };
            stdin.write_all(format!("{config}\n").as_bytes()).await.map_err(|error| error.to_string())?;
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).await.map_err(|error| error.to_string())?;
            let answer: serde_json::Value =
                serde_json::from_str(&line).map_err(|_| "the relay process ended at its start".to_owned())?;
            if let Some(error) = answer["error"].as_str() {
                return Err(error.to_owned());
            }
            let relays = serde_json::from_value(answer).map_err(|error| error.to_string())?;
            Ok(Self { child, stdin, control: control.clone(), carried: relays })
        };
        tokio::time::timeout(START_DEADLINE, start)
            .await
            .unwrap_or_else(|_| Err(format!("the relays did not listen within {START_DEADLINE:?}")))
    }

    /// Lets it end: it lingers while connections of others go on.
    pub(super) async fn end(mut self) {
        drop(self.stdin);
        // A relay that still serves somebody goes on by itself for a bounded time; it carries no fault any more.
        if tokio::time::timeout(END_DEADLINE, self.child.wait()).await.is_ok() {
            // Already gone, unless somebody killed the relay.
            let _ = std::fs::remove_file(&self.control);
        }
    }
}

/// Removes the sockets of relays that were killed together with their runs: nobody listens there any more.
fn sweep(root: &Path) {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("run-") && path.extension().is_some_and(|extension| extension == "sock")
    };
    for path in entries.filter(ours) {
        let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        if std::os::unix::net::UnixStream::connect(&path).err().is_some_and(refused) {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_on_which_nobody_listens_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        drop(std::os::unix::net::UnixListener::bind(path("run-dead.sock")).unwrap());
        let _living = std::os::unix::net::UnixListener::bind(path("run-live.sock")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(path("other.sock")).unwrap());
        sweep(folder.path());
        assert!(!path("run-dead.sock").exists());
        assert!(path("run-live.sock").exists() && path("other.sock").exists());
    }
}
