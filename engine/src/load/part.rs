//! What threads of one process send: all of the loads, or a worker's part of their arrivals.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock::{self, Clock};
use super::flow::{Flow, Reins};
use super::lane::Job;
use super::null::Null;
use super::origin::{self, Origin};
use super::phase::PhaseCell;
use super::recipe::Made;
use super::spec::{self, Checked};
use super::tally::Slice;
use super::worker::{self, Setup, StopCell};
use super::{LoadError, LoadSpec};
use crate::feed::Feed;
use crate::filling::Filling;
use crate::replay::Trace;
use crate::schedule::{Pace, Profile};

/// Files that are kept from the load: pipes, journal, runtimes, probes, and a control socket or a process handle for
/// each injection under way.
const FILES_RESERVED: u64 = 64;

/// What the collector knows of a load, whoever sends it.
#[derive(Debug)]
pub(super) struct Outline {
    pub(super) name: Arc<str>,
    /// The names of its kinds of requests.
    pub(super) kinds: Vec<String>,
    /// Them in words.
    pub(super) sends: Vec<String>,
    /// In words.
    pub(super) arrivals: String,
    /// By then every request has ended.
    pub(super) longest: Duration,
    /// When requests are due, as it is written; none for users.
    pub(super) profile: Option<Profile>,
    /// They come at random.
    pub(super) poisson: bool,
    /// Why its rate cannot be changed while it is sent.
    pub(super) keeps: Option<&'static str>,
}

impl Outline {
    /// # Errors
    /// It could not be sent as it is.
    pub(super) fn new(spec: &LoadSpec) -> Result<Self, LoadError> {
        let checked = checked(spec)?;
        Ok(Self {
            name: Arc::from(spec.name.as_str()),
            kinds: checked.requests.iter().map(|request| request.name.clone()).collect(),
            sends: checked.requests.into_iter().map(|request| request.words).collect(),
            arrivals: format!("{}{}", spec.profile, if spec.poisson { ", at random" } else { "" }),
            longest: spec.profile.duration() + spec.deadline,
            profile: Some(spec.profile.clone()),
            poisson: spec.poisson,
            keeps: spec.replay.is_some().then_some("is sent from a log, which brings its own times"),
        })
    }
}

fn checked(spec: &LoadSpec) -> Result<Checked, LoadError> {
    spec::check(spec).map_err(|why| LoadError::Spec { load: spec.name.clone(), why })
}

/// A load, ready to be sent.
pub(super) struct Load {
    pub(super) checked: Checked,
    pub(super) origins: Vec<Origin>,
    pub(super) profile: Profile,
    pub(super) poisson: bool,
    pub(super) reuse: bool,
    pub(super) max_connections: u32,
    pub(super) streams: u32,
    pub(super) shed: bool,
    pub(super) exact: bool,
    /// In nanoseconds.
    pub(super) deadline: u64,
    /// In nanoseconds.
    pub(super) connect_within: u64,
    pub(super) feeds: Vec<Arc<Feed>>,
    pub(super) replay: Option<Arc<Trace>>,
    pub(super) seed: u64,
    /// Lives as long as the load that goes to it.
    _null: Option<Null>,
}

impl Load {
    /// The values of an arrival.
    pub(super) fn arrival(&self, job: &Job) -> Filling<'_> {
        Filling::new(&self.feeds, self.seed, job.number).replaying(self.replay.as_deref())
    }

    /// Makes the request of an arrival if it is not the same each time.
    pub(super) fn make(&self, job: &Job, out: &mut Made) {
        let recipe = &self.checked.requests[usize::from(job.kind)].recipe;
        if recipe.slotted() {
            recipe.make(&mut self.arrival(job), out).expect("it was looked at when it was dispatched");
        }
    }
}

/// Some threads of all that send the same loads: `first` is the number of the first of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) first: u32,
    pub(super) threads: u32,
    pub(super) of: u32,
}

/// See the module.
pub(super) struct Part {
    /// With their places among all loads.
    loads: Vec<(usize, Arc<Load>)>,
    share: Share,
    of_loads: usize,
}

impl Part {
    /// Nothing of so many loads.
    pub(super) fn nothing(of_loads: usize) -> Self {
        Self { loads: Vec::new(), share: Share { first: 0, threads: 0, of: 1 }, of_loads }
    }

