//! Texts: YAML as a document for schemas, and whether XML is well formed.

use serde_json::Value;

/// A YAML text as a document.
pub(crate) fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Checks tags, entities and nesting of an XML text and returns the names of its elements in order.
pub(crate) fn xml(text: &str) -> Vec<String> {
    let (mut rest, mut open, mut names) = (text, Vec::new(), Vec::new());
    while let Some(at) = rest.find('<') {
        entities(&rest[..at]);
        let end = rest[at..].find('>').unwrap_or_else(|| panic!("an open tag: {}", &rest[at..])) + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if tag.starts_with('?') {
            continue;
        }
        assert!(!tag.contains('<'), "a tag in a tag: {tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "the wrong element ends");
            continue;
        }
        let name = tag.trim_end_matches('/').split_whitespace().next().unwrap().to_owned();
        entities(tag);
        assert_eq!(tag.matches('"').count() % 2, 0, "an open attribute: {tag}");
        names.push(name.clone());
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(rest.trim().is_empty() && open.is_empty(), "what is left: {rest:?}, {open:?}");
    names
}

fn entities(text: &str) {
    for part in text.split('&').skip(1) {
        let name = part.split(';').next().unwrap();
        let known = ["amp", "lt", "gt", "quot", "apos"].contains(&name) || name.starts_with('#');
        assert!(known, "an unknown entity or a bare ampersand: &{part}");
    }
}
