//! The worker's side: it lets itself be told what to send, and stops when nobody tells it any more.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use injectors::sys::host;
use reports::record::Phase;
use tokio::runtime::Builder;

use super::seal::{Meeting, Role, Token, nonce};
use super::wire::{Ear, Mouth, Socket, WireError, wire};
use super::word::{Answer, Order, Plan, SliceWord};
use super::{HANDSHAKE, Job, LEASE, PROTOCOL, bytes, text};
use crate::experiment::here;
use crate::load::clock::Clock;
use crate::load::collect::throttled;
use crate::load::flow::{Reins, Taken};
use crate::load::journey::Journeys;
use crate::load::knobs::PaceCell;
use crate::load::phase::PhaseCell;
use crate::load::saturation::THROTTLED;
use crate::load::tally::Slice;
use crate::load::worker::StopCell;
use crate::load::{LoadError, LoadSpec, Part, SLICES, Share};

/// The hidden verb of a child.
pub const VERB: &str = "__load-worker";

/// What it is ready to send.
enum Task {
    /// A part of so many loads.
    Part(Part, usize),
    /// None once they are sent.
    Journeys(Option<Box<Journeys>>),
}

/// What a worker does for its coordinators.
#[derive(Debug, Clone, Default)]
pub(super) struct Rights {
    /// Hosts beyond its own machine that it may send to; any, where its coordinator is its parent, who has looked.
    pub(super) hosts: Option<Vec<String>>,
}

/// A worker that is a child: its parent's process id is the first argument, the connection its standard input. True if
/// it did what it was told.
pub fn child(args: &[String]) -> bool {
    let Some(parent) = args.first().and_then(|parent| parent.parse().ok()) else { return false };
    host::call_it("squall-load");
    if host::die_with(parent).is_err() {
        return false;
    }
    let Ok(fd) = io::stdin().as_fd().try_clone_to_owned() else { return false };
    let (token, rights) = (Token::default(), Rights::default());
    session(Box::new(UnixStream::from(fd)), &token, &AtomicBool::new(false), &rights, || {}).is_ok()
}

/// One coordinator, from its hello to its end; `proven` once it is no stranger any more.
pub(super) fn session(
    socket: Box<dyn Socket>,
    token: &Token,
    busy: &AtomicBool,
    rights: &Rights,
    proven: impl FnOnce(),
) -> Result<(), WireError> {
    let (mut ear, mut mouth) = wire(socket).map_err(WireError::Io)?;
    let refuse = |mouth: &mut Mouth, why: &str| {
        // It may have gone already.
        let _ = mouth.say(&Answer::Refused { why: why.to_owned() });
        Err(WireError::Garbled(why.to_owned()))
    };
    let greeted = greet(&mut ear, &mut mouth, token);
    if let Err(why) = greeted {
        return refuse(&mut mouth, &why.to_string());
    }
    proven();
    if busy.swap(true, Ordering::AcqRel) {
        return refuse(&mut mouth, "it is sending another load");
    }
    let done = serve(ear, mouth, rights);
    busy.store(false, Ordering::Release);
    done
}

/// The handshake.
fn greet(ear: &mut Ear, mouth: &mut Mouth, token: &Token) -> Result<(), WireError> {
    let Order::Hello { protocol, nonce: number } = ear.hear(HANDSHAKE)? else {
        return Err(WireError::Garbled("this is a squall worker, and that was no hello".to_owned()));
    };
    if protocol != PROTOCOL {
        let why = format!("version {protocol} of the protocol, and this squall speaks {PROTOCOL}");
        return Err(WireError::Garbled(why));
    }
    let coordinator = bytes(&number).and_then(|bytes| bytes.try_into().ok());
    let coordinator =
        coordinator.ok_or_else(|| WireError::Garbled("a hello of the wrong length".to_owned()))?;
    let meeting = Meeting { coordinator, worker: nonce() };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    mouth.say(&Answer::Challenge {
        protocol: PROTOCOL,
        nonce: text(&meeting.worker),
        proof: text(&meeting.proof(token, Role::Worker)),
        cores,
    })?;
    let Order::Proof { proof } = ear.hear(HANDSHAKE)? else {
        return Err(WireError::Garbled("no proof that it knows the token".to_owned()));
    };
    if !meeting.proven(token, Role::Coordinator, &bytes(&proof).unwrap_or_default()) {
        return Err(WireError::Refused("its token is another one".to_owned()));
    }
    ear.sealed(meeting.seal(token, Role::Coordinator));
    mouth.sealed(meeting.seal(token, Role::Worker));
    Ok(())
}

