//! Draws by weight.

use super::Candidate;
use crate::random::Random;

/// The candidates as stretches of a line, each as long as its weight.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Where each stretch ends.
    ends: Vec<u64>,
}

impl Line {
    pub(super) fn update(&mut self, candidates: &[Candidate]) {
        let mut end = 0;
        self.ends.clear();
        self.ends.extend(candidates.iter().map(|candidate| {
            end += u64::from(candidate.weight);
            end
        }));
    }

    /// One candidate; None if there is none.
    pub(super) fn one(&self, random: &mut Random) -> Option<usize> {
        let total = *self.ends.last()?;
        Some(self.at(random.below(total)))
    }

    /// Two different candidates, or the only one twice; None if there is none.
    pub(super) fn two(&self, random: &mut Random) -> Option<(usize, usize)> {
        let total = *self.ends.last()?;
        if self.ends.len() == 1 {
            return Some((0, 0));
        }
        let first = self.at(random.below(total));
        let begin = self.begin(first);
        // The second draw leaves the first one's stretch out of the line.
        let weight = self.weight(first);
        let point = random.below(total - weight);
        let second = self.at(if point < begin { point } else { point + weight });
        Some((first, second))
    }

    pub(super) fn weight(&self, index: usize) -> u64 {
        self.ends[index] - self.begin(index)
    }

    /// The weight of a candidate as a multiple of the mean.
    #[allow(
        clippy::cast_precision_loss,
        reason = "weights are compared, not counted"
    )]
    pub(super) fn relative_weight(&self, index: usize) -> f64 {
        let total = self.ends.last().copied().unwrap_or(0);
        self.weight(index) as f64 * self.ends.len() as f64 / total as f64
    }

    fn begin(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn at(&self, point: u64) -> usize {
        self.ends.partition_point(|&end| end <= point)
    }
}
