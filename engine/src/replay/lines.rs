//! JSON lines: an object for each request, as nginx, Envoy and Caddy can write them.

use std::borrow::Cow;

use serde_json::Value;

use super::combined::request_line;
use super::{BODY, Entry, NO_TIME, NOT_READ, Reader, time};

/// What can be said about the fields of a log.
pub const FIELDS: [&str; 6] = ["time", "method", "path", "request", "took", "body"];

/// Where an object has what: a key, or keys with dots between them for objects within objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields([Option<String>; FIELDS.len()]);

/// Where it is looked for if nothing is said.
const USUAL: [&[&str]; FIELDS.len()] = [
    &["start_time", "ts", "msec", "time_iso8601", "@timestamp", "timestamp", "time", "time_local"],
    &["method", "request_method", "request.method", "http_method"],
    &["request_uri", "uri", "path", "request.uri", "x-envoy-original-path", "url"],
    &["request"],
    &["request_time", "duration"],
    &["request_body", "body"],
];
// Positions in `FIELDS`.
const TIME: usize = 0;
const METHOD: usize = 1;
const PATH: usize = 2;
const REQUEST: usize = 3;
const TOOK: usize = 4;
const BODY_AT: usize = 5;

impl Fields {
    /// Says where something is.
    ///
    /// # Errors
    /// Nothing is called so.
    pub fn set(&mut self, what: &str, key: &str) -> Result<(), String> {
        let at = FIELDS.iter().position(|known| *known == what).ok_or_else(|| {
            let help = crate::experiment::mistake::suggest(what, &FIELDS);
            format!("a log has no field `{what}`; {help}")
        })?;
        self.0[at] = Some(key.to_owned());
        Ok(())
    }

    /// The first that is there: as said, or where it usually is; with its key.
    fn find<'v>(&self, what: usize, object: &'v Value) -> Option<(&str, &'v Value)> {
        match &self.0[what] {
            Some(key) => lookup(object, key).map(|value| (key.as_str(), value)),
            None => USUAL[what].iter().find_map(|key| lookup(object, key).map(|value| (*key, value))),
        }
    }

    fn text<'v>(&self, what: usize, object: &'v Value) -> Option<Cow<'v, str>> {
        match self.find(what, object)?.1 {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => Some(Cow::Owned(number.to_string())),
            _ => None,
        }
    }
}

fn lookup<'v>(object: &'v Value, key: &str) -> Option<&'v Value> {
    let found = object.get(key).or_else(|| key.split('.').try_fold(object, |value, part| value.get(part)));
    found.filter(|value| !value.is_null())
}

/// Reads the lines of a log.
pub(super) fn read(bytes: &[u8], fields: &Fields, reader: &mut Reader<'_>) -> Result<(), String> {
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice::<Value>(line) {
            Ok(object @ Value::Object(_)) => one(&object, fields, at + 1, reader)?,
            _ => reader.leave_out(NOT_READ, at + 1),
        }
    }
    Ok(())
}

fn one(object: &Value, fields: &Fields, line: usize, reader: &mut Reader<'_>) -> Result<(), String> {
    let request = fields.text(REQUEST, object);
    let request = request.as_deref().and_then(request_line);
    let method = fields.text(METHOD, object);
    let path = fields.text(PATH, object);
    let method = method.as_deref().or(request.map(|(method, _)| method));
    let path = path.as_deref().or(request.map(|(_, path)| path));
    let (Some(method), Some(target)) = (method, path) else {
        reader.leave_out(NOT_READ, line);
        return Ok(());
    };
    let Some(at) = started(object, fields) else {
        reader.leave_out(NO_TIME, line);
        return Ok(());
    };
    let body = fields.text(BODY_AT, object).unwrap_or_default();
    let wants = ["POST", "PUT", "PATCH"].contains(&method) && body.is_empty();
    if wants && reader.options.methods.iter().any(|m| m == method) {
        reader.leave_out(BODY, line);
        return Ok(());
    }
    let content_type =
        if body.starts_with(['{', '[']) { "application/json" } else { "application/x-www-form-urlencoded" };
    reader.take(&Entry { at, method, target, content_type, body: body.as_bytes() }, line)
}

/// When the request came. Most logs have the time of its end, and some how long it took; then the one is the other's start.
fn started(object: &Value, fields: &Fields) -> Option<i128> {
    let key = fields.find(TIME, object)?.0;
    let at = time::read(&fields.text(TIME, object)?)?;
    let told = fields.0[TOOK].is_some() || (key != "start_time" && fields.0[TIME].is_none());
    let took = if told { fields.text(TOOK, object) } else { None };
    let took = took.and_then(|took| took.parse::<f64>().ok()).filter(|took| (0.0..1e6).contains(took));
    Some(at - (took.unwrap_or_default() * 1e9) as i128)
}
