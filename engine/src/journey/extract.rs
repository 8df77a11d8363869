//! Taking values from answers.

use serde_json::Value;

use super::{Source, VALUE_MAX};

/// A value, or why there is none.
pub type Extracted = Option<String>;

/// The value of a source in an answer; none if it is not there, is no single value, or is longer than [`VALUE_MAX`].
/// `json` is the body, read once for all sources of a step.
pub fn extract<'h>(
    source: &Source,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    json: &mut Option<Option<Value>>,
) -> Extracted {
    let value = match source {
        Source::Header(name) => header(name)?.to_owned(),
        Source::Json(pointer) => {
            let read = json.get_or_insert_with(|| serde_json::from_slice(body).ok());
            match read.as_ref()?.pointer(pointer)? {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            }
        }
        Source::Between(before, after) => {
            let from = find(body, before.as_bytes())? + before.len();
            let length = find(&body[from..], after.as_bytes())?;
            std::str::from_utf8(&body[from..from + length]).ok()?.to_owned()
        }
    };
    (value.len() <= VALUE_MAX).then_some(value)
}

/// Where a text begins.
pub(super) fn find(body: &[u8], text: &[u8]) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    body.windows(text.len()).position(|part| part == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(source: &Source, body: &str) -> Extracted {
        let header = |name: &str| (name == "x-id").then_some("h1");
        extract(source, header, body.as_bytes(), &mut None)
    }

    #[test]
    fn values_come_from_json_headers_and_between() {
        let json = |pointer: &str, body: &str| from(&Source::Json(pointer.to_owned()), body);
        let body = r#"{"a": [{"b": "x"}, 7, true], "n": null, "o": {}}"#;
        assert_eq!(json("/a/0/b", body).as_deref(), Some("x"));
        assert_eq!((json("/a/1", body).as_deref(), json("/a/2", body).as_deref()), (Some("7"), Some("true")));
        assert_eq!((json("/n", body), json("/o", body), json("/z", body)), (None, None, None));
        assert_eq!(json("/a", "no json"), None);
        assert_eq!(from(&Source::Header("x-id".to_owned()), "").as_deref(), Some("h1"));
        let between = |body: &str| from(&Source::Between("id=".to_owned(), ";".to_owned()), body);
        assert_eq!(between("a id=42; b").as_deref(), Some("42"));
        assert_eq!((between("a id=42"), between("42;")), (None, None));
        assert_eq!(between(&format!("id={};", "x".repeat(VALUE_MAX + 1))), None, "values are bounded");
    }
}
