//! A first look at a text, before the YAML parser sees it: what the parser takes too long for, swallows, or accepts in
//! silence.
//!
//! The parser's time grows with the square of the brackets that are open at a time, so these are counted. The scan knows
//! only the plain part of YAML: as long as it meets nothing else, it knows exactly what is quoted, what is a comment, and
//! how many brackets are open. From the first construct on that it does not know for sure (text over several lines, an
//! anchor, a block), every opening bracket counts and no closing one does: it may refuse what is harmless, and only if
//! there are a thousand of them, but it never lets through what is not.

use super::yaml::Place;

/// The most brackets that may be open at a time.
const OPEN_MAX: usize = 1000;

/// What is wrong at first sight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In words.
    pub(super) message: String,
    /// The way out.
    pub(super) help: Option<String>,
    /// Where.
    pub(super) place: Place,
}

/// What a character belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Plain text, keys, brackets.
    Open,
    /// Single quotes; true: this one may end them, or be the first of two that mean one.
    Single(bool),
    /// Double quotes; true: the next character is escaped.
    Double(bool),
    /// What follows a `#`.
    Comment,
}

/// Looks at the text.
///
/// # Errors
/// It holds a NUL, which would end the text in silence; a tag, which has no meaning here; or too many brackets that are
/// open at a time.
pub(super) fn look(text: &str) -> Result<(), Refusal> {
    let mut scan = Scan::default();
    for (number, line) in text.split('\n').enumerate() {
        scan.line(number + 1, line.strip_suffix('\r').unwrap_or(line))?;
    }
    Ok(())
}

#[derive(Default)]
struct Scan {
    /// Brackets that are open; once in doubt, at least as many as are open.
    open: usize,
    /// The line since which it is in doubt.
    doubt: Option<usize>,
    /// The last character that is neither space nor comment, on whatever line.
    last: Option<char>,
    /// The same when the line began.
    above: Option<char>,
    /// Nothing but spaces and dashes has come on this line.
    dashes: bool,
}

impl Scan {
    fn line(&mut self, number: usize, line: &str) -> Result<(), Refusal> {
        (self.above, self.dashes) = (self.last, true);
        let (mut within, mut before) = (Within::Open, ' ');
        for (column, c) in line.chars().enumerate() {
            let refuse = |message: String, help: String| {
                Err(Refusal { message, help: Some(help), place: Place { line: number, column: column + 1 } })
            };
            if within == Within::Single(true) && c != '\'' {
                within = Within::Open;
            }
            let starts = self.starts(before);
            if c == '\0' {
                let help = "the file is damaged, or no text".to_owned();
                return refuse("there is a NUL byte in the text".to_owned(), help);
            }
            if c == '!' && within == Within::Open && starts && self.doubt.is_none() {
                let help =
                    "write the plain value; if it is text that begins with `!`, put it in quotes".to_owned();
                return refuse("tags are not part of the language".to_owned(), help);
            }
            self.count(number, c, within, starts);
            if self.open > OPEN_MAX {
                let help = self.doubt.map_or("an experiment needs far fewer".to_owned(), |line| {
                    format!("every `[` and `{{` after line {line} counts: a quote, a block or a plain text goes on there")
                });
                return refuse(format!("more than {OPEN_MAX} brackets are open here"), help);
            }
            within = self.next(number, c, within, before, starts);
            if !matches!(c, ' ' | '\t') && within != Within::Comment {
                self.last = Some(c);
                self.dashes &= c == '-';
            }
            before = c;
        }
        if matches!(within, Within::Single(false) | Within::Double(_)) {
            self.doubt.get_or_insert(number);
        }
        Ok(())
    }

