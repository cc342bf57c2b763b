//! Latency times queue, by the power of two choices.

use super::line::Line;
use super::{Balancer, Call, Candidate};
use crate::random::Random;

/// Of two endpoints drawn by weight, the one that is likely to answer sooner: its latency times
/// one more than the calls that it has in flight.
///
/// Source: Finagle's `PeakEwma` load metric, over two choices as in linkerd. An endpoint that has
/// not ended a call yet gets one at once, and no second one before that has ended. As with
/// [`LeastRequest`](super::LeastRequest) the weight counts twice: in the draw, and in how many
/// calls in flight are many.
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
        match call.loads.latency(index) {
            Some(latency) => latency * (in_flight / self.line.relative_weight(index) + 1.0),
            None => UNKNOWN_NS * in_flight,
        }
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
