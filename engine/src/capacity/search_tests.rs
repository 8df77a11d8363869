//! Searches against targets of known capacity, on a simulated clock.

use super::simulated_tests::{Target, goal, search};
use super::*;

#[test]
fn the_truth_lies_in_the_interval_about_as_often_as_it_says() {
    for (noise, disturbed) in [(0.005, 0.0), (0.02, 0.05)] {
        let (mut covered, mut took, mut off) = (0, Vec::new(), Vec::new());
        for seed in 0..20 {
            let mut target = Target::new(seed, noise, disturbed);
            let found = search(&mut target, goal()).finding();
            assert_eq!(found.limited_by, LimitedBy::Target, "{seed}: {found:?}");
            let (low, high) = (found.low.unwrap(), found.high.unwrap());
            assert!(high / low - 1.0 <= 0.05);
            covered += u32::from((low..=high).contains(&target.capacity));
            off.push((found.capacity.unwrap() / target.capacity - 1.0).abs());
            took.push(found.took_s);
        }
        took.sort_by(f64::total_cmp);
        off.sort_by(f64::total_cmp);
        assert!(covered >= 17, "{covered} of 20 with noise {noise}");
        assert!(took[10] <= 180.0, "{took:?}");
        assert!(off[18] < 0.05, "{off:?}");
    }
}

#[test]
fn no_trial_is_far_above_what_has_passed() {
    for seed in 0..20 {
        let mut target = Target::new(seed, 0.02, 0.1);
        let search = search(&mut target, goal());
        let mut highest: f64 = 0.0;
        for trial in search.trials() {
            assert!(trial.rate <= (CLIMB * highest).max(goal().start) * 1.001, "{seed}: {trial:?}");
            if trial.passed() == Some(true) {
                highest = highest.max(trial.rate);
            }
        }
    }
}

#[test]
fn a_search_that_is_resumed_goes_on_where_it_was() {
    let mut target = Target::new(3, 0.02, 0.05);
    let whole = search(&mut target, goal());
    for cut in [1, 5, whole.trials().len() - 1] {
        let mut resumed = Search::new(goal(), whole.trials()[..cut].to_vec());
        for trial in &whole.trials()[cut..] {
            let Step::Try { rate, seconds, .. } = resumed.next() else { panic!("it ends early") };
            assert_eq!((rate, seconds), (trial.rate, trial.seconds));
            resumed.learn(trial.clone());
        }
        assert_eq!(resumed.next(), Step::Done);
        assert_eq!(resumed.finding(), whole.finding());
    }
}

#[test]
fn a_search_whose_time_was_up_has_its_time_again_when_it_is_resumed() {
    let short = Goal { within_s: 30.0, ..goal() };
    let mut target = Target::new(3, 0.0, 0.0);
    let first = search(&mut target, short.clone());
    assert_eq!(first.next(), Step::Done);
    let resumed = Search::new(short, first.trials().to_vec());
    assert!(matches!(resumed.next(), Step::Try { .. }));
}

#[test]
fn a_search_that_the_generator_has_ended_goes_on_when_it_is_resumed() {
    let trial = |rate, answer| Trial { purpose: Purpose::Bracket, ..Trial::new(rate, 3.0, answer) };
    let late = || Answer::Invalid { why: "late".to_owned() };
    let trials = vec![trial(50.0, Answer::Passed), trial(100.0, late()), trial(100.0, late())];
    let mut search = Search::new(goal(), Vec::new());
    for trial in &trials {
        search.learn(trial.clone());
    }
    assert_eq!((search.next(), search.finding().limited_by), (Step::Done, LimitedBy::Generator));
    let resumed = Search::new(goal(), trials);
    assert_eq!(resumed.next(), Step::Try { purpose: Purpose::Bracket, rate: 100.0, seconds: 3.0 });
}

#[test]
fn a_generator_that_fails_when_too_much_is_offered_takes_nothing_back() {
    let mut search = Search::new(Goal { collapse: true, ..goal() }, Vec::new());
    while let Step::Try { purpose, rate, seconds } = search.next() {
        let answer = match purpose {
            Purpose::Overload | Purpose::Return => Answer::Invalid { why: "late".to_owned() },
            _ if rate > 700.0 => Answer::failed("p99"),
            _ => Answer::Passed,
        };
        search.learn(Trial { purpose, ..Trial::new(rate, seconds, answer) });
    }
    assert_eq!(search.finding().limited_by, LimitedBy::Target);
}

