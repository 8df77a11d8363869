//! Who sends what: the one place where loads are dealt out, to threads of this process, to a team of workers, and for
//! journeys to a child each. Whoever sends, threads are numbered through, and all that follows knows no difference.

use std::sync::Arc;

use super::journey::Seats;
use super::part::{Outline, Part, Share};
use super::remote::{self, Crew, Hands, Job, Order, Team};
use super::{HttpVersion, JourneySpec, LOADS_MAX, LoadError, LoadSpec, PER_THREAD};
use crate::experiment::{Experiment, here};

/// Loads that are checked, and whoever is to send them ready to do so. Nothing has been sent.
pub struct Prepared {
    pub(super) outlines: Vec<Arc<Outline>>,
    /// What threads of this process send.
    pub(super) part: Part,
    /// What other processes send.
    pub(super) crew: Crew,
    /// Threads in all, wherever they are.
    pub(super) workers: u32,
}

/// One load, of either model.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Requests that arrive at a rate.
    Open(LoadSpec),
    /// Users or sessions that walk a journey.
    Journey(JourneySpec),
}

/// How many threads a rate gets.
#[derive(Debug, Clone, Copy)]
pub struct Threads {
    /// What one can send, in requests per second.
    pub per_thread: f64,
    /// So many times what follows from that.
    pub times: u32,
}

impl Default for Threads {
    fn default() -> Self {
        Self { per_thread: PER_THREAD, times: 1 }
    }
}

/// Checks the loads, resolves their hosts (once; all addresses are kept and used in turn) and reads certificates; threads
/// of this process are to send them. Needs a tokio runtime with time.
///
/// # Errors
/// The first thing that is wrong.
pub async fn prepare(specs: Vec<LoadSpec>) -> Result<Prepared, LoadError> {
    if specs.is_empty() || specs.len() > LOADS_MAX {
        return Err(LoadError::Count);
    }
    let outlines: Result<Vec<_>, LoadError> =
        specs.iter().map(|spec| Outline::new(spec).map(Arc::new)).collect();
    let outlines = outlines?;
    let workers = dealt(&specs, &[cores()], Threads::default())?.into_iter().sum();
    let (share, loads) = (Share { first: 0, threads: workers, of: workers }, specs.len());
    let part = Part::new(specs.into_iter().enumerate().collect(), share, loads).await?;
    Ok(Prepared { outlines, part, crew: Crew::nobody(), workers })
}

/// Loads of both models, ready to be sent: open ones by the team (threads of this process, if it is nobody), each load of
/// journeys by children. What had to be lowered, to keep within what a process may open, comes in words. Children end with
/// the thread that calls this.
///
/// # Errors
/// The first thing that is wrong; or not even one connection for each load and thread fits; or a worker is lost.
pub async fn ready(
    works: Vec<Work>,
    team: &Team,
    threads: Threads,
) -> Result<(Prepared, Option<String>), LoadError> {
    if works.is_empty() || works.len() > LOADS_MAX {
        return Err(LoadError::Count);
    }
    let outline = |work: &Work| match work {
        Work::Open(spec) => Outline::new(spec),
        Work::Journey(spec) => spec.outline(),
    };
    let outlines: Vec<Arc<Outline>> =
        works.iter().map(|work| outline(work).map(Arc::new)).collect::<Result<_, _>>()?;
    let (mut open, mut journeys, loads) = (Vec::new(), Vec::new(), works.len());
    for (place, work) in works.into_iter().enumerate() {
        match work {
            Work::Open(spec) => open.push((place, spec)),
            Work::Journey(spec) => journeys.push((place, spec)),
        }
    }
    let (mut part, mut crew, mut lowered) = (Part::nothing(loads), Crew::nobody(), Vec::new());
    let mut first = 0;
    if !open.is_empty() {
        let specs: Vec<LoadSpec> = open.iter().map(|(_, spec)| spec.clone()).collect();
        let each = dealt(&specs, &team.cores()?, threads)?;
        first = each.iter().sum();
        if team.is_nobody() {
            part = Part::new(open, Share { first: 0, threads: first, of: first }, loads).await?;
            lowered.extend(part.within_limits()?);
        } else {
            if specs.iter().any(|spec| spec.replay.is_some()) {
                return Err(LoadError::Replay);
            }
            let (hired, told) = team.brief(shares(&open, &each, &outlines))?;
            crew = hired;
            lowered.extend(told);
        }
    }
    let workers = first + journeys.iter().map(|(_, spec)| spec.processes()).sum::<u32>();
    let (walkers, told) = send_for(journeys, first, &outlines).await?;
    crew.join(walkers);
    lowered.extend(told);
    let lowered = (!lowered.is_empty()).then(|| lowered.join("; "));
    Ok((Prepared { outlines, part, crew, workers }, lowered))
}

