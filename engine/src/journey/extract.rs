//! Taking values from answers. The one door to regex: what it may cost is bounded when it is read, and it takes linear time.

use hyper::header::{HeaderMap, SET_COOKIE};
use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

use super::{REGEX_MAX, Source, VALUE_MAX};

/// The most memory that a regular expression may take, in bytes; as much again while it is looked for.
const COMPILED_MAX: usize = 1 << 20;

/// A source that can be looked for.
#[derive(Debug, Clone)]
pub enum Finder {
    /// See [`Source::Json`].
    Json(String),
    /// See [`Source::Header`].
    Header(String),
    /// See [`Source::Between`].
    Between(String, String),
    /// See [`Source::Regex`].
    Regex(Regex),
    /// See [`Source::Cookie`].
    Cookie(String),
}

impl Finder {
    /// # Errors
    /// In words: why it cannot be looked for.
    pub fn new(source: &Source) -> Result<Self, String> {
        Ok(match source {
            Source::Json(pointer) if !pointer.is_empty() && !pointer.starts_with('/') => {
                return Err("a pointer starts with `/`, such as `/items/0/id`".to_owned());
            }
            Source::Json(pointer) => Self::Json(pointer.clone()),
            Source::Header(name) => Self::Header(name.clone()),
            Source::Between(before, after) => Self::Between(before.clone(), after.clone()),
            Source::Regex(pattern) => Self::Regex(compiled(pattern)?),
            Source::Cookie(name) if name.is_empty() => return Err("a cookie has a name".to_owned()),
            Source::Cookie(name) => Self::Cookie(name.clone()),
        })
    }

    /// Whether it looks at the body.
    pub fn in_body(&self) -> bool {
        !matches!(self, Self::Header(_) | Self::Cookie(_))
    }
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    if pattern.is_empty() || pattern.len() > REGEX_MAX {
        return Err(format!("a regular expression has from 1 to {REGEX_MAX} bytes"));
    }
    let read = RegexBuilder::new(pattern).size_limit(COMPILED_MAX).dfa_size_limit(COMPILED_MAX).build();
    let regex = read.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it would take too much memory: repeat less".to_owned(),
        other => {
            // The lines before the last one point into the expression.
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    })?;
    if regex.captures_len() > 2 {
        return Err("it has more than one group: write `(?:…)` for those that only hold together".to_owned());
    }
    Ok(regex)
}

/// What a source leads to in an answer; none if it is not there, is no single value, or is longer than [`VALUE_MAX`].
/// `json` is the body, read once for all that look at it.
pub fn extract(finder: &Finder, headers: &HeaderMap, body: &[u8], json: &mut Document) -> Option<String> {
    let value = match finder {
        Finder::Header(name) => headers.get(name.as_str())?.to_str().ok()?.to_owned(),
        Finder::Cookie(name) => {
            let set = headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
            let mut pairs = set.filter_map(|text| text.split(';').next()?.split_once('='));
            // Of several of one name, the last one counts, as in a jar.
            pairs.rfind(|(known, _)| known.trim() == name)?.1.trim().to_owned()
        }
        Finder::Json(pointer) => match json.of(body)?.pointer(pointer)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        },
        Finder::Between(before, after) => {
            let from = find(body, before.as_bytes())? + before.len();
            let length = find(&body[from..], after.as_bytes())?;
            text(&body[from..from + length])?
        }
        Finder::Regex(regex) => {
            let found = regex.captures(body)?;
            text(found.get(regex.captures_len() - 1)?.as_bytes())?
        }
    };
    (value.len() <= VALUE_MAX).then_some(value)
}

/// A body as JSON, read at most once.
#[derive(Debug, Default)]
pub struct Document {
    read: bool,
    value: Option<Value>,
}

impl Document {
    /// What is in a body, always the same one; none if it is no JSON.
    pub fn of(&mut self, body: &[u8]) -> Option<&Value> {
        if !std::mem::replace(&mut self.read, true) {
            self.value = serde_json::from_slice(body).ok();
        }
        self.value.as_ref()
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// Where a text begins.
fn find(body: &[u8], text: &[u8]) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    body.windows(text.len()).position(|part| part == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from(source: &Source, body: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert("x-id", "h1".parse().unwrap());
        for cookie in ["sid=a1; Path=/", "other=2", "sid = b2 ; Secure", "broken"] {
            headers.append(SET_COOKIE, cookie.parse().unwrap());
        }
        extract(&Finder::new(source).unwrap(), &headers, body.as_bytes(), &mut Document::default())
    }

    #[test]
    fn values_come_from_json_headers_cookies_and_between() {
        let json = |pointer: &str, body: &str| from(&Source::Json(pointer.to_owned()), body);
        let body = r#"{"a": [{"b": "x"}, 7, true], "n": null, "o": {}}"#;
        assert_eq!(json("/a/0/b", body).as_deref(), Some("x"));
        assert_eq!((json("/a/1", body).as_deref(), json("/a/2", body).as_deref()), (Some("7"), Some("true")));
        assert_eq!((json("/n", body), json("/o", body), json("/z", body)), (None, None, None));
        assert_eq!(json("/a", "no json"), None);
        assert_eq!(from(&Source::Header("x-id".to_owned()), "").as_deref(), Some("h1"));
        let cookie = |name: &str| from(&Source::Cookie(name.to_owned()), "");
        assert_eq!((cookie("sid").as_deref(), cookie("other").as_deref()), (Some("b2"), Some("2")));
        assert_eq!((cookie("Sid"), cookie("broken")), (None, None));
        let between = |body: &str| from(&Source::Between("id=".to_owned(), ";".to_owned()), body);
        assert_eq!(between("a id=42; b").as_deref(), Some("42"));
        assert_eq!((between("a id=42"), between("42;")), (None, None));
        assert_eq!(between(&format!("id={};", "x".repeat(VALUE_MAX + 1))), None, "values are bounded");
    }

    #[test]
    fn a_regular_expression_gives_its_group_or_all_of_it() {
        let find = |pattern: &str, body: &str| from(&Source::Regex(pattern.to_owned()), body);
        assert_eq!(
            find(r#"name="csrf" value="([^"]+)""#, r#"<i name="csrf" value="t-7">"#).as_deref(),
            Some("t-7")
        );
        assert_eq!(find(r"\d{3}", "a 1234").as_deref(), Some("123"));
        assert_eq!(find(r"a(b)?c", "ac"), None, "a group that is not there is no value");
        assert_eq!(find("x", "abc"), None);
        let wrong = |pattern: &str| Finder::new(&Source::Regex(pattern.to_owned())).unwrap_err();
        assert_eq!(wrong("a(b"), "unclosed group");
        assert!(wrong("(a)(b)").contains("more than one group"));
        assert!(wrong("").contains("from 1 to 1024 bytes") && wrong(&"a".repeat(1025)).contains("1024"));
        assert!(wrong(r"((((\pL{99}){99}){99}){99})").contains("too much memory"));
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(pattern in "[a(|)*+?\\[\\]{}1-9,^$]{1,12}", body in prop::collection::vec(any::<u8>(), 0..60)) {
            for source in [Source::Regex(pattern), Source::Json("/a".to_owned()), Source::Between("a".to_owned(), "(".to_owned())] {
                if let Ok(finder) = Finder::new(&source) {
                    let _ = extract(&finder, &HeaderMap::new(), &body, &mut Document::default());
                }
            }
        }
    }
}
