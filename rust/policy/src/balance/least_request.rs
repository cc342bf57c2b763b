//! Least request by the power of two choices.

use super::line::Line;
use super::{Balancer, Call, Candidate};
use crate::random::Random;

/// Of two endpoints drawn by weight, the one with fewer calls in flight for its weight.
///
/// Sources: Mitzenmacher, "The power of two choices in randomized load balancing" (2001);
/// gRFC A48 (`least_request`). The weight counts twice on purpose: in the draw, so that idle
/// endpoints share by weight, and in the comparison, so that busy ones do.
#[derive(Debug)]
pub struct LeastRequest {
    line: Line,
    random: Random,
}

impl LeastRequest {
    /// Draws as the seed determines.
    pub fn new(seed: u64) -> Self {
        Self {
            line: Line::default(),
            random: Random::new(seed),
        }
    }
}

impl Balancer for LeastRequest {
    fn handle_update(&mut self, candidates: &[Candidate]) {
        self.line.update(candidates);
    }

    fn pick(&mut self, call: &Call<'_>) -> Option<usize> {
        let (first, second) = self.line.two(&mut self.random)?;
        // load / weight of each, multiplied out.
        let load = |index| u128::from(call.loads.in_flight(index));
        let weight = |index| u128::from(self.line.weight(index));
        let lighter = load(second) * weight(first) < load(first) * weight(second);
        Some(if lighter { second } else { first })
    }
}
