//! The record itself, pretty; its schema is [`crate::RECORD_SCHEMA`].

use super::RenderError;
use crate::record::RunRecord;

/// One document and a line end.
pub(super) fn render(record: &RunRecord) -> Result<Vec<u8>, RenderError> {
    let mut bytes = serde_json::to_vec_pretty(record)?;
    bytes.push(b'\n');
    Ok(bytes)
}
