//! Burning processor time: each thread works in short slices, as often as its share of the time asks for.

use std::time::Duration;

use super::{pause, thread};
use crate::sys::timer;

/// One slice of work.
const SLICE: u64 = 2_000_000;
/// What a thread that was kept waiting makes up for at most: after that, the load is lower than asked for, as measured.
const DEBT_MAX: f64 = 500e6;

pub(super) fn start(cores: u32, load: f64) -> Result<(), String> {
    (0..cores).try_for_each(|number| thread(&format!("burn-{number}"), move || burn(load)))
}

fn burn(load: f64) -> ! {
    timer::precise();
    let (mut at, mut owed, mut had) = (timer::monotonic(), 0.0_f64, timer::thread_cpu());
    let mut state = 88_172_645_463_325_252_u64;
    loop {
        let (now, cpu) = (timer::monotonic(), timer::thread_cpu());
        owed = (owed + load * (now - at) as f64 - (cpu - had) as f64).clamp(-DEBT_MAX, DEBT_MAX);
        (at, had) = (now, cpu);
        if owed > 0.0 {
            let until = cpu + SLICE.min(owed as u64 + 1);
            while timer::thread_cpu() < until {
                // xorshift: work that the compiler cannot take away.
                for _ in 0..2000 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    std::hint::black_box(state);
                }
            }
        } else {
            // Until a slice is due again.
            let wait = ((SLICE as f64 - owed) / load.max(0.001)).min(100e6);
            pause(Duration::from_nanos(wait as u64));
        }
    }
}
