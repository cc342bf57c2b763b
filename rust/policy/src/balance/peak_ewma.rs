//! Latency times queue, by the power of two choices.

use super::line::Line;
use super::{Balancer, Call, Candidate};
use crate::random::Random;

/// Of two endpoints drawn by weight, the one that is likely to answer sooner: its latency times
/// the calls that it would have with this one, for its weight.
///
/// Source: Finagle's `PeakEwma` load metric, over two choices as in linkerd. An endpoint that has
/// not ended a call yet gets one at once, and no second one before that has ended.
#[derive(Debug)]
pub struct PeakEwma {
    line: Line,
    random: Random,
}

impl PeakEwma {
    /// Draws as the seed determines.
    pub fn new(seed: u64) -> Self {
        Self {
            line: Line::default(),
            random: Random::new(seed),
        }
    }

    fn cost(&self, index: usize, call: &Call<'_>) -> f64 {
        let in_flight = f64::from(call.loads.in_flight(index));
        let latency = match call.loads.latency(index) {
            Some(latency) => latency * (in_flight + 1.0),
            None if in_flight > 0.0 => UNKNOWN_NS + in_flight,
            None => 0.0,
        };
        #[allow(clippy::cast_precision_loss, reason = "a weight is far below 2^52")]
        let weight = self.line.weight(index) as f64;
        latency / weight
    }
}

/// More than any latency: a hundred years in nanoseconds.
const UNKNOWN_NS: f64 = 3.2e18;

impl Balancer for PeakEwma {
    fn handle_update(&mut self, candidates: &[Candidate]) {
        self.line.update(candidates);
    }

    fn pick(&mut self, call: &Call<'_>) -> Option<usize> {
        let (first, second) = self.line.two(&mut self.random)?;
        let sooner = self.cost(second, call) < self.cost(first, call);
        Some(if sooner { second } else { first })
    }
}
