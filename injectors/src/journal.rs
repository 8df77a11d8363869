//! The write-ahead log of a run: what is about to be changed, then what became of it.
//!
//! One line per entry: JSON, a tab, its CRC-32 in hex. Every append is synced to the disk before it returns. A torn
//! last line (a crash while writing) is ignored: what it announced had not begun. Two processes may append, the
//! engine and, once the engine is gone, the guardian or `recover`; each entry is one write in append mode.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::secrets::{self, Secrets};
use crate::{Change, Undone};

/// The file's name in the run's folder.
pub const FILE: &str = "journal.jsonl";
/// The version of the format, in the first entry.
pub const VERSION: u32 = 1;
/// A journal beyond this is refused: it is not ours.
const SIZE_MAX: u64 = 64 << 20;

/// One fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// The run begins.
    Begin {
        /// [`VERSION`].
        version: u32,
        /// The run's id.
        run: String,
        /// The experiment's name.
        experiment: String,
    },
    /// A change is about to be made.
    Intend(Change),
    /// It was made.
    Applied {
        /// Of which injection.
        id: String,
    },
    /// It was taken back, and the picture is as before.
    Undone {
        /// Of which injection.
        id: String,
        /// How.
        outcome: Undone,
        /// `engine`, `guardian`, `recover`.
        by: String,
    },
    /// It could not be taken back.
    UndoFailed {
        /// Of which injection.
        id: String,
        /// Why.
        error: String,
        /// `engine`, `guardian`, `recover`.
        by: String,
    },
    /// It could not be taken back, and somebody has put it right without squall, or says so.
    Declared {
        /// Of which injection.
        id: String,
        /// Who said so.
        by: String,
        /// What squall believed to be changed still.
        left: String,
    },
    /// The rate of a load was changed while it was being sent; nothing is to be undone.
    Turned {
        /// Of which load.
        load: String,
        /// From then on, in seconds since the start of the load.
        at_s: f64,
        /// So many times what was written.
        factor: f64,
    },
    /// A worker that sent a part of the load was lost; nothing is to be undone.
    WorkerLost {
        /// Which.
        worker: String,
        /// Until then it has told what it did, in seconds since the start of the load.
        from_s: f64,
        /// From then on others send its share.
        to_s: f64,
        /// Requests of which nothing is known.
        missing: u64,
    },
    /// The run ended with this exit code.
    End {
        /// From the table of exit codes.
        exit: u8,
    },
}

/// An entry and when it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Seconds since 1970.
    pub at: f64,
    /// The fact.
    pub entry: Entry,
}

/// Why a journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened, written or synced.
    #[error("journal {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is too large to be one of ours.
    #[error("journal {0} is larger than {SIZE_MAX} bytes")]
    TooLarge(PathBuf),
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    secrets: Secrets,
}

impl Journal {
    /// Opens the journal of a run's folder for appending, and makes it if it is not there. Secrets are written by name.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open(folder: &Path, secrets: Secrets) -> Result<Self, JournalError> {
        let path = folder.join(FILE);
        let fail = |source| JournalError::Io { path: path.clone(), source };
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(fail)?;
        // The folder's entry must survive a power loss as well as the file's content.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)?;
        Ok(Self { path, file, secrets })
    }

    /// Appends an entry; when this returns, the disk has it.
    ///
    /// # Errors
    /// The disk is full or broken. Then nothing must be changed in the world.
    pub fn append(&mut self, entry: Entry) -> Result<(), JournalError> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut value =
            serde_json::to_value(Line { at, entry }).expect("entries are plain maps with text keys");
        self.secrets.hide_in(&mut value);
        let text = value.to_string();
        let line = format!("{text}\t{:08x}\n", crc32fast::hash(text.as_bytes()));
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }
}

/// A change as it was before its secrets were hidden, with their values from this process's environment; and these
/// values, which whatever comes of the change must not show either.
///
/// # Errors
/// In words: which variables are not set.
pub fn reveal(change: &Change) -> Result<(Change, Secrets), String> {
    let mut value = serde_json::to_value(change).expect("changes are plain maps with text keys");
    let revealed = secrets::reveal_in(&mut value, |name| std::env::var(name).ok()).map_err(|missing| {
        format!("the journal names {} without a value: set it in the environment", missing.join(", "))
    })?;
    let change = serde_json::from_value(value).map_err(|error| error.to_string())?;
    Ok((change, revealed))
}

/// What a journal tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Story {
    /// Every readable entry, in order.
    pub lines: Vec<Line>,
    /// Unreadable lines other than a torn last one.
    pub damaged: usize,
}

impl Story {
    /// Changes that were announced and not taken back, the newest first, whatever became of them in between.
    pub fn open(&self) -> Vec<&Change> {
        let mut open: Vec<&Change> = Vec::new();
        for line in &self.lines {
            match &line.entry {
                Entry::Intend(change) => open.push(change),
                Entry::Undone { id, .. } | Entry::Declared { id, .. } => {
                    open.retain(|change| change.id != *id);
                }
                _ => {}
            }
        }
        open.reverse();
        open
    }

