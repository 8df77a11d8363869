//! One way of one connection: the stages that its bytes go through. Pure: no socket, the clock is given.
//!
//! Invariants: bytes come out unchanged and in order, except behind the end that a `reset`, `limit-data` or
//! `http-truncate` makes; what a removed stage held goes on at once, in order; a full stage stops the one before
//! it, and the first one stops the reader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fault::Direction;
use super::stage::Stage;
use super::table::Live;

/// How many bytes wait for the socket before the last stage stops.
const OUT_MAX: usize = 256 * 1024;

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// This way is done; the other goes on.
    Fin,
    /// This way is done, as the other was before: it answers a close, and mostly nobody waits for it any more.
    FinBack,
    /// The connection is torn down.
    Reset,
    /// The connection is closed, both ways, after what was sent before.
    Close,
}

/// What travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Some bytes, never none.
    Data(Bytes),
    /// The end; nothing follows it.
    End(End),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    way: Direction,
    number: u64,
    /// Whether the other way has ended.
    pub(crate) answers: bool,
    /// Requests and answers that HTTP faults delay; first of all stages.
    hold: Stage,
    stages: Vec<Stage>,
    out: VecDeque<Bytes>,
    out_bytes: usize,
    end_in: bool,
    end_out: Option<End>,
}

impl Line {
    /// A line without stages, for one way of the connection with this number.
    pub(crate) fn new(way: Direction, number: u64) -> Self {
        Self {
            way,
            number,
            answers: false,
            hold: Stage::hold(),
            stages: Vec::new(),
            out: VecDeque::new(),
            out_bytes: 0,
            end_in: false,
            end_out: None,
        }
    }

    /// Whether bytes can go from socket to socket without touching the line.
    pub(crate) fn is_bare(&self) -> bool {
        self.stages.is_empty() && self.out.is_empty() && self.hold.is_empty() && !self.end_in
    }

    /// Whether its sender has ended it.
    pub(crate) fn closed(&self) -> bool {
        self.end_in
    }

    /// Whether the reader may read more.
    pub(crate) fn wants_input(&self) -> bool {
        !self.end_in
            && self.out_bytes < OUT_MAX
            && self.hold.room()
            && self.stages.first().is_none_or(Stage::room)
            && !self.stages.iter().any(Stage::is_blackhole)
    }

    /// The blackholes in this line.
    pub(crate) fn blackholes(&self) -> impl Iterator<Item = &Arc<Live>> {
        self.stages.iter().filter(|stage| stage.is_blackhole()).filter_map(Stage::live)
    }

    /// Puts an item in at the front.
    pub(crate) fn push(&mut self, item: Item, now: Instant) {
        self.push_held(item, None, now);
    }

    /// Puts an item in that an HTTP fault holds for a while; whatever follows waits behind it.
    pub(crate) fn push_held(&mut self, item: Item, hold: Option<(Duration, Arc<Live>)>, now: Instant) {
        if self.end_in {
            return;
        }
        let item = if self.answers && item == Item::End(End::Fin) { Item::End(End::FinBack) } else { item };
        self.end_in = matches!(item, Item::End(_));
        if hold.is_none() && self.hold.is_empty() {
            self.enter(0, item, now);
        } else {
            self.hold.push_held(item, hold, now);
        }
    }

    /// Puts an item into the stage with this index, or out behind the last one.
    fn enter(&mut self, index: usize, item: Item, now: Instant) {
        match (self.stages.get_mut(index), item) {
            (Some(stage), item) => stage.push(item, now),
            (None, Item::Data(bytes)) => {
                self.out_bytes += bytes.len();
                self.out.push_back(bytes);
            }
            (None, Item::End(end)) => self.end_out = Some(end),
        }
    }

    /// Moves all that is due as far as there is room.
    pub(crate) fn advance(&mut self, now: Instant) {
        loop {
            let mut moved = false;
            for index in (0..self.stages.len()).rev() {
                moved |= self.advance_stage(index, now);
            }
            while self.stages.first().is_none_or(Stage::room) {
                let Some(item) = self.hold.pop(now, self.way) else {
                    self.hold.unstall();
                    break;
                };
                moved = true;
                self.enter(0, item, now);
            }
            if !moved {
                return;
            }
        }
    }

    fn advance_stage(&mut self, index: usize, now: Instant) -> bool {
        let mut moved = false;
        loop {
            if self.end_out.is_some() || !self.room_behind(index) {
                self.stages[index].stall();
                return moved;
            }
            let Some(item) = self.stages[index].pop(now, self.way) else {
                self.stages[index].unstall();
                return moved;
            };
            if matches!(item, Item::End(_)) {
                self.end_in = true;
            }
            moved = true;
            self.enter(index + 1, item, now);
        }
    }

    fn room_behind(&self, index: usize) -> bool {
        self.stages.get(index + 1).map_or(self.out_bytes < OUT_MAX, Stage::room)
    }

    /// Tells that the receiver takes nothing for now, so that waiting is not blamed on the stages.
    pub(crate) fn stall(&mut self) {
        for stage in self.stages.iter_mut().chain([&mut self.hold]) {
            stage.stall();
        }
    }

    /// When [`Line::advance`] has something to do next, if nothing comes in.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.end_out.is_some() {
            return None;
        }
        let hold = if self.stages.first().is_none_or(Stage::room) { self.hold.due() } else { None };
        let open = |(index, stage): (usize, &Stage)| if self.room_behind(index) { stage.due() } else { None };
        self.stages.iter().enumerate().filter_map(open).chain(hold).min()
    }

    /// Makes the stages be those of these faults, in this order. Each comes with whether it hurts this
    /// connection or only counts.
    pub(crate) fn refit(&mut self, faults: &[(Arc<Live>, bool)], now: Instant) {
        self.hold.release_ended(now);
        let mut index = 0;
        while index < self.stages.len() {
            if self.stages[index].live().is_some_and(|live| !live.ended()) {
                index += 1;
                continue;
            }
            // Its successor takes this index.
            for item in self.stages.remove(index).into_items() {
                self.enter(index, item, now);
            }
        }
        for (live, hurts) in faults {
            let known = |stage: &Stage| stage.live().is_some_and(|known| Arc::ptr_eq(known, live));
            if live.fault.direction().covers(self.way)
                && !self.stages.iter().any(known)
                && let Some(stage) = Stage::new(live, self.number, *hurts)
            {
                self.stages.push(stage);
            }
        }
    }

    /// The next bytes for the socket.
    pub(crate) fn head(&self) -> Option<&Bytes> {
        self.out.front()
    }

    /// Takes what the socket has taken of [`Line::head`].
    pub(crate) fn taken(&mut self, bytes: usize) {
        if let Some(head) = self.out.front_mut() {
            self.out_bytes -= bytes;
            let _ = head.split_to(bytes);
            if head.is_empty() {
                self.out.pop_front();
            }
        }
    }

    /// The end, once it is through; bytes may still be ahead of it in [`Line::head`].
    pub(crate) fn end(&self) -> Option<End> {
        self.end_out
    }

    /// Drops all: nobody is left to take it.
    pub(crate) fn abandon(&mut self) {
        *self = Self { end_in: true, ..Self::new(self.way, self.number) };
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
