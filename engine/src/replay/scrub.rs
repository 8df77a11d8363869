//! Secrets that logs hold: replaced by one word, so that they are neither sent nor kept.

use serde_json::Value;

/// What stands in place of a secret.
pub const INSTEAD: &str = "scrubbed";
/// A name with one of these in it is that of a secret.
const ANYWHERE: [&str; 11] = [
    "token",
    "password",
    "passwd",
    "secret",
    "signature",
    "session",
    "credential",
    "auth",
    "apikey",
    "accesskey",
    "jwt",
];
/// A name with one of these as a word of it is.
const WORDS: [&str; 6] = ["key", "sig", "pwd", "sid", "pass", "pin"];

/// Whether a name is that of a secret.
pub fn secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let bare: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    ANYWHERE.iter().any(|word| bare.contains(word))
        || name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word))
}

/// A path with its query, without secrets in the query; and how many there were.
pub fn target(target: &str) -> (String, u64) {
    let Some((path, query)) = target.split_once('?') else { return (target.to_owned(), 0) };
    let (query, count) = pairs(query);
    (format!("{path}?{query}"), count)
}

fn pairs(query: &str) -> (String, u64) {
    let mut count = 0;
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !value.is_empty() && secret(&plain(name)) => {
                count += 1;
                format!("{name}={INSTEAD}")
            }
            _ => pair.to_owned(),
        })
        .collect();
    (pairs.join("&"), count)
}

/// A name without percent-encoding, as far as it is ASCII.
fn plain(name: &str) -> String {
    let (mut out, mut rest) = (String::new(), name.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        let digits =
            (*first == b'%').then(|| after.get(..2).and_then(|d| std::str::from_utf8(d).ok())).flatten();
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[2..];
            }
            None => out.push(char::from(*first)),
        }
    }
    out
}

/// A body without secrets, if it is a form or JSON; and how many there were.
pub fn body(content_type: &str, body: &[u8]) -> (Vec<u8>, u64) {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let read = std::str::from_utf8(body).ok();
    if kind == "application/x-www-form-urlencoded"
        && let Some(text) = read
    {
        let (text, count) = pairs(text);
        return (text.into_bytes(), count);
    }
    if (kind.ends_with("/json") || kind.ends_with("+json"))
        && let Some(mut value) = read.and_then(|text| serde_json::from_str::<Value>(text).ok())
    {
        let count = within(&mut value);
        if count > 0 {
            return (value.to_string().into_bytes(), count);
        }
    }
    (body.to_vec(), 0)
}

fn within(value: &mut Value) -> u64 {
    match value {
        Value::Object(map) => map
            .iter_mut()
            .map(|(name, value)| match value {
                Value::String(text) if secret(name) => {
                    INSTEAD.clone_into(text);
                    1
                }
                Value::Number(_) if secret(name) => {
                    *value = Value::from(INSTEAD);
                    1
                }
                value => within(value),
            })
            .sum(),
        Value::Array(items) => items.iter_mut().map(within).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_secret_is_replaced_and_the_rest_stays() {
        let sent =
            "/a?id=5&api_key=AAA&X-Amz-Signature=BBB&q=keyword&access%5Ftoken=CCC&SessionId=DDD&flag&token=";
        let (clean, count) = target(sent);
        assert_eq!(
            clean,
            "/a?id=5&api_key=scrubbed&X-Amz-Signature=scrubbed&q=keyword&access%5Ftoken=scrubbed&SessionId=scrubbed&flag&token="
        );
        assert_eq!(count, 4);
        for plain in ["keyword", "monkey", "page", "shipping", "passenger"] {
            assert!(!secret(plain), "{plain}");
        }
        assert_eq!(target("/token/x"), ("/token/x".to_owned(), 0));
        let (form, count) = body("application/x-www-form-urlencoded; charset=utf-8", b"user=a&password=b");
        assert_eq!((form.as_slice(), count), (&b"user=a&password=scrubbed"[..], 1));
        let (json, count) = body("application/json", br#"{"a": [{"pin": 5, "password": "x"}], "b": 1}"#);
        assert_eq!(count, 2);
        assert!(!String::from_utf8(json).unwrap().contains("\"x\""));
        assert_eq!(body("text/plain", b"password=b"), (b"password=b".to_vec(), 0));
    }
}
