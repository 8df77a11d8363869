//! What a server may say, and what a session makes of it.

use std::rc::Rc;

use loona_hpack::Encoder;

use super::super::frame::{self, Frames};
use super::super::head::Head;
use super::*;
use crate::load::spec::{self, LoadSpec, RequestSpec};
use crate::schedule::{Profile, Segment};

/// A server that says what a test tells it to say.
struct Peer {
    session: Session,
    requests: Vec<Request>,
    encoder: Encoder<'static>,
}

impl Peer {
    /// Two requests: a GET whose body must hold `good`, and a POST of 100,000 bytes.
    fn new(slots: usize) -> Self {
        let get = RequestSpec {
            expect: crate::load::Expect { body_contains: Some("good".to_owned()), ..Default::default() },
            ..RequestSpec::get("http://host/")
        };
        let post = RequestSpec {
            method: "POST".into(),
            body: crate::load::Body::Bytes(vec![7; 100_000]),
            ..RequestSpec::get("http://host/post")
        };
        let hold = Segment::Hold { rate: 1.0, lasting: std::time::Duration::from_secs(1) };
        let mut load = LoadSpec::new("test", vec![get, post], Profile::new(vec![hold]).expect("a profile"));
        load.http = spec::HttpVersion::Two;
        let requests = spec::check(&load).expect("a good load").requests;
        let mut session = Session::new(slots);
        session.core.out.clear();
        Self { session, requests, encoder: Encoder::new() }
    }

    fn send(&mut self, slot: usize, kind: u16) {
        let rules = Rules { requests: &self.requests, pop_header: b"x-squall-pop", fields: false };
        self.session.send(slot, kind, None, rules);
    }

