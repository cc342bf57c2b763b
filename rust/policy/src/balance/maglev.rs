//! Consistent hashing from a table.

use super::ring_hash::Places;
use super::{Balancer, Call, Candidate, Member};
use crate::hash::xxh64;
use crate::random::Random;

/// Calls with the same hash go to the same endpoint for as long as it can take calls; the load is
/// more even than a ring's, at the price of a few more calls that move when the list changes.
///
/// Source: Eisenbud et al., "Maglev: A fast and reliable software network load balancer" (2016),
/// section 3.4, with Envoy's turns by weight. The entries of an endpoint that is listed but cannot
/// take calls go to that of the next entry in the table, so that no other call moves. A call
/// without a hash goes to any entry.
#[derive(Debug)]
pub struct Maglev {
    size: u32,
    /// The member of each entry.
    table: Vec<u32>,
    candidates: Places,
    random: Random,
}

impl Maglev {
    /// A table of `size` entries, a prime; the seed draws for calls without a hash.
    pub fn new(seed: u64, size: u32) -> Self {
        Self {
            size,
            table: Vec::new(),
            candidates: Places::default(),
            random: Random::new(seed),
        }
    }

    /// The member of each entry.
    pub fn table(&self) -> &[u32] {
        &self.table
    }
}

/// A member while the table is filled.
struct Claimant {
    member: u32,
    weight: u64,
    /// The turns of the heaviest, weighted, that it waits for.
    due: u64,
    /// The entry that it would like next, and how far the one after is.
    next: usize,
    skip: usize,
}

impl Balancer for Maglev {
    fn handle_members(&mut self, members: &[Member<'_>]) {
        const FREE: u32 = u32::MAX;
        self.table.clear();
        // In the order of their keys, so that every client builds the same table.
        let mut sorted: Vec<_> = members.iter().enumerate().collect();
        sorted.retain(|(_, member)| member.weight > 0);
        sorted.sort_by_key(|(_, member)| member.key);
        let size = self.size as usize;
        let hashed = |key: &str, seed, below: u32| {
            let hash = xxh64(key.as_bytes(), seed) % u64::from(below.max(1));
            usize::try_from(hash).unwrap_or(0)
        };
        let mut claimants: Vec<_> = sorted
            .into_iter()
            .map(|(index, member)| Claimant {
                member: u32::try_from(index).unwrap_or(FREE),
                weight: u64::from(member.weight),
                due: 0,
                next: hashed(member.key, 0, self.size),
                skip: hashed(member.key, 1, self.size - 1) + 1,
            })
            .collect();
        let Some(heaviest) = claimants.iter().map(|each| each.weight).max() else {
            return;
        };
        let mut table = vec![FREE; size];
        let mut left = size;
        for turn in 1.. {
            for each in &mut claimants {
                if turn * each.weight < each.due {
                    continue;
                }
                each.due += heaviest;
                // A prime size lets the steps come by every entry, so a free one is found.
                let entry = loop {
                    let entry = &mut table[each.next];
                    each.next += each.skip;
                    if each.next >= size {
                        each.next -= size;
                    }
                    if *entry == FREE {
                        break entry;
                    }
                };
                *entry = each.member;
                left -= 1;
                if left == 0 {
                    self.table = table;
                    return;
                }
            }
        }
    }

    fn handle_update(&mut self, candidates: &[Candidate]) {
        self.candidates.update(candidates);
    }

    fn pick(&mut self, call: &Call<'_>) -> Option<usize> {
        let hash = call.hash.unwrap_or_else(|| self.random.next());
        let first = usize::try_from(hash % u64::from(self.size)).unwrap_or(0);
        let (before, after) = self.table.split_at_checked(first)?;
        let members = after.iter().chain(before);
        self.candidates
            .first(members.map(|&member| member as usize), hash)
    }
}
