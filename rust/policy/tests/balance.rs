//! The balancers alone, and within the decision about a call.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bascule_policy::balance::{
    Balancer, Call, Candidate, Kind, LeastRequest, Member, RoundRobin, Sizes,
};
use bascule_policy::limit::{Gcra, Keyed, Quota};
use bascule_policy::{
    BreakerSettings, BreakerState, CallPermit, CallPolicy, CallVerdict, Nanos, Outcome, Trip,
};
use common::{list, pick, pick_among, tally};
use proptest::prelude::*;

#[test]
fn names_are_known() {
    for kind in Kind::ALL {
        assert_eq!(Kind::by_name(kind.name()), Some(kind));
    }
    assert_eq!(Kind::by_name("fastest"), None);
}

#[test]
fn nothing_to_choose_from() {
    for kind in Kind::ALL {
        let mut balancer = kind.build(1, &Sizes::default());
        let balancer = balancer.as_mut();
        assert_eq!(pick(balancer, None), None, "{kind:?}");
        list(balancer, &[7]);
        assert_eq!(pick(balancer, None), Some(0), "{kind:?}");
        list(balancer, &[]);
        assert_eq!(pick(balancer, None), None, "{kind:?}");
    }
}

#[test]
fn round_robin_takes_equals_in_turn() {
    let mut balancer = RoundRobin::new(3);
    list(&mut balancer, &[5, 5, 5]);
    let picks: Vec<_> = (0..6).map(|_| pick(&mut balancer, None).unwrap()).collect();
    assert!(
        picks.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 3),
        "{picks:?}"
    );
}

#[test]
fn round_robin_spreads_the_light_ones_over_the_rounds() {
    let mut balancer = RoundRobin::new(3);
    list(&mut balancer, &[2, 1, 1]);
    let picks: Vec<_> = (0..12)
        .map(|_| pick(&mut balancer, None).unwrap())
        .collect();
    // Never both of them between two calls of the heavy one.
    assert!(
        picks
            .windows(2)
            .all(|pair| (pair[0] == 0) != (pair[1] == 0)),
        "{picks:?}"
    );
}

#[test]
fn clients_do_not_all_start_with_the_first() {
    // 100 clients, 10 hosts, one lap and a half each: the mean is 150 calls a host.
    let mut first = 0;
    for seed in 0..100 {
        let mut balancer = RoundRobin::new(seed);
        list(&mut balancer, &[1; 10]);
        first += tally(&mut balancer, 10, 15)[0];
    }
    assert!(first <= 165, "{first}");
}

#[test]
fn least_request_shares_by_weight_when_idle() {
    let mut balancer = LeastRequest::new(1);
    list(&mut balancer, &[1, 2, 5]);
    let tally = tally(&mut balancer, 3, 80_000);
    for (taken, due) in tally.iter().zip([10_000_u32, 20_000, 50_000]) {
        assert!(taken.abs_diff(due) < due / 20, "{tally:?}");
    }
}

#[test]
fn least_request_shares_by_weight_when_busy() {
    let mut balancer = LeastRequest::new(1);
    list(&mut balancer, &[1, 3]);
    let mut load = [0_u32; 2];
    for _ in 0..4_000 {
        let place = pick_among(&mut balancer, &load).unwrap();
        load[place] += 1;
    }
    assert!(load[0].abs_diff(1_000) <= 1, "{load:?}");
}

proptest! {
    // A failure names its seed; files for it would clutter the tree.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any run of as many picks as the weights sum to takes each as often as its weight says.
    #[test]
    fn round_robin_is_exact(
        seed: u64,
        weights in prop::collection::vec(1..9_u32, 1..7),
        before in 0..40_u32,
    ) {
        let mut balancer = RoundRobin::new(seed);
        list(&mut balancer, &weights);
        tally(&mut balancer, weights.len(), before);
        let lap = weights.iter().sum();
        prop_assert_eq!(tally(&mut balancer, weights.len(), lap), weights);
    }

    /// The one that is busiest for its weight loses against whichever it is compared with.
    #[test]
    fn least_request_spares_the_busiest(
        seed: u64,
        hosts in prop::collection::vec((1..9_u32, 0..50_u32), 2..7),
    ) {
        let mut balancer = LeastRequest::new(seed);
        let weights: Vec<_> = hosts.iter().map(|host| host.0).collect();
        list(&mut balancer, &weights);
        let loads: Vec<_> = hosts.iter().map(|host| host.1).collect();
        for _ in 0..50 {
            let (weight, load) = hosts[pick_among(&mut balancer, &loads).unwrap()];
            let beats = hosts.iter().filter(|other| load * other.0 <= other.1 * weight).count();
            // Itself and one other at least.
            prop_assert!(beats >= 2);
        }
    }
}

const BREAKER: BreakerSettings = BreakerSettings {
    trip: Trip::InARow {
        failure_threshold: 1,
        success_threshold: 1,
    },
    open_for: 10,
    half_open_permits: 1,
    half_open_for: 20,
};

