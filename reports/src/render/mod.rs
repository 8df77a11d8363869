//! A run record as bytes for people and machines: pure functions. Whatever the record holds, the output is well-formed,
//! bounded, and shows the record's texts as texts.

mod errors;
mod html;
mod interval_log;
mod json;
mod junit;
mod markdown;
mod next;
mod sending;
mod terminal;
#[cfg(test)]
mod tests;
mod words;

pub use html::sending_page;
pub use interval_log::interval_log;
pub use sending::{sending, table};

use std::str::FromStr;

use crate::latency::LatencyError;
use crate::record::RunRecord;

/// A form that a report can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A summary of one screen, at most 100 columns wide.
    Terminal,
    /// One file with everything, for a browser.
    Html,
    /// GitHub's Markdown, for the summary of a CI step.
    Markdown,
    /// JUnit XML, for the test view of a CI system.
    Junit,
    /// The record itself.
    Json,
}

/// Why a record could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The record cannot be written as JSON.
    #[error("failed to write the record as JSON")]
    Json(#[from] serde_json::Error),
    /// The record holds a damaged distribution of latencies.
    #[error("the latencies of journey {journey:?} are damaged")]
    Latencies {
        /// The journey.
        journey: String,
        /// What is wrong with them.
        source: LatencyError,
    },
}

/// No such format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no report format {0:?}; there are terminal, html, markdown, junit and json")]
pub struct UnknownFormat(String);

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Terminal, Self::Html, Self::Markdown, Self::Junit, Self::Json];

    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Html => "html",
            Self::Markdown => "markdown",
            Self::Junit => "junit",
            Self::Json => "json",
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

/// Renders a record. `colour` permits ANSI codes in [`Format::Terminal`]; the other formats have none.
///
/// # Errors
/// The record holds damaged latencies ([`Format::Html`], [`Format::Markdown`]), or cannot be written as JSON.
pub fn render(record: &RunRecord, format: Format, colour: bool) -> Result<Vec<u8>, RenderError> {
    match format {
        Format::Terminal => Ok(terminal::render(record, colour).into_bytes()),
        Format::Html => html::render(record),
        Format::Markdown => Ok(markdown::render(record)?.into_bytes()),
        Format::Junit => Ok(junit::render(record)),
        Format::Json => json::render(record),
    }
}
