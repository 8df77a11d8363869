//! Rows of data for requests: a CSV file with a header, or JSON lines. Read once, bounded, never changed; workers share
//! it without a lock. Pure.
//!
//! Which row a request takes follows from its number alone: of several workers, worker k of W numbers its requests k, k + W,
//! k + 2W, …, so no two of them take one row at a time, and the same seed gives the same rows whatever the number of workers.
//!
//! Messages name lines and columns, never values: a feed may hold passwords.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::random::Random;

/// The largest feed, in bytes.
pub const BYTES_MAX: usize = 64 << 20;
/// The most rows.
pub const ROWS_MAX: usize = 1_000_000;
/// The most columns.
pub const COLUMNS_MAX: usize = 64;
/// The most feeds of one load.
pub const FEEDS_MAX: usize = 16;

/// Which row comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Order {
    /// One after another, and from the beginning again.
    #[default]
    Sequential,
    /// Any of them, seeded.
    Random,
    /// Each at most once.
    Unique,
}

impl Order {
    /// As written.
    pub const WORDS: [(&str, Self); 3] =
        [("sequential", Self::Sequential), ("random", Self::Random), ("unique", Self::Unique)];
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// With this character between fields; the first line names the columns.
    Separated(u8),
    /// An object on each line.
    JsonLines,
}

impl Format {
    /// What a file's name says: `.jsonl`, `.ndjson` and `.json` are JSON lines, `.tsv` has tabs, all else is CSV.
    pub fn of_name(name: &str) -> Self {
        let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
        match ending.as_deref() {
            Some("jsonl" | "ndjson" | "json") => Self::JsonLines,
            Some("tsv") => Self::Separated(b'\t'),
            _ => Self::Separated(b','),
        }
    }
}

/// Rows of data; see the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Sent")]
pub struct Feed {
    name: String,
    order: Order,
    columns: Vec<String>,
    rows: usize,
    text: String,
    /// Where each field ends in `text`, row after row.
    ends: Vec<u32>,
}

/// A feed as somebody else has sent it: its fields are where it says, or it is none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    name: String,
    order: Order,
    columns: Vec<String>,
    rows: usize,
    text: String,
    ends: Vec<u32>,
}

impl TryFrom<Sent> for Feed {
    type Error = String;

    fn try_from(sent: Sent) -> Result<Self, String> {
        let Sent { name, order, columns, rows, text, ends } = sent;
        let within = ends.iter().all(|end| text.is_char_boundary(*end as usize));
        let sized = rows > 0 && columns.len().checked_mul(rows) == Some(ends.len());
        if within && ends.is_sorted() && sized {
            Ok(Self { name, order, columns, rows, text, ends })
        } else {
            Err("a feed whose fields are not where it says".to_owned())
        }
    }
}

