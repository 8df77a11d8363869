//! Laws of counting: nothing is lost, everything is bounded.

use std::sync::mpsc::sync_channel;

use super::*;

fn ok(pop: &str) -> Ending<'_> {
    Ending {
        failure: None,
        status: Some(200),
        pop: Some(pop.as_bytes()),
        path: None,
        sent: true,
        late: false,
        taken_on: None,
    }
}

fn job(phase: Phase) -> Job {
    Job { due: 0, kind: 0, phase, number: 0, again: 0, handed: false, placed: 0 }
}

#[test]
fn names_and_codes_beyond_their_bounds_are_counted_together() {
    let (out, slices) = sync_channel(1);
    let mut recorder = Recorder::new(0, &[1], out);
    for i in 0..100u16 {
        let ending = Ending { status: Some(200 + i), ..ok("") };
        let name = format!("pop{i}");
        recorder.ended(
            0,
            &job(Phase::Baseline),
            Phase::Baseline,
            0,
            &Ending { pop: Some(name.as_bytes()), ..ending },
        );
    }
    recorder.close(1, 0);
    let last = slices.recv().unwrap();
    let totals = last.totals;
    let phase = totals[0][Phase::Baseline as usize].as_ref().unwrap();
    assert_eq!(phase.by_pop.len(), POPS_MAX + 1);
    let other = phase.by_pop.iter().find(|(name, _)| &**name == OTHER).unwrap();
    assert_eq!(other.1.ok, 100 - POPS_MAX as u64);
    assert_eq!(phase.statuses.len(), STATUSES_MAX + 1);
    assert_eq!(phase.statuses.iter().map(|(_, n)| n).sum::<u64>(), 100);
}

#[test]
fn answers_are_counted_for_each_instance_that_served_them() {
    let (out, slices) = sync_channel(1);
    let mut recorder = Recorder::new(0, &[1], out);
    let mut see = |path: &str| {
        let ending = Ending { path: Some(path.as_bytes()), ..ok("a") };
        recorder.ended(0, &job(Phase::Baseline), Phase::Baseline, 0, &ending);
    };
    for path in ["edge,auth", "edge, catalog", "edge", "", "e\u{fc},edge"] {
        see(path);
    }
    (0..300).for_each(|i| see(&format!("n{i}")));
    recorder.close(1, 0);
    let totals = slices.recv().unwrap().totals;
    let served = &totals[0][Phase::Baseline as usize].as_ref().unwrap().by_instance;
    let of = |wanted: &str| served.iter().find(|(name, _)| &**name == wanted).map(|(_, count)| *count);
    assert_eq!((of("edge"), of("auth"), of("catalog")), (Some(4), Some(1), Some(1)));
    assert_eq!(served.len(), INSTANCES_MAX + 1, "names are bounded");
    assert_eq!(of(OTHER), Some(2 + 303 - INSTANCES_MAX as u64));
}

#[test]
fn a_slice_that_finds_no_room_grows_instead_of_getting_lost() {
    let (out, slices) = sync_channel(1);
    let mut recorder = Recorder::new(0, &[1], out);
    for second in 0..5 {
        recorder.ended(0, &job(Phase::Fault), Phase::Fault, 0, &ok("a"));
        recorder.roll((second + 1) * SECOND, 0);
    }
    let count = |slice: &Slice| slice.loads[0][Phase::Fault as usize].as_ref().map_or(0, |p| p.all.ok);
    let first = slices.recv().unwrap();
    assert_eq!((first.second, count(&first)), (0, 1));
    recorder.roll(6 * SECOND, 0);
    let second = slices.recv().unwrap();
    assert_eq!((second.second, count(&second)), (1, 4));
    assert_eq!(second.loads[0][Phase::Fault as usize].as_ref().unwrap().by_pop[0].1, 4);
}

#[test]
fn sums_that_come_in_parts_are_the_same_sums() {
    let (out, slices) = sync_channel(1);
    let mut recorder = Recorder::new(0, &[1], out).telling_all();
    let (mut statuses, mut served) = (0, 0);
    let mut hear = |slice: Slice| {
        let phase = slice.totals.first().and_then(|phases| phases[Phase::Fault as usize].as_ref());
        statuses += phase.map_or(0, |phase| phase.statuses.iter().map(|(_, n)| n).sum::<u64>());
        served += phase.map_or(0, |phase| phase.by_pop.iter().map(|(_, tally)| tally.ok).sum::<u64>());
    };
    for second in 0..6 {
        recorder.ended(0, &job(Phase::Fault), Phase::Fault, 0, &ok("a"));
        recorder.roll((second + 1) * SECOND, 0);
        // It finds no room in between.
        if second % 3 == 0 {
            hear(slices.recv().unwrap());
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| slices.into_iter().for_each(&mut hear));
        // Here, since it counts the CPU time of its thread.
        recorder.close(7 * SECOND, 0);
    });
    assert_eq!((statuses, served), (6, 6));
}

#[test]
fn latencies_are_of_good_answers_and_deadline_misses_only() {
    let mut tally = Tally::default();
    tally.count(None, 10);
    for class in ErrorClass::ALL {
        tally.count(Some(class), 20);
    }
    assert_eq!(tally.latencies.count(), 2);
    assert_eq!(tally.ended(), 12);
}
