//! Slices on the way, and what no worker may say.

use std::sync::mpsc::sync_channel;

use proptest::prelude::*;

use super::*;
use crate::load::lane;
use crate::load::tally::{Ending, Recorder};

fn bounds() -> Bounds {
    Bounds { first: 3, threads: 2, kinds: vec![1, 2] }
}

/// What a recorder of thread 4 has seen.
fn recorded(ends: &[(usize, u16, u64, bool)]) -> Slice {
    let (out, slices) = sync_channel(1);
    let mut recorder = Recorder::new(4, &bounds().kinds, out);
    for (load, kind, us, good) in ends {
        let job = lane::Job {
            due: 0,
            kind: *kind,
            phase: Phase::Fault,
            number: 0,
            again: 0,
            handed: false,
            placed: 0,
        };
        let ending = Ending {
            failure: (!good).then_some(ErrorClass::Deadline),
            status: Some(200),
            pop: Some(b"fra"),
            path: Some(b"edge,auth"),
            sent: true,
            late: false,
            taken_on: Some(0),
        };
        recorder.due(*load, Phase::Fault, *us);
        recorder.ended(*load, &job, Phase::Fault, us * 1000, &ending);
    }
    recorder.close(1, 7);
    slices.recv().unwrap()
}

fn sent(slice: &Slice) -> SliceWord {
    let text = serde_json::to_string(&SliceWord::from(slice)).unwrap();
    serde_json::from_str(&text).unwrap()
}

proptest! {
    #[test]
    fn a_slice_arrives_as_it_was(ends in prop::collection::vec((0usize..2, 0u16..1, 1u64..1_000_000, any::<bool>()), 0..40)) {
        let slice = recorded(&ends);
        let back = sent(&slice).slice(&bounds()).unwrap();
        // What a word says is all that there is in a slice.
        let say = |slice: &Slice| serde_json::to_value(SliceWord::from(slice)).unwrap();
        prop_assert_eq!(say(&back), say(&slice));
        prop_assert_eq!(back.lag.quantile(0.9), slice.lag.quantile(0.9));
    }
}

#[test]
fn what_no_worker_may_say_is_not_believed() {
    let good = || sent(&recorded(&[(1, 1, 500, true), (0, 0, 700, false)]));
    assert!(good().slice(&bounds()).is_ok());
    let refuses = |change: &dyn Fn(&mut SliceWord), says: &str| {
        let mut word = good();
        change(&mut word);
        let why = word.slice(&bounds()).unwrap_err();
        assert!(why.contains(says), "{why}");
    };
    refuses(&|word| word.worker = 5, "thread 5");
    refuses(&|word| word.worker = 2, "thread 2");
    refuses(&|word| word.second = u64::MAX, "second");
    refuses(&|word| word.phases[0].0 = 2, "load 2");
    refuses(&|word| word.phases[0].1 = 5, "phase 5");
    refuses(&|word| word.connections = u64::MAX, "count");
    refuses(&|word| word.phases[0].2.all.ok = u64::MAX, "count");
    refuses(&|word| word.lag = "not base64!".to_owned(), "unreadable");
    refuses(&|word| word.phases[0].2.pops = vec![("\u{1b}[2J".to_owned(), 1)], "name");
    refuses(&|word| word.phases[0].2.pops = vec![("a".to_owned(), 1); 100], "more names");
    refuses(&|word| word.phases[0].2.all.errors = [("bad luck".to_owned(), 1)].into(), "class");
    let last = |change: &dyn Fn(&mut TotalsWord), says: &str| {
        refuses(&|word| change(&mut word.totals[0].2), says);
    };
    last(&|totals| totals.service = vec![None, None, None], "kinds");
    last(&|totals| totals.statuses = vec![(200, 1); 40], "statuses");
    last(&|totals| totals.causes = vec![("bad luck".to_owned(), "none".to_owned())], "class");
    last(&|totals| totals.instances = vec![("x".repeat(65), 1)], "name");
}

#[test]
fn a_cause_is_one_short_line() {
    let mut word = sent(&recorded(&[(0, 0, 700, false)]));
    word.totals[0].2.causes = vec![("tls".to_owned(), "a\n\u{1b}[2J".repeat(100))];
    let slice = word.slice(&bounds()).unwrap();
    let cause = &slice.totals[0][Phase::Fault as usize].as_ref().unwrap().causes[0].1;
    assert!(cause.chars().count() == 160 && !cause.contains(char::is_control), "{cause:?}");
}

#[test]
fn an_unknown_word_is_no_word() {
    for text in [r#"{"word":"stop","now":true,"and":1}"#, r#"{"word":"dance"}"#, "[]", r#"{"word":"stop"}"#] {
        assert!(serde_json::from_str::<Order>(text).is_err(), "{text}");
    }
    assert!(matches!(serde_json::from_str(r#"{"word":"stop","now":true}"#), Ok(Order::Stop { now: true })));
}
