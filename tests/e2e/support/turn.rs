//! Turns: what is expensive runs a few at a time, whatever number of threads the test harness has. First come, first
//! served, so that nobody starves.

use std::sync::{Condvar, Mutex};

/// How much may run at a time.
const WIDTH: u32 = 3;

struct Queue {
    free: u32,
    next: u64,
    serving: u64,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { free: WIDTH, next: 0, serving: 0 });
static CHANGED: Condvar = Condvar::new();

/// Permission to be expensive, until dropped.
pub(crate) struct Turn(u32);

/// Waits for a turn of this weight: 1 shares the machine with two others, 3 has it alone.
pub(crate) fn turns(weight: u32) -> Turn {
    let weight = weight.min(WIDTH);
    let mut queue = QUEUE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let ticket = queue.next;
    queue.next += 1;
    while queue.serving != ticket || queue.free < weight {
        queue = CHANGED.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
    queue.serving += 1;
    queue.free -= weight;
    CHANGED.notify_all();
    Turn(weight)
}

impl Drop for Turn {
    fn drop(&mut self) {
        QUEUE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).free += self.0;
        CHANGED.notify_all();
    }
}
