//! What happened in a run, as data, and how to show it. No async, no files, no clock: bytes in, bytes out.

pub mod latency;
pub mod record;

pub use latency::Latencies;
pub use record::RunRecord;
