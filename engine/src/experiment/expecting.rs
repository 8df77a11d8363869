//! Reading `expect:`: what a good answer is.

use serde_json::Value;

use super::reader::{Fields, Reader};
use super::yaml::{Content, Node};
use crate::expect::{EXPECT_MAX, HeaderExpect, HeaderTest, JsonExpect};

/// What is expected; what is empty is not said.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    pub(super) statuses: Vec<(u16, u16)>,
    pub(super) body_contains: Option<String>,
    pub(super) headers: Vec<HeaderExpect>,
    pub(super) json: Vec<JsonExpect>,
}

impl Expected {
    /// What is not said here is taken from another.
    pub(super) fn or(mut self, other: &Self) -> Self {
        if self.statuses.is_empty() {
            self.statuses.clone_from(&other.statuses);
        }
        self.body_contains = self.body_contains.or_else(|| other.body_contains.clone());
        if self.headers.is_empty() {
            self.headers.clone_from(&other.headers);
        }
        if self.json.is_empty() {
            self.json.clone_from(&other.json);
        }
        self
    }
}

/// Reads what a request expects.
pub(super) fn expect(reader: &Reader<'_>, node: &Node) -> Expected {
    let Some(fields) = reader.map(node, "expect") else { return Expected::default() };
    let (statuses, body_contains) = expect_fields(reader, &fields);
    let headers = fields.optional("headers").map(|node| headers(reader, node)).unwrap_or_default();
    let json = fields.optional("json").map(|node| json(reader, node)).unwrap_or_default();
    fields.finish("expect");
    Expected { statuses, body_contains, headers, json }
}

/// What is true of one thing: `present`, `{equals: …}` or `{contains: …}`.
enum Test<'n> {
    Present,
    Equals(&'n Node),
    Contains(&'n Node),
}

fn test<'n>(reader: &Reader<'_>, node: &'n Node, what: &str, contains: bool) -> Option<Test<'n>> {
    let help = if contains {
        "write `present`, `{equals: …}` or `{contains: …}`"
    } else {
        "write `present` or `{equals: …}`"
    };
    match &node.content {
        Content::Text(word) if word == "present" => Some(Test::Present),
        Content::Map(entries) => match entries.as_slice() {
            [(key, value)] if key.name == "equals" => Some(Test::Equals(value)),
            [(key, value)] if key.name == "contains" && contains => Some(Test::Contains(value)),
            _ => {
                reader.mistake_with(node.id, format!("{what}: this is no expectation"), help);
                None
            }
        },
        _ => {
            reader.mistake_with(node.id, format!("{what}: this is no expectation"), help);
            None
        }
    }
}

fn headers(reader: &Reader<'_>, node: &Node) -> Vec<HeaderExpect> {
    let Some(fields) = reader.map(node, "headers") else { return Vec::new() };
    let mut expected = Vec::new();
    for (id, name, value) in fields.others() {
        if expected.len() == EXPECT_MAX {
            reader.mistake(id, format!("at most {EXPECT_MAX} headers can be expected"));
            break;
        }
        if name.parse::<hyper::header::HeaderName>().is_err() {
            reader.mistake(id, format!("`{name}` is no header name"));
            continue;
        }
        let read = match test(reader, value, name, true) {
            Some(Test::Present) => Some(HeaderTest::Present),
            Some(Test::Equals(node)) => reader.text(node, "equals").map(HeaderTest::Equals),
            Some(Test::Contains(node)) => reader.text(node, "contains").map(HeaderTest::Contains),
            None => None,
        };
        expected.extend(read.map(|test| HeaderExpect { name: name.to_owned(), test }));
    }
    expected
}

fn json(reader: &Reader<'_>, node: &Node) -> Vec<JsonExpect> {
    let Some(fields) = reader.map(node, "json") else { return Vec::new() };
    let mut expected = Vec::new();
    for (id, pointer, value) in fields.others() {
        if expected.len() == EXPECT_MAX {
            reader.mistake(id, format!("at most {EXPECT_MAX} places in JSON can be expected"));
            break;
        }
        if !pointer.is_empty() && !pointer.starts_with('/') {
            let help = format!("write `/{}`", pointer.replace('.', "/"));
            reader.mistake_with(id, format!("`{pointer}` is no JSON pointer: it begins with `/`"), help);
            continue;
        }
        let equals = match test(reader, value, pointer, false) {
            Some(Test::Equals(node)) => reader.text(node, "equals").map(|text| Some(plain(node, text))),
            Some(Test::Present) => Some(None),
            Some(Test::Contains(_)) | None => None,
        };
        expected.extend(equals.map(|equals| JsonExpect { pointer: pointer.to_owned(), equals }));
    }
    expected
}

/// A number or a flag is one in JSON as well; everything else is a text.
fn plain(node: &Node, text: String) -> Value {
    let number = matches!(node.content, Content::Number(_) | Content::Flag(_));
    number.then(|| serde_json::from_str(&text).ok()).flatten().unwrap_or(Value::String(text))
}

/// The fields `status` and `body-contains` of a map.
pub(super) fn expect_fields(
    reader: &Reader<'_>,
    fields: &Fields<'_, '_>,
) -> (Vec<(u16, u16)>, Option<String>) {
    let statuses = fields.optional("status").map(|node| match &node.content {
        Content::List(items) => items.iter().filter_map(|item| status(reader, item)).collect(),
        _ => status(reader, node).into_iter().collect::<Vec<_>>(),
    });
    let contains = fields.optional("body-contains").and_then(|node| {
        let text = reader.text(node, "body-contains")?;
        if text.is_empty() || text.len() > 1024 {
            reader.mistake(node.id, "body-contains must have from 1 to 1,024 bytes");
            return None;
        }
        Some(text)
    });
    (statuses.unwrap_or_default(), contains)
}

/// `200`, `2xx` or `200-299`.
fn status(reader: &Reader<'_>, node: &Node) -> Option<(u16, u16)> {
    let text = reader.text(node, "status")?;
    let range = read_status(&text);
    if range.is_none() {
        reader.mistake_with(
            node.id,
            format!("status: `{text}` is no status"),
            "write `200`, `2xx`, `200-204` or a list of them",
        );
    }
    range
}

/// `200`, `2xx` or `200-299`; none if it is none of these.
pub fn read_status(text: &str) -> Option<(u16, u16)> {
    let range = if let Some(class) = text.strip_suffix("xx") {
        class.parse::<u16>().ok().map(|class| (class * 100, class * 100 + 99))
    } else if let Some((from, to)) = text.split_once('-') {
        from.parse().ok().zip(to.parse().ok())
    } else {
        text.parse().ok().map(|code| (code, code))
    };
    range.filter(|(from, to)| (100..=599).contains(from) && (100..=599).contains(to) && from <= to)
}
