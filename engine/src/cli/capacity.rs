//! `squall capacity`: how much a target carries.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, FromArgMatches as _};
use injectors::units::{Rate, Share, Span};
use reports::record::Objective;
use serde::{Deserialize, Serialize};

use super::Global;
use super::hands::HandArgs;
use super::inject::written;
use super::load::refusal;
use super::out::{self, Out};
use super::sending::{SendingArgs, rate};
use super::source;
use super::under::{Row, under};
use crate::capacity::{Answer, Finding, Goal, LimitedBy, Search, Trial};
use crate::feed::Order;
use crate::load::LoadSpec;
use crate::load::remote::{self, Team};
use crate::reading;
use crate::run::Signals;
use crate::run::inject::AdHoc;
use crate::schedule::{Profile, Segment};
use crate::slo::exit;
use crate::trial::{self, Asked, Calibration, Ended};

/// The most bytes of an earlier result.
const EARLIER_MAX: usize = 8 << 20;

/// What is searched, and within which limits.
#[derive(Debug, Args)]
pub(super) struct CapacityArgs {
    #[command(flatten)]
    sending: SendingArgs,
    #[command(flatten)]
    hands: HandArgs,
    #[command(flatten)]
    searching: SearchingArgs,
}

/// How it is searched.
#[derive(Debug, Args)]
pub(super) struct SearchingArgs {
    /// The first rate; it is doubled until an objective fails
    #[arg(long, value_name = "RATE", default_value = "50/s", value_parser = rate, help_heading = "Search")]
    start: Rate,
    /// No rate is higher
    #[arg(long, value_name = "RATE", default_value = "100000/s", value_parser = rate, help_heading = "Search")]
    max: Rate,
    /// After so long no trial begins
    #[arg(long, value_name = "TIME", default_value = "5m", help_heading = "Search")]
    within: Span,
    /// How wide the interval may be at the end
    #[arg(long, value_name = "PERCENT", default_value = "5%", help_heading = "Search")]
    width: Share,
    /// How long a trial is
    #[arg(long, value_name = "TIME", default_value = "5s", help_heading = "Search")]
    trial: Span,
    /// How long the trial is that confirms the result
    #[arg(long, value_name = "TIME", default_value = "20s", help_heading = "Search")]
    confirm: Span,
    /// Do not overload the target at the end to see how it recovers
    #[arg(long, help_heading = "Search")]
    no_collapse: bool,
    /// Do not measure first what this machine can send
    #[arg(long, help_heading = "Search")]
    no_calibrate: bool,
    /// Go on with an earlier search, from its --json document
    #[arg(long, value_name = "FILE", help_heading = "Search")]
    resume: Option<PathBuf>,
    /// Search again under a fault, written as after `squall inject` but without --for; may be given several times
    #[arg(long, value_name = "FAULT", help_heading = "Search")]
    under: Vec<String>,
    /// What the capacity should be at least: decides between exit 0 and 1
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Judging")]
    at_least: Option<Rate>,
}

/// The result, and all that it takes to go on.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    /// What was sent and what had to hold, as options.
    asked: String,
    /// What this machine can send; none if it was not measured.
    #[serde(default)]
    calibration: Option<Calibration>,
    goal: Goal,
    finding: Finding,
    at_least: Option<f64>,
    /// The same under each fault.
    under: Vec<Row>,
    exit: u8,
    reasons: Vec<String>,
    seed: u64,
    trials: Vec<Trial>,
}

impl Default for SearchingArgs {
    /// What a command line that says nothing says.
    fn default() -> Self {
        let command = Self::augment_args(clap::Command::new("capacity").no_binary_name(true));
        let matches = command.get_matches_from(std::iter::empty::<&str>());
        Self::from_arg_matches(&matches).expect("every option has a default or needs none")
    }
}

