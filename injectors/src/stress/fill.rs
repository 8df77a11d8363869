//! Filling a file system: one file without a name that grows in steps, and shrinks when others need the reserve.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Tally, about, pause, thread};
use crate::sys::resources::{die_first, memory, nameless, occupied, occupy, volume_of};

/// Room is taken in steps of this size, and looked at in between.
const STEP: u64 = 64 << 20;
/// How often the reserve is looked at once the file has its size.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn start(path: &Path, bytes: u64, reserve: u64, tally: &Arc<Tally>) -> Result<(), String> {
    let file = nameless(path, false).map_err(|error| about(path, &error))?;
    if volume_of(&file).is_ok_and(|volume| volume.in_memory) {
        // The kernel has to take this process, and with it the file, before any other.
        die_first().map_err(|error| format!("/proc/self/oom_score_adj: {error}"))?;
    }
    tally.due.store(bytes, Ordering::Relaxed);
    let (tally, path) = (Arc::clone(tally), path.to_owned());
    thread("fill", move || {
        if let Err(error) = fill(file, bytes, reserve, &tally) {
            tally.fail(about(&path, &error));
        }
    })
}

fn fill(mut file: File, bytes: u64, reserve: u64, tally: &Tally) -> std::io::Result<()> {
    let mut size = 0;
    loop {
        let available = available(&file)?;
        let spare = available.saturating_sub(reserve);
        let mut grown = false;
        if available < reserve && size > 0 {
            size -= (reserve - available).min(size);
            file.set_len(size)?;
            tally.hold_back(Some("others have taken room of the reserve".to_owned()));
        } else if size < bytes && spare > 0 {
            let next = size + STEP.min(bytes - size).min(spare);
            match occupy(&mut file, size, next) {
                Ok(()) => {
                    (size, grown) = (next, next < bytes);
                    tally.hold_back(None);
                }
                Err(error) => {
                    // What was taken of it before the file system was full.
                    size = occupied(&file).min(next);
                    tally.hold_back(Some(error.to_string()));
                }
            }
        } else if size < bytes {
            tally.hold_back(Some("what is left is the reserve".to_owned()));
        }
        tally.held.store(occupied(&file), Ordering::Relaxed);
        if !grown {
            pause(LOOK);
        }
    }
}

/// What others may still take: of a file system in memory, no more than there is memory.
fn available(file: &File) -> std::io::Result<u64> {
    let volume = volume_of(file)?;
    Ok(if volume.in_memory { volume.available.min(memory()?.available) } else { volume.available })
}
