//! Makes text from outside harmless in each format. Nothing is dropped silently: what must not be shown
//! (control characters, bidirectional overrides) becomes U+FFFD, so that a reader sees that something was there.

/// What stands for a character that must not be shown.
const REPLACEMENT: char = '\u{fffd}';

/// Whether a character can change how the text around it is shown or read: controls, bidirectional marks and
/// overrides, line separators, invisible tags, non-characters.
fn deceives(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fdd0}'..='\u{fdef}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        || (c as u32) & 0xfffe == 0xfffe
}

/// The characters of a text with line ends as `\n` and the deceiving ones replaced.
fn clean(text: &str) -> impl Iterator<Item = char> + '_ {
    let mut chars = text.chars().peekable();
    std::iter::from_fn(move || {
        let c = chars.next()?;
        if c == '\r' && chars.peek() == Some(&'\n') {
            return chars.next();
        }
        Some(if deceives(c) { REPLACEMENT } else { c })
    })
}

/// One line of clean text: line ends and tabs become spaces.
fn clean_line(text: &str) -> impl Iterator<Item = char> + '_ {
    clean(text).map(|c| if c == '\n' || c == '\t' { ' ' } else { c })
}

/// For HTML text and quoted attributes.
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in clean(text) {
        match entity(c) {
            Some(entity) => out.push_str(entity),
            None => out.push(c),
        }
    }
    out
}

/// For XML 1.0 text and quoted attributes; line ends survive in both.
pub fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in clean(text) {
        match (entity(c), c) {
            (Some(entity), _) => out.push_str(entity),
            (None, '\n') => out.push_str("&#10;"),
            (None, '\t') => out.push_str("&#9;"),
            (None, c) => out.push(c),
        }
    }
    out
}

/// The entities that HTML and XML share.
fn entity(c: char) -> Option<&'static str> {
    Some(match c {
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        '"' => "&quot;",
        '\'' => "&#39;",
        _ => return None,
    })
}

/// For one line of a terminal: no escape sequence, line end or tab of the text survives.
pub fn terminal(text: &str) -> String {
    clean_line(text).collect()
}

/// For a table cell or a part of one line in GitHub's Markdown. Entities never carry structure there, so nothing
/// of the text can open a tag, a link, a mention, emphasis or a new cell.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for (at, c) in clean_line(text).enumerate() {
        let starts_block = at == 0 && (c.is_ascii_digit() || matches!(c, '-' | '+' | '='));
        let is_marked = matches!(
            c,
            '&' | '<'
                | '>'
                | '"'
                | '\\'
                | '`'
                | '*'
                | '_'
                | '['
                | ']'
                | '|'
                | '~'
                | '#'
                | '$'
                | '!'
                | ':'
                | '@'
        );
        // GitHub makes a link of what begins like this, without any mark.
        let starts_link =
            c == '.' && out.len() >= 3 && out.as_bytes()[out.len() - 3..].eq_ignore_ascii_case(b"www");
        if starts_block || is_marked || starts_link {
            out.extend(["&#", &(c as u32).to_string(), ";"]);
        } else {
            out.push(c);
        }
        // A mention is looked for after entities are resolved; the word joiner is invisible and stops it.
        if c == '@' {
            out.push('\u{2060}');
        }
    }
    out
}

/// A fenced block of GitHub's Markdown: the fence is longer than any run of backticks in the text.
pub fn markdown_block(language: &'static str, text: &str) -> String {
    let text: String = clean(text).collect();
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end_matches('\n'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_format_has_its_own_entities() {
        let text = "<b a='1'>\"&\"\r\n]]>\u{1b}[31m";
        assert_eq!(html(text), "&lt;b a=&#39;1&#39;&gt;&quot;&amp;&quot;\n]]&gt;\u{fffd}[31m");
        assert_eq!(xml("a\tb\nc\u{b}"), "a&#9;b&#10;c\u{fffd}");
        assert_eq!(terminal("a\u{1b}[2J\r\nb\u{202e}c\u{9b}d"), "a\u{fffd}[2J b\u{fffd}c\u{fffd}d");
        assert_eq!(markdown("- a|b"), "&#45; a&#124;b");
        assert_eq!(markdown("@me"), "&#64;\u{2060}me");
        assert_eq!(markdown("www.a.org WWW.b"), "www&#46;a.org WWW&#46;b");
    }

    #[test]
    fn a_fence_is_longer_than_what_it_holds() {
        assert_eq!(markdown_block("yaml", "a: 1\n"), "```yaml\na: 1\n```\n");
        assert!(markdown_block("yaml", "a\n`````\nb").starts_with("``````yaml\n"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_out(text in any::<String>()) {
            let broken_out = ['<', '>', '"', '\'', '\0', '\u{1b}', '\u{202e}'];
            for escaped in [html(&text), xml(&text)] {
                prop_assert!(!escaped.contains(broken_out));
            }
            prop_assert!(!terminal(&text).chars().any(char::is_control));
            prop_assert!(!markdown(&text).contains(['<', '>', '|', '`', '[', '\n', '\r']));
        }

        #[test]
        fn plain_words_stay_themselves(text in "[a-zA-Z ]{0,40}") {
            prop_assert_eq!(html(&text), text.clone());
            prop_assert_eq!(xml(&text), text.clone());
            prop_assert_eq!(terminal(&text), text.clone());
            prop_assert_eq!(markdown(&text), text);
        }
    }
}
