//! The limiters: exactly their rate, each key apart, in bounded memory.

#![allow(clippy::unwrap_used, reason = "a test may")]

use bascule_policy::limit::{Algorithm, Decision, Gcra, Keyed, Quota, SlidingWindow, TokenBucket};
use bascule_policy::{Nanos, SettingError};
use proptest::prelude::*;

const SECOND: Nanos = 1_000_000_000;

fn gcra(limit: u32, period: Nanos, burst: u32, max_keys: u32) -> Keyed<Gcra> {
    Keyed::new(
        Gcra::new(Quota::new(limit, period, burst).unwrap()),
        max_keys,
    )
}

fn bucket(limit: u32, period: Nanos, burst: u32, max_keys: u32) -> Keyed<TokenBucket> {
    Keyed::new(
        TokenBucket::new(Quota::new(limit, period, burst).unwrap()).unwrap(),
        max_keys,
    )
}

fn window(limit: u32, period: Nanos, max_keys: u32) -> Keyed<SlidingWindow> {
    Keyed::new(SlidingWindow::new(limit, period).unwrap(), max_keys)
}

#[test]
fn quotas_that_allow_nothing_are_refused() {
    for (limit, period, burst) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, Nanos::MAX, 1)] {
        assert!(matches!(
            Quota::new(limit, period, burst),
            Err(SettingError(_))
        ));
        assert!(burst == 0 || SlidingWindow::new(limit, period).is_err());
    }
    let long = Quota::new(1, Nanos::MAX / 4, u32::MAX).unwrap();
    assert!(TokenBucket::new(long).is_err());
}

#[test]
fn tells_what_a_response_header_needs() {
    let mut limiter = gcra(10, SECOND, 3, 8);
    let first = limiter.handle_check("key", 2, 0);
    let expected = Decision {
        allowed: true,
        limit: 3,
        remaining: 1,
        reset_after: SECOND / 5,
        retry_after: Some(0),
    };
    assert_eq!(first, expected);
    let refused = limiter.handle_check("key", 2, 0);
    let expected = Decision {
        allowed: false,
        retry_after: Some(SECOND / 10),
        ..expected
    };
    assert_eq!(refused, expected);
    assert!(!limiter.handle_check("key", 2, SECOND / 10 - 1).allowed);
    assert!(limiter.handle_check("key", 2, SECOND / 10).allowed);
    assert_eq!(limiter.handle_check("key", 4, SECOND).retry_after, None);
}

#[test]
fn a_window_counts_as_much_of_the_one_before_as_is_still_within_a_period() {
    let mut limiter = window(10, SECOND, 8);
    // Late in a window; its units count in full when the next one begins, and a tenth less with
    // each tenth of it.
    assert!(limiter.handle_check("key", 10, SECOND - 1).allowed);
    let refused = limiter.handle_check("key", 3, SECOND - 1);
    let expected = Decision {
        allowed: false,
        limit: 10,
        remaining: 0,
        reset_after: SECOND + 1,
        retry_after: Some(SECOND / 10 * 3 + 1),
    };
    assert_eq!(refused, expected);
    let now = SECOND / 10 * 13;
    assert!(!limiter.handle_check("key", 3, now - 1).allowed);
    let taken = limiter.handle_check("key", 2, now);
    let expected = Decision {
        allowed: true,
        remaining: 1,
        // Until the window after this one has ended.
        reset_after: 3 * SECOND - now,
        retry_after: Some(0),
        ..expected
    };
    assert_eq!(taken, expected);
    // More than this window will have room for, whatever fades: in the next, where 2 count.
    let refused = limiter.handle_check("key", 9, now);
    assert_eq!(refused.retry_after, Some(5 * SECOND / 2 - now));
    assert_eq!(limiter.handle_check("key", 11, now).retry_after, None);
    assert_eq!(limiter.handle_check("key", 0, 3 * SECOND).remaining, 10);
}

#[test]
fn a_limit_spent_early_in_a_window_is_gone_for_the_rest_of_it() {
    // What GCRA with the same burst gives back at once, a window gives back when it has ended.
    let mut limiter = window(4, SECOND, 8);
    assert!(limiter.handle_check("key", 4, SECOND).allowed);
    let refused = limiter.handle_check("key", 1, SECOND);
    assert_eq!(refused.retry_after, Some(SECOND / 4 * 5));
    assert!(gcra(4, SECOND, 4, 8).handle_check("key", 4, SECOND).allowed);
}

