//! The breaker that judges rates: what a window holds, when it trips, and how probes are judged.

use bascule_policy::{
    Breaker, BreakerSettings, BreakerState, MOST_BUCKETS, MOST_CALLS, Nanos, Outcome, Permit,
    SettingError, Span, Tally, Trip, Verdict, WindowSettings,
};
use proptest::prelude::*;

const OK: (Outcome, Nanos) = (Outcome::Success, 1);
const FAILED: (Outcome, Nanos) = (Outcome::Failure, 1);
const SLOW: (Outcome, Nanos) = (Outcome::Success, 6);

const LAST_FOUR: WindowSettings = WindowSettings {
    span: Span::Calls(4),
    minimum_calls: 2,
    failure_rate: 0.5,
    slow_call: Some(5),
    slow_call_rate: 0.75,
};

/// Three buckets of 10.
const LAST_THIRTY: WindowSettings = WindowSettings {
    span: Span::Time {
        buckets: 3,
        width: 10,
    },
    ..LAST_FOUR
};

fn settings(window: WindowSettings) -> BreakerSettings {
    BreakerSettings {
        trip: Trip::Window(window),
        open_for: 10,
        half_open_permits: 3,
        half_open_for: 20,
    }
}

fn breaker(window: WindowSettings) -> Breaker {
    match settings(window).checked() {
        Ok(settings) => Breaker::new(settings),
        Err(error) => unreachable!("{error}"),
    }
}

fn admit(breaker: &mut Breaker, now: Nanos) -> Permit {
    match breaker.handle_admit(now) {
        Verdict::Admit(permit) => permit,
        Verdict::Reject { .. } => unreachable!("refused at {now}: {breaker:?}"),
    }
}

fn call(breaker: &mut Breaker, (outcome, took): (Outcome, Nanos), now: Nanos) {
    let permit = admit(breaker, now);
    breaker.handle_complete(permit, outcome, took, now);
}

fn calls(breaker: &mut Breaker, ended: &[(Outcome, Nanos)], now: Nanos) {
    for each in ended {
        call(breaker, *each, now);
    }
}

fn tally(breaker: &Breaker, now: Nanos) -> (u32, u32, u32) {
    let Tally {
        calls,
        failures,
        slow,
    } = breaker.tally(now).unwrap_or_default();
    (calls, failures, slow)
}

/// Half-open with the first of three probes out.
fn probed_at_10(window: WindowSettings) -> (Breaker, Permit) {
    let mut breaker = breaker(window);
    calls(&mut breaker, &[FAILED, FAILED], 0);
    assert_eq!(breaker.state(), BreakerState::Open);
    let probe = admit(&mut breaker, 10);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    (breaker, probe)
}

#[test]
fn windows_that_cannot_work_are_refused() {
    for broken in [
        WindowSettings {
            span: Span::Calls(0),
            ..LAST_FOUR
        },
        WindowSettings {
            span: Span::Calls(MOST_CALLS + 1),
            ..LAST_FOUR
        },
        WindowSettings {
            minimum_calls: 5,
            ..LAST_FOUR
        },
        WindowSettings {
            minimum_calls: 0,
            ..LAST_FOUR
        },
        WindowSettings {
            failure_rate: 0.0,
            ..LAST_FOUR
        },
        WindowSettings {
            failure_rate: f64::NAN,
            ..LAST_FOUR
        },
        WindowSettings {
            slow_call_rate: 1.01,
            ..LAST_FOUR
        },
        WindowSettings {
            slow_call: Some(0),
            ..LAST_FOUR
        },
        WindowSettings {
            span: Span::Time {
                buckets: 0,
                width: 1,
            },
            ..LAST_FOUR
        },
        WindowSettings {
            span: Span::Time {
                buckets: MOST_BUCKETS + 1,
                width: 1,
            },
            ..LAST_FOUR
        },
        WindowSettings {
            span: Span::Time {
                buckets: 1,
                width: 0,
            },
            ..LAST_FOUR
        },
    ] {
        let refused = settings(broken).checked();
        assert!(matches!(refused, Err(SettingError(_))), "{broken:?}");
    }
    for edge in [
        Span::Calls(MOST_CALLS),
        Span::Time {
            buckets: MOST_BUCKETS,
            width: 1,
        },
    ] {
        let window = WindowSettings {
            span: edge,
            minimum_calls: 1,
            failure_rate: 1.0,
            slow_call: None,
            slow_call_rate: 1.0,
        };
        assert!(settings(window).checked().is_ok());
    }
}

