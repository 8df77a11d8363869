//! What a coordinator says to one worker: orders, renewals of the lease, and whatever changes while it sends.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use injectors::sys::timer::monotonic;

use super::wire::{Mouth, WireError};
use super::word::Order;
use super::{BEAT, RENEW};
use crate::load::clock::nanos;
use crate::load::knobs::PaceCell;
use crate::load::phase::PhaseCell;
use crate::load::worker::StopCell;

/// What there is to tell a worker.
pub(super) enum Told {
    /// This, now.
    Say(Order),
    /// It begins, and from now on hears of every change.
    Begin(Begin),
    /// It has ended.
    Over,
}

/// A job that begins, and what may change in it.
pub(super) struct Begin {
    /// On CLOCK_MONOTONIC.
    pub(super) origin: u64,
    pub(super) seed: u64,
    pub(super) phase: Arc<PhaseCell>,
    pub(super) stop: Arc<StopCell>,
    /// None if its rate cannot be changed.
    pub(super) paces: Option<Arc<PaceCell>>,
}

/// A thread that speaks to this worker. It ends, and the connection with it, when nobody has anything to tell any more, or
/// the worker does not hear; whoever listens to it notices.
pub(super) fn beating(mut mouth: Mouth) -> std::io::Result<Sender<Told>> {
    let (tell, told) = channel();
    let thread = std::thread::Builder::new().name("load-beat".to_owned());
    thread.spawn(move || {
        let _ = beat(&mut mouth, &told);
        mouth.hang_up();
    })?;
    Ok(tell)
}

/// A job as the worker knows it.
struct Known {
    job: Begin,
    phase: reports::record::Phase,
    stop: u8,
    paced: u64,
}

fn beat(mouth: &mut Mouth, told: &Receiver<Told>) -> Result<(), WireError> {
    let (mut sending, mut renew_at) = (None, 0);
    loop {
        let wait = if sending.is_some() { BEAT } else { RENEW };
        match told.recv_timeout(wait) {
            Ok(Told::Say(order)) => {
                // What comes with an order counts from what was changed before it.
                changes(mouth, &mut sending)?;
                mouth.say(&order)?;
            }
            Ok(Told::Begin(job)) => {
                let phase = job.phase.get();
                let in_us = job.origin.saturating_sub(monotonic()) / 1000;
                mouth.say(&Order::Start { in_us, seed: job.seed, phase })?;
                sending = Some(Known { job, phase, stop: StopCell::GOES_ON, paced: 0 });
            }
            Ok(Told::Over) => sending = None,
            Err(RecvTimeoutError::Timeout) => changes(mouth, &mut sending)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if monotonic() >= renew_at {
            renew_at = monotonic() + nanos(RENEW);
            mouth.say(&Order::Renew)?;
        }
    }
}

/// Says what has changed since.
fn changes(mouth: &mut Mouth, sending: &mut Option<Known>) -> Result<(), WireError> {
    let Some(Known { job, phase, stop, paced }) = sending else { return Ok(()) };
    if let Some(paces) = job.paces.as_ref().and_then(|paces| paces.look(paced)) {
        mouth.say(&Order::Pace { paces })?;
    }
    let now = job.phase.get();
    if now != *phase {
        *phase = now;
        mouth.say(&Order::Enter { phase: now })?;
    }
    let how = job.stop.get();
    if how != *stop {
        *stop = how;
        mouth.say(&Order::Stop { now: how == StopCell::NOW })?;
    }
    Ok(())
}