#[test]
fn each_limit_has_its_name() {
    let ends = |goal: Goal, answer: &dyn Fn(f64) -> Answer| {
        let mut search = Search::new(goal, Vec::new());
        for _ in 0..200 {
            let Step::Try { purpose, rate, seconds } = search.next() else { return search.finding() };
            search.learn(Trial { purpose, ..Trial::new(rate, seconds, answer(rate)) });
        }
        panic!("it never ends");
    };
    let found = ends(Goal { max: 5000.0, ..goal() }, &|_| Answer::Passed);
    assert_eq!((found.limited_by, found.low, found.capacity), (LimitedBy::Maximum, Some(5000.0), None));
    let late = |rate| if rate > 700.0 { Answer::Invalid { why: "late".to_owned() } } else { Answer::Passed };
    let found = ends(goal(), &late);
    assert_eq!(
        (found.limited_by, found.low, found.why.as_str()),
        (LimitedBy::Generator, Some(400.0), "late")
    );
    let found = ends(goal(), &|_| Answer::failed("availability"));
    assert_eq!(
        (found.limited_by, found.low, found.fails_first.as_deref()),
        (LimitedBy::Target, None, Some("availability"))
    );
    assert!(found.why.starts_with("not even 1.0/s"), "{found:?}");
    let known = |rate| if rate > 700.0 { Answer::failed("p99") } else { Answer::Passed };
    let found = ends(Goal { within_s: 30.0, ..goal() }, &known);
    assert_eq!(found.limited_by, LimitedBy::Undecided);
    assert!(found.why.contains("time was up"), "{found:?}");
}

#[test]
fn a_target_that_always_fails_is_known_after_a_few_trials() {
    let rates = |good_per_s: f64| {
        let mut search = Search::new(goal(), Vec::new());
        let mut rates = Vec::new();
        while let Step::Try { purpose, rate, seconds } = search.next() {
            let errors = [("status".to_owned(), 20)].into();
            let seen = Seen { due: 20, good_per_s, errors, statuses: [(500, 20)].into(), ..Seen::default() };
            rates.push(rate);
            search.learn(Trial {
                purpose,
                seen,
                ..Trial::new(rate, seconds, Answer::failed("availability"))
            });
        }
        (rates, search.finding())
    };
    // Without one good answer the rate is hardly to blame; with some it may be.
    let (none, found) = rates(0.0);
    assert_eq!((none, found.limited_by), (vec![50.0, 1.0], LimitedBy::Target));
    assert_eq!(found.why, "not even 1.0/s is carried: availability (20 × status (500))");
    assert_eq!(rates(3.0).0, [50.0, 25.0, 6.25, 1.0, 1.0]);
}

#[test]
fn a_capacity_far_below_the_first_rate_is_found_all_the_same() {
    for capacity in [3.0, 11.0, 40.0] {
        let mut search = Search::new(goal(), Vec::new());
        while let Step::Try { purpose, rate, seconds } = search.next() {
            let answer = if rate <= capacity { Answer::Passed } else { Answer::failed("p99") };
            // A queue that never ends: not one answer in time.
            search.learn(Trial {
                purpose,
                seen: Seen { due: 100, ..Seen::default() },
                ..Trial::new(rate, seconds, answer)
            });
        }
        let found = search.finding();
        assert!((found.capacity.unwrap() / capacity - 1.0).abs() < 0.05, "{found:?}");
        assert!(search.trials().len() < 40, "{}", search.trials().len());
    }
}

#[test]
fn a_target_that_stands_no_long_trial_has_no_capacity_that_could_be_named() {
    let mut search = Search::new(goal(), Vec::new());
    while let Step::Try { purpose, rate, seconds } = search.next() {
        let answer = match purpose {
            Purpose::Confirm => Answer::failed("p99"),
            _ if rate > 700.0 => Answer::failed("p99"),
            _ => Answer::Passed,
        };
        search.learn(Trial { purpose, ..Trial::new(rate, seconds, answer) });
    }
    let found = search.finding();
    assert_eq!((found.limited_by, found.confirmed), (LimitedBy::Undecided, false), "{found:?}");
}