impl SearchingArgs {
    fn goal(&self, objectives: &[Objective]) -> Result<Goal, String> {
        let (width, trial_s) = (self.width.0, self.trial.0.as_secs_f64());
        for (fits, what) in [
            (!objectives.is_empty(), "say what must hold, such as --objective 'p99 <= 100ms'"),
            (self.start.0 >= 0.1, "--start must be at least 0.1/s"),
            (self.max.0 >= self.start.0, "--max is below --start"),
            (self.max.0 <= 1e7, "--max must be at most 10000000/s"),
            ((0.005..=0.5).contains(&width), "--width must be from 0.5% to 50%"),
            ((1.0..=600.0).contains(&trial_s), "--trial must be from 1s to 10m"),
            ((1.0..=3600.0).contains(&self.confirm.0.as_secs_f64()), "--confirm must be from 1s to 1h"),
        ] {
            if !fits {
                return Err(what.to_owned());
            }
        }
        // Fewer requests say nothing about a quantile.
        let needed = objectives.iter().map(|objective| match objective.sli {
            reports::record::Sli::Latency(q) => 10.0 / (1.0 - q).max(1e-4),
            reports::record::Sli::Availability => 2.0 / (1.0 - objective.limit).max(1e-4),
            reports::record::Sli::Throughput => 0.0,
        });
        Ok(Goal {
            start: self.start.0,
            max: self.max.0,
            width,
            confidence: 0.9,
            trial_s,
            requests: needed.fold(0.0, f64::max),
            confirm_s: self.confirm.0.as_secs_f64(),
            within_s: self.within.0.as_secs_f64(),
            collapse: !self.no_collapse,
            at_generator: false,
            prove: true,
        })
    }
}

/// The trials of an earlier search for the same.
fn earlier(path: &Path, asked: &str) -> Result<Vec<Trial>, String> {
    let said = |why: String| format!("--resume: {}: {why}", path.display());
    let bytes = reading::bytes(path, EARLIER_MAX).map_err(|error| said(error.to_string()))?;
    let document: Document = serde_json::from_slice(&bytes)
        .map_err(|_| said("it is no document of squall capacity --json".to_owned()))?;
    if document.asked != asked {
        return Err(said(format!("it is of another search: {}", document.asked)));
    }
    Ok(document.trials)
}

pub(super) fn capacity(global: &Global, args: &CapacityArgs, out: &mut Out) -> u8 {
    searched(global, &args.sending, &args.hands, &args.searching, out)
}

/// Searches, and says what was found.
pub(super) fn searched(
    global: &Global,
    sending: &SendingArgs,
    hands: &HandArgs,
    args: &SearchingArgs,
    out: &mut Out,
) -> u8 {
    let seed = sending.seed.unwrap_or_else(source::fresh_seed);
    let asked = format!("{}{}", sending.again(), hands.again());
    let ready = sending.objectives().and_then(|objectives| {
        let goal = args.goal(&objectives)?;
        let any = Segment::Hold { rate: goal.start, lasting: args.trial.0 };
        let spec = sending.spec(Profile::new(vec![any]).map_err(|error| error.to_string())?)?;
        if let Some(feed) = spec.feeds.iter().find(|feed| feed.order() == Order::Unique) {
            return Err(format!(
                "--feed {}: a search takes rows again in each trial, so `unique` cannot be kept",
                feed.name()
            ));
        }
        let trials = args.resume.as_ref().map(|path| earlier(path, &asked)).transpose()?;
        // A fault that cannot be read must be known before a long search.
        let faults: Result<Vec<AdHoc>, String> = args
            .under
            .iter()
            .map(|text| fault(global, text, &goal).map_err(|why| format!("--under: {why}")))
            .collect();
        Ok((
            Plan { spec, team: Team::default(), objectives, seed, probe: sending.probes(), per_thread: None },
            hands.hands()?,
            (goal, trials.unwrap_or_default()),
            faults?,
        ))
    });
    let (plan, hands, goal, faults) = match ready {
        Ok(ready) => ready,
        Err(why) => return out.fail(exit::INVALID, &why),
    };
    let Ok(runtime) = out::runtime() else {
        return out.fail(exit::BUG, "this system gives squall no event queue");
    };
    let document = runtime.block_on(async {
        let team = remote::hire(&hands).await.map_err(|error| refusal(&error))?;
        find(args, asked, Plan { team, ..plan }, goal, faults, out).await
    });
    match document {
        Ok(document) => {
            if out.json {
                out.document(&document);
            } else {
                out.result(text(&document).as_bytes());
            }
            document.exit
        }
        Err((code, why)) => out.fail(code, &why),
    }
}

/// What all searches have in common.
pub(super) struct Plan {
    pub(super) spec: LoadSpec,
    pub(super) team: Team,
    pub(super) objectives: Vec<Objective>,
    pub(super) seed: u64,
    pub(super) probe: bool,
    /// What one thread can send, if that was measured.
    pub(super) per_thread: Option<f64>,
}

