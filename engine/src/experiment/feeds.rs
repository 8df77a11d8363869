//! Reading `feeds:`: files with rows of data for requests.

use std::sync::Arc;

use super::Sources;
use super::reader::Reader;
use super::yaml::Node;
use crate::feed::{BYTES_MAX, FEEDS_MAX, Feed, Format, Order};
use crate::reading;
use crate::template::OWN;

/// Reads the map of feeds, and their files.
pub(super) fn read(reader: &Reader<'_>, node: &Node, sources: &dyn Sources) -> Vec<Arc<Feed>> {
    let Some(fields) = reader.map(node, "feeds") else { return Vec::new() };
    let mut feeds = Vec::new();
    for (id, name, value) in fields.others() {
        super::parse::check_name(reader, id, name, "a feed");
        if name.contains('.') || OWN.contains(&name) || ["lab", "relay"].contains(&name) {
            reader.mistake(
                id,
                format!("a feed cannot be named `{name}`: `${{{name}…}}` would mean something else"),
            );
            continue;
        }
        if feeds.len() == FEEDS_MAX {
            reader.mistake(id, format!("more than {FEEDS_MAX} feeds"));
            break;
        }
        let Some(fields) = reader.map(value, "a feed") else { continue };
        let order = fields
            .optional("order")
            .map_or(Some(Order::default()), |node| reader.choice(node, "order", &Order::WORDS));
        let file = fields.required("file", "a feed");
        fields.finish("a feed");
        let (Some(file), Some(order)) = (file, order) else { continue };
        let Some(path) = reader.text(file, "file") else { continue };
        match open(name, order, &path, sources) {
            Ok(feed) => {
                let both = feed.columns().iter().map(|column| format!("{name}.{column}"));
                for both in both.filter(|both| reader.is_var(both)) {
                    let help = "give the variable or the feed another name";
                    reader.mistake_with(id, format!("`${{{both}}}` is a variable as well"), help);
                }
                feeds.push(Arc::new(feed));
            }
            Err(why) => reader.mistake(file.id, format!("feed {name}: {path}: {why}")),
        }
    }
    feeds
}

fn open(name: &str, order: Order, path: &str, sources: &dyn Sources) -> Result<Feed, String> {
    let text = reading::text(sources.bytes(path, BYTES_MAX)?)?;
    Feed::parse(name, order, Format::of_name(path), &text)
}
