//! What a DNS message asks, and how it is answered wrongly. The door of hickory-proto. Pure.
//!
//! An answer of ours speaks EDNS to whoever does (RFC 6891): some clients remember for long which servers do not. Nobody
//! may keep it for longer than a second: a wrong answer must not outlive its fault.

use std::net::IpAddr;
use std::str::FromStr as _;

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

/// The longest message.
pub(crate) const MESSAGE_MAX: usize = 65_535;
/// How long others may keep an answer of ours, in seconds.
const KEPT: u32 = 1;
/// The longest datagram that we offer to those who speak EDNS, in bytes (DNS flag day 2020).
const DATAGRAM: u16 = 1232;

/// Types of records that are told to who asks which there are.
const TYPES: &[&str] =
    &["a", "aaaa", "caa", "cname", "https", "mx", "naptr", "ns", "ptr", "soa", "srv", "svcb", "txt"];

/// Answered well; the server has failed; there is no such name; it will not.
pub(crate) const NO_ERROR: u8 = 0;
pub(crate) const SERVER_FAILURE: u8 = 2;
pub(crate) const NO_NAME: u8 = 3;
pub(crate) const REFUSED: u8 = 5;

/// A query with its only question.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// In small letters, without the dot at the end.
    pub(crate) name: String,
    /// The type of the records.
    pub(crate) kind: u16,
    query: Message,
}

impl Question {
    /// Reads a query; none if it is none, or asks for nothing or several things.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let query = Message::from_vec(message).ok()?;
        let about = &query.metadata;
        if about.message_type != MessageType::Query || about.op_code != OpCode::Query {
            return None;
        }
        let [asked] = query.queries.as_slice() else { return None };
        Some(Self { name: written(asked.name()), kind: asked.query_type().into(), query })
    }

    /// The answer that holds no record.
    pub(crate) fn empty(&self, code: u8) -> Vec<u8> {
        bytes(&self.reply(code))
    }

    /// The answer that holds these addresses, as far as they are of the type that is asked for; `whole` if it may be long.
    pub(crate) fn addresses(&self, addresses: &[IpAddr], whole: bool) -> Vec<u8> {
        let mut reply = self.reply(NO_ERROR);
        for (address, asked) in addresses.iter().zip(self.query.queries.iter().cycle()) {
            let data = match address {
                IpAddr::V4(address) => RData::A((*address).into()),
                IpAddr::V6(address) => RData::AAAA((*address).into()),
            };
            if data.record_type() == asked.query_type() {
                reply.add_answer(Record::from_rdata(asked.name().clone(), KEPT, data));
            }
        }
        self.fitting(&reply, whole)
    }

    /// The answer that an earlier such query was given, to this one; `whole` if it may be long. None if it cannot be read.
    pub(crate) fn again(&self, kept: &[u8], whole: bool) -> Option<Vec<u8>> {
        let mut kept = Message::from_vec(kept).ok()?;
        kept.metadata.id = self.query.metadata.id;
        kept.queries.clone_from(&self.query.queries);
        for record in kept.answers.iter_mut().chain(&mut kept.authorities).chain(&mut kept.additionals) {
            record.ttl = record.ttl.min(KEPT);
        }
        if self.query.edns.is_none() {
            kept.edns = None;
        }
        Some(self.fitting(&kept, whole))
    }

    /// A reply, or where it is longer than whoever asks takes, the word that there is more.
    fn fitting(&self, reply: &Message, whole: bool) -> Vec<u8> {
        let all = bytes(reply);
        let fits = whole || all.len() <= usize::from(self.query.max_payload());
        if fits { all } else { bytes(&reply.truncate()) }
    }

    fn reply(&self, code: u8) -> Message {
        let asked = &self.query.metadata;
        let mut reply = Message::response(asked.id, asked.op_code);
        reply.metadata.recursion_desired = asked.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.metadata.checking_disabled = asked.checking_disabled;
        reply.metadata.response_code = ResponseCode::from_low(code);
        reply.queries.clone_from(&self.query.queries);
        reply.edns = self.query.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM).set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        reply
    }
}