impl Plan {
    /// What each trial sends.
    pub(super) fn asked(&self) -> Asked<'_> {
        let Self { spec, team, objectives, seed, probe, per_thread } = self;
        let (seed, probe, per_thread) = (*seed, *probe, *per_thread);
        Asked { spec, team, objectives, seed, probe, per_thread, control: None, twice: false }
    }
}

/// Searches alone, then under each fault.
async fn find(
    args: &SearchingArgs,
    asked: String,
    mut plan: Plan,
    (mut goal, trials): (Goal, Vec<Trial>),
    faults: Vec<AdHoc>,
    out: &mut Out,
) -> Result<Document, (u8, String)> {
    let mut signals = Signals::standard().map_err(|error| (exit::REFUSED, error.to_string()))?;
    let mut reasons = Vec::new();
    let (calibration, ended) = if args.no_calibrate {
        (None, Ended::InTime)
    } else {
        calibrated(&mut plan, &mut goal, &mut signals, &mut reasons, out).await?
    };
    let mut search = Search::new(goal, trials);
    let mut number = search.trials().len();
    let told = |trial: &Trial| {
        number += 1;
        line(out, number, trial);
    };
    let mut ended = match ended {
        Ended::ByOperator => ended,
        _ => trial::search(plan.asked(), &mut search, &mut signals, told)
            .await
            .map_err(|error| refusal(&error))?,
    };
    let finding = search.finding();
    let (mut exit, why) = concluded(&finding, ended, args.at_least.map(|rate| rate.0));
    reasons.extend(why);
    let mut rows = Vec::new();
    if !faults.is_empty() && finding.limited_by != LimitedBy::Target {
        reasons.push(
            "without a capacity of its own there is none to compare with: no fault was made".to_owned(),
        );
    } else {
        for (fault, words) in faults.into_iter().zip(&args.under) {
            if ended == Ended::ByOperator {
                break;
            }
            out.tell(&format!("under {words}"));
            let doubt = match under(fault, words, &plan, &search, &mut signals, out).await {
                Ok((row, how)) => {
                    ended = how;
                    let doubt = row.doubt(how);
                    rows.push(row);
                    doubt
                }
                // What has been found so far is worth telling all the same.
                Err(refused) => Some(refused),
            };
            if let Some((code, why)) = doubt {
                exit = if exit == exit::NOT_RESTORED { exit } else { code };
                reasons.push(format!("under {words}: {why}"));
            }
        }
    }
    reasons.extend(plan.team.fewer().map(|fewer| format!("{fewer}: later trials were sent without them")));
    Ok(Document {
        asked,
        calibration,
        goal: search.goal().clone(),
        finding,
        at_least: args.at_least.map(|rate| rate.0),
        under: rows,
        exit,
        reasons,
        seed: plan.seed,
        trials: search.trials().to_vec(),
    })
}

