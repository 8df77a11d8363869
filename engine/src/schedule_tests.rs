//! Laws of arrival schedules.

use proptest::prelude::*;

use super::*;

fn secs(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

fn segment() -> impl Strategy<Value = Segment> {
    let rate = || 0.0..2000.0f64;
    let time = || (0.01..20.0f64).prop_map(secs);
    prop_oneof![
        (rate(), time()).prop_map(|(rate, lasting)| Segment::Hold { rate, lasting }),
        (rate(), rate(), time()).prop_map(|(from, to, over)| Segment::Ramp { from, to, over }),
        (rate(), time()).prop_map(|(from, over)| Segment::Ramp { from, to: 0.0, over }),
        time().prop_map(|lasting| Segment::Hold { rate: 0.0, lasting }),
        (rate(), rate(), 1..9u32, time()).prop_map(|(from, to, count, each)| Segment::Steps {
            from,
            to,
            count,
            each
        }),
        (rate(), rate(), time(), time(), time()).prop_map(|(base, peak, at, lasting, rest)| Segment::Spike {
            base,
            peak,
            at,
            lasting,
            total: at + lasting + rest
        }),
        (rate(), 0.0..=1.0f64, time(), time()).prop_map(|(mean, share, period, lasting)| Segment::Sine {
            mean,
            amplitude: mean * share,
            period,
            lasting
        }),
    ]
}

fn profile() -> impl Strategy<Value = Profile> {
    prop::collection::vec(segment(), 1..5).prop_filter_map("has arrivals", |s| Profile::new(s).ok())
}

proptest! {
    #[test]
    fn the_count_at_the_due_time_of_n_is_n(profile in profile(), share in 0.0..1.0f64) {
        let n = share * profile.total() * 0.999_999;
        let due = profile.due(n).unwrap();
        prop_assert!((profile.expected(due) - n).abs() <= 1e-5 * n.max(1.0), "N({due}) = {} for {n}", profile.expected(due));
    }

    #[test]
    fn counts_grow_and_follow_the_rate(profile in profile(), share in 0.0..1.0f64) {
        let t = share * profile.duration().as_secs_f64();
        let step = 1e-4;
        let grown = profile.expected(t + step) - profile.expected(t);
        prop_assert!(grown >= -1e-9);
        prop_assert!(grown <= profile.peak() * step + 1e-6);
        prop_assert!(profile.rate_at(t) <= profile.peak() + 1e-9);
    }

    #[test]
    fn the_workers_streams_together_are_the_single_stream(profile in profile(), workers in 1..7u32) {
        let single: Vec<u64> = Arrivals::even(&profile, 0, 1).collect();
        let mut merged: Vec<u64> = (0..workers).flat_map(|k| Arrivals::even(&profile, k, workers)).collect();
        merged.sort_unstable();
        prop_assert_eq!(single.len() as f64, (profile.total() - super::arrivals::TINY).ceil());
        prop_assert_eq!(single, merged);
    }

    #[test]
    fn even_arrivals_never_exceed_the_rate(profile in profile()) {
        let dues: Vec<u64> = Arrivals::even(&profile, 0, 1).collect();
        for (i, due) in dues.iter().enumerate() {
            let expected = profile.expected(*due as f64 / 1e9 + 2e-9);
            prop_assert!(i as f64 <= expected + 1e-4 * expected.max(1.0).sqrt(), "arrival {i} at {due} ns, expected {expected}");
        }
        prop_assert!(dues.is_sorted());
    }

    #[test]
    fn no_arrival_falls_into_a_pause(rate in 1.0..1000.0f64) {
        let profile = Profile::new(vec![
            Segment::Hold { rate: 0.0, lasting: secs(3.0) },
            Segment::Hold { rate, lasting: secs(1.0) },
            Segment::Hold { rate: 0.0, lasting: secs(3.0) },
        ]).unwrap();
        prop_assert!(Arrivals::even(&profile, 0, 1).all(|due| (3_000_000_000..4_000_000_000).contains(&due)));
    }

    #[test]
    fn extreme_profiles_neither_overflow_nor_yield_nonsense(
        rate in prop_oneof![Just(0.0), Just(1e-9), Just(MAX_RATE), Just(f64::MIN_POSITIVE)],
        to in prop_oneof![Just(0.0), Just(MAX_RATE), Just(1e-12)],
        lasting in prop_oneof![Just(Duration::from_nanos(1)), Just(MAX_DURATION)],
        seed in any::<u64>(),
    ) {
        if let Ok(profile) = Profile::new(vec![Segment::Ramp { from: rate, to, over: lasting }]) {
            prop_assert!(profile.total().is_finite());
            for n in [0.0, 0.5 * profile.total(), profile.total(), f64::MAX] {
                prop_assert!(profile.due(n).is_none_or(|t| (0.0..=lasting.as_secs_f64()).contains(&t)));
            }
            let limit = lasting.as_nanos() as u64;
            prop_assert!(Arrivals::even(&profile, 0, 1).take(100).all(|due| due <= limit));
            prop_assert!(Arrivals::poisson(&profile, 0, 1, seed).take(100).all(|due| due <= limit));
        }
    }
}

#[test]
fn poisson_arrivals_have_the_poisson_mean_and_variance() {
    // 40 counts per second over 2000 s, from three workers; mean 40 and variance 40 within five standard errors.
    let profile = Profile::new(vec![Segment::Hold { rate: 40.0, lasting: secs(2000.0) }]).unwrap();
    let mut counts = vec![0u32; 2000];
    for worker in 0..3 {
        for due in Arrivals::poisson(&profile, worker, 3, 7) {
            counts[(due / 1_000_000_000) as usize] += 1;
        }
    }
    let mean = counts.iter().map(|c| f64::from(*c)).sum::<f64>() / 2000.0;
    let variance = counts.iter().map(|c| (f64::from(*c) - mean).powi(2)).sum::<f64>() / 1999.0;
    assert!((mean - 40.0).abs() < 5.0 * (40.0f64 / 2000.0).sqrt(), "mean {mean}");
    assert!((variance - 40.0).abs() < 5.0 * 40.0 * (2.0f64 / 2000.0).sqrt(), "variance {variance}");
}

#[test]
fn poisson_arrivals_follow_a_ramp() {
    let profile = Profile::new(vec![Segment::Ramp { from: 0.0, to: 2000.0, over: secs(20.0) }]).unwrap();
    let dues: Vec<u64> = Arrivals::poisson(&profile, 0, 1, 3).collect();
    let first_half = dues.iter().filter(|due| **due < 10_000_000_000).count() as f64;
    assert!((first_half - 5_000.0).abs() < 5.0 * 5_000.0f64.sqrt(), "{first_half} in the first half");
    assert!((dues.len() as f64 - 20_000.0).abs() < 5.0 * 20_000.0f64.sqrt());
}

#[test]
fn the_same_seed_gives_the_same_arrivals_and_another_does_not() {
    let profile = Profile::new(vec![Segment::Hold { rate: 100.0, lasting: secs(1.0) }]).unwrap();
    let dues = |seed| Arrivals::poisson(&profile, 0, 1, seed).collect::<Vec<_>>();
    assert_eq!(dues(1), dues(1));
    assert_ne!(dues(1), dues(2));
}

#[test]
fn ten_per_second_are_due_every_hundred_milliseconds() {
    let profile = Profile::new(vec![Segment::Hold { rate: 10.0, lasting: secs(1.0) }]).unwrap();
    let dues: Vec<u64> = Arrivals::even(&profile, 0, 1).map(|ns| ns / 1_000_000).collect();
    assert_eq!(dues, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
}

#[test]
fn nonsense_is_refused() {
    let new = |s| Profile::new(vec![s]).unwrap_err();
    let second = secs(1.0);
    assert_eq!(Profile::new(vec![]).unwrap_err(), ProfileError::Empty);
    assert_eq!(new(Segment::Hold { rate: 0.0, lasting: second }), ProfileError::Empty);
    assert_eq!(new(Segment::Hold { rate: -1.0, lasting: second }), ProfileError::Rate);
    assert_eq!(new(Segment::Hold { rate: f64::NAN, lasting: second }), ProfileError::Rate);
    assert_eq!(new(Segment::Ramp { from: 1.0, to: f64::INFINITY, over: second }), ProfileError::Rate);
    assert_eq!(new(Segment::Hold { rate: 1.0, lasting: Duration::ZERO }), ProfileError::Length);
    assert_eq!(new(Segment::Hold { rate: 1.0, lasting: Duration::MAX }), ProfileError::Length);
    let steps = Segment::Steps { from: 1.0, to: 2.0, count: u32::MAX, each: second };
    assert_eq!(new(steps), ProfileError::TooMany);
    let sine = |amplitude, period| Segment::Sine { mean: 1.0, amplitude, period, lasting: second };
    assert_eq!(new(sine(2.0, second)), ProfileError::Amplitude);
    assert_eq!(new(sine(1.0, Duration::ZERO)), ProfileError::Length);
    let spike = |at| Segment::Spike { base: 1.0, peak: 2.0, at, lasting: second, total: second };
    assert_eq!(new(spike(second)), ProfileError::Spike);
    assert_eq!(new(spike(Duration::MAX)), ProfileError::Spike);
}

#[test]
fn known_arrivals_keep_their_times_and_are_shared_by_the_workers() {
    let times: Vec<u64> = (0..1000u64).map(|n| n * n * 5_000).collect();
    let profile = Profile::trace(times.iter().rev().copied().collect()).unwrap();
    for workers in [1, 3, 4] {
        let mut merged: Vec<u64> = (0..workers)
            .flat_map(|worker| Arrivals::even(&profile, worker, workers).collect::<Vec<_>>())
            .collect();
        let second: Vec<u64> = Arrivals::even(&profile, 1 % workers, workers).take(2).collect();
        assert_eq!(second, [times[1 % workers as usize], times[(1 % workers + workers) as usize]]);
        merged.sort_unstable();
        assert_eq!(merged, times);
    }
    assert_eq!(profile.total().round() as usize, 1000);
    assert_eq!(profile.expected(f64::MAX).round() as usize, 1000);
    assert!((profile.duration().as_secs_f64() - 4.991).abs() < 0.01);
    assert!(profile.rate_at(0.5) > profile.rate_at(4.5), "the rates are those of the arrivals");
    assert!(profile.peak() >= profile.rate_at(0.5));
    assert_eq!(Profile::trace(Vec::new()), Err(ProfileError::Empty));
    assert_eq!(Profile::trace(vec![u64::MAX]), Err(ProfileError::Length));
    let burst = Profile::trace(vec![0; 10]).unwrap();
    assert_eq!(Arrivals::even(&burst, 0, 2).collect::<Vec<_>>(), [0; 5]);
    assert_eq!(burst.duration(), Duration::from_secs(1));
    let long = Profile::trace((0..20_000).map(|n| n * 1_000_000_000 * 5).collect()).unwrap();
    assert_eq!(long.total().round() as usize, 20_000);
    assert!((long.expected(50_000.0) - 10_000.0).abs() < 3.0);
}

proptest! {
    #[test]
    fn leaving_out_arrivals_is_the_same_as_taking_them(
        workers in 1u32..5,
        changes in prop::collection::vec((0.1f64..2.0, prop_oneof![Just(0.0), 0.1f64..4.0]), 0..5),
        skips in prop::collection::vec(0.0f64..1.4, 1..4),
        poisson: bool,
    ) {
        let second = Duration::from_secs(1);
        let profile = Profile::new(vec![
            Segment::Ramp { from: 0.0, to: 90.0, over: 3 * second },
            Segment::Hold { rate: 0.0, lasting: second },
            Segment::Sine { mean: 50.0, amplitude: 40.0, period: second, lasting: 4 * second },
        ]).unwrap();
        let (mut pace, mut at) = (Pace::default(), 0.0);
        for (after, factor) in changes {
            at += after;
            prop_assert!(pace.change(&profile, at, factor));
        }
        for worker in 0..workers {
            let mut arrivals = if poisson {
                Arrivals::poisson(&profile, worker, workers, 3)
            } else {
                Arrivals::even(&profile, worker, workers)
            };
            let _ = arrivals.pace(pace.clone());
            // A pause without an end never ends.
            let all: Vec<u64> = arrivals.clone().take_while(|due| *due < NEVER).collect();
            let (mut left, mut to) = (&all[..], 0.0);
            for skip in &skips {
                to += skip * 4.0;
                let until = (to * 1e9) as u64;
                let (count, next) = arrivals.skip_to(until);
                let early = left.partition_point(|due| *due < until);
                prop_assert_eq!(count, early as u64);
                prop_assert_eq!(next.filter(|due| *due < NEVER), left.get(early).copied());
                // What comes next was taken by this.
                left = &left[(early + 1).min(left.len())..];
            }
        }
    }
}
