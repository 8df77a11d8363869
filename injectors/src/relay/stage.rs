//! One fault at work on one way of one connection: a queue and the rule by which it lets go. Pure.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::chance::Dice;
use super::fault::{Direction, RelayFault, Scatter};
use super::line::{End, Item};
use super::table::Live;

/// How much a stage that delays takes in: at 200 ms enough for 20 MB/s on one connection.
const DELAY_LINE: usize = 4 << 20;
/// How much any other stage takes in.
const QUEUE: usize = 256 * 1024;
/// A stream that never pauses gets a new delay this often. Between, its chunks keep their distances: with a new
/// delay for each, order could only be kept by raising the mean.
const REDRAW: Duration = Duration::from_secs(1);
/// What a counting rule has left once its number was reached and acted upon: no traffic gets that far.
const PASSED: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Absent in the stage that holds HTTP messages: there each entry names its own.
    live: Option<Arc<Live>>,
    rule: Rule,
    queue: VecDeque<Entry>,
    held: usize,
    /// Something else than the rule keeps the queue waiting: its times prove nothing.
    stalled: bool,
}

#[derive(Debug)]
struct Entry {
    item: Item,
    entered: Instant,
    release: Instant,
    /// Whose delay the time from entry to release measures.
    sample: Option<Arc<Live>>,
}

#[derive(Debug)]
enum Rule {
    Hold,
    Latency { scatter: Scatter, dice: Dice, delay: Duration, drawn: Option<Instant> },
    Bandwidth { slot: Option<(Instant, usize)> },
    Blackhole,
    Reset { left: u64, hurts: bool },
    SlowClose { delay: Duration },
    Slice { dice: Dice, size: u64, variation: u64, delay: Duration, last: Option<Instant> },
    Limit { left: u64 },
}

impl Stage {
    /// The stage of a fault, unless the fault does not work on bytes or spares this connection.
    pub(crate) fn new(live: &Arc<Live>, number: u64, hurts: bool) -> Option<Self> {
        let dice = Dice::new(live.seed, number);
        let rule = match &live.fault {
            RelayFault::Reset { after: Some(after), .. } => Rule::Reset { left: after.0, hurts },
            _ if !hurts => return None,
            RelayFault::Latency { scatter, .. } => {
                Rule::Latency { scatter: *scatter, dice, delay: Duration::ZERO, drawn: None }
            }
            RelayFault::Bandwidth { .. } => Rule::Bandwidth { slot: None },
            RelayFault::Blackhole { .. } => Rule::Blackhole,
            RelayFault::SlowClose { delay, .. } => Rule::SlowClose { delay: delay.0 },
            RelayFault::Slice { size, variation, delay, .. } => {
                Rule::Slice { dice, size: size.0, variation: variation.0, delay: delay.0, last: None }
            }
            RelayFault::LimitData { bytes, .. } => Rule::Limit { left: bytes.0 },
            _ => return None,
        };
        Some(Self::with(Some(Arc::clone(live)), rule))
    }

    /// The stage that holds HTTP messages.
    pub(crate) fn hold() -> Self {
        Self::with(None, Rule::Hold)
    }

    fn with(live: Option<Arc<Live>>, rule: Rule) -> Self {
        Self { live, rule, queue: VecDeque::new(), held: 0, stalled: false }
    }

    /// Its fault.
    pub(crate) fn live(&self) -> Option<&Arc<Live>> {
        self.live.as_ref()
    }

    /// Whether nothing passes it.
    pub(crate) fn is_blackhole(&self) -> bool {
        matches!(self.rule, Rule::Blackhole)
    }

    /// Whether it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether it takes more in.
    pub(crate) fn room(&self) -> bool {
        match self.rule {
            Rule::Blackhole => false,
            Rule::Hold | Rule::Latency { .. } => self.held < DELAY_LINE,
            _ => self.held < QUEUE,
        }
    }

    /// Takes an item in.
    pub(crate) fn push(&mut self, item: Item, now: Instant) {
        if let (Some(live), Item::Data(bytes)) = (&self.live, &item) {
            let mut stats = live.stats.edit();
            stats.seen.chunks += 1;
            stats.seen.bytes += bytes.len() as u64;
        }
        let mut sample = None;
        let release = match &mut self.rule {
            Rule::Latency { scatter, dice, delay, drawn } => {
                if self.queue.is_empty() || drawn.is_none_or(|drawn| now - drawn >= REDRAW) {
                    *delay = dice.delay(scatter);
                    *drawn = Some(now);
                    if matches!(item, Item::Data(_)) {
                        sample.clone_from(&self.live);
                    }
                }
                now + *delay
            }
            Rule::SlowClose { delay } if matches!(item, Item::End(End::Fin | End::FinBack)) => {
                // Who has closed first rarely waits for the answer: that it is late proves nothing.
                if item == Item::End(End::Fin) {
                    sample.clone_from(&self.live);
                }
                now + *delay
            }
            _ => now,
        };
        self.queue_up(item, now, release, sample);
    }

    /// Takes an HTTP message in, or what follows one; held for a while if an HTTP fault says so.
    pub(crate) fn push_held(&mut self, item: Item, hold: Option<(Duration, Arc<Live>)>, now: Instant) {
        let (delay, sample) = hold.map_or((Duration::ZERO, None), |(delay, live)| (delay, Some(live)));
        self.queue_up(item, now, now + delay, sample);
    }