#[test]
fn too_much_is_offered_at_the_end_and_less_and_less_until_it_recovers() {
    // Once it has had too much, it carries half.
    let mut broken = false;
    let mut search = Search::new(Goal { collapse: true, ..goal() }, Vec::new());
    while let Step::Try { purpose, rate, seconds } = search.next() {
        broken |= purpose == Purpose::Overload;
        let carries = if broken { 510.0 } else { 1000.0 };
        let answer = if rate <= carries { Answer::Passed } else { Answer::failed("p99") };
        let seen = Seen { good_per_s: rate.min(carries), ..Seen::default() };
        search.learn(Trial { purpose, seen, ..Trial::new(rate, seconds, answer) });
    }
    let found = search.finding();
    let collapse = found.collapse.unwrap();
    assert!((found.capacity.unwrap() / 1000.0 - 1.0).abs() < 0.05);
    assert!(collapse.offered > 1250.0 && collapse.good_per_s < 520.0);
    assert!((collapse.recovered_at.unwrap() / 500.0 - 1.0).abs() < 0.05, "{collapse:?}");
}

/// Searches where a trial with twice the threads, and one after it, carry so much.
fn proven(twice: f64, afterwards: f64) -> Search {
    let mut search = Search::new(Goal { prove: true, collapse: true, ..goal() }, Vec::new());
    while let Step::Try { purpose, rate, seconds } = search.next() {
        let carries = match purpose {
            Purpose::Proof => twice,
            Purpose::Repeat => afterwards,
            _ => 1000.0,
        };
        let answer = if rate <= carries { Answer::Passed } else { Answer::failed("p99") };
        search.learn(Trial { purpose, ..Trial::new(rate, seconds, answer) });
    }
    search
}

#[test]
fn twice_the_threads_prove_whose_limit_it_was() {
    let count = |search: &Search, purpose| search.trials().iter().filter(|t| t.purpose == purpose).count();
    let target = proven(1000.0, 1000.0);
    let found = target.finding();
    let proof = found.proof.unwrap();
    assert_eq!(
        (found.limited_by, proof.carried, proof.carried_before),
        (LimitedBy::Target, Some(false), None)
    );
    assert!(proof.rate >= found.high.unwrap() * 1.05 && found.collapse.is_some(), "{proof:?}");
    assert_eq!((count(&target, Purpose::Proof), count(&target, Purpose::Repeat)), (1, 0));

    let generator = proven(3000.0, 1000.0);
    let found = generator.finding();
    assert_eq!(found.limited_by, LimitedBy::Generator, "{found:?}");
    assert!(found.why.contains("twice the threads") && found.capacity.is_none(), "{found:?}");
    assert!((found.low.unwrap() / 1000.0 - 1.0).abs() < 0.05, "what was carried was carried: {found:?}");
    assert_eq!((count(&generator, Purpose::Overload), count(&generator, Purpose::Repeat)), (0, 1));

    let better = proven(3000.0, 3000.0).finding();
    assert_eq!(better.limited_by, LimitedBy::Undecided, "the target has changed: {better:?}");
}

#[test]
fn a_proof_is_made_where_nothing_far_enough_has_failed() {
    // Climbing from 300 by doubling, 600 fails; a wide interval ends above 500, so 600 is not far beyond it.
    let (width, start) = (0.2, 300.0);
    for max in [10_000.0, 610.0] {
        let goal = Goal { prove: true, width, start, max, ..goal() };
        let mut search = Search::new(goal, Vec::new());
        while let Step::Try { purpose, rate, seconds } = search.next() {
            let answer = if rate <= 500.0 { Answer::Passed } else { Answer::failed("p99") };
            search.learn(Trial { purpose, ..Trial::new(rate, seconds, answer) });
        }
        let found = search.finding();
        let proof = found.proof.unwrap_or_else(|| panic!("no proof up to {max}"));
        assert!(proof.carried == Some(false) && proof.rate <= max, "{proof:?}");
        assert!(proof.rate >= found.high.unwrap() * 1.19 || max == 610.0, "{proof:?}");
    }
}

#[test]
fn the_most_that_the_generator_can_send_is_no_maximum_of_the_user() {
    let mut search = Search::new(Goal { max: 5000.0, at_generator: true, ..goal() }, Vec::new());
    while let Step::Try { purpose, rate, seconds } = search.next() {
        search.learn(Trial { purpose, ..Trial::new(rate, seconds, Answer::Passed) });
    }
    let found = search.finding();
    assert_eq!((found.limited_by, found.low), (LimitedBy::Generator, Some(5000.0)));
}

#[test]
fn few_requests_make_trials_longer_within_a_bound() {
    let few = Goal { start: 10.0, requests: 1000.0, ..goal() };
    let Step::Try { seconds, .. } = Search::new(few, Vec::new()).next() else { panic!("nothing to do") };
    assert_eq!(seconds, 18.0, "a hundred would be needed, six times as long is the most");
}
