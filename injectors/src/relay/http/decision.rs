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

/// What the faults have decided about a request.
#[derive(Default)]
pub(super) struct Decision {
    pub(super) hold: Option<(Duration, Arc<Live>)>,
    pub(super) abort: Option<(u16, Arc<Live>)>,
    pub(super) request_edits: Vec<Arc<Live>>,
    pub(super) response_edits: Vec<Arc<Live>>,
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
            let chosen = chance::chosen(live.seed, number, live.fault.share());
            if let RelayFault::HttpTruncate { bytes, .. } = &live.fault {
                let cut = Cut { live: Arc::clone(live), left: bytes.0, chosen, counted: false };
                decision.cuts.push(cut);
                continue;
            }
            if decision.abort.is_some() {
                // An earlier fault has answered: this one never met the request.
                continue;
            }
            let mut stats = live.stats.edit();
            stats.seen.eligible += 1;
            stats.seen.hit += u64::from(chosen);
            drop(stats);
            if !chosen {
                continue;
            }
            match &live.fault {
                RelayFault::HttpAbort { status, .. } => decision.abort = Some((*status, Arc::clone(live))),
                RelayFault::HttpDelay { scatter, .. } => {
                    let so_far = decision.hold.as_ref().map_or(Duration::ZERO, |(delay, _)| *delay);
                    decision.hold = Some((so_far + dice.delay(scatter), Arc::clone(live)));
                }
                RelayFault::HttpHeader { on: Head::Request, .. } => {
                    decision.request_edits.push(Arc::clone(live));
                }
                RelayFault::HttpHeader { on: Head::Response, .. } => {
                    decision.response_edits.push(Arc::clone(live));
                }
                _ => {}
            }
        }
        decision
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
        let mut stats = self.live.stats.edit();
        stats.seen.eligible += 1;
        stats.seen.hit += u64::from(self.chosen);
        self.chosen.then_some(self.left as usize)
    }
}
