//! The only file that names serde_yaml: text to a small tree, and the place of any node in it.
//!
//! serde_yaml keeps no positions, but its errors carry one. Every node gets a number in reading order; to find where
//! node 17 stands, the text is read again by a visitor that fails at node 17. That costs a second reading per mistake
//! and nothing for a file without mistakes.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::scan;

/// The largest file that is read, in bytes.
pub const TEXT_MAX: usize = 256 * 1024;
/// The most nodes that a document may have once its aliases are followed.
const NODES_MAX: u32 = 50_000;
/// The deepest nesting.
const DEPTH_MAX: u32 = 24;
/// Number of a node in reading order.
pub type NodeId = u32;

/// A node of the document.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// What it holds.
    pub content: Content,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number, as YAML 1.2 core reads it.
    Number(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in order.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its number.
    pub id: NodeId,
    /// Its text.
    pub name: String,
}

/// A place in a text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// Why a text is no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// In words.
    pub message: String,
    /// The way out, if there is one.
    pub help: Option<String>,
    /// Where, if it is known.
    pub place: Option<Place>,
}

/// Reads a text of exactly one document.
///
/// # Errors
/// It is larger than [`TEXT_MAX`], is not YAML, nests too deeply, or swells beyond bounds through aliases.
pub fn read(text: &str) -> Result<Node, YamlError> {
    if text.len() > TEXT_MAX {
        let message = format!("the file has {} bytes; the most that is read is {TEXT_MAX}", text.len());
        return Err(YamlError { message, help: None, place: None });
    }
    if let Err(refusal) = scan::look(text) {
        return Err(YamlError { message: refusal.message, help: refusal.help, place: Some(refusal.place) });
    }
    let walk = Walk { next: Cell::new(0), stop_at: None };
    let seed = Seed { walk: &walk, depth: 0 };
    let error = match seed.deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(node) => return Ok(node),
        Err(error) => error,
    };
    let place = error.location().map(|at| Place { line: at.line(), column: at.column() });
    // serde_yaml appends the place to its message; here it has a field of its own.
    let mut message = error.to_string();
    if let Some(at) = message.rfind(" at line ") {
        message.truncate(at);
    }
    let line = place.and_then(|place| text.lines().nth(place.line.checked_sub(1)?));
    let help = way_out(&message, line).map(str::to_owned);
    Err(YamlError { message, help, place })
}

/// What is meant most often, where the parser's words are of no help.
fn way_out(message: &str, line: Option<&str>) -> Option<&'static str> {
    let indent = line.map(|line| &line[..line.len() - line.trim_start().len()]);
    if indent.is_some_and(|indent| indent.contains('\t')) {
        Some("this line is indented with a tab: YAML wants spaces")
    } else if message.contains("mapping values are not allowed") {
        Some("a value that contains `: ` needs quotes, and the fields of a map stand below each other")
    } else {
        None
    }
}

/// Where the node with this number stands in a text that [`read`] accepts.
pub fn place(text: &str, id: NodeId) -> Option<Place> {
    let walk = Walk { next: Cell::new(0), stop_at: Some(id) };
    let seed = Seed { walk: &walk, depth: 0 };
    let error = seed.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    error.location().map(|at| Place { line: at.line(), column: at.column() })
}

struct Walk {
    next: Cell<NodeId>,
    stop_at: Option<NodeId>,
}

impl Walk {
    fn step<E: serde::de::Error>(&self) -> Result<NodeId, E> {
        let id = self.next.get();
        if self.stop_at == Some(id) {
            return Err(E::custom("here"));
        }
        if id >= NODES_MAX {
            return Err(E::custom(format!("the document has more than {NODES_MAX} nodes")));
        }
        self.next.set(id + 1);
        Ok(id)
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    walk: &'a Walk,
    depth: u32,
}

impl Seed<'_> {
    fn leaf<E: serde::de::Error>(self, content: Content) -> Result<Node, E> {
        Ok(Node { id: self.walk.step()?, content })
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain YAML without tags")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.leaf(Content::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.leaf(Content::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.leaf(Content::Flag(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        self.leaf(Content::Number(value.to_string()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        self.leaf(Content::Number(value.to_string()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        self.leaf(Content::Number(value.to_string()))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Node, E> {
        self.leaf(Content::Number(value.to_string()))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Node, E> {
        self.leaf(Content::Number(value.to_string()))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.leaf(Content::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let (id, inner) = (self.walk.step()?, self.deeper()?);
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Node { id, content: Content::List(list) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let (id, inner) = (self.walk.step()?, self.deeper()?);
        let mut map = Vec::new();
        while let Some(key) = entries.next_key_seed(inner)? {
            let name = match key.content {
                Content::Text(name) | Content::Number(name) => name,
                Content::Flag(flag) => flag.to_string(),
                _ => return Err(A::Error::custom("a key must be text")),
            };
            map.push((Key { id: key.id, name }, entries.next_value_seed(inner)?));
        }
        Ok(Node { id, content: Content::Map(map) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tab_and_a_bare_colon_are_told_with_the_way_out() {
        for (text, word) in [("load:\n\t- a: 1\n", "tab"), ("a: b: c\n", "quotes")] {
            let help = read(text).unwrap_err().help.unwrap_or_default();
            assert!(help.contains(word), "{text:?}: {help}");
        }
    }

    #[test]
    fn every_node_can_be_found_again() {
        let text = "a: 1\nlist:\n  - x: {deep: yes please}\n  - two\n";
        let Content::Map(map) = read(text).unwrap().content else { panic!("no map") };
        let Content::List(list) = &map[1].1.content else { panic!("no list") };
        assert_eq!(place(text, map[1].0.id), Some(Place { line: 2, column: 1 }));
        assert_eq!(place(text, list[1].id), Some(Place { line: 4, column: 5 }));
        let Content::Map(item) = &list[0].content else { panic!("no map") };
        assert_eq!(place(text, item[0].1.id), Some(Place { line: 3, column: 8 }));
    }

    #[test]
    fn bombs_end_in_an_error() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..9 {
            let uses = vec![format!("*a{}", i - 1); 10].join(",");
            bomb += &format!("a{i}: &a{i} [{uses}]\n");
        }
        let started = std::time::Instant::now();
        assert!(read(&bomb).is_err());
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(
            read(&format!("{}1{}", "[".repeat(100), "]".repeat(100))).unwrap_err().message.contains("deeper")
        );
        assert!(read(&"x".repeat(10 << 20)).unwrap_err().message.contains("bytes"));
        assert!(read("a: 1\n---\nb: 2\n").is_err());
        assert!(read("a: !tag x\n").is_err());
        assert!(started.elapsed().as_secs() < 5, "took {:?}", started.elapsed());
    }
}
