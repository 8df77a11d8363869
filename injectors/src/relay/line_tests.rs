//! Laws of a line, on a clock that the tests turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::relay::fault::RelayFault;

fn live(text: &str) -> Arc<Live> {
    Arc::new(Live::new(text.to_owned(), 0, serde_json::from_str(text).unwrap(), 7))
}

const LATENCY: &str = r#"{"kind":"latency","direction":"down","delay":0.1,"jitter":0.05}"#;
const SLICE: &str = r#"{"kind":"slice","direction":"down","size":10,"variation":3,"delay":0.002}"#;
const BANDWIDTH: &str = r#"{"kind":"bandwidth","direction":"down","rate":10000}"#;
const BLACKHOLE: &str = r#"{"kind":"blackhole","direction":"down"}"#;

fn ended(live: &Live) {
    live.mark_ended();
}

/// All that is out, taken.
fn drain(line: &mut Line) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(head) = line.head() {
        out.extend_from_slice(head);
        let length = head.len();
        line.taken(length);
    }
    out
}

/// Lets time pass, wake-up by wake-up, until nothing is due any more.
fn run(line: &mut Line, mut now: Instant) -> (Vec<u8>, Instant) {
    let mut out = Vec::new();
    for _ in 0..100_000 {
        line.advance(now);
        out.extend(drain(line));
        match line.due() {
            Some(due) => now = now.max(due),
            None => return (out, now),
        }
    }
    panic!("the line never comes to rest");
}

fn data(bytes: &[u8]) -> Item {
    Item::Data(Bytes::copy_from_slice(bytes))
}

#[test]
fn latency_delays_each_message_and_keeps_the_distances_within_a_burst() {
    let (start, fault) = (Instant::now(), live(LATENCY));
    let mut line = Line::new(Direction::Down, 1);
    line.refit(&[(Arc::clone(&fault), true)], start);
    line.push(data(b"a"), start);
    line.push(data(b"b"), start + Duration::from_millis(10));
    line.advance(start);
    let first = line.due().unwrap();
    assert!(first >= start + Duration::from_millis(50) && first <= start + Duration::from_millis(150));
    line.advance(first);
    assert_eq!(drain(&mut line), b"a");
    assert_eq!(line.due(), Some(first + Duration::from_millis(10)));
    let seen = fault.stats.observation();
    assert_eq!((seen.delays.samples, seen.chunks, seen.bytes), (1, 2, 2));
    assert!((seen.delays.mean - (first - start).as_secs_f64()).abs() < 1e-9);
}

#[test]
fn waiting_for_a_slow_receiver_is_not_measured_as_latency() {
    let (start, fault) = (Instant::now(), live(LATENCY));
    let mut line = Line::new(Direction::Down, 1);
    line.refit(&[(Arc::clone(&fault), true)], start);
    line.push(data(b"a"), start);
    line.advance(start);
    line.stall();
    line.advance(start + Duration::from_secs(5));
    assert_eq!(drain(&mut line), b"a");
    assert_eq!(fault.stats.observation().delays.samples, 0);
}

#[test]
fn a_removed_stage_lets_go_of_all_at_once_and_in_order() {
    let (start, latency, slice) = (Instant::now(), live(LATENCY), live(SLICE));
    let mut line = Line::new(Direction::Down, 1);
    let faults = [(Arc::clone(&latency), true), (Arc::clone(&slice), true)];
    line.refit(&faults, start);
    for byte in 0..200u8 {
        line.push(data(&[byte]), start);
    }
    line.push(Item::End(End::Fin), start);
    ended(&latency);
    line.refit(&faults[1..], start);
    ended(&slice);
    line.refit(&[], start);
    assert_eq!(drain(&mut line), (0..200).collect::<Vec<u8>>());
    assert_eq!(line.end(), Some(End::Fin));
    assert_eq!(latency.stats.observation().delays.samples, 0);
}

#[test]
fn a_blackhole_stops_the_reader_and_gives_back_what_it_holds() {
    let (start, fault) = (Instant::now(), live(BLACKHOLE));
    let mut line = Line::new(Direction::Down, 1);
    line.refit(&[(Arc::clone(&fault), true)], start);
    assert!(!line.wants_input());
    line.push(data(b"x"), start);
    line.push(Item::End(End::Fin), start);
    assert_eq!(run(&mut line, start + Duration::from_mins(1)).0, b"");
    assert_eq!(line.end(), None);
    ended(&fault);
    line.refit(&[], start);
    assert_eq!(drain(&mut line), b"x");
    assert_eq!(line.end(), Some(End::Fin));
}

#[test]
fn a_fault_of_the_other_way_or_of_other_connections_leaves_the_line_bare() {
    let now = Instant::now();
    let mut line = Line::new(Direction::Up, 1);
    line.refit(&[(live(LATENCY), true)], now);
    assert!(line.is_bare());
    let mut line = Line::new(Direction::Down, 1);
    line.refit(&[(live(LATENCY), false)], now);
    assert!(line.is_bare());
}

