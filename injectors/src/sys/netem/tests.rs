//! Options against the bytes that `tc` sends, and back.

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn chance(share: f64, correlation: f64) -> Chance {
    Chance { share, correlation }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Options, and what `tc` (iproute2 6.1.0) sends for them, seen with strace on a little-endian machine. Tables are
/// left out: they are compared by themselves.
fn golden() -> Vec<(&'static str, Netem, &'static str)> {
    let everything = Netem {
        delay: Some(Delay { delay: ms(100), jitter: ms(10), correlation: 0.25, shape: None }),
        loss: Some(Loss::Random(chance(0.02, 0.10))),
        duplicate: Some(chance(0.03, 0.05)),
        corrupt: Some(chance(0.01, 0.02)),
        reorder: Some(Reorder { chance: chance(0.05, 0.50), gap: 5 }),
        rate: Some(Rate { bytes: 1_250_000, overhead: 20 }),
        ..Netem::default()
    };
    let lost = |loss| Netem { loss: Some(loss), ..Netem::default() };
    let bursts = Loss::GilbertElliott { to_bad: 0.01, to_good: 0.10, in_bad: 0.70, in_good: 0.001 };
    let states = Loss::FourState { p13: 0.01, p31: 0.20, p32: 0.30, p23: 0.40, p14: 0.05 };
    let fast = Netem {
        delay: Some(Delay { delay: ms(10_000), ..Delay::default() }),
        rate: Some(Rate { bytes: 12_500_000_000, overhead: 0 }),
        ..Netem::default()
    };
    vec![
        (
            "delay 100ms 10ms 25% loss random 2% 10% duplicate 3% 5% corrupt 1% 2% reorder 5% 50% gap 5 rate 10mbit 20",
            everything,
            "84d71700 e8030000 52b81e05 05000000 7b14ae07 5a620200  1000 0100 00000040 9a999919 cdcccc0c \
             0c00 0300 cdcccc0c 00000080  0c00 0400 295c8f02 52b81e05  1400 0600 d0121300 14000000 00000000 00000000",
        ),
        (
            "loss gemodel 1% 10% 70% 0.1%",
            lost(bursts),
            "00000000 e8030000 00000000 00000000 00000000 00000000  1800 0580 1400 0200 295c8f02 9a999919 cdcccc4c \
             37894100",
        ),
        (
            "loss state 1% 20% 30% 40% 5%",
            lost(states),
            "00000000 e8030000 00000000 00000000 00000000 00000000  1c00 0580 1800 0100 295c8f02 33333333 cccccc4c \
             cdcccc0c 66666666",
        ),
        (
            "delay 10s rate 100gbit",
            fast,
            "902f5009 e8030000 00000000 00000000 00000000 00000000  0c00 0800 00dd0ee9 02000000  \
             1400 0600 ffffffff 00000000 00000000 00000000",
        ),
    ]
}

#[test]
fn the_bytes_are_those_that_tc_sends() {
    for (name, netem, sent) in golden() {
        assert_eq!(netem.encode(), hex(sent), "{name}");
    }
}

#[test]
fn a_shape_is_one_table_of_4096_values() {
    let delay = Delay { delay: ms(1), jitter: ms(1), correlation: 0.0, shape: Some(Shape::Normal) };
    let bytes = Netem { delay: Some(delay), ..Netem::default() }.encode();
    assert_eq!(bytes.len(), 24 + 4 + 8192);
    assert_eq!(bytes[24..28], [0x04, 0x20, 0x02, 0x00]);
    assert_eq!(bytes[28..30], i16::MIN.to_ne_bytes());
}

#[test]
fn bytes_that_are_too_short_are_unreadable() {
    let (_, netem, _) = golden().remove(0);
    let whole = netem.encode();
    assert_eq!(Netem::decode(&[]), Err(Unreadable));
    for length in 0..whole.len() {
        // What ends between attributes is shorter, not broken; nothing may panic.
        let _ = Netem::decode(&whole[..length]);
    }
    assert_eq!(Netem::decode(&whole[..26]), Err(Unreadable));
    let mut lying = whole;
    lying[24] = 200;
    assert_eq!(Netem::decode(&lying), Err(Unreadable));
}

fn some_chance() -> impl Strategy<Value = Chance> {
    (1e-6..=1.0f64, prop_oneof![Just(0.0), 0.01..=1.0f64])
        .prop_map(|(share, correlation)| Chance { share, correlation })
}

fn some_loss() -> impl Strategy<Value = Loss> {
    let p = || 0.0..=1.0f64;
    prop_oneof![
        some_chance().prop_map(Loss::Random),
        (p(), p(), p(), p()).prop_map(|(to_bad, to_good, in_bad, in_good)| Loss::GilbertElliott {
            to_bad,
            to_good,
            in_bad,
            in_good
        }),
        (p(), p(), p(), p(), p()).prop_map(|(p13, p31, p32, p23, p14)| Loss::FourState {
            p13,
            p31,
            p32,
            p23,
            p14
        }),
    ]
}

fn some_netem() -> impl Strategy<Value = Netem> {
    use proptest::option::of;

    let times = (1u64..=7 * 86_400 * 1_000_000, 0u64..=3_600 * 1_000_000);
    let delay = (times, 0.0..=1.0f64).prop_map(|((delay, jitter), correlation)| Delay {
        delay: Duration::from_micros(delay),
        jitter: Duration::from_micros(jitter),
        correlation,
        shape: None,
    });
    let reorder = (some_chance(), 1u32..1000).prop_map(|(chance, gap)| Reorder { chance, gap });
    let rate = (1u64..=100_000_000_000, -64i32..=64).prop_map(|(bytes, overhead)| Rate { bytes, overhead });
    (1u32..100_000, of(delay), of(some_loss()), of(some_chance()), of(some_chance()), of(reorder), of(rate))
        .prop_map(|(limit, delay, loss, duplicate, corrupt, reorder, rate)| Netem {
            limit,
            delay,
            loss,
            duplicate,
            corrupt,
            reorder,
            rate,
            seed: None,
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(netem in some_netem()) {
        let once = Netem::decode(&netem.encode()).unwrap();
        // Times are rounded down to ticks and shares to fractions once; after that nothing changes any more.
        prop_assert_eq!(Netem::decode(&once.encode()).unwrap(), once);
        prop_assert_eq!(once.limit, netem.limit);
        prop_assert_eq!(once.rate, netem.rate);
        if let (Some(read), Some(written)) = (once.delay, netem.delay) {
            prop_assert!(written.delay.saturating_sub(read.delay) < Duration::from_nanos(64));
            prop_assert!((written.correlation - read.correlation).abs() < 1e-9);
        } else {
            prop_assert_eq!(once.delay.is_some(), netem.delay.is_some());
        }
        prop_assert_eq!(once.reorder.map(|r| r.gap), netem.reorder.map(|r| r.gap));
        prop_assert_eq!(once.duplicate.is_some(), netem.duplicate.is_some());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Netem::decode(&bytes);
    }
}
