//! Which endpoints a client connects to when there are too many for everybody to know everybody.

use crate::random::Random;

/// The places of the endpoints in the subset of one client, ascending; all if they are no more
/// than `size`.
///
/// Source: gRFC A68's deterministic subsetting, after "Site Reliability Engineering", chapter 20.
/// Clients are numbered from 0 without gaps. A round of clients, as many as there are whole
/// subsets, deals out one shuffle of the endpoints; each round leaves another run of endpoints
/// over, in rotation, so that all of them get as many clients as the next, give or take what one
/// round leaves over. The order in which the keys are listed does not count.
pub fn subset(keys: &[&str], client: u64, size: usize) -> Vec<usize> {
    let count = keys.len();
    if size == 0 || count <= size {
        return (0..count).collect();
    }
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by_key(|&place| keys[place]);
    let subsets = count / size;
    let (round, turn) = (client / subsets as u64, client % subsets as u64);
    let over = count % size;
    // Both are below the number of keys, as a factor of the product or as the remainder.
    let small = |number: u64| usize::try_from(number).unwrap_or(0);
    let first_over = small(round % count as u64) * over % count;
    places.rotate_left(first_over);
    places.drain(..over);
    // Rotated back, so that the rotation is not a second source of order for the shuffle.
    places.sort_by_key(|&place| keys[place]);
    shuffle(&mut places, &mut Random::new(round));
    let begin = small(turn) * size;
    let mut chosen = places[begin..begin + size].to_vec();
    chosen.sort_unstable();
    chosen
}

/// Fisher and Yates's shuffle, from the end as Durstenfeld does it.
fn shuffle(places: &mut [usize], random: &mut Random) {
    for last in (1..places.len()).rev() {
        let other = usize::try_from(random.below(last as u64 + 1)).unwrap_or(0);
        places.swap(last, other);
    }
}
