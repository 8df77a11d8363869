//! Reading nodes into values while collecting every mistake.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::str::FromStr;

use reports::format::count;

use super::mistake::{Mistake, nearest, suggest};
use super::vars::{VarError, Vars};
use super::yaml::{Content, Node, NodeId};
use crate::template::Known;

/// The longest text value, in bytes, after substitution.
const VALUE_MAX: usize = 64 * 1024;
/// The most items in any list.
pub(super) const LIST_MAX: usize = 1000;

/// Collects mistakes; shared by everything that reads one file.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    vars: &'a Vars,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'a> Reader<'a> {
    /// A reader that substitutes these variables.
    pub(super) fn new(vars: &'a Vars) -> Self {
        Self { vars, mistakes: RefCell::default() }
    }

    /// Notes a mistake at a node.
    pub(super) fn mistake(&self, node: NodeId, message: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake { node: Some(node), message: message.into(), help: None });
    }

    /// Notes a mistake at a node with the way out.
    pub(super) fn mistake_with(&self, node: NodeId, message: impl Into<String>, help: impl Into<String>) {
        let mistake = Mistake { node: Some(node), message: message.into(), help: Some(help.into()) };
        self.mistakes.borrow_mut().push(mistake);
    }

    /// Everything noted so far.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes.into_inner()
    }

    /// A map, each key at most once.
    pub(super) fn map<'n>(&'a self, node: &'n Node, what: &str) -> Option<Fields<'a, 'n>> {
        let Content::Map(entries) = &node.content else {
            self.mistake(node.id, format!("{what} must be a map, not {}", kind(node)));
            return None;
        };
        let mut seen = HashSet::new();
        for (key, _) in entries {
            if !seen.insert(key.name.as_str()) {
                self.mistake(key.id, format!("`{}` stands here twice", key.name));
            }
        }
        Some(Fields { reader: self, node, entries, used: RefCell::default(), missing: RefCell::default() })
    }

    /// A list of at most [`LIST_MAX`] items.
    pub(super) fn list<'n>(&self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.content {
            Content::List(items) if items.len() <= LIST_MAX => items,
            Content::List(items) => {
                self.mistake(
                    node.id,
                    format!("{what} has {} items; at most {LIST_MAX} are read", items.len()),
                );
                &[]
            }
            _ => {
                self.mistake(node.id, format!("{what} must be a list, not {}", kind(node)));
                &[]
            }
        }
    }

    /// The same, but none if it is no list.
    pub(super) fn list_in<'n>(&self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        let items = self.list(node, what);
        matches!(node.content, Content::List(_)).then_some(items)
    }

    /// An item `- name: …` of a list: a map with exactly one key.
    pub(super) fn named<'n>(&self, node: &'n Node, what: &str) -> Option<(NodeId, &'n str, &'n Node)> {
        match &node.content {
            Content::Map(entries) if entries.len() == 1 => {
                entries.first().map(|(key, value)| (key.id, key.name.as_str(), value))
            }
            Content::Map(entries) if entries.len() > 1 => {
                let help = "write `- name: {…}`, and indent what belongs to it further than the name";
                let names: Vec<&str> = entries.iter().map(|(key, _)| key.name.as_str()).collect();
                self.mistake_with(
                    node.id,
                    format!("{what} must have one key, not {}: {}", names.len(), names.join(", ")),
                    help,
                );
                None
            }
            _ => {
                self.mistake_with(
                    node.id,
                    format!("{what} must be a map with one key, not {}", kind(node)),
                    "write `- name: {…}`",
                );
                None
            }
        }
    }

    /// A text, after substitution; numbers and flags pass as they are written.
    pub(super) fn text(&self, node: &Node, what: &str) -> Option<String> {
        let text = match &node.content {
            Content::Text(text) | Content::Number(text) => text.clone(),
            Content::Flag(flag) => flag.to_string(),
            _ => {
                self.mistake(node.id, format!("{what} must be text, not {}", kind(node)));
                return None;
            }
        };
        self.substituted(node, what, self.vars.substitute(&text))
    }

    /// Whether `${name}` is a variable of the file or of the command line.
    pub(super) fn is_var(&self, name: &str) -> bool {
        self.vars.own.contains_key(name)
    }

    /// A text with slots: what is filled in for each request stays in it, and so do names that only a run knows.
    pub(super) fn slots(&self, node: &Node, what: &str, known: &Known<'_>) -> Option<String> {
        let text = match &node.content {
            Content::Text(text) => text.clone(),
            _ => return self.text(node, what),
        };
        self.substituted(node, what, self.vars.substitute_around(&text, known))
    }

    fn substituted(&self, node: &Node, what: &str, text: Result<String, VarError>) -> Option<String> {
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                self.mistake_with(node.id, format!("{what}: {}", error.message), error.help);
                return None;
            }
        };
        if text.len() > VALUE_MAX {
            self.mistake(node.id, format!("{what} is longer than {VALUE_MAX} bytes"));
            return None;
        }
        Some(text)
    }

    /// A text that a type can read: a duration, a rate and so on.
    pub(super) fn parse<T: FromStr<Err: std::fmt::Display>>(&self, node: &Node, what: &str) -> Option<T> {
        let text = self.text(node, what)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(node.id, format!("{what}: `{text}`: {error}"));
                None
            }
        }
    }

    /// A whole number within bounds, both included.
    pub(super) fn within(&self, node: &Node, what: &str, bounds: RangeInclusive<u32>) -> Option<u32> {
        let number = self.parse::<u32>(node, what)?;
        if bounds.contains(&number) {
            return Some(number);
        }
        let [from, to] = [bounds.start(), bounds.end()].map(|bound| count(u64::from(*bound)));
        self.mistake(node.id, format!("{what} must be from {from} to {to}"));
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, what)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.mistake_with(node.id, format!("{what}: unknown word `{text}`"), suggest(&text, &allowed));
        }
        found
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, node: &Node, what: &str) -> Option<bool> {
        match self.text(node, what)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                self.mistake(node.id, format!("{what}: `{other}` is neither true nor false"));
                None
            }
        }
    }
}

