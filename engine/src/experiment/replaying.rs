//! Reading `replay:`: a log that is sent again.

use std::sync::Arc;

use super::Sources;
use super::reader::Reader;
use super::yaml::{Content, Node};
use crate::replay::{BYTES_MAX, Format, Options, Trace, methods, speed};
use crate::schedule::Profile;

/// Reads what is said about a log, and the log.
pub(super) fn read(reader: &Reader<'_>, node: &Node, sources: &dyn Sources) -> Option<(Profile, Arc<Trace>)> {
    let fields = reader.map(node, "replay")?;
    let log = fields.required("log", "replay");
    let mut options = Options::default();
    if let Some(node) = fields.optional("format") {
        options.format = Some(reader.choice(node, "format", &Format::WORDS)?);
    }
    if let Some(node) = fields.optional("speed") {
        let read = speed(&reader.text(node, "speed")?);
        options.speed = read.map_err(|why| reader.mistake(node.id, why)).ok()?;
    }
    if let Some(node) = fields.optional("methods") {
        let words: Vec<String> =
            reader.list(node, "methods").iter().filter_map(|item| reader.text(item, "methods")).collect();
        let read = methods(words.iter().map(String::as_str));
        options.methods = read.map_err(|why| reader.mistake(node.id, why)).ok()?;
    }
    if let Some(node) = fields.optional("keep-secrets") {
        options.keep_secrets = reader.flag(node, "keep-secrets")?;
    }
    if let Some(node) = fields.optional("fields") {
        let map = reader.map(node, "fields")?;
        for (id, what, key) in map.others() {
            let key = reader.text(key, "fields")?;
            options.fields.set(what, &key).map_err(|why| reader.mistake(id, why)).ok()?;
        }
    }
    fields.finish("replay");
    let node = log?;
    if !matches!(node.content, Content::Text(_)) {
        reader.mistake(node.id, "log must be the name of a file");
        return None;
    }
    let path = reader.text(node, "log")?;
    let read = sources.bytes(&path, BYTES_MAX).and_then(|bytes| Trace::read(&bytes, &options));
    let read =
        read.and_then(|trace| Ok((trace.profile().map_err(|error| error.to_string())?, Arc::new(trace))));
    read.map_err(|why| reader.mistake(node.id, format!("log: {path}: {why}"))).ok()
}
