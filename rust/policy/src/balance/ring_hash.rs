//! Consistent hashing on a ring.

use super::{Balancer, Call, Candidate, Member};
use crate::hash::xxh64;
use crate::random::Random;

/// Calls with the same hash go to the same endpoint for as long as it can take calls.
///
/// Source: gRFC A42. Each endpoint has points on a ring of hashes, as many as its weight says; a
/// call goes to the first point at or after its own hash whose endpoint can take it. So an
/// endpoint that cannot take calls gives away its own calls only. A call without a hash goes to
/// any point.
#[derive(Debug)]
pub struct RingHash {
    least: u32,
    most: u32,
    /// Hash and member of each point, by hash.
    points: Vec<(u64, usize)>,
    /// Where each member is among the candidates.
    candidates: Places,
    random: Random,
}

impl RingHash {
    /// A ring of `least` to `most` points, as far as the weights allow; the seed draws for calls
    /// without a hash.
    pub fn new(seed: u64, least: u32, most: u32) -> Self {
        Self {
            least,
            most,
            points: Vec::new(),
            candidates: Places::default(),
            random: Random::new(seed),
        }
    }

    /// How many points the ring has.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether the ring has no point.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

/// The points of the ring for a sum of weights, as a fraction: as many as give the lightest a
/// whole number of points and the ring at least `least`, but no more than `most`.
fn scale(lightest: u128, total: u128, least: u32, most: u32) -> (u128, u128) {
    let of_lightest = (lightest * u128::from(least)).div_ceil(total);
    if of_lightest * total > u128::from(most) * lightest {
        (u128::from(most), total)
    } else {
        (of_lightest, lightest)
    }
}

impl Balancer for RingHash {
    fn handle_members(&mut self, members: &[Member<'_>]) {
        self.points.clear();
        // In the order of their keys, so that every client builds the same ring.
        let mut sorted: Vec<_> = members.iter().enumerate().collect();
        sorted.retain(|(_, member)| member.weight > 0);
        sorted.sort_by_key(|(_, member)| member.key);
        let weights = sorted.iter().map(|(_, member)| u128::from(member.weight));
        let Some(lightest) = weights.clone().min() else {
            return;
        };
        let (points, weight) = scale(lightest, weights.sum(), self.least, self.most);
        let mut listed: u128 = 0;
        let mut name = String::new();
        for (index, member) in sorted {
            listed += u128::from(member.weight);
            let upto = usize::try_from((listed * points).div_ceil(weight)).unwrap_or(usize::MAX);
            for number in 0..upto.saturating_sub(self.points.len()) {
                name.clear();
                name.push_str(member.key);
                name.push('_');
                name.push_str(&number.to_string());
                self.points.push((xxh64(name.as_bytes(), 0), index));
            }
        }
        self.points.sort_unstable();
    }

    fn handle_update(&mut self, candidates: &[Candidate]) {
        self.candidates.update(candidates);
    }

    fn pick(&mut self, call: &Call<'_>) -> Option<usize> {
        let hash = call.hash.unwrap_or_else(|| self.random.next());
        let first = self.points.partition_point(|&(point, _)| point < hash);
        let (before, after) = self.points.split_at(first);
        let members = after.iter().chain(before).map(|&(_, member)| member);
        self.candidates.first(members, hash)
    }
}

/// Where each member is among the candidates.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: Vec<Option<usize>>,
    count: u64,
}

impl Places {
    pub(super) fn update(&mut self, candidates: &[Candidate]) {
        self.places.clear();
        self.count = candidates.len() as u64;
        for (index, candidate) in candidates.iter().enumerate() {
            if self.places.len() <= candidate.member {
                self.places.resize(candidate.member + 1, None);
            }
            self.places[candidate.member] = Some(index);
        }
    }

    /// The first of the members that is a candidate; any candidate if none of them is, as there
    /// may be more endpoints than a ring or table has room for.
    pub(super) fn first(
        &self,
        mut members: impl Iterator<Item = usize>,
        hash: u64,
    ) -> Option<usize> {
        if self.count == 0 {
            return None;
        }
        members
            .find_map(|member| self.places.get(member).copied().flatten())
            .or_else(|| usize::try_from(hash % self.count).ok())
    }
}
