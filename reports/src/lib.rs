//! What happened in a run, as data, and how to show it. No async, no files, no clock: bytes in, bytes out.

pub mod escape;
pub mod format;
mod heat;
pub mod latency;
mod markup;
pub mod record;
pub mod render;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod schema;
pub mod sending;
mod series;
mod svg;
mod table;

pub use latency::Latencies;
pub use record::RunRecord;
pub use render::{Format, RenderError, render};

/// The JSON Schema (draft 2020-12) of the run record, as `squall schema` prints it.
pub const RECORD_SCHEMA: &str = include_str!("../schema/record.v1.json");
