//! The searches one after another: alone, then with one thing broken at a time.

use std::time::Duration;

use injectors::secrets::Secrets;
use reports::record::Objective;

use super::document::{Document, concluded, line, sentence};
use super::row::{self, Row};
use super::searching::SearchingArgs;
use crate::capacity::{Finding, Goal, LimitedBy, Search, Trial};
use crate::cli::load::refusal;
use crate::cli::out::Out;
use crate::cli::view::View;
use crate::experiment::Guard;
use crate::load::LoadSpec;
use crate::load::remote::Team;
use crate::plan::{CaseKind, PlannedInjection};
use crate::run::inject::{AdHoc, hold};
use crate::run::{Observer, Scene, Signals};
use crate::slo::exit;
use crate::trial::{self, Asked, Calibration, Ended, Recovered, UnderError, Wanted};

/// Where nothing tells how much is left, a search under a fault begins at this share of what is carried without it.
const BEGIN: f64 = 0.6;
/// Just below what should be left it is begun where that can be told.
const BELOW: f64 = 0.9;
/// But not lower than this.
const LEAST: f64 = 0.1;
/// A target is asked at this share of its capacity whether it is itself again.
const GENTLE: f64 = 0.5;
/// How long that may take where no experiment says it.
const PATIENCE: Duration = Duration::from_secs(15);
/// What making and undoing a fault takes at most, in round numbers.
const MAKING_S: f64 = 15.0;

/// What all searches have in common.
pub(super) struct Plan {
    pub(super) spec: LoadSpec,
    pub(super) team: Team,
    pub(super) objectives: Vec<Objective>,
    pub(super) guards: Vec<Guard>,
    pub(super) seed: u64,
    pub(super) probe: bool,
    /// What one thread can send, if that was measured.
    pub(super) per_thread: Option<f64>,
}

impl Plan {
    /// What each trial sends.
    fn asked(&self) -> Asked<'_> {
        let Self { spec, team, objectives, guards, seed, probe, per_thread } = self;
        let (seed, probe, per_thread) = (*seed, *probe, *per_thread);
        Asked { spec, team, objectives, guards, seed, probe, per_thread, control: None, twice: false }
    }
}

/// One thing that is broken for as long as its search takes.
pub(super) struct Under {
    /// In words.
    pub(super) what: String,
    pub(super) kind: CaseKind,
    /// The share of its kind that is left, if that can be told.
    pub(super) left: Option<f64>,
    pub(super) wanted: Wanted,
    pub(super) how: How,
}

/// How it is broken.
pub(super) enum How {
    /// By a fault that was written by hand.
    ByHand(Box<AdHoc>),
    /// In the world of the experiment.
    Here(Vec<PlannedInjection>),
}

/// All that is to be found.
pub(super) struct Job {
    /// What was sent and what had to hold, as options.
    pub(super) asked: String,
    pub(super) plan: Plan,
    pub(super) goal: Goal,
    /// Those of an earlier search.
    pub(super) trials: Vec<Trial>,
    pub(super) under: Vec<Under>,
    /// The rate that the experiment's own load has.
    pub(super) demand: Option<f64>,
    /// How long the target may take to be itself again.
    pub(super) patience: Duration,
    /// What a reader should know, in words.
    pub(super) notes: Vec<String>,
    /// What must not be written.
    pub(super) secrets: Secrets,
}

impl Job {
    pub(super) fn new(
        asked: String,
        plan: Plan,
        (goal, trials): (Goal, Vec<Trial>),
        under: Vec<Under>,
    ) -> Self {
        let (notes, secrets) = (Vec::new(), Secrets::default());
        Self { asked, plan, goal, trials, under, demand: None, patience: PATIENCE, notes, secrets }
    }

    /// How long it takes at most, in words.
    fn at_most(&self) -> String {
        let each = |one: &Under| {
            self.goal.longest_s() + one.wanted.grown.as_secs_f64() + self.patience.as_secs_f64() + MAKING_S
        };
        let seconds = self.goal.longest_s() + self.under.iter().map(each).sum::<f64>();
        let minutes = |seconds: f64| reports::format::many((seconds / 60.0).ceil() as u64, "minute");
        if self.under.is_empty() {
            return format!("it takes {} at most", minutes(seconds));
        }
        format!(
            "it takes {} at most, and usually much less: {} of {} at most each (--within), one without a fault; what was \
             found under a fault cannot be resumed",
            minutes(seconds),
            if self.under.len() == 1 {
                "2 searches".to_owned()
            } else {
                format!("{} searches", self.under.len() + 1)
            },
            minutes(self.goal.longest_s())
        )
    }
}

/// How long a fault may live for its search.
pub(super) fn length(goal: &Goal) -> Duration {
    Duration::from_secs_f64(goal.longest_s() + 600.0)
}

/// A code and its reason.
type Doubt = (u8, String);

