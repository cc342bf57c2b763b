//! The breaker, transition by transition, then whatever may happen to it.

use bascule_policy::{
    Breaker, BreakerSettings, BreakerState, Nanos, Outcome, Permit, SettingError, Trip, Verdict,
};
use proptest::prelude::*;

const SETTINGS: BreakerSettings = BreakerSettings {
    trip: Trip::InARow {
        failure_threshold: 2,
        success_threshold: 2,
    },
    open_for: 10,
    half_open_permits: 2,
    half_open_for: 20,
};

fn breaker() -> Breaker {
    Breaker::new(SETTINGS)
}

fn admit(breaker: &mut Breaker, now: Nanos) -> Permit {
    match breaker.handle_admit(now) {
        Verdict::Admit(permit) => permit,
        Verdict::Reject { .. } => unreachable!("refused at {now}: {breaker:?}"),
    }
}

fn call(breaker: &mut Breaker, outcome: Outcome, now: Nanos) {
    let permit = admit(breaker, now);
    breaker.handle_complete(permit, outcome, 0, now);
}

fn opened_at_0() -> Breaker {
    let mut breaker = breaker();
    call(&mut breaker, Outcome::Failure, 0);
    call(&mut breaker, Outcome::Failure, 0);
    breaker
}

#[test]
fn defaults_are_the_guides() {
    let settings = BreakerSettings::default();
    assert_eq!(
        settings.trip,
        Trip::InARow {
            failure_threshold: 5,
            success_threshold: 3
        }
    );
    assert_eq!(settings.open_for, 30_000_000_000);
    assert_eq!(settings.checked(), Ok(settings));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for broken in [
        BreakerSettings {
            trip: Trip::InARow {
                failure_threshold: 0,
                success_threshold: 1,
            },
            ..SETTINGS
        },
        BreakerSettings {
            trip: Trip::InARow {
                failure_threshold: 1,
                success_threshold: 0,
            },
            ..SETTINGS
        },
        BreakerSettings {
            half_open_permits: 0,
            ..SETTINGS
        },
        BreakerSettings {
            half_open_for: 0,
            ..SETTINGS
        },
    ] {
        assert!(matches!(broken.checked(), Err(SettingError(_))));
    }
}

#[test]
fn opens_after_failures_in_a_row() {
    let mut breaker = breaker();
    call(&mut breaker, Outcome::Failure, 0);
    call(&mut breaker, Outcome::Success, 0);
    call(&mut breaker, Outcome::Failure, 0);
    assert_eq!(
        (breaker.state(), breaker.failures()),
        (BreakerState::Closed, 1)
    );
    call(&mut breaker, Outcome::Failure, 3);
    assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 1));
    assert_eq!(
        breaker.handle_admit(4),
        Verdict::Reject { retry_at: Some(13) }
    );
    assert_eq!(breaker.rejected(), 1);
}

#[test]
fn abandoned_calls_neither_count_nor_break_the_row() {
    let mut breaker = breaker();
    call(&mut breaker, Outcome::Failure, 0);
    call(&mut breaker, Outcome::Abandoned, 0);
    assert_eq!(breaker.failures(), 1);
    call(&mut breaker, Outcome::Failure, 0);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn probes_after_its_time_and_closes_after_successes() {
    let mut breaker = opened_at_0();
    assert!(!breaker.admits(9));
    assert_eq!(breaker.changes_at(), Some(10));
    call(&mut breaker, Outcome::Success, 10);
    assert_eq!(
        (breaker.state(), breaker.successes()),
        (BreakerState::HalfOpen, 1)
    );
    call(&mut breaker, Outcome::Success, 10);
    assert_eq!(
        (breaker.state(), breaker.failures()),
        (BreakerState::Closed, 0)
    );
}

#[test]
fn no_time_is_needed_while_all_is_well() {
    let mut breaker = opened_at_0();
    assert_eq!(breaker.permit_if_closed(), None);
    let probe = admit(&mut breaker, 10);
    breaker.handle_success(probe);
    assert_eq!(breaker.permit_if_closed(), None);
    call(&mut breaker, Outcome::Success, 10);
    let late = breaker.permit_if_closed().unwrap();
    call(&mut breaker, Outcome::Failure, 10);
    let permit = breaker.permit_if_closed().unwrap();
    breaker.handle_success(permit);
    assert_eq!(breaker.failures(), 0);
    breaker.handle_force_closed();
    assert!(breaker.permit_if_closed().is_some());
    breaker.handle_reset();
    call(&mut breaker, Outcome::Failure, 10);
    breaker.handle_success(late);
    assert_eq!(breaker.failures(), 1);
}

#[test]
fn limits_the_probes_in_flight() {
    let mut breaker = opened_at_0();
    let first = admit(&mut breaker, 10);
    let _second = admit(&mut breaker, 10);
    assert_eq!(breaker.probes(), 2);
    assert_eq!(breaker.handle_admit(10), Verdict::Reject { retry_at: None });
    breaker.handle_complete(first, Outcome::Abandoned, 0, 11);
    assert_eq!((breaker.probes(), breaker.successes()), (1, 0));
    let _third = admit(&mut breaker, 11);
}

#[test]
fn a_failed_probe_opens_it_again() {
    let mut breaker = opened_at_0();
    call(&mut breaker, Outcome::Success, 10);
    call(&mut breaker, Outcome::Failure, 12);
    assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 2));
    assert_eq!(breaker.changes_at(), Some(22));
}

