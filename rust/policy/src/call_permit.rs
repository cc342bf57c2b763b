//! The permit of a call, in a number that crosses the language boundary.

use crate::{Nanos, Permit};

/// The right to make one call; reported once with
/// [`CallPolicy::handle_complete`](crate::CallPolicy::handle_complete).
#[derive(Debug, PartialEq, Eq)]
pub struct CallPermit(u64);

/// The permit in one number: the breaker's generation in the low bits, whether the call counts
/// against a limit of concurrency, and above that, if it matters how long calls take, when the call
/// began. Both wrap around, after 8 million changes of the breaker and after 13 days.
impl CallPermit {
    const GENERATION_BITS: u32 = 23;
    const GENERATION: u64 = (1 << Self::GENERATION_BITS) - 1;
    const COUNTED: u64 = 1 << Self::GENERATION_BITS;
    const BEGIN_BITS: u32 = Self::GENERATION_BITS + 1;
    /// 1,024 ns: the grain of what is learned of a latency.
    const GRAIN_BITS: u32 = 10;
    const GRAINS: u64 = u64::MAX >> Self::BEGIN_BITS;

    /// A permit that has been across the language boundary.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The number that it is across the language boundary.
    pub fn bits(&self) -> u64 {
        self.0
    }

    pub(crate) fn new(permit: &Permit, begin: Nanos) -> Self {
        let grains = begin >> Self::GRAIN_BITS;
        Self(grains << Self::BEGIN_BITS | permit.generation() & Self::GENERATION)
    }

    pub(crate) fn counted(self) -> Self {
        Self(self.0 | Self::COUNTED)
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.0 & Self::COUNTED != 0
    }

    /// How long ago the call began, by a clock that may have gone backwards a little.
    pub(crate) fn age(&self, now: Nanos) -> Nanos {
        let begin = self.0 >> Self::BEGIN_BITS;
        let age = (now >> Self::GRAIN_BITS).wrapping_sub(begin) & Self::GRAINS;
        if age > Self::GRAINS / 2 {
            return 0;
        }
        age << Self::GRAIN_BITS
    }

    pub(crate) fn is_of(&self, generation: u64) -> bool {
        (self.0 ^ generation) & Self::GENERATION == 0
    }
}
