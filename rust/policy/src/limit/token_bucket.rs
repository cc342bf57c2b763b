//! The token bucket.

use super::{Algorithm, Decision, Quota};
use crate::{Nanos, SettingError};

/// Remembers of a key how full its bucket was and when.
///
/// Source: Turner, "New directions in communications" (1986); RFC 2697 uses it for policing.
/// It decides exactly as [`super::Gcra`] does and costs the same: the two check each other.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    quota: Quota,
    capacity: u64,
}

/// A bucket at a time: full when its level is the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    ticks: u64,
    at: Nanos,
}

impl TokenBucket {
    /// Holds each key to that quota.
    pub fn new(quota: Quota) -> Result<Self, SettingError> {
        let capacity = u64::try_from(quota.capacity()).map_err(|_| {
            SettingError("burst times period is above the 584 years that a token bucket can count")
        })?;
        Ok(Self { quota, capacity })
    }
}

impl Algorithm for TokenBucket {
    type State = Level;

    fn rested(&self, now: Nanos) -> Level {
        Level {
            ticks: self.capacity,
            at: now,
        }
    }

    fn decide(&self, level: Level, cost: u32, now: Nanos) -> (Level, Decision) {
        let nano = u64::from(self.quota.nano);
        let poured = now.saturating_sub(level.at).saturating_mul(nano);
        let ticks = level.ticks.saturating_add(poured).min(self.capacity);
        // Nothing pours while a clock that went backwards catches up.
        let ahead = u128::from(level.at.saturating_sub(now)) * u128::from(nano);
        let used = u128::from(self.capacity - ticks) + ahead;
        let (allowed, decision) = self.quota.decision(used, cost);
        let taken = if allowed {
            self.quota.unit * u64::from(cost)
        } else {
            0
        };
        (
            Level {
                ticks: ticks - taken,
                at: now.max(level.at),
            },
            decision,
        )
    }

    fn rested_at(&self, level: Level) -> Nanos {
        let missing = u128::from(self.capacity - level.ticks);
        level.at.saturating_add(self.quota.nanos(missing))
    }
}
