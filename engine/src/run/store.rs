//! Where runs are kept: one folder each, named by its ULID, with journal, record and the experiment's text.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use injectors::{Change, guardian, journal};
use reports::RunRecord;
use ulid::Ulid;

use crate::reading;

/// The record's file name.
pub const RECORD: &str = "record.json";
/// The HTML report's file name.
pub const REPORT: &str = "report.html";
/// Lock that a living engine holds in its run's folder.
pub const LOCK: &str = "engine.lock";
/// Finished runs beyond this are removed, the oldest first.
const KEEP: usize = 200;
/// A record beyond this is not read.
const RECORD_MAX: usize = 256 << 20;

/// Why runs could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No run fits the name.
    #[error("there is no run `{0}`; `squall report --list` shows what there is")]
    Unknown(String),
    /// Somebody else could have written the journal.
    #[error(
        "{0} does not belong to this user alone: its journal is not trusted; if it is yours, make it so (chown, chmod go-w)"
    )]
    Foreign(PathBuf),
    /// A path leads to no run.
    #[error(
        "{0} is no run: it has neither a record nor a journal; `squall report --list` shows what there is"
    )]
    NoRun(PathBuf),
    /// The run writes its record at its end.
    #[error("run {0} is still going on: it writes its record at its end")]
    GoingOn(String),
    /// The run wrote no record.
    #[error(
        "run {0} has no record: it was cut off, or it was an `inject`; `squall recover --list` shows whether it left something"
    )]
    CutOff(String),
    /// Several runs fit the name.
    #[error("`{name}` fits {count} runs; give more letters")]
    Ambiguous {
        /// The prefix.
        name: String,
        /// How many runs it fits.
        count: usize,
    },
    /// The file is no record that this version reads.
    #[error("{path}: {why}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
}

/// The folder of all runs.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A run that is over, with something still changed.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// The run's folder.
    pub folder: PathBuf,
    /// Its id.
    pub run: String,
    /// The experiment's name.
    pub experiment: String,
    /// It ended by itself, with changes that it could not undo; otherwise it was cut off.
    pub ended: bool,
    /// What is still changed, the newest first.
    pub open: Vec<Change>,
    /// Why the latest undo of each of them failed, if one was tried: by id.
    failures: BTreeMap<String, String>,
    /// Unreadable lines of its journal.
    pub damaged: usize,
}

impl Leftover {
    /// Why the latest undo of a change failed, if one was tried.
    pub fn failure(&self, change: &Change) -> Option<&str> {
        self.failures.get(&change.id).map(String::as_str)
    }
}

impl Store {
    /// `--runs DIR`, else `$SQUALL_RUNS`, else `$XDG_STATE_HOME/squall/runs`, else `~/.local/state/squall/runs`.
    pub fn find(option: Option<PathBuf>) -> Self {
        let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = option.or_else(|| env("SQUALL_RUNS")).unwrap_or_else(|| {
            let state = env("XDG_STATE_HOME")
                .or_else(|| env("HOME").map(|home| home.join(".local/state")))
                .unwrap_or_else(|| {
                    std::env::temp_dir().join(format!("squall-state-{}", injectors::sys::host::user()))
                });
            state.join("squall/runs")
        });
        Self { root }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder of a new run and locks it for the life of the returned file.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(&self) -> Result<(String, PathBuf, File), StoreError> {
        self.prune();
        let id = Ulid::from_datetime(std::time::UNIX_EPOCH + crate::clock::unix()).to_string();
        let folder = self.root.join(&id);
        private_folder(&folder)?;
        let lock = guardian::lock(&folder.join(LOCK)).ok_or_else(|| {
            let source = io::Error::other("the new folder cannot be locked");
            StoreError::Io { path: folder.clone(), source }
        })?;
        Ok((id, folder, lock))
    }

    /// Folders of all runs, the newest first.
    pub fn folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let is_run = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| Ulid::from_string(name).is_ok())
        };
        let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_run).collect();
        folders.sort();
        folders.reverse();
        folders
    }

    /// Removes the oldest finished runs. What cannot be removed stays.
    fn prune(&self) {
        for folder in self.folders().into_iter().skip(KEEP) {
            let done = !alive(&folder)
                && journal::read(&folder).is_ok_and(|story| story.open().is_empty() && story.damaged == 0);
            if done {
                let _ = std::fs::remove_dir_all(folder);
            }
        }
    }

    /// Runs that ended with something still changed and that nobody is restoring.
    ///
    /// # Errors
    /// A journal cannot be read.
    pub fn leftovers(&self) -> Result<Vec<Leftover>, StoreError> {
        let mut leftovers = Vec::new();
        for folder in self.folders() {
            if alive(&folder) {
                continue;
            }
            leftovers.extend(leftover(&folder)?);
        }
        Ok(leftovers)
    }

    /// Runs whose engine has ended while their guardian is still restoring: for some seconds, if an undo fails at first.
    pub fn guarded(&self) -> Vec<Leftover> {
        let orphaned =
            self.folders().into_iter().filter(|folder| !held(folder, LOCK) && held(folder, guardian::LOCK));
        orphaned.filter_map(|folder| leftover(&folder).ok().flatten()).collect()
    }

    /// What living runs have changed.
    pub fn live_changes(&self) -> Vec<Change> {
        let living = self.folders().into_iter().filter(|folder| alive(folder));
        living
            .filter_map(|folder| leftover(&folder).ok().flatten())
            .flat_map(|leftover| leftover.open)
            .collect()
    }

    /// The folder of a run by `latest`, an id, a unique prefix, or a path to its folder or record.
    ///
    /// # Errors
    /// None fits, or several do.
    pub fn resolve(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = Path::new(name);
        if name.contains('/') || (name != "latest" && path.exists()) {
            let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
            return if folder.exists() {
                Ok(path.to_owned())
            } else {
                Err(StoreError::Unknown(name.to_owned()))
            };
        }
        let mut folders = self.folders();
        if name == "latest" {
            folders.retain(|folder| folder.join(RECORD).exists());
        } else {
            let wanted = name.to_ascii_uppercase();
            folders.retain(|folder| {
                folder.file_name().is_some_and(|id| id.to_string_lossy().starts_with(&wanted))
            });
            if folders.len() > 1 {
                return Err(StoreError::Ambiguous { name: name.to_owned(), count: folders.len() });
            }
        }
        folders.into_iter().next().ok_or_else(|| StoreError::Unknown(name.to_owned()))
    }

    /// Reads the record of a run.
    ///
    /// # Errors
    /// None fits, it is no record, or of another version.
    pub fn read(&self, name: &str) -> Result<RunRecord, StoreError> {
        let path = self.resolve(name)?;
        let path = if path.is_dir() { path.join(RECORD) } else { path };
        let fail = |source| StoreError::Io { path: path.clone(), source };
        if !path.exists() {
            let folder = path.parent().unwrap_or(&path);
            return Err(match folder.join(journal::FILE).exists() {
                _ if alive(folder) => StoreError::GoingOn(name.to_owned()),
                true => StoreError::CutOff(name.to_owned()),
                false => StoreError::NoRun(folder.to_owned()),
            });
        }
        let bytes = reading::bytes(&path, RECORD_MAX).map_err(fail)?;
        let wrong = |why: String| StoreError::Format { path: path.clone(), why };
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| wrong(format!("no JSON: {e}")))?;
        let schema = value["schema"].as_str().unwrap_or("none").to_owned();
        if schema != reports::record::SCHEMA {
            let text = format!("its schema is {schema}; this version reads {}", reports::record::SCHEMA);
            return Err(wrong(text));
        }
        serde_json::from_value(value).map_err(|e| wrong(format!("no record: {e}")))
    }
}

