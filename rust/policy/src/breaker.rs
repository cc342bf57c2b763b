//! The circuit breaker: fail fast while a dependency is down.
//!
//! Source: Nygard, "Release It!" (2nd ed.), "Circuit Breaker".
//!
//! ```text
//!            failure_threshold failures in a row          open_for has passed
//!  Closed ---------------------------------------> Open ----------------------> HalfOpen
//!    ^                                              ^                            |    |
//!    |                                              '---------- a failure -------'    |
//!    '------------------------- success_threshold successes --------------------------'
//! ```
//!
//! Each change of state starts a new generation. A permit belongs to the generation that gave it,
//! so the late result of an old call never moves the breaker. `HalfOpen` is leased: when
//! `half_open_for` has passed, the permits still out are taken for lost and given anew.

use crate::{Nanos, SettingError};

/// The longest that permits of a half-open breaker are waited for, unless set otherwise: the time
/// for which the breaker stays open by default, so that a lost probe costs no more than a failed
/// one.
pub const HALF_OPEN_FOR: Nanos = 30_000_000_000;

/// When a breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open a closed breaker.
    pub failure_threshold: u32,
    /// Successes, without a failure between them, that close a half-open breaker.
    pub success_threshold: u32,
    /// How long an open breaker refuses before it lets a probe through.
    pub open_for: Nanos,
    /// Probes that may be in flight together while half-open.
    pub half_open_permits: u32,
    /// How long half-open permits are waited for before they are taken for lost.
    pub half_open_for: Nanos,
}

impl Default for BreakerSettings {
    /// 5 failures, 3 successes, 30 s, one probe at a time.
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            success_threshold: 3,
            open_for: 30_000_000_000,
            half_open_permits: 1,
            half_open_for: HALF_OPEN_FOR,
        }
    }
}

impl BreakerSettings {
    /// Refuses settings that could never open, close or probe.
    pub fn checked(self) -> Result<Self, SettingError> {
        if self.failure_threshold == 0 {
            return Err(SettingError("failure_threshold must be at least 1"));
        }
        if self.success_threshold == 0 {
            return Err(SettingError("success_threshold must be at least 1"));
        }
        if self.half_open_permits == 0 {
            return Err(SettingError("half_open_permits must be at least 1"));
        }
        if self.half_open_for == 0 {
            return Err(SettingError("half_open_for must be longer than 0"));
        }
        Ok(self)
    }
}

/// How a permitted call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The dependency answered.
    Success,
    /// The dependency failed.
    Failure,
    /// Nobody waited for the answer, so it says nothing: cancelled, or refused elsewhere.
    Abandoned,
}

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets every call through.
    Closed,
    /// Refuses every call.
    Open,
    /// Lets a few probes through.
    HalfOpen,
}

impl BreakerState {
    /// The name that metrics and snapshots use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The right to make one call; reported once with [`Breaker::handle_complete`].
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    generation: u64,
}

impl Permit {
    /// A permit that has been across the language boundary.
    pub fn from_generation(generation: u64) -> Self {
        Self { generation }
    }

    /// The generation that gave it.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// A breaker's answer to a call that wants through.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Make the call, then report how it ended.
    Admit(Permit),
    /// Make no call.
    Reject {
        /// When it makes sense to try again; None if that depends on a call in flight or on a
        /// person.
        retry_at: Option<Nanos>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed {
        failures: u32,
    },
    Open {
        until: Nanos,
    },
    HalfOpen {
        successes: u32,
        in_flight: u32,
        until: Nanos,
    },
    ForcedOpen,
    ForcedClosed,
}

/// A circuit breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    generation: u64,
    opened: u64,
    rejected: u64,
    counts: BreakerCounts,
}

