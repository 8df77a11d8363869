//! The engine's end of the pipe to its guardian.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use injectors::Change;
use injectors::guardian::{Answer, Word};
use injectors::secrets::Secrets;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, watch};

/// How long the guardian may take to answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// Pause between two renewals of the lease.
const BEAT: Duration = Duration::from_millis(500);
/// How long the guardian is waited for when it takes over from a living engine.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// Why the guardian cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum GuardianError {
    /// It could not be started.
    #[error("the guardian could not be started: {0}")]
    Start(#[source] std::io::Error),
    /// It has ended, or acts by itself.
    #[error("the guardian has ended or taken over")]
    Gone,
    /// It does not answer.
    #[error("the guardian did not answer within {DEADLINE:?}")]
    Silent,
}

/// What the guardian has told, as seen by its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// The number of the last word that it has heard.
    pub heard: u64,
    /// It has ended or acts by itself.
    pub gone: bool,
}

/// A running guardian.
#[derive(Debug)]
pub(super) struct Guardian {
    child: Child,
    pipe: Mutex<(ChildStdin, u64)>,
    told: watch::Receiver<Told>,
}

impl Guardian {
    /// Starts it and waits until it watches over the folder.
    ///
    /// # Errors
    /// See [`GuardianError`].
    pub(super) async fn start(
        exe: &Path,
        folder: &Path,
        deadline: Duration,
        secrets: &Secrets,
    ) -> Result<Self, GuardianError> {
        let mut child = Command::new(exe)
            .arg("__guardian")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(GuardianError::Start)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(GuardianError::Gone);
        };
        let (tell, told) = watch::channel(Told { heard: 0, gone: false });
        // Ends when the guardian's end of the pipe closes, at the latest with the guardian.
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(Answer::Heard(number)) => tell.send_modify(|told| told.heard = number),
                    Ok(Answer::Fired) | Err(_) => break,
                }
            }
            tell.send_modify(|told| told.gone = true);
        });
        let guardian = Self { child, pipe: Mutex::new((stdin, 0)), told };
        let (folder, secrets) = (folder.to_owned(), secrets.clone());
        let word = Word::Begin { folder, deadline_s: deadline.as_secs_f64(), secrets };
        guardian.say(&word).await?;
        Ok(guardian)
    }

    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// From now on it will undo this change if the engine does not.
    ///
    /// # Errors
    /// It does not say that it has heard: the change must not be made.
    pub(super) async fn hold(&self, change: &Change) -> Result<(), GuardianError> {
        self.say(&Word::Hold(Box::new(change.clone()))).await
    }

    /// The change is undone.
    ///
    /// # Errors
    /// It does not say that it has heard.
    pub(super) async fn release(&self, id: &str) -> Result<(), GuardianError> {
        self.say(&Word::Release { id: id.to_owned() }).await
    }

    /// Renews the lease again and again, and completes when the guardian cannot be relied on any more: it has ended, acts
    /// by itself, or does not answer, as when somebody has stopped it.
    pub(super) async fn lost(&self) -> GuardianError {
        let mut told = self.told.clone();
        let renewing = async {
            loop {
                tokio::time::sleep(BEAT).await;
                if let Err(error) = self.say(&Word::Lease).await {
                    return error;
                }
            }
        };
        tokio::select! {
            // An error means that the listener has ended, and with it the guardian.
            _ = told.wait_for(|told| told.gone) => GuardianError::Gone,
            error = renewing => error,
        }
    }

    async fn say(&self, word: &Word) -> Result<(), GuardianError> {
        let mut told = self.told.clone();
        let mut pipe = self.pipe.lock().await;
        let mut line = serde_json::to_vec(word).expect("words are plain data");
        line.push(b'\n');
        let talk = async {
            pipe.0.write_all(&line).await.map_err(|_| GuardianError::Gone)?;
            pipe.1 += 1;
            let number = pipe.1;
            let answer = told.wait_for(|told| told.gone || told.heard >= number).await;
            match answer {
                Ok(told) if told.heard >= number => Ok(()),
                _ => Err(GuardianError::Gone),
            }
        };
        tokio::time::timeout(DEADLINE, talk).await.unwrap_or(Err(GuardianError::Silent))
    }

    /// Tells it that all is well and waits until it has ended. One that does not end is killed: it holds nothing.
    pub(super) async fn end(mut self) {
        let mut line = serde_json::to_vec(&Word::End).expect("words are plain data");
        line.push(b'\n');
        let mut pipe = self.pipe.into_inner().0;
        let goodbye = async {
            let _ = pipe.write_all(&line).await;
            drop(pipe);
            let _ = self.child.wait().await;
        };
        if tokio::time::timeout(DEADLINE, goodbye).await.is_err() {
            // Stopped by somebody: it would wait for ever.
            let _ = self.child.start_kill();
            let _ = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        }
    }

    /// Leaves to it whatever it still holds, and waits for a while until it has done what it can. It goes on after that.
    pub(super) async fn take_over(mut self) {
        drop(self.pipe);
        let _ = tokio::time::timeout(TAKE_OVER, self.child.wait()).await;
    }
}
