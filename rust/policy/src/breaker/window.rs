//! The last calls of a breaker, counted: exactly, and in memory that does not grow with them.
//!
//! Source: resilience4j's sliding windows, `COUNT_BASED` (a ring of results) and `TIME_BASED` (a
//! ring of partial sums). Both keep their sum up to date, so that a call costs the same however
//! large the window is.

use super::settings::Span;
use crate::Nanos;

/// How many calls, and what of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All that ended with a success or a failure.
    pub calls: u32,
    /// Those that failed.
    pub failures: u32,
    /// Those that took too long, whether they failed or not.
    pub slow: u32,
}

/// How a call ended, as far as a window is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

impl Tally {
    pub(super) fn add(&mut self, ended: Ended) {
        // Counts end where they do not fit any more, which takes a bucket of 4 billion calls.
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(ended.failed));
        self.slow = self.slow.saturating_add(u32::from(ended.slow));
    }

    fn take(&mut self, ended: Ended) {
        self.subtract(Self {
            calls: 1,
            failures: u32::from(ended.failed),
            slow: u32::from(ended.slow),
        });
    }

    fn subtract(&mut self, other: Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failures = self.failures.saturating_sub(other.failures);
        self.slow = self.slow.saturating_sub(other.slow);
    }

    fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            failures: self.failures.saturating_add(other.failures),
            slow: self.slow.saturating_add(other.slow),
        }
    }
}

/// The calls that a closed breaker is judged by.
#[derive(Clone, Debug)]
pub(super) enum Window {
    Count(CountWindow),
    Time(TimeWindow),
}

impl Window {
    pub(super) fn new(span: Span) -> Self {
        match span {
            Span::Calls(calls) => Self::Count(CountWindow::new(calls)),
            Span::Time { buckets, width } => Self::Time(TimeWindow::new(buckets, width)),
        }
    }

    /// Counts a call, and returns what is in the window then.
    pub(super) fn add(&mut self, ended: Ended, now: Nanos) -> Tally {
        match self {
            Self::Count(window) => window.add(ended),
            Self::Time(window) => window.add(ended, now),
        }
    }

    /// What is in the window now.
    pub(super) fn tally(&self, now: Nanos) -> Tally {
        match self {
            Self::Count(window) => window.tally,
            Self::Time(window) => window.tally(now),
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Count(window) => window.clear(),
            Self::Time(window) => window.clear(),
        }
    }
}

/// The last calls; room for them is taken as they come.
#[derive(Clone, Debug)]
pub(super) struct CountWindow {
    calls: usize,
    ring: Vec<Ended>,
    /// Where the oldest is, once the ring is full.
    oldest: usize,
    tally: Tally,
}

impl CountWindow {
    fn new(calls: u32) -> Self {
        Self {
            calls: calls as usize,
            ring: Vec::new(),
            oldest: 0,
            tally: Tally::default(),
        }
    }

    fn add(&mut self, ended: Ended) -> Tally {
        if self.ring.len() < self.calls {
            self.ring.push(ended);
        } else {
            self.tally.take(self.ring[self.oldest]);
            self.ring[self.oldest] = ended;
            self.oldest += 1;
            if self.oldest == self.calls {
                self.oldest = 0;
            }
        }
        self.tally.add(ended);
        self.tally
    }

    fn clear(&mut self) {
        self.ring.clear();
        self.oldest = 0;
        self.tally = Tally::default();
    }
}

/// The calls of the last time, by buckets of it. A bucket goes as a whole, so that the window
/// covers between one bucket less than all of them and all of them.
///
/// Time that went backwards is the latest time known.
#[derive(Clone, Debug)]
pub(super) struct TimeWindow {
    width: Nanos,
    buckets: Box<[Tally]>,
    /// The number of the latest bucket, counted from the clock's epoch.
    latest: u64,
    tally: Tally,
}

impl TimeWindow {
    fn new(buckets: u32, width: Nanos) -> Self {
        Self {
            width,
            buckets: vec![Tally::default(); buckets as usize].into_boxed_slice(),
            latest: 0,
            tally: Tally::default(),
        }
    }

    fn add(&mut self, ended: Ended, now: Nanos) -> Tally {
        let present = now / self.width;
        if present > self.latest {
            self.advance(present);
        }
        let place = self.place(self.latest);
        self.buckets[place].add(ended);
        self.tally.add(ended);
        self.tally
    }

    /// What is not too old now.
    fn tally(&self, now: Nanos) -> Tally {
        let passed = (now / self.width).saturating_sub(self.latest);
        if passed == 0 {
            return self.tally;
        }
        let kept = (self.buckets.len() as u64).saturating_sub(passed);
        // Before the clock's epoch there was nothing.
        (0..kept.min(self.latest.saturating_add(1)))
            .map(|age| self.buckets[self.place(self.latest - age)])
            .fold(Tally::default(), Tally::plus)
    }

    /// Empties the buckets that the present one and those between take the place of.
    fn advance(&mut self, present: u64) {
        if present - self.latest >= self.buckets.len() as u64 {
            self.buckets.fill(Tally::default());
            self.tally = Tally::default();
        } else {
            for number in self.latest + 1..=present {
                let place = self.place(number);
                self.tally
                    .subtract(std::mem::take(&mut self.buckets[place]));
            }
        }
        self.latest = present;
    }

    fn place(&self, number: u64) -> usize {
        // The remainder is less than the length, so it fits.
        usize::try_from(number % self.buckets.len() as u64).unwrap_or(0)
    }

    fn clear(&mut self) {
        self.buckets.fill(Tally::default());
        self.tally = Tally::default();
    }
}