/// One job after another, until the coordinator hangs up.
fn serve(mut ear: Ear, mouth: Mouth, rights: &Rights) -> Result<(), WireError> {
    let mouth = Arc::new(Mutex::new(mouth));
    let mut next = None;
    loop {
        let plan = match next.take() {
            Some(plan) => plan,
            None => match ear.hear(LEASE) {
                Ok(Order::Plan(plan)) => plan,
                // What belongs to a job that has ended comes too late to matter.
                Ok(Order::Renew | Order::Enter { .. } | Order::Stop { .. } | Order::Pace { .. }) => continue,
                Ok(_) => return Err(out_of_turn()),
                Err(WireError::Closed) => return Ok(()),
                Err(why) => return Err(why),
            },
        };
        let task = match prepare(*plan, rights) {
            Ok((task, lowered)) => {
                say(&mouth, &Answer::Ready { lowered })?;
                task
            }
            Err(why) => {
                say(&mouth, &Answer::Refused { why: why.clone() })?;
                return Err(WireError::Refused(why));
            }
        };
        next = loop {
            match ear.hear(LEASE) {
                Ok(Order::Renew) => {}
                Ok(Order::Start { in_us, seed, phase }) => {
                    let origin = Instant::now() + Duration::from_micros(in_us.min(60_000_000));
                    break send(task, origin, seed, phase, &mut ear, &mouth)?;
                }
                Ok(Order::Stop { .. }) | Err(WireError::Closed) => return Ok(()),
                Ok(_) => return Err(out_of_turn()),
                Err(why) => return Err(why),
            }
        };
    }
}

fn out_of_turn() -> WireError {
    WireError::Garbled("a word out of turn".to_owned())
}

type Speaker = Arc<Mutex<Mouth>>;

fn say(mouth: &Speaker, answer: &Answer) -> Result<(), WireError> {
    mouth.lock().unwrap_or_else(PoisonError::into_inner).say(answer)
}

fn prepare(plan: Plan, rights: &Rights) -> Result<(Task, Option<String>), String> {
    let Plan { job, first, threads, of, loads } = plan;
    let fits = threads > 0 && first.checked_add(threads).is_some();
    if !fits || loads == 0 || loads > crate::load::LOADS_MAX {
        return Err("a plan for no thread or no load".to_owned());
    }
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let share = Share { first, threads, of };
    match job {
        Job::Journey(..) if rights.hosts.is_some() => {
            Err("users of a journey are walked by a child of their coordinator only".to_owned())
        }
        Job::Journey(place, spec, seats) => {
            if threads != 1 || place >= loads || seats.number >= seats.of {
                return Err("a plan for a thread or a load that there is not".to_owned());
            }
            let journeys = runtime.block_on(Journeys::new(*spec, place, seats, loads, first as usize));
            Ok((Task::Journeys(Some(Box::new(journeys.map_err(|error| error.to_string())?))), None))
        }
        Job::Open(specs) => {
            if first + threads > of || specs.iter().any(|(place, _)| *place >= loads) {
                return Err("a plan for a thread or a load that there is not".to_owned());
            }
            if let Some(hosts) = &rights.hosts {
                specs.iter().try_for_each(|(_, spec)| may_load(spec, hosts))?;
            }
            let mut part =
                runtime.block_on(Part::new(specs, share, loads)).map_err(|error| error.to_string())?;
            let lowered = part.within_limits().map_err(|error| error.to_string())?;
            Ok((Task::Part(part, loads), lowered))
        }
    }
}

/// Whoever this worker belongs to says where it may send to, whatever a coordinator may.
fn may_load(spec: &LoadSpec, hosts: &[String]) -> Result<(), String> {
    if spec.null || spec.unix.is_some() {
        return Ok(());
    }
    for request in &spec.requests {
        let host = crate::load::host(&request.url)?;
        here(&host, hosts).map_err(|bare| {
            format!("`{bare}` is not its own machine: if it may load that, say so there: squall worker --allow-host {bare}")
        })?;
    }
    Ok(())
}