    fn queue_up(&mut self, item: Item, entered: Instant, release: Instant, sample: Option<Arc<Live>>) {
        if let Item::Data(bytes) = &item {
            self.held += bytes.len();
        }
        self.queue.push_back(Entry { item, entered, release, sample });
    }

    /// Lets go of the first item, or of a part of it, if it is due.
    pub(crate) fn pop(&mut self, now: Instant, way: Direction) -> Option<Item> {
        if let Some(end) = self.reached() {
            return Some(Item::End(end));
        }
        let head = self.queue.front()?;
        let due = head.release <= now;
        let length = match &head.item {
            Item::Data(bytes) => bytes.len(),
            Item::End(_) => 0,
        };
        match &mut self.rule {
            Rule::Blackhole => None,
            Rule::Bandwidth { .. } if length > 0 => self.pop_slot(length, now, way),
            Rule::Slice { .. } if length > 0 => self.pop_piece(length, now),
            Rule::Reset { left, .. } | Rule::Limit { left } => {
                let pass = length.min(usize::try_from(*left).unwrap_or(usize::MAX));
                if *left != PASSED {
                    *left -= pass as u64;
                }
                Some(self.part(pass, now))
            }
            _ => due.then(|| self.release(now)),
        }
    }

    /// The end that a counting rule makes once its number of bytes has passed.
    fn reached(&mut self) -> Option<End> {
        let (left, end, hurts) = match &mut self.rule {
            Rule::Reset { left, hurts } => (left, End::Reset, *hurts),
            Rule::Limit { left } => (left, End::Close, true),
            _ => return None,
        };
        if *left > 0 {
            return None;
        }
        *left = PASSED;
        if let Some(live) = &self.live {
            live.stats.edit().case(hurts);
        }
        hurts.then(|| {
            self.queue.clear();
            self.held = 0;
            end
        })
    }

    /// The whole head.
    fn release(&mut self, now: Instant) -> Item {
        let Some(entry) = self.queue.pop_front() else { return Item::End(End::Fin) };
        if let Item::Data(bytes) = &entry.item {
            self.held -= bytes.len();
        }
        if let Some(live) = entry.sample
            && !self.stalled
            && !live.ended()
        {
            live.stats.edit().delayed(now.saturating_duration_since(entry.entered));
        }
        entry.item
    }

    /// The first bytes of the head.
    fn part(&mut self, length: usize, now: Instant) -> Item {
        match self.queue.front_mut() {
            Some(Entry { item: Item::Data(bytes), .. }) if bytes.len() > length => {
                self.held -= length;
                Item::Data(bytes.split_to(length))
            }
            _ => self.release(now),
        }
    }

    fn pop_slot(&mut self, length: usize, now: Instant, way: Direction) -> Option<Item> {
        let live = Arc::clone(self.live.as_ref()?);
        let entered = self.queue.front()?.entered;
        let mut bucket = live.bucket(way)?.lock().unwrap_or_else(PoisonError::into_inner);
        let prompt = !self.stalled;
        let Rule::Bandwidth { slot } = &mut self.rule else { return None };
        let (at, length) = *slot.get_or_insert_with(|| {
            let length = bucket.slice(length);
            (bucket.reserve(length, entered, now, prompt), length)
        });
        if at > now {
            return None;
        }
        *slot = None;
        let limited = bucket.left(length, now, prompt);
        drop(bucket);
        let mut stats = live.stats.edit();
        stats.seen.pieces += 1;
        stats.seen.limited_bytes += limited.bytes;
        stats.seen.limited_seconds += limited.time.as_secs_f64();
        drop(stats);
        Some(self.part(length, now))
    }

    fn pop_piece(&mut self, length: usize, now: Instant) -> Option<Item> {
        let live = Arc::clone(self.live.as_ref()?);
        let entered = self.queue.front()?.entered;
        let Rule::Slice { dice, size, variation, delay, last } = &mut self.rule else { return None };
        if last.is_some_and(|last| last + *delay > now) {
            return None;
        }
        let piece = dice.between(*size - *variation, *size + *variation) as usize;
        let mut stats = live.stats.edit();
        stats.seen.pieces += 1;
        if let Some(last) = last
            && entered < *last + *delay
            && !self.stalled
        {
            stats.delayed(now - *last);
        }
        drop(stats);
        *last = Some(now);
        Some(self.part(piece.min(length), now))
    }

    /// When the head may leave; absent if time alone does not free it.
    pub(crate) fn due(&self) -> Option<Instant> {
        let head = self.queue.front()?;
        match &self.rule {
            Rule::Blackhole => None,
            _ if matches!(head.item, Item::End(_)) => Some(head.release),
            Rule::Bandwidth { slot: Some((at, _)) } => Some(*at),
            Rule::Slice { last: Some(last), delay, .. } => Some(*last + *delay),
            _ => Some(head.release),
        }
    }

    /// Marks that something else than the rule keeps the queue waiting.
    pub(crate) fn stall(&mut self) {
        self.stalled = !self.queue.is_empty();
    }

    /// The opposite: what leaves from now on waited for the rule.
    pub(crate) fn unstall(&mut self) {
        self.stalled = false;
    }

    /// Frees what faults hold that are over.
    pub(crate) fn release_ended(&mut self, now: Instant) {
        for entry in &mut self.queue {
            if entry.sample.as_ref().is_some_and(|live| live.ended()) {
                entry.release = now;
                entry.sample = None;
            }
        }
    }

    /// What it held, in order.
    pub(crate) fn into_items(self) -> impl Iterator<Item = Item> {
        self.queue.into_iter().map(|entry| entry.item)
    }
}
