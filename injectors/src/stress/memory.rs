//! Holding memory: taken in chunks as the ramp says, every page written to, and touched again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Tally, pause, thread};
use crate::sys::{resources, timer};

/// Memory is taken in pieces of this size.
const CHUNK: u64 = 4 << 20;
/// The smallest page there is.
const PAGE: usize = 4096;
/// How often the ramp and the reserve are looked at.
const STEP: Duration = Duration::from_millis(20);
/// Memory that nobody touches is the first to be swapped out.
const TOUCH_EVERY: u64 = 2_000_000_000;

pub(super) fn start(bytes: u64, ramp_s: f64, reserve: u64, tally: &Arc<Tally>) -> Result<(), String> {
    // The kernel has to take this process before any other.
    resources::die_first().map_err(|error| format!("/proc/self/oom_score_adj: {error}"))?;
    let tally = Arc::clone(tally);
    thread("hold", move || hold(bytes, ramp_s, reserve, &tally))
}

fn hold(bytes: u64, ramp_s: f64, reserve: u64, tally: &Tally) {
    let began = timer::monotonic();
    let (mut chunks, mut held, mut touched) = (Vec::<Vec<u8>>::new(), 0_u64, began);
    loop {
        let now = timer::monotonic();
        let share = ((now - began) as f64 / 1e9 / ramp_s.max(1e-9)).min(1.0);
        let due = (bytes as f64 * share) as u64;
        tally.due.store(due, Ordering::Relaxed);
        let available = resources::memory().map_or(0, |memory| memory.available);
        if available < reserve {
            // Others need it now.
            held -= chunks.pop().map_or(0, |chunk| chunk.len() as u64);
            tally.hold_back(Some(words(available, reserve)));
        } else if held < due && available < reserve + CHUNK {
            tally.hold_back(Some(words(available, reserve)));
        } else if held < due {
            let chunk = (due - held).min(CHUNK);
            chunks.push(fresh(chunk as usize, held));
            held += chunk;
            tally.hold_back(None);
            // The next one at once, unless it is not yet due.
            if held < due {
                continue;
            }
        }
        if now - touched > TOUCH_EVERY {
            for chunk in &mut chunks {
                touch(chunk);
            }
            touched = timer::monotonic();
        }
        pause(STEP);
    }
}

/// A chunk in which every page is written to, and no page is like another.
fn fresh(length: usize, salt: u64) -> Vec<u8> {
    let mut chunk = vec![0_u8; length];
    for (number, page) in chunk.chunks_mut(PAGE).enumerate() {
        let mark = (salt + number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for (place, byte) in page.iter_mut().zip(mark.to_le_bytes()) {
            *place = byte;
        }
    }
    chunk
}

fn touch(chunk: &mut [u8]) {
    for page in chunk.chunks_mut(PAGE) {
        page[0] = page[0].wrapping_add(1);
    }
}

fn words(available: u64, reserve: u64) -> String {
    format!(
        "only {} MiB are available on the host, and {} MiB are its reserve",
        available >> 20,
        reserve >> 20
    )
}
