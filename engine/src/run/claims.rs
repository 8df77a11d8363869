//! Claims that hold on the whole host, between runs of this user whatever folder they keep their journals in: one
//! locked file per claim in the user's private folder.
//!
//! Invariants: the lock is the kernel's, so a claim ends with the process that holds it, however that ends, and a file
//! that a killed one left means nothing; the name of a file tells nothing of the claim, which may hold a secret.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use injectors::Change;

use crate::lab::Place;

/// The most of a holder's name that is read, in bytes.
const HOLDER_MAX: u64 = 256;
/// Another run may have a claim for a moment because it looks whether it is free.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The claims of one injection; they are free again when this is dropped.
#[derive(Debug)]
pub(super) struct Held(Vec<(PathBuf, File)>);

impl Drop for Held {
    fn drop(&mut self) {
        for (path, _) in &self.0 {
            // Still locked: nobody else's file is removed. One that stays is harmless.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes all claims of a change, or none.
///
/// # Errors
/// Another run holds one of them, or there is no folder to hold them in.
pub(super) async fn take(change: &Change) -> Result<Held, String> {
    let none = |error: &dyn std::fmt::Display| format!("its claims cannot be held on this host: {error}");
    let folder = Place::user().map_err(|error| none(&error))?.root().join("claims");
    match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(none(&error)),
        _ => {}
    }
    let mut looks = 1;
    loop {
        match take_in(&folder, change) {
            Err(Taken::By(_)) if looks < LOOKS => {
                looks += 1;
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            Err(Taken::By(text)) => return Err(text),
            Err(Taken::Broken(error)) => return Err(none(&error)),
            Ok(held) => return Ok(held),
        }
    }
}

enum Taken {
    By(String),
    Broken(io::Error),
}

fn take_in(folder: &Path, change: &Change) -> Result<Held, Taken> {
    let mut held = Held(Vec::new());
    for claim in &change.claims {
        let path = folder.join(file_name(claim));
        match lock(&path).map_err(Taken::Broken)? {
            Ok(mut file) => {
                // Only words for whoever finds it locked.
                let _ = file.set_len(0).and_then(|()| file.write_all(change.id.as_bytes()));
                held.0.push((path, file));
            }
            Err(file) => {
                let mut holder = String::new();
                let _ = file.take(HOLDER_MAX).read_to_string(&mut holder);
                let holder =
                    if holder.is_empty() { String::new() } else { format!(" ({})", holder.escape_debug()) };
                return Err(Taken::By(format!("another run holds {}{holder}", words(claim))));
            }
        }
    }
    Ok(held)
}

/// Opens and locks; the inner error is the file as another holds it.
fn lock(path: &Path) -> io::Result<Result<File, File>> {
    loop {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(Err(file)),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        // Its last holder may have removed it between opening and locking: then it locks nobody out.
        if std::fs::metadata(path)
            .is_ok_and(|there| file.metadata().is_ok_and(|own| own.ino() == there.ino()))
        {
            return Ok(Ok(file));
        }
    }
}

/// `process:4711` as people say it.
pub(super) fn words(claim: &str) -> String {
    claim.replacen(':', " ", 1)
}

/// The FNV-1a hash of the claim, the same in every version.
fn file_name(claim: &str) -> String {
    let hash = claim.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn change(id: &str, claims: &[&str]) -> Change {
        Change {
            id: id.to_owned(),
            fault: "process-kill".to_owned(),
            target: String::new(),
            summary: String::new(),
            claims: claims.iter().map(|claim| (*claim).to_owned()).collect(),
            apply: Value::Null,
            undo: Value::Null,
            manual: String::new(),
            picture: Value::Null,
        }
    }

    fn refused(folder: &Path, change: &Change) -> String {
        match take_in(folder, change) {
            Err(Taken::By(text)) => text,
            Err(Taken::Broken(error)) => panic!("{error}"),
            Ok(held) => panic!("taken: {held:?}"),
        }
    }

    #[test]
    fn a_claim_is_held_by_one_injection_and_free_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let first = change("run-a/1", &["process:4711", "process:4712"]);
        let held = take_in(dir.path(), &first).unwrap_or_else(|_| panic!("it is free"));
        let second = change("run-b/1", &["process:4710", "process:4712"]);
        assert_eq!(refused(dir.path(), &second), "another run holds process 4712 (run-a/1)");
        let apart = take_in(dir.path(), &change("run-b/2", &["process:4710"]));
        assert!(apart.is_ok(), "a refused one has left nothing taken");
        drop((held, apart));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(take_in(dir.path(), &second).is_ok());
    }

    #[test]
    fn a_file_that_a_killed_run_left_holds_nothing_and_tells_no_claim() {
        let dir = tempfile::tempdir().unwrap();
        let own = change("run-b/1", &["command:break s3cr3t"]);
        std::fs::write(dir.path().join(file_name(&own.claims[0])), "run-of-long-ago-with-a-longer-name/1")
            .unwrap();
        let _held = take_in(dir.path(), &own).unwrap_or_else(|_| panic!("it is free"));
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.len() == 1 && !names[0].to_string_lossy().contains("s3cr3t"), "{names:?}");
        let text = std::fs::read_to_string(dir.path().join(&names[0])).unwrap();
        assert_eq!(text, "run-b/1");
    }

    #[test]
    fn a_lock_on_a_file_that_was_removed_meanwhile_is_not_taken_for_the_claim() {
        let dir = tempfile::tempdir().unwrap();
        let own = change("run/1", &["process:1"]);
        // Many takers of one claim: at no time do two hold it.
        let holders = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(held) = take_in(dir.path(), &own) else { continue };
                        assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
    }
}
