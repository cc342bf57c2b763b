//! What depends on how an endpoint does over time: latency and slow start.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use bascule_policy::balance::{Balancer, Call, Kind, PeakEwma, Sizes};
use bascule_policy::{CallPermit, CallPolicy, CallVerdict, Nanos, Outcome, SlowStart};
use common::{Told, list};

/// Nanoseconds in a millisecond, near enough, in the grain of latencies.
const MS: Nanos = 1_024 * 1_000;

fn policy(kind: Kind) -> CallPolicy {
    CallPolicy::new(kind.build(1, &Sizes::default()), None, None)
}

fn ready(policy: &mut CallPolicy, hosts: &[(&str, u32)]) -> Vec<u64> {
    let ids = policy.handle_update(hosts.iter().copied(), 0);
    for &id in &ids {
        policy.handle_ready(id, true);
    }
    ids
}

fn admit(policy: &mut CallPolicy, now: Nanos) -> (u64, CallPermit) {
    match policy.handle_admit("", None, now) {
        CallVerdict::Admit { endpoint, permit } => (endpoint, permit),
        refused => unreachable!("{refused:?} at {now}: {policy:?}"),
    }
}

fn latency(policy: &CallPolicy) -> Option<f64> {
    policy.endpoints().next().unwrap().latency
}

/// One host, one call that takes so long and ends so.
fn call(policy: &mut CallPolicy, begin: Nanos, took: Nanos, outcome: Outcome) {
    let (endpoint, permit) = admit(policy, begin);
    policy.handle_complete(endpoint, permit, outcome, begin + took);
}

