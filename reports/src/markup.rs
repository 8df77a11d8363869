//! Builds HTML and XML so that escaping cannot be forgotten: only text of the program itself goes in as it is.

use crate::escape;

/// A piece of HTML or XML that is well-formed as far as it goes.
#[derive(Debug, Clone)]
pub(crate) struct Markup {
    text: String,
    escape: fn(&str) -> String,
}

impl Markup {
    /// Empty HTML.
    pub(crate) fn html() -> Self {
        Self { text: String::new(), escape: escape::html }
    }

    /// Empty XML.
    pub(crate) fn xml() -> Self {
        Self { text: String::new(), escape: escape::xml }
    }

    /// Adds markup: only what is written in our own source.
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.text.push_str(markup);
        self
    }

    /// Adds text from anywhere, escaped; also right inside of a quoted attribute.
    pub(crate) fn text(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.text.push_str(&(self.escape)(text.as_ref()));
        self
    }

    /// Adds a coordinate with one decimal; zero when it is no number.
    pub(crate) fn num(&mut self, value: f64) -> &mut Self {
        let value = if value.is_finite() { value } else { 0.0 };
        let text = format!("{value:.1}");
        self.text.push_str(text.strip_suffix(".0").unwrap_or(&text));
        self
    }

    /// Adds a percentage of the width with two decimals, with its sign.
    pub(crate) fn percent(&mut self, share: f64) -> &mut Self {
        let value = if share.is_finite() { share * 100.0 } else { 0.0 };
        let text = format!("{value:.2}");
        self.text.push_str(text.trim_end_matches('0').trim_end_matches('.'));
        self.raw("%")
    }

    /// Adds another piece.
    pub(crate) fn append(&mut self, other: &Self) -> &mut Self {
        self.text.push_str(&other.text);
        self
    }

    /// `<tag>text</tag>`.
    pub(crate) fn element(&mut self, tag: &'static str, text: impl AsRef<str>) -> &mut Self {
        self.raw("<").raw(tag).raw(">").text(text).raw("</").raw(tag).raw(">")
    }

    /// ` name="text"`.
    pub(crate) fn attribute(&mut self, name: &'static str, text: impl AsRef<str>) -> &mut Self {
        self.raw(" ").raw(name).raw("=\"").text(text).raw("\"")
    }

    /// The bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}