/// The kind of a node, for messages.
pub(super) fn kind(node: &Node) -> &'static str {
    match node.content {
        Content::Null => "nothing",
        Content::Flag(_) => "true or false",
        Content::Number(_) => "a number",
        Content::Text(_) => "text",
        Content::List(_) => "a list",
        Content::Map(_) => "a map",
    }
}

/// The fields of one map; remembers which were asked for.
#[derive(Debug)]
pub(super) struct Fields<'a, 'n> {
    reader: &'a Reader<'a>,
    /// The map itself.
    pub node: &'n Node,
    entries: &'n [(super::yaml::Key, Node)],
    used: RefCell<Vec<&'static str>>,
    missing: RefCell<Vec<(&'static str, String)>>,
}

impl<'n> Fields<'_, 'n> {
    /// A field that may be left out. `null` counts as left out.
    pub(super) fn optional(&self, name: &'static str) -> Option<&'n Node> {
        let mut used = self.used.borrow_mut();
        if !used.contains(&name) {
            used.push(name);
        }
        drop(used);
        let found = self.entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value);
        found.filter(|node| node.content != Content::Null)
    }

    /// A field that must be there.
    pub(super) fn required(&self, name: &'static str, what: &str) -> Option<&'n Node> {
        let found = self.optional(name);
        if found.is_none() {
            self.missing.borrow_mut().push((name, what.to_owned()));
        }
        found
    }

    /// Fields whose names are not known beforehand, and have not been asked for.
    pub(super) fn others(&self) -> impl Iterator<Item = (NodeId, &'n str, &'n Node)> {
        let used = self.used.borrow().clone();
        self.entries
            .iter()
            .filter(move |(key, _)| !used.contains(&key.name.as_str()))
            .map(|(key, value)| (key.id, key.name.as_str(), value))
    }

    /// Every key, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'n str> {
        self.entries.iter().map(|(key, _)| key.name.as_str())
    }

    /// Whether there is a key with this name, whatever it holds.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    /// Notes every field that nobody asked for, and every one that is missing; a misspelt one is one mistake, not two.
    pub(super) fn finish(self, what: &str) {
        let used = self.used.borrow().clone();
        let strangers: Vec<(NodeId, &str)> = self.others().map(|(id, name, _)| (id, name)).collect();
        for (name, owner) in self.missing.borrow().iter() {
            if !strangers.iter().any(|(_, stranger)| nearest(stranger, used.iter().copied()) == Some(*name)) {
                self.reader.mistake(self.node.id, format!("{owner} lacks `{name}`"));
            }
        }
        for (id, name) in strangers {
            self.reader.mistake_with(id, format!("{what} has no field `{name}`"), suggest(name, &used));
        }
    }
}
