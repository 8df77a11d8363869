//! Tables and paragraphs of plain text that never exceed a width in columns of a terminal.

use crate::escape;

/// How many columns of a terminal a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Zero for combining marks, two for East Asian and pictographic characters, else one.
fn char_width(c: char) -> usize {
    match c as u32 {
        0x300..=0x36f | 0x200c..=0x200d | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// The text cut to so many columns, with an ellipsis where something is missing.
pub(crate) fn clip(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += char_width(c);
        if used >= columns {
            break;
        }
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// The text in lines of at most so many columns, broken between words where possible.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut rest = word.to_owned();
        if used > 0 && used + 1 + width(&rest) > columns {
            lines.push(String::new());
            used = 0;
        }
        while width(&rest) > columns && columns > 1 {
            let head: String = take_columns(&rest, columns);
            rest = rest[head.len()..].to_owned();
            push_word(&mut lines, &head);
            lines.push(String::new());
        }
        used += width(&rest) + usize::from(used > 0);
        push_word(&mut lines, &rest);
    }
    lines
}

fn take_columns(text: &str, columns: usize) -> String {
    let mut used = 0;
    text.chars()
        .take_while(|c| {
            used += char_width(*c);
            used <= columns
        })
        .collect()
}

fn push_word(lines: &mut [String], word: &str) {
    let last = lines.last_mut().expect("wrap starts with one line");
    if !last.is_empty() {
        last.push(' ');
    }
    last.push_str(word);
}

/// Spaces between two columns of a table.
const GAP: usize = 2;

/// How a cell is emphasised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    Plain,
    /// Less important.
    Dim,
    /// More important.
    Bold,
    /// As wished.
    Good,
    /// Not as wished.
    Bad,
    /// Cannot tell.
    Unsure,
}

/// Wraps text in ANSI codes if colour is wanted.
pub(crate) fn paint(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        _ if !colour || text.is_empty() => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Dim => "2",
        Tone::Bold => "1",
        Tone::Good => "32",
        Tone::Bad => "1;31",
        Tone::Unsure => "33",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// A cell: text that is escaped when the cell is made.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell of text from anywhere.
    pub(crate) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: escape::terminal(text.as_ref()), tone }
    }

    /// A plain cell.
    pub(crate) fn plain(text: impl AsRef<str>) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Rows of cells under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    /// The heads; the first one is the name of the table.
    pub(crate) heads: Vec<&'static str>,
    /// The rows, each as long as `heads`.
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    /// The lines, aligned, without trailing spaces, none wider than `columns`: the widest cells are clipped.
    pub(crate) fn lines(&self, columns: usize, colour: bool) -> Vec<String> {
        let widest =
            |at: usize| self.rows.iter().filter_map(|row| row.get(at)).map(|cell| width(&cell.text)).max();
        let mut widths: Vec<_> = self.heads.iter().map(|head| width(head)).collect();
        for (at, own) in widths.iter_mut().enumerate() {
            // Clipping takes one column at a time: start from what fits.
            *own = widest(at).unwrap_or(0).max(*own).min(columns);
        }
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > columns {
            let Some(largest) = widths.iter_mut().max().filter(|largest| **largest > 1) else { break };
            *largest -= 1;
        }
        let heads = self.heads.iter().enumerate();
        let heads =
            heads.map(|(at, head)| Cell::new(head, if at == 0 { Tone::Bold } else { Tone::Dim })).collect();
        std::iter::once(&heads).chain(&self.rows).map(|row| line(row, &widths, colour)).collect()
    }
}

fn line(row: &[Cell], widths: &[usize], colour: bool) -> String {
    let mut out = String::new();
    let mut gap = 0;
    for (cell, columns) in row.iter().zip(widths) {
        let text = clip(&cell.text, *columns);
        if !text.is_empty() {
            out.push_str(&" ".repeat(gap));
            gap = 0;
            out.push_str(&paint(&text, cell.tone, colour));
        }
        gap += columns - width(&text) + GAP;
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!((width("ab"), width("日本"), width("e\u{301}")), (2, 4, 1));
        assert_eq!((clip("abcdef", 4), clip("日本語", 4)), ("abc…".to_owned(), "日…".to_owned()));
    }

    #[test]
    fn columns_are_aligned_and_clipped() {
        let rows =
            vec![vec![Cell::plain("a"), Cell::plain("x")], vec![Cell::plain("abcdefgh"), Cell::plain("y")]];
        let table = Table { heads: vec!["T", "V"], rows };
        assert_eq!(table.lines(20, false), ["T         V", "a         x", "abcdefgh  y"]);
        assert_eq!(table.lines(8, false), ["T      V", "a      x", "abcd…  y"]);
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_asked(text in any::<String>(), columns in 2usize..60) {
            prop_assert!(width(&clip(&text, columns)) <= columns);
            prop_assert!(wrap(&text, columns).iter().all(|line| width(line) <= columns));
        }

        #[test]
        fn wrapping_keeps_every_character(text in "[a-z日 ]{0,80}", columns in 2usize..20) {
            let letters = |text: &str| text.chars().filter(|c| *c != ' ').collect::<String>();
            prop_assert_eq!(letters(&wrap(&text, columns).concat()), letters(&text));
        }
    }
}