#[test]
fn it_is_not_judged_below_the_minimum_and_trips_at_the_rate() {
    let mut breaker = breaker(LAST_FOUR);
    call(&mut breaker, FAILED, 0);
    assert_eq!(breaker.state(), BreakerState::Closed);
    // A success may be what makes the calls enough.
    call(&mut breaker, OK, 7);
    assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 1));
    assert_eq!(
        breaker.handle_admit(8),
        Verdict::Reject { retry_at: Some(17) }
    );
}

#[test]
fn the_oldest_call_makes_room() {
    let mut breaker = breaker(LAST_FOUR);
    calls(&mut breaker, &[OK, OK, OK, FAILED], 0);
    assert_eq!(tally(&breaker, 0), (4, 1, 0));
    calls(&mut breaker, &[OK, OK, OK], 0);
    assert_eq!(tally(&breaker, 0), (4, 1, 0));
    call(&mut breaker, SLOW, 0);
    assert_eq!(tally(&breaker, 0), (4, 0, 1));
    calls(&mut breaker, &[FAILED, FAILED], 0);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn abandoned_calls_are_in_no_window() {
    let mut breaker = breaker(LAST_FOUR);
    call(&mut breaker, FAILED, 0);
    call(&mut breaker, (Outcome::Abandoned, 100), 0);
    assert_eq!(tally(&breaker, 0), (1, 1, 0));
    assert_eq!(breaker.counts().outcomes, [0, 1, 1]);
    assert_eq!(breaker.counts().slow, 0);
}

#[test]
fn slow_calls_open_it_by_a_rate_of_their_own() {
    let mut breaker = breaker(LAST_FOUR);
    calls(&mut breaker, &[SLOW, OK, SLOW], 0);
    assert_eq!(tally(&breaker, 0), (3, 0, 2));
    // What takes exactly so long is not slow.
    call(&mut breaker, (Outcome::Success, 5), 0);
    assert_eq!(breaker.state(), BreakerState::Closed);
    calls(&mut breaker, &[SLOW, SLOW], 0);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.counts().slow, 4);
}

#[test]
fn a_call_may_be_slow_and_fail() {
    let mut breaker = breaker(LAST_FOUR);
    calls(&mut breaker, &[OK, OK, (Outcome::Failure, 9)], 0);
    assert_eq!(tally(&breaker, 0), (3, 1, 1));
}

#[test]
fn nothing_is_slow_unless_it_is_said_what_is() {
    let mut breaker = breaker(WindowSettings {
        slow_call: None,
        slow_call_rate: 0.1,
        ..LAST_FOUR
    });
    let ages = (Outcome::Success, Nanos::MAX);
    calls(&mut breaker, &[ages; 4], 0);
    assert_eq!(tally(&breaker, 0), (4, 0, 0));
    assert!(
        !settings(WindowSettings {
            slow_call: None,
            ..LAST_FOUR
        })
        .timed()
    );
    assert!(settings(LAST_FOUR).timed());
}

