//! The memory of the limiters: bounded, and tidied a little with every check.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::{Algorithm, Decision};
use crate::Nanos;

/// Entries that an allowed check looks at to forget those that have rested. An allowed check adds
/// at most one, so with two the memory settles at no more than twice the keys that are active.
const SWEPT: usize = 2;

/// Entries among which the one to displace is sought when the memory is full. With 10, Redis
/// comes close to true LRU (its documentation of `maxmemory-samples`).
const SAMPLED: usize = 10;

/// Below this the tables are too small to be worth shrinking.
const SMALL: usize = 1024;

/// A limiter for many keys.
///
/// A key that has rested is the same as one that was never seen, so it is forgotten. When
/// `max_keys` others are known, a new key displaces, of ten, the one that has used least: a flood
/// of new keys displaces itself before it displaces a heavy user.
#[derive(Debug)]
pub struct Keyed<A: Algorithm> {
    algorithm: A,
    max_keys: usize,
    /// Dense, so that it can be swept by index, and 32 bytes each.
    entries: Vec<Entry<A::State>>,
    /// Places in `entries` by the hash of the key.
    places: HashTable<u32>,
    /// Keyed at random: the keys come from strangers, who must not be able to make them collide.
    hasher: RandomState,
    /// Where sweeping goes on.
    cursor: usize,
    displaced: u64,
}

#[derive(Debug)]
struct Entry<S> {
    key: Box<str>,
    state: S,
}

impl<A: Algorithm> Keyed<A> {
    /// Remembers at most `max_keys` keys, and at least one.
    pub fn new(algorithm: A, max_keys: u32) -> Self {
        Self {
            algorithm,
            max_keys: max_keys.max(1) as usize,
            entries: Vec::new(),
            places: HashTable::new(),
            hasher: RandomState::new(),
            cursor: 0,
            displaced: 0,
        }
    }

    /// Asks whether `cost` units may happen for that key now, and takes them if so.
    ///
    /// A cost of 0 only looks.
    pub fn handle_check(&mut self, key: &str, cost: u32, now: Nanos) -> Decision {
        let hash = self.hasher.hash_one(key);
        let entries = &self.entries;
        let place = self
            .places
            .find(hash, |&place| &*entries[place as usize].key == key)
            .copied();
        let state = match place {
            Some(place) => self.entries[place as usize].state,
            None => self.algorithm.rested(now),
        };
        let (state, decision) = self.algorithm.decide(state, cost, now);
        if decision.allowed && cost > 0 {
            match place {
                Some(place) => self.entries[place as usize].state = state,
                None => self.insert(hash, key, state, now),
            }
            self.sweep(now);
        }
        decision
    }

    /// Keys remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys that there is room for before memory has to grow.
    pub fn room(&self) -> usize {
        self.entries.capacity()
    }

    /// Keys that were displaced before they had rested, because the memory was full.
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    fn insert(&mut self, hash: u64, key: &str, state: A::State, now: Nanos) {
        if self.entries.len() >= self.max_keys {
            self.displace(now);
        }
        let Ok(place) = u32::try_from(self.entries.len()) else {
            return;
        };
        let Self {
            entries,
            places,
            hasher,
            ..
        } = self;
        entries.push(Entry {
            key: key.into(),
            state,
        });
        places.insert_unique(hash, place, |&place| {
            hasher.hash_one(&*entries[place as usize].key)
        });
    }

    fn displace(&mut self, now: Nanos) {
        let known = self.entries.len();
        let sample = (0..SAMPLED.min(known)).map(|step| (self.cursor + step) % known);
        let least = sample
            .map(|place| (self.algorithm.used(self.entries[place].state, now), place))
            .min();
        if let Some((used, place)) = least {
            self.displaced += u64::from(used > 0);
            self.remove(place);
        }
        self.cursor += SAMPLED;
    }

    fn sweep(&mut self, now: Nanos) {
        for _ in 0..SWEPT {
            if self.cursor >= self.entries.len() {
                self.cursor = 0;
            }
            let Some(entry) = self.entries.get(self.cursor) else {
                return;
            };
            if self.algorithm.rested_at(entry.state) <= now {
                self.remove(self.cursor);
            } else {
                self.cursor += 1;
            }
        }
    }

    /// Forgets an entry; the last one takes its place.
    fn remove(&mut self, place: usize) {
        let last = self.entries.len() - 1;
        self.forget_place(place);
        if place != last {
            let hash = self.hasher.hash_one(&*self.entries[last].key);
            if let Some(moved) = self.places.find_mut(hash, |&known| known as usize == last) {
                *moved = u32::try_from(place).unwrap_or(u32::MAX);
            }
        }
        self.entries.swap_remove(place);
        self.shrink();
    }

    fn forget_place(&mut self, place: usize) {
        let hash = self.hasher.hash_one(&*self.entries[place].key);
        if let Ok(found) = self
            .places
            .find_entry(hash, |&known| known as usize == place)
        {
            found.remove();
        }
    }

    /// Gives memory back once a quarter of it would do.
    fn shrink(&mut self) {
        let Self {
            entries,
            places,
            hasher,
            ..
        } = self;
        if entries.capacity() > SMALL && entries.len() < entries.capacity() / 4 {
            let room = entries.len() * 2;
            entries.shrink_to(room);
            places.shrink_to(room, |&place| {
                hasher.hash_one(&*entries[place as usize].key)
            });
        }
    }
}
