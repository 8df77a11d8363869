//! The dispatcher: one task that hears everything and decides.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use injectors::Env;
use injectors::journal::{self, Entry, Journal};
use reports::RunRecord;
use reports::record::{End, InjectionRecord, Phase, PhaseSpan};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use super::course::{Course, waiting};
use super::desk::{self, Desk, Wish};
use super::event::{self, Event, Observer};
use super::guardian::Guardian;
use super::injection::{self, Haste, Log, Report, Shared};
use super::watch::snapshot;
use super::world::World;
use super::{Options, Refusal, Signals, build, late_names};
use crate::clock::Clock;
use crate::experiment::Experiment;
use crate::load::{self, Loss, PhaseCell, Running, Stop, Threads, Tick};
use crate::plan::Plan;
use crate::probe;

/// Time between the last preparation and the first arrival.
const LEAD: Duration = Duration::from_millis(100);
/// Time that a run may take beyond its load before the guardian ends it.
const SLACK: Duration = Duration::from_secs(120);
/// How often the engine looks at the clock.
const BEAT: Duration = Duration::from_millis(500);
/// How long injections may take to end once they were told to.
const UNDO_DEADLINE: Duration = Duration::from_secs(180);

struct Dispatcher<'a> {
    experiment: &'a Experiment,
    plan: &'a Plan,
    phase: Arc<PhaseCell>,
    haste: watch::Sender<Haste>,
    load: &'a Running,
    observer: &'a mut dyn Observer,
    course: Course,
    live: Vec<(String, String)>,
    baseline_judged: bool,
    undone_at: Option<f64>,
    words: u32,
    /// It was told what is waited for when the load is over.
    waits: bool,
    desk: Desk,
}

/// Runs the plan and returns its record, judged and written.
#[expect(clippy::too_many_arguments, reason = "the composition root of a run: each is used once, here")]
pub(super) async fn dispatch(
    experiment: &Experiment,
    plan: Plan,
    options: &Options,
    run: &str,
    folder: &Path,
    world: &World,
    mut signals: Signals,
    observer: &mut dyn Observer,
) -> Result<RunRecord, Refusal> {
    let late = late_names(world);
    let team = load::remote::hire(&options.hands).await?;
    let (prepared, lowered) = load::ready(load::specs(experiment, &late), &team, Threads::default()).await?;
    let duration = experiment.duration();
    let env = Env::host(world.inventory.clone());
    injection::preflight(&env, run, &plan.injections).await.map_err(Refusal::Preflight)?;
    let guardian = Guardian::start(&options.exe, folder, duration + SLACK, &experiment.secrets).await?;
    let mut journal = Journal::open(folder, experiment.secrets.clone())?;
    journal.append(Entry::Begin {
        version: journal::VERSION,
        run: run.to_owned(),
        experiment: plan.experiment.clone(),
    })?;
    let clock = Clock::starting_in(LEAD);
    let (reports, mut heard) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        env,
        journal: Log::new(journal),
        guardian,
        clock,
        store: options.store.clone(),
        run: run.to_owned(),
        crash: options.crash,
        claims: Mutex::default(),
        reports,
    });
    let phase = Arc::new(PhaseCell::new(Phase::WarmUp));
    let mut load = load::start(prepared, &phase, clock.origin(), plan.seed)?;
    let mut ticks = load.ticks().expect("nobody else takes the ticks");
    let (haste, told) = watch::channel(Haste::Wait);
    let mut injections = JoinSet::new();
    for planned in &plan.injections {
        injections.spawn(injection::live(Arc::clone(&shared), planned.clone(), told.clone()));
    }
    let mut probes = probe::Probes::start(&experiment.probes, &late, clock);
    let (desk, deaf) = Desk::or_why(&folder.join(desk::FILE));
    let mut dispatcher = Dispatcher {
        experiment,
        plan: &plan,
        phase,
        haste,
        load: &load,
        observer,
        course: Course::new(clock, experiment),
        live: Vec::new(),
        baseline_judged: false,
        undone_at: None,
        words: 0,
        waits: false,
        desk,
    };
    dispatcher.begin(run, folder, lowered.into_iter().chain(deaf));
    dispatcher.course(&shared, &mut ticks, &mut heard, &mut injections, &mut probes, &mut signals).await;
    let Dispatcher { mut course, .. } = dispatcher;
    probes.end();
    if matches!(course.end, End::Aborted { .. } | End::NotSteady(_)) {
        load.stop(Stop::Now);
    }
    let outcome = load.finish().await;
    course.close_phase();
    let settled = injection::settle(shared, folder, &mut course.injections).await;
    for event in &settled.undone {
        course.told(event, observer);
        course.restored_at = Some(clock.now());
    }
    let record = build::record(experiment, &plan, options, run, world, course, outcome);
    settled.end(record.judgement.exit).await;
    Ok(record)
}

