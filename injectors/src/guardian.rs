//! The small process that undoes everything when the run cannot.
//!
//! It starts before the first fault, in a session of its own, holds every change itself, and acts when the engine's
//! end of the pipe closes (the engine is gone), when no line came for [`PATIENCE`] (the engine hangs), or at the run's
//! deadline. It needs neither the experiment nor the engine, and it outlives signals from a terminal.
//!
//! The engine writes one JSON [`Word`] per line; the guardian answers each with its number. When it acts on a living
//! engine it says `fired` first.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::Instant;

use crate::journal::{Entry, Journal};
use crate::restore::restore;
use crate::secrets::Secrets;
use crate::sys::control::LINE_MAX;
use crate::{Change, Env, Inventory};

/// Silence of the engine that counts as a hang. The engine speaks at least once a second.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// What the engine tells its guardian.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// The first word.
    Begin {
        /// Folder of the run: where the journal and the lock are.
        folder: PathBuf,
        /// Seconds from now after which everything is undone, whatever the engine says.
        deadline_s: f64,
        /// What must not be written.
        secrets: Secrets,
    },
    /// From now on, this change is to be undone.
    Hold(Box<Change>),
    /// This change has been undone.
    Release {
        /// Which injection.
        id: String,
    },
    /// Still there.
    Lease,
    /// All is well; the guardian may go.
    End,
}

/// What the guardian answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The word with this number, counted from 1, is heard.
    Heard(u64),
    /// It acts: the engine has no say any more.
    Fired,
}

enum Heard {
    Word(Word),
    Silence,
    Gone,
}

struct Guard {
    folder: PathBuf,
    deadline: Instant,
    held: Vec<Change>,
    secrets: Secrets,
}

/// Runs a guardian over these streams until it is told to end or has acted. True: nothing was left to undo, or all of
/// it could be undone.
pub async fn watch(input: impl AsyncRead + Unpin, mut output: impl AsyncWrite + Unpin) -> bool {
    let mut input = BufReader::new(input);
    let Heard::Word(Word::Begin { folder, deadline_s, secrets }) = listen(&mut input, PATIENCE).await else {
        return true;
    };
    let deadline = Duration::try_from_secs_f64(deadline_s).unwrap_or(Duration::from_secs(3600));
    let mut guard = Guard { folder, deadline: Instant::now() + deadline, held: Vec::new(), secrets };
    // Held as long as this process lives: `recover` then knows that somebody is at work.
    let _lock = lock(&guard.folder.join(LOCK));
    let mut number = 1;
    loop {
        answer(&mut output, Answer::Heard(number)).await;
        let left = guard.deadline.saturating_duration_since(Instant::now());
        match listen(&mut input, left.min(PATIENCE)).await {
            Heard::Word(Word::Hold(change)) => guard.held.push(*change),
            Heard::Word(Word::Release { id }) => guard.held.retain(|change| change.id != id),
            Heard::Word(Word::Lease | Word::Begin { .. }) => {}
            Heard::Word(Word::End) => return true,
            Heard::Gone => return guard.act().await,
            Heard::Silence => {
                answer(&mut output, Answer::Fired).await;
                return guard.act().await;
            }
        }
        number += 1;
    }
}

/// Name of the lock that a living guardian holds in the run's folder.
pub const LOCK: &str = "guardian.lock";

/// Takes a lock for the life of the returned file; none if somebody else has it or the folder cannot be written.
pub fn lock(path: &std::path::Path) -> Option<std::fs::File> {
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

async fn listen(input: &mut (impl AsyncBufReadExt + Unpin), patience: Duration) -> Heard {
    let mut line = Vec::new();
    let mut limited = input.take(LINE_MAX);
    match tokio::time::timeout(patience, limited.read_until(b'\n', &mut line)).await {
        Err(_) => Heard::Silence,
        Ok(Ok(1..)) if line.ends_with(b"\n") => match serde_json::from_slice(&line) {
            Ok(word) => Heard::Word(word),
            Err(_) => Heard::Gone,
        },
        Ok(_) => Heard::Gone,
    }
}

async fn answer(output: &mut (impl AsyncWrite + Unpin), answer: Answer) {
    let mut line = serde_json::to_vec(&answer).expect("answers are plain data");
    line.push(b'\n');
    // If nobody listens any more, the closed input will say so.
    let _ = tokio::time::timeout(Duration::from_secs(1), output.write_all(&line)).await;
}

impl Guard {
    /// Undoes everything held, and whatever else the journal announces: an engine that died between its intent and
    /// its word to the guardian has touched nothing, but its journal must not stay open. The newest first; goes on
    /// after failures, and journals each outcome.
    async fn act(mut self) -> bool {
        let env = Env::host(Inventory::default());
        let story = crate::journal::read(&self.folder).unwrap_or_default();
        let unheld = |change: &&Change| !self.held.iter().any(|held| held.id == change.id);
        // Its environment is the engine's, so what the journal names without a value can be revealed.
        let reveal = |change: &Change| crate::journal::reveal(change).ok().map(|(change, _)| change);
        let announced: Vec<Change> =
            story.open().into_iter().rev().filter(unheld).filter_map(reveal).collect();
        self.held.extend(announced);
        let mut journal = Journal::open(&self.folder, self.secrets).ok();
        let mut clean = true;
        for change in self.held.iter().rev() {
            let by = "guardian".to_owned();
            let entry = match restore(&env, change).await {
                Ok(outcome) => Entry::Undone { id: change.id.clone(), outcome, by },
                Err(error) => {
                    clean = false;
                    Entry::UndoFailed { id: change.id.clone(), error: error.to_string(), by }
                }
            };
            // A journal that cannot be written does not stop the undo of what remains.
            let _ = journal.as_mut().map(|journal| journal.append(entry));
        }
        clean
    }
}
