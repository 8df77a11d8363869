//! The operator's word: first ^C aborts and restores, the second restores at once, the third leaves it to the guardian.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Where the operator's words come from; a test brings its own.
#[derive(Debug)]
pub struct Signals {
    words: mpsc::Receiver<&'static str>,
}

impl Signals {
    /// SIGINT, SIGTERM and SIGHUP of this process.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn standard() -> std::io::Result<Self> {
        let (send, words) = mpsc::channel(8);
        let kinds = [
            ("SIGINT", SignalKind::interrupt()),
            ("SIGTERM", SignalKind::terminate()),
            ("SIGHUP", SignalKind::hangup()),
        ];
        for (name, kind) in kinds {
            let mut stream = signal(kind)?;
            let send = send.clone();
            // Ends with the runtime.
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    // More than eight unheard signals say no more than eight.
                    let _ = send.try_send(name);
                }
            });
        }
        Ok(Self { words })
    }

    /// Words from somewhere else in this process.
    pub fn from(words: mpsc::Receiver<&'static str>) -> Self {
        Self { words }
    }

    /// The next word; never, if there is none to come.
    pub async fn next(&mut self) -> &'static str {
        match self.words.recv().await {
            Some(word) => word,
            None => std::future::pending().await,
        }
    }
}
