//! One worker: a thread, a runtime of its own, its share of the arrivals, and the pacer that starts them in time.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::SyncSender;

use tokio::runtime::{Builder, LocalOptions};

use super::Load;
use super::clock::{Clock, MILLISECOND, SECOND, Timer, nanos};
use super::knobs::PaceCell;
use super::lane::{Job, Lane, Shared};
use super::phase::PhaseCell;
use super::tally::{Recorder, Slice};
#[cfg(feature = "http3")]
use super::wire::Protocol;
use crate::random::Random;
use crate::schedule::{Arrivals, NEVER, Pace};

/// How often overdue requests are looked for.
const SWEEP: u64 = 5 * MILLISECOND;
/// The longest sleep of a worker: it looks for a request to stop at least this often.
const NAP: u64 = 50 * MILLISECOND;
/// The time for saying goodbye to servers.
const PARTING: u64 = 50 * MILLISECOND;
/// Where responses are read into.
const SCRATCH: usize = 64 * 1024;

/// Whether the load goes on.
#[derive(Debug, Default)]
pub(super) struct StopCell(AtomicU8);

impl StopCell {
    /// It does.
    pub(super) const GOES_ON: u8 = 0;
    /// No more arrivals; what is under way may end.
    pub(super) const GRACEFUL: u8 = 1;
    /// Everything ends at once.
    pub(super) const NOW: u8 = 2;

    /// Asks to stop; a weaker request does not undo a stronger one.
    pub(super) fn request(&self, how: u8) {
        self.0.fetch_max(how, Ordering::Relaxed);
    }

    /// One of these.
    pub(super) fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All that a worker needs.
pub(super) struct Setup {
    pub(super) worker: u32,
    pub(super) workers: u32,
    /// What it sends, with the places among all loads.
    pub(super) loads: Vec<(usize, Arc<Load>)>,
    /// How many loads there are in all.
    pub(super) of_loads: usize,
    pub(super) clock: Clock,
    pub(super) phase: Arc<PhaseCell>,
    pub(super) stop: Arc<StopCell>,
    pub(super) paces: Arc<PaceCell>,
    pub(super) seed: u64,
    pub(super) out: SyncSender<Slice>,
}

/// The arrivals of one load, as far as this worker sends them.
struct Stream {
    load: Arc<Load>,
    arrivals: Arrivals,
    next: Option<u64>,
    /// Of the next request with slots: those of worker k of W are k, k + W, k + 2W, …
    number: u64,
    pace: Pace,
    random: Random,
    /// By origin.
    lanes: Vec<Rc<Lane>>,
}

impl Stream {
    fn new(setup: &Setup, index: usize, load: &Arc<Load>, shared: &Rc<Shared>) -> Self {
        let load = Arc::clone(load);
        let (worker, workers) = (setup.worker, setup.workers);
        let seed = setup.seed.wrapping_add(index as u64);
        let mut arrivals = if load.poisson {
            Arrivals::poisson(&load.profile, worker, workers, seed)
        } else {
            Arrivals::even(&load.profile, worker, workers)
        };
        let slots = load.max_connections / workers + u32::from(worker < load.max_connections % workers);
        let lane =
            |origin| Lane::new(Rc::clone(shared), Arc::clone(&load), index, origin, slots, worker as usize);
        let lanes = (0..load.origins.len()).map(lane).collect();
        let next = arrivals.next();
        let random = Random::new(!seed, u64::from(worker));
        Self { load, arrivals, next, number: u64::from(worker), pace: Pace::default(), random, lanes }
    }

    /// Goes on at another pace from the time at which it was announced.
    fn repace(&mut self, pace: Pace) {
        self.next = self.arrivals.pace(pace.clone());
        self.pace = pace;
    }

    /// A pause that lasts to the end of the arrivals is their end.
    fn end_pause(&mut self, now: u64) {
        if self.next == Some(NEVER) && now >= nanos(self.load.profile.duration()) {
            self.next = None;
        }
    }

    /// Starts everything that is due.
    fn dispatch(&mut self, shared: &Shared, workers: u32, now: u64) {
        let phase = shared.phase.get();
        while let Some(due) = self.next.filter(|due| *due <= now) {
            let kind = match &self.load.replay {
                Some(trace) => trace.shot(self.number).method,
                None => self.pick(),
            };
            let request = &self.load.checked.requests[usize::from(kind)];
            let job = Job { due, kind, phase, number: self.number, again: 0, handed: false };
            let lane = &self.lanes[request.origin];
            if request.recipe.slotted() {
                self.number += u64::from(workers);
            }
            if request.recipe.risky() && request.recipe.unfit(&self.load.arrival(&job)).is_some() {
                lane.refuse(job, now);
            } else {
                lane.dispatch(job, now);
            }
            self.next = self.arrivals.next();
        }
    }

    fn pick(&mut self) -> u16 {
        let weights = &self.load.checked.weights;
        match weights.last() {
            Some(sum) if weights.len() > 1 => {
                let drawn = (self.random.unit() * *sum as f64) as u64;
                weights.partition_point(|below| *below <= drawn).min(weights.len() - 1) as u16
            }
            _ => 0,
        }
    }

