//! Workers that send one job: they are listened to, and what one of them leaves undone is given to the others.
//!
//! Arrivals are dealt out by number: class k of W has the arrivals k, k + W, k + 2W, … So the share of a worker that is lost
//! is some classes, and any thread can go on with a class from a given time, exactly ([`crate::load::flow`]). What the lost
//! one had to send before that time and has not told of is missing, and counted.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use injectors::sys::timer::monotonic;
use reports::record::Phase;

use super::LEASE;
use super::beat::{Begin, Told};
use super::hire::{Home, Met};
use super::wire::WireError;
use super::word::{Answer, Bounds, Order};
use crate::load::clock::{Clock, MILLISECOND, SECOND, nanos};
use crate::load::flow::arrivals;
use crate::load::knobs::PaceCell;
use crate::load::part::Outline;
use crate::load::phase::PhaseCell;
use crate::load::tally::Slice;
use crate::load::worker::StopCell;
use crate::load::{LoadError, Loss};
use crate::schedule::NEVER;

/// How far ahead a share is given to others: they know of it by then.
const AHEAD: u64 = 250 * MILLISECOND;

/// What all listeners of one job share.
pub(in crate::load) struct Task {
    pub(in crate::load) outlines: Vec<Arc<Outline>>,
    pub(in crate::load) origin: Instant,
    pub(in crate::load) clock: Clock,
    pub(in crate::load) seed: u64,
    pub(in crate::load) phase: Arc<PhaseCell>,
    pub(in crate::load) stop: Arc<StopCell>,
    pub(in crate::load) paces: Arc<PaceCell>,
}

/// What is known of a worker while it sends.
pub(in crate::load) struct Member {
    phase: AtomicU8,
    sends: AtomicBool,
}

impl Member {
    /// Whether every request of it that ends from now on belongs to this phase or a later one.
    pub(in crate::load) fn is_in(&self, phase: Phase) -> bool {
        !self.sends.load(Ordering::Acquire) || self.phase.load(Ordering::Acquire) >= phase as u8
    }
}

/// A worker that could start at once.
pub(super) struct Hired {
    met: Met,
    bounds: Bounds,
    /// The threads of all workers among which arrivals are dealt out; none for a journey.
    of: Option<u32>,
    home: Home,
    member: Arc<Member>,
}

/// Workers that could start at once; dropping it sends them home.
pub(in crate::load) struct Crew(Vec<Hired>);

impl Hired {
    pub(super) fn new(met: Met, bounds: Bounds, of: Option<u32>, home: Home) -> Self {
        let member = Member { phase: AtomicU8::new(0), sends: AtomicBool::new(true) };
        Self { met, bounds, of, home, member: Arc::new(member) }
    }

    pub(super) fn name(&self) -> &str {
        &self.met.name
    }
}

impl Crew {
    /// Nobody.
    pub(in crate::load) fn nobody() -> Self {
        Self(Vec::new())
    }

    pub(super) fn of(hired: Vec<Hired>) -> Self {
        Self(hired)
    }

    pub(in crate::load) fn is_nobody(&self) -> bool {
        self.0.is_empty()
    }

