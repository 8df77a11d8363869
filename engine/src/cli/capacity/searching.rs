//! How a capacity is searched: the options, and what they come to.

use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches as _};
use injectors::units::{Rate, Share, Span};
use reports::record::{Objective, Sli};

use super::document::Document;
use crate::capacity::{Goal, Trial};
use crate::cli::sending::rate;
use crate::reading;

/// The most bytes of an earlier result.
const EARLIER_MAX: usize = 8 << 20;
/// The first rate where nothing tells a better one.
const START: f64 = 50.0;

/// How it is searched.
#[derive(Debug, Args)]
pub(in crate::cli) struct SearchingArgs {
    /// The first rate; it is doubled until an objective fails [default: 50/s; of an experiment's load, half its peak]
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Search")]
    start: Option<Rate>,
    /// No rate is higher
    #[arg(long, value_name = "RATE", default_value = "100000/s", value_parser = rate, help_heading = "Search")]
    max: Rate,
    /// After so long no trial begins; each search under a fault has as long again
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
    /// Do not overload the target at the end to see how it recovers; an experiment with guards never does
    #[arg(long, help_heading = "Search")]
    no_collapse: bool,
    /// Do not measure first what this machine can send
    #[arg(long, help_heading = "Search")]
    pub(super) no_calibrate: bool,
    /// Go on with an earlier search, from its --json document: with the one without a fault; those under a fault begin anew
    #[arg(long, value_name = "FILE", help_heading = "Search")]
    pub(super) resume: Option<PathBuf>,
    /// Search again under a fault, written as after `squall inject` but without --for; may be given several times
    #[arg(long, value_name = "FAULT", help_heading = "Search")]
    pub(super) under: Vec<String>,
    /// What the capacity should be at least, also in the worst case: decides between exit 0 and 1
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Judging")]
    pub(super) at_least: Option<Rate>,
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
    /// What is looked for; `peak` is the highest rate of the load that an experiment names.
    ///
    /// # Errors
    /// What does not fit, with the option.
    pub(super) fn goal(&self, objectives: &[Objective], peak: Option<f64>) -> Result<Goal, String> {
        let (width, trial_s) = (self.width.0, self.trial.0.as_secs_f64());
        let usual = peak.map_or(START, |peak| (peak / 2.0).clamp(0.1, self.max.0.max(0.1)));
        let start = self.start.map_or(usual, |start| start.0);
        let wanted = self.at_least.map_or(0.0, |wanted| wanted.0);
        for (fits, what) in [
            (!objectives.is_empty(), "say what must hold, such as --objective 'p99 <= 100ms'"),
            (start >= 0.1, "--start must be at least 0.1/s"),
            (self.max.0 >= start, "--max is below --start"),
            (self.max.0 <= 1e7, "--max must be at most 10000000/s"),
            (
                wanted <= self.max.0,
                "--at-least is beyond --max: no rate that is tried could show it; raise --max",
            ),
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
            Sli::Latency(q) => 10.0 / (1.0 - q).max(1e-4),
            Sli::Availability => 2.0 / (1.0 - objective.limit).max(1e-4),
            Sli::Throughput => 0.0,
        });
        Ok(Goal {
            start,
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

    /// The trials of an earlier search for the same, if one is to go on.
    ///
    /// # Errors
    /// It cannot be read, or it is of another search.
    pub(super) fn earlier(&self, asked: &str) -> Result<Vec<Trial>, String> {
        self.resume.as_ref().map_or_else(|| Ok(Vec::new()), |path| earlier(path, asked))
    }
}

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
