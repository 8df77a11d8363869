//! Whole runs, short ones: verdicts, refusals, aborts, signals, murder. Afterwards the world is as before and nothing is
//! left: no process, no socket, no open journal.

mod broken;
mod reporting;
mod scarce;
mod stopped;
mod verdicts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Done, Home, Lab};

/// An experiment of twelve seconds on the lab with one fault from the fourth to the seventh, in which `/login` must be
/// available. The limits are so wide that a busy host neither breaks them nor makes squall doubt itself.
/// `more` is appended.
pub(crate) fn experiment(fault: &str, more: &str) -> String {
    format!(
        r#"# Does a short one work?
squall: v1
experiment: short
question: Does a short one work?
owner: tests
lab: edge
warm-up: 1s
load:
  - login:
      open: {{url: "http://${{lab.edge}}/login", arrivals: [{{hold: {{rate: 40/s, for: 12s}}}}]}}
  - asset:
      open: {{url: "http://${{lab.edge}}/asset/logo", arrivals: [{{hold: {{rate: 20/s, for: 12s}}}}]}}
objectives:
  - login: {{availability: ">= 80%", p90: "<= 1.5s"}}
  - asset: {{availability: ">= 50%"}}
timeline:
  - at: 4s
    for: 3s
    faults:
      {fault}
recover-within: 4s
{more}"#
    )
}

/// What everybody can bear, and what a busy host cannot blur.
pub(crate) const MILD: &str =
    "- http-header: {service: auth, on: response, set: {x-odd: \"yes\"}, share: 50%}";
/// Longer than any of these runs takes, also on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same without anything that must hold before the fault: it is injected on the busiest host.
fn unjudged(fault: &str, more: &str) -> String {
    experiment(fault, more)
        .replace(r#"availability: ">= 80%", p90: "<= 1.5s""#, r#"availability: ">= 1%", phases: [after]"#)
        .replace(r#"availability: ">= 50%""#, r#"availability: ">= 1%", phases: [after]"#)
}

impl Home {
    /// Runs an experiment to its end.
    pub(crate) fn run(&self, text: &str) -> Done {
        let file = self.file("run.yaml", text);
        self.squall(&["run", file.to_str().unwrap()])
    }

    /// The same, again if it is inconclusive. A busy host makes baselines unsteady, measurements blurred and generators
    /// late, and squall says so; that is true, but not what these tests ask. Three times is no accident.
    pub(crate) fn run_clearly(&self, text: &str) -> Done {
        self.clearly(|| self.run(text))
    }

    /// Any run, again if it is inconclusive.
    pub(crate) fn clearly(&self, run: impl Fn() -> Done) -> Done {
        for _ in 0..2 {
            let done = run();
            if done.code != 6 {
                return done;
            }
            std::fs::remove_dir_all(self.runs()).unwrap();
        }
        run()
    }

    /// The folder of the only run.
    pub(crate) fn only_run(&self) -> PathBuf {
        let folders = self.run_folders();
        assert_eq!(folders.len(), 1, "{folders:?}");
        folders[0].clone()
    }

    pub(crate) fn record(&self) -> Value {
        record(&self.only_run())
    }

    /// Fails if any run has left something changed.
    pub(crate) fn assert_no_leftovers(&self) {
        let listed = self.json(&["recover", "--list", "--json"]);
        assert_eq!(listed["runs"].as_array().unwrap().len(), 0, "{listed}");
    }
}

fn record(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("record.json")).unwrap()).unwrap()
}

/// The status of the finding about a target and a journey.
pub(crate) fn finding(record: &Value, target: &str, journey: &str) -> String {
    let findings = record["judgement"]["findings"].as_array().unwrap();
    let found = findings
        .iter()
        .find(|f| f["target"].as_str().unwrap().starts_with(target) && f["journey"] == journey)
        .unwrap_or_else(|| panic!("no finding about {target} and {journey}: {findings:?}"));
    found["status"].as_str().unwrap().to_owned()
}

/// A home with a standing lab.
fn standing() -> (Home, Lab) {
    let home = Home::new();
    let lab = Lab::up(&home);
    (home, lab)
}