#[test]
fn a_share_is_what_it_says() {
    // 0.07 * 100 is more than 7 in floating point; 7 of 100 must be 0.07 all the same.
    for (failures, calls) in [(7, 100), (1, 3), (2, 3), (29, 100), (55, 100), (1, 10)] {
        let mut breaker = breaker(WindowSettings {
            span: Span::Calls(100),
            minimum_calls: calls,
            failure_rate: f64::from(failures) / f64::from(calls),
            slow_call: None,
            slow_call_rate: 1.0,
        });
        for _ in 0..failures {
            call(&mut breaker, FAILED, 0);
        }
        for _ in failures..calls - 1 {
            call(&mut breaker, OK, 0);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        call(&mut breaker, OK, 0);
        assert_eq!(breaker.state(), BreakerState::Open, "{failures} of {calls}");
    }
}

#[test]
fn time_forgets_a_bucket_at_a_time() {
    let mut breaker = breaker(LAST_THIRTY);
    calls(&mut breaker, &[OK, OK, FAILED], 5);
    assert_eq!(tally(&breaker, 15), (3, 1, 0));
    calls(&mut breaker, &[OK, OK], 15);
    assert_eq!(tally(&breaker, 29), (5, 1, 0));
    // Nobody has called since, but what is too old is not shown.
    assert_eq!(tally(&breaker, 30), (2, 0, 0));
    assert_eq!(tally(&breaker, 39), (2, 0, 0));
    assert_eq!(tally(&breaker, 40), (0, 0, 0));
    assert_eq!(tally(&breaker, Nanos::MAX), (0, 0, 0));
    call(&mut breaker, FAILED, 39);
    assert_eq!(tally(&breaker, 39), (3, 1, 0));
    call(&mut breaker, FAILED, 40);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn the_bucket_that_the_next_one_replaces_is_not_shown() {
    let mut breaker = breaker(LAST_THIRTY);
    for now in [5, 15, 25] {
        call(&mut breaker, OK, now);
    }
    assert_eq!(tally(&breaker, 29), (3, 0, 0));
    assert_eq!(tally(&breaker, 30), (2, 0, 0));
}

#[test]
fn a_window_that_was_emptied_begins_anew() {
    let mut counted = breaker(LAST_FOUR);
    calls(&mut counted, &[OK; 6], 0);
    counted.handle_reset();
    // The oldest one is the slow one again.
    calls(&mut counted, &[SLOW, OK, OK, OK, OK], 0);
    assert_eq!(tally(&counted, 0), (4, 0, 0));
    let mut timed = breaker(LAST_THIRTY);
    calls(&mut timed, &[OK, OK, FAILED], 5);
    timed.handle_reset();
    call(&mut timed, OK, 5);
    call(&mut timed, OK, 15);
    assert_eq!(tally(&timed, 39), (1, 0, 0));
    call(&mut timed, OK, 35);
    assert_eq!(tally(&timed, 39), (2, 0, 0));
}

#[test]
fn failures_that_are_too_old_open_nothing() {
    let mut breaker = breaker(LAST_THIRTY);
    for bucket in 0..100 {
        call(&mut breaker, FAILED, bucket * 30);
    }
    assert_eq!(
        (breaker.state(), breaker.opened()),
        (BreakerState::Closed, 0)
    );
}

#[test]
fn time_that_goes_back_is_the_latest_time() {
    let mut breaker = breaker(LAST_THIRTY);
    calls(&mut breaker, &[OK, OK], 95);
    call(&mut breaker, FAILED, 3);
    assert_eq!(tally(&breaker, 0), (3, 1, 0));
    assert_eq!(tally(&breaker, 119), (3, 1, 0));
    assert_eq!(tally(&breaker, 120), (0, 0, 0));
}

#[test]
fn time_that_jumps_empties_the_window() {
    let mut breaker = breaker(LAST_THIRTY);
    call(&mut breaker, FAILED, 0);
    call(&mut breaker, FAILED, Nanos::MAX);
    assert_eq!(tally(&breaker, Nanos::MAX), (1, 1, 0));
}

#[test]
fn no_more_probes_than_are_permitted_and_their_rates_decide() {
    let (mut breaker, first) = probed_at_10(LAST_FOUR);
    breaker.handle_complete(first, Outcome::Failure, 1, 11);
    assert_eq!(tally(&breaker, 11), (1, 1, 0));
    let [second, third] = [admit(&mut breaker, 11), admit(&mut breaker, 11)];
    assert_eq!((breaker.probes(), breaker.successes()), (2, 0));
    breaker.handle_complete(second, Outcome::Success, 1, 12);
    // One has ended, but the permits are used up.
    assert_eq!(breaker.handle_admit(12), Verdict::Reject { retry_at: None });
    breaker.handle_complete(third, Outcome::Success, 1, 13);
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(tally(&breaker, 13), (0, 0, 0));
}

#[test]
fn probes_that_fail_too_often_open_it_again() {
    let (mut breaker, first) = probed_at_10(LAST_FOUR);
    breaker.handle_complete(first, Outcome::Failure, 1, 11);
    calls(&mut breaker, &[OK, FAILED], 12);
    assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 2));
    assert_eq!(breaker.changes_at(), Some(22));
}

