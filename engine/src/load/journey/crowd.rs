//! All people of one load: what they share, and from the first to the last of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reports::record::Phase;
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::client::Client;
use super::queue::{Arrived, Queue};
use super::{JourneySpec, Seats, goose, walk};
use crate::journey::{Budget, Pace, Part, Script};
use crate::load::ErrorClass;
use crate::load::clock::{Clock, MILLISECOND, Timer, nanos};
use crate::load::http::Needle;
use crate::load::lane::Job;
use crate::load::phase::{PhaseCell, attribute};
use crate::load::tally::{Ending, Recorder};
use crate::load::worker::StopCell;
use crate::schedule::Arrivals;

/// How often seconds are closed, and the end is looked for.
const BEAT: Duration = Duration::from_millis(20);
/// goose looks at its users every half second, and may need some looks.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Crowd {
    pub(super) spec: JourneySpec,
    pub(super) script: Script,
    /// By request: a text that its answers must hold.
    pub(super) needles: Vec<Option<Needle>>,
    pub(super) client: Client,
    /// Which of all people are here.
    pub(super) seats: Seats,
    pub(super) clock: Clock,
    pub(super) seed: u64,
    pub(super) deadline: u64,
    /// Nothing is begun from then on.
    pub(super) until: u64,
    pub(super) budget: Option<Mutex<Budget>>,
    pub(super) queue: Queue,
    phase: Arc<PhaseCell>,
    /// None once it is closed.
    recorder: Mutex<Option<Recorder>>,
    place: usize,
    /// Steps that came due and have not ended.
    outstanding: AtomicU64,
    /// People who have lived.
    lived: AtomicU64,
    stop: watch::Sender<u8>,
}

impl Crowd {
    #[expect(clippy::too_many_arguments, reason = "the composition root of a crowd: each is used once, here")]
    pub(super) fn new(
        spec: JourneySpec,
        script: Script,
        client: Client,
        place: usize,
        seats: Seats,
        clock: Clock,
        phase: Arc<PhaseCell>,
        recorder: Recorder,
        seed: u64,
    ) -> Arc<Self> {
        let budget = spec.journey.retry.and_then(|retry| retry.budget);
        Arc::new(Self {
            deadline: nanos(spec.deadline),
            until: nanos(spec.journey.pace.lasting()),
            budget: budget.map(|share| Mutex::new(Budget::new(share, seats.of))),
            queue: Queue::new(),
            needles: (script.asks.iter())
                .map(|ask| ask.step.expect.body_contains.as_ref().map(|text| Needle::new(text.as_bytes())))
                .collect(),
            seats,
            recorder: Mutex::new(Some(recorder)),
            outstanding: AtomicU64::new(0),
            lived: AtomicU64::new(0),
            stop: watch::Sender::new(StopCell::GOES_ON),
            seed: seed.wrapping_add(place as u64),
            spec,
            script,
            client,
            clock,
            phase,
            place,
        })
    }

    /// How many people there are at a time here.
    fn people(&self) -> u32 {
        self.seats.share(self.spec.journey.pace.people())
    }

    fn recorder(&self) -> MutexGuard<'_, Option<Recorder>> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of the end.
    pub(super) fn told(&self) -> watch::Receiver<u8> {
        self.stop.subscribe()
    }

    /// A step came due at this time, and begins now. The phase to which it belongs, unless it touches the fault.
    pub(super) fn due(&self, due: u64) -> Phase {
        let (phase, now) = (self.phase.get(), self.clock.now());
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        if let Some(recorder) = &mut *self.recorder() {
            recorder.due(self.place, phase, now.saturating_sub(due));
        }
        phase
    }

    /// A step that came due has ended.
    pub(super) fn ended(&self, due: u64, kind: u16, phase: Phase, ending: &Ending<'_>) {
        let now = self.clock.now();
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        if let Some(recorder) = &mut *self.recorder() {
            recorder.roll(now, self.outstanding.load(Ordering::Relaxed));
            let job = Job { due, kind, phase, number: 0, again: 0, handed: false, placed: 0 };
            recorder.ended(self.place, &job, attribute(phase, self.phase.get()), now, ending);
        }
    }

    /// Something that is counted beside the steps: a whole journey, a further try.
    pub(super) fn beside(&self, since: u64, kind: u16, phase: Phase, failure: Option<ErrorClass>) {
        let now = self.clock.now();
        if let Some(recorder) = &mut *self.recorder() {
            let phase = attribute(phase, self.phase.get());
            recorder.beside(self.place, kind, phase, now.saturating_sub(since), failure);
        }
    }

    /// Whether nothing more is begun, but for last steps.
    pub(super) fn over(&self) -> bool {
        self.clock.now() >= self.until
    }

    /// The phase now.
    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Waits for a time; false if the end comes first. At or after the end, it has come.
    pub(super) async fn wait(&self, at: u64, told: &mut watch::Receiver<u8>) -> bool {
        if self.pause(at.min(self.until), told).await { at < self.until } else { false }
    }

    /// Waits for a time, whenever that is; false if it is stopped before.
    pub(super) async fn pause(&self, at: u64, told: &mut watch::Receiver<u8>) -> bool {
        if *told.borrow_and_update() != StopCell::GOES_ON {
            return false;
        }
        let left = self.clock.left(at);
        if left == 0 {
            return true;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_nanos(left)) => true,
            // Only ever said to stop.
            _ = told.changed() => false,
        }
    }
}

