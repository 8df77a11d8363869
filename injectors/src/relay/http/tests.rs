//! Laws of the HTTP part, on bytes split wherever they can be split.

use super::*;
use crate::relay::fault::Direction;

fn live(text: &str) -> Arc<Live> {
    Arc::new(Live::new("run/1".to_owned(), 0, serde_json::from_str(text).unwrap(), 7))
}

/// A connection without sockets.
struct Wire {
    http: Http,
    up: Line,
    down: Line,
    faults: Vec<Arc<Live>>,
}

impl Wire {
    fn new(faults: &[&Arc<Live>]) -> Self {
        Self {
            http: Http::new(1),
            up: Line::new(Direction::Up, 1),
            down: Line::new(Direction::Down, 1),
            faults: faults.iter().map(|live| Arc::clone(live)).collect(),
        }
    }

    /// Feeds the client's bytes in steps; what reaches the server.
    fn client(&mut self, bytes: &[u8], step: usize) -> String {
        for part in bytes.chunks(step.max(1)) {
            self.http.on_client(Some(part), &self.faults, &mut self.up, &mut self.down, Instant::now());
        }
        self.sent()
    }

    /// What has reached the server since.
    fn sent(&mut self) -> String {
        if self.http.has_waiting_requests() {
            self.http.resume(&self.faults, &mut self.up, &mut self.down, Instant::now());
        }
        drain(&mut self.up)
    }

    /// Feeds the server's bytes in steps; what reaches the client.
    fn server(&mut self, bytes: &[u8], step: usize) -> String {
        for part in bytes.chunks(step.max(1)) {
            self.http.on_server(Some(part), &mut self.down, Instant::now());
        }
        drain(&mut self.down)
    }
}

fn drain(line: &mut Line) -> String {
    line.advance(Instant::now());
    let mut out = Vec::new();
    while let Some(head) = line.head() {
        out.extend_from_slice(head);
        let length = head.len();
        line.taken(length);
    }
    String::from_utf8(out).unwrap()
}

const GET: &[u8] = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-Kind: slow\r\n\r\n";
const POST: &[u8] = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
const CHUNKED: &[u8] =
    b"PUT /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789";

