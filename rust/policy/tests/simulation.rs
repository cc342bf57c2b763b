//! Many clients over a list of hosts that changes, with calls that end in any order or are
//! cancelled.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::{HashMap, HashSet};

use bascule_policy::balance::{Kind, Sizes};
use bascule_policy::{
    BreakerSettings, CallPermit, CallPolicy, CallVerdict, FailurePercentage, Outcome,
    OutlierSettings, SlowStart, Trip,
};

const CLIENTS: u64 = 100;
const HOSTS: usize = 10;

/// A small table is enough for ten hosts and makes an update cheap.
const SIZES: Sizes = Sizes {
    ring_min: 256,
    ring_max: 1_024,
    table: 1_021,
};

/// A generator of its own, so that it shares nothing with what it tests: Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

fn hosts() -> Vec<String> {
    (0..HOSTS)
        .map(|host| format!("10.0.0.{host}:443"))
        .collect()
}

fn client(kind: Kind, seed: u64) -> CallPolicy {
    CallPolicy::new(kind.build(seed, &SIZES), None, None)
}

fn admit(policy: &mut CallPolicy, dice: &mut Dice, now: u64) -> Option<(u64, CallPermit)> {
    let hash = Some((dice.below(1 << 30) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    match policy.handle_admit("", hash, now) {
        CallVerdict::Admit { endpoint, permit } => Some((endpoint, permit)),
        _ => None,
    }
}

/// Some calls each, after which clients start anew: what a synchronized start would show in.
#[test]
fn the_first_host_gets_no_more_than_its_part() {
    for kind in Kind::ALL {
        let names = hosts();
        let mut dice = Dice(42);
        let mut taken = [0_u32; HOSTS];
        for seed in 0..CLIENTS {
            let mut policy = client(kind, seed);
            // Every client restarts ten times and makes a few calls each time.
            for life in 0..10 {
                let mut policy = if life == 0 {
                    std::mem::replace(&mut policy, client(kind, seed))
                } else {
                    client(kind, seed * 10 + life + 1_000)
                };
                let ids = policy.handle_update(names.iter().map(|name| (name.as_str(), 1)), 0);
                for &id in &ids {
                    policy.handle_ready(id, true);
                }
                for now in 0..13 {
                    let (endpoint, permit) = admit(&mut policy, &mut dice, now).unwrap();
                    taken[usize::try_from(endpoint).unwrap()] += 1;
                    policy.handle_complete(endpoint, permit, Outcome::Success, now);
                }
            }
        }
        let mean = taken.iter().sum::<u32>() / 10;
        // A ring of 256 points is not that even: it shares by luck of the hashes.
        let most = if kind == Kind::RingHash { 15 } else { 11 };
        assert!(taken[0] * 10 <= mean * most, "{kind:?}: {taken:?}");
    }
}

/// A channel under churn, and what it must hold at every step.
struct Churn {
    policy: CallPolicy,
    dice: Dice,
    now: u64,
    /// Key and weight of those that are listed, by id.
    listed: HashMap<u64, (String, u32)>,
    ready: HashSet<u64>,
    in_flight: Vec<(u64, CallPermit)>,
    picks: u64,
}

impl Churn {
    fn update(&mut self) {
        let names = hosts();
        let listing: Vec<_> = names
            .iter()
            .filter_map(|name| match self.dice.below(4) {
                0 => None,
                1 => Some((name.as_str(), 0)),
                weight => Some((name.as_str(), u32::try_from(weight).unwrap())),
            })
            .collect();
        let ids = self.policy.handle_update(listing.iter().copied(), self.now);
        let entries = ids.iter().copied().zip(listing);
        self.listed = entries
            .map(|(id, (name, weight))| (id, (name.to_owned(), weight)))
            .collect();
        self.ready.retain(|id| self.listed.contains_key(id));
        for id in ids {
            let ready = self.dice.below(5) > 0;
            self.policy.handle_ready(id, ready);
            if ready {
                self.ready.insert(id);
            } else {
                self.ready.remove(&id);
            }
        }
    }

    fn call(&mut self) {
        let Some((endpoint, permit)) = admit(&mut self.policy, &mut self.dice, self.now) else {
            return;
        };
        self.picks += 1;
        assert!(
            self.listed.contains_key(&endpoint),
            "nobody who left is picked"
        );
        let (name, weight) = &self.listed[&endpoint];
        assert!(*weight > 0, "{name} is picked with weight 0");
        assert!(self.ready.contains(&endpoint), "{name} is picked unready");
        self.in_flight.push((endpoint, permit));
    }

    fn end(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let call = self.dice.below(self.in_flight.len());
        let (endpoint, permit) = self.in_flight.swap_remove(call);
        let outcome = match self.dice.below(10) {
            0..3 => Outcome::Abandoned,
            3 => Outcome::Failure,
            _ => Outcome::Success,
        };
        self.policy
            .handle_complete(endpoint, permit, outcome, self.now);
    }
}

#[test]
fn churn_leaves_nothing_behind() {
    let breaker = BreakerSettings {
        trip: Trip::InARow {
            failure_threshold: 3,
            success_threshold: 1,
        },
        open_for: 50,
        half_open_permits: 1,
        half_open_for: 50,
    };
    let outlier = OutlierSettings {
        interval: 100,
        base_ejection_time: 200,
        max_ejection_time: 1_000,
        max_ejection_percent: 50,
        success_rate: None,
        failure_percentage: Some(FailurePercentage {
            threshold: 20,
            minimum_hosts: 2,
            request_volume: 3,
            enforcement_percentage: 80,
        }),
    };
    let slow_start = SlowStart {
        window: 300,
        aggression: 1.0,
        least: 0.1,
    };
    for kind in Kind::ALL {
        let balancer = kind.build(7, &SIZES);
        let policy = CallPolicy::new(balancer, Some(breaker), None)
            .with_outlier_detection(outlier, 7)
            .with_latency(100);
        let mut churn = Churn {
            policy: if kind.hashes() {
                policy
            } else {
                policy.with_slow_start(slow_start)
            },
            dice: Dice(9),
            now: 0,
            listed: HashMap::new(),
            ready: HashSet::new(),
            in_flight: Vec::new(),
            picks: 0,
        };
        for _ in 0..1_000 {
            churn.update();
            for _ in 0..30 {
                churn.now += churn.dice.below(10) as u64;
                churn.call();
                churn.end();
                churn.call();
                churn.end();
            }
        }
        while !churn.in_flight.is_empty() {
            churn.end();
        }
        assert!(churn.picks > 20_000, "{kind:?}: {}", churn.picks);
        let busy: Vec<_> = churn
            .policy
            .endpoints()
            .filter(|view| view.in_flight > 0)
            .collect();
        assert!(busy.is_empty(), "{kind:?}: {busy:?}");
    }
}

#[test]
fn everybody_shares_by_weight() {
    for kind in Kind::ALL {
        let sizes = Sizes {
            ring_min: 16_384,
            ring_max: 32_768,
            ..SIZES
        };
        let mut policy = CallPolicy::new(kind.build(3, &sizes), None, None);
        let weights = [0, 1, 2, 3, 4];
        let names = hosts();
        let listing = names.iter().map(String::as_str).zip(weights);
        let ids = policy.handle_update(listing, 0);
        for &id in &ids {
            policy.handle_ready(id, true);
        }
        let mut dice = Dice(3);
        let mut taken = [0_usize; 5];
        for _ in 0..20_000 {
            let (endpoint, permit) = admit(&mut policy, &mut dice, 0).unwrap();
            taken[usize::try_from(endpoint).unwrap()] += 1;
            policy.handle_complete(endpoint, permit, Outcome::Success, 1_024);
        }
        assert_eq!(taken[0], 0, "{kind:?}");
        for (host, &weight) in weights.iter().enumerate() {
            let due = 2_000 * weight as usize;
            assert!(taken[host].abs_diff(due) * 10 <= due, "{kind:?}: {taken:?}");
        }
    }
}
