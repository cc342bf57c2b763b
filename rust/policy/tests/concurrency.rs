//! Limits of concurrency: what holds at their edges, whatever they learn in between.

#![allow(clippy::unwrap_used, reason = "a test may")]

use bascule_policy::balance::{Kind, Sizes};
use bascule_policy::concurrency::{
    Admission, AimdSettings, Ending, FLOOR_CALLS, FLOOR_SPAN, Gradient2Settings, Limiter, Permit,
    Range, Refused, Rule,
};
use bascule_policy::{CallPolicy, CallVerdict, Nanos, Outcome};
use proptest::prelude::*;

const MS: Nanos = 1_000_000;

const RANGE: Range = Range {
    initial: 20,
    least: 1,
    most: 1_000,
};

const AIMD: AimdSettings = AimdSettings {
    range: RANGE,
    backoff: 0.5,
    slow: None,
};

const GRADIENT2: Gradient2Settings = Gradient2Settings {
    range: RANGE,
    window: 250 * MS,
    samples: 25,
    long_window: 600_000 * MS,
    tolerance: 1.5,
    smoothing: 0.2,
    queue: None,
    quick: 5 * MS,
    probe_interval: Some(30_000 * MS),
};

fn rules() -> impl Strategy<Value = Rule> {
    prop_oneof![
        (1_u32..9).prop_map(Rule::Fixed),
        Just(Rule::Aimd(AIMD)),
        Just(Rule::Gradient2(GRADIENT2)),
        Just(Rule::Gradient2(Gradient2Settings {
            window: 1,
            samples: 1,
            probe_interval: Some(1),
            ..GRADIENT2
        })),
    ]
}

