//! The process that carries an experiment's own relays.

use std::path::Path;
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
            Ok(Self { child, stdin, carried: relays })
        };
        tokio::time::timeout(START_DEADLINE, start)
            .await
            .unwrap_or_else(|_| Err(format!("the relays did not listen within {START_DEADLINE:?}")))
    }

    /// Lets it end: it lingers while connections of others go on.
    pub(super) async fn end(mut self) {
        drop(self.stdin);
        // A relay that still serves somebody goes on by itself for a bounded time; it carries no fault any more.
        let _ = tokio::time::timeout(END_DEADLINE, self.child.wait()).await;
    }
}