impl Feed {
    /// Reads the text of a feed.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn parse(name: &str, order: Order, format: Format, text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("it is larger than {BYTES_MAX} bytes"));
        }
        let mut feed = Self {
            name: name.to_owned(),
            order,
            columns: Vec::new(),
            rows: 0,
            text: String::with_capacity(text.len()),
            ends: Vec::new(),
        };
        match format {
            Format::Separated(separator) => {
                let open = text.bytes().filter(|byte| *byte == b'"').count() % 2 == 1;
                if let Some(last) = text.rfind('"').filter(|_| open) {
                    let line = text[..last].matches('\n').count() + 1;
                    return Err(format!("a quote is not closed (the last one is in line {line})"));
                }
                feed.read_separated(separator, text)?;
            }
            Format::JsonLines => feed.read_lines(text)?,
        }
        if feed.rows == 0 {
            return Err("it has no rows".to_owned());
        }
        Ok(feed)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// In which order rows are taken.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The names of its columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many rows it has; at least one.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The row of the request with this number; none if there is none left.
    pub fn row(&self, seed: u64, number: u64) -> Option<usize> {
        let rows = self.rows as u64;
        match self.order {
            Order::Sequential => Some((number % rows) as usize),
            Order::Unique => (number < rows).then_some(number as usize),
            Order::Random => {
                let drawn = Random::new(seed, number).next();
                Some(((u128::from(drawn) * u128::from(rows)) >> 64) as usize)
            }
        }
    }

    /// One field.
    ///
    /// # Panics
    /// There is no such row or column.
    pub fn field(&self, row: usize, column: usize) -> &str {
        let at = row * self.columns.len() + column;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[at] as usize]
    }

    /// The same rows with these columns alone, in the order of the feed.
    #[must_use]
    pub fn keeping(&self, columns: &BTreeSet<usize>) -> Self {
        let mut kept = Self {
            name: self.name.clone(),
            order: self.order,
            columns: columns.iter().map(|column| self.columns[*column].clone()).collect(),
            rows: self.rows,
            text: String::new(),
            ends: Vec::with_capacity(columns.len() * self.rows),
        };
        for row in 0..self.rows {
            for column in columns {
                kept.push(self.field(row, *column));
            }
        }
        kept
    }

    fn push(&mut self, field: &str) {
        self.text.push_str(field);
        self.ends.push(self.text.len() as u32);
    }

    fn name_columns(&mut self, names: Vec<String>) -> Result<(), String> {
        let mut seen = HashSet::new();
        if names.is_empty() || names.len() > COLUMNS_MAX {
            return Err(format!("it must have from 1 to {COLUMNS_MAX} columns, and has {}", names.len()));
        }
        for name in &names {
            if name.is_empty() || name.contains(['}', '{']) || name.chars().any(char::is_control) {
                return Err("a column has no name, or one with a brace or a control character".to_owned());
            }
            if !seen.insert(name) {
                return Err(format!("two columns are named `{name}`"));
            }
        }
        self.columns = names;
        Ok(())
    }

    fn count_row(&mut self) -> Result<(), String> {
        self.rows += 1;
        if self.rows > ROWS_MAX { Err(format!("it has more than {ROWS_MAX} rows")) } else { Ok(()) }
    }

    fn read_separated(&mut self, separator: u8, text: &str) -> Result<(), String> {
        let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(text.as_bytes());
        let header = reader.headers().map_err(|error| unreadable(&error))?;
        let names = header.iter().map(|name| name.trim().to_owned()).collect();
        self.name_columns(names)?;
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| unreadable(&error))? {
            record.iter().for_each(|field| self.push(field));
            self.count_row()?;
        }
        Ok(())
    }

    fn read_lines(&mut self, text: &str) -> Result<(), String> {
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let place = at + 1;
            let Ok(Value::Object(object)) = serde_json::from_str::<Value>(line) else {
                return Err(format!("line {place} is no JSON object"));
            };
            if self.columns.is_empty() {
                let flat = object.iter().filter(|(_, value)| !value.is_object() && !value.is_array());
                self.name_columns(flat.map(|(name, _)| name.clone()).collect())
                    .map_err(|why| format!("line {place}: {why}"))?;
            }
            for column in self.columns.clone() {
                match object.get(&column) {
                    Some(Value::String(text)) => self.push(text),
                    Some(Value::Null) => self.push(""),
                    Some(value @ (Value::Bool(_) | Value::Number(_))) => self.push(&value.to_string()),
                    Some(_) => return Err(format!("line {place}: `{column}` is no plain value")),
                    None => return Err(format!("line {place} lacks `{column}`")),
                }
            }
            if self.text.len() > BYTES_MAX {
                return Err(format!("it is larger than {BYTES_MAX} bytes"));
            }
            self.count_row()?;
        }
        Ok(())
    }
}

