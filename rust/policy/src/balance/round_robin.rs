//! Round robin over weighted endpoints.

use super::{Balancer, Call, Candidate};
use crate::random::Random;

/// Each in turn; a heavier endpoint in more of the rounds.
///
/// Source of the order: the static stride scheduler of gRFC A58 (`weighted_round_robin`). A round
/// visits every endpoint once and takes those that are due; the heaviest is due in every round. In
/// as many rounds as the greatest weight says, each is taken exactly as often as its own weight
/// says, without a table to build and spread as evenly as can be.
#[derive(Debug)]
pub struct RoundRobin {
    weights: Vec<u32>,
    heaviest: u32,
    /// Whether all weights are the same: then everybody is due in every round.
    even: bool,
    position: usize,
    round: u64,
    random: Random,
}

impl RoundRobin {
    /// Starts at a place that the seed determines.
    pub fn new(seed: u64) -> Self {
        Self {
            weights: Vec::new(),
            heaviest: 0,
            even: true,
            position: 0,
            round: 0,
            random: Random::new(seed),
        }
    }

    fn due(&self, index: usize, weight: u32) -> bool {
        if self.even {
            return true;
        }
        let (heaviest, weight) = (u64::from(self.heaviest), u64::from(weight));
        // Half a round's offset from one endpoint to the next keeps equal ones from being due in
        // the same rounds.
        let offset = index as u64 % heaviest * (heaviest / 2);
        (weight * (self.round % heaviest) + offset % heaviest) % heaviest >= heaviest - weight
    }
}

impl Balancer for RoundRobin {
    fn handle_update(&mut self, candidates: &[Candidate]) {
        let started = !self.weights.is_empty();
        self.weights.clear();
        self.weights
            .extend(candidates.iter().map(|each| each.weight));
        self.heaviest = self.weights.iter().copied().max().unwrap_or(0);
        self.even = self.weights.iter().all(|&weight| weight == self.heaviest);
        if !started {
            let start = self.random.below(candidates.len() as u64);
            self.position = usize::try_from(start).unwrap_or(0);
        }
    }

    fn pick(&mut self, _call: &Call<'_>) -> Option<usize> {
        loop {
            if self.position >= self.weights.len() {
                self.position = 0;
                self.round = self.round.wrapping_add(1);
            }
            let index = self.position;
            let weight = *self.weights.get(index)?;
            self.position += 1;
            if self.due(index, weight) {
                return Some(index);
            }
        }
    }
}
