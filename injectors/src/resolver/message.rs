//! As much of a DNS message as it takes to know what is asked, and to answer it wrongly (RFC 1035). Pure.

use std::net::IpAddr;

/// The longest message.
pub(crate) const MESSAGE_MAX: usize = 65_535;
const HEAD: usize = 12;
const IN: u16 = 1;
/// How long others may keep a wrong answer, in seconds: it must not outlive the fault.
const KEPT: u32 = 1;

/// Types of records that have names here.
pub(crate) const TYPES: &[(&str, u16)] = &[
    ("a", 1),
    ("aaaa", 28),
    ("cname", 5),
    ("https", 65),
    ("mx", 15),
    ("ns", 2),
    ("ptr", 12),
    ("soa", 6),
    ("srv", 33),
    ("svcb", 64),
    ("txt", 16),
];
const A: u16 = 1;
const AAAA: u16 = 28;

/// Answered well; the server has failed; there is no such name; it will not.
pub(crate) const NO_ERROR: u8 = 0;
pub(crate) const SERVER_FAILURE: u8 = 2;
pub(crate) const NO_NAME: u8 = 3;
pub(crate) const REFUSED: u8 = 5;

/// The only question of a query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// In small letters, without the dot at the end.
    pub(crate) name: String,
    /// The type of the records.
    pub(crate) kind: u16,
    /// Where it ends.
    end: usize,
}

impl Question {
    /// Reads a query; none if it is none, or asks for nothing or several things.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let head = message.get(..HEAD)?;
        let (is_answer, asks_for) = (head[2] & 0x80 != 0, u16::from_be_bytes([head[4], head[5]]));
        let operation = head[2] >> 3 & 0xf;
        if is_answer || operation != 0 || asks_for != 1 {
            return None;
        }
        let (mut at, mut name) = (HEAD, String::new());
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // A question has nothing before it that it could point to.
            if length > 63 || name.len() > 255 {
                return None;
            }
            let label = message.get(at..at + length)?;
            at += length;
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|byte| match byte {
                b'!'..=b'~' if *byte != b'.' => byte.to_ascii_lowercase() as char,
                _ => '?',
            }));
        }
        let rest = message.get(at..at + 4)?;
        Some(Self { name, kind: u16::from_be_bytes([rest[0], rest[1]]), end: at + 4 })
    }

    /// A query for it, with this number; none if the name cannot be asked for.
    pub(crate) fn ask(name: &str, kind: u16, number: u16) -> Option<Vec<u8>> {
        let mut out = number.to_be_bytes().to_vec();
        // Recursion is desired; one question.
        out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.').filter(|label| !label.is_empty()) {
            out.push(u8::try_from(label.len()).ok().filter(|length| *length < 64)?);
            out.extend(label.bytes());
        }
        out.push(0);
        out.extend(kind.to_be_bytes());
        out.extend(IN.to_be_bytes());
        (out.len() < 512).then_some(out)
    }

    /// The answer to this query that holds no record.
    pub(crate) fn empty(&self, query: &[u8], code: u8) -> Vec<u8> {
        let mut out = query[..self.end].to_vec();
        // An answer, to the same operation, with recursion as desired and available.
        out[2] = 0x80 | query[2] & 0x01;
        out[3] = 0x80 | code;
        out[6..HEAD].fill(0);
        out
    }

    /// The answer to this query that holds these addresses, as far as they are of the type that it asks for.
    pub(crate) fn addresses(&self, query: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
        let mut out = self.empty(query, NO_ERROR);
        let mut count = 0_u16;
        for address in addresses {
            let data = match (address, self.kind) {
                (IpAddr::V4(address), A) => address.octets().to_vec(),
                (IpAddr::V6(address), AAAA) => address.octets().to_vec(),
                _ => continue,
            };
            count += 1;
            // The name is the one of the question.
            out.extend([0xc0, HEAD as u8]);
            out.extend(self.kind.to_be_bytes());
            out.extend(IN.to_be_bytes());
            out.extend(KEPT.to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(data);
        }
        out[6..8].copy_from_slice(&count.to_be_bytes());
        out
    }
}