proptest! {
    /// Times of every kind: a clock that stands still, jumps to its end or goes backwards.
    #[test]
    fn no_time_makes_it_fail_or_forget_a_permit(
        rule in rules(),
        steps in proptest::collection::vec((any::<u64>(), 0_u8..3, any::<bool>()), 1..400),
    ) {
        let mut limiter = Limiter::new(rule, 1);
        let mut permits = Vec::new();
        for (now, ending, begins) in steps {
            if begins {
                let had_room = limiter.admits();
                let permit = limiter.handle_admit(now);
                prop_assert_eq!(permit.is_some(), had_room);
                permits.extend(permit);
            } else if let Some(permit) = permits.pop() {
                let ending = [Ending::Done, Ending::Lost, Ending::Untold][usize::from(ending)];
                limiter.handle_complete(permit, ending, now);
            }
            prop_assert_eq!(limiter.in_flight() as usize, permits.len());
            prop_assert!((1..=1_000).contains(&limiter.limit()));
        }
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let none = Range { least: 0, ..RANGE };
    let below = Range { least: 21, ..RANGE };
    let wrong = [
        Rule::Fixed(0),
        Rule::Aimd(AimdSettings {
            range: none,
            ..AIMD
        }),
        Rule::Aimd(AimdSettings {
            range: below,
            ..AIMD
        }),
        Rule::Aimd(AimdSettings {
            backoff: 1.0,
            ..AIMD
        }),
        Rule::Aimd(AimdSettings {
            slow: Some(0),
            ..AIMD
        }),
        Rule::Gradient2(Gradient2Settings {
            range: none,
            ..GRADIENT2
        }),
        Rule::Gradient2(Gradient2Settings {
            tolerance: f64::NAN,
            ..GRADIENT2
        }),
        Rule::Gradient2(Gradient2Settings {
            smoothing: 0.0,
            ..GRADIENT2
        }),
        Rule::Gradient2(Gradient2Settings {
            window: 0,
            ..GRADIENT2
        }),
        Rule::Gradient2(Gradient2Settings {
            samples: 0,
            ..GRADIENT2
        }),
        Rule::Gradient2(Gradient2Settings {
            probe_interval: Some(0),
            ..GRADIENT2
        }),
    ];
    for rule in wrong {
        assert!(rule.checked().is_err(), "{rule:?}");
    }
    assert!(Rule::Gradient2(GRADIENT2).checked().is_ok());
}

/// Keeps as many calls in progress as the limit allows, each of which takes so long.
fn crowd(limiter: &mut Limiter, from: Nanos, until: Nanos, took: Nanos) -> Vec<u32> {
    let mut limits = Vec::new();
    let mut now = from;
    while now < until {
        let permits: Vec<Permit> = std::iter::from_fn(|| limiter.handle_admit(now)).collect();
        now += took;
        for permit in permits {
            limiter.handle_complete(permit, Ending::Done, now);
        }
        limits.push(limiter.limit());
    }
    limits
}

#[test]
fn a_probe_leaves_a_quarter_and_ends_by_itself() {
    let rule = Rule::Gradient2(Gradient2Settings {
        range: Range {
            initial: 40,
            least: 1,
            most: 40,
        },
        ..GRADIENT2
    });
    let mut limiter = Limiter::new(rule, 1);
    // The first one comes after a tenth of the interval, give or take 15 per cent.
    assert!(
        crowd(&mut limiter, 0, 2_500 * MS, 50 * MS)
            .iter()
            .all(|limit| *limit == 40)
    );
    let limits = crowd(&mut limiter, 2_500 * MS, 4_000 * MS, 50 * MS);
    assert!(limits.contains(&10), "{limits:?}");
    assert_eq!(limits.last(), Some(&40));
}

#[test]
fn a_floor_is_known_from_enough_calls_and_forgotten_if_none_confirms_it() {
    let mut admission = Admission::new(None, 1, 2, true);
    let mut now = 0;
    for _ in 0..FLOOR_CALLS {
        let permit = admission.handle_admit(0, Some(MS), now).unwrap();
        now += 100 * MS;
        admission.handle_complete(0, permit, Ending::Done, now);
    }
    let late = Err(Refused::Late { shortest: 100 * MS });
    assert_eq!(admission.handle_admit(0, Some(100 * MS - 1), now), late);
    assert!(admission.handle_admit(0, Some(100 * MS), now).is_ok());
    assert!(
        admission.handle_admit(0, None, now).is_ok(),
        "who has no deadline is never late"
    );
    assert!(
        admission.handle_admit(1, Some(MS), now).is_ok(),
        "another method"
    );
    assert_eq!(admission.late(), 1);
    assert_eq!(
        admission.handle_admit(0, Some(MS), now + FLOOR_SPAN - 2_000 * MS),
        late
    );
    assert!(
        admission
            .handle_admit(0, Some(MS), now + 3 * FLOOR_SPAN)
            .is_ok()
    );
    // A method that nobody has told of is never refused.
    assert!(admission.handle_admit(9, Some(MS), now).is_ok());
}

#[test]
fn every_balancer_finds_the_one_endpoint_with_room() {
    for kind in Kind::ALL {
        let mut policy = CallPolicy::new(kind.build(1, &Sizes::default()), None, None)
            .with_concurrency(Rule::Fixed(1), 1);
        let hosts: Vec<String> = (0..20).map(|host| format!("host{host}")).collect();
        let ids = policy.handle_update(hosts.iter().map(|host| (host.as_str(), 1)), 0);
        for &id in &ids {
            policy.handle_ready(id, true);
        }
        let mut seen = Vec::new();
        for _ in &ids {
            match policy.handle_admit("", Some(42), 0) {
                CallVerdict::Admit { endpoint, permit } => seen.push((endpoint, permit)),
                refused => unreachable!("{kind:?}: {refused:?}"),
            }
        }
        let refused = policy.handle_admit("", Some(42), 0);
        assert_eq!(refused, CallVerdict::ConcurrencyLimited, "{kind:?}");
        let (endpoint, permit) = seen.pop().unwrap();
        policy.handle_complete(endpoint, permit, Outcome::Abandoned, 0);
        let again = policy.handle_admit("", Some(42), 0);
        assert!(
            matches!(again, CallVerdict::Admit { endpoint: found, .. } if found == endpoint),
            "{kind:?}: {again:?}"
        );
        seen.sort_by_key(|(endpoint, _)| *endpoint);
        seen.dedup_by_key(|(endpoint, _)| *endpoint);
        assert_eq!(seen.len(), ids.len() - 1, "{kind:?}: each has one");
    }
}