/// The parts of open loads, for workers with so many threads each.
fn shares(open: &[(usize, LoadSpec)], each: &[u32], outlines: &[Arc<Outline>]) -> Vec<Order> {
    let kinds = |load: usize| {
        let own = open.iter().any(|(place, _)| *place == load);
        if own { outlines[load].kinds.len() } else { 0 }
    };
    let kinds: Vec<usize> = (0..outlines.len()).map(kinds).collect();
    let (of, mut first) = (each.iter().sum(), 0);
    let order = |threads: &u32| {
        first += threads;
        let job = Job::Open(open.to_vec());
        Order { job, first: first - threads, threads: *threads, of, kinds: kinds.clone() }
    };
    each.iter().map(order).collect()
}

/// Children for each load of journeys.
async fn send_for(
    journeys: Vec<(usize, JourneySpec)>,
    first: u32,
    outlines: &[Arc<Outline>],
) -> Result<(Crew, Vec<String>), LoadError> {
    if journeys.is_empty() {
        return Ok((Crew::nobody(), Vec::new()));
    }
    let mut orders = Vec::new();
    for (place, spec) in journeys {
        let kinds = |load: usize| if load == place { outlines[load].kinds.len() } else { 0 };
        let kinds: Vec<usize> = (0..outlines.len()).map(kinds).collect();
        let (of, spec) = (spec.processes(), spec.told()?);
        for number in 0..of {
            let job = Job::Journey(place, Box::new(spec.clone()), Seats { number, of });
            let first = first + orders.len() as u32;
            orders.push(Order { job, first, threads: 1, of: 1, kinds: kinds.clone() });
        }
    }
    let children = remote::hire(&Hands::Processes(orders.len() as u32)).await?;
    children.brief(orders)
}

/// The processors that threads of this process may run on.
pub(super) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

/// Threads for loads, by sender: as many as the rate asks for and no more than it has processors, evenly, for arrivals are
/// dealt out one by one; and each thread with at least one connection of each load.
fn dealt(specs: &[LoadSpec], cores: &[u32], threads: Threads) -> Result<Vec<u32>, LoadError> {
    // A request over HTTP/3 costs about twice as much.
    let cost = |spec: &LoadSpec| if spec.http == HttpVersion::Three { 2.0 } else { 1.0 };
    let peak: f64 = specs.iter().map(|spec| cost(spec) * spec.profile.peak()).sum();
    let connections = specs.iter().map(|spec| spec.max_connections).min().unwrap_or(1);
    let senders = cores.len() as u32;
    if senders > connections {
        return Err(LoadError::Connections { workers: senders, connections });
    }
    let Threads { per_thread, times } = threads;
    let each = ((peak / per_thread.min(PER_THREAD)).ceil() as u32).div_ceil(senders.max(1));
    let most = connections / senders.max(1);
    Ok(cores.iter().map(|cores| (each.clamp(1, *cores) * times).min(most)).collect())
}

