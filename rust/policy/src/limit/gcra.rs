//! The generic cell rate algorithm.

use super::{Algorithm, Decision, Quota};
use crate::Nanos;

/// Remembers of a key only when it will have rested: its theoretical arrival time.
///
/// Source: ITU-T I.371, annex A, "virtual scheduling". In any window `w` it allows at most
/// `burst + floor(rate * w)`.
#[derive(Clone, Copy, Debug)]
pub struct Gcra {
    quota: Quota,
}

impl Gcra {
    /// Holds each key to that quota.
    pub fn new(quota: Quota) -> Self {
        Self { quota }
    }
}

impl Algorithm for Gcra {
    /// The theoretical arrival time, in ticks of the quota.
    type State = u128;

    fn rested(&self, now: Nanos) -> u128 {
        self.quota.ticks(now)
    }

    fn decide(&self, arrival: u128, cost: u32, now: Nanos) -> (u128, Decision) {
        let now = self.quota.ticks(now);
        let owed = arrival.saturating_sub(now);
        let (allowed, decision) = self.quota.decision(owed, cost);
        let taken = if allowed {
            u128::from(self.quota.unit) * u128::from(cost)
        } else {
            0
        };
        (now + owed + taken, decision)
    }

    fn rested_at(&self, arrival: u128) -> Nanos {
        self.quota.nanos(arrival)
    }
}
