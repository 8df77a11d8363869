//! Writing to a disk: each thread has a file without a name, and waits for each of its writes to arrive.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Tally, about, pause, thread};
use crate::sys::resources::nameless;
use crate::sys::{host, timer};

/// A thread writes over its file from the beginning once it has this size.
pub(crate) const FILE_MAX: u64 = 64 << 20;
/// What all threads that were kept waiting make up for at most, in seconds of the rate.
const DEBT_MAX: f64 = 0.2;
/// A thread that waits for its turn looks again after this time at the latest, in seconds.
const WAIT_MAX: f64 = 0.1;

/// How fast all threads write together.
#[derive(Debug)]
struct Pace {
    /// Bytes per second.
    rate: f64,
    block: f64,
    /// What is owed to the disk, in bytes, and since when, in nanoseconds.
    owed: Mutex<(f64, u64)>,
}

impl Pace {
    fn new(rate: f64, block: u64, now: u64) -> Self {
        Self { rate, block: block as f64, owed: Mutex::new((0.0, now)) }
    }

    /// Whether a thread may write a block now; else how long it waits.
    fn turn(&self, now: u64) -> Option<Duration> {
        let mut state = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let (owed, then) = *state;
        let most = (self.rate * DEBT_MAX).max(self.block);
        let owed = (owed + self.rate * now.saturating_sub(then) as f64 / 1e9).min(most);
        let due = owed >= self.block;
        *state = (if due { owed - self.block } else { owed }, now.max(then));
        drop(state);
        let wait = ((self.block - owed) / self.rate).clamp(0.000_1, WAIT_MAX);
        (!due).then(|| Duration::from_secs_f64(wait))
    }
}

pub(super) fn start(
    path: &Path,
    workers: u32,
    block: u64,
    rate: Option<f64>,
    tally: &Arc<Tally>,
) -> Result<(), String> {
    let pace = rate.map(|rate| Arc::new(Pace::new(rate, block, timer::monotonic())));
    // One for each thread, and some to tell what happens.
    host::allow_files(u64::from(workers) + 64);
    // All files first: if they are too many, they are closed again, so that this can be told.
    let open = || nameless(path, true).map_err(|error| about(path, &error));
    let files: Vec<File> = (0..workers).map(|_| open()).collect::<Result<_, _>>()?;
    for (number, file) in files.into_iter().enumerate() {
        let (tally, path, pace) = (Arc::clone(tally), path.to_owned(), pace.clone());
        thread(&format!("write-{number}"), move || {
            if let Err(error) = write(&file, block, pace.as_deref(), &tally) {
                tally.fail(about(&path, &error));
            }
        })?;
    }
    Ok(())
}

fn write(file: &File, block: u64, pace: Option<&Pace>, tally: &Tally) -> std::io::Result<()> {
    let bytes: Vec<u8> = (0..block).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 7) as u8).collect();
    let mut at = 0;
    loop {
        if let Some(wait) = pace.and_then(|pace| pace.turn(timer::monotonic())) {
            pause(wait);
            continue;
        }
        file.write_all_at(&bytes, at)?;
        at = (at + block) % FILE_MAX.max(block);
        tally.held.fetch_add(block, Ordering::Relaxed);
        tally.writes.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_threads_write_no_less_and_no_more_than_one_at_any_rate() {
        for (rate, block, threads) in
            [(1e5, 65536_u64, 64_u64), (1e4, 4096, 1), (65536.0, 65536, 3), (1e8, 65536, 8)]
        {
            let pace = Pace::new(rate, block, 0);
            let (mut now, mut blocks) = (0, 0);
            while now < 10_000_000_000 {
                for _ in 0..threads {
                    blocks += u64::from(pace.turn(now).is_none());
                }
                now += 1_000_000;
            }
            let due = rate * 10.0;
            let written = (blocks * block) as f64;
            assert!(written <= due + 1.0, "{rate} {block} {threads}: {written} of {due}");
            assert!(
                written > due - block as f64 - rate / 100.0,
                "{rate} {block} {threads}: {written} of {due}"
            );
        }
    }

    #[test]
    fn a_thread_that_waits_is_told_when_its_turn_comes() {
        let pace = Pace::new(1000.0, 512, 0);
        assert_eq!(pace.turn(0), Some(Duration::from_millis(100)), "at most so long");
        assert_eq!(pace.turn(500_000_000), Some(Duration::from_millis(12)));
        assert_eq!(pace.turn(512_000_000), None);
        // What was missed long ago is not made up for.
        assert_eq!(pace.turn(60_000_000_000), None);
        assert!(pace.turn(60_000_000_000).is_some());
    }
}
