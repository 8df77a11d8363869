//! Writing to a disk: each thread has a file without a name, and waits for each of its writes to arrive.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Tally, about, pause, thread};
use crate::sys::resources::nameless;
use crate::sys::timer;

/// A thread writes over its file from the beginning once it has this size.
pub(crate) const FILE_MAX: u64 = 64 << 20;
/// What a thread that was kept waiting makes up for at most, in seconds of its rate.
const DEBT_MAX: f64 = 0.2;

pub(super) fn start(
    path: &Path,
    workers: u32,
    block: u64,
    rate: Option<f64>,
    tally: &Arc<Tally>,
) -> Result<(), String> {
    for number in 0..workers {
        let file = nameless(path, true).map_err(|error| about(path, &error))?;
        let (tally, path) = (Arc::clone(tally), path.to_owned());
        let share = rate.map(|rate| rate / f64::from(workers));
        thread(&format!("write-{number}"), move || {
            if let Err(error) = write(&file, block, share, &tally) {
                tally.fail(about(&path, &error));
            }
        })?;
    }
    Ok(())
}

fn write(file: &File, block: u64, rate: Option<f64>, tally: &Tally) -> std::io::Result<()> {
    let bytes: Vec<u8> = (0..block).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 7) as u8).collect();
    let (mut at, mut owed, mut then) = (0, 0.0, timer::monotonic());
    loop {
        if let Some(rate) = rate {
            let now = timer::monotonic();
            owed = (owed + rate * (now - then) as f64 / 1e9).min((rate * DEBT_MAX).max(block as f64));
            then = now;
            if owed < block as f64 {
                let wait = (block as f64 - owed) / rate;
                pause(Duration::from_secs_f64(wait.clamp(0.000_1, 0.1)));
                continue;
            }
            owed -= block as f64;
        }
        file.write_all_at(&bytes, at)?;
        at = (at + block) % FILE_MAX.max(block);
        tally.held.fetch_add(block, Ordering::Relaxed);
        tally.writes.fetch_add(1, Ordering::Relaxed);
    }
}