fn near(seen: Option<f64>, expected: f64) {
    let seen = seen.unwrap();
    assert!((seen - expected).abs() < 1.0, "{seen}, not {expected}");
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(span: Nanos) -> f64 {
    span as f64
}

#[test]
fn latency_rises_at_once_and_falls_by_and_by() {
    let mut policy = policy(Kind::PeakEwma).with_latency(1_000 * MS);
    ready(&mut policy, &[("a", 1)]);
    assert_eq!(latency(&policy), None);
    call(&mut policy, 0, 10 * MS, Outcome::Success);
    near(latency(&policy), float(10 * MS));
    call(&mut policy, 10 * MS, 50 * MS, Outcome::Success);
    near(latency(&policy), float(50 * MS));
    // A second later what was known has 1/e of its weight.
    call(&mut policy, 1_050 * MS, 10 * MS, Outcome::Success);
    let kept = (-1.0_f64).exp();
    near(
        latency(&policy),
        float(50 * MS) * kept + float(10 * MS) * (1.0 - kept),
    );
}

#[test]
fn a_failure_counts_twice() {
    let mut policy = policy(Kind::PeakEwma).with_latency(1_000 * MS);
    ready(&mut policy, &[("a", 1)]);
    call(&mut policy, 0, MS, Outcome::Failure);
    near(latency(&policy), float(2 * MS));
    call(&mut policy, 0, MS, Outcome::Failure);
    near(latency(&policy), float(4 * MS));
    call(&mut policy, 0, 5 * MS, Outcome::Failure);
    near(latency(&policy), float(10 * MS));
    for _ in 0..40 {
        call(&mut policy, 0, MS, Outcome::Failure);
    }
    near(latency(&policy), 60e9);
}

#[test]
fn a_first_failure_is_bounded_too() {
    let mut policy = policy(Kind::PeakEwma).with_latency(MS);
    ready(&mut policy, &[("a", 1)]);
    call(&mut policy, 0, 50_000 * MS, Outcome::Failure);
    near(latency(&policy), 60e9);
}

#[test]
fn a_call_that_nobody_waited_for_only_raises() {
    let mut policy = policy(Kind::PeakEwma).with_latency(1_000 * MS);
    ready(&mut policy, &[("a", 1)]);
    call(&mut policy, 0, 5 * MS, Outcome::Abandoned);
    assert_eq!(latency(&policy), None);
    call(&mut policy, 0, 5 * MS, Outcome::Success);
    call(&mut policy, 0, 4 * MS, Outcome::Abandoned);
    near(latency(&policy), float(5 * MS));
    call(&mut policy, 0, 7 * MS, Outcome::Abandoned);
    near(latency(&policy), float(7 * MS));
}

#[test]
fn a_clock_that_goes_backwards_gives_no_huge_latency() {
    let mut policy = policy(Kind::PeakEwma).with_latency(1_000 * MS);
    ready(&mut policy, &[("a", 1)]);
    let (endpoint, permit) = admit(&mut policy, 10 * MS);
    policy.handle_complete(endpoint, permit, Outcome::Success, 9 * MS);
    near(latency(&policy), 0.0);
}

#[test]
fn a_permit_survives_the_boundary_and_any_clock() {
    // Clocks that count from the epoch, or from near their end.
    for begin in [0, 1 << 50, 1_800_000_000_000_000_000, u64::MAX - 10 * MS] {
        let mut policy = policy(Kind::PeakEwma).with_latency(1_000 * MS);
        ready(&mut policy, &[("a", 1)]);
        let (endpoint, permit) = admit(&mut policy, begin);
        let permit = CallPermit::from_bits(permit.bits());
        policy.handle_complete(endpoint, permit, Outcome::Success, begin + 3 * MS);
        let seen = latency(&policy).unwrap();
        assert!((seen - float(3 * MS)).abs() <= 1_024.0, "{seen}");
    }
}

#[test]
fn latency_is_learned_only_if_asked_for() {
    let mut silent = policy(Kind::RoundRobin);
    ready(&mut silent, &[("a", 1)]);
    let (endpoint, permit) = admit(&mut silent, 5 * MS);
    assert_eq!(permit.bits(), 0);
    silent.handle_complete(endpoint, permit, Outcome::Success, 9 * MS);
    assert_eq!(latency(&silent), None);
}

#[test]
fn peak_ewma_compares_latency_times_queue_for_weight() {
    let mut balancer = PeakEwma::new(1);
    let mut chosen = |weights: &[u32], in_flight: &[u32], latency: &[Option<f64>]| {
        list(&mut balancer, weights);
        let loads = &Told { in_flight, latency };
        let call = Call { hash: None, loads };
        // Both are compared in each pick, in either order.
        let picks: Vec<_> = (0..20).map(|_| balancer.pick(&call).unwrap()).collect();
        assert!(picks.iter().all(|pick| *pick == picks[0]), "{picks:?}");
        picks[0]
    };
    let known = |first, second| [Some(first), Some(second)];
    assert_eq!(chosen(&[1, 1], &[0, 0], &known(2.0, 1.0)), 1);
    assert_eq!(chosen(&[1, 1], &[0, 0], &known(1.0, 2.0)), 0);
    // Two in flight and this one at 1 each against this one alone at 4, then at 2.
    assert_eq!(chosen(&[1, 1], &[2, 0], &known(1.0, 4.0)), 0);
    assert_eq!(chosen(&[1, 1], &[2, 0], &known(1.0, 2.0)), 1);
    // Of weights 3 and 1 with a mean of 2, three in flight are 2 and 6.
    assert_eq!(chosen(&[3, 1], &[3, 3], &known(2.0, 1.0)), 0);
    assert_eq!(chosen(&[3, 1], &[3, 3], &known(7.0, 2.9)), 1);
    assert_eq!(chosen(&[3, 1], &[3, 3], &known(7.0, 3.1)), 0);
    assert_eq!(chosen(&[9, 1], &[0, 0], &known(2.0, 1.0)), 1);
    // One that has not answered yet gets one call at once, and no second one.
    assert_eq!(chosen(&[1, 1], &[0, 0], &[Some(1.0), None]), 1);
    assert_eq!(chosen(&[1, 1], &[9, 1], &[Some(60e9), None]), 0);
    assert_eq!(chosen(&[1, 1], &[2, 1], &[None, None]), 1);
}

#[test]
fn a_slow_host_gets_few_calls_and_is_tried_again() {
    let mut policy = policy(Kind::PeakEwma).with_latency(100 * MS);
    let ids = ready(&mut policy, &[("slow", 1), ("fast", 1), ("fast too", 1)]);
    let mut now = 0;
    let mut slow = 0;
    for _ in 0..3_000 {
        let (endpoint, permit) = admit(&mut policy, now);
        let took = if endpoint == ids[0] { 50 * MS } else { MS };
        slow += u32::from(endpoint == ids[0]);
        now += took;
        policy.handle_complete(endpoint, permit, Outcome::Success, now);
    }
    // Every few decays, but not as one of three.
    assert!((3..100).contains(&slow), "{slow}");
}

#[test]
fn a_host_that_fails_fast_is_not_attractive() {
    let mut policy = policy(Kind::PeakEwma).with_latency(10_000 * MS);
    let ids = ready(&mut policy, &[("broken", 1), ("well", 1)]);
    let mut broken = 0;
    let mut now = 0;
    for _ in 0..1_000 {
        let (endpoint, permit) = admit(&mut policy, now);
        now += MS;
        let outcome = if endpoint == ids[0] {
            broken += 1;
            Outcome::Failure
        } else {
            now += 9 * MS;
            Outcome::Success
        };
        policy.handle_complete(endpoint, permit, outcome, now);
    }
    assert!(broken < 30, "{broken}");
}

const SLOW: SlowStart = SlowStart {
    window: 10_000,
    aggression: 1.0,
    least: 0.1,
};

/// The part of 10,000 calls at a time that goes to a host that became ready at 1,000,000.
fn part(settings: SlowStart, kind: Kind, age: Nanos) -> f64 {
    let mut policy = policy(kind).with_slow_start(settings.checked().unwrap());
    let ids = policy.handle_update([("old", 1), ("new", 1)], 0);
    policy.handle_ready(ids[0], true);
    call(&mut policy, 0, 0, Outcome::Success);
    policy.handle_ready(ids[1], true);
    call(&mut policy, 1_000_000, 0, Outcome::Success);
    let mut new = 0;
    for _ in 0..10_000 {
        let (endpoint, permit) = admit(&mut policy, 1_000_000 + age);
        policy.handle_complete(endpoint, permit, Outcome::Abandoned, 0);
        new += u32::from(endpoint == ids[1]);
    }
    f64::from(new) / f64::from(10_000 - new)
}

fn about(seen: f64, expected: f64) {
    assert!((seen - expected).abs() < 0.01, "{seen}, not {expected}");
}

#[test]
fn a_new_host_comes_to_its_weight_by_and_by() {
    let at = |age| part(SLOW, Kind::RoundRobin, age);
    about(at(0), 0.1);
    about(at(500), 0.1);
    about(at(1_500), 0.15);
    about(at(5_000), 0.5);
    about(at(9_000), 0.9);
    about(at(10_000), 1.0);
    about(at(99_000), 1.0);
}

#[test]
fn aggression_bends_the_line() {
    let with = |aggression, age| {
        let settings = SlowStart { aggression, ..SLOW };
        part(settings, Kind::RoundRobin, age)
    };
    about(with(2.0, 2_500), 0.5);
    about(with(0.5, 5_000), 0.25);
}

#[test]
fn slow_start_holds_for_every_balancer_without_a_table() {
    for kind in [Kind::Random, Kind::LeastRequest, Kind::WeightedRoundRobin] {
        let seen = part(SLOW, kind, 5_000);
        assert!((seen - 0.5).abs() < 0.05, "{kind:?}: {seen}");
    }
}

#[test]
fn a_host_that_becomes_ready_again_starts_again() {
    let mut policy = policy(Kind::RoundRobin).with_slow_start(SLOW);
    let ids = ready(&mut policy, &[("a", 1), ("b", 1)]);
    let part = |policy: &mut CallPolicy, now| {
        let picks = (0..1_100).filter(|_| admit(policy, now).0 == ids[1]);
        picks.count()
    };
    // Both are new: they share evenly.
    assert_eq!(part(&mut policy, 0), 550);
    assert_eq!(part(&mut policy, 20_000), 550);
    policy.handle_ready(ids[1], true);
    assert_eq!(part(&mut policy, 20_000), 550);
    policy.handle_ready(ids[1], false);
    policy.handle_ready(ids[1], true);
    assert_eq!(part(&mut policy, 20_000), 100);
    // Its age alone changes its part, without anything else that happens.
    assert_eq!(part(&mut policy, 30_000), 550);
}

#[test]
fn the_heaviest_weights_and_the_least_parts_still_work() {
    for (weight, least) in [(u32::MAX, 0.1), (u32::MAX, 0.0), (1, 0.0), (5_000_000, 0.0)] {
        let settings = SlowStart { least, ..SLOW };
        let mut policy = policy(Kind::RoundRobin).with_slow_start(settings);
        let ids = policy.handle_update([("a", weight), ("b", weight)], 0);
        policy.handle_ready(ids[0], true);
        admit(&mut policy, 0);
        policy.handle_ready(ids[1], true);
        for (now, due) in [(100_000, least), (105_000, 0.5), (115_000, 1.0)] {
            let picks = (0..2_000).filter(|_| admit(&mut policy, now).0 == ids[1]);
            let new = f64::from(u32::try_from(picks.count()).unwrap());
            about(new / (2_000.0 - new), due);
        }
    }
}

#[test]
fn unequal_weights_keep_their_proportion() {
    let mut policy = policy(Kind::RoundRobin).with_slow_start(SLOW);
    let ids = policy.handle_update([("a", u32::MAX), ("b", u32::MAX / 2)], 0);
    policy.handle_ready(ids[0], true);
    admit(&mut policy, 0);
    policy.handle_ready(ids[1], true);
    admit(&mut policy, 100_000);
    let picks = (0..5_000).filter(|_| admit(&mut policy, 105_000).0 == ids[1]);
    // Half of its half.
    assert!(picks.count().abs_diff(1_000) < 20);
}

#[test]
fn slow_start_settings_are_checked() {
    assert!(SLOW.checked().is_ok());
    for wrong in [
        SlowStart { window: 0, ..SLOW },
        SlowStart {
            aggression: 0.0,
            ..SLOW
        },
        SlowStart {
            aggression: -1.0,
            ..SLOW
        },
        SlowStart {
            aggression: f64::NAN,
            ..SLOW
        },
        SlowStart {
            aggression: f64::INFINITY,
            ..SLOW
        },
        SlowStart {
            least: -0.1,
            ..SLOW
        },
        SlowStart { least: 1.1, ..SLOW },
        SlowStart {
            least: f64::NAN,
            ..SLOW
        },
    ] {
        assert!(wrong.checked().is_err(), "{wrong:?}");
    }
    for right in [
        SlowStart { least: 0.0, ..SLOW },
        SlowStart { least: 1.0, ..SLOW },
    ] {
        assert!(right.checked().is_ok(), "{right:?}");
    }
}