fn policy(hosts: &[(&str, u32)]) -> CallPolicy {
    let mut policy = CallPolicy::new(Box::new(RoundRobin::new(0)), Some(BREAKER), None);
    for id in policy.handle_update(hosts.iter().copied(), 0) {
        policy.handle_ready(id, true);
    }
    policy
}

fn admit(policy: &mut CallPolicy, now: Nanos) -> (u64, CallPermit) {
    match policy.handle_admit("", None, now) {
        CallVerdict::Admit { endpoint, permit } => (endpoint, permit),
        refused => unreachable!("{refused:?} at {now}: {policy:?}"),
    }
}

fn fail(policy: &mut CallPolicy, now: Nanos) -> u64 {
    let (endpoint, permit) = admit(policy, now);
    policy.handle_complete(endpoint, permit, Outcome::Failure, now);
    endpoint
}

#[test]
fn only_ready_and_weighted_endpoints_are_picked() {
    let mut policy = CallPolicy::new(Box::new(RoundRobin::new(0)), None, None);
    assert_eq!(policy.handle_admit("", None, 0), CallVerdict::NoEndpoint);
    let ids = policy.handle_update([("a", 1), ("b", 0), ("c", 1)], 0);
    assert_eq!(policy.handle_admit("", None, 0), CallVerdict::NoEndpoint);
    policy.handle_ready(ids[1], true);
    assert_eq!(policy.handle_admit("", None, 0), CallVerdict::NoEndpoint);
    policy.handle_ready(ids[2], true);
    policy.handle_ready(99, true);
    assert!((0..10).all(|_| admit(&mut policy, 0).0 == ids[2]));
}

#[test]
fn updates_keep_what_stays_and_forget_what_leaves() {
    let mut policy = policy(&[("a", 1), ("b", 1)]);
    let (endpoint, permit) = admit(&mut policy, 0);
    let stays = if endpoint == 0 { "a" } else { "b" };
    assert_eq!(
        policy.handle_update([("new", 1), (stays, 2), (stays, 3)], 0),
        [2, endpoint, endpoint]
    );
    let view = policy.endpoints().nth(1).unwrap();
    assert_eq!(
        (view.key, view.weight, view.ready, view.in_flight),
        (stays, 5, true, 1)
    );
    assert_eq!(policy.handle_update([(stays, 1)], 0), [endpoint]);
    assert_eq!(policy.handle_update([], 0), []);
    policy.handle_complete(endpoint, permit, Outcome::Failure, 0);
    assert_eq!(policy.handle_update([(stays, 1)], 0), [3]);
    let view = policy.endpoints().next().unwrap();
    assert_eq!(
        (view.ready, view.in_flight, view.breaker),
        (false, 0, BreakerState::Closed)
    );
}

/// Counts how often it is told who is listed.
#[derive(Debug)]
struct Counting(Arc<AtomicU32>);

