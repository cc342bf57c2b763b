//! The sliding window, as two counters.

use super::{Algorithm, Decision, Quota, divide};
use crate::{Nanos, SettingError};

/// Remembers of a key how much it took in this window and in the one before.
///
/// Windows are one period long and begin at its multiples. What may be used is the limit; what is
/// used is all of this window, and of the one before as large a part as of that window is still
/// within the last period:
///
/// ```text
/// used = current + previous * (period - elapsed) / period
/// ```
///
/// That takes the units of the window before as spread evenly over it, the one thing that is not
/// exact here. If they came late, the last period may hold more than the limit; if they came early,
/// they count although they have left it. Either way, with `limit` units in each `period`:
///
/// - no window of the clock holds more than `limit`;
/// - no other window `w` holds more than `limit + floor(limit * w / period)`, which is what
///   [`super::Gcra`] guarantees with a burst of `limit`. For let `w` reach by `e` into its last
///   window, and the one before that hold `p`: what is admitted last leaves `c` there, with
///   `c <= limit - p * (1 - e / period)`, so `p + c <= limit + limit * e / period`.
///
/// Units are whole, and the last one of a window fades only as the next one ends: a key that asks
/// all the time gets `limit - 1` in each, and of a limit of 1 one in every second window.
///
/// Source: Cloudflare, "How we built rate limiting capable of scaling to millions of domains"
/// (2017). The bounds are ours, and tested.
#[derive(Clone, Copy, Debug)]
pub struct SlidingWindow {
    limit: u32,
    period: Nanos,
}

/// What was taken in a window and in the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// When the window begins.
    start: Nanos,
    previous: u32,
    current: u32,
}

impl SlidingWindow {
    /// Holds each key to `limit` units in each `period`; all of them may come at once.
    pub fn new(limit: u32, period: Nanos) -> Result<Self, SettingError> {
        Quota::new(limit, period, limit)?;
        Ok(Self { limit, period })
    }

    /// The counts as they stand now, and what has passed of their window.
    ///
    /// While a clock that went backwards catches up, it is their window's beginning.
    fn at(&self, counts: Counts, now: Nanos) -> (Counts, Nanos) {
        let elapsed = now.saturating_sub(counts.start);
        if elapsed < self.period {
            return (counts, elapsed);
        }
        if elapsed - self.period < self.period {
            let next = Counts {
                start: counts.start + self.period,
                previous: counts.current,
                current: 0,
            };
            return (next, elapsed - self.period);
        }
        let rested = self.rested(now);
        (rested, now - rested.start)
    }

    /// What the window before still counts, in units times the period.
    fn carried(&self, counts: Counts, elapsed: Nanos) -> u128 {
        u128::from(counts.previous) * u128::from(self.period - elapsed)
    }

    fn remaining(&self, counts: Counts, elapsed: Nanos) -> u32 {
        let carried = self.carried(counts, elapsed) + u128::from(self.period - 1);
        let carried = u32::try_from(divide(carried, self.period)).unwrap_or(u32::MAX);
        self.limit
            .saturating_sub(counts.current)
            .saturating_sub(carried)
    }

    /// How much of a window must pass until no more than `room` of the window before it counts.
    fn faded(&self, before: u32, room: u32) -> Nanos {
        if before <= room {
            return 0;
        }
        let kept = u128::from(room) * u128::from(self.period);
        self.period - divide(kept, u64::from(before))
    }

    /// From the beginning of the counts' window to when `cost` is there.
    fn due(&self, counts: Counts, cost: u32) -> Nanos {
        let room = self.limit - cost;
        match room.checked_sub(counts.current) {
            Some(room) => self.faded(counts.previous, room),
            // Not in this window: when enough of it has faded in the next.
            None => self.period + self.faded(counts.current, room),
        }
    }

    /// From the beginning of the counts' window to when none of them counts any more.
    fn spent(&self, counts: Counts) -> Nanos {
        match counts {
            Counts { current: 1.., .. } => 2 * self.period,
            Counts { previous: 1.., .. } => self.period,
            _ => 0,
        }
    }
}

impl Algorithm for SlidingWindow {
    type State = Counts;

    fn rested(&self, now: Nanos) -> Counts {
        Counts {
            start: now - now % self.period,
            previous: 0,
            current: 0,
        }
    }

    fn decide(&self, counts: Counts, cost: u32, now: Nanos) -> (Counts, Decision) {
        let (mut counts, elapsed) = self.at(counts, now);
        let there = self.remaining(counts, elapsed);
        let allowed = cost <= there;
        let taken = if allowed { cost } else { 0 };
        counts.current += taken;
        // A window that lies ahead of a clock that went backwards is waited for as well.
        let until = |due: Nanos| counts.start.saturating_add(due).saturating_sub(now);
        let decision = Decision {
            allowed,
            limit: self.limit,
            remaining: there - taken,
            reset_after: until(self.spent(counts)),
            retry_after: if allowed {
                Some(0)
            } else {
                (cost <= self.limit).then(|| until(self.due(counts, cost)))
            },
        };
        (counts, decision)
    }

    fn rested_at(&self, counts: Counts) -> Nanos {
        counts.start.saturating_add(self.spent(counts))
    }

    /// The counts end together with their windows, so what they still hold tells keys apart.
    fn used(&self, counts: Counts, now: Nanos) -> u128 {
        let (counts, elapsed) = self.at(counts, now);
        u128::from(counts.current) * u128::from(self.period) + self.carried(counts, elapsed)
    }
}
