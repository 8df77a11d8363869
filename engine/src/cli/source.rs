//! Reading experiments from files.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::experiment::mistake::{Mistake, Mistakes};
use crate::experiment::yaml::TEXT_MAX;
use crate::experiment::{self, Experiment, Input, Sources};
use crate::plan::{self, Plan};

/// Which experiment, and what is set in it.
#[derive(Debug, Clone, Args)]
pub(super) struct SourceArgs {
    /// The experiment
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Set a variable of the experiment
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Repeat the choices of an earlier run
    #[arg(long)]
    pub seed: Option<u64>,
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What lies beside an experiment.
struct Beside(PathBuf);

impl Sources for Beside {
    fn read(&self, path: &str) -> Result<String, String> {
        text(&self.0.join(path))
    }
}

/// The text of a file that is not too large to be one of ours.
///
/// # Errors
/// In words.
pub(super) fn text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that the reader of the text can say that it is too large.
    file.take(TEXT_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > TEXT_MAX {
        return Err(format!("larger than {TEXT_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

/// A checked experiment with its plan and its text.
pub(super) struct Loaded {
    /// The experiment.
    pub experiment: Experiment,
    /// Its plan.
    pub plan: Plan,
    /// Its text.
    pub text: String,
}

/// Reads, checks and resolves an experiment.
///
/// # Errors
/// Every mistake.
pub(super) fn load(file: &Path, set: &[(String, String)], seed: u64) -> Result<Loaded, Mistakes> {
    let name = file.display().to_string();
    let text = text(file)
        .map_err(|why| Mistakes::single(&name, "", None, format!("it cannot be read: {why}"), None))?;
    let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let input = Input {
        file: file.to_owned(),
        text: text.clone(),
        set: set.iter().cloned().collect::<BTreeMap<_, _>>(),
        env: env.collect(),
    };
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    let parsed = experiment::parse_all(&input, &Beside(folder))?;
    let mut mistakes = parsed.mistakes;
    // Targets are looked for even if something else is wrong, so that all mistakes are told at once.
    if let Some(experiment) = parsed.experiment {
        if mistakes.is_empty()
            && let Err(wrong) = crate::load::verify(&experiment)
        {
            mistakes.extend(wrong.into_iter().map(|(node, message)| Mistake {
                node: Some(node),
                message,
                help: None,
            }));
        }
        match plan::resolve(&experiment, seed) {
            Ok(plan) if mistakes.is_empty() => return Ok(Loaded { experiment, plan, text }),
            Ok(_) => {}
            Err(found) => mistakes.extend(found),
        }
    }
    Err(Mistakes::locate(&name, &text, mistakes))
}

/// A seed from the clock, for runs that are given none.
pub(super) fn fresh_seed() -> u64 {
    let nanos = crate::clock::unix().as_nanos() as u64;
    // Short enough to be typed again.
    crate::plan::draw(nanos, 0) % 1_000_000_000
}