/// A query for it, with this number; none if the name cannot be asked for.
pub(crate) fn ask(name: &str, kind: u16, number: u16) -> Option<Vec<u8>> {
    let mut name = read(name)?;
    name.set_fqdn(true);
    let mut query = Message::new(number, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, kind.into()));
    query.to_vec().ok()
}

/// A name as it is asked for: in small letters, without the dot at the end, other alphabets as `xn--`; none if it is no name.
pub(crate) fn canonical(name: &str) -> Option<String> {
    read(name).filter(|name| name.num_labels() > 0).map(|name| written(&name))
}

/// Letters that DNS has are taken as they are, whatever a name of a host may hold.
fn read(name: &str) -> Option<Name> {
    if name.is_ascii() { Name::from_ascii(name) } else { Name::from_utf8(name) }.ok()
}

fn written(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// The number of a type of records.
pub(crate) fn kind(name: &str) -> Result<u16, String> {
    let known = RecordType::from_str(&name.to_ascii_uppercase());
    known.map(Into::into).map_err(|_| format!("`{name}` is not one of {}", TYPES.join(", ")))
}

/// What an answer says: its code, and the addresses in it, as far as they can be read.
pub(crate) fn answer(message: &[u8], number: u16) -> Option<(u8, Vec<IpAddr>)> {
    let head = Header::read(&mut BinDecoder::new(message)).ok()?.metadata;
    if head.id != number || head.message_type != MessageType::Response {
        return None;
    }
    let records = Message::from_vec(message).map(|message| message.answers).unwrap_or_default();
    let address = |record: Record| match record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    Some((head.response_code.low(), records.into_iter().filter_map(address).collect()))
}

/// Whether an answer holds all that there is.
pub(crate) fn is_whole(message: &[u8]) -> bool {
    Header::read(&mut BinDecoder::new(message)).is_ok_and(|head| !head.metadata.truncation)
}

/// An answer of ours has nothing in it that could not be written; if it had, nobody would hear of it.
fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_default()
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

    const A: u16 = 1;
    const AAAA: u16 = 28;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// dig +noedns one.one.one.one, as 1.1.1.1 answers it.
    fn real() -> Vec<u8> {
        hex("002a81800001000200000000036f6e65036f6e65036f6e65036f6e650000010001c00c000100010000012c0004\
             01000001c00c000100010000012c000401010101")
    }

    #[test]
    fn a_question_reads_as_it_was_asked_and_its_answers_say_what_they_should() {
        let query = ask("Api.Example.COM", A, 7).unwrap();
        let question = Question::read(&query).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("api.example.com", A));
        assert!(
            question.empty(NO_NAME).windows(4).any(|four| four == b"\x03Api"),
            "letters as they were asked"
        );
        assert_eq!(answer(&question.empty(NO_NAME), 7), Some((NO_NAME, vec![])));
        assert_eq!(answer(&question.empty(NO_NAME), 8), None, "it answers another query");
        let all: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(answer(&question.addresses(&all, false), 7), Some((NO_ERROR, vec![all[0], all[2]])));
        let question = Question::read(&ask("api.example.com", AAAA, 7).unwrap()).unwrap();
        assert_eq!(answer(&question.addresses(&all, false), 7), Some((NO_ERROR, vec![all[1]])));
    }

    #[test]
    fn an_answer_that_resolvers_send_is_read() {
        let all = ["1.0.0.1", "1.1.1.1"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(answer(&real(), 42), Some((NO_ERROR, all)));
        assert!(Question::read(&real()).is_none(), "an answer is no query");
        let cut = &real()[..40];
        assert_eq!(answer(cut, 42), Some((NO_ERROR, vec![])), "something was answered, whatever it was");
    }

    #[test]
    fn who_speaks_edns_is_answered_so_and_nobody_else() {
        let mut query = Message::from_vec(&ask("a.example", A, 7).unwrap()).unwrap();
        let plain = Question::read(&query.to_vec().unwrap()).unwrap();
        assert!(Message::from_vec(&plain.empty(NO_NAME)).unwrap().edns.is_none());
        let mut edns = Edns::new();
        edns.set_max_payload(4096).set_dnssec_ok(true);
        query.set_edns(edns);
        let question = Question::read(&query.to_vec().unwrap()).unwrap();
        let reply = Message::from_vec(&question.empty(SERVER_FAILURE)).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(reply.edns.is_some_and(|edns| edns.flags().dnssec_ok && edns.max_payload() == DATAGRAM));
    }

    #[test]
    fn an_old_answer_is_given_to_another_query_kept_by_nobody_and_short_enough() {
        let question = Question::read(&ask("ONE.one.one.one", A, 9).unwrap()).unwrap();
        let again = question.again(&real(), false).unwrap();
        assert_eq!(answer(&again, 9).unwrap().1.len(), 2);
        let message = Message::from_vec(&again).unwrap();
        assert!(message.answers.iter().all(|record| record.ttl == KEPT));
        assert_eq!(message.queries[0].name().to_ascii(), "ONE.one.one.one.");
        let mut long = Message::from_vec(&real()).unwrap();
        for last in 0..64 {
            let name = long.queries[0].name().clone();
            long.add_answer(Record::from_rdata(
                name,
                300,
                RData::A(std::net::Ipv4Addr::new(192, 0, 2, last).into()),
            ));
        }
        let long = long.to_vec().unwrap();
        let cut = Message::from_vec(&question.again(&long, false).unwrap()).unwrap();
        assert!(cut.metadata.truncation && cut.answers.is_empty(), "{cut:?}");
        assert!(is_whole(&long) && !is_whole(&question.again(&long, false).unwrap()));
        assert_eq!(answer(&question.again(&long, true).unwrap(), 9).unwrap().1.len(), 66);
    }

    #[test]
    fn a_star_stands_for_one_label_or_more_and_never_for_none() {
        let fits = |name: &str, pattern: &str| fits(name, &[pattern.to_owned()]);
        assert!(fits("a.example.com", "*.example.com") && fits("a.b.example.com", "*.example.com"));
        assert!(!fits("example.com", "*.example.com") && !fits("badexample.com", "*.example.com"));
        assert!(fits("example.com", "example.com") && !fits("a.example.com", "example.com"));
        assert!(super::fits("anything", &[]));
    }

    #[test]
    fn names_and_types_are_read_as_they_are_asked_for() {
        assert_eq!(canonical("API.Example.com.").as_deref(), Some("api.example.com"));
        assert_eq!(canonical("b\u{fc}cher.example").as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(canonical("_sip._udp.example").as_deref(), Some("_sip._udp.example"));
        let long = "a".repeat(64);
        for wrong in ["", ".", "a..b", ".a", long.as_str()] {
            assert_eq!(canonical(wrong), None, "{wrong}");
        }
        assert_eq!([kind("a"), kind("SRV"), kind("aaaa")], [Ok(1), Ok(33), Ok(AAAA)]);
        assert!(kind("b").is_err());
        for name in TYPES {
            assert!(kind(name).is_ok(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, number: u16) {
            let _ = answer(&bytes, number);
            if let Some(question) = Question::read(&bytes) {
                let _ = question.empty(NO_NAME);
                let _ = question.addresses(&["192.0.2.1".parse().unwrap()], false);
                let _ = question.again(&bytes, false);
            }
        }

        #[test]
        fn any_name_is_read_as_it_was_asked(labels in prop::collection::vec("[a-z0-9_]{1,20}", 1..6), kind: u16) {
            let name = labels.join(".");
            let question = Question::read(&ask(&name, kind, 1).unwrap()).unwrap();
            prop_assert_eq!((question.name, question.kind), (name, kind));
        }
    }
}
