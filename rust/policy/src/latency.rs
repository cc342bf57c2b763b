//! How long an endpoint's calls take lately.

use crate::{Nanos, Outcome};

/// How fast what was seen loses weight unless set otherwise, as in Finagle: 10 s.
pub const LATENCY_DECAY: Nanos = 10_000_000_000;

/// The worst that is remembered, in nanoseconds: one minute.
const WORST_NS: f64 = 60e9;

/// An average of latencies that follows a rise at once and a fall by and by.
///
/// Source: Finagle's `PeakEwma`: what was seen keeps `exp(-age / decay)` of its weight; a latency
/// above the average replaces it. A failure may be fast without being good, so it counts as twice
/// the longer of its latency and the average: an endpoint that fails all its calls drops out of
/// choice within a few of them, one that fails now and then does not. A call that nobody waited
/// for took at least as long as it was in flight, so it can raise the average only.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency {
    /// The average, in nanoseconds, and when it was that.
    seen: Option<(f64, Nanos)>,
}

impl Latency {
    pub(crate) fn handle_end(&mut self, took: Nanos, outcome: Outcome, now: Nanos, decay: Nanos) {
        let took = approximate(took);
        let Some((average, at)) = self.seen else {
            match outcome {
                Outcome::Success => self.seen = Some((took, now)),
                Outcome::Failure => self.seen = Some(((took * 2.0).min(WORST_NS), now)),
                Outcome::Abandoned => {}
            }
            return;
        };
        let next = match outcome {
            Outcome::Failure => (took.max(average) * 2.0).min(WORST_NS),
            _ if took > average => took,
            Outcome::Abandoned => return,
            Outcome::Success => {
                let kept = weight(at, now, decay);
                average * kept + took * (1.0 - kept)
            }
        };
        self.seen = Some((next, now));
    }

    /// The average by now: it falls while nothing is seen, so that a slow endpoint is tried again.
    pub(crate) fn now(&self, now: Nanos, decay: Nanos) -> Option<f64> {
        self.seen
            .map(|(average, at)| average * weight(at, now, decay))
    }

    /// The average when it was last seen, in nanoseconds.
    pub(crate) fn seen(&self) -> Option<f64> {
        self.seen.map(|(average, _)| average)
    }
}

fn weight(at: Nanos, now: Nanos, decay: Nanos) -> f64 {
    (-approximate(now.saturating_sub(at)) / approximate(decay)).exp()
}

#[allow(
    clippy::cast_precision_loss,
    reason = "spans of months are exact to a nanosecond"
)]
pub(crate) fn approximate(span: Nanos) -> f64 {
    span as f64
}
