//! Mistakes in a file: collected while reading, shown all at once with their place.

use std::fmt::Write as _;

use injectors::secrets::Secrets;
use serde::Serialize;

use super::yaml::{self, NodeId, Place};

/// The most mistakes that are shown; a file with more is not an experiment.
pub const MISTAKES_MAX: usize = 50;

/// How much text is read again for the places of all mistakes, in bytes.
const READ_AGAIN_MAX: usize = 3 << 18;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The node at which it shows; none for the file as a whole.
    pub node: Option<NodeId>,
    /// What is wrong, as a clause without a full stop.
    pub message: String,
    /// The way out: what is allowed, or what was probably meant.
    pub help: Option<String>,
}

impl Mistake {
    /// The same with every secret replaced by its name: a message quotes the value that it finds fault with.
    #[must_use]
    pub fn hidden(self, secrets: &Secrets) -> Self {
        let help = self.help.map(|help| secrets.hide(&help));
        Self { message: secrets.hide(&self.message), help, ..self }
    }
}

/// A mistake with its place, ready to be printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file.
    pub file: String,
    /// Counted from 1; 0 if the place is unknown.
    pub line: usize,
    /// Counted from 1; 0 if the place is unknown.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
    /// The line of the file, for the caret.
    #[serde(skip)]
    pub source: String,
}

/// Every mistake of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{total} {} in {file}", if *total == 1 { "mistake" } else { "mistakes" })]
pub struct Mistakes {
    /// The file.
    pub file: String,
    /// How many there are, also those that are not shown.
    pub total: usize,
    /// Sorted by place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Mistakes {
    /// Finds the places of mistakes in a text.
    pub fn locate(file: &str, text: &str, mut mistakes: Vec<Mistake>) -> Self {
        let total = mistakes.len();
        // Each place costs another reading of the text.
        mistakes.truncate((READ_AGAIN_MAX / text.len().max(1)).clamp(5, MISTAKES_MAX));
        let left_out = total - mistakes.len();
        let mut diagnostics: Vec<Diagnostic> = mistakes
            .into_iter()
            .map(|mistake| {
                let place = mistake.node.and_then(|id| yaml::place(text, id));
                diagnostic(file, text, place, mistake.message, mistake.help)
            })
            .collect();
        diagnostics.sort_by_key(|found| (found.line, found.column));
        if left_out > 0 {
            diagnostics.push(diagnostic(
                file,
                text,
                None,
                format!("{left_out} more of its mistakes are not shown"),
                None,
            ));
        }
        Self { file: file.to_owned(), total, diagnostics }
    }

    /// One mistake of the file as a whole, or at a known place.
    pub fn single(
        file: &str,
        text: &str,
        place: Option<Place>,
        message: String,
        help: Option<String>,
    ) -> Self {
        let diagnostics = vec![diagnostic(file, text, place, message, help)];
        Self { file: file.to_owned(), total: 1, diagnostics }
    }

    /// As a compiler prints them: place, message, the line, a caret, the way out.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for found in &self.diagnostics {
            let _ = if found.line == 0 {
                writeln!(out, "error: {}\n  --> {}", found.message, printable(&found.file))
            } else {
                let gutter = " ".repeat(found.line.to_string().len());
                let blanks: String = " ".repeat(found.column.saturating_sub(1));
                writeln!(
                    out,
                    "error: {}\n{gutter}--> {}:{}:{}\n{gutter} |\n{} | {}\n{gutter} | {blanks}^",
                    printable(&found.message),
                    printable(&found.file),
                    found.line,
                    found.column,
                    found.line,
                    found.source,
                )
            };
            if let Some(help) = &found.help {
                let _ = writeln!(out, "  = help: {}", printable(help));
            }
            out.push('\n');
        }
        let _ = writeln!(out, "{self}");
        out
    }
}

fn diagnostic(
    file: &str,
    text: &str,
    place: Option<Place>,
    message: String,
    help: Option<String>,
) -> Diagnostic {
    let (line, column) = place.map_or((0, 0), |place| (place.line, place.column));
    let source = text.lines().nth(line.wrapping_sub(1)).unwrap_or_default();
    Diagnostic { file: file.to_owned(), line, column, message, help, source: printable(source) }
}

/// Text from a file, made safe for a terminal: no control characters, and never a whole screen of it.
pub fn printable(text: &str) -> String {
    text.chars().take(400).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The allowed word that was probably meant.
pub fn nearest<'a>(word: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    allowed
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(word.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `did you mean …?`, or else what is allowed.
pub fn suggest(word: &str, allowed: &[&str]) -> String {
    match nearest(word, allowed.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("allowed here: {}", allowed.join(", ")),
    }
}
