//! What a server takes on: no more than its limit, and nothing that must come too late.

use super::floor::Floor;
use super::{Ending, Limiter, LimiterCounts, Permit, Rule};
use crate::Nanos;

/// Why a call was not taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are as many calls as the limit allows.
    Full,
    /// The caller waits for less time than the shortest call of this method took lately.
    Late {
        /// What that took.
        shortest: Nanos,
    },
}

/// The calls of one server.
#[derive(Clone, Debug)]
pub struct Admission {
    limiter: Option<Limiter>,
    /// What the calls of each method take at least; empty if nobody asks.
    floors: Vec<Floor>,
    late: u64,
}

impl Admission {
    /// For so many methods; deadlines are looked at if `sheds_late`.
    pub fn new(rule: Option<Rule>, seed: u64, methods: usize, sheds_late: bool) -> Self {
        Self {
            limiter: rule.map(|rule| Limiter::new(rule, seed)),
            floors: vec![Floor::default(); if sheds_late { methods } else { 0 }],
            late: 0,
        }
    }

    /// Asks to take on a call of a method, whose caller waits for so long.
    pub fn handle_admit(
        &mut self,
        method: usize,
        timeout: Option<Nanos>,
        now: Nanos,
    ) -> Result<Permit, Refused> {
        if let (Some(timeout), Some(floor)) = (timeout, self.floors.get_mut(method))
            && let Some(shortest) = floor.shortest(now)
            && timeout < shortest
        {
            self.late += 1;
            return Err(Refused::Late { shortest });
        }
        match &mut self.limiter {
            Some(limiter) => limiter.handle_admit(now).ok_or(Refused::Full),
            None => Ok(Permit::begun_at(now)),
        }
    }

    /// Takes the report of a call that was taken on.
    pub fn handle_complete(&mut self, method: usize, permit: Permit, ending: Ending, now: Nanos) {
        if ending == Ending::Done
            && let Some(floor) = self.floors.get_mut(method)
        {
            floor.handle_done(now.saturating_sub(permit.began()), now);
        }
        if let Some(limiter) = &mut self.limiter {
            limiter.handle_complete(permit, ending, now);
        }
    }

    /// Calls that there may be and are, and what became of them, if there is a limit.
    pub fn limiter(&self) -> Option<(u32, u32, LimiterCounts)> {
        let limiter = self.limiter.as_ref()?;
        Some((limiter.limit(), limiter.in_flight(), limiter.counts()))
    }

    /// Calls that were refused because they would have come too late.
    pub fn late(&self) -> u64 {
        self.late
    }
}