#[test]
fn lost_probes_are_replaced_and_lose_their_say() {
    let mut breaker = opened_at_0();
    call(&mut breaker, Outcome::Success, 10);
    let lost = [admit(&mut breaker, 10), admit(&mut breaker, 10)];
    assert!(!breaker.admits(29));
    let fresh = admit(&mut breaker, 30);
    for permit in lost {
        breaker.handle_complete(permit, Outcome::Failure, 0, 30);
    }
    assert_eq!(
        (breaker.state(), breaker.probes()),
        (BreakerState::HalfOpen, 1)
    );
    breaker.handle_complete(fresh, Outcome::Success, 0, 31);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn late_results_change_nothing() {
    let mut breaker = breaker();
    let late: Vec<_> = (0..5).map(|_| admit(&mut breaker, 0)).collect();
    let mut late = late.into_iter();
    for permit in late.by_ref().take(2) {
        breaker.handle_complete(permit, Outcome::Failure, 0, 0);
    }
    breaker.handle_complete(late.next().unwrap(), Outcome::Success, 0, 1);
    assert_eq!(breaker.state(), BreakerState::Open);
    let _probe = admit(&mut breaker, 10);
    breaker.handle_complete(late.next().unwrap(), Outcome::Failure, 0, 10);
    assert_eq!(
        (breaker.state(), breaker.probes()),
        (BreakerState::HalfOpen, 1)
    );
    breaker.handle_reset();
    breaker.handle_complete(late.next().unwrap(), Outcome::Failure, 0, 10);
    assert_eq!(breaker.failures(), 0);
}

#[test]
fn a_hand_may_hold_it() {
    let mut breaker = breaker();
    breaker.handle_force_open();
    assert_eq!(
        (breaker.state(), breaker.forced()),
        (BreakerState::Open, true)
    );
    assert_eq!(
        breaker.handle_admit(Nanos::MAX),
        Verdict::Reject { retry_at: None }
    );
    assert_eq!(breaker.changes_at(), None);
    breaker.handle_force_closed();
    for _ in 0..10 {
        call(&mut breaker, Outcome::Failure, 0);
    }
    assert_eq!(
        (breaker.state(), breaker.forced()),
        (BreakerState::Closed, true)
    );
    breaker.handle_reset();
    assert_eq!(
        (breaker.state(), breaker.forced()),
        (BreakerState::Closed, false)
    );
    assert_eq!(breaker.opened(), 1);
}

#[test]
fn states_have_the_names_of_the_metrics() {
    let names = [
        BreakerState::Closed,
        BreakerState::Open,
        BreakerState::HalfOpen,
    ];
    assert_eq!(
        names.map(BreakerState::name),
        ["closed", "open", "half_open"]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Advance(Nanos),
    Admit,
    /// Which of the permits out, how it ended.
    Report(prop::sample::Index, Outcome),
    Lose(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome =
        prop::sample::select(vec![Outcome::Success, Outcome::Failure, Outcome::Abandoned]);
    prop_oneof![
        (0..40_u64).prop_map(Step::Advance),
        Just(Step::Admit),
        Just(Step::Admit),
        (any::<prop::sample::Index>(), outcome).prop_map(|(which, how)| Step::Report(which, how)),
        any::<prop::sample::Index>().prop_map(Step::Lose),
    ]
}

proptest! {
    // A failure names its seed; files for it would clutter the tree.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However calls end, or vanish, it never has more probes than permits, and waiting always
    /// helps.
    #[test]
    fn never_wedges(steps in prop::collection::vec(step(), 0..100)) {
        let mut breaker = breaker();
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
                Step::Report(which, outcome) if !out.is_empty() => {
                    let permit = out.swap_remove(which.index(out.len()));
                    breaker.handle_complete(permit, outcome, 0, now);
                }
                Step::Lose(which) if !out.is_empty() => drop(out.swap_remove(which.index(out.len()))),
                Step::Report(..) | Step::Lose(_) => {}
            }
            prop_assert!(breaker.probes() <= SETTINGS.half_open_permits);
            prop_assert!(breaker.admits(now + SETTINGS.open_for.max(SETTINGS.half_open_for)));
            prop_assert!(breaker.admits(now) || breaker.changes_at().is_some_and(|at| at > now));
        }
    }
}
