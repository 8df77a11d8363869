//! What a good answer is, beyond its status. Only requests that expect something of headers or JSON pay for looking.

use std::ops::RangeInclusive;

use hyper::header::HeaderName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most expectations of one kind in a request.
pub const EXPECT_MAX: usize = 16;
/// The largest body in which a JSON pointer is followed, in bytes.
pub const JSON_MAX: usize = 1 << 20;

/// What a good answer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expect {
    /// Good status codes.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// A text that the body must contain.
    pub body_contains: Option<String>,
    /// What must be true of headers.
    pub headers: Vec<HeaderExpect>,
    /// What must be true of a body in JSON; one larger than [`JSON_MAX`] is not good.
    pub json: Vec<JsonExpect>,
}

impl Default for Expect {
    /// 200 to 399, any headers, any body.
    fn default() -> Self {
        Self { statuses: vec![200..=399], body_contains: None, headers: Vec::new(), json: Vec::new() }
    }
}

impl Expect {
    /// Adds what a clause says: `header NAME`, `header NAME = VALUE`, `header NAME contains TEXT`, `body contains TEXT`,
    /// `json /POINTER`, `json /POINTER = VALUE`.
    ///
    /// # Errors
    /// The clause is none of these.
    pub fn add(&mut self, clause: &str) -> Result<(), String> {
        let split = |text: &str, by: &str| {
            text.split_once(by).map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        };
        let (subject, rest) = clause.trim().split_once(' ').unwrap_or((clause.trim(), ""));
        let rest = rest.trim();
        match subject {
            "header" if !rest.is_empty() => {
                let (name, test) = if let Some((name, text)) = split(rest, " contains ") {
                    (name, HeaderTest::Contains(text))
                } else if let Some((name, value)) = split(rest, "=") {
                    (name, HeaderTest::Equals(value))
                } else {
                    (rest.to_owned(), HeaderTest::Present)
                };
                self.headers.push(HeaderExpect { name, test });
            }
            "json" if rest.starts_with('/') && !rest.contains(" contains ") => {
                let (pointer, value) =
                    split(rest, "=").map_or((rest.to_owned(), None), |(p, v)| (p, Some(v)));
                let read = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
                self.json.push(JsonExpect { pointer, equals: value.map(read) });
            }
            "body" if rest.starts_with("contains ") && self.body_contains.is_none() => {
                self.body_contains = Some(rest["contains ".len()..].to_owned());
            }
            _ => {
                return Err(format!(
                    "`{subject} …` is no expectation: write 'header NAME', 'header NAME = VALUE', 'header NAME contains \
                     TEXT', 'body contains TEXT' (once), 'json /POINTER' or 'json /POINTER = VALUE'"
                ));
            }
        }
        Ok(())
    }
}

/// What must be true of a header; of several of one name, of any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderExpect {
    /// Its name.
    pub name: String,
    /// What must be true.
    pub test: HeaderTest,
}

/// See [`HeaderExpect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderTest {
    /// It is there.
    Present,
    /// It has this value.
    Equals(String),
    /// Its value has this text in it.
    Contains(String),
}

/// What must be true of a body in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonExpect {
    /// Where (RFC 6901): empty for the whole, else beginning with `/`.
    pub pointer: String,
    /// What stands there; anything if none.
    pub equals: Option<Value>,
}

impl JsonExpect {
    /// Whether a document is as expected. Numbers are compared by value: 1 is 1.0.
    pub fn holds(&self, document: &Value) -> bool {
        let Some(found) = document.pointer(&self.pointer) else { return false };
        match &self.equals {
            None => true,
            Some(wanted) => {
                found == wanted || found.as_f64().is_some_and(|found| Some(found) == wanted.as_f64())
            }
        }
    }
}

/// Expectations that are ready to be looked at.
#[derive(Debug)]
pub(crate) struct Checks {
    headers: Vec<(HeaderName, HeaderTest)>,
    pub(crate) json: Vec<JsonExpect>,
}

