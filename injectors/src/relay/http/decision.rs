//! What the faults do to one request and to its response: decided when its head is complete, counted there.

use std::sync::Arc;
use std::time::Duration;

use crate::relay::chance::{self, Dice};
use crate::relay::fault::{Head, RelayFault};
use crate::relay::table::Live;

use super::edit::RequestHead;

/// A truncation that was decided with the request and strikes in the body of its response.
#[derive(Debug)]
pub(super) struct Cut {
    live: Arc<Live>,
    left: u64,
    chosen: bool,
    counted: bool,
}

/// An edit of a head that was decided with the request; whether there is something to edit shows in the head itself.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) live: Arc<Live>,
    pub(super) chosen: bool,
}

/// What the faults have decided about a request.
#[derive(Default)]
pub(super) struct Decision {
    pub(super) hold: Option<(Duration, Arc<Live>)>,
    pub(super) abort: Option<(u16, Arc<Live>)>,
    pub(super) request_edits: Vec<Edit>,
    pub(super) response_edits: Vec<Edit>,
    pub(super) cuts: Vec<Cut>,
}

impl Decision {
    /// Asks every fault what it does to this request; the first abort wins.
    pub(super) fn of(
        parsed: &RequestHead,
        faults: &[Arc<Live>],
        (connection, request): (u64, u64),
        dice: &mut Dice,
    ) -> Self {
        let mut decision = Self::default();
        let number = connection.rotate_left(32) ^ request;
        for live in faults {
            let matches = live.fault.matching().is_some_and(|matching| parsed.matches(matching));
            if live.ended() || !matches {
                continue;
            }
            if decision.abort.is_some() {
                // An earlier fault has answered: this one never met the request.
                continue;
            }
            live.stats.edit().seen.matched += 1;
            let chosen = chance::chosen(live.seed, number, live.fault.share());
            decision.take(live, chosen, dice);
        }
        decision
    }

    /// Adds what one fault does. What strikes a head or a body is counted there: it may have nothing to change.
    fn take(&mut self, live: &Arc<Live>, chosen: bool, dice: &mut Dice) {
        let owned = Arc::clone(live);
        match &live.fault {
            RelayFault::HttpTruncate { bytes, .. } => {
                self.cuts.push(Cut { live: owned, left: bytes.0, chosen, counted: false });
                return;
            }
            RelayFault::HttpHeader { on: Head::Request, .. } => {
                self.request_edits.push(Edit { live: owned, chosen });
                return;
            }
            RelayFault::HttpHeader { on: Head::Response, .. } => {
                self.response_edits.push(Edit { live: owned, chosen });
                return;
            }
            RelayFault::HttpAbort { status, .. } if chosen => self.abort = Some((*status, owned)),
            RelayFault::HttpDelay { scatter, .. } if chosen => {
                let so_far = self.hold.as_ref().map_or(Duration::ZERO, |(delay, _)| *delay);
                self.hold = Some((so_far + dice.delay(scatter), owned));
            }
            _ => {}
        }
        live.stats.edit().case(chosen);
    }
}

impl Cut {
    /// Counts body bytes; the number of them that still passes, if the body ends here.
    pub(super) fn strikes(&mut self, bytes: usize) -> Option<usize> {
        if self.counted || self.live.ended() {
            return None;
        }
        if bytes as u64 <= self.left {
            self.left -= bytes as u64;
            return None;
        }
        self.counted = true;
        self.live.stats.edit().case(self.chosen);
        self.chosen.then_some(self.left as usize)
    }
}
