//! What calls of one kind take at least.

use crate::Nanos;

/// For how long a call counts, at least: 10 s; at most twice that.
pub const FLOOR_SPAN: Nanos = 10_000_000_000;

/// Calls that must count before anything is said of others.
pub const FLOOR_CALLS: u32 = 10;

/// The shortest of the calls that were done lately.
///
/// Two spans are kept, the one that is on and the one before. A floor that nothing confirms is
/// forgotten when both have passed: were it not, calls refused for it could never show that it is
/// too high.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    began: Nanos,
    now: Shortest,
    before: Shortest,
}

#[derive(Clone, Copy, Debug)]
struct Shortest {
    calls: u32,
    took: Nanos,
}

impl Default for Shortest {
    fn default() -> Self {
        Self {
            calls: 0,
            took: Nanos::MAX,
        }
    }
}

impl Floor {
    pub(super) fn handle_done(&mut self, took: Nanos, now: Nanos) {
        self.turn(now);
        self.now.calls = self.now.calls.saturating_add(1);
        self.now.took = self.now.took.min(took);
    }

    /// The shortest lately, if enough calls say so.
    pub(super) fn shortest(&mut self, now: Nanos) -> Option<Nanos> {
        self.turn(now);
        let calls = self.now.calls.saturating_add(self.before.calls);
        (calls >= FLOOR_CALLS).then(|| self.now.took.min(self.before.took))
    }

    fn turn(&mut self, now: Nanos) {
        let age = now.saturating_sub(self.began);
        if age >= FLOOR_SPAN {
            let ended = std::mem::take(&mut self.now);
            self.before = if age < 2 * FLOOR_SPAN {
                ended
            } else {
                Shortest::default()
            };
            self.began = now;
        }
    }
}
