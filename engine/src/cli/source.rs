//! Reading experiments from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::experiment::mistake::{Mistake, Mistakes, suggest};
use crate::experiment::yaml::TEXT_MAX;
use crate::experiment::{self, Experiment, Input, Sources};
use crate::plan::{self, Plan};
use crate::reading;
use crate::template::OWN;

/// Which experiment, and what is set in it.
#[derive(Debug, Clone, Args)]
pub(super) struct SourceArgs {
    /// The experiment; - reads it from stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Set a variable: what stands for ${NAME} in the experiment
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Repeat the choices of an earlier run: the seed stands in its report
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    if name.starts_with(|c: char| c.is_ascii_uppercase()) {
        return Err(format!("names with capitals come from the environment: {name}=… squall …"));
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(format!("`{name}` is no name of a variable: it starts with a small letter"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// What lies beside an experiment.
struct Beside(PathBuf);

impl Sources for Beside {
    fn read(&self, path: &str) -> Result<String, String> {
        text(&self.0.join(path))
    }

    fn bytes(&self, path: &str, most: usize) -> Result<Vec<u8>, String> {
        reading::bytes(&self.0.join(path), most).map_err(|error| error.to_string())
    }
}

/// The text of a file that is not too large to be one of ours.
///
/// # Errors
/// In words.
fn text(path: &Path) -> Result<String, String> {
    reading::text(reading::bytes(path, TEXT_MAX).map_err(|error| error.to_string())?)
}

/// An experiment's file and its text, if it could be read.
pub(super) struct Source {
    file: PathBuf,
    text: Result<String, String>,
}

impl Source {
    /// Reads a file, or what comes in for `-`. Nothing is read twice: a pipe has its text only once.
    pub(super) fn read(file: &Path) -> Self {
        let from = if file == Path::new("-") { Path::new("/dev/stdin") } else { file };
        Self { file: file.to_owned(), text: text(from) }
    }

    /// Whether `${name}` stands in it.
    pub(super) fn names(&self, name: &str) -> bool {
        let has =
            |text: &String| text.contains(&format!("${{{name}}}")) || text.contains(&format!("${{{name}:-"));
        self.text.as_ref().is_ok_and(has)
    }
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
    resolve(&Source::read(file), set, seed)
}

/// Checks and resolves an experiment that has been read.
///
/// # Errors
/// Every mistake.
pub(super) fn resolve(source: &Source, set: &[(String, String)], seed: u64) -> Result<Loaded, Mistakes> {
    let (file, name) = (&source.file, source.file.display().to_string());
    let text = match &source.text {
        Ok(text) => text.clone(),
        Err(why) => {
            let why = format!("it cannot be read: {why}");
            return Err(Mistakes::single(&name, "", None, why, None));
        }
    };
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
    mistakes.extend(set.iter().filter(|(name, _)| !source.names(name)).map(|(name, _)| unused(name, &text)));
    // Targets are looked for even if something else is wrong, so that all mistakes are told at once.
    if let Some(experiment) = parsed.experiment {
        let hidden = |mistake: Mistake| mistake.hidden(&experiment.secrets);
        if mistakes.is_empty()
            && let Err(wrong) = crate::load::verify(&experiment)
        {
            let wrong = wrong.into_iter();
            mistakes.extend(
                wrong.map(|(node, message)| hidden(Mistake { node: Some(node), message, help: None })),
            );
        }
        match plan::resolve(&experiment, seed) {
            Ok(plan) if mistakes.is_empty() => return Ok(Loaded { experiment, plan, text }),
            Ok(_) => {}
            Err(found) => mistakes.extend(found.into_iter().map(hidden)),
        }
    }
    Err(Mistakes::locate(&name, &text, mistakes))
}

/// A variable that is set and stands nowhere in the text: most likely it is misspelt.
fn unused(name: &str, text: &str) -> Mistake {
    let inner = |rest: &'_ str| rest.find('}').map(|end| rest[..end].to_owned());
    let mut known: Vec<String> = text
        .split("${")
        .skip(1)
        .filter_map(inner)
        .map(|inner| inner.split(":-").next().unwrap_or_default().to_owned())
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains('.'))
        .filter(|name| !OWN.contains(&name.as_str()))
        .collect();
    known.sort_unstable();
    known.dedup();
    let help = if known.is_empty() {
        "it has no variables that could be set".to_owned()
    } else {
        suggest(name, &known.iter().map(String::as_str).collect::<Vec<_>>())
    };
    Mistake {
        node: None,
        message: format!("--set {name}: `${{{name}}}` stands nowhere in this file"),
        help: Some(help),
    }
}

/// A seed from the clock, for runs that are given none.
pub(super) fn fresh_seed() -> u64 {
    let nanos = crate::clock::unix().as_nanos() as u64;
    // Short enough to be typed again.
    crate::plan::draw(nanos, 0) % 1_000_000_000
}
