//! Least request by the power of two choices.

use super::Balancer;
use crate::random::Random;

/// Of two endpoints drawn by weight, the one with fewer calls in flight for its weight.
///
/// Sources: Mitzenmacher, "The power of two choices in randomized load balancing" (2001);
/// gRFC A48 (`least_request`). The weight counts twice on purpose: in the draw, so that idle
/// endpoints share by weight, and in the comparison, so that busy ones do.
#[derive(Debug)]
pub struct LeastRequest {
    /// Where each candidate's share of the line from 0 to the total ends.
    ends: Vec<u64>,
    random: Random,
}

impl LeastRequest {
    /// Draws as the seed determines.
    pub fn new(seed: u64) -> Self {
        Self {
            ends: Vec::new(),
            random: Random::new(seed),
        }
    }

    /// The share of a candidate: where it begins and how long it is.
    fn share(&self, index: usize) -> (u64, u64) {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        (begin, self.ends[index] - begin)
    }

    fn at(&self, point: u64) -> usize {
        self.ends.partition_point(|&end| end <= point)
    }
}

impl Balancer for LeastRequest {
    fn handle_update(&mut self, weights: &[u32]) {
        let mut end = 0;
        self.ends.clear();
        self.ends.extend(weights.iter().map(|&weight| {
            end += u64::from(weight);
            end
        }));
    }

    fn pick(&mut self, load: &dyn Fn(usize) -> u32) -> Option<usize> {
        let total = *self.ends.last()?;
        if self.ends.len() == 1 {
            return Some(0);
        }
        let point = self.random.below(total);
        let first = self.at(point);
        let (begin, weight) = self.share(first);
        // The second draw leaves the first one's share out of the line.
        let point = self.random.below(total - weight);
        let second = self.at(if point < begin { point } else { point + weight });
        let (_, other_weight) = self.share(second);
        // load / weight of each, multiplied out.
        let first_load = u128::from(load(first)) * u128::from(other_weight);
        let second_load = u128::from(load(second)) * u128::from(weight);
        Some(if second_load < first_load {
            second
        } else {
            first
        })
    }
}
