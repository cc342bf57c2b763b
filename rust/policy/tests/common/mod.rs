//! What tests of balancers share.

#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(dead_code, reason = "not every test needs all of it")]

use bascule_policy::balance::{Balancer, Call, Candidate, Loads, Member};

/// Calls in flight and latencies, as a test says.
pub struct Told<'a> {
    pub in_flight: &'a [u32],
    pub latency: &'a [Option<f64>],
}

impl Loads for Told<'_> {
    fn in_flight(&self, candidate: usize) -> u32 {
        self.in_flight.get(candidate).copied().unwrap_or(0)
    }

    fn latency(&self, candidate: usize) -> Option<f64> {
        self.latency.get(candidate).copied().flatten()
    }
}

/// Lists hosts with these weights, all of which can take calls.
pub fn list(balancer: &mut dyn Balancer, weights: &[u32]) {
    let keys: Vec<_> = (0..weights.len())
        .map(|host| format!("10.0.0.{host}:443"))
        .collect();
    let members: Vec<_> = keys
        .iter()
        .zip(weights)
        .map(|(key, &weight)| Member { key, weight })
        .collect();
    balancer.handle_members(&members);
    let hosts: Vec<_> = (0..weights.len()).collect();
    allow(balancer, weights, &hosts);
}

/// Lets only these hosts take calls.
pub fn allow(balancer: &mut dyn Balancer, weights: &[u32], hosts: &[usize]) {
    let candidates: Vec<_> = hosts
        .iter()
        .map(|&member| Candidate {
            member,
            weight: weights[member],
        })
        .filter(|candidate| candidate.weight > 0)
        .collect();
    balancer.handle_update(&candidates);
}

/// A pick while everybody is idle.
pub fn pick(balancer: &mut dyn Balancer, hash: Option<u64>) -> Option<usize> {
    let loads = &Told {
        in_flight: &[],
        latency: &[],
    };
    balancer.pick(&Call { hash, loads })
}

/// A pick with that many calls in flight.
pub fn pick_among(balancer: &mut dyn Balancer, in_flight: &[u32]) -> Option<usize> {
    let loads = &Told {
        in_flight,
        latency: &[],
    };
    balancer.pick(&Call { hash: None, loads })
}

/// How often each is taken.
pub fn tally(balancer: &mut dyn Balancer, candidates: usize, picks: u32) -> Vec<u32> {
    let mut tally = vec![0; candidates];
    for _ in 0..picks {
        tally[pick(balancer, None).unwrap()] += 1;
    }
    tally
}
