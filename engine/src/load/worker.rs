//! One worker: a thread, a runtime of its own, its share of the arrivals, and the pacer that starts them in time.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::SyncSender;

use tokio::runtime::{Builder, LocalOptions};

use super::Load;
use super::clock::{Clock, MILLISECOND, SECOND, Timer};
use super::flow::{Flow, Reins};
use super::lane::{Job, Lane, Shared};
use super::phase::PhaseCell;
use super::tally::{Recorder, Slice};
#[cfg(feature = "http3")]
use super::wire::Protocol;

/// How often overdue requests are looked for.
const SWEEP: u64 = 5 * MILLISECOND;
/// The longest sleep of a worker: it looks for a request to stop at least this often.
const NAP: u64 = 50 * MILLISECOND;
/// No pace was looked at yet.
const NO_PACE: u64 = u64::MAX;
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
    pub(super) reins: Reins,
    pub(super) seed: u64,
    pub(super) out: SyncSender<Slice>,
}

impl Setup {
    /// The arrivals of its own class, of each load.
    fn streams(&self, shared: &Rc<Shared>) -> Vec<(usize, Stream)> {
        let own = |(place, load): &(usize, Arc<Load>)| {
            self.stream(*place, Flow::new(load, *place, (self.worker, self.workers), self.seed), shared)
        };
        self.loads.iter().filter_map(own).collect()
    }

    /// The arrivals of the load at this place; none if it is not among those of this worker.
    fn stream(&self, place: usize, flow: Flow, shared: &Rc<Shared>) -> Option<(usize, Stream)> {
        let (_, load) = self.loads.iter().find(|(own, _)| *own == place)?;
        Some((place, Stream::new(self.workers, place, load, flow, shared)))
    }
}

/// The arrivals of one load, as far as this worker sends them: those of its own class, or of one that it has taken over.
struct Stream {
    load: Arc<Load>,
    flow: Flow,
    /// By origin.
    lanes: Vec<Rc<Lane>>,
}

impl Stream {
    fn new(workers: u32, index: usize, load: &Arc<Load>, flow: Flow, shared: &Rc<Shared>) -> Self {
        let load = Arc::clone(load);
        let class = flow.class;
        let slots = load.max_connections / workers + u32::from(class < load.max_connections % workers);
        let lane =
            |origin| Lane::new(Rc::clone(shared), Arc::clone(&load), index, origin, slots, class as usize);
        let lanes = (0..load.origins.len()).map(lane).collect();
        Self { load, flow, lanes }
    }

    /// Starts everything that is due.
    fn dispatch(&mut self, shared: &Shared, now: u64) {
        let phase = shared.phase.get();
        while let Some(due) = self.flow.next.filter(|due| *due <= now) {
            let (kind, number) = self.flow.take(&self.load);
            let request = &self.load.checked.requests[usize::from(kind)];
            let job = Job { due, kind, phase, number, again: 0, handed: false, placed: 0 };
            let lane = &self.lanes[request.origin];
            if request.recipe.risky() && request.recipe.unfit(self.load.arrival(&job)).is_some() {
                lane.refuse(job, now);
            } else {
                lane.dispatch(job, now);
            }
        }
    }

    /// The highest rate of the next second, for one worker.
    fn rate(&self, now: u64, workers: u32) -> f64 {
        let at = now as f64 / SECOND as f64;
        let rates = [0.0, 0.5, 1.0]
            .map(|ahead| self.load.profile.rate_at(at + ahead) * self.flow.pace().factor_at(at + ahead));
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
    let mut recorder = Recorder::new(setup.worker as usize, &kinds, setup.out.clone());
    if setup.reins.stay > 0 {
        // It may be lost: what it has told by then counts.
        recorder = recorder.telling_all();
    }
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
    let mut streams = setup.streams(shared);
    let paced = pace(setup, shared, &timer, &mut streams).await;
    part(shared, &timer, &streams).await?;
    paced
}

/// Lets connections that would leave their server in doubt say goodbye.
async fn part(shared: &Shared, timer: &Timer, streams: &[(usize, Stream)]) -> io::Result<()> {
    shared.parting.set(true);
    if shared.farewells.get() > 0 {
        streams.iter().flat_map(|(_, stream)| &stream.lanes).for_each(|lane| lane.wake());
    }
    let limit = shared.clock.now() + PARTING;
    while shared.farewells.get() > 0 && shared.clock.now() < limit {
        timer.until(shared.clock.now() + MILLISECOND).await?;
    }
    Ok(())
}

async fn pace(
    setup: &Setup,
    shared: &Rc<Shared>,
    timer: &Timer,
    streams: &mut Vec<(usize, Stream)>,
) -> io::Result<()> {
    let Setup { clock, stop, workers, .. } = setup;
    let (mut sweep_at, mut second, mut gather, mut paced, mut took) = (0, u64::MAX, 0, 0, 0);
    let exact = setup.loads.iter().any(|(_, load)| load.exact);
    // By then every request has met its deadline, unless a task died of a bug; no wait without an end.
    let drain = setup.loads.iter().map(|(_, load)| load.deadline).max().unwrap_or(0) + SECOND;
    let mut drained_by = u64::MAX;
    loop {
        let now = clock.now();
        shared.recorder.borrow_mut().roll(now, shared.open.get());
        if now / SECOND != second {
            second = now / SECOND;
            let rate = streams.iter().map(|(_, s)| s.rate(now, *workers)).sum();
            gather = if exact { 0 } else { quantum(rate) };
        }
        for (place, flow) in setup.reins.takes.look(setup.worker, &mut took) {
            streams.extend(setup.stream(place, flow, shared));
            // Its pace may have changed since it was made ready.
            paced = NO_PACE;
        }
        // It is announced ahead: whatever is due by `now` comes before any change that is not seen yet.
        if let Some(paces) = setup.reins.paces.look(&mut paced) {
            for (place, stream) in &mut *streams {
                stream.flow.repace(paces[*place].clone());
            }
        }
        let stopping = stop.get();
        if stopping == StopCell::NOW {
            return Ok(());
        }
        if stopping == StopCell::GRACEFUL {
            for (_, stream) in &mut *streams {
                stream.flow.next = None;
            }
        }
        for (_, stream) in &mut *streams {
            stream.dispatch(shared, now);
            stream.flow.end_pause(&stream.load, now);
        }
        if now >= sweep_at {
            streams.iter().flat_map(|(_, s)| &s.lanes).for_each(|lane| lane.sweep(now));
            sweep_at = now + SWEEP;
        }
        let next = streams.iter().filter_map(|(_, s)| s.flow.next).min();
        let busy = shared.outstanding.get() > 0;
        let over = next.is_none() && (now >= setup.reins.stay || stopping == StopCell::GRACEFUL);
        if over && !busy {
            return Ok(());
        }
        if over {
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