    fn count(&mut self, number: usize, c: char, within: Within, starts: bool) {
        let plain = within == Within::Open;
        match c {
            '[' | '{' if self.doubt.is_some() => self.open += 1,
            '[' | '{' if plain => {
                self.open += 1;
                if !starts {
                    self.doubt = Some(number);
                }
            }
            ']' | '}' if plain && self.doubt.is_none() => self.open = self.open.saturating_sub(1),
            // The parser takes these for line ends as well.
            '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                self.doubt.get_or_insert(number);
            }
            _ => {}
        }
    }

    /// What the next character belongs to.
    fn next(&mut self, number: usize, c: char, within: Within, before: char, starts: bool) -> Within {
        let spaced = matches!(before, ' ' | '\t');
        match (within, c) {
            (Within::Open, '"') if starts => Within::Double(false),
            (Within::Open, '\'') if starts => Within::Single(false),
            (Within::Open, '#') if spaced => Within::Comment,
            // In the middle of a word these are letters like any other. Elsewhere only the parser knows.
            (Within::Open, '"' | '\'' | '!' | '#') if before.is_alphanumeric() => Within::Open,
            (Within::Open, '|' | '>') if !spaced => Within::Open,
            (Within::Open, '"' | '\'' | '!' | '#' | '|' | '>') => {
                self.doubt.get_or_insert(number);
                Within::Open
            }
            (Within::Single(ending), '\'') => Within::Single(!ending),
            (Within::Double(false), '"') => Within::Open,
            (Within::Double(escaped), _) => Within::Double(c == '\\' && !escaped),
            (within, _) => within,
        }
    }

    /// Whether a value must start here: at the beginning, after a colon and a space, after an open bracket or a comma
    /// within brackets, after the dash of a list whose line goes on with nothing from above.
    fn starts(&self, before: char) -> bool {
        let spaced = matches!(before, ' ' | '\t');
        match self.last {
            None => true,
            Some('[' | '{' | ',') => self.open > 0,
            Some(':') => spaced,
            Some('-') => {
                let fresh = matches!(self.above, None | Some(':' | '-' | ']' | '}' | '"' | '\''));
                spaced && self.open == 0 && self.dashes && fresh
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        look(text).map_or_else(
            |refusal| format!("{}:{} {}", refusal.place.line, refusal.place.column, refusal.message),
            |()| String::new(),
        )
    }

    #[test]
    fn what_the_parser_would_swallow_has_a_place() {
        assert!(said("a: 1\nb: x\0y\n").starts_with("2:5 there is a NUL"));
        for (text, place) in [
            ("a: !!python/object:os.system x", "1:4"),
            ("a: !x {b: 1}", "1:4"),
            ("- !!str x", "1:3"),
            ("a: [1, !x 2]", "1:8"),
            ("a: {b: !x 2}", "1:8"),
        ] {
            assert!(said(text).starts_with(&format!("{place} tags are not")), "{text}: {}", said(text));
        }
        for text in ["a: wow!", "a: \"!x\"", "a: x !y", "a: |\n  b: !x\n", "# !x", "a: [1] # !x"] {
            assert_eq!(said(text), "", "{text}");
        }
    }

    #[test]
    fn brackets_in_use_are_never_too_many_and_hidden_ones_are_found() {
        let rows = |row: &str| row.repeat(5000);
        for row in [
            "- a: {url: \"http://x/]\", b: ['it''s', {c: d}]} # it's a [list\n",
            "- {a: \"x \\\" ]\", b: [1, 2]}\n# it's a [list\n",
            "- {a: [\n  'x', \"y\" # [\n  ]}\n",
            "a:\n  - b: 1s\n    c:\n      - {d: [e]}\n",
        ] {
            assert_eq!(said(&rows(row)), "", "{row}");
        }
        for deep in [
            "{a: ",
            "[",
            "{\"}\": ",
            "{a: \"]]\", b: ",
            "[#]]\n",
            "{a: x \"c, \"]]\": ",
            "{a: 'b' \"c, \"]]\": ",
            "{a: x\n - \"c, \"]]\": ",
            "{a: \"\n]]]\", b: ",
            "{a:\"c, \"]]\": ",
            "{# \u{2028}\"\n]]\": ",
            "a, \"b: [\", ]\n, \", [[[[[ \", ]]]]]\n",
            "a: |\n  \"\nb: {a: \"]\", c: [\"]\", ",
            "a: x\n  - [\np, \"b: [\", ]\n",
        ] {
            assert!(said(&rows(deep)).contains("brackets are open"), "{deep}: {}", said(&rows(deep)));
        }
        assert!(said(&"[!a]]]] ,".repeat(5000)).contains("tags"));
    }
}