#[test]
fn a_window_counts_the_longest_periods_and_the_latest_times() {
    let longest = Nanos::MAX / 4;
    let mut limiter = window(u32::MAX, longest, 8);
    assert!(limiter.handle_check("key", u32::MAX, 2 * longest).allowed);
    let refused = limiter.handle_check("key", 1, 2 * longest);
    assert_eq!(refused.reset_after, 2 * longest);
    let due = 2 * longest + refused.retry_after.unwrap();
    assert_eq!(due, 3 * longest + longest / Nanos::from(u32::MAX) + 1);
    assert!(!limiter.handle_check("key", 1, due - 1).allowed);
    assert!(limiter.handle_check("key", 1, due).allowed);
    assert!(!limiter.handle_check("key", u32::MAX, Nanos::MAX).allowed);
}

#[test]
fn a_cost_of_nothing_only_looks() {
    let mut limiter = gcra(1, SECOND, 1, 8);
    assert_eq!(limiter.handle_check("key", 0, 0).remaining, 1);
    assert!(limiter.is_empty());
    limiter.handle_check("key", 1, 0);
    let look = limiter.handle_check("key", 0, 0);
    assert_eq!(
        (look.allowed, look.remaining, look.reset_after),
        (true, 0, SECOND)
    );
}

#[test]
fn loses_no_fraction_of_a_rate() {
    // 3 in a second do not divide a second: over 10^9 s a rounded interval would lose or add one.
    for limiter in [
        &mut gcra(3, SECOND, 1, 8) as &mut dyn Check,
        &mut bucket(3, SECOND, 1, 8),
    ] {
        let mut now = 0;
        for _ in 0..3_000 {
            assert!(limiter.check("key", 1, now).allowed);
            now += limiter.check("key", 1, now).retry_after.unwrap();
        }
        // Rounded up to whole nanoseconds once, not 3,000 times.
        assert!(
            (1_000 * SECOND..=1_000 * SECOND + 2_000).contains(&now),
            "{now}"
        );
    }
}

#[test]
fn keys_are_apart() {
    let mut limiter = gcra(1, SECOND, 1, 8);
    assert!(limiter.handle_check("a", 1, 0).allowed);
    assert!(limiter.handle_check("b", 1, 0).allowed);
    assert!(!limiter.handle_check("a", 1, 0).allowed);
    assert_eq!(limiter.len(), 2);
}

#[test]
fn refused_strangers_are_not_remembered() {
    let mut limiter = gcra(1, SECOND, 1, 8);
    assert!(!limiter.handle_check("greedy", 2, 0).allowed);
    assert!(limiter.is_empty());
}

#[test]
fn rested_keys_are_forgotten() {
    let mut limiter = gcra(1, SECOND, 1, 1_000_000);
    for key in 0..100_000 {
        limiter.handle_check(&key.to_string(), 1, 0);
    }
    assert_eq!(limiter.len(), 100_000);
    for second in 1..=100_000 {
        limiter.handle_check("awake", 1, second * SECOND);
    }
    assert_eq!(limiter.len(), 1);
    assert_eq!(limiter.displaced(), 0);
    assert!(limiter.room() <= 1_024, "{}", limiter.room());
}

#[test]
fn only_keys_that_lose_something_count_as_displaced() {
    let mut limiter = gcra(1, SECOND, 1, 1);
    limiter.handle_check("a", 1, 0);
    limiter.handle_check("b", 1, SECOND);
    assert_eq!((limiter.len(), limiter.displaced()), (1, 0));
    limiter.handle_check("c", 1, 2 * SECOND - 1);
    assert_eq!((limiter.len(), limiter.displaced()), (1, 1));
}

#[test]
fn a_flood_of_new_keys_displaces_itself() {
    let mut limiter = gcra(1, SECOND, 100, 1_000);
    displaces_itself(&mut limiter, 0);
    assert_eq!((limiter.len(), limiter.displaced()), (1_000, 99_001));
}