/// Sends its part, and what it counts, until that is done or the coordinator says nothing more; the next plan, if there is
/// one.
fn send(
    mut task: Task,
    origin: Instant,
    seed: u64,
    phase: Phase,
    ear: &mut Ear,
    mouth: &Speaker,
) -> Result<Option<Box<Plan>>, WireError> {
    let (phase, stop) = (Arc::new(PhaseCell::new(phase)), Arc::new(StopCell::default()));
    let (out, slices) = sync_channel(SLICES * task.threads() as usize);
    let (told, before) = (Arc::clone(&stop), throttled());
    let clock = Clock::new(origin);
    let reins = task.reins(clock);
    let threads = task.start(clock, seed, &phase, &stop, &reins, &out).map_err(|error| {
        stop.request(StopCell::NOW);
        WireError::Garbled(error.to_string())
    })?;
    // Only the threads hold the sending side now: when they are gone, so is the end of the slices.
    drop(out);
    let (thread, speaker) = (std::thread::Builder::new().name("load-tell".to_owned()), Arc::clone(mouth));
    let cut = Arc::new(OnceLock::new());
    let why_cut = Arc::clone(&cut);
    let teller = thread.spawn(move || tell(&slices, threads, &speaker, before, origin, (&told, &why_cut)));
    let teller = teller.map_err(WireError::Io)?;
    let why = loop {
        match ear.hear(LEASE) {
            Ok(Order::Renew) => {}
            Ok(Order::Enter { phase: next }) => {
                phase.set(next);
                if let Err(why) = say(mouth, &Answer::Entered { phase: next }) {
                    break why;
                }
            }
            Ok(Order::Stop { now }) => stop.request(if now { StopCell::NOW } else { StopCell::GRACEFUL }),
            Ok(Order::Pace { paces }) if paces.len() == task.loads() => reins.paces.set(paces),
            Ok(Order::Take { class, thread, from }) if task.may_take(class, thread) => {
                task.take_over(class, thread, from, seed, &reins);
            }
            Ok(Order::Plan(plan)) if teller.is_finished() => {
                return if teller.join().unwrap_or(false) { Ok(Some(plan)) } else { Err(WireError::Closed) };
            }
            Ok(_) => break out_of_turn(),
            Err(why) => break why,
        }
    };
    // The coordinator hangs up when it has everything; before that, it is gone, and nobody may go on sending. Should it come
    // back, it must not take what there is for all.
    let _ = cut.set(format!("it stopped by itself: {why}"));
    stop.request(StopCell::NOW);
    let complete = teller.join().unwrap_or(false);
    if complete && matches!(why, WireError::Closed) { Ok(None) } else { Err(why) }
}

type Threads = Vec<std::thread::JoinHandle<Vec<String>>>;

impl Task {
    fn threads(&self) -> u32 {
        match self {
            Self::Part(part, _) => part.threads(),
            Self::Journeys(_) => 1,
        }
    }

    fn loads(&self) -> usize {
        match self {
            Self::Part(_, loads) => *loads,
            Self::Journeys(_) => 0,
        }
    }

    fn reins(&self, clock: Clock) -> Reins {
        let stay = match self {
            Self::Part(part, _) => part.length(),
            Self::Journeys(_) => 0,
        };
        Reins { paces: Arc::new(PaceCell::of(self.loads(), clock)), takes: Arc::default(), stay }
    }

    fn start(
        &mut self,
        clock: Clock,
        seed: u64,
        phase: &Arc<PhaseCell>,
        stop: &Arc<StopCell>,
        reins: &Reins,
        out: &SyncSender<Slice>,
    ) -> Result<Threads, LoadError> {
        match self {
            Self::Part(part, _) => part.start(clock, seed, phase, stop, reins, out),
            Self::Journeys(journeys) => journeys
                .take()
                .map_or(Ok(Vec::new()), |journeys| journeys.start(clock, seed, phase, stop, out)),
        }
    }

    /// Whether there is such a class, and a thread here to send it.
    fn may_take(&self, class: u32, thread: u32) -> bool {
        matches!(self, Self::Part(part, _) if part.may_take(class, thread))
    }

    /// A class of the arrivals is sent from here as well.
    fn take_over(&self, class: u32, thread: u32, from: u64, seed: u64, reins: &Reins) {
        let Self::Part(part, _) = self else { return };
        reins.takes.give(Taken { thread, flows: part.flows(class, from, seed, &reins.paces.now()) });
    }
}

/// Passes slices on; true once the coordinator was told everything.
fn tell(
    slices: &Receiver<Slice>,
    threads: Threads,
    mouth: &Speaker,
    throttled_before: Option<Duration>,
    origin: Instant,
    (stop, cut): (&StopCell, &OnceLock<String>),
) -> bool {
    let mut heard = true;
    while let Ok(slice) = slices.recv() {
        // Slices are taken in any case: threads that find no room for their last one would never end.
        heard = heard && say(mouth, &Answer::Slice(Box::new(SliceWord::from(&slice)))).is_ok();
        if !heard {
            stop.request(StopCell::NOW);
        }
    }
    let mut doubts: Vec<String> = Vec::new();
    for thread in threads {
        doubts.extend(thread.join().unwrap_or_else(|_| vec!["a load thread failed: it panicked".to_owned()]));
    }
    if let (Some(before), Some(after)) = (throttled_before, throttled()) {
        let (kept, of) = (after.saturating_sub(before), origin.elapsed());
        if kept.as_secs_f64() > THROTTLED * of.as_secs_f64() {
            doubts.push(format!(
                "the CPU limit of its control group kept it from running for {:.2} of {:.1} seconds",
                kept.as_secs_f64(),
                of.as_secs_f64()
            ));
        }
    }
    let end = cut.get().map_or(Answer::Ended { doubts }, |why| Answer::Refused { why: why.clone() });
    heard && say(mouth, &end).is_ok()
}