/// The graver of two codes.
fn graver(a: u8, b: u8) -> u8 {
    let order =
        [exit::NOT_RESTORED, exit::ABORTED, exit::REFUSED, exit::INVALID, exit::MISSED, exit::INCONCLUSIVE];
    order.into_iter().find(|code| [a, b].contains(code)).unwrap_or(a.max(b))
}

/// Searches alone, then under each fault.
///
/// # Errors
/// Nothing was found at all, with the exit code.
pub(super) async fn find(
    args: &SearchingArgs,
    mut job: Job,
    scene: Option<&Scene>,
    signals: &mut Signals,
    out: &mut Out,
) -> Result<Document, Doubt> {
    out.tell(&job.at_most());
    let mut reasons = std::mem::take(&mut job.notes);
    let (calibration, ended) = if args.no_calibrate {
        (None, Ended::InTime)
    } else {
        calibrated(&mut job, signals, &mut reasons, out).await?
    };
    let mut search = Search::new(job.goal.clone(), std::mem::take(&mut job.trials));
    let mut number = search.trials().len();
    let told = |trial: &Trial| {
        number += 1;
        line(out, number, trial);
    };
    let ended = match ended {
        Ended::ByOperator => ended,
        _ => trial::search(job.plan.asked(), &mut search, signals, told)
            .await
            .map_err(|error| refusal(&error))?,
    };
    let finding = search.finding();
    let wanted = args.at_least.map(|rate| rate.0);
    let (exit, why) = concluded(&finding, &job.plan.guards, ended, wanted);
    reasons.extend(why);
    let mut story = Story { ended, exit, reasons, rows: Vec::new() };
    if ended == Ended::InTime && row::nothing(&finding) {
        story.doubt(exit::MISSED, None);
    }
    let cases = std::mem::take(&mut job.under);
    if !cases.is_empty() && ended == Ended::InTime && !comparable(&finding) {
        let why = "without a capacity of its own there is none to compare with: no fault was made";
        story.doubt(exit::INCONCLUSIVE, Some(why.to_owned()));
    } else {
        broken(cases, &job, &search, (wanted, scene), &mut story, signals, out).await;
    }
    let Story { exit, mut reasons, mut rows, .. } = story;
    reasons
        .extend(job.plan.team.fewer().map(|fewer| format!("{fewer}: later trials were sent without them")));
    row::sort(&mut rows);
    Ok(Document {
        asked: job.asked,
        calibration,
        goal: search.goal().clone(),
        at_least: wanted,
        demand: job.demand,
        worst: row::worst(&rows, job.demand),
        finding,
        under: rows,
        exit,
        reasons,
        seed: job.plan.seed,
        trials: search.trials().to_vec(),
    })
}

/// How far it has come, and what that means.
struct Story {
    /// Who ended the last search.
    ended: Ended,
    exit: u8,
    reasons: Vec<String>,
    rows: Vec<Row>,
}

impl Story {
    fn doubt(&mut self, code: u8, why: Option<String>) {
        self.exit = graver(self.exit, code);
        self.reasons.extend(why);
    }
}

/// Searches with one thing broken at a time, until somebody ends it or something is not put back.
async fn broken(
    cases: Vec<Under>,
    job: &Job,
    alone: &Search,
    (wanted, scene): (Option<f64>, Option<&Scene>),
    story: &mut Story,
    signals: &mut Signals,
    out: &mut Out,
) {
    let count = cases.len();
    for (at, one) in cases.into_iter().enumerate() {
        if story.ended != Ended::InTime {
            story.reasons.push(format!("{} of {count} searches under a fault were not made", count - at));
            return;
        }
        out.tell(&format!("{} of {count}: {}", at + 1, one.what));
        let what = one.what.clone();
        let mut doubts: Vec<Doubt> = Vec::new();
        match under(one, job, alone, scene, signals, out).await {
            Ok((row, how)) => {
                story.ended = how;
                doubts.extend(row.doubt(&job.plan.guards, how).or_else(|| row.judged(wanted)));
                story.rows.push(row);
            }
            // What has been found so far is worth telling all the same.
            Err(refused) => doubts.push(refused),
        }
        // What was not put back would be measured by all that follows.
        if doubts.iter().any(|(code, _)| *code == exit::NOT_RESTORED) {
            story.ended = Ended::ByWatcher;
        }
        if story.ended == Ended::InTime {
            let (how, doubt) = itself_again(job, &alone.finding(), signals, out).await;
            story.ended = how;
            doubts.extend(doubt);
        }
        for (code, why) in doubts {
            story.doubt(code, Some(format!("{what}: {why}")));
        }
    }
}

/// Whether there is something that a fault could take from.
fn comparable(finding: &Finding) -> bool {
    matches!(finding.limited_by, LimitedBy::Target | LimitedBy::Maximum) && finding.low.is_some()
}