/// What the CSV reader says, without what stands in the file.
fn unreadable(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("line {line} has {len} fields instead of {expected_len}")
        }
        _ => "it cannot be read as CSV".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CSV: Format = Format::Separated(b',');

    fn read(order: Order, format: Format, text: &str) -> Result<Feed, String> {
        Feed::parse("users", order, format, text)
    }

    #[test]
    fn quotes_line_breaks_and_json_are_read_as_they_are_meant() {
        let text = "id, name\r\n1,\"Ann, \"\"A\"\"\"\r\n2,\"two\nlines\"\r\n";
        let feed = read(Order::Sequential, CSV, text).unwrap();
        assert_eq!(feed.columns(), ["id", "name"]);
        assert_eq!(feed.rows(), 2);
        assert_eq!([feed.field(0, 1), feed.field(1, 0), feed.field(1, 1)], ["Ann, \"A\"", "2", "two\nlines"]);
        let lines = "{\"id\": 7, \"ok\": true, \"deep\": {\"a\": 1}, \"n\": null}\n\n{\"n\": \"x\", \"id\": 1.5, \"ok\": false, \"more\": 1}\n";
        let feed = read(Order::Sequential, Format::JsonLines, lines).unwrap();
        let of = |row, name| feed.field(row, feed.columns().iter().position(|c| c == name).unwrap());
        assert_eq!((of(0, "id"), of(0, "ok"), of(0, "n")), ("7", "true", ""));
        assert_eq!((of(1, "id"), of(1, "ok"), of(1, "n")), ("1.5", "false", "x"));
        assert_eq!(Format::of_name("a/B.NDJSON"), Format::JsonLines);
        assert_eq!(Format::of_name("users"), CSV);
        assert_eq!(Format::of_name("a.tsv"), Format::Separated(b'\t'));
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_without_values() {
        for (format, text, says) in [
            (CSV, "", "from 1 to 64 columns"),
            (CSV, "id\n", "no rows"),
            (CSV, "id,name\n1,a\nsecret\n", "line 3 has 1 fields instead of 2"),
            (CSV, "id,id\n1,2\n", "two columns are named `id`"),
            (CSV, "id,\n1,2\n", "has no name"),
            (CSV, "a}b\n1\n", "brace"),
            (CSV, "id,name\n1,\"secret\n2,b\n", "a quote is not closed (the last one is in line 2)"),
            (Format::JsonLines, "", "no rows"),
            (Format::JsonLines, "{\"a\": 1}\nsecret\n", "line 2 is no JSON object"),
            (Format::JsonLines, "{\"a\": 1}\n{\"b\": 1}\n", "line 2 lacks `a`"),
            (Format::JsonLines, "{\"a\": 1}\n{\"a\": [\"secret\"]}\n", "line 2: `a` is no plain value"),
            (Format::JsonLines, "{\"a\": {}}\n", "line 1: it must have from 1 to 64 columns"),
        ] {
            let error = read(Order::Sequential, format, text).unwrap_err();
            assert!(error.contains(says) && !error.contains("secret"), "{text:?}: {error}");
        }
        let many = "a,".repeat(COLUMNS_MAX) + "a\n1\n";
        assert!(read(Order::Sequential, CSV, &many).unwrap_err().contains("from 1 to 64 columns"));
        let long = "a\n".to_owned() + &"1\n".repeat(ROWS_MAX + 1);
        assert!(read(Order::Sequential, CSV, &long).unwrap_err().contains("more than 1000000 rows"));
    }

    #[test]
    fn rows_are_taken_in_the_order_that_was_asked_for() {
        let text = "id\n".to_owned() + &(0..10).map(|n| format!("{n}\n")).collect::<String>();
        let rows = |order, seed| {
            let feed = read(order, CSV, &text).unwrap();
            (0..25).map(|number| feed.row(seed, number)).collect::<Vec<_>>()
        };
        let sequential = rows(Order::Sequential, 1);
        assert!(sequential.iter().enumerate().all(|(n, row)| *row == Some(n % 10)));
        let unique = rows(Order::Unique, 1);
        assert!(unique.iter().enumerate().all(|(n, row)| *row == (n < 10).then_some(n)));
        assert_eq!(rows(Order::Random, 1), rows(Order::Random, 1));
        assert_ne!(rows(Order::Random, 1), rows(Order::Random, 2));
        let feed = read(Order::Random, CSV, &text).unwrap();
        let mut counts = [0u32; 10];
        (0..10_000).for_each(|n| counts[feed.row(3, n).unwrap()] += 1);
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn columns_that_nobody_uses_can_be_left_out() {
        let feed = read(Order::Random, CSV, "id,name,pin\n1,Ann,\n2,Bob,22\n").unwrap();
        let kept = feed.keeping(&[0, 2].into());
        assert_eq!(
            (kept.columns(), kept.rows(), kept.order()),
            (&["id".to_owned(), "pin".to_owned()][..], 2, Order::Random)
        );
        let rows: Vec<_> = (0..2).map(|row| (kept.field(row, 0), kept.field(row, 1))).collect();
        assert_eq!(rows, [("1", ""), ("2", "22")]);
        let sent: Feed = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        assert_eq!(sent, kept);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), json in "[{}\":,a1\\[\\]\n]{0,60}") {
            let _ = read(Order::Sequential, CSV, &text);
            let _ = read(Order::Sequential, Format::JsonLines, &json);
        }

        #[test]
        fn what_is_written_as_csv_is_read_again(rows in prop::collection::vec(("[^\r]{1,9}", "[^\r]{0,9}"), 1..9)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["id", "name"]).unwrap();
            for (id, name) in &rows {
                writer.write_record([id, name]).unwrap();
            }
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let feed = read(Order::Unique, CSV, &text).unwrap();
            prop_assert_eq!(feed.rows(), rows.len());
            for (at, (id, name)) in rows.iter().enumerate() {
                prop_assert_eq!((feed.field(at, 0), feed.field(at, 1)), (id.as_str(), name.as_str()));
            }
        }
    }
}
