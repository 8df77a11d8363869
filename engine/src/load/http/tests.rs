//! Laws of the response parser: framing, limits, and independence of how the bytes are split.

use proptest::prelude::*;

use super::*;

const RULES: Rules<'_> =
    Rules { head_request: false, pop_header: b"x-squall-pop", needle: None, checks: None };

/// What is known after feeding the pieces: complete or not, bytes left over, status, keep-alive, PoP.
type Told = Result<(bool, usize, Option<u16>, bool, Option<Vec<u8>>), NotHttp>;

fn tell<'a>(rules: &Rules<'_>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Told {
    let mut parser = Parser::default();
    let (mut complete, mut left) = (false, 0);
    for piece in pieces {
        if complete {
            left += piece.len();
        } else if let Progress::Complete(used) = parser.feed(rules, piece)? {
            complete = true;
            left = piece.len() - used;
        }
    }
    Ok((complete, left, parser.status(), parser.keep_alive(), parser.pop().map(<[u8]>::to_vec)))
}

fn whole(text: &str) -> Told {
    tell(&RULES, [text.as_bytes()])
}

const RESPONSES: [&str; 9] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Squall-Pop: fra1\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1a;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\n.\r\n0\r\nA: b\r\nC: d\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 500 Oh\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nokEXTRA",
];

#[test]
fn a_response_split_at_every_byte_says_the_same() {
    for text in RESPONSES {
        let bytes = text.as_bytes();
        let expected = whole(text).unwrap();
        assert!(expected.0, "{text:?} is complete");
        for at in 0..=bytes.len() {
            assert_eq!(
                tell(&RULES, [&bytes[..at], &bytes[at..]]).unwrap(),
                expected,
                "{text:?} split at {at}"
            );
        }
        assert_eq!(tell(&RULES, bytes.chunks(1)).unwrap(), expected, "{text:?} byte by byte");
    }
}

#[test]
fn a_response_that_is_cut_off_is_not_complete() {
    for text in &RESPONSES[..8] {
        for at in 0..text.len() {
            let mut parser = Parser::default();
            assert_eq!(
                parser.feed(&RULES, &text.as_bytes()[..at]),
                Ok(Progress::More),
                "{text:?} cut at {at}"
            );
            assert!(!parser.end());
        }
    }
}

#[test]
fn heads_say_what_they_mean() {
    let pop = Some(b"fra1".to_vec());
    assert_eq!(whole(RESPONSES[0]), Ok((true, 0, Some(200), true, pop)));
    assert_eq!(whole(RESPONSES[3]), Ok((true, 0, Some(201), true, None)));
    assert_eq!(whole(RESPONSES[6]), Ok((true, 0, Some(200), true, None)));
    assert_eq!(whole(RESPONSES[7]), Ok((true, 0, Some(500), false, None)));
    assert_eq!(whole(RESPONSES[8]), Ok((true, 5, Some(200), true, None)));
    let old = "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(whole(old), Ok((true, 0, Some(200), false, None)));
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(whole(both), Ok((true, 0, Some(200), false, None)));
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    let mut parser = Parser::default();
    assert_eq!(parser.feed(&RULES, b"HTTP/1.1 200 OK\r\n\r\nhello"), Ok(Progress::More));
    assert!(parser.end());
    assert!(!parser.keep_alive());
}

#[test]
fn the_answer_to_head_has_no_body() {
    let rules = Rules { head_request: true, ..RULES };
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(tell(&rules, [&text[..]]), Ok((true, 0, Some(200), true, None)));
}

#[test]
fn what_is_not_http_is_refused() {
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 101 Switching\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ] {
        assert_eq!(whole(text), Err(NotHttp), "{text:?}");
        assert_eq!(tell(&RULES, text.as_bytes().chunks(1)), Err(NotHttp), "{text:?} byte by byte");
    }
}

#[test]
fn a_head_of_64_kib_is_read_and_a_larger_one_is_refused() {
    let head = |filler: usize| format!("HTTP/1.1 204 X\r\nA: {}\r\n\r\n", "x".repeat(filler));
    let fixed = head(0).len();
    for chunk in [1000, HEAD_MAX * 2] {
        let fits = head(HEAD_MAX - fixed);
        assert!(tell(&RULES, fits.as_bytes().chunks(chunk)).is_ok_and(|told| told.0), "{chunk}");
        let over = head(HEAD_MAX - fixed + 1);
        assert_eq!(tell(&RULES, over.as_bytes().chunks(chunk)), Err(NotHttp), "{chunk}");
    }
    let endless = "HTTP/1.1 200 OK\r\n".to_owned() + &"A: b\r\n".repeat(20_000);
    assert_eq!(tell(&RULES, endless.as_bytes().chunks(1400)), Err(NotHttp));
    let trailers =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".to_owned() + &"A: b\r\n".repeat(20_000);
    assert_eq!(tell(&RULES, trailers.as_bytes().chunks(1400)), Err(NotHttp));
}