impl Dispatcher<'_> {
    fn begin(&mut self, run: &str, folder: &Path, notes: impl Iterator<Item = String>) {
        self.tell(&Event::Started {
            run: run.to_owned(),
            folder: folder.display().to_string(),
            experiment: self.plan.experiment.clone(),
            question: self.plan.question.clone(),
            duration_s: self.plan.duration_s,
        });
        for text in self.plan.notes.iter().cloned().chain(notes) {
            self.tell(&Event::Note { text });
        }
    }

    fn tell(&mut self, event: &Event) {
        self.course.told(event, self.observer);
    }

    /// From the first to the last event of the run.
    async fn course(
        &mut self,
        shared: &Shared,
        ticks: &mut mpsc::Receiver<Tick>,
        heard: &mut mpsc::UnboundedReceiver<Report>,
        injections: &mut JoinSet<InjectionRecord>,
        probes: &mut probe::Probes,
        signals: &mut Signals,
    ) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticking = true;
        let mut guarded = true;
        let unguarded = shared.guardian.lost();
        tokio::pin!(unguarded);
        let warm = self.course.clock.at(self.experiment.warm_up.as_secs_f64());
        let warming = tokio::time::sleep_until(warm);
        tokio::pin!(warming);
        loop {
            if injections.is_empty() && (!ticking || self.stopping()) {
                break;
            }
            tokio::select! {
                biased;
                word = signals.next() => if self.operator(word) { return },
                Some(report) = heard.recv() => self.report(report),
                wish = self.desk.next() => self.turn(wish, shared).await,
                Some(done) = injections.join_next(), if !injections.is_empty() => {
                    self.injection_done(done, injections.is_empty());
                }
                why = &mut unguarded, if guarded => {
                    guarded = false;
                    self.abort("guardian", &format!("{why}: nothing would protect this run"));
                }
                tick = ticks.recv(), if ticking => match tick {
                    Some(tick) => {
                        self.losses(&tick.losses, shared).await;
                        self.second(&tick);
                    }
                    None => ticking = self.load_ended(),
                },
                (index, seen) = probes.next() => self.probe(index, seen),
                () = &mut warming, if self.phase.get() == Phase::WarmUp => self.enter(Phase::Baseline),
                _ = beat.tick() => self.by_clock(),
            }
        }
        while let Ok(report) = heard.try_recv() {
            self.report(report);
        }
    }

    /// Changes the rate of the load, and keeps that in the journal and among the events.
    async fn turn(&mut self, wish: Wish, shared: &Shared) {
        let came = self.load.knobs().turn(wish.load.as_deref(), wish.knob);
        for turned in came.iter().flatten() {
            let entry = Entry::Turned { load: turned.load.clone(), at_s: turned.at_s, factor: turned.factor };
            if let Err(error) = shared.journal.append(entry).await {
                self.tell(&Event::Trouble { text: format!("the journal has no word of it: {error}") });
            }
            self.tell(&Event::Turned { text: turned.words() });
        }
        wish.answer(came);
    }

    /// Keeps in the journal and among the events which workers were lost.
    async fn losses(&mut self, losses: &[Loss], shared: &Shared) {
        for loss in losses {
            let Loss { worker, from_s, to_s, .. } = loss.clone();
            let entry = Entry::WorkerLost { worker, from_s, to_s, missing: loss.missing() };
            if let Err(error) = shared.journal.append(entry).await {
                self.tell(&Event::Trouble { text: format!("the journal has no word of it: {error}") });
            }
            self.tell(&Event::WorkerLost { text: loss.words() });
        }
    }

    fn stopping(&self) -> bool {
        !matches!(self.course.end, End::Completed)
    }

    /// The last second of the load is in; false, since no more will come. Too early, it ends the run.
    fn load_ended(&mut self) -> bool {
        if !self.stopping() && self.course.clock.now() + 1.0 < self.plan.duration_s {
            self.abort("load", "the load ended before its time");
        }
        false
    }

    /// Moves phases on by the clock.
    fn by_clock(&mut self) {
        let now = self.course.clock.now();
        let first = self.plan.injections.iter().map(|planned| planned.at_s).fold(f64::INFINITY, f64::min);
        // The gate opens a beat early, so that injections begin on time; the data are those of whole seconds.
        if !self.baseline_judged && !self.stopping() && now >= first - BEAT.as_secs_f64() {
            self.judge_baseline();
        }
        if let Some(undone) = self.undone_at
            && self.phase.get() == Phase::Recovery
            && now >= undone + self.experiment.recover_within.as_secs_f64()
        {
            self.enter(Phase::After);
        }
        if !self.waits && !self.stopping() && now > self.plan.duration_s + 1.0 {
            self.waits = true;
            let text = waiting(self.experiment);
            self.tell(&Event::Note { text });
        }
        if self.restoring_for() > UNDO_DEADLINE.as_secs_f64() {
            self.haste.send_replace(Haste::Now);
        }
    }

    fn restoring_for(&self) -> f64 {
        self.course.restore_from.map_or(0.0, |from| self.course.clock.now() - from)
    }

    fn judge_baseline(&mut self) {
        self.baseline_judged = true;
        let probes = self.course.probes.iter().filter(|probe| probe.phases.contains(&Phase::Baseline));
        let failing = probes.into_iter().find_map(probe::baseline_miss);
        match self.course.watch.steady(&self.experiment.objectives).and_then(|()| failing.map_or(Ok(()), Err))
        {
            Ok(()) => {
                self.haste.send_if_modified(|haste| {
                    let wait = *haste == Haste::Wait;
                    *haste = (*haste).max(Haste::Planned);
                    wait
                });
            }
            Err(why) => {
                self.tell(&Event::Aborting { by: "baseline".to_owned(), why: format!("not steady: {why}") });
                self.course.end = End::NotSteady(why);
                self.haste.send_replace(Haste::Stop);
            }
        }
    }

    fn enter(&mut self, phase: Phase) {
        if self.phase.get() >= phase {
            return;
        }
        self.phase.set(phase);
        let now = self.course.clock.now().max(0.0);
        if let Some(last) = self.course.phases.last_mut() {
            last.end_s = now;
        }
        self.course.phases.push(PhaseSpan { phase, start_s: now, end_s: now });
        self.tell(&Event::Phase { phase });
    }

    /// Stops the run: everything is undone, nothing more is injected. Only the first reason counts.
    fn abort(&mut self, by: &str, why: &str) {
        let now = self.course.clock.now().max(0.0);
        self.course.restore_from.get_or_insert(now);
        self.haste.send_if_modified(|haste| {
            let later = *haste < Haste::Stop;
            *haste = (*haste).max(Haste::Stop);
            later
        });
        if !self.stopping() {
            self.course.end = End::Aborted { by: by.to_owned(), why: why.to_owned(), at_s: now };
            self.tell(&Event::Aborting { by: by.to_owned(), why: why.to_owned() });
        }
    }

    /// The operator's word. True: leave everything to the guardian.
    fn operator(&mut self, word: &str) -> bool {
        self.words += 1;
        match self.words {
            1 => self.abort("operator", word),
            2 => {
                self.tell(&Event::Note { text: format!("{word} again: restoring at once") });
                self.haste.send_replace(Haste::Now);
                self.load.stop(Stop::Now);
            }
            _ => {
                self.tell(&Event::Note {
                    text: format!("{word} a third time: leaving the rest to the guardian"),
                });
                return true;
            }
        }
        false
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Begins(go) => {
                self.enter(Phase::Fault);
                // What other processes see from the first moment on must count for the fault as well.
                let entered = self.load.everyone_in(Phase::Fault);
                tokio::spawn(async move {
                    entered.await;
                    // It does not wait for ever.
                    let _ = go.send(());
                });
            }
            Report::Failed(why) => self.failed(&why),
            Report::NotUndone { why, took_s } => {
                self.course.slowest_undo = self.course.slowest_undo.max(took_s);
                self.failed(&why);
            }
            Report::Told(event) => {
                match &event {
                    Event::Injected { id, summary } => self.live.push((id.clone(), summary.clone())),
                    Event::Proof { id, what, status, measured } => {
                        if let Some(live) = self.live.iter_mut().find(|(known, _)| known == id) {
                            live.1 = event::proof(what, status, measured);
                        }
                    }
                    Event::Undone { id, took_s, .. } => {
                        self.live.retain(|(known, _)| known != id);
                        self.course.slowest_undo = self.course.slowest_undo.max(*took_s);
                    }
                    _ => {}
                }
                self.tell(&event);
            }
        }
    }

    fn failed(&mut self, why: &str) {
        self.tell(&Event::Trouble { text: why.to_owned() });
        self.abort("a fault", why);
    }

    fn injection_done(&mut self, done: Result<InjectionRecord, tokio::task::JoinError>, last: bool) {
        match done {
            Ok(record) => self.course.injections.push(record),
            Err(error) => self.abort("a fault", &format!("an injection ended by a bug of squall: {error}")),
        }
        if last {
            let now = self.course.clock.now();
            self.course.restored_at = Some(now);
            if self.phase.get() == Phase::Fault {
                self.undone_at = Some(now);
                self.enter(Phase::Recovery);
            }
        }
    }

    fn second(&mut self, tick: &Tick) {
        let tripped = self.course.watch.second(tick, &self.experiment.guards, &self.experiment.objectives);
        let live = self.live.iter().map(|(_, text)| text.clone()).collect();
        let guards = self.course.watch.now(&self.experiment.guards);
        self.tell(&Event::Second(snapshot(tick, self.plan.duration_s, live, guards)));
        if let Some(text) = tripped {
            let now = self.course.clock.now();
            self.course.tripped.push((text.clone(), now));
            self.abort("guard", &text);
        }
        if self.phase.get() == Phase::Recovery && self.course.watch.recovered(&self.experiment.objectives) {
            self.enter(Phase::After);
        }
        self.by_clock();
    }

    fn probe(&mut self, index: usize, seen: Result<(), String>) {
        let phase = self.phase.get();
        let (name, held) = (self.course.probes[index].name.clone(), seen.is_ok());
        probe::count(&mut self.course.probes[index], phase, &seen);
        if let (false, Err(why)) = (held, seen) {
            self.tell(&Event::ProbeMissed { name, why });
        }
    }
}