    /// Others send as well.
    pub(in crate::load) fn join(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// What is known of each while it sends.
    pub(in crate::load) fn members(&self) -> Vec<Arc<Member>> {
        self.0.iter().map(|hired| Arc::clone(&hired.member)).collect()
    }

    /// All begin at this time. A thread for each passes its slices on, and returns why its numbers must not be trusted; what
    /// is lost on the way comes apart.
    ///
    /// # Errors
    /// A thread cannot be started.
    #[expect(clippy::type_complexity, reason = "both ends of what is begun here")]
    pub(in crate::load) fn start(
        self,
        task: Task,
        out: &SyncSender<Slice>,
    ) -> Result<(Vec<JoinHandle<Vec<String>>>, Receiver<Loss>), LoadError> {
        let origin = monotonic() + nanos(task.origin.saturating_duration_since(Instant::now()));
        let (lost, losses) = channel();
        let of = self.0.iter().find_map(|hired| hired.of).unwrap_or(0);
        let post = |hired: &Hired| Post {
            bounds: hired.bounds.clone(),
            tell: hired.met.tell.clone(),
            member: Arc::clone(&hired.member),
            open: hired.of.is_some(),
        };
        let roster = Arc::new(Roster {
            of,
            posts: self.0.iter().map(post).collect(),
            classes: Mutex::new((0..of).map(|thread| Class { thread, from: 0 }).collect()),
            task,
            lost,
        });
        let mut threads = Vec::new();
        for (at, hired) in self.0.into_iter().enumerate() {
            let Task { seed, phase, stop, paces, .. } = &roster.task;
            let begin = Begin {
                origin,
                seed: *seed,
                phase: Arc::clone(phase),
                stop: Arc::clone(stop),
                paces: hired.of.map(|_| Arc::clone(paces)),
            };
            hired.member.phase.store(phase.get() as u8, Ordering::Release);
            // An error means that it is lost, and its listener says so.
            let _ = hired.met.tell.send(Told::Begin(begin));
            let (out, roster) = (out.clone(), Arc::clone(&roster));
            let thread = std::thread::Builder::new().name("load-listen".to_owned());
            let listen = move || hired.listen(at, &roster, &out);
            threads.push(thread.spawn(listen).map_err(LoadError::Thread)?);
        }
        Ok((threads, losses))
    }
}

/// What was heard of a worker.
struct Heard {
    /// Seconds that it has told of.
    seconds: u64,
    /// Requests that have ended, by load.
    ended: Vec<u64>,
    /// The phase when it told of the last of them.
    phase: Phase,
    /// Threads that have not told everything.
    open: Vec<bool>,
}

impl Hired {
    /// Until it has sent everything, or is lost.
    fn listen(mut self, at: usize, roster: &Roster, out: &SyncSender<Slice>) -> Vec<String> {
        let mut heard = Heard {
            seconds: 0,
            ended: vec![0; self.bounds.kinds.len()],
            phase: roster.task.phase.get(),
            open: vec![true; self.bounds.threads],
        };
        let why = match self.hear(roster, out, &mut heard) {
            Ok(doubts) => {
                self.member.sends.store(false, Ordering::Release);
                let _ = self.met.tell.send(Told::Over);
                let doubts = doubts.iter().map(|doubt| format!("{}: {doubt}", self.met.name)).collect();
                self.home.back(self.met);
                return doubts;
            }
            Err(why) => why,
        };
        self.member.sends.store(false, Ordering::Release);
        self.met.ear.hang_up();
        let status = self.met.kid.as_mut().and_then(|kid| kid.0.try_wait().ok().flatten());
        let status = status.map(|status| format!("; {status}")).unwrap_or_default();
        let came = roster.lost(at, &heard, &self.met.name, format!("{why}{status}"));
        for thread in heard.open.iter().enumerate().filter_map(|(thread, open)| open.then_some(thread)) {
            // Nothing more comes of it: nobody has to wait.
            let mut last = Slice::new(self.bounds.first + thread, heard.seconds, heard.ended.len());
            last.last = Some(0);
            let _ = out.send(last);
        }
        came.err().into_iter().collect()
    }

