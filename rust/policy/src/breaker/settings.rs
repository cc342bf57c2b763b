//! When a breaker opens and closes.

use super::Outcome;
use super::window::{Ended, Tally};
use crate::{Nanos, SettingError};

/// The longest that permits of a half-open breaker are waited for, unless set otherwise: the time
/// for which the breaker stays open by default, so that a lost probe costs no more than a failed
/// one.
pub const HALF_OPEN_FOR: Nanos = 30_000_000_000;

/// The most calls that a window holds: what one remembers of them is a byte each, for every
/// endpoint.
pub const MOST_CALLS: u32 = 65_536;

/// The most buckets of a window of time, at 12 bytes each.
pub const MOST_BUCKETS: u32 = 1_000;

/// When a breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// What opens a closed breaker, and closes a half-open one.
    pub trip: Trip,
    /// How long an open breaker refuses before it lets a probe through.
    pub open_for: Nanos,
    /// Probes of a half-open breaker: in flight together if it trips in a row, in all if it has a
    /// window.
    pub half_open_permits: u32,
    /// How long half-open permits are waited for before they are taken for lost.
    pub half_open_for: Nanos,
}

/// By what a breaker judges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trip {
    /// By results in a row.
    InARow {
        /// Failures in a row that open a closed breaker.
        failure_threshold: u32,
        /// Successes, without a failure between them, that close a half-open breaker.
        success_threshold: u32,
    },
    /// By the rates of failures and of slow calls among the last calls.
    Window(WindowSettings),
}

/// Which calls count, and what rates are too much.
///
/// Source: resilience4j's `CircuitBreakerConfig`, whose terms these are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowSettings {
    /// Which of the last calls count.
    pub span: Span,
    /// Calls within the window below which a closed breaker is not judged.
    pub minimum_calls: u32,
    /// The share of failures, above 0 and at most 1, from which on it opens.
    pub failure_rate: f64,
    /// A call that takes longer than this is slow; None if no call is.
    pub slow_call: Option<Nanos>,
    /// The share of slow calls, above 0 and at most 1, from which on it opens.
    pub slow_call_rate: f64,
}

/// Which of the last calls a window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The last so many.
    Calls(u32),
    /// Those of the bucket of time that is now, and of those before it.
    Time {
        /// How many buckets, the present one included.
        buckets: u32,
        /// How long each of them lasts.
        width: Nanos,
    },
}

impl Default for BreakerSettings {
    /// 5 failures, 3 successes, 30 s, one probe at a time.
    fn default() -> Self {
        Self {
            trip: Trip::InARow {
                failure_threshold: 5,
                success_threshold: 3,
            },
            open_for: 30_000_000_000,
            half_open_permits: 1,
            half_open_for: HALF_OPEN_FOR,
        }
    }
}

impl BreakerSettings {
    /// Refuses settings that could never open, close or probe.
    pub fn checked(self) -> Result<Self, SettingError> {
        match self.trip {
            Trip::InARow {
                failure_threshold,
                success_threshold,
            } => {
                if failure_threshold == 0 {
                    return Err(SettingError("failure_threshold must be at least 1"));
                }
                if success_threshold == 0 {
                    return Err(SettingError("success_threshold must be at least 1"));
                }
            }
            Trip::Window(window) => window.check()?,
        }
        if self.half_open_permits == 0 {
            return Err(SettingError("half_open_permits must be at least 1"));
        }
        if self.half_open_for == 0 {
            return Err(SettingError("half_open_for must be longer than 0"));
        }
        Ok(self)
    }

    /// Whether it must be told how long a call took.
    pub fn timed(&self) -> bool {
        matches!(self.trip, Trip::Window(window) if window.slow_call.is_some())
    }
}

impl WindowSettings {
    pub(super) fn ended(&self, outcome: Outcome, took: Nanos) -> Ended {
        Ended {
            failed: outcome == Outcome::Failure,
            slow: self.slow_call.is_some_and(|slow_call| took > slow_call),
        }
    }

    /// Whether a share of these calls is too much; of none it never is.
    ///
    /// Shares are compared as quotients: the quotient of two counts is rounded to the same number
    /// as the setting that says it, so that 7 of 100 are 0.07.
    pub(super) fn exceeded_by(&self, tally: Tally) -> bool {
        let share = |count: u32| f64::from(count) / f64::from(tally.calls);
        share(tally.failures) >= self.failure_rate || share(tally.slow) >= self.slow_call_rate
    }

    fn check(&self) -> Result<(), SettingError> {
        match self.span {
            Span::Calls(calls) => {
                if calls == 0 || calls > MOST_CALLS {
                    return Err(SettingError("a window must hold 1 to 65536 calls"));
                }
                if self.minimum_calls > calls {
                    return Err(SettingError(
                        "minimum_calls must not be more than the calls of the window",
                    ));
                }
            }
            Span::Time { buckets, width } => {
                if buckets == 0 || buckets > MOST_BUCKETS {
                    return Err(SettingError("a window must have 1 to 1000 buckets"));
                }
                if width == 0 {
                    return Err(SettingError("buckets must be longer than 0"));
                }
            }
        }
        if self.minimum_calls == 0 {
            return Err(SettingError("minimum_calls must be at least 1"));
        }
        let is_share = |rate: f64| rate > 0.0 && rate <= 1.0;
        if !is_share(self.failure_rate) {
            return Err(SettingError("failure_rate must be above 0 and at most 1"));
        }
        if !is_share(self.slow_call_rate) {
            return Err(SettingError("slow_call_rate must be above 0 and at most 1"));
        }
        if self.slow_call == Some(0) {
            return Err(SettingError("slow_call must be longer than 0"));
        }
        Ok(())
    }
}