fn abort(more: &str) -> Arc<Live> {
    live(&format!(r#"{{"kind":"http-abort","status":503,"share":1{more}}}"#))
}

#[test]
fn without_faults_messages_pass_byte_by_byte_unchanged() {
    let requests = [GET, POST, CHUNKED, GET].concat();
    let responses = [
        &b"HTTP/1.1 100 Continue\r\n\r\n"[..],
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\nT: 1\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    ]
    .concat();
    for step in [1, 2, 3, 7, 50, 10_000] {
        let mut wire = Wire::new(&[]);
        assert_eq!(wire.client(&requests, step).as_bytes(), requests);
        assert_eq!(wire.http.exchanges.len(), 4);
        assert_eq!(wire.server(&responses, step).as_bytes(), responses);
        assert_eq!(wire.http.exchanges.len(), 1, "the last response ends with the connection");
    }
}

#[test]
fn an_aborted_request_never_reaches_the_server_however_its_bytes_are_split() {
    for request in [GET, POST, CHUNKED] {
        for split in 1..request.len() {
            let fault = abort("");
            let mut wire = Wire::new(&[&fault]);
            assert_eq!(wire.client(&request[..split], split), "");
            assert_eq!(wire.client(&request[split..], usize::MAX), "");
            let answer = drain(&mut wire.down);
            assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\nx-squall-fault: run/1\r\n"));
            assert!(answer.ends_with("\r\n\r\nfault injected by squall\n"));
            assert_eq!((fault.stats.observation().eligible, fault.stats.observation().hit), (1, 1));
            // The connection goes on behind the swallowed body.
            fault.mark_ended();
            assert_eq!(wire.client(GET, 9).as_bytes(), GET);
            assert_eq!(wire.server(OK, 4).as_bytes(), OK);
        }
    }
}

#[test]
fn answers_keep_the_order_of_pipelined_requests() {
    let fault = abort(r#","match":{"method":"post"}"#);
    let mut wire = Wire::new(&[&fault]);
    assert_eq!(wire.client(&[GET, POST, GET].concat(), 11).as_bytes(), [GET, GET].concat());
    assert_eq!(drain(&mut wire.down), "");
    let both = wire.server(&[OK, OK].concat(), 5);
    let (first, rest) = both.split_at(OK.len());
    assert_eq!(first.as_bytes(), OK);
    assert!(rest.starts_with("HTTP/1.1 503") && rest.ends_with("0123456789"), "{rest}");
}

#[test]
fn requests_are_chosen_by_method_path_and_header() {
    let hits = |matching: &str| {
        let fault = abort(&format!(r#","match":{matching}"#));
        Wire::new(&[&fault]).client(GET, 20);
        fault.stats.observation().hit == 1
    };
    assert!(hits("{}"));
    assert!(hits(r#"{"method":"get","path":"/a","header":"x-kind: slow"}"#));
    assert!(hits(r#"{"path":"/*"}"#));
    assert!(!hits(r#"{"path":"/b*"}"#));
    assert!(!hits(r#"{"path":"/a?b=c"}"#));
    assert!(!hits(r#"{"method":"POST"}"#));
    assert!(!hits(r#"{"header":"x-kind: Slow"}"#));
}

#[test]
fn a_request_that_waits_for_100_continue_is_answered_and_its_connection_closed() {
    let mut wire = Wire::new(&[&abort("")]);
    wire.client(b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n", 8);
    assert!(drain(&mut wire.down).contains("connection: close\r\n"));
    assert_eq!(wire.down.end(), Some(End::Close));
}

#[test]
fn a_head_request_gets_no_body_from_server_or_relay() {
    let head: &[u8] = b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut wire = Wire::new(&[]);
    wire.client(&[head, GET].concat(), 10);
    let answers = [&b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"[..], OK].concat();
    assert_eq!(wire.server(&answers, 3).as_bytes(), answers);
    assert!(wire.http.exchanges.is_empty());
    let mut wire = Wire::new(&[&abort("")]);
    wire.client(head, 100);
    assert!(drain(&mut wire.down).ends_with("\r\n\r\n"));
}

#[test]
fn a_truncated_body_has_exactly_the_bytes_that_were_asked_for() {
    for bytes in [0, 4, 9] {
        for step in [1, 3, 100] {
            let fault = live(&format!(r#"{{"kind":"http-truncate","bytes":{bytes},"share":1}}"#));
            let mut wire = Wire::new(&[&fault]);
            wire.client(GET, 100);
            let got = wire.server(OK, step);
            assert!(got.ends_with(&format!("\r\n\r\n{}", &"0123456789"[..bytes])), "{got}");
            assert_eq!(wire.down.end(), Some(End::Close));
            assert_eq!(fault.stats.observation().hit, 1);
        }
    }
}

#[test]
fn a_body_that_is_not_longer_is_neither_cut_nor_counted() {
    let fault = live(r#"{"kind":"http-truncate","bytes":10,"share":1}"#);
    let mut wire = Wire::new(&[&fault]);
    wire.client(GET, 100);
    assert_eq!(wire.server(OK, 3).as_bytes(), OK);
    assert_eq!(fault.stats.observation().eligible, 0);
}

#[test]
fn header_fields_are_set_and_removed_without_touching_the_rest() {
    let up =
        live(r#"{"kind":"http-header","on":"request","set":{"X-Kind":"fast","New":"1"},"remove":["host"]}"#);
    let down = live(r#"{"kind":"http-header","on":"response","set":{"Age":"9"}}"#);
    let mut wire = Wire::new(&[&up, &down]);
    assert_eq!(wire.client(GET, 7), "GET /a?b=c HTTP/1.1\r\nNew: 1\r\nX-Kind: fast\r\n\r\n");
    let got = wire.server(&[b"HTTP/1.1 103 Early Hints\r\nAge: 1\r\n\r\n", OK].concat(), 7);
    let expected = "HTTP/1.1 103 Early Hints\r\nAge: 1\r\n\r\n\
                    HTTP/1.1 200 OK\r\ncontent-length: 10\r\nAge: 9\r\n\r\n0123456789";
    assert_eq!(got, expected);
}

#[test]
fn only_heads_that_were_really_altered_are_counted() {
    let counts = |fault: &str| {
        let fault = live(fault);
        let mut wire = Wire::new(&[&fault]);
        let sent = wire.client(GET, 100);
        let got = wire.server(OK, 100);
        let seen = fault.stats.observation();
        let changed = sent.as_bytes() != GET || got.as_bytes() != OK;
        assert_eq!(changed, seen.hit > 0, "{sent} {got}");
        (seen.matched, seen.eligible, seen.hit)
    };
    let request = |edit: &str| format!(r#"{{"kind":"http-header","on":"request",{edit}}}"#);
    assert_eq!(counts(&request(r#""remove":["authorization"]"#)), (1, 0, 0));
    assert_eq!(counts(&request(r#""remove":["x-kind"]"#)), (1, 1, 1));
    assert_eq!(counts(&request(r#""set":{"x-kind":"slow"}"#)), (1, 0, 0));
    assert_eq!(counts(&request(r#""set":{"x-kind":"fast"}"#)), (1, 1, 1));
    assert_eq!(counts(&request(r#""share":0.0000001,"remove":["x-kind"]"#)), (1, 1, 0));
    let response = |edit: &str| format!(r#"{{"kind":"http-header","on":"response",{edit}}}"#);
    assert_eq!(counts(&response(r#""remove":["set-cookie"]"#)), (1, 0, 0));
    assert_eq!(counts(&response(r#""set":{"age":"9"}"#)), (1, 1, 1));
}

#[test]
fn a_head_that_was_never_forwarded_was_not_altered() {
    let header = live(r#"{"kind":"http-header","on":"request","remove":["host"]}"#);
    let mut wire = Wire::new(&[&header, &abort("")]);
    assert_eq!(wire.client(GET, 100), "");
    assert_eq!(header.stats.observation().hit, 0);
}

#[test]
fn a_delayed_request_holds_back_those_behind_it_until_its_fault_ends() {
    let fault = live(r#"{"kind":"http-delay","delay":60,"match":{"method":"POST"}}"#);
    let mut wire = Wire::new(&[&fault]);
    assert_eq!(wire.client(&[GET, POST, GET].concat(), 13).as_bytes(), GET);
    assert!(wire.up.due().unwrap() > Instant::now() + Duration::from_secs(50));
    fault.mark_ended();
    wire.up.refit(&[], Instant::now());
    assert_eq!(wire.sent().as_bytes(), [POST, GET].concat());
}

#[test]
fn an_accepted_upgrade_makes_a_tunnel_and_a_refused_one_does_not() {
    let ask: &[u8] = b"GET /ws HTTP/1.1\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\r\n";
    for step in [1, 1000] {
        let mut wire = Wire::new(&[]);
        assert_eq!(wire.client(ask, step).as_bytes(), ask);
        assert!(!wire.http.takes_requests());
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\nserver frame";
        assert_eq!(wire.server(switch, step).as_bytes(), switch);
        assert!(wire.http.takes_requests());
        assert_eq!(wire.client(b"GET not http any more", step), "GET not http any more");

        let mut wire = Wire::new(&[]);
        wire.client(ask, step);
        assert_eq!(wire.server(OK, step).as_bytes(), OK);
        assert_eq!(wire.client(GET, step).as_bytes(), GET);
        assert_eq!(wire.http.exchanges.len(), 1);
    }
}

#[test]
fn what_is_no_http_passes_as_plain_bytes() {
    for step in [1, 5, 1000] {
        for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PING\r\nx"] {
            let mut wire = Wire::new(&[&abort("")]);
            assert_eq!(wire.client(bytes, step).as_bytes(), bytes);
        }
        let mut wire = Wire::new(&[]);
        assert_eq!(wire.server(b"220 mail.example ESMTP\r\n", step), "220 mail.example ESMTP\r\n");
        assert_eq!(wire.client(b"EHLO x\r\n", step), "EHLO x\r\n");
    }
}

#[test]
fn a_head_without_end_is_passed_on_rather_than_collected_for_ever() {
    let mut wire = Wire::new(&[]);
    let mut head = b"GET / HTTP/1.1\r\nx: ".to_vec();
    head.resize(HEAD_MAX + 100, b'y');
    assert_eq!(wire.client(&head, 4096).len(), head.len());
}

#[test]
fn pipelined_requests_beyond_the_bound_wait_for_responses() {
    let mut wire = Wire::new(&[]);
    let many = GET.repeat(PIPELINE_MAX + 3);
    assert_eq!(wire.client(&many, many.len()).len(), GET.len() * PIPELINE_MAX);
    assert!(!wire.http.takes_requests());
    wire.server(&OK.repeat(PIPELINE_MAX), 1000);
    assert_eq!(wire.sent().len(), GET.len() * 3);
    assert!(wire.http.takes_requests());
}

#[test]
fn an_unfinished_head_is_passed_on_when_its_sender_ends() {
    let mut wire = Wire::new(&[]);
    assert_eq!(wire.client(b"GET / HT", 3), "");
    wire.http.on_client(None, &[], &mut wire.up, &mut wire.down, Instant::now());
    assert_eq!(drain(&mut wire.up), "GET / HT");
    assert_eq!(wire.up.end(), Some(End::Fin));
}

#[test]
fn ambiguous_framing_is_left_to_the_server() {
    let both: &[u8] =
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /";
    let mut wire = Wire::new(&[&abort("")]);
    assert_eq!(wire.client(both, 1000).as_bytes(), both);
}