#[test]
fn slow_probes_open_it_again() {
    let (mut breaker, first) = probed_at_10(LAST_FOUR);
    breaker.handle_complete(first, Outcome::Success, 6, 16);
    calls(&mut breaker, &[SLOW, SLOW], 16);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_cancelled_probe_gives_its_permit_back() {
    let (mut breaker, first) = probed_at_10(LAST_FOUR);
    let [second, third] = [admit(&mut breaker, 10), admit(&mut breaker, 10)];
    breaker.handle_complete(first, Outcome::Abandoned, 1, 11);
    let fourth = admit(&mut breaker, 11);
    for probe in [second, third, fourth] {
        breaker.handle_complete(probe, Outcome::Success, 1, 12);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn probes_that_do_not_end_in_time_have_failed_and_lose_their_say() {
    let (mut breaker, first) = probed_at_10(LAST_FOUR);
    let second = admit(&mut breaker, 15);
    let third = admit(&mut breaker, 20);
    breaker.handle_complete(third, Outcome::Success, 1, 21);
    assert!(!breaker.admits(39));
    // It has been open since the time was over, not since somebody looked.
    assert_eq!(
        breaker.handle_admit(41),
        Verdict::Reject { retry_at: Some(50) }
    );
    for late in [first, second] {
        breaker.handle_complete(late, Outcome::Success, 1, 42);
    }
    assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 2));
    assert!(breaker.admits(50));
}

#[test]
fn a_lost_probe_is_counted_once() {
    let (mut breaker, lost) = probed_at_10(LAST_FOUR);
    assert!(breaker.admits(30));
    assert_eq!(tally(&breaker, 30), (1, 1, 1));
    breaker.handle_complete(lost, Outcome::Success, 21, 31);
    assert_eq!((tally(&breaker, 31), breaker.probes()), ((1, 1, 1), 0));
}

#[test]
fn a_lost_probe_among_enough_that_succeeded_does_not_keep_it_open() {
    let (mut breaker, _lost) = probed_at_10(LAST_FOUR);
    calls(&mut breaker, &[OK, OK], 12);
    assert!(!breaker.admits(31));
    let _ = admit(&mut breaker, 32);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn few_calls_do_not_keep_it_half_open() {
    let (mut breaker, first) = probed_at_10(LAST_FOUR);
    breaker.handle_complete(first, Outcome::Success, 1, 11);
    call(&mut breaker, OK, 1_000);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    call(&mut breaker, OK, 100_000);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_hand_empties_the_window() {
    let mut breaker = breaker(LAST_FOUR);
    calls(&mut breaker, &[OK, OK, FAILED], 0);
    let late = admit(&mut breaker, 0);
    breaker.handle_force_closed();
    calls(&mut breaker, &[FAILED; 10], 0);
    assert_eq!(tally(&breaker, 0), (0, 0, 0));
    breaker.handle_reset();
    breaker.handle_complete(late, Outcome::Failure, 1, 0);
    assert_eq!(tally(&breaker, 0), (0, 0, 0));
    calls(&mut breaker, &[FAILED, FAILED], 0);
    assert_eq!(breaker.state(), BreakerState::Open);
}

fn spans() -> impl Strategy<Value = Span> {
    prop_oneof![
        (1..20_u32).prop_map(Span::Calls),
        (1..6_u32, 1..20_u64).prop_map(|(buckets, width)| Span::Time { buckets, width }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Advance(Nanos),
    Admit,
    Report(prop::sample::Index, Outcome, Nanos),
    Lose(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome =
        prop::sample::select(vec![Outcome::Success, Outcome::Failure, Outcome::Abandoned]);
    let which = any::<prop::sample::Index>;
    prop_oneof![
        (0..40_u64).prop_map(Step::Advance),
        Just(Step::Admit),
        Just(Step::Admit),
        (which(), outcome, 0..10_u64).prop_map(|(which, how, took)| Step::Report(which, how, took)),
        which().prop_map(Step::Lose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However calls end, or vanish, it permits no more probes than it should, and waiting always
    /// helps: a closed breaker, an end of the probes' time, an end of the open time.
    #[test]
    fn never_wedges(span in spans(), steps in prop::collection::vec(step(), 0..100)) {
        let window = WindowSettings { span, minimum_calls: 1, ..LAST_FOUR };
        let mut breaker = breaker(window);
        let mut now = 0;
        let mut out = Vec::new();
        for step in steps {
            match step {
                Step::Advance(span) => now += span,
                Step::Admit => {
                    let foreseen = breaker.admits(now);
                    let verdict = breaker.handle_admit(now);
                    prop_assert_eq!(foreseen, matches!(verdict, Verdict::Admit(_)));
                    match verdict {
                        Verdict::Admit(permit) => out.push(permit),
                        Verdict::Reject { retry_at } => prop_assert!(retry_at.is_none_or(|at| at > now)),
                    }
                }
                Step::Report(which, outcome, took) if !out.is_empty() => {
                    let permit = out.swap_remove(which.index(out.len()));
                    breaker.handle_complete(permit, outcome, took, now);
                }
                Step::Lose(which) if !out.is_empty() => drop(out.swap_remove(which.index(out.len()))),
                Step::Report(..) | Step::Lose(_) => {}
            }
            prop_assert!(breaker.probes() <= 3);
            prop_assert!(breaker.clone().admits(now + 20 + 10));
            prop_assert!(breaker.admits(now) || breaker.changes_at().is_some_and(|at| at > now));
        }
    }

    /// In every window, the sums are those of the calls that count.
    #[test]
    fn sums_are_exact(
        span in spans(),
        ended in prop::collection::vec((0..25_u64, any::<bool>(), 0..10_u64), 0..200),
    ) {
        let never = WindowSettings { minimum_calls: 1, failure_rate: 1.0, slow_call_rate: 1.0, span, ..LAST_FOUR };
        let mut breaker = breaker(never);
        let mut now = 0;
        let mut all = Vec::new();
        // A first call that is well, again and again, so that it never opens.
        for (pause, failed, took) in ended {
            now += pause;
            call(&mut breaker, OK, now);
            all.push((now, false, false));
            let outcome = if failed { Outcome::Failure } else { Outcome::Success };
            call(&mut breaker, (outcome, took), now);
            if breaker.state() != BreakerState::Closed {
                // A window of one call.
                breaker.handle_reset();
                all.clear();
                continue;
            }
            all.push((now, failed, took > 5));
            let counted: Vec<_> = match span {
                Span::Calls(calls) => all.iter().rev().take(calls as usize).collect(),
                Span::Time { buckets, width } => all
                    .iter()
                    .filter(|each| now / width - each.0 / width < u64::from(buckets))
                    .collect(),
            };
            let count = |which: &dyn Fn(&(Nanos, bool, bool)) -> bool| {
                u32::try_from(counted.iter().filter(|each| which(each)).count()).unwrap()
            };
            prop_assert_eq!(
                tally(&breaker, now),
                (count(&|_| true), count(&|each| each.1), count(&|each| each.2))
            );
        }
    }
}