#[test]
fn a_flood_of_new_keys_displaces_itself_though_all_windows_end_together() {
    let mut limiter = window(100, SECOND, 1_000);
    displaces_itself(&mut limiter, 0);
    assert_eq!((limiter.len(), limiter.displaced()), (1_000, 99_001));
    // Those of the window before end first, but a heavy one of them still holds more.
    let mut limiter = window(100, SECOND, 1_000);
    displaces_itself(&mut limiter, SECOND / 2 + 1);
}

/// One key uses all that it may; then very many others come, at another time.
fn displaces_itself(limiter: &mut impl Check, later: Nanos) {
    let now = SECOND - 1;
    for _ in 0..100 {
        assert!(limiter.check("heavy", 1, now).allowed);
    }
    for key in 0..100_000 {
        assert!(limiter.check(&key.to_string(), 1, now + later).allowed);
    }
    let left = limiter.check("heavy", 0, now + later).remaining;
    assert_eq!(left, if later == 0 { 0 } else { 50 });
}

#[test]
fn a_window_that_lies_ahead_is_waited_for() {
    let mut limiter = window(2, SECOND, 8);
    assert!(limiter.handle_check("key", 2, 10 * SECOND).allowed);
    let refused = limiter.handle_check("key", 1, SECOND);
    let expected = Decision {
        allowed: false,
        limit: 2,
        remaining: 0,
        reset_after: 11 * SECOND,
        retry_after: Some(10 * SECOND + SECOND / 2),
    };
    assert_eq!(refused, expected);
    assert!(!limiter.handle_check("key", 1, 23 * SECOND / 2 - 1).allowed);
    assert!(limiter.handle_check("key", 1, 23 * SECOND / 2).allowed);
}

#[test]
fn a_clock_that_goes_backwards_gives_nothing_away() {
    for limiter in [
        &mut gcra(1, SECOND, 2, 8) as &mut dyn Check,
        &mut bucket(1, SECOND, 2, 8),
    ] {
        assert!(limiter.check("key", 2, 10 * SECOND).allowed);
        let refused = limiter.check("key", 1, SECOND);
        assert_eq!(
            (refused.allowed, refused.retry_after),
            (false, Some(10 * SECOND))
        );
        assert!(limiter.check("key", 1, 11 * SECOND).allowed);
        assert!(!limiter.check("key", 1, 11 * SECOND).allowed);
    }
}

/// Lets one test hold limiters of all kinds.
trait Check {
    fn check(&mut self, key: &str, cost: u32, now: Nanos) -> Decision;
}

impl<A: Algorithm> Check for Keyed<A> {
    fn check(&mut self, key: &str, cost: u32, now: Nanos) -> Decision {
        self.handle_check(key, cost, now)
    }
}

/// Rates that do and do not divide, small enough that limits are met.
fn quota() -> impl Strategy<Value = (u32, Nanos, u32)> {
    (
        1..20_u32,
        prop_oneof![1..200_u64, Just(SECOND), 1..SECOND],
        1..8_u32,
    )
}

/// Spans to the next check, in twentieths of a period, with a few nanoseconds more; its cost; its
/// key.
fn trace() -> impl Strategy<Value = Vec<(u64, u64, u32, bool)>> {
    prop::collection::vec((0..8_u64, 0..3_u64, 0..4_u32, any::<bool>()), 1..80)
}