impl Balancer for Counting {
    fn handle_members(&mut self, _members: &[Member<'_>]) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn handle_update(&mut self, _candidates: &[Candidate]) {}

    fn pick(&mut self, _call: &Call<'_>) -> Option<usize> {
        None
    }
}

#[test]
fn a_list_that_is_the_same_builds_no_table() {
    let told = Arc::new(AtomicU32::new(0));
    let mut policy = CallPolicy::new(Box::new(Counting(Arc::clone(&told))), None, None);
    let mut update = |listed: &[(&str, u32)]| {
        policy.handle_update(listed.iter().copied(), 0);
        told.swap(0, Ordering::Relaxed)
    };
    assert_eq!(update(&[("a", 1), ("b", 2)]), 1);
    assert_eq!(update(&[("a", 1), ("b", 2)]), 0);
    assert_eq!(update(&[("a", 1), ("b", 3)]), 1);
    assert_eq!(update(&[("b", 3), ("a", 1)]), 1);
    assert_eq!(update(&[("a", 1)]), 1);
    assert_eq!(update(&[("c", 1)]), 1);
    assert_eq!(update(&[]), 1);
    assert_eq!(update(&[]), 0);
    assert_eq!(update(&[("c", 1)]), 1);
}

#[test]
fn endpoints_with_open_breakers_are_skipped_until_they_may_be_probed() {
    let mut policy = policy(&[("a", 1), ("b", 1)]);
    let broken = fail(&mut policy, 0);
    for _ in 0..4 {
        let (endpoint, permit) = admit(&mut policy, 5);
        assert_ne!(endpoint, broken);
        policy.handle_complete(endpoint, permit, Outcome::Success, 5);
    }
    let other = fail(&mut policy, 6);
    assert_ne!(other, broken);
    assert_eq!(
        policy.handle_admit("", None, 7),
        CallVerdict::BreakerOpen { retry_at: Some(10) }
    );
    let (probed, permit) = admit(&mut policy, 10);
    assert_eq!(probed, broken);
    // `broken` is out with its probe, so what is known is when `other` may be probed.
    assert_eq!(
        policy.handle_admit("", None, 10),
        CallVerdict::BreakerOpen { retry_at: Some(16) }
    );
    policy.handle_complete(probed, permit, Outcome::Success, 11);
    assert!((0..4).all(|_| admit(&mut policy, 11).0 == broken));
}

#[test]
fn a_report_does_not_hide_that_an_endpoint_went() {
    let mut policy = policy(&[("a", 1), ("b", 1)]);
    let (gone, permit) = admit(&mut policy, 0);
    policy.handle_ready(gone, false);
    policy.handle_complete(gone, permit, Outcome::Success, 0);
    assert!((0..4).all(|_| admit(&mut policy, 0).0 != gone));
}

#[test]
fn the_late_result_of_an_earlier_generation_moves_nothing() {
    let mut policy = policy(&[("a", 1)]);
    let (endpoint, late) = admit(&mut policy, 0);
    fail(&mut policy, 0);
    let (_, probe) = admit(&mut policy, 10);
    // Closed, open, half-open: two generations later.
    policy.handle_complete(endpoint, late, Outcome::Failure, 11);
    let state = |policy: &CallPolicy| policy.endpoints().next().unwrap().breaker;
    assert_eq!(state(&policy), BreakerState::HalfOpen);
    policy.handle_complete(endpoint, probe, Outcome::Success, 12);
    assert_eq!(state(&policy), BreakerState::Closed);
    assert_eq!(policy.endpoints().next().unwrap().in_flight, 0);
}

#[test]
fn a_lost_probe_does_not_wedge_the_endpoint() {
    let mut policy = policy(&[("a", 1)]);
    fail(&mut policy, 0);
    let _lost = admit(&mut policy, 10);
    assert_eq!(
        policy.handle_admit("", None, 29),
        CallVerdict::BreakerOpen { retry_at: None }
    );
    admit(&mut policy, 30);
}

#[test]
fn a_clock_that_goes_backwards_is_refused_not_trusted() {
    let mut policy = policy(&[("a", 1)]);
    fail(&mut policy, 0);
    policy.handle_update([("a", 1), ("b", 1)], 0);
    // Gathered at 10, when the probe was due; asked at 9.
    let looked = policy.handle_admit("", None, 10);
    assert!(matches!(looked, CallVerdict::Admit { .. }));
    assert_eq!(
        policy.handle_admit("", None, 9),
        CallVerdict::BreakerOpen { retry_at: None }
    );
}

#[test]
fn only_a_call_that_goes_somewhere_takes_from_the_limit() {
    let limit = Keyed::new(Gcra::new(Quota::new(1, 100, 1).unwrap()), 8);
    let mut policy = CallPolicy::new(Box::new(LeastRequest::new(0)), Some(BREAKER), Some(limit));
    assert_eq!(policy.handle_admit("key", None, 0), CallVerdict::NoEndpoint);
    let ids = policy.handle_update([("a", 1)], 0);
    policy.handle_ready(ids[0], true);
    let CallVerdict::Admit { endpoint, permit } = policy.handle_admit("key", None, 1) else {
        unreachable!("nothing was taken yet")
    };
    assert_eq!(
        policy.handle_admit("key", None, 2),
        CallVerdict::RateLimited {
            retry_at: Some(101)
        }
    );
    assert!(matches!(
        policy.handle_admit("other", None, 2),
        CallVerdict::Admit { .. }
    ));
    policy.handle_complete(endpoint, permit, Outcome::Failure, 2);
    assert_eq!(
        policy.handle_admit("third", None, 3),
        CallVerdict::BreakerOpen { retry_at: Some(12) }
    );
    assert!(matches!(
        policy.handle_admit("third", None, 12),
        CallVerdict::Admit { .. }
    ));
}

#[test]
fn a_call_is_sent_elsewhere_as_long_as_there_is_an_elsewhere() {
    for kind in Kind::ALL {
        let mut policy = CallPolicy::new(kind.build(1, &Sizes::default()), None, None);
        let ids = policy.handle_update([("a", 1), ("b", 5), ("c", 1), ("d", 1)], 0);
        for &id in &ids[..3] {
            policy.handle_ready(id, true);
        }
        for hash in 0..20 {
            let mut sent_to = Vec::new();
            for _ in 0..4 {
                let verdict = policy.handle_admit_elsewhere("", Some(hash), &sent_to, 0);
                let CallVerdict::Admit { endpoint, permit } = verdict else {
                    panic!("{kind:?}: {verdict:?}");
                };
                policy.handle_complete(endpoint, permit, Outcome::Abandoned, 0);
                sent_to.push(endpoint);
            }
            // The fourth had to go where another one was.
            let mut distinct = sent_to.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct, ids[..3], "{kind:?}: {sent_to:?}");
        }
    }
}