/// Makes the fault, searches, takes it back.
///
/// # Errors
/// The fault or the load could not be made, with the exit code.
async fn under(
    one: Under,
    job: &Job,
    alone: &Search,
    scene: Option<&Scene>,
    signals: &mut Signals,
    out: &mut Out,
) -> Result<(Row, Ended), Doubt> {
    let carried = alone.finding();
    let share = one.left.map_or(BEGIN, |left| (left * BELOW).max(LEAST));
    let start = carried.low.map_or(alone.goal().start, |low| low * share);
    let goal = Goal { start, collapse: false, prove: false, ..alone.goal().clone() };
    let lasting = length(&goal);
    let mut search = Search::new(goal, Vec::new());
    let mut view = View::new(out.quiet, out.json, job.secrets.clone());
    let mut number = 0;
    let told = |trial: &Trial| {
        number += 1;
        line(out, number, trial);
    };
    let Under { what, kind, wanted, how, .. } = one;
    let held = async |words: Signals, observer: &mut dyn Observer| match (how, scene) {
        (How::ByHand(fault), _) => hold(*fault, words, observer).await,
        (How::Here(injections), Some(scene)) => scene.hold(&injections, lasting, words, observer).await,
        (How::Here(_), None) => Err((exit::BUG, "there is no world to break it in".to_owned())),
    };
    let came = trial::under(held, wanted, job.plan.asked(), &mut search, signals, &mut view, told).await;
    drop(view);
    let came = came.map_err(|error| match error {
        UnderError::Fault(code, why) => (code, why),
        UnderError::Load(error) => refusal(&error),
    })?;
    // A fault that did not live as long as its search is told by its exit code.
    let ended = came.ended.unwrap_or(Ended::InTime);
    Ok((Row::new(what, kind, came, &carried, &search), ended))
}

/// Waits until the target is itself again; who ended that, and what is wrong if it is not.
async fn itself_again(
    job: &Job,
    alone: &Finding,
    signals: &mut Signals,
    out: &mut Out,
) -> (Ended, Option<Doubt>) {
    let rate = alone.low.unwrap_or(job.goal.start) * GENTLE;
    let began = std::time::Instant::now();
    match trial::recovered(job.plan.asked(), rate, job.patience, signals).await {
        Ok(Recovered::Yes) => {
            let took = reports::format::seconds(began.elapsed().as_secs_f64());
            out.tell(&format!("{} are carried again after {took}", reports::format::rate(rate)));
            (Ended::InTime, None)
        }
        Ok(Recovered::ByOperator) => (
            Ended::ByOperator,
            Some((exit::ABORTED, "the operator ended it; the fault was put back".to_owned())),
        ),
        Ok(Recovered::No) => {
            let why = format!(
                "{} s after it was put back, not even {} are carried: what follows would measure that",
                job.patience.as_secs(),
                reports::format::rate(rate)
            );
            (Ended::ByWatcher, Some((exit::INCONCLUSIVE, why)))
        }
        Err(error) => (Ended::ByWatcher, Some(refusal(&error))),
    }
}

/// Measures what this machine can send, says so, and keeps the search below it.
async fn calibrated(
    job: &mut Job,
    signals: &mut Signals,
    notes: &mut Vec<String>,
    out: &mut Out,
) -> Result<(Option<Calibration>, Ended), Doubt> {
    let (plan, goal) = (&mut job.plan, &mut job.goal);
    let measured = trial::calibrate(&plan.spec, &plan.team, plan.seed, signals).await;
    let (measured, ended) = measured.map_err(|error| refusal(&error))?;
    if let Some(found) = &measured {
        plan.per_thread = Some(found.per_thread);
        if out.json {
            out.event(&serde_json::json!({"event": "calibration", "calibration": found}));
        } else {
            out.tell(&sentence(found));
        }
        if found.rate < goal.max {
            notes.push(format!(
                "{} can send {} at the most: the search stayed below that instead of {}",
                if plan.team.is_near() { "this machine" } else { "the workers" },
                reports::format::rate(found.rate),
                reports::format::rate(goal.max)
            ));
            (goal.max, goal.at_generator) = (found.rate, true);
        }
    }
    Ok((measured, ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_broken_outweighs_everything_and_a_miss_what_is_not_known() {
        assert_eq!(graver(exit::MISSED, exit::NOT_RESTORED), exit::NOT_RESTORED);
        assert_eq!(graver(exit::INCONCLUSIVE, exit::MISSED), exit::MISSED);
        assert_eq!(graver(exit::HELD, exit::INCONCLUSIVE), exit::INCONCLUSIVE);
        assert_eq!(graver(exit::ABORTED, exit::MISSED), exit::ABORTED);
        assert_eq!(graver(exit::HELD, exit::HELD), exit::HELD);
    }
}
