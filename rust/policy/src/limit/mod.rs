//! How often something may happen, for each key apart.
//!
//! [`Keyed`] remembers the keys; what it remembers of one, and how that decides, is an
//! [`Algorithm`]: one file each. After a clock has gone backwards, keys wait for it to catch up.
//!
//! All arithmetic is exact. Time is counted in ticks so fine that both a nanosecond and the time
//! that one unit of the rate takes are whole numbers of them: no fraction is ever lost.

mod gcra;
mod keyed;
mod sliding_window;
mod token_bucket;

pub use gcra::Gcra;
pub use keyed::Keyed;
pub use sliding_window::SlidingWindow;
pub use token_bucket::TokenBucket;

use crate::{Nanos, SettingError};

/// The longest period, about 146 years: twice that is all that the clock can count.
const LONGEST_PERIOD: Nanos = Nanos::MAX / 4;

/// `limit` units in each `period`, of which `burst` may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    burst: u32,
    /// Ticks that a nanosecond lasts.
    nano: u32,
    /// Ticks that one unit takes.
    unit: u64,
}

impl Quota {
    /// Refuses a quota that would allow nothing.
    pub fn new(limit: u32, period: Nanos, burst: u32) -> Result<Self, SettingError> {
        if limit == 0 {
            return Err(SettingError("limit must be at least 1"));
        }
        if burst == 0 {
            return Err(SettingError("burst must be at least 1"));
        }
        if period == 0 || period > LONGEST_PERIOD {
            return Err(SettingError(
                "period must be longer than 0 and at most 146 years",
            ));
        }
        let common = greatest_common_divisor(u64::from(limit), period);
        // The divisor is at most the limit, so the quotient fits.
        let nano = u32::try_from(u64::from(limit) / common).unwrap_or(u32::MAX);
        Ok(Self {
            burst,
            nano,
            unit: period / common,
        })
    }

    /// Ticks that the whole burst takes.
    fn capacity(&self) -> u128 {
        u128::from(self.unit) * u128::from(self.burst)
    }

    fn ticks(&self, time: Nanos) -> u128 {
        u128::from(time) * u128::from(self.nano)
    }

    /// The first nanosecond that is not before so many ticks.
    fn nanos(&self, ticks: u128) -> Nanos {
        divide(ticks + u128::from(self.nano - 1), u64::from(self.nano))
    }

    /// The decision on `cost` with that much of the capacity used, in ticks.
    fn decision(&self, used: u128, cost: u32) -> (bool, Decision) {
        let taken = u128::from(self.unit) * u128::from(cost);
        let missing = (used + taken).saturating_sub(self.capacity());
        let allowed = missing == 0;
        let used = if allowed { used + taken } else { used };
        let decision = Decision {
            limit: self.burst,
            remaining: self.units(self.capacity().saturating_sub(used)),
            reset_after: self.nanos(used),
            retry_after: (cost <= self.burst).then(|| self.nanos(missing)),
            allowed,
        };
        (allowed, decision)
    }

    /// Whole units in so many ticks.
    fn units(&self, ticks: u128) -> u32 {
        u32::try_from(divide(ticks, self.unit)).unwrap_or(u32::MAX)
    }
}

/// The answer to one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may happen; if not, nothing was taken.
    pub allowed: bool,
    /// What a key that rested may take at once.
    pub limit: u32,
    /// What the key may still take at once now.
    pub remaining: u32,
    /// How long until all of `limit` is there again.
    pub reset_after: Nanos,
    /// How long until the same check would be allowed: 0 if it was, None if it never will be.
    pub retry_after: Option<Nanos>,
}

/// A way to hold a key to its quota.
pub trait Algorithm {
    /// What has to be remembered of a key.
    type State: Copy + std::fmt::Debug;

    /// The state of a key that was never seen or has rested long enough.
    fn rested(&self, now: Nanos) -> Self::State;

    /// Decides, and returns the state that an allowed check leaves behind.
    fn decide(&self, state: Self::State, cost: u32, now: Nanos) -> (Self::State, Decision);

    /// When a key of that state will have rested, so that it can be forgotten without a trace.
    fn rested_at(&self, state: Self::State) -> Nanos;

    /// How much a key of that state would get back if it were forgotten now: 0 if it has rested.
    ///
    /// Measured so that keys of one quota can be compared, in whatever unit.
    fn used(&self, state: Self::State, now: Nanos) -> u128 {
        u128::from(self.rested_at(state).saturating_sub(now))
    }
}

fn greatest_common_divisor(mut larger: u64, mut smaller: u64) -> u64 {
    while smaller != 0 {
        (larger, smaller) = (smaller, larger % smaller);
    }
    larger
}

/// Divides in 64 bits where it can: the division of 128 bits is many times slower.
fn divide(dividend: u128, divisor: u64) -> u64 {
    match u64::try_from(dividend) {
        Ok(dividend) => dividend / divisor,
        Err(_) => u64::try_from(dividend / u128::from(divisor)).unwrap_or(u64::MAX),
    }
}
