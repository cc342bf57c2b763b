//! Balancers that keep calls with the same hash together.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use bascule_policy::balance::{Balancer, Maglev, RingHash, Sizes, subset};
use common::{allow, list, pick};
use proptest::prelude::*;

/// Hashes that are spread over the whole range.
fn hashes(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn picks(balancer: &mut dyn Balancer, count: u64) -> Vec<usize> {
    hashes(count)
        .map(|hash| pick(balancer, Some(hash)).unwrap())
        .collect()
}

fn both() -> [Box<dyn Balancer>; 2] {
    [
        Box::new(RingHash::new(1, 1_024, 4_096)),
        Box::new(Maglev::new(1, 65_537)),
    ]
}

#[test]
fn equal_hashes_stay_together() {
    for mut balancer in both() {
        list(balancer.as_mut(), &[1, 2, 3]);
        assert_eq!(
            picks(balancer.as_mut(), 500),
            picks(balancer.as_mut(), 500),
            "{balancer:?}"
        );
    }
}

#[test]
fn calls_without_a_hash_go_anywhere() {
    for mut balancer in both() {
        list(balancer.as_mut(), &[1, 1, 1]);
        let mut tally = [0_u32; 3];
        for _ in 0..3_000 {
            tally[pick(balancer.as_mut(), None).unwrap()] += 1;
        }
        assert!(tally.iter().all(|&taken| taken > 700), "{tally:?}");
    }
}

#[test]
fn one_that_cannot_take_calls_gives_away_its_own_only() {
    let weights = [1, 2, 3, 4, 5];
    for mut balancer in both() {
        list(balancer.as_mut(), &weights);
        let before = picks(balancer.as_mut(), 5_000);
        for gone in 0..weights.len() {
            let rest: Vec<_> = (0..weights.len()).filter(|&host| host != gone).collect();
            allow(balancer.as_mut(), &weights, &rest);
            let after = picks(balancer.as_mut(), 5_000);
            let mut heirs = vec![0; weights.len()];
            for (&was, &now) in before.iter().zip(&after) {
                if was == gone {
                    heirs[rest[now]] += 1;
                } else {
                    assert_eq!(was, rest[now]);
                }
            }
            // They go to everybody, not to one neighbour.
            assert!(
                rest.iter().all(|&host| heirs[host] > 0),
                "{gone}: {heirs:?}"
            );
            allow(balancer.as_mut(), &weights, &[0, 1, 2, 3, 4]);
            assert_eq!(picks(balancer.as_mut(), 5_000), before);
        }
    }
}

/// Which part of the calls of those that stay goes to another one when the last one leaves.
fn moved(balancer: &mut dyn Balancer, hosts: usize) -> f64 {
    list(balancer, &vec![1; hosts]);
    let before = picks(balancer, 20_000);
    list(balancer, &vec![1; hosts - 1]);
    let after = picks(balancer, 20_000);
    let stayed = before.iter().filter(|&&was| was != hosts - 1);
    let moved = before
        .iter()
        .zip(&after)
        .filter(|&(&was, &now)| was != hosts - 1 && was != now);
    #[allow(clippy::cast_precision_loss, reason = "both are small")]
    let share = moved.count() as f64 / stayed.count() as f64;
    share
}

#[test]
fn one_that_leaves_the_list_moves_little_else() {
    // A ring of this least size has 10 points for each of 100 and of 99 hosts.
    assert!(moved(&mut RingHash::new(1, 990, 4_096), 100).abs() < 1e-9);
    // Else those that stay get more points: here from 103 to 114, so 1 of 10 points is new.
    let share = moved(&mut RingHash::new(1, 1_024, 4_096), 10);
    assert!((0.01..0.11).contains(&share), "{share}");
    let share = moved(&mut Maglev::new(1, 65_537), 10);
    assert!((0.001..0.05).contains(&share), "{share}");
}

#[test]
fn a_ring_shares_by_weight() {
    let mut ring = RingHash::new(1, 16_384, 65_536);
    list(&mut ring, &[1, 2, 5, 0]);
    let picks = picks(&mut ring, 80_000);
    for (host, due) in [(0, 10_000_usize), (1, 20_000), (2, 50_000)] {
        let taken = picks.iter().filter(|&&picked| picked == host).count();
        assert!(taken.abs_diff(due) < due / 20, "{host}: {taken}");
    }
}

#[test]
fn a_ring_is_as_large_as_the_weights_ask_for() {
    let size = |weights: &[u32], least, most| {
        let mut ring = RingHash::new(1, least, most);
        list(&mut ring, weights);
        ring.len()
    };
    // The least, rounded up to whole points for the lightest: 3 * ceil(1024 / 3).
    assert_eq!(size(&[1, 1, 1], 1_024, 4_096), 1_026);
    assert_eq!(size(&[1, 3], 1_024, 4_096), 1_024);
    // ceil(1024 / 1000) points for the lightest are 2,000 in all.
    assert_eq!(size(&[1, 999], 1_024, 4_096), 2_000);
    assert_eq!(size(&[1, 999], 1_024, 2_000), 2_000);
    assert_eq!(size(&[1, 999], 1_024, 1_999), 1_999);
    assert_eq!(size(&[], 1_024, 4_096), 0);
    assert_eq!(size(&[0], 1_024, 4_096), 0);
    assert!(RingHash::new(1, 1, 1).is_empty());
}

#[test]
fn more_endpoints_than_room_are_still_picked() {
    let balancers: [Box<dyn Balancer>; 2] = [
        Box::new(RingHash::new(1, 1, 4)),
        Box::new(Maglev::new(1, 5)),
    ];
    for mut balancer in balancers {
        let weights = [1; 9];
        list(balancer.as_mut(), &weights);
        for host in 0..9 {
            allow(balancer.as_mut(), &weights, &[host]);
            assert_eq!(pick(balancer.as_mut(), Some(7)), Some(0), "{balancer:?}");
        }
    }
}

#[test]
fn maglev_shares_its_table_within_one_per_cent() {
    // The paper's figure for a table that is more than 100 times the number of backends.
    for hosts in [3_usize, 10, 100, 600] {
        let mut maglev = Maglev::new(1, 65_537);
        list(&mut maglev, &vec![1; hosts]);
        let mut entries = vec![0_usize; hosts];
        for &host in maglev.table() {
            entries[host as usize] += 1;
        }
        let (least, most) = (entries.iter().min().unwrap(), entries.iter().max().unwrap());
        assert!(most - least <= 1, "{hosts}: {least} to {most}");
        assert!(most * 100 <= least * 101);
    }
}

#[test]
fn maglev_shares_its_table_by_weight() {
    let weights = [0, 1, 2, 3, 10];
    let mut maglev = Maglev::new(1, 65_537);
    list(&mut maglev, &weights);
    for (host, &weight) in weights.iter().enumerate() {
        let taken = maglev
            .table()
            .iter()
            .filter(|&&each| each as usize == host)
            .count();
        let due = 65_537 * weight as usize / 16;
        assert!(
            taken.abs_diff(due) <= due / 100,
            "{host}: {taken} for {due}"
        );
    }
}

#[test]
fn tables_do_not_depend_on_the_order_of_the_list() {
    use bascule_policy::balance::{Candidate, Member};
    let keys = ["c:1", "a:1", "b:1"];
    let chosen = |balancer: &mut dyn Balancer, keys: &[&str]| -> Vec<String> {
        let members: Vec<_> = keys.iter().map(|key| Member { key, weight: 1 }).collect();
        balancer.handle_members(&members);
        let all = (0..keys.len()).map(|member| Candidate { member, weight: 1 });
        balancer.handle_update(&all.collect::<Vec<_>>());
        let picks = hashes(1_000).map(|hash| pick(balancer, Some(hash)).unwrap());
        picks.map(|place| keys[place].to_owned()).collect()
    };
    let mut sorted = keys;
    sorted.sort_unstable();
    for mut balancer in both() {
        let first = chosen(balancer.as_mut(), &keys);
        assert_eq!(first, chosen(balancer.as_mut(), &sorted));
    }
}

#[test]
fn sizes_are_checked() {
    let sizes = |ring_min, ring_max, table| {
        let sizes = Sizes {
            ring_min,
            ring_max,
            table,
        };
        sizes.checked().is_ok()
    };
    assert!(sizes(1, 1, 2));
    assert!(sizes(1_024, 1 << 20, 65_537));
    assert!(!sizes(0, 1, 2));
    assert!(!sizes(2, 1, 2));
    assert!(!sizes(1, (1 << 20) + 1, 2));
    for composite in [0, 1, 4, 9, 65_536, 65_535, 251 * 257] {
        assert!(!sizes(1, 1, composite), "{composite}");
    }
    for prime in [2, 3, 5, 7, 65_521, 1_048_573] {
        assert!(sizes(1, 1, prime), "{prime}");
    }
    assert!(!sizes(1, 1, 1_048_583));
}

proptest! {
    // A failure names its seed; files for it would clutter the tree.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Over whole rounds of clients nobody has more than one round's clients more than another.
    #[test]
    fn subsets_load_endpoints_evenly(count in 1..40_usize, size in 1..12_usize, rounds in 1..30_u64) {
        let keys: Vec<_> = (0..count).map(|host| format!("h{host}")).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let mut clients = vec![0_u64; count];
        let subsets = (count / size).max(1) as u64;
        for client in 0..rounds * subsets {
            let chosen = subset(&keys, client, size);
            prop_assert_eq!(chosen.len(), size.min(count));
            prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
            for place in chosen {
                clients[place] += 1;
            }
        }
        let (least, most) = (clients.iter().min().unwrap(), clients.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{:?}", clients);
    }
}

#[test]
fn subsets_differ_from_round_to_round() {
    let keys: Vec<_> = (0..100).map(|host| format!("h{host:02}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let first = subset(&keys, 0, 10);
    assert_ne!(first, subset(&keys, 10, 10));
    // One round deals out everybody once.
    let mut dealt: Vec<_> = (0..10)
        .flat_map(|client| subset(&keys, client, 10))
        .collect();
    dealt.sort_unstable();
    assert_eq!(dealt, (0..100).collect::<Vec<_>>());
    assert_eq!(subset(&keys, 3, 0), (0..100).collect::<Vec<_>>());
    let mut reversed = keys.clone();
    reversed.reverse();
    let chosen = subset(&reversed, 0, 10);
    let mut named: Vec<_> = chosen.iter().map(|&place| reversed[place]).collect();
    named.sort_unstable();
    assert_eq!(
        named,
        first.iter().map(|&place| keys[place]).collect::<Vec<_>>()
    );
}
