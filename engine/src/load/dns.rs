//! Queries and the answers to them, as far as a load needs: the one door of `hickory-proto` in this package.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use super::ErrorClass;

/// The size of datagrams that a resolver may send (RFC 9715 recommends no more than 1,400).
const PAYLOAD: u16 = 1232;
const HEADER: usize = 12;

/// The query for `/NAME?type=A`, its id 0.
pub(super) fn query(target: &str) -> Result<Vec<u8>, &'static str> {
    let (path, rest) = target.split_once('?').unwrap_or((target, ""));
    let name = path.trim_start_matches('/');
    if name.is_empty() || name.contains('/') {
        return Err("a DNS URL is dns://RESOLVER/NAME, or dns://RESOLVER/NAME?type=AAAA");
    }
    let kind = match rest {
        "" => "A",
        _ => rest.strip_prefix("type=").ok_or("of a DNS URL only the type can be told: ?type=AAAA")?,
    };
    let kind: RecordType =
        kind.to_ascii_uppercase().parse().map_err(|_| "this is no type of DNS records that is known")?;
    let mut name = Name::from_ascii(name).map_err(|_| "this is no name that DNS can be asked for")?;
    name.set_fqdn(true);
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD);
    message.set_edns(edns);
    message.to_vec().map_err(|_| "this question cannot be written")
}

/// Gives a query its id.
pub(super) fn number(query: &mut [u8], id: u16) {
    query[..2].copy_from_slice(&id.to_be_bytes());
}

/// Whether a datagram answers a query, and how: `Ok(None)` well, `Ok(Some)` with this code. None if it is something
/// else, such as the late answer to an earlier query.
pub(super) fn answers(query: &[u8], datagram: &[u8]) -> Option<Result<Option<u16>, ErrorClass>> {
    fn question(bytes: &[u8]) -> Option<&[u8]> {
        let mut at = HEADER;
        while *bytes.get(at)? != 0 {
            at += usize::from(bytes[at]) + 1;
        }
        bytes.get(HEADER..at + 5)
    }
    if datagram.get(..2)? != query.get(..2)? || datagram.get(2)? & 0x80 == 0 {
        return None;
    }
    let code = u16::from(datagram.get(3)? & 0x0f);
    // A server that could not read the question may leave it out (RFC 1035, section 4.1.1).
    let told = u16::from_be_bytes([*datagram.get(4)?, *datagram.get(5)?]) > 0;
    let same = || question(datagram)?.eq_ignore_ascii_case(question(query)?).then_some(());
    if told && same().is_none() {
        return None;
    }
    if datagram[2] & 2 != 0 {
        return Some(Err(ErrorClass::Expectation));
    }
    if code != 0 {
        return Some(Ok(Some(code)));
    }
    // A good answer is one that could be used: it repeats the question, and its records can be read.
    let whole = told && Message::from_vec(datagram).is_ok();
    Some(if whole { Ok(None) } else { Err(ErrorClass::Protocol) })
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_asks_for_the_name_and_the_type() {
        let read = |target: &str| {
            let message = Message::from_vec(&query(target).unwrap()).unwrap();
            let asked = &message.queries[0];
            (asked.name().to_string(), asked.query_type(), message.metadata.recursion_desired)
        };
        assert_eq!(read("/example.com"), ("example.com.".to_owned(), RecordType::A, true));
        assert_eq!(read("/a.b.?type=aaaa"), ("a.b.".to_owned(), RecordType::AAAA, true));
        for wrong in ["/", "", "/a/b", "/a?class=IN", "/a?type=NONE", "/..", &format!("/{}", "x".repeat(70))]
        {
            assert!(query(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let mut asked = query("/Example.com?type=A").unwrap();
        number(&mut asked, 513);
        let answer = |change: &dyn Fn(&mut Message)| {
            let mut message = Message::from_vec(&asked).unwrap();
            message.metadata.message_type = MessageType::Response;
            change(&mut message);
            answers(&asked, &message.to_vec().unwrap())
        };
        assert_eq!(answer(&|_| {}), Some(Ok(None)));
        assert_eq!(answer(&|m| m.metadata.response_code = ResponseCode::NXDomain), Some(Ok(Some(3))));
        assert_eq!(answer(&|m| m.metadata.truncation = true), Some(Err(ErrorClass::Expectation)));
        assert_eq!(answer(&|m| m.metadata.id = 7), None);
        assert_eq!(answer(&|m| m.metadata.message_type = MessageType::Query), None);
        let other = Query::query(Name::from_ascii("other.example.").unwrap(), RecordType::A);
        assert_eq!(answer(&|m| m.queries = vec![other.clone()]), None);
        assert_eq!(answer(&|m| m.queries.clear()), Some(Err(ErrorClass::Protocol)));
        let mut cut = asked.clone();
        cut[2] |= 0x80;
        assert_eq!(answers(&asked, &cut), Some(Ok(None)));
        cut[7] = 1;
        assert_eq!(answers(&asked, &cut), Some(Err(ErrorClass::Protocol)), "a record that is not there");
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(datagram in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut datagram = datagram;
            let asked = query("/a.example").unwrap();
            let _ = answers(&asked, &datagram);
            datagram.iter_mut().take(2).for_each(|byte| *byte = 0);
            let _ = answers(&asked, &datagram);
        }
    }
}