/// Whether a run's folder and its journal belong to this user, and nobody else can write them: a journal holds commands,
/// and whoever can write it could have them run.
fn own(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let private = |path: &Path| {
        std::fs::symlink_metadata(path)
            .is_ok_and(|meta| meta.uid() == injectors::sys::host::user() && meta.mode() & 0o022 == 0)
    };
    private(folder) && private(&folder.join(journal::FILE))
}

/// Makes a run's folder, unless it is there. Journals and records can tell more of a system than its neighbours on this
/// host should know, so it is for this user alone.
///
/// # Errors
/// It cannot be made.
pub fn private_folder(folder: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| StoreError::Io { path: folder.to_owned(), source })
}

/// Writes a file whole or not at all. What is no regular file, such as a pipe or `/dev/null`, is written into instead.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    use std::io::Write as _;
    let fail = |source| StoreError::Io { path: path.to_owned(), source };
    // A link is followed: what it points to is meant.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if std::fs::metadata(&target).is_ok_and(|meta| !meta.is_file()) {
        let opened = std::fs::OpenOptions::new().write(true).open(&target);
        return opened.and_then(|mut file| file.write_all(bytes)).map_err(fail);
    }
    let partial = partial(&target);
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&partial, &target));
    written.map_err(|source| {
        // Nothing half-written stays behind.
        let _ = std::fs::remove_file(&partial);
        fail(source)
    })
}

/// Whether [`write()`] could write this file now; leaves nothing behind.
///
/// # Errors
/// It could not.
pub fn writable(path: &Path) -> Result<(), StoreError> {
    let fail = |source| StoreError::Io { path: path.to_owned(), source };
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match std::fs::metadata(&target) {
        Ok(meta) if meta.is_dir() => return Err(fail(io::ErrorKind::IsADirectory.into())),
        // Opening a pipe would wait for its reader.
        Ok(meta) if !meta.is_file() => return Ok(()),
        _ => {}
    }
    let partial = partial(&target);
    File::create(&partial).and_then(|_| std::fs::remove_file(&partial)).map_err(fail)
}

/// Where a file is written before it takes its name.
fn partial(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{}", std::process::id()))
}

/// Whether an engine or a guardian is at work in this folder.
pub fn alive(folder: &Path) -> bool {
    held(folder, LOCK) || held(folder, guardian::LOCK)
}

/// Whether a living process holds this lock.
fn held(folder: &Path, name: &str) -> bool {
    let path = folder.join(name);
    // A pipe that somebody put there would keep whoever opens it.
    if !std::fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
        return false;
    }
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}

/// What the journal of a folder says is still changed.
///
/// # Errors
/// It cannot be read.
pub fn leftover(folder: &Path) -> Result<Option<Leftover>, StoreError> {
    let story = journal::read(folder)?;
    if !story.lines.is_empty() && !own(folder) {
        return Err(StoreError::Foreign(folder.to_owned()));
    }
    let open: Vec<Change> = story.open().into_iter().cloned().collect();
    if open.is_empty() && story.damaged == 0 {
        return Ok(None);
    }
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (run, experiment) = story
        .title()
        .map_or((name.clone(), "?".to_owned()), |(run, experiment)| (run.to_owned(), experiment.to_owned()));
    let failure = |change: &Change| Some((change.id.clone(), story.failure(&change.id)?.to_owned()));
    let failures = open.iter().filter_map(failure).collect();
    let (ended, damaged) = (story.ended(), story.damaged);
    Ok(Some(Leftover { folder: folder.to_owned(), run, experiment, ended, open, failures, damaged }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_stays_a_device_and_a_link_a_link() {
        use std::os::unix::fs::FileTypeExt;
        write(Path::new("/dev/null"), b"x").unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write(&file, b"one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, b"two").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"two");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }
}