    /// The highest rate of the next second, for one worker.
    fn rate(&self, now: u64, workers: u32) -> f64 {
        let at = now as f64 / SECOND as f64;
        let rates = [0.0, 0.5, 1.0]
            .map(|ahead| self.load.profile.rate_at(at + ahead) * self.pace.factor_at(at + ahead));
        rates.into_iter().fold(0.0, f64::max) / f64::from(workers)
    }
}

/// How long arrivals are gathered: the wake-up, not the request, is what costs.
fn quantum(rate: f64) -> u64 {
    match rate {
        r if r <= 5_000.0 => 0,
        r if r <= 30_000.0 => 100_000,
        _ => 250_000,
    }
}

/// The thread of a worker. Sends its last slice in any case.
///
/// # Errors
/// No runtime or no timer.
pub(super) fn run(setup: &Setup) -> io::Result<()> {
    let mut kinds = vec![0; setup.of_loads];
    setup.loads.iter().for_each(|(place, load)| kinds[*place] = load.checked.requests.len());
    let recorder = Recorder::new(setup.worker as usize, &kinds, setup.out.clone());
    let shared = Rc::new(Shared {
        clock: setup.clock,
        phase: Arc::clone(&setup.phase),
        recorder: RefCell::new(recorder),
        scratch: RefCell::new(vec![0; SCRATCH]),
        outstanding: Cell::new(0),
        open: Cell::new(0),
        parting: Cell::new(false),
        farewells: Cell::new(0),
    });
    let mut builder = Builder::new_current_thread();
    builder.enable_io();
    #[cfg(feature = "http3")]
    if setup.loads.iter().any(|(_, load)| load.origins.iter().any(|o| o.protocol == Protocol::Http3)) {
        // QUIC sends again what is lost, at times of its own.
        builder.enable_time();
    }
    let runtime = builder.build_local(LocalOptions::default())?;
    let paced = runtime.block_on(work(setup, &shared));
    // Drops the tasks, and with them all connections and all other owners of what is shared.
    drop(runtime);
    if let Ok(Shared { recorder, outstanding, clock, .. }) = Rc::try_unwrap(shared) {
        recorder.into_inner().close(clock.now(), outstanding.get());
    }
    paced
}

async fn work(setup: &Setup, shared: &Rc<Shared>) -> io::Result<()> {
    let timer = Timer::new(setup.clock)?;
    // Before the start the clock stands still: whatever is due at once would be sent too early, and look as if it had taken
    // no time at all.
    timer.until(0).await?;
    let loads = setup.loads.iter();
    let mut streams: Vec<Stream> =
        loads.map(|(place, load)| Stream::new(setup, *place, load, shared)).collect();
    let paced = pace(setup, shared, &timer, &mut streams).await;
    part(shared, &timer, &streams).await?;
    paced
}

/// Lets connections that would leave their server in doubt say goodbye.
async fn part(shared: &Shared, timer: &Timer, streams: &[Stream]) -> io::Result<()> {
    shared.parting.set(true);
    if shared.farewells.get() > 0 {
        streams.iter().flat_map(|stream| &stream.lanes).for_each(|lane| lane.wake());
    }
    let limit = shared.clock.now() + PARTING;
    while shared.farewells.get() > 0 && shared.clock.now() < limit {
        timer.until(shared.clock.now() + MILLISECOND).await?;
    }
    Ok(())
}

async fn pace(setup: &Setup, shared: &Rc<Shared>, timer: &Timer, streams: &mut [Stream]) -> io::Result<()> {
    let Setup { clock, stop, workers, .. } = setup;
    let (mut sweep_at, mut second, mut gather, mut paced) = (0, u64::MAX, 0, 0);
    let exact = setup.loads.iter().any(|(_, load)| load.exact);
    // By then every request has met its deadline, unless a task died of a bug; no wait without an end.
    let drain = setup.loads.iter().map(|(_, load)| load.deadline).max().unwrap_or(0) + SECOND;
    let mut drained_by = u64::MAX;
    loop {
        let now = clock.now();
        shared.recorder.borrow_mut().roll(now, shared.open.get());
        if now / SECOND != second {
            second = now / SECOND;
            gather = if exact { 0 } else { quantum(streams.iter().map(|s| s.rate(now, *workers)).sum()) };
        }
        // It is announced ahead: whatever is due by `now` comes before any change that is not seen yet.
        if let Some(paces) = setup.paces.look(&mut paced) {
            for (stream, (place, _)) in streams.iter_mut().zip(&setup.loads) {
                stream.repace(paces[*place].clone());
            }
        }
        let stopping = stop.get();
        if stopping == StopCell::NOW {
            return Ok(());
        }
        if stopping == StopCell::GRACEFUL {
            for stream in &mut *streams {
                stream.next = None;
            }
        }
        for stream in &mut *streams {
            stream.dispatch(shared, *workers, now);
            stream.end_pause(now);
        }
        if now >= sweep_at {
            streams.iter().flat_map(|s| &s.lanes).for_each(|lane| lane.sweep(now));
            sweep_at = now + SWEEP;
        }
        let next = streams.iter().filter_map(|s| s.next).min();
        let busy = shared.outstanding.get() > 0;
        if next.is_none() && !busy {
            return Ok(());
        }
        if next.is_none() {
            drained_by = drained_by.min(now + drain);
        }
        if now >= drained_by {
            return Err(io::Error::other("a request never ended"));
        }
        let mut wake = ((second + 1) * SECOND).min(now + NAP);
        if busy {
            wake = wake.min(sweep_at);
        }
        if let Some(due) = next {
            wake = wake.min(due.max(now + gather));
        }
        match next {
            Some(due) if exact && due == wake => timer.just_at(due).await?,
            _ => timer.until(wake).await?,
        }
    }
}