/// Measures what this machine can send, says so, and keeps the search below it.
async fn calibrated(
    plan: &mut Plan,
    goal: &mut Goal,
    signals: &mut Signals,
    notes: &mut Vec<String>,
    out: &mut Out,
) -> Result<(Option<Calibration>, Ended), (u8, String)> {
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

/// A calibration on one line.
fn sentence(found: &Calibration) -> String {
    let time = reports::format::seconds;
    format!(
        "generator: up to {} from {}{}; against its own null server p50 {}, p99 {}",
        reports::format::rate(found.rate),
        reports::format::many(u64::from(found.threads), "thread"),
        if found.throttled { " under the CPU limit of its control group" } else { " at 80% of their CPU" },
        time(found.p50_s),
        time(found.p99_s)
    )
}

fn concluded(finding: &Finding, ended: Ended, at_least: Option<f64>) -> (u8, Vec<String>) {
    if ended == Ended::ByOperator {
        return (
            exit::ABORTED,
            vec!["the operator ended it: --resume goes on from a --json document".to_owned()],
        );
    }
    let carried = finding.low.unwrap_or(0.0);
    match (finding.limited_by, at_least) {
        // What has been carried is enough, whatever kept it from being more.
        (LimitedBy::Target | LimitedBy::Maximum | LimitedBy::Generator, Some(wanted))
            if carried >= wanted =>
        {
            (exit::HELD, Vec::new())
        }
        (LimitedBy::Target, Some(wanted)) if finding.high.unwrap_or(0.0) < wanted => {
            (exit::MISSED, vec![format!("at least {wanted}/s were wanted")])
        }
        (LimitedBy::Target | LimitedBy::Maximum, Some(wanted)) => (
            exit::INCONCLUSIVE,
            vec![format!("the {wanted}/s that are wanted lie inside the interval, or beyond --max")],
        ),
        (LimitedBy::Target | LimitedBy::Maximum, None) => (exit::HELD, Vec::new()),
        (LimitedBy::Generator | LimitedBy::Undecided, _) => (exit::INCONCLUSIVE, vec![finding.why.clone()]),
    }
}

/// A fault that lives as long as a search may take.
fn fault(global: &Global, text: &str, goal: &Goal) -> Result<AdHoc, String> {
    let longest = goal.within_s + 4.0 * goal.confirm_s + 10.0 * goal.trial_s + 60.0;
    written(global, text, Duration::from_secs_f64(longest))
}

/// One trial on one line.
pub(super) fn line(out: &mut Out, number: usize, trial: &Trial) {
    if out.json {
        out.event(&serde_json::json!({"event": "trial", "number": number, "trial": trial}));
        return;
    }
    let answer = match &trial.answer {
        Answer::Passed => "passed".to_owned(),
        Answer::Failed { clause, .. } => format!("failed: {clause}"),
        Answer::Invalid { why } => format!("invalid: {why}"),
    };
    let time = |seconds: Option<f64>| seconds.map_or_else(|| "–".to_owned(), reports::format::seconds);
    out.tell(&format!(
        "{number:>3}  {:<8} {:>12} {:>5.0} s   p50 {:>8}   p99 {:>8}   {answer}",
        trial.purpose.name(),
        reports::format::rate(trial.rate),
        trial.seconds,
        time(trial.seen.p50_s),
        time(trial.seen.p99_s)
    ));
}

fn text(document: &Document) -> String {
    let Document { finding, trials, .. } = document;
    let rate = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), reports::format::rate);
    let mut lines = Vec::new();
    match (finding.limited_by, finding.capacity) {
        (LimitedBy::Target | LimitedBy::Undecided, Some(capacity)) => lines.push(format!(
            "capacity {}, between {} and {} with {:.0} % confidence",
            reports::format::rate(capacity),
            rate(finding.low),
            rate(finding.high),
            finding.confidence * 100.0
        )),
        (LimitedBy::Target, None) => lines.push("capacity: none that could be found".to_owned()),
        _ => lines.push(format!("carries at least {}", rate(finding.low))),
    }
    lines.push(format!("limited by: {} ({})", finding.limited_by.name(), finding.why));
    if let Some(clause) = &finding.fails_first {
        lines.push(format!("fails first: {clause}"));
    }
    let bounds = finding.mlrsearch;
    if bounds.lower.is_some() || bounds.upper.is_some() {
        lines.push(format!("MLRsearch bounds: {} and {}", rate(bounds.lower), rate(bounds.upper)));
    }
    if let Some(proof) = &finding.proof {
        let said = match (proof.carried, proof.carried_before) {
            (Some(false), _) => "fails as well: the generator is not the limit",
            (Some(true), Some(true)) => "is carried, and with as many as before, too: the target has changed",
            (Some(true), _) => "is carried: the generator was the limit",
            (None, _) => "could not be sent: nothing is proven by it",
        };
        lines.push(format!("proof: {} from twice the threads {said}", reports::format::rate(proof.rate)));
    }
    if let Some(collapse) = &finding.collapse {
        lines.push(format!(
            "offered {}, it gave {} good answers; it recovered at {}",
            reports::format::rate(collapse.offered),
            reports::format::rate(collapse.good_per_s),
            collapse
                .recovered_at
                .map_or_else(|| "none of the lower rates that were tried".to_owned(), reports::format::rate)
        ));
    }
    lines.extend(document.calibration.as_ref().map(sentence));
    lines.push(format!("{} trials in {:.0} s", trials.len(), finding.took_s));
    lines.extend(document.under.iter().flat_map(Row::lines));
    lines.extend(document.reasons.iter().map(|reason| format!("• {reason}")));
    lines.join("\n") + "\n"
}