    /// Checks and resolves.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) async fn new(
        specs: Vec<(usize, LoadSpec)>,
        share: Share,
        of_loads: usize,
    ) -> Result<Self, LoadError> {
        let mut loads = Vec::new();
        for (place, spec) in specs {
            let null = spec.null.then(Null::start).transpose().map_err(LoadError::Thread)?;
            let spec = null.as_ref().map_or_else(|| spec.clone(), |null| null.instead(spec.clone()));
            let checked = checked(&spec)?;
            let origins = origin::prepare(&checked.origins, &spec).await;
            let load = Load {
                origins: origins.map_err(|why| LoadError::Origin { load: spec.name.clone(), why })?,
                checked,
                profile: spec.profile,
                poisson: spec.poisson,
                reuse: spec.reuse,
                max_connections: spec.max_connections,
                streams: spec.streams,
                shed: spec.shed,
                exact: spec.exact,
                deadline: clock::nanos(spec.deadline),
                connect_within: clock::nanos(spec.connect_timeout),
                feeds: spec.feeds,
                replay: spec.replay,
                seed: 0,
                _null: null,
            };
            loads.push((place, Arc::new(load)));
        }
        Ok(Self { loads, share, of_loads })
    }

    /// How many threads it has.
    pub(super) fn threads(&self) -> u32 {
        self.share.threads
    }

    /// The most sockets that its threads may have open at a time.
    pub(super) fn sockets(&self) -> u64 {
        let Share { threads, of, .. } = self.share;
        let own = |connections: u32| (u64::from(connections) * u64::from(threads)).div_ceil(u64::from(of));
        self.loads.iter().map(|(_, load)| own(load.max_connections) * load.origins.len() as u64).sum()
    }

    /// Keeps it within what this process may open, as far as that can be raised; what had to be lowered, in words.
    ///
    /// # Errors
    /// Not even one connection for each load, origin and thread fits.
    pub(super) fn within_limits(&mut self) -> Result<Option<String>, LoadError> {
        let limit = injectors::sys::host::allow_files(self.sockets() + FILES_RESERVED);
        self.fit(limit, FILES_RESERVED)
    }

    /// See [`super::Prepared::fit`].
    pub(super) fn fit(&mut self, limit: u64, reserved: u64) -> Result<Option<String>, LoadError> {
        let (wanted, room) = (self.sockets(), limit.saturating_sub(reserved));
        if wanted <= room {
            return Ok(None);
        }
        let (threads, of) = (u64::from(self.share.threads), self.share.of);
        let least: u64 = self.loads.iter().map(|(_, load)| threads * load.origins.len() as u64).sum();
        if least > room {
            return Err(LoadError::Files { limit, needed: least + reserved });
        }
        let share = room as f64 / wanted as f64;
        for (_, load) in &mut self.loads {
            let lowered = (f64::from(load.max_connections) * share) as u32;
            let load = Arc::get_mut(load).expect("nothing has been started with it");
            load.max_connections = lowered.max(of);
        }
        Ok(Some(format!(
            "this process may open {limit} files: at most {} connections are kept instead of {wanted}",
            self.sockets()
        )))
    }

    #[cfg(test)]
    pub(super) fn loads(&self) -> &[(usize, Arc<Load>)] {
        &self.loads
    }

    /// Until when arrivals come due, in nanoseconds.
    pub(super) fn length(&self) -> u64 {
        let lengths = self.loads.iter().map(|(_, load)| clock::nanos(load.profile.duration()));
        lengths.max().unwrap_or_default()
    }

    /// Whether there is such a class, and such a thread here.
    pub(super) fn may_take(&self, class: u32, thread: u32) -> bool {
        let Share { first, threads, of } = self.share;
        class < of && (first..first + threads).contains(&thread)
    }

    /// A class of the arrivals of each load, from this time on, with the places of the loads.
    pub(super) fn flows(&self, class: u32, from: u64, seed: u64, paces: &[Pace]) -> Vec<(usize, Flow)> {
        let flow = |(place, load): &(usize, Arc<Load>)| {
            let mut flow = Flow::new(load, *place, (class, self.share.of), seed);
            paces.get(*place).into_iter().for_each(|pace| flow.repace(pace.clone()));
            flow.skip_to(load, from);
            (*place, flow)
        };
        self.loads.iter().map(flow).collect()
    }

    /// Starts its threads; each ends with the reasons why its numbers must not be trusted.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(
        &mut self,
        clock: Clock,
        seed: u64,
        phase: &Arc<PhaseCell>,
        stop: &Arc<StopCell>,
        reins: &Reins,
        out: &SyncSender<Slice>,
    ) -> Result<Vec<JoinHandle<Vec<String>>>, LoadError> {
        let Share { first, threads, of } = self.share;
        for (place, load) in &mut self.loads {
            let load = Arc::get_mut(load).expect("nothing has been started with it");
            load.seed = seed.wrapping_add(*place as u64);
        }
        let start = |worker| {
            let setup = Setup {
                worker,
                workers: of,
                loads: self.loads.clone(),
                of_loads: self.of_loads,
                clock,
                phase: Arc::clone(phase),
                stop: Arc::clone(stop),
                reins: reins.clone(),
                seed,
                out: out.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("load-{worker}"));
            let run = move || {
                let failed = worker::run(&setup).err();
                failed.map(|error| format!("a load thread failed: {error}")).into_iter().collect()
            };
            thread.spawn(run).map_err(LoadError::Thread)
        };
        (first..first + threads).map(start).collect()
    }
}