    fn hear(
        &mut self,
        roster: &Roster,
        out: &SyncSender<Slice>,
        heard: &mut Heard,
    ) -> Result<Vec<String>, WireError> {
        loop {
            match self.met.ear.hear::<Answer>(LEASE)? {
                Answer::Slice(word) => {
                    let slice = word.slice(&self.bounds).map_err(WireError::Garbled)?;
                    heard.seconds = slice.second + 1;
                    heard.phase = roster.task.phase.get();
                    for (ended, phases) in heard.ended.iter_mut().zip(&slice.loads) {
                        *ended += phases.iter().flatten().map(|phase| phase.all.ended()).sum::<u64>();
                    }
                    if slice.last.is_some() {
                        heard.open[slice.worker - self.bounds.first] = false;
                    }
                    // Nobody wants it any more if that fails; the end comes all the same.
                    let _ = out.send(slice);
                }
                Answer::Entered { phase } => self.member.phase.store(phase as u8, Ordering::Release),
                Answer::Ended { doubts } if !heard.open.contains(&true) || !doubts.is_empty() => {
                    return Ok(doubts);
                }
                Answer::Refused { why } => return Err(WireError::Refused(why)),
                _ => return Err(WireError::Garbled("it ended without having sent everything".to_owned())),
            }
        }
    }
}

/// A worker as the others know it.
struct Post {
    bounds: Bounds,
    tell: Sender<Told>,
    member: Arc<Member>,
    open: bool,
}

/// Who sends a class of the arrivals.
struct Class {
    thread: u32,
    /// From when on, in nanoseconds.
    from: u64,
}

/// Who sends what.
struct Roster {
    task: Task,
    of: u32,
    posts: Vec<Post>,
    classes: Mutex<Vec<Class>>,
    lost: Sender<Loss>,
}

impl Roster {
    /// One is lost: its share goes to the others, and what is missing is counted.
    ///
    /// # Errors
    /// What is missing cannot be told: why the numbers must not be trusted.
    fn lost(&self, at: usize, heard: &Heard, name: &str, why: String) -> Result<(), String> {
        let Task { outlines, clock, stop, phase, paces, .. } = &self.task;
        if !self.posts[at].open || stop.get() != StopCell::GOES_ON {
            return Err(format!(
                "{name} was lost after second {} ({why}): what it sent after that is missing",
                heard.seconds
            ));
        }
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        let others: Vec<(u32, &Post)> = self
            .posts
            .iter()
            .filter(|post| post.open && post.member.sends.load(Ordering::Acquire))
            .flat_map(|post| post.bounds.all().map(move |thread| (thread as u32, post)))
            .collect();
        let end =
            outlines.iter().filter_map(|one| one.profile.as_ref()).map(|one| nanos(one.duration())).max();
        let end = end.unwrap_or_default();
        let now = clock.now();
        let to = if others.is_empty() { end } else { (now + AHEAD).min(end) };
        let mut taking = others.iter().cycle();
        let mut missing = vec![0u64; outlines.len()];
        let paces = paces.now();
        for (number, class) in classes.iter_mut().enumerate() {
            if !self.posts[at].bounds.all().contains(&(class.thread as usize)) {
                continue;
            }
            let number = number as u32;
            let since = class.from;
            if let Some((thread, post)) = taking.next().filter(|_| to < end) {
                *class = Class { thread: *thread, from: to };
                // One that hears it no more is lost as well, and its listener counts from here.
                let _ = post.tell.send(Told::Say(Order::Take { class: number, thread: *thread, from: to }));
            }
            for (place, outline) in outlines.iter().enumerate() {
                let Some(profile) = &outline.profile else { continue };
                let before = |at: u64| {
                    let mut all =
                        arrivals((profile, outline.poisson), place, (number, self.of), self.task.seed);
                    let _ = all.pace(paces[place].clone());
                    all.skip_to(if at == end { NEVER } else { at }).0
                };
                missing[place] += before(to) - before(since);
            }
        }
        drop(classes);
        let missing: Vec<u64> =
            missing.iter().zip(&heard.ended).map(|(due, ended)| due.saturating_sub(*ended)).collect();
        let loss = Loss {
            worker: name.to_owned(),
            why,
            from_s: heard.seconds as f64,
            to_s: to as f64 / SECOND as f64,
            missing,
            taken_over: !others.is_empty(),
            phases: (heard.phase, phase.get()),
            weighs: 0.0,
        };
        // Nobody wants to know if the collector is gone.
        let _ = self.lost.send(loss);
        Ok(())
    }
}