    /// Whether the run ended by itself instead of being cut off.
    pub fn ended(&self) -> bool {
        self.lines.iter().any(|line| matches!(line.entry, Entry::End { .. }))
    }

    /// Why the latest undo of an injection failed.
    pub fn failure(&self, injection: &str) -> Option<&str> {
        self.lines.iter().rev().find_map(|line| match &line.entry {
            Entry::UndoFailed { id, error, .. } if id == injection => Some(error.as_str()),
            _ => None,
        })
    }

    /// The run's id and the experiment's name, from the first entry.
    pub fn title(&self) -> Option<(&str, &str)> {
        self.lines.iter().find_map(|line| match &line.entry {
            Entry::Begin { run, experiment, .. } => Some((run.as_str(), experiment.as_str())),
            _ => None,
        })
    }
}

/// Reads the journal of a run's folder; an absent one tells nothing.
///
/// # Errors
/// See [`JournalError`].
pub fn read(folder: &Path) -> Result<Story, JournalError> {
    let path = folder.join(FILE);
    let fail = |source| JournalError::Io { path: path.clone(), source };
    match std::fs::metadata(&path) {
        Ok(meta) if meta.len() > SIZE_MAX => return Err(JournalError::TooLarge(path)),
        Ok(meta) if !meta.is_file() => return Err(fail(io::Error::other("it is no regular file"))),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Story::default()),
        Err(e) => return Err(fail(e)),
    }
    Ok(parse(&std::fs::read(&path).map_err(fail)?))
}

fn parse(bytes: &[u8]) -> Story {
    let mut story = Story::default();
    // What follows the last line break is torn, if there is anything.
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        match parse_line(&line[..line.len() - 1]) {
            Some(line) => story.lines.push(line),
            None => story.damaged += 1,
        }
    }
    story
}

fn parse_line(bytes: &[u8]) -> Option<Line> {
    let (text, sum) = std::str::from_utf8(bytes).ok()?.rsplit_once('\t')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    if crc32fast::hash(text.as_bytes()) != sum {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn change(id: &str) -> Change {
        Change {
            id: id.to_owned(),
            fault: "fake".to_owned(),
            target: "t".to_owned(),
            summary: "s".to_owned(),
            claims: vec![],
            apply: json!({}),
            undo: json!({}),
            manual: String::new(),
            picture: json!(null),
        }
    }

    fn undone(id: &str) -> Entry {
        Entry::Undone { id: id.to_owned(), outcome: Undone::Reverted, by: "engine".to_owned() }
    }

    #[test]
    fn what_was_announced_stays_open_until_it_is_undone() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), Secrets::default()).unwrap();
        journal.append(Entry::Intend(change("a"))).unwrap();
        journal.append(Entry::Intend(change("b"))).unwrap();
        journal.append(Entry::Applied { id: "b".to_owned() }).unwrap();
        journal
            .append(Entry::UndoFailed { id: "b".to_owned(), error: "x".to_owned(), by: "engine".to_owned() })
            .unwrap();
        let open = |folder: &Path| {
            read(folder).unwrap().open().iter().map(|change| change.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(open(folder.path()), ["b", "a"]);
        journal.append(undone("b")).unwrap();
        assert_eq!(open(folder.path()), ["a"]);
        assert_eq!(read(folder.path()).unwrap().failure("b"), Some("x"));
        let (by, left) = ("somebody".to_owned(), "s".to_owned());
        journal.append(Entry::Declared { id: "a".to_owned(), by, left }).unwrap();
        assert!(open(folder.path()).is_empty(), "what somebody has put right is settled");
    }

    #[test]
    fn a_damaged_line_is_counted_and_does_not_hide_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), Secrets::default()).unwrap();
        for id in ["a", "b", "c"] {
            journal.append(Entry::Intend(change(id))).unwrap();
        }
        let path = folder.path().join(FILE);
        let mut text = std::fs::read_to_string(&path).unwrap();
        let second = text.find("\"b\"").unwrap();
        text.replace_range(second..second + 3, "\"x\"");
        std::fs::write(&path, text).unwrap();
        let story = read(folder.path()).unwrap();
        assert_eq!((story.open().len(), story.damaged), (2, 1));
    }

    proptest! {
        #[test]
        fn a_journal_cut_anywhere_reads_as_its_whole_lines(cut in 0usize..2000) {
            let folder = tempfile::tempdir().unwrap();
            let mut journal = Journal::open(folder.path(), Secrets::default()).unwrap();
            for id in ["a", "b", "c"] {
                journal.append(Entry::Intend(change(id))).unwrap();
            }
            let bytes = std::fs::read(folder.path().join(FILE)).unwrap();
            let cut = cut.min(bytes.len());
            let whole = bytes[..cut].split(|byte| *byte == b'\n').count() - 1;
            let story = parse(&bytes[..cut]);
            prop_assert_eq!((story.lines.len(), story.damaged), (whole, 0));
        }
    }
}
