//! Searching a body as it passes by (Knuth, Morris, Pratt): nothing of it is kept but the length of the current match.

/// A text to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::load) struct Needle {
    text: Vec<u8>,
    /// For each length of a match: the longest shorter match that it ends with.
    shorter: Vec<u32>,
}

impl Needle {
    /// An empty text is found in every body.
    pub(in crate::load) fn new(text: &[u8]) -> Self {
        let mut shorter = vec![0u32; text.len() + 1];
        let mut matched = 0usize;
        for at in 1..text.len() {
            while matched > 0 && text[at] != text[matched] {
                matched = shorter[matched] as usize;
            }
            if text[at] == text[matched] {
                matched += 1;
            }
            shorter[at + 1] = matched as u32;
        }
        Self { text: text.to_vec(), shorter }
    }
}

/// How much of the needle the last bytes match; stays at its length once found.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::load) struct Search {
    matched: usize,
}

impl Search {
    /// Looks at more of the body.
    pub(in crate::load) fn feed(&mut self, needle: &Needle, body: &[u8]) {
        let Needle { text, shorter } = needle;
        let mut matched = self.matched;
        for byte in body {
            if matched == text.len() {
                break;
            }
            while matched > 0 && *byte != text[matched] {
                matched = shorter[matched] as usize;
            }
            if *byte == text[matched] {
                matched += 1;
            }
        }
        self.matched = matched;
    }

    /// Looks at more of the body, up to the end of the needle; where that is, if it is there.
    pub(in crate::load) fn end_of(&mut self, needle: &Needle, body: &[u8]) -> Option<usize> {
        (0..body.len())
            .find(|at| {
                self.feed(needle, &body[*at..=*at]);
                self.found(needle)
            })
            .map(|at| at + 1)
    }

    /// Whether the needle was seen.
    pub(in crate::load) fn found(self, needle: &Needle) -> bool {
        self.matched == needle.text.len()
    }
}