#[test]
fn the_limit_closes_after_exactly_its_bytes() {
    for limit in [0usize, 1, 7, 10] {
        let now = Instant::now();
        let fault = live(&format!(r#"{{"kind":"limit-data","direction":"down","bytes":{limit}}}"#));
        let mut line = Line::new(Direction::Down, 1);
        line.refit(&[(Arc::clone(&fault), true)], now);
        line.push(data(b"01234"), now);
        line.push(data(b"56789"), now);
        line.advance(now);
        assert_eq!(drain(&mut line), &b"0123456789"[..limit]);
        assert_eq!(line.end(), Some(End::Close));
        assert_eq!(fault.stats.observation().hit, 1);
        assert!(!line.wants_input());
    }
}

#[test]
fn a_reset_after_bytes_counts_spared_connections_without_hurting_them() {
    let now = Instant::now();
    let fault = live(r#"{"kind":"reset","direction":"down","after":5,"share":0.5}"#);
    for (hurts, end) in [(true, Some(End::Reset)), (false, None)] {
        let mut line = Line::new(Direction::Down, 1);
        line.refit(&[(Arc::clone(&fault), hurts)], now);
        line.push(data(b"0123456789"), now);
        line.advance(now);
        assert_eq!(drain(&mut line).len(), if hurts { 5 } else { 10 });
        assert_eq!(line.end(), end);
    }
    let seen = fault.stats.observation();
    assert_eq!((seen.eligible, seen.hit), (2, 1));
}

#[test]
fn a_bandwidth_stage_takes_the_time_that_its_rate_says_and_stops_the_reader() {
    let (start, fault) = (Instant::now(), live(BANDWIDTH));
    let mut line = Line::new(Direction::Down, 1);
    line.refit(&[(Arc::clone(&fault), true)], start);
    line.push(data(&vec![1; 300_000]), start);
    assert!(!line.wants_input());
    let (out, end) = run(&mut line, start);
    assert_eq!(out.len(), 300_000);
    assert!(((end - start).as_secs_f64() - 30.0).abs() < 0.05, "{:?}", end - start);
    let seen = fault.stats.observation();
    assert!((seen.limited_bytes as f64 / seen.limited_seconds / 1e4 - 1.0).abs() < 0.01);
}

#[test]
fn a_slow_close_delays_the_end_alone() {
    let start = Instant::now();
    let fault = live(r#"{"kind":"slow-close","direction":"down","delay":2}"#);
    let mut line = Line::new(Direction::Down, 1);
    line.refit(&[(Arc::clone(&fault), true)], start);
    line.push(data(b"x"), start);
    line.push(Item::End(End::Fin), start);
    line.advance(start);
    assert_eq!(drain(&mut line), b"x");
    assert_eq!((line.end(), line.due()), (None, Some(start + Duration::from_secs(2))));
    line.advance(start + Duration::from_secs(2));
    assert_eq!(line.end(), Some(End::Fin));
    assert!((fault.stats.observation().delays.mean - 2.0).abs() < 1e-9);
}

#[test]
fn a_slow_close_that_answers_another_is_as_late_and_proves_nothing() {
    let start = Instant::now();
    let fault = live(r#"{"kind":"slow-close","direction":"down","delay":2}"#);
    let mut line = Line::new(Direction::Down, 1);
    line.refit(&[(Arc::clone(&fault), true)], start);
    line.answers = true;
    line.push(Item::End(End::Fin), start);
    line.advance(start);
    assert_eq!(line.end(), None);
    line.advance(start + Duration::from_secs(2));
    assert_eq!(line.end(), Some(End::FinBack));
    assert_eq!(fault.stats.observation().delays.samples, 0);
}

#[test]
fn a_late_end_without_a_byte_does_not_prove_latency() {
    let start = Instant::now();
    let fault = live(LATENCY);
    let mut line = Line::new(Direction::Down, 1);
    line.refit(&[(Arc::clone(&fault), true)], start);
    line.push(Item::End(End::Fin), start);
    line.advance(start + Duration::from_mins(1));
    assert_eq!(line.end(), Some(End::Fin));
    assert_eq!(fault.stats.observation().delays.samples, 0);
}

proptest! {
    /// Whatever stages come and go at whatever time, the bytes are the same and in order.
    #[test]
    fn bytes_come_out_unchanged_and_in_order(
        chunks in prop::collection::vec((1usize..400, 0u64..60), 1..40),
        stages in prop::collection::vec((0usize..4, 0usize..40, 0usize..40), 0..6),
    ) {
        let kinds = [LATENCY, SLICE, BANDWIDTH, BLACKHOLE];
        let faults: Vec<_> = stages.iter().map(|(kind, _, _)| live(kinds[*kind])).collect();
        let (mut now, mut line) = (Instant::now(), Line::new(Direction::Down, 1));
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for (step, (length, pause)) in chunks.iter().enumerate() {
            for (fault, (_, _, end)) in faults.iter().zip(&stages) {
                if *end == step {
                    ended(fault);
                }
            }
            let alive: Vec<_> = faults.iter().zip(&stages)
                .filter(|(fault, (_, begin, _))| *begin <= step && !fault.ended())
                .map(|(fault, _)| (Arc::clone(fault), true))
                .collect();
            line.refit(&alive, now);
            let chunk: Vec<u8> = (0..*length).map(|n| (sent.len() + n) as u8).collect();
            sent.extend_from_slice(&chunk);
            line.push(data(&chunk), now);
            now += Duration::from_millis(*pause);
            line.advance(now);
            got.extend(drain(&mut line));
        }
        line.push(Item::End(End::Fin), now);
        for fault in &faults {
            if matches!(fault.fault, RelayFault::Blackhole { .. }) {
                ended(fault);
            }
        }
        line.refit(&[], now);
        got.extend(run(&mut line, now).0);
        prop_assert_eq!(got, sent);
        prop_assert_eq!(line.end(), Some(End::Fin));
    }
}
