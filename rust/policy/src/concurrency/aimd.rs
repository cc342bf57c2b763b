//! Additive increase, multiplicative decrease.

use super::{Range, Sample, whole};
use crate::{Nanos, SettingError};

/// How a limit grows and shrinks by single calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AimdSettings {
    /// The limit at first, and its bounds.
    pub range: Range,
    /// What remains of the limit after a loss: more than 0, less than 1.
    pub backoff: f64,
    /// A call that takes longer counts as lost; None if none does.
    pub slow: Option<Nanos>,
}

impl AimdSettings {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        if !(self.backoff > 0.0 && self.backoff < 1.0) {
            return Err(SettingError(
                "backoff_ratio must be more than 0 and less than 1",
            ));
        }
        if self.slow == Some(0) {
            return Err(SettingError("slow_call must be longer than 0"));
        }
        self.range.check()
    }
}

/// A limit that grows by one for each round of calls that went well, a round being as many calls as
/// the limit is, and shrinks by a factor at most once for each round: calls that began before it
/// last shrank say nothing of the limit that holds now. It grows only while half of it is in use.
///
/// Source: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion
/// Avoidance" (1989), in the form that TCP Reno has it.
#[derive(Clone, Debug)]
pub(super) struct Aimd {
    settings: AimdSettings,
    limit: f64,
    shrunk: Option<Nanos>,
}

impl Aimd {
    pub(super) fn new(settings: AimdSettings) -> Self {
        Self {
            settings,
            limit: f64::from(settings.range.initial),
            shrunk: None,
        }
    }

    pub(super) fn limit(&self) -> u32 {
        whole(self.limit)
    }

    pub(super) fn handle_sample(&mut self, sample: &Sample) {
        let settings = &self.settings;
        let is_slow = settings.slow.is_some_and(|slow| sample.took > slow);
        if sample.lost || is_slow {
            if self.shrunk.is_none_or(|shrunk| sample.began > shrunk) {
                self.limit = settings.range.hold(self.limit * settings.backoff);
                self.shrunk = Some(sample.now);
            }
        } else if f64::from(sample.in_flight) * 2.0 >= self.limit {
            self.limit = settings.range.hold(self.limit + 1.0 / self.limit);
        }
    }
}
