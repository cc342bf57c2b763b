//! The circuit breaker: fail fast while a dependency is down.
//!
//! Sources: Nygard, "Release It!" (2nd ed.), "Circuit Breaker"; resilience4j for windows.
//!
//! ```text
//!                 failures                            open_for has passed
//!  Closed -------------------------> Open ----------------------------------> HalfOpen
//!    ^                                ^                                        |    |
//!    |                                '------------- failures -----------------'    |
//!    '------------------------------- successes ------------------------------------'
//! ```
//!
//! What failures and successes it takes is the [`Trip`]. In a row: `failure_threshold` failures
//! open it, `success_threshold` successes close it and one failed probe opens it again. By a
//! window: it opens when the rate of failures or of slow calls in the window is too much, and when
//! all probes that a half-open breaker permits have ended, their rates decide.
//!
//! Each change of state starts a new generation. A permit belongs to the generation that gave it,
//! so the late result of an old call never moves the breaker. `HalfOpen` is leased, so that probes
//! that never end do not keep it. When `half_open_for` has passed, a breaker that trips in a row
//! gives the permits still out anew; of one with a window, whose permits are numbered, they count
//! as failures.

mod settings;
mod window;

use crate::Nanos;
use window::Window;

pub use settings::{
    BreakerSettings, HALF_OPEN_FOR, MOST_BUCKETS, MOST_CALLS, Span, Trip, WindowSettings,
};
pub use window::Tally;

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
        /// In a row, if that is what counts.
        failures: u32,
    },
    Open {
        until: Nanos,
    },
    HalfOpen {
        ended: Tally,
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
    /// What a closed breaker has counted, unless it counts in a row.
    window: Option<Window>,
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
    /// Those that succeeded or failed, but took too long.
    pub slow: u64,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        let window = match settings.trip {
            Trip::InARow { .. } => None,
            Trip::Window(window) => Some(Window::new(window.span)),
        };
        Self {
            settings,
            phase: Phase::Closed { failures: 0 },
            window,
            generation: 0,
            opened: 0,
            rejected: 0,
            counts: BreakerCounts::default(),
        }
    }

    /// Asks to make a call.
    pub fn handle_admit(&mut self, now: Nanos) -> Verdict {
        if let Some(permit) = self.permit_if_closed() {
            return Verdict::Admit(permit);
        }
        if !self.admits(now) {
            self.rejected += 1;
            let retry_at = match self.phase {
                Phase::Open { until } => Some(until),
                _ => None,
            };
            return Verdict::Reject { retry_at };
        }
        let half_open_until = now.saturating_add(self.settings.half_open_for);
        match &mut self.phase {
            Phase::Open { .. } => self.probe(Tally::default(), half_open_until),
            // A lease that ran out: what is still in flight has lost its say, what was proven
            // before still counts, else a breaker with few calls could never close.
            Phase::HalfOpen { ended, until, .. } if now >= *until => {
                let ended = *ended;
                self.probe(ended, half_open_until);
            }
            Phase::HalfOpen {
                in_flight, until, ..
            } => {
                *in_flight += 1;
                if self.window.is_some() {
                    // A lost probe counts against it, so each has the whole time.
                    *until = half_open_until;
                }
            }
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

    /// Takes the report of a success; only a breaker that trips in a row has no need of the time.
    pub fn handle_success(&mut self, permit: Permit) {
        debug_assert!(self.window.is_none(), "a window judges successes as well");
        self.handle_complete(permit, Outcome::Success, 0, 0);
    }

    /// Takes the report of a call that took so long; the report of an earlier generation changes
    /// nothing.
    pub fn handle_complete(
        &mut self,
        Permit { generation }: Permit,
        outcome: Outcome,
        took: Nanos,
        now: Nanos,
    ) {
        self.counts.outcomes[outcome as usize] += 1;
        let heard = generation == self.generation;
        match self.settings.trip {
            Trip::InARow {
                failure_threshold,
                success_threshold,
            } if heard => self.count_in_a_row(outcome, failure_threshold, success_threshold, now),
            Trip::InARow { .. } => {}
            Trip::Window(_) => self.count_in_window(outcome, took, heard, now),
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
        self.close();
    }

    /// Notes what the passing of time has changed: a breaker with a window counts probes that have
    /// not ended in time as failures.
    pub fn handle_time(&mut self, now: Nanos) {
        let (
            Phase::HalfOpen {
                mut ended,
                in_flight,
                until,
            },
            Trip::Window(settings),
        ) = (self.phase, &self.settings.trip)
        else {
            return;
        };
        if in_flight == 0 || now < until {
            return;
        }
        let lost = settings.ended(Outcome::Failure, self.settings.half_open_for);
        for _ in 0..in_flight {
            ended.add(lost);
        }
        self.phase = Phase::HalfOpen {
            ended,
            in_flight: 0,
            until,
        };
        // Whoever reports later is not heard.
        self.generation += 1;
        self.judge_probes(until);
    }

    /// Whether [`Breaker::handle_admit`] would let a call through.
    pub fn admits(&mut self, now: Nanos) -> bool {
        self.handle_time(now);
        match self.phase {
            Phase::Closed { .. } | Phase::ForcedClosed => true,
            Phase::ForcedOpen => false,
            Phase::Open { until } => now >= until,
            Phase::HalfOpen {
                ended, in_flight, ..
            } if self.window.is_some() => {
                ended.calls.saturating_add(in_flight) < self.settings.half_open_permits
            }
            Phase::HalfOpen {
                in_flight, until, ..
            } => in_flight < self.settings.half_open_permits || now >= until,
        }
    }

    /// When the passing of time alone may change what it does with calls.
    pub fn changes_at(&self) -> Option<Nanos> {
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

    /// Failures in a row, while closed; 0 if it has a window.
    pub fn failures(&self) -> u32 {
        if let Phase::Closed { failures } = self.phase {
            failures
        } else {
            0
        }
    }

    /// Successes so far, while half-open.
    pub fn successes(&self) -> u32 {
        if let Phase::HalfOpen { ended, .. } = self.phase {
            ended.calls - ended.failures
        } else {
            0
        }
    }

    /// What a breaker with a window is judged by now: the calls in the window while it is closed,
    /// the probes that have ended while it is half-open.
    pub fn tally(&self, now: Nanos) -> Option<Tally> {
        let window = self.window.as_ref()?;
        Some(match self.phase {
            Phase::HalfOpen { ended, .. } => ended,
            _ => window.tally(now),
        })
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

    fn count_in_a_row(
        &mut self,
        outcome: Outcome,
        failure_threshold: u32,
        success_threshold: u32,
        now: Nanos,
    ) {
        match (&mut self.phase, outcome) {
            (Phase::Closed { failures }, Outcome::Success) => *failures = 0,
            (Phase::Closed { failures }, Outcome::Failure) => {
                *failures += 1;
                if *failures >= failure_threshold {
                    self.open(now);
                }
            }
            (
                Phase::HalfOpen {
                    ended, in_flight, ..
                },
                Outcome::Success,
            ) => {
                *in_flight = in_flight.saturating_sub(1);
                ended.calls += 1;
                if ended.calls >= success_threshold {
                    self.close();
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

    /// Apart from the other way to count, which is to stay as short as it is.
    #[inline(never)]
    fn count_in_window(&mut self, outcome: Outcome, took: Nanos, heard: bool, now: Nanos) {
        let (Trip::Window(settings), Some(window)) = (&self.settings.trip, &mut self.window) else {
            return;
        };
        let result = (outcome != Outcome::Abandoned).then(|| settings.ended(outcome, took));
        self.counts.slow += u64::from(result.is_some_and(|result| result.slow));
        if !heard {
            return;
        }
        match (&mut self.phase, result) {
            (Phase::Closed { .. }, Some(result)) => {
                let tally = window.add(result, now);
                if tally.calls >= settings.minimum_calls && settings.exceeded_by(tally) {
                    self.open(now);
                }
            }
            (
                Phase::HalfOpen {
                    ended, in_flight, ..
                },
                result,
            ) => {
                *in_flight = in_flight.saturating_sub(1);
                if let Some(result) = result {
                    ended.add(result);
                    self.judge_probes(now);
                }
            }
            (Phase::Closed { .. }, None)
            | (Phase::Open { .. } | Phase::ForcedOpen | Phase::ForcedClosed, _) => {}
        }
    }

    /// Decides by the rates of the probes, once all that are permitted have ended.
    fn judge_probes(&mut self, now: Nanos) {
        if let (Phase::HalfOpen { ended, .. }, Trip::Window(settings)) =
            (self.phase, self.settings.trip)
            && ended.calls >= self.settings.half_open_permits
        {
            if settings.exceeded_by(ended) {
                self.open(now);
            } else {
                self.close();
            }
        }
    }

    /// Lets a first probe through, of a lease until then.
    fn probe(&mut self, ended: Tally, until: Nanos) {
        self.enter(Phase::HalfOpen {
            ended,
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

    fn close(&mut self) {
        self.enter(Phase::Closed { failures: 0 });
    }

    fn enter(&mut self, phase: Phase) {
        let before = self.state();
        self.generation += 1;
        self.phase = phase;
        if let Some(window) = &mut self.window {
            window.clear();
        }
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
