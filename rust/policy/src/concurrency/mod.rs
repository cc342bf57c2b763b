//! How many calls may be in progress at once: a number that is given, or one that is learned from
//! how long calls take and which of them are lost.
//!
//! A [`Limiter`] counts what is in progress and says yes or no; how its limit moves is a [`Rule`],
//! one file each. A permit says when its call began, so that a limiter can tell what a call has
//! seen of a change. A call that nobody waited for gives its permit back and teaches nothing.
//!
//! Source of the idea: Little's law, and TCP's congestion control applied to calls, as in Netflix's
//! "Performance Under Load" (2018).

mod admission;
mod aimd;
mod floor;
mod gradient;

pub use admission::{Admission, Refused};
pub use aimd::AimdSettings;
pub use floor::{FLOOR_CALLS, FLOOR_SPAN};
pub use gradient::Gradient2Settings;

use self::aimd::Aimd;
use self::gradient::Gradient2;
use crate::{Nanos, SettingError};

/// How the limit moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Not at all.
    Fixed(u32),
    /// Up by one for a round of calls, down by a factor when one is lost or slow.
    Aimd(AimdSettings),
    /// After the ratio of how long calls take in the long run and lately.
    Gradient2(Gradient2Settings),
}

impl Rule {
    /// Refuses settings that would let no call through, or never move.
    pub fn checked(self) -> Result<Self, SettingError> {
        match self {
            Self::Fixed(0) => return Err(SettingError("limit must be at least 1")),
            Self::Fixed(_) => {}
            Self::Aimd(settings) => settings.check()?,
            Self::Gradient2(settings) => settings.check()?,
        }
        Ok(self)
    }
}

/// Where the limit of a rule that moves it begins, and the bounds that it keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The limit at first.
    pub initial: u32,
    /// The least that it becomes.
    pub least: u32,
    /// The most that it becomes.
    pub most: u32,
}

impl Range {
    fn check(self) -> Result<(), SettingError> {
        if self.least == 0 {
            return Err(SettingError("min_limit must be at least 1"));
        }
        if self.least > self.initial || self.initial > self.most {
            return Err(SettingError(
                "initial_limit must be from min_limit to max_limit",
            ));
        }
        Ok(())
    }

    fn hold(self, limit: f64) -> f64 {
        limit.clamp(f64::from(self.least), f64::from(self.most))
    }
}

/// How a call ended, as far as a limit learns from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was done: how long it took counts.
    Done,
    /// It was lost to overload: refused or too late.
    Lost,
    /// It says nothing of load: nobody waited for it, or it failed for another reason.
    Untold,
}

/// The right to make one call; given back once with [`Limiter::handle_complete`].
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    began: Nanos,
}

impl Permit {
    /// A permit that has been elsewhere: all that it is, is when its call began.
    pub fn begun_at(began: Nanos) -> Self {
        Self { began }
    }

    /// When its call began.
    pub fn began(&self) -> Nanos {
        self.began
    }
}

/// One call that has ended.
struct Sample {
    began: Nanos,
    took: Nanos,
    lost: bool,
    /// Calls in progress when it ended, itself included.
    in_flight: u32,
    now: Nanos,
}

#[derive(Clone, Debug)]
enum Algorithm {
    Fixed(u32),
    Aimd(Aimd),
    Gradient2(Box<Gradient2>),
}

/// Calls in progress, and how many there may be.
#[derive(Clone, Debug)]
pub struct Limiter {
    algorithm: Algorithm,
    in_flight: u32,
    counts: LimiterCounts,
}

/// What a limiter has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimiterCounts {
    /// Calls that were done, were lost, and said nothing.
    pub endings: [u64; 3],
    /// Calls that were refused.
    pub rejected: u64,
}

impl Limiter {
    /// With nothing in progress; the seed spreads what would otherwise happen at many clients at
    /// once.
    pub fn new(rule: Rule, seed: u64) -> Self {
        let algorithm = match rule {
            Rule::Fixed(limit) => Algorithm::Fixed(limit),
            Rule::Aimd(settings) => Algorithm::Aimd(Aimd::new(settings)),
            Rule::Gradient2(settings) => {
                Algorithm::Gradient2(Box::new(Gradient2::new(settings, seed)))
            }
        };
        Self {
            algorithm,
            in_flight: 0,
            counts: LimiterCounts::default(),
        }
    }

    /// Asks to make a call.
    pub fn handle_admit(&mut self, now: Nanos) -> Option<Permit> {
        if !self.admits() {
            self.counts.rejected += 1;
            return None;
        }
        self.in_flight += 1;
        if let Algorithm::Gradient2(gradient) = &mut self.algorithm {
            gradient.handle_begin(self.in_flight);
        }
        Some(Permit { began: now })
    }

    /// Takes a permit back.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a permit is used up by its report"
    )]
    pub fn handle_complete(&mut self, permit: Permit, ending: Ending, now: Nanos) {
        self.counts.endings[ending as usize] += 1;
        let in_flight = self.in_flight;
        self.in_flight = in_flight.saturating_sub(1);
        if ending == Ending::Untold {
            return;
        }
        let sample = Sample {
            began: permit.began,
            took: now.saturating_sub(permit.began),
            lost: ending == Ending::Lost,
            in_flight,
            now,
        };
        match &mut self.algorithm {
            Algorithm::Fixed(_) => {}
            Algorithm::Aimd(aimd) => aimd.handle_sample(&sample),
            Algorithm::Gradient2(gradient) => gradient.handle_sample(&sample),
        }
    }

    /// Counts a call that was refused without being asked for here.
    pub(crate) fn handle_rejected(&mut self) {
        self.counts.rejected += 1;
    }

    /// Whether there is room for one more.
    pub fn admits(&self) -> bool {
        self.in_flight < self.limit()
    }

    /// Calls that there may be now.
    pub fn limit(&self) -> u32 {
        match &self.algorithm {
            Algorithm::Fixed(limit) => *limit,
            Algorithm::Aimd(aimd) => aimd.limit(),
            Algorithm::Gradient2(gradient) => gradient.limit(),
        }
    }

    /// Calls that there are.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// What it has done so far.
    pub fn counts(&self) -> LimiterCounts {
        self.counts
    }
}

/// The whole calls of a limit that is always from 1 to `u32::MAX`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and limits are held in range"
)]
fn whole(limit: f64) -> u32 {
    (limit as u32).max(1)
}