/// Whether the open loads of an experiment can be sent by these.
///
/// # Errors
/// What is wrong, and the way out.
pub fn suits(experiment: &Experiment, hands: &Hands) -> Result<(), String> {
    let open = || experiment.load.iter().filter(|load| load.journey.is_none());
    match hands {
        Hands::Here => return Ok(()),
        _ if open().next().is_none() => {
            return Err(
                "users of a journey are one process of this machine: workers would have nothing to send"
                    .to_owned(),
            );
        }
        _ => {}
    }
    if let Some(load) = open().find(|load| load.replay.is_some()) {
        return Err(format!("load {}: {}", load.name, LoadError::Replay));
    }
    let Hands::At(addresses, _) = hands else { return Ok(()) };
    let far = addresses.iter().find(|at| {
        let host = at.rsplit_once(':').map_or(at.as_str(), |(host, _)| host);
        here(host, &[]).is_err()
    });
    let Some(far) = far else { return Ok(()) };
    // What is broken is broken on this machine, and there `127.0.0.1` is another one.
    for load in open().filter(|load| load.connecting.unix.is_none()) {
        for request in &load.requests {
            // What only a run knows, such as where its relays are, is on this machine.
            let late = request.url.contains("://${");
            if late || super::host(&request.url).is_ok_and(|host| here(&host, &[]).is_ok()) {
                return Err(format!(
                    "load {}: {} is the worker's own machine there, as seen from {far}, and not the one of this run: name a \
                     host that both know, or send from here (--workers)",
                    load.name, request.url
                ));
            }
        }
    }
    Ok(())
}

impl Prepared {
    /// The most sockets that the loads may have open at a time in this process.
    pub fn sockets(&self) -> u64 {
        self.part.sockets()
    }

    /// Keeps the connections of all loads below what this process may open, `reserved` files aside, so that neither
    /// proofs nor undos ever lack a descriptor. Returns what had to be lowered, in words.
    ///
    /// # Errors
    /// Not even one connection for each load, origin and thread fits.
    pub fn fit(&mut self, limit: u64, reserved: u64) -> Result<Option<String>, LoadError> {
        self.part.fit(limit, reserved)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::RequestSpec;
    use crate::schedule::{Profile, Segment};

    fn spec(rate: f64, connections: u32) -> LoadSpec {
        let hold = Segment::Hold { rate, lasting: Duration::from_secs(1) };
        let profile = Profile::new(vec![hold]).unwrap();
        let mut spec = LoadSpec::new("a", vec![RequestSpec::get("http://127.0.0.1:1/")], profile);
        spec.max_connections = connections;
        spec
    }

    #[test]
    fn threads_are_dealt_out_evenly_and_never_more_than_are_of_use() {
        let one = Threads::default();
        let twice = Threads { times: 2, ..one };
        for (rate, connections, cores, threads, wanted) in [
            (100.0, 1000, &[4][..], one, &[1][..]),
            (50_000.0, 1000, &[4], one, &[3]),
            (1e6, 1000, &[4], one, &[4]),
            (1e6, 2, &[4], one, &[2]),
            (100.0, 1000, &[4], twice, &[2]),
            (100.0, 1000, &[4, 4, 4], one, &[1, 1, 1]),
            (100_000.0, 1000, &[4, 1, 2], one, &[2, 1, 2]),
            (100_000.0, 1000, &[4, 1, 2], twice, &[4, 2, 4]),
            (100_000.0, 4, &[8, 8, 8], one, &[1, 1, 1]),
            (100.0, 1000, &[4], Threads { per_thread: 30.0, times: 1 }, &[4]),
        ] {
            let got = dealt(&[spec(rate, connections)], cores, threads).unwrap();
            assert_eq!(got, wanted, "{rate}/s over {connections} connections from {cores:?}");
        }
        assert!(matches!(
            dealt(&[spec(100.0, 2)], &[1, 1, 1], one),
            Err(LoadError::Connections { workers: 3, connections: 2 })
        ));
    }
}