#[test]
fn a_pop_name_that_is_too_long_or_not_visible_is_empty() {
    let long = format!("HTTP/1.1 204 X\r\nX-Squall-Pop: {}\r\n\r\n", "x".repeat(POP_MAX + 1));
    assert_eq!(whole(&long).unwrap().4, Some(vec![]));
    assert_eq!(whole("HTTP/1.1 204 X\r\nX-Squall-Pop: a b\r\n\r\n").unwrap().4, Some(vec![]));
}

#[test]
fn expectations_of_headers_and_json_are_looked_at_however_the_answer_is_split() {
    use crate::expect::{Checks, Expect};
    let meets = |clauses: &[&str], text: &str, size: usize| {
        let mut expect = Expect::default();
        for clause in clauses {
            expect.add(clause).unwrap();
        }
        let checks = Checks::new(&expect).unwrap();
        let rules = Rules { checks: checks.as_ref(), ..RULES };
        let mut parser = Parser::default();
        // One that went before must leave nothing.
        parser
            .feed(&rules, b"HTTP/1.1 200 OK\r\nEtag: x\r\nContent-Length: 13\r\n\r\n{\"old\": true}")
            .unwrap();
        parser.reset();
        for piece in text.as_bytes().chunks(size) {
            parser.feed(&rules, piece).unwrap();
        }
        parser.meets(checks.as_ref())
    };
    let text = "HTTP/1.1 103 Early\r\nEtag: early\r\n\r\nHTTP/1.1 200 OK\r\nX-Cache:  HIT \r\nVary: a\r\nVary: b\r\nTransfer-Encoding: chunked\r\n\r\n\
                8\r\n{\"ok\": t\r\n4\r\nrue}\r\n0\r\nEtag: late\r\n\r\n";
    for size in [1, 7, 1000] {
        let good = [
            "header x-cache",
            "header x-cache = HIT",
            "header vary = b",
            "header VARY contains a",
            "json /ok = true",
        ];
        assert!(meets(&good, text, size), "{size}");
        for clause in [
            "header etag",
            "header x-cache = MISS",
            "header vary contains c",
            "json /old",
            "json /ok = false",
        ] {
            assert!(!meets(&[clause], text, size), "{clause} {size}");
        }
    }
    let large = |filler: usize| {
        let body = format!("{{\"ok\": true, \"f\": \"{}\"}}", "x".repeat(filler));
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    assert!(meets(&["json /ok"], &large(crate::expect::JSON_MAX - 100), 4096));
    assert!(
        !meets(&["json /ok"], &large(crate::expect::JSON_MAX), 4096),
        "a body that is too large is not good"
    );
    assert!(meets(&[], &large(10), 4096));
}

proptest! {
    #[test]
    fn a_needle_is_found_exactly_when_the_body_contains_it(
        body in "[ab]{0,60}", needle in "[ab]{0,6}", cuts in prop::collection::vec(1..9usize, 1..20)
    ) {
        let wanted = Needle::new(needle.as_bytes());
        let rules = Rules { needle: Some(&wanted), ..RULES };
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut parser = Parser::default();
        let mut rest = text.as_bytes();
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            parser.feed(&rules, now).unwrap();
            rest = later;
            if rest.is_empty() { break; }
        }
        prop_assert_eq!(parser.found(Some(&wanted)), body.contains(&needle));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..300usize, kind in 0..3usize) {
        let start: &[u8] = [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"][kind];
        let text = [start, &bytes].concat();
        let at = cut.min(text.len());
        let split = tell(&RULES, [&text[..at], &text[at..]]);
        prop_assert_eq!(split, tell(&RULES, [&text[..]]));
    }
}

proptest! {
    #[test]
    fn what_a_connection_said_before_changes_nothing(
        asked in prop::collection::vec((0..RESPONSES.len() + 2, any::<bool>(), 1usize..200), 1..40),
    ) {
        let more = [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Squall-Pop: ams\r\nX-Squall-Path: a,b\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Squall-Pop: fra1\r\nA: b\r\n\r\nhello",
        ];
        let mut old = Parser::default();
        for (which, head_request, at) in asked {
            let text = RESPONSES.iter().chain(&more).nth(which).unwrap().as_bytes();
            let rules = Rules { head_request, ..RULES };
            let mut new = Parser::default();
            let feed = |parser: &mut Parser| {
                let (first, second) = text.split_at(at.min(text.len()));
                let progress = match parser.feed(&rules, first) {
                    Ok(Progress::More) => parser.feed(&rules, second),
                    other => other,
                };
                let said = (parser.status(), parser.keep_alive());
                (progress, said, parser.pop().map(<[u8]>::to_vec), parser.path().map(<[u8]>::to_vec))
            };
            old.reset();
            prop_assert_eq!(feed(&mut old), feed(&mut new));
        }
    }
}
