//! Values that must never reach a disk or a screen: what an experiment took from the environment or from `--set`.
//!
//! Wherever such a value would be written, `${env:NAME}` stands in its place. A journal read later gets the values back
//! from the environment of whoever reads it. What is written in the experiment itself, such as the default in
//! `${TOKEN:-x}`, is no secret: the file is part of the record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Shorter values are no secrets unless their name says so: hiding `80` or `auth` would mangle every text in which
/// they happen to occur.
const SHORTEST: usize = 8;
/// The same for values whose name says that they are secret.
const SHORTEST_NAMED: usize = 3;
/// Parts of names that say so.
const TELLING: [&str; 5] = ["TOKEN", "SECRET", "PASS", "KEY", "CREDENTIAL"];

/// Names and their values, the longest value first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// Of these, those that are long enough to be secrets.
    pub fn new(values: impl IntoIterator<Item = (String, String)>) -> Self {
        let shortest = |name: &str| {
            let name = name.to_ascii_uppercase();
            if TELLING.iter().any(|part| name.contains(part)) { SHORTEST_NAMED } else { SHORTEST }
        };
        let mut kept: Vec<(String, String)> =
            values.into_iter().filter(|(name, value)| value.len() >= shortest(name)).collect();
        kept.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        Self(kept)
    }

    /// Each secret alone.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.0.iter().map(|one| Self(vec![one.clone()]))
    }

    /// The text with every secret replaced by its name.
    pub fn hide(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (name, value) in &self.0 {
            if out.contains(value.as_str()) {
                out = out.replace(value.as_str(), &format!("${{env:{name}}}"));
            }
        }
        out
    }

    /// The same for every text of a document.
    pub fn hide_in(&self, value: &mut Value) {
        if !self.0.is_empty() {
            each_text(value, &mut |text| *text = self.hide(text));
        }
    }
}

/// Puts values back into a document, by name, and returns what it put there: it must be hidden again.
///
/// # Errors
/// The names that `find` does not know.
pub fn reveal_in(value: &mut Value, find: impl Fn(&str) -> Option<String>) -> Result<Secrets, Vec<String>> {
    let mut missing = Vec::new();
    let mut revealed = BTreeMap::new();
    each_text(value, &mut |text| {
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find("${env:") {
            let (before, tail) = rest.split_at(at);
            out.push_str(before);
            let Some(end) = tail.find('}') else { break };
            let name = &tail[6..end];
            match find(name) {
                Some(value) => {
                    out.push_str(&value);
                    revealed.insert(name.to_owned(), value);
                }
                None if missing.iter().any(|known| known == name) => {}
                None => missing.push(name.to_owned()),
            }
            rest = &tail[end + 1..];
        }
        out.push_str(rest);
        *text = out;
    });
    if missing.is_empty() { Ok(Secrets::new(revealed)) } else { Err(missing) }
}

fn each_text(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|field| each_text(field, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_hidden_can_be_revealed_by_whoever_knows_it() {
        let secrets = Secrets::new([
            ("TOKEN".to_owned(), "s3cr3t-value".to_owned()),
            ("PORT".to_owned(), "80".to_owned()),
        ]);
        let before = json!({"argv": ["curl", "-H", "Bearer s3cr3t-value", "http://h:80/"], "n": 80});
        let mut value = before.clone();
        secrets.hide_in(&mut value);
        assert!(!value.to_string().contains("s3cr3t"), "{value}");
        assert!(value.to_string().contains("http://h:80/"), "short values are no secrets");
        assert_eq!(reveal_in(&mut value.clone(), |_| None).unwrap_err(), ["TOKEN"]);
        let revealed = reveal_in(&mut value, |name| (name == "TOKEN").then(|| "s3cr3t-value".to_owned()));
        assert_eq!(value, before);
        assert_eq!(
            revealed.unwrap().hide("said s3cr3t-value"),
            "said ${env:TOKEN}",
            "it can be hidden again"
        );
    }

    #[test]
    fn a_short_value_is_a_secret_if_its_name_says_so() {
        let hides = |name: &str, value: &str| {
            Secrets::new([(name.to_owned(), value.to_owned())]).hide(&format!("<{value}>"))
                != format!("<{value}>")
        };
        for name in ["API_TOKEN", "db_password", "secret", "KEY"] {
            assert!(hides(name, "abc") && hides(name, "hunter2"), "{name}");
            assert!(!hides(name, "ab") && !hides(name, ""), "{name}: it would mangle every text");
        }
        assert!(!hides("RATE", "50/s") && !hides("HOST", "10.0.0.1"[..7].as_ref()));
        assert!(hides("RATE", "12345678"));
    }
}