impl Checks {
    /// None if nothing is expected.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn new(expect: &Expect) -> Result<Option<Self>, &'static str> {
        if expect.headers.is_empty() && expect.json.is_empty() {
            return Ok(None);
        }
        if expect.headers.len().max(expect.json.len()) > EXPECT_MAX {
            return Err("at most 16 headers and 16 places in JSON can be expected");
        }
        if expect.json.iter().any(|json| !json.pointer.is_empty() && !json.pointer.starts_with('/')) {
            return Err("a JSON pointer begins with `/`, such as `/items/0/id`");
        }
        let header = |header: &HeaderExpect| {
            let name = header.name.parse().map_err(|_| "a header that is expected has no header's name")?;
            Ok((name, header.test.clone()))
        };
        let headers = expect.headers.iter().map(header).collect::<Result<_, &'static str>>()?;
        Ok(Some(Self { headers, json: expect.json.clone() }))
    }

    /// Whether bodies must be kept to be looked at.
    pub(crate) fn looks_at_bodies(&self) -> bool {
        !self.json.is_empty()
    }

    /// Which expectations a header field meets, as bits.
    pub(crate) fn met_by(&self, name: &[u8], value: &[u8]) -> u16 {
        let mut met = 0;
        for (at, (wanted, test)) in self.headers.iter().enumerate() {
            let holds = name.eq_ignore_ascii_case(wanted.as_str().as_bytes())
                && match test {
                    HeaderTest::Present => true,
                    HeaderTest::Equals(text) => value.trim_ascii() == text.as_bytes(),
                    HeaderTest::Contains(text) => contains(value, text.as_bytes()),
                };
            met |= u16::from(holds) << at;
        }
        met
    }

    /// Whether these bits are all of them.
    pub(crate) fn all_met(&self, met: u16) -> bool {
        u32::from(met).count_ones() as usize == self.headers.len()
    }

    /// Whether a body is as expected; none if it was too large to be kept.
    pub(crate) fn body_holds(&self, body: Option<&[u8]>) -> bool {
        if self.json.is_empty() {
            return true;
        }
        let document = body.and_then(|body| serde_json::from_slice::<Value>(body).ok());
        self.document_holds(document.as_ref())
    }

    /// The same for a body that was read as JSON; none if it is no JSON.
    pub(crate) fn document_holds(&self, document: Option<&Value>) -> bool {
        let holds = |document: &Value| self.json.iter().all(|json| json.holds(document));
        self.json.is_empty() || document.is_some_and(holds)
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_compared_by_value_where_the_pointer_leads() {
        let document = json!({"ok": true, "n": 1, "items": [{"id": "a"}], "a/b": null});
        let holds = |pointer: &str, equals: Option<Value>| {
            JsonExpect { pointer: pointer.to_owned(), equals }.holds(&document)
        };
        assert!(holds("/ok", Some(json!(true))) && !holds("/ok", Some(json!("true"))));
        assert!(holds("/n", Some(json!(1.0))) && !holds("/n", Some(json!(2))));
        assert!(holds("/items/0/id", None) && holds("/items/0/id", Some(json!("a"))));
        assert!(!holds("/items/1/id", None) && holds("/a~1b", None));
    }

    #[test]
    fn clauses_say_what_is_expected() {
        let mut expect = Expect::default();
        for clause in [
            "header etag",
            "header x-cache = HIT",
            "header content-type contains json",
            "body contains a = b",
            "json /id",
            "json /n = 5",
            "json /s = five",
        ] {
            expect.add(clause).unwrap();
        }
        let tests: Vec<_> =
            expect.headers.iter().map(|header| (&*header.name, header.test.clone())).collect();
        assert_eq!(tests[0], ("etag", HeaderTest::Present));
        assert_eq!(tests[1], ("x-cache", HeaderTest::Equals("HIT".to_owned())));
        assert_eq!(tests[2], ("content-type", HeaderTest::Contains("json".to_owned())));
        assert_eq!(expect.body_contains.as_deref(), Some("a = b"));
        let equals: Vec<_> = expect.json.iter().map(|json| json.equals.clone()).collect();
        assert_eq!(equals, [None, Some(json!(5)), Some(json!("five"))]);
        for wrong in ["", "status 200", "json id", "header", "body has x", "body contains twice"] {
            assert!(expect.add(wrong).unwrap_err().contains("is no expectation"), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_looked_at_is_refused() {
        let json = |pointer: &str| JsonExpect { pointer: pointer.to_owned(), equals: None };
        let expect = |json: Vec<JsonExpect>| Checks::new(&Expect { json, ..Expect::default() });
        assert!(expect(Vec::new()).unwrap().is_none());
        assert!(expect(vec![json("")]).unwrap().is_some());
        assert!(expect(vec![json("ok")]).unwrap_err().contains("begins with `/`"));
        assert!(expect(vec![json("/ok"); EXPECT_MAX + 1]).unwrap_err().contains("at most 16"));
        let headers = vec![HeaderExpect { name: "a b".to_owned(), test: HeaderTest::Present }];
        assert!(Checks::new(&Expect { headers, ..Expect::default() }).is_err());
    }
}
