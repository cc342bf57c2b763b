//! Any endpoint.

use super::line::Line;
use super::{Balancer, Call, Candidate};
use crate::random::Random;

/// Each call goes to an endpoint drawn by weight, whatever the calls before did.
#[derive(Debug)]
pub struct RandomChoice {
    line: Line,
    random: Random,
}

impl RandomChoice {
    /// Draws as the seed determines.
    pub fn new(seed: u64) -> Self {
        Self {
            line: Line::default(),
            random: Random::new(seed),
        }
    }
}

impl Balancer for RandomChoice {
    fn handle_update(&mut self, candidates: &[Candidate]) {
        self.line.update(candidates);
    }

    fn pick(&mut self, _call: &Call<'_>) -> Option<usize> {
        self.line.one(&mut self.random)
    }
}