/// What an answer says: its code, and the addresses in it.
pub(crate) fn answer(message: &[u8], number: u16) -> Option<(u8, Vec<IpAddr>)> {
    let head = message.get(..HEAD)?;
    if u16::from_be_bytes([head[0], head[1]]) != number || head[2] & 0x80 == 0 {
        return None;
    }
    let mut query = message.to_vec();
    query[2] &= 0x7f;
    let mut found = Vec::new();
    let mut at = Question::read(&query).map_or(message.len(), |question| question.end);
    for _ in 0..u16::from_be_bytes([head[6], head[7]]) {
        let Some((kind, data, end)) = record(message, at) else { break };
        match (kind, data.len()) {
            (A, 4) => found.extend(<[u8; 4]>::try_from(data).map(IpAddr::from)),
            (AAAA, 16) => found.extend(<[u8; 16]>::try_from(data).map(IpAddr::from)),
            _ => {}
        }
        at = end;
    }
    Some((head[3] & 0xf, found))
}

/// Type, data and end of the record that begins here.
fn record(message: &[u8], mut at: usize) -> Option<(u16, &[u8], usize)> {
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => break at += 1,
            1..=63 => at += 1 + length,
            // A pointer ends the name.
            _ => break at += 2,
        }
    }
    let head = message.get(at..at + 10)?;
    let end = at + 10 + usize::from(u16::from_be_bytes([head[8], head[9]]));
    Some((u16::from_be_bytes([head[0], head[1]]), message.get(at + 10..end)?, end))
}

/// Whether a name fits one of these: itself, or `*.` and what it ends with.
pub(crate) fn fits(name: &str, patterns: &[String]) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(end) => name.strip_suffix(end).is_some_and(|front| front.len() > 1 && front.ends_with('.')),
            None => name == pattern,
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_reads_as_it_was_asked_and_its_answers_say_what_they_should() {
        let query = Question::ask("Api.Example.COM", A, 7).unwrap();
        let question = Question::read(&query).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("api.example.com", A));
        assert_eq!(answer(&question.empty(&query, NO_NAME), 7), Some((NO_NAME, vec![])));
        assert_eq!(answer(&question.empty(&query, NO_NAME), 8), None, "it answers another query");
        let all: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(answer(&question.addresses(&query, &all), 7), Some((NO_ERROR, vec![all[0], all[2]])));
        let six = Question::ask("api.example.com", AAAA, 7).unwrap();
        let question = Question::read(&six).unwrap();
        assert_eq!(answer(&question.addresses(&six, &all), 7), Some((NO_ERROR, vec![all[1]])));
    }

    #[test]
    fn an_answer_that_resolvers_send_is_read() {
        // dig +noedns one.one.one.one, as 1.1.1.1 answers it.
        let hex = "002a81800001000200000000036f6e65036f6e65036f6e65036f6e650000010001c00c000100010000012c0004\
                   01000001c00c000100010000012c000401010101";
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let all = ["1.0.0.1", "1.1.1.1"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(answer(&bytes, 42), Some((NO_ERROR, all)));
        assert_eq!(Question::read(&bytes), None, "an answer is no query");
    }

    #[test]
    fn a_star_stands_for_one_label_or_more_and_never_for_none() {
        let fits = |name: &str, pattern: &str| fits(name, &[pattern.to_owned()]);
        assert!(fits("a.example.com", "*.example.com") && fits("a.b.example.com", "*.example.com"));
        assert!(!fits("example.com", "*.example.com") && !fits("badexample.com", "*.example.com"));
        assert!(fits("example.com", "example.com") && !fits("a.example.com", "example.com"));
        assert!(super::fits("anything", &[]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, number: u16) {
            let _ = answer(&bytes, number);
            if let Some(question) = Question::read(&bytes) {
                let _ = question.empty(&bytes, NO_NAME);
                let _ = question.addresses(&bytes, &["192.0.2.1".parse().unwrap()]);
            }
        }

        #[test]
        fn any_name_is_read_as_it_was_asked(labels in prop::collection::vec("[a-z0-9_-]{1,20}", 1..6), kind: u16) {
            let name = labels.join(".");
            let query = Question::ask(&name, kind, 1).unwrap();
            let question = Question::read(&query).unwrap();
            prop_assert_eq!((question.name, question.kind), (name, kind));
        }
    }
}