    fn head(&mut self, stream: u32, fields: &[(&str, &str)], last: bool) -> Vec<u8> {
        let block = self.encoder.encode(fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        let mut out = Vec::new();
        frame::write_block(&mut out, stream, &block, last, 16_384);
        out
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Malformed> {
        let rules = Rules { requests: &self.requests, pop_header: b"x-squall-pop", fields: false };
        self.session.feed(bytes, rules)?;
        Ok(self.session.events().collect())
    }

    /// What the session has written since, as kind, flags, stream and payload.
    fn written(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let rules = Rules { requests: &self.requests, pop_header: b"x-squall-pop", fields: false };
        let out = std::mem::take(self.session.out(rules));
        let (mut frames, mut input, mut seen) = (Frames::default(), &out[..], Vec::new());
        while let Some(frame) = frames.next(&mut input).expect("well formed") {
            seen.push((frame.kind, frame.flags, frame.stream, frame.payload.to_vec()));
        }
        seen
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, kind, flags, stream, payload);
    out
}

fn ok(slot: usize, length: Option<u64>) -> Event {
    let head = Rc::new(Head { status: Some(200), length, ..Head::default() });
    Event::Answered { slot, head, trailers: None, found: true }
}

const LAST: u8 = frame::END_STREAM;

#[test]
fn an_answer_is_the_same_wherever_it_is_cut() {
    let whole = |peer: &mut Peer| {
        [
            frame(frame::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
            peer.head(1, &[(":status", "103"), ("link", "x")], false),
            peer.head(1, &[(":status", "200"), ("content-length", "8")], false),
            frame(frame::DATA, 0, 1, b"a go"),
            frame(frame::PING, 0, 0, b"12345678"),
            frame(frame::DATA, LAST, 1, b"od b"),
        ]
        .concat()
    };
    let length = whole(&mut Peer::new(1)).len();
    for cut in 0..=length {
        let mut peer = Peer::new(1);
        peer.send(0, 0);
        let bytes = whole(&mut peer);
        let mut events = peer.feed(&bytes[..cut]).unwrap();
        events.extend(peer.feed(&bytes[cut..]).unwrap());
        assert_eq!(events, [Event::Allowed(9), ok(0, Some(8))], "cut at {cut}");
        let replies: Vec<(u8, u8)> = peer.written().iter().map(|(kind, flags, ..)| (*kind, *flags)).collect();
        assert_eq!(
            replies,
            [(frame::HEADERS, 5), (frame::SETTINGS, frame::ACK), (frame::PING, frame::ACK)],
            "cut at {cut}"
        );
    }
}

#[test]
fn trailers_end_an_answer_and_are_told() {
    let mut peer = Peer::new(1);
    peer.send(0, 1);
    let mut bytes = peer.head(1, &[(":status", "200")], false);
    bytes.extend(frame(frame::DATA, 0, 1, b"x"));
    bytes.extend(peer.head(1, &[("grpc-status", "14")], true));
    let events = peer.feed(&bytes).unwrap();
    let [Event::Answered { slot: 0, head, trailers: Some(trailers), found: true }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((head.status, trailers.grpc), (Some(200), Some(14)));
}

#[test]
fn what_breaks_a_stream_leaves_the_others() {
    type Case = fn(&mut Peer) -> Vec<u8>;
    let short = |peer: &mut Peer| {
        [
            peer.head(1, &[(":status", "200"), ("content-length", "9")], false),
            frame(frame::DATA, LAST, 1, b"x"),
        ]
        .concat()
    };
    let early = |_: &mut Peer| frame(frame::DATA, 0, 1, b"x");
    let statusless = |peer: &mut Peer| peer.head(1, &[("date", "today")], false);
    let twice = |peer: &mut Peer| {
        let head = peer.head(1, &[(":status", "200")], false);
        [head.clone(), head].concat()
    };
    let interim = |peer: &mut Peer| peer.head(1, &[(":status", "100")], true);
    let cases: [Case; 5] = [short, early, statusless, twice, interim];
    for (nth, bytes) in cases.into_iter().enumerate() {
        let mut peer = Peer::new(2);
        peer.send(0, 1);
        peer.send(1, 1);
        let bytes = bytes(&mut peer);
        assert_eq!(peer.feed(&bytes).unwrap(), [Event::Broken { slot: 0 }], "case {nth}");
        let good = peer.head(3, &[(":status", "200")], true);
        assert_eq!(peer.feed(&good).unwrap(), [ok(1, None)], "case {nth}");
    }
}

#[test]
fn what_breaks_the_connection_is_an_error() {
    let cases = [
        frame(frame::CONTINUATION, 4, 1, b""),
        [frame(frame::HEADERS, 0, 1, b""), frame(frame::PING, 0, 0, b"12345678")].concat(),
        [frame(frame::HEADERS, 0, 1, b""), frame(frame::CONTINUATION, 4, 3, b"")].concat(),
        frame(frame::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]),
        frame(frame::PING, 0, 0, b"1234567"),
        frame(frame::SETTINGS, 0, 0, b"12345"),
        frame(frame::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
        frame(frame::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
        frame(frame::HEADERS, 4, 0, &[0x88]),
        frame(frame::HEADERS, 4, 1, &[0xff, 0xff, 0xff, 0xff]),
        frame(frame::DATA, 0, 0, b"x"),
        frame(frame::GOAWAY, 0, 0, b"123"),
        frame(frame::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2),
        [frame(frame::HEADERS, 0, 1, &[0; 16_000]), frame(frame::CONTINUATION, 0, 1, &[0; 16_000]).repeat(5)]
            .concat(),
        frame(frame::PING, 0, 0, b"12345678").repeat(UNREAD_MAX / 10),
    ];
    for (nth, bytes) in cases.iter().enumerate() {
        let mut peer = Peer::new(1);
        peer.send(0, 0);
        assert_eq!(peer.feed(bytes), Err(Malformed), "case {nth}");
    }
}

#[test]
fn a_body_waits_for_the_windows() {
    let mut peer = Peer::new(1);
    peer.feed(&frame(frame::SETTINGS, 0, 0, &[0, 4, 0, 0, 0x9c, 0x40])).unwrap();
    peer.send(0, 1);
    let data = |peer: &mut Peer| -> (usize, bool) {
        let frames = peer.written();
        let data = frames.iter().filter(|(kind, ..)| *kind == frame::DATA);
        data.fold((0, false), |(sum, ended), (_, flags, _, payload)| {
            assert!(payload.len() <= 16_384);
            (sum + payload.len(), ended || (flags & LAST != 0))
        })
    };
    assert_eq!(data(&mut peer), (40_000, false), "what the stream allows");
    peer.feed(&frame(frame::WINDOW_UPDATE, 0, 1, &100_000u32.to_be_bytes())).unwrap();
    assert_eq!(data(&mut peer), (25_535, false), "what the connection allows");
    peer.feed(&frame(frame::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    peer.feed(&frame(frame::WINDOW_UPDATE, 0, 0, &1_000_000u32.to_be_bytes())).unwrap();
    assert_eq!(data(&mut peer), (34_465, true), "the rest: 140,000 - 40,000 - 65,535 are left to the stream");
    let good = peer.head(1, &[(":status", "200")], true);
    assert_eq!(peer.feed(&good).unwrap(), [ok(0, None)]);
}

#[test]
fn an_answer_before_the_body_was_read_stops_it() {
    let mut peer = Peer::new(1);
    peer.send(0, 1);
    peer.written();
    let refused = peer.head(1, &[(":status", "413")], true);
    assert!(matches!(peer.feed(&refused).unwrap()[..], [Event::Answered { .. }]));
    assert_eq!(peer.written(), [(frame::RST_STREAM, 0, 1, CANCEL.to_be_bytes().to_vec())]);
}

#[test]
fn what_the_server_has_not_acted_on_may_go_again() {
    let mut peer = Peer::new(3);
    (0..3).for_each(|slot| peer.send(slot, 0));
    let refused = frame(frame::RST_STREAM, 0, 3, &REFUSED_STREAM.to_be_bytes());
    assert_eq!(peer.feed(&refused).unwrap(), [Event::Unprocessed { slot: 1 }]);
    let leaving = frame(frame::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(peer.feed(&leaving).unwrap(), [Event::Leaving, Event::Unprocessed { slot: 2 }]);
    let reset = frame(frame::RST_STREAM, 0, 1, &2u32.to_be_bytes());
    assert_eq!(peer.feed(&reset).unwrap(), [Event::Reset { slot: 0 }]);
}

#[test]
fn late_frames_of_a_request_that_was_given_up_are_read_and_ignored() {
    let mut peer = Peer::new(1);
    peer.send(0, 0);
    peer.written();
    peer.session.cancel(0);
    assert_eq!(peer.written(), [(frame::RST_STREAM, 0, 1, CANCEL.to_be_bytes().to_vec())]);
    // It changes the table of fields, which the next answer refers to.
    let late = peer.head(1, &[(":status", "200"), ("x-squall-pop", "ams")], false);
    assert_eq!(peer.feed(&late).unwrap(), []);
    assert_eq!(peer.feed(&frame(frame::DATA, LAST, 1, b"good")).unwrap(), []);
    peer.send(0, 1);
    let next = peer.head(3, &[(":status", "200"), ("x-squall-pop", "ams")], true);
    let events = peer.feed(&next).unwrap();
    let [Event::Answered { head, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(head.pop.as_deref(), Some(&b"ams"[..]));
}

#[test]
fn a_needle_across_frames_is_found_and_one_that_is_not_there_is_not() {
    for (pieces, wanted) in [([&b"go"[..], b"od"], true), ([b"go", b"ad"], false)] {
        let mut peer = Peer::new(1);
        peer.send(0, 0);
        let mut bytes = peer.head(1, &[(":status", "200")], false);
        bytes.extend(frame(frame::DATA, 0, 1, pieces[0]));
        bytes.extend(frame(frame::DATA, LAST, 1, pieces[1]));
        let events = peer.feed(&bytes).unwrap();
        assert!(matches!(events[..], [Event::Answered { found, .. }] if found == wanted), "{events:?}");
    }
}

mod random {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_answer_what_was_not_asked(
            frames in prop::collection::vec((0u8..10, any::<u8>(), 0u32..6, prop::collection::vec(any::<u8>(), 0..30)), 0..12),
        ) {
            let mut peer = Peer::new(2);
            peer.send(0, 0);
            let mut answers = 0;
            for (kind, flags, stream, payload) in frames {
                match peer.feed(&frame(kind, flags, stream, &payload)) {
                    Ok(events) => answers += events.iter().filter(|e| matches!(e, Event::Answered { .. })).count(),
                    Err(Malformed) => break,
                }
            }
            prop_assert!(answers <= 1);
        }
    }
}