/// From the first to the last; on this thread.
///
/// # Errors
/// Why its numbers must not be trusted.
pub(super) fn run(crowd: &Arc<Crowd>, stop: &Arc<StopCell>) -> Result<(), String> {
    let ended =
        Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string()).and_then(
            |runtime| {
                let ended = runtime.block_on(live(crowd, stop));
                // Ends everybody who has not ended, with their connections.
                runtime.shutdown_background();
                ended
            },
        );
    if let Some(recorder) = crowd.recorder().take() {
        recorder.close(crowd.clock.now(), crowd.outstanding.load(Ordering::Relaxed));
    }
    ended.map_err(|why| format!("a load thread failed: {why}"))
}

async fn live(crowd: &Arc<Crowd>, stop: &Arc<StopCell>) -> Result<(), String> {
    let people = crowd.people();
    let (own, sessions) = (Arc::clone(crowd), matches!(crowd.spec.journey.pace, Pace::Sessions { .. }));
    let life = Arc::new(move |number: usize| {
        let crowd = Arc::clone(&own);
        Box::pin(async move {
            if sessions {
                walk::sessions(&crowd).await;
            } else {
                walk::user(&crowd, number).await;
            }
            crowd.lived.fetch_add(1, Ordering::Relaxed);
        }) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>
    });
    let mut watching = tokio::spawn(watch_over(Arc::clone(crowd), Arc::clone(stop)));
    let pacing = tokio::spawn(pace(Arc::clone(crowd)));
    let gathered = goose::gather(people, life);
    let watched = tokio::select! {
        // It looks at its users now and then; they are through, and nobody has to wait for that.
        watched = &mut watching => watched,
        ended = gathered => {
            ended?;
            if crowd.lived.load(Ordering::Relaxed) < u64::from(people) {
                return Err("goose ended before its time".to_owned());
            }
            watching.await
        }
    };
    let why = watched.unwrap_or_else(|error| error.to_string());
    if !why.is_empty() {
        return Err(why);
    }
    if *crowd.stop.borrow() != StopCell::GOES_ON {
        return Ok(());
    }
    // They are through when all have arrived and been walked, which may be a little before the end.
    if sessions && !pacing.is_finished() {
        return Err("goose ended before its time".to_owned());
    }
    match pacing.await {
        Ok(Err(error)) => Err(error.to_string()),
        _ if crowd.queue.rest() > 0 => Err("sessions were left over".to_owned()),
        _ => Ok(()),
    }
}

/// Closes seconds, passes the end on, and returns when everybody has lived, or should have; the reason is empty if all is
/// well.
async fn watch_over(crowd: Arc<Crowd>, stop: Arc<StopCell>) -> String {
    let sessions = matches!(crowd.spec.journey.pace, Pace::Sessions { .. });
    let people = u64::from(crowd.people());
    // The step under way has a deadline and is not tried again, and so has each last step, of which one that fails is the
    // last.
    let deadlines = 1 + crowd.script.longest(Part::Stop);
    let last = crowd.deadline.saturating_mul(deadlines).saturating_add(nanos(PATIENCE));
    let mut over_by = crowd.until.saturating_add(last);
    let mut beat = tokio::time::interval(BEAT);
    loop {
        beat.tick().await;
        let now = crowd.clock.now();
        if let Some(recorder) = &mut *crowd.recorder() {
            recorder.roll(now, crowd.outstanding.load(Ordering::Relaxed));
        }
        let how = stop.get();
        if how != *crowd.stop.borrow() {
            crowd.stop.send_replace(how);
            over_by = over_by.min(now.saturating_add(last));
        }
        // Users whose rows have run out are through early, and the load goes on without them.
        let through = crowd.lived.load(Ordering::Relaxed) == people
            && (sessions || how != StopCell::GOES_ON || crowd.over());
        if how == StopCell::NOW || through {
            return String::new();
        }
        if now >= over_by {
            return "a user never ended".to_owned();
        }
    }
}

/// Lets sessions arrive.
async fn pace(crowd: Arc<Crowd>) -> std::io::Result<()> {
    let Pace::Sessions { arrivals, poisson, .. } = &crowd.spec.journey.pace else { return Ok(()) };
    let Seats { number, of } = crowd.seats;
    let mut due = if *poisson {
        Arrivals::poisson(arrivals, number, of, crowd.seed)
    } else {
        Arrivals::even(arrivals, number, of)
    };
    let mut numbers = (u64::from(number)..).step_by(of as usize);
    let timer = Timer::new(crowd.clock)?;
    timer.until(0).await?;
    let told = crowd.told();
    let mut next = due.next();
    loop {
        let now = crowd.clock.now();
        while let Some(at) = next.filter(|at| *at <= now) {
            let number = numbers.next().unwrap_or_default();
            crowd.queue.push(Arrived { due: at, number });
            next = due.next();
        }
        for at in crowd.queue.overdue(now, crowd.deadline) {
            let phase = crowd.due(at);
            crowd.ended(at, crowd.script.first(), phase, &Ending::unsent());
        }
        let stopped = *told.borrow() != StopCell::GOES_ON;
        if stopped || (next.is_none() && crowd.queue.rest() == 0) {
            crowd.queue.close();
            return Ok(());
        }
        timer.until(next.unwrap_or(u64::MAX).min(now + 20 * MILLISECOND)).await?;
    }
}