proptest! {
    // A failure names its seed; files for it would clutter the tree.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// In any window `w`, at most `burst + floor(rate * w)`.
    #[test]
    fn no_window_exceeds_the_rate((limit, period, burst) in quota(), trace in trace()) {
        let mut limiter = gcra(limit, period, burst, 8);
        let mut now = 0;
        let mut admitted: Vec<(Nanos, u32)> = Vec::new();
        for (twentieths, more, cost, _) in trace {
            now += period * twentieths / 20 + more;
            if limiter.handle_check("key", cost, now).allowed {
                admitted.push((now, cost));
            }
        }
        for (first, (begin, _)) in admitted.iter().enumerate() {
            let mut sum = 0_u128;
            for (end, cost) in &admitted[first..] {
                sum += u128::from(*cost);
                let earned = u128::from(end - begin) * u128::from(limit) / u128::from(period);
                prop_assert!(sum <= u128::from(burst) + earned);
            }
        }
    }

    /// Two algorithms, one answer; and what they promise of the future comes true.
    #[test]
    fn gcra_and_token_bucket_agree((limit, period, burst) in quota(), trace in trace()) {
        let (mut gcra, mut bucket) = (gcra(limit, period, burst, 8), bucket(limit, period, burst, 8));
        let mut now = 1;
        for (twentieths, more, cost, other) in trace {
            now += period * twentieths / 20 + more;
            let key = if other { "a" } else { "b" };
            let decision = gcra.handle_check(key, cost, now);
            prop_assert_eq!(decision, bucket.handle_check(key, cost, now));
            prop_assert_eq!(gcra.len(), bucket.len());
            prop_assert_eq!(decision.retry_after.is_none(), cost > burst);
            let left = gcra.handle_check(key, 0, now);
            prop_assert_eq!(left.remaining, decision.remaining);
            let rested = gcra.handle_check(key, 0, now + decision.reset_after);
            prop_assert_eq!(rested.remaining, burst);
            if decision.reset_after > 0 {
                let before = gcra.handle_check(key, 0, now + decision.reset_after - 1);
                prop_assert!(before.reset_after > 0);
            }
        }
    }

    /// No window of the clock exceeds the limit, and no other what the rate adds to it.
    #[test]
    fn no_sliding_window_exceeds_its_bounds((limit, period, _) in quota(), trace in trace()) {
        let mut limiter = window(limit, period, 8);
        let mut now = 0;
        let mut admitted: Vec<(Nanos, u32)> = Vec::new();
        for (twentieths, more, cost, _) in trace {
            now += period * twentieths / 20 + more;
            if limiter.handle_check("key", cost, now).allowed {
                admitted.push((now, cost));
            }
        }
        for (first, (begin, _)) in admitted.iter().enumerate() {
            let (mut any, mut clock) = (0_u128, 0_u128);
            for (end, cost) in &admitted[first..] {
                any += u128::from(*cost);
                let earned = u128::from(end - begin) * u128::from(limit) / u128::from(period);
                prop_assert!(any <= u128::from(limit) + earned);
                if begin / period == end / period {
                    clock += u128::from(*cost);
                    prop_assert!(clock <= u128::from(limit));
                }
            }
        }
    }

    /// What a sliding window promises of the future comes true then, and not a nanosecond earlier.
    #[test]
    fn a_sliding_window_keeps_its_promises((limit, period, _) in quota(), trace in trace()) {
        let mut limiter = window(limit, period, 8);
        let mut now = 1;
        for (twentieths, more, cost, other) in trace {
            now += period * twentieths / 20 + more;
            let key = if other { "a" } else { "b" };
            let decision = limiter.handle_check(key, cost, now);
            prop_assert_eq!(decision.retry_after.is_none(), cost > limit);
            let left = limiter.handle_check(key, 0, now);
            prop_assert_eq!(left, Decision { allowed: true, retry_after: Some(0), ..decision });
            let rested = limiter.handle_check(key, 0, now + decision.reset_after);
            prop_assert_eq!((rested.remaining, rested.reset_after), (limit, 0));
            if decision.reset_after > 0 {
                let before = limiter.handle_check(key, 0, now + decision.reset_after - 1);
                prop_assert!(before.remaining < limit);
            }
            let Some(wait) = decision.retry_after.filter(|wait| *wait > 0) else {
                continue;
            };
            now += wait;
            prop_assert!(!limiter.handle_check(key, cost, now - 1).allowed);
            prop_assert!(limiter.handle_check(key, cost, now).allowed);
        }
    }

    /// The memory stays whole whatever comes and goes, and never exceeds its bound.
    #[test]
    fn memory_is_bounded(
        max_keys in 1..30_u32,
        trace in prop::collection::vec((0..60_u32, 0..4_u64), 1..400),
    ) {
        let mut limiter = gcra(1, 10, 1, max_keys);
        let mut roomy = gcra(1, 10, 1, 1_000);
        let mut now = 0;
        for (key, span) in trace {
            now += span;
            let key = key.to_string();
            let allowed = limiter.handle_check(&key, 1, now).allowed;
            let expected = roomy.handle_check(&key, 1, now).allowed;
            prop_assert!(limiter.len() <= max_keys as usize);
            if limiter.displaced() == 0 {
                prop_assert_eq!(allowed, expected);
            }
            prop_assert!(!limiter.handle_check(&key, 1, now).allowed);
        }
    }
}
