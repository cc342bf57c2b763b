//! A token bucket.

use std::time::Duration;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// Each second beyond the burst.
    pub per_second: u32,
}

/// What is left of a [`Rate`].
pub(crate) struct Bucket {
    rate: Rate,
    left: f64,
    at: Duration,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now: Duration) -> Self {
        Self {
            rate,
            left: f64::from(rate.burst),
            at: now,
        }
    }

    /// False if it has happened too often.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.give(passed * f64::from(self.rate.per_second));
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }

    /// Makes amends for `count` of them.
    pub(crate) fn give(&mut self, count: f64) {
        self.left = (self.left + count).min(f64::from(self.rate.burst));
    }
}