/// What a breaker has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerCounts {
    /// How often it became open, half-open and closed.
    pub transitions: [u64; 3],
    /// Permitted calls that succeeded, failed and were abandoned, late reports included.
    pub outcomes: [u64; 3],
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            phase: Phase::Closed { failures: 0 },
            generation: 0,
            opened: 0,
            rejected: 0,
            counts: BreakerCounts::default(),
        }
    }

    /// Asks to make a call.
    pub fn handle_admit(&mut self, now: Nanos) -> Verdict {
        if !self.admits(now) {
            self.rejected += 1;
            let retry_at = match self.phase {
                Phase::Open { until } => Some(until),
                _ => None,
            };
            return Verdict::Reject { retry_at };
        }
        match self.phase {
            Phase::Open { .. } => self.probe(now, 0),
            // A lease that ran out: what is still in flight has lost its say, what was proven
            // before still counts, else a breaker with few calls could never close.
            Phase::HalfOpen {
                successes, until, ..
            } if now >= until => self.probe(now, successes),
            Phase::HalfOpen {
                ref mut in_flight, ..
            } => *in_flight += 1,
            Phase::Closed { .. } | Phase::ForcedOpen | Phase::ForcedClosed => {}
        }
        Verdict::Admit(Permit {
            generation: self.generation,
        })
    }

    /// The permit of a closed breaker, which has no need of the time; None in any other state.
    pub fn permit_if_closed(&self) -> Option<Permit> {
        let closed = self.state() == BreakerState::Closed;
        closed.then_some(Permit {
            generation: self.generation,
        })
    }

    /// Takes the report of a success, which has no need of the time.
    pub fn handle_success(&mut self, permit: Permit) {
        self.handle_complete(permit, Outcome::Success, 0);
    }

    /// Takes the report of a call; the report of an earlier generation changes nothing.
    pub fn handle_complete(&mut self, Permit { generation }: Permit, outcome: Outcome, now: Nanos) {
        self.counts.outcomes[outcome as usize] += 1;
        if generation != self.generation {
            return;
        }
        match (&mut self.phase, outcome) {
            (Phase::Closed { failures }, Outcome::Success) => *failures = 0,
            (Phase::Closed { failures }, Outcome::Failure) => {
                *failures += 1;
                if *failures >= self.settings.failure_threshold {
                    self.open(now);
                }
            }
            (
                Phase::HalfOpen {
                    successes,
                    in_flight,
                    ..
                },
                Outcome::Success,
            ) => {
                *in_flight = in_flight.saturating_sub(1);
                *successes += 1;
                if *successes >= self.settings.success_threshold {
                    self.enter(Phase::Closed { failures: 0 });
                }
            }
            (Phase::HalfOpen { .. }, Outcome::Failure) => self.open(now),
            (Phase::HalfOpen { in_flight, .. }, Outcome::Abandoned) => {
                *in_flight = in_flight.saturating_sub(1);
            }
            (Phase::Closed { .. }, Outcome::Abandoned)
            | (Phase::Open { .. } | Phase::ForcedOpen | Phase::ForcedClosed, _) => {}
        }
    }

    /// Refuses every call until [`Breaker::handle_reset`] or [`Breaker::handle_force_closed`].
    pub fn handle_force_open(&mut self) {
        self.opened += u64::from(self.state() != BreakerState::Open);
        self.enter(Phase::ForcedOpen);
    }

    /// Lets every call through, whatever comes of it, until forced otherwise or reset.
    pub fn handle_force_closed(&mut self) {
        self.enter(Phase::ForcedClosed);
    }

    /// Starts again, closed and with nothing counted.
    pub fn handle_reset(&mut self) {
        self.enter(Phase::Closed { failures: 0 });
    }

    /// Whether [`Breaker::handle_admit`] would let a call through.
    pub fn admits(&self, now: Nanos) -> bool {
        match self.phase {
            Phase::Closed { .. } | Phase::ForcedClosed => true,
            Phase::ForcedOpen => false,
            Phase::Open { until } => now >= until,
            Phase::HalfOpen {
                in_flight, until, ..
            } => in_flight < self.settings.half_open_permits || now >= until,
        }
    }

    /// When the passing of time alone will make it admit a call that it refuses now.
    pub fn admits_at(&self) -> Option<Nanos> {
        match self.phase {
            Phase::Open { until } | Phase::HalfOpen { until, .. } => Some(until),
            Phase::Closed { .. } | Phase::ForcedOpen | Phase::ForcedClosed => None,
        }
    }

    /// The state; an open breaker becomes half-open with the first call after its time, not by the
    /// time alone.
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } | Phase::ForcedClosed => BreakerState::Closed,
            Phase::Open { .. } | Phase::ForcedOpen => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether somebody holds it open or closed by hand.
    pub fn forced(&self) -> bool {
        matches!(self.phase, Phase::ForcedOpen | Phase::ForcedClosed)
    }

    /// Failures in a row, while closed.
    pub fn failures(&self) -> u32 {
        if let Phase::Closed { failures } = self.phase {
            failures
        } else {
            0
        }
    }

    /// Successes so far, while half-open.
    pub fn successes(&self) -> u32 {
        if let Phase::HalfOpen { successes, .. } = self.phase {
            successes
        } else {
            0
        }
    }

    /// Probes in flight, while half-open.
    pub fn probes(&self) -> u32 {
        if let Phase::HalfOpen { in_flight, .. } = self.phase {
            in_flight
        } else {
            0
        }
    }

    /// The generation of the permits that it gives now.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// How many calls it has refused.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// What it has done so far.
    pub fn counts(&self) -> BreakerCounts {
        self.counts
    }

    fn probe(&mut self, now: Nanos, successes: u32) {
        let until = now.saturating_add(self.settings.half_open_for);
        self.enter(Phase::HalfOpen {
            successes,
            in_flight: 1,
            until,
        });
    }

    fn open(&mut self, now: Nanos) {
        self.opened += 1;
        self.enter(Phase::Open {
            until: now.saturating_add(self.settings.open_for),
        });
    }

    fn enter(&mut self, phase: Phase) {
        let before = self.state();
        self.generation += 1;
        self.phase = phase;
        let state = self.state();
        if state != before {
            let index = match state {
                BreakerState::Open => 0,
                BreakerState::HalfOpen => 1,
                BreakerState::Closed => 2,
            };
            self.counts.transitions[index] += 1;
        }
    }
}
