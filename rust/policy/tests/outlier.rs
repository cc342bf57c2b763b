//! Outlier detection within the decision about a call.

#![allow(clippy::unwrap_used, reason = "a test may")]

use bascule_policy::balance::{Kind, Sizes};
use bascule_policy::{
    CallPolicy, CallVerdict, FailurePercentage, Nanos, Outcome, OutlierSettings, SuccessRate,
};

const BY_FAILURES: FailurePercentage = FailurePercentage {
    threshold: 50,
    enforcement_percentage: 100,
    minimum_hosts: 2,
    request_volume: 4,
};

const BY_RATE: SuccessRate = SuccessRate {
    stdev_factor: 1_000,
    enforcement_percentage: 100,
    minimum_hosts: 3,
    request_volume: 10,
};

const SETTINGS: OutlierSettings = OutlierSettings {
    interval: 100,
    base_ejection_time: 250,
    max_ejection_time: 600,
    max_ejection_percent: 50,
    success_rate: None,
    failure_percentage: Some(BY_FAILURES),
};

/// A channel with some hosts, and how many calls of each fail.
struct Channel {
    policy: CallPolicy,
    hosts: Vec<String>,
    now: Nanos,
}

impl Channel {
    fn new(settings: OutlierSettings, hosts: usize) -> Self {
        let balancer = Kind::RoundRobin.build(1, &Sizes::default());
        let policy = CallPolicy::new(balancer, None, None);
        let hosts: Vec<_> = (0..hosts).map(|host| format!("h{host}")).collect();
        let mut channel = Self {
            policy: policy.with_outlier_detection(settings.checked().unwrap(), 1),
            hosts,
            now: 0,
        };
        channel.list(channel.hosts.len());
        channel
    }

    fn list(&mut self, count: usize) {
        let listed = self.hosts[..count].iter().map(|host| (host.as_str(), 1));
        for id in self.policy.handle_update(listed, self.now) {
            self.policy.handle_ready(id, true);
        }
    }

    /// Makes calls in turn; `failing` tells whether the nth call of a host fails.
    fn calls(&mut self, count: usize, failing: impl Fn(u64, usize) -> bool) {
        let mut nth = vec![0; self.hosts.len()];
        for _ in 0..count {
            let (endpoint, permit) = match self.policy.handle_admit("", None, self.now) {
                CallVerdict::Admit { endpoint, permit } => (endpoint, permit),
                refused => unreachable!("{refused:?}"),
            };
            let calls = &mut nth[usize::try_from(endpoint).unwrap()];
            let outcome = if failing(endpoint, *calls) {
                Outcome::Failure
            } else {
                Outcome::Success
            };
            *calls += 1;
            self.policy
                .handle_complete(endpoint, permit, outcome, self.now);
        }
    }

    /// Which hosts are ejected, and until when.
    fn ejected(&self) -> Vec<(usize, Nanos)> {
        let views = self.policy.endpoints().enumerate();
        views
            .filter_map(|(place, view)| Some((place, view.ejected_until?)))
            .collect()
    }

    /// Lets the time come, and notices it.
    fn advance(&mut self, now: Nanos) {
        self.now = now;
        self.calls(1, |_, _| false);
    }
}

#[test]
fn a_failing_host_is_left_out_and_comes_back() {
    let mut channel = Channel::new(SETTINGS, 4);
    channel.now = 99;
    channel.calls(16, |host, _| host == 2);
    assert_eq!(channel.ejected(), []);
    channel.advance(100);
    assert_eq!(channel.ejected(), [(2, 350)]);
    channel.calls(12, |host, _| host == 2);
    let picks: Vec<_> = channel.policy.endpoints().map(|view| view.picks).collect();
    assert_eq!(picks[2], 4);
    // The interval that ends at 300 is before its time, the next one after.
    channel.advance(399);
    assert_eq!(channel.ejected(), [(2, 350)]);
    channel.advance(400);
    assert_eq!(channel.ejected(), []);
    channel.calls(4, |_, _| false);
    let picks: Vec<_> = channel.policy.endpoints().map(|view| view.picks).collect();
    assert_eq!(picks[2], 5);
}

#[test]
fn it_comes_back_only_after_its_time() {
    // Out until exactly the end of an interval: that one is too early by a moment.
    let settings = OutlierSettings {
        base_ejection_time: 300,
        ..SETTINGS
    };
    let mut channel = Channel::new(settings, 4);
    channel.calls(16, |host, _| host == 2);
    channel.advance(100);
    channel.advance(400);
    assert_eq!(channel.ejected(), [(2, 400)]);
    channel.advance(500);
    assert_eq!(channel.ejected(), []);
}

#[test]
fn it_is_out_for_longer_each_time_up_to_a_limit() {
    let mut channel = Channel::new(SETTINGS, 2);
    let mut spans = Vec::new();
    for _ in 0..4 {
        let begin = channel.now;
        while channel.ejected().is_empty() {
            channel.calls(8, |host, _| host == 1);
            channel.advance(channel.now + 100);
        }
        spans.push((channel.ejected()[0].1 - channel.now, channel.now - begin));
        while !channel.ejected().is_empty() {
            channel.advance(channel.now + 100);
        }
    }
    // It was out for 250, 500, then 600 as the longest, and was caught within an interval.
    assert_eq!(spans, [(250, 100), (500, 100), (600, 100), (600, 100)]);
}

#[test]
fn standing_makes_good_for_an_ejection() {
    let mut channel = Channel::new(SETTINGS, 2);
    channel.calls(8, |host, _| host == 1);
    channel.advance(100);
    channel.advance(400);
    assert_eq!(channel.ejected(), []);
    // One judgement stood: the next ejection is a first one again.
    channel.advance(500);
    channel.calls(8, |host, _| host == 1);
    channel.advance(600);
    assert_eq!(channel.ejected(), [(1, 850)]);
}

#[test]
fn a_base_above_the_limit_is_the_limit() {
    let settings = OutlierSettings {
        base_ejection_time: 900,
        ..SETTINGS
    };
    let mut channel = Channel::new(settings, 2);
    channel.calls(8, |host, _| host == 1);
    channel.advance(100);
    assert_eq!(channel.ejected(), [(1, 1_000)]);
}

#[test]
fn what_was_missed_is_made_up_for() {
    let mut channel = Channel::new(SETTINGS, 2);
    channel.calls(8, |host, _| host == 1);
    // Judged at 100 although nobody asked before 200,000,050; back since 400, and forgiven.
    channel.advance(200_000_050);
    assert_eq!(channel.ejected(), []);
    channel.calls(8, |host, _| host == 1);
    channel.advance(200_000_099);
    assert_eq!(channel.ejected(), []);
    channel.advance(200_000_100);
    assert_eq!(channel.ejected(), [(1, 200_000_350)]);
}

#[test]
fn what_was_missed_is_forgiven_step_by_step() {
    let settings = OutlierSettings {
        max_ejection_percent: 100,
        ..SETTINGS
    };
    let mut channel = Channel::new(settings, 2);
    for now in [100, 500] {
        channel.calls(8, |_, _| true);
        channel.advance(now);
        channel.now = now + 300;
    }
    // Ejected twice, the second time for 500: back since 1,100, forgiven at 1,200 and 1,300.
    channel.advance(2_050);
    channel.calls(8, |_, _| true);
    channel.advance(2_100);
    assert_eq!(channel.ejected(), [(0, 2_350), (1, 2_350)]);
}

#[test]
fn failures_must_exceed_the_threshold() {
    let mut channel = Channel::new(SETTINGS, 2);
    channel.calls(8, |host, nth| host == 1 && nth < 2);
    channel.advance(100);
    assert_eq!(channel.ejected(), []);
    channel.calls(7, |host, nth| host == 1 && nth < 3);
    channel.advance(200);
    assert_eq!(channel.ejected(), [(1, 450)]);
}

#[test]
fn few_calls_and_few_hosts_tell_nothing() {
    let mut channel = Channel::new(SETTINGS, 2);
    channel.calls(6, |host, _| host == 1);
    channel.advance(100);
    assert_eq!(channel.ejected(), []);
    let mut alone = Channel::new(SETTINGS, 1);
    alone.calls(8, |_, _| true);
    alone.advance(100);
    assert_eq!(alone.ejected(), []);
    // Calls do not add up over intervals.
    channel.calls(4, |host, _| host == 1);
    channel.advance(200);
    assert_eq!(channel.ejected(), []);
}

#[test]
fn only_so_many_are_ejected() {
    for (percent, most) in [(0, 0), (1, 1), (10, 1), (11, 2), (50, 5), (100, 10)] {
        let settings = OutlierSettings {
            max_ejection_percent: percent,
            ..SETTINGS
        };
        let mut channel = Channel::new(settings, 10);
        channel.calls(40, |_, _| true);
        channel.advance(100);
        assert_eq!(channel.ejected().len(), most, "{percent} %");
    }
}

#[test]
fn if_all_are_ejected_none_is() {
    let settings = OutlierSettings {
        max_ejection_percent: 100,
        ..SETTINGS
    };
    let mut channel = Channel::new(settings, 3);
    channel.calls(12, |_, _| true);
    channel.advance(100);
    assert_eq!(channel.ejected().len(), 3);
    channel.calls(11, |_, _| false);
    let picks: Vec<_> = channel.policy.endpoints().map(|view| view.picks).collect();
    assert_eq!(picks, [8, 8, 8]);
    // One that is not ejected gets everything, as soon as it can take calls.
    channel.hosts.push("new".to_owned());
    channel.list(4);
    channel.calls(5, |_, _| false);
    assert_eq!(channel.policy.endpoints().nth(3).unwrap().picks, 5);
}

#[test]
fn a_low_success_rate_is_one_far_below_the_mean() {
    let settings = OutlierSettings {
        success_rate: Some(BY_RATE),
        failure_percentage: None,
        ..SETTINGS
    };
    // Of four, three without a failure: the fourth is sqrt(3) standard deviations below the mean.
    for (factor, out) in [(1_732, true), (1_733, false), (1_000, true)] {
        let rule = SuccessRate {
            stdev_factor: factor,
            ..BY_RATE
        };
        let settings = OutlierSettings {
            success_rate: Some(rule),
            ..settings
        };
        let mut channel = Channel::new(settings, 4);
        channel.calls(40, |host, nth| host == 3 && nth < 4);
        channel.advance(100);
        assert_eq!(!channel.ejected().is_empty(), out, "{factor}");
    }
}

#[test]
fn one_of_two_is_exactly_one_standard_deviation_below_the_mean() {
    for (factor, out) in [(999, 1), (1_000, 0)] {
        let settings = OutlierSettings {
            success_rate: Some(SuccessRate {
                stdev_factor: factor,
                minimum_hosts: 2,
                ..BY_RATE
            }),
            failure_percentage: None,
            ..SETTINGS
        };
        let mut channel = Channel::new(settings, 2);
        channel.calls(20, |host, _| host == 1);
        channel.advance(100);
        assert_eq!(channel.ejected().len(), out, "{factor}");
    }
}

#[test]
fn success_rates_compare_hosts_with_more_and_fewer_calls() {
    let settings = OutlierSettings {
        success_rate: Some(SuccessRate {
            stdev_factor: 0,
            ..BY_RATE
        }),
        failure_percentage: None,
        ..SETTINGS
    };
    let balancer = Kind::RoundRobin.build(1, &Sizes::default());
    let policy = CallPolicy::new(balancer, None, None);
    let mut channel = Channel::new(settings, 3);
    channel.policy = policy.with_outlier_detection(settings, 1);
    for id in channel
        .policy
        .handle_update([("a", 1), ("b", 2), ("c", 3)], 0)
    {
        channel.policy.handle_ready(id, true);
    }
    channel.calls(60, |_, nth| nth % 10 == 0);
    channel.advance(100);
    assert_eq!(channel.ejected(), []);
}

#[test]
fn equal_success_rates_have_no_outlier() {
    let settings = OutlierSettings {
        success_rate: Some(SuccessRate {
            stdev_factor: 0,
            ..BY_RATE
        }),
        failure_percentage: None,
        ..SETTINGS
    };
    // A tenth is no sum of powers of two: averaged in floating point the mean could be higher.
    let mut channel = Channel::new(settings, 3);
    channel.calls(30, |_, nth| nth < 9);
    channel.advance(100);
    assert_eq!(channel.ejected(), []);
}

#[test]
fn success_rates_of_few_hosts_or_calls_do_not_count() {
    let settings = OutlierSettings {
        success_rate: Some(BY_RATE),
        failure_percentage: None,
        ..SETTINGS
    };
    let sharp = OutlierSettings {
        success_rate: Some(SuccessRate {
            stdev_factor: 500,
            ..BY_RATE
        }),
        ..settings
    };
    let mut few_hosts = Channel::new(sharp, 2);
    few_hosts.calls(20, |host, _| host == 1);
    few_hosts.advance(100);
    assert_eq!(few_hosts.ejected(), []);
    let mut few_calls = Channel::new(settings, 3);
    few_calls.calls(29, |host, _| host == 1);
    few_calls.advance(100);
    assert_eq!(few_calls.ejected(), []);
    let mut enough = Channel::new(settings, 3);
    enough.calls(30, |host, _| host == 1);
    enough.advance(100);
    assert_eq!(enough.ejected(), [(1, 350)]);
}

#[test]
fn enforcement_is_a_chance() {
    let mut out = 0;
    for round in 0..1_000 {
        let settings = OutlierSettings {
            failure_percentage: Some(FailurePercentage {
                enforcement_percentage: 30,
                ..BY_FAILURES
            }),
            ..SETTINGS
        };
        let balancer = Kind::RoundRobin.build(1, &Sizes::default());
        let policy = CallPolicy::new(balancer, None, None);
        let mut channel = Channel::new(settings, 2);
        channel.policy = policy.with_outlier_detection(settings, round);
        channel.list(2);
        channel.calls(8, |host, _| host == 1);
        channel.advance(100);
        out += channel.ejected().len();
    }
    assert!((250..350).contains(&out), "{out}");
}

#[test]
fn what_nobody_waited_for_does_not_count() {
    let mut channel = Channel::new(SETTINGS, 2);
    for _ in 0..20 {
        let CallVerdict::Admit { endpoint, permit } = channel.policy.handle_admit("", None, 0)
        else {
            unreachable!("both are ready");
        };
        let outcome = Outcome::Abandoned;
        channel.policy.handle_complete(endpoint, permit, outcome, 0);
    }
    channel.calls(6, |host, _| host == 1);
    channel.advance(100);
    assert_eq!(channel.ejected(), []);
}

#[test]
fn who_leaves_and_comes_back_is_not_ejected() {
    let mut channel = Channel::new(SETTINGS, 2);
    channel.calls(8, |host, _| host == 1);
    channel.advance(100);
    channel.list(1);
    assert_eq!(channel.ejected(), []);
    channel.list(2);
    assert_eq!(channel.ejected(), []);
}

#[test]
fn settings_are_checked() {
    let ok = |settings: OutlierSettings| settings.checked().is_ok();
    assert!(ok(SETTINGS));
    assert!(ok(OutlierSettings::default()));
    let with = |change: fn(&mut OutlierSettings)| {
        let mut settings = SETTINGS;
        change(&mut settings);
        settings.checked().is_ok()
    };
    assert!(!with(|each| each.interval = 0));
    assert!(with(|each| each.max_ejection_percent = 100));
    assert!(!with(|each| each.max_ejection_percent = 101));
    assert!(with(|each| each.max_ejection_time = 100_000 * 100));
    assert!(!with(|each| each.max_ejection_time = 100_001 * 100));
    assert!(!with(|each| each.base_ejection_time = 100_001 * 100));
    assert!(!with(|each| each.failure_percentage =
        Some(FailurePercentage {
            threshold: 101,
            ..BY_FAILURES
        })));
    assert!(!with(|each| each.failure_percentage =
        Some(FailurePercentage {
            enforcement_percentage: 101,
            ..BY_FAILURES
        })));
    assert!(!with(|each| each.success_rate = Some(SuccessRate {
        enforcement_percentage: 101,
        ..BY_RATE
    })));
    assert!(with(|each| each.success_rate = Some(SuccessRate {
        stdev_factor: 1_000_000,
        ..BY_RATE
    })));
    assert!(!with(|each| each.success_rate = Some(SuccessRate {
        stdev_factor: 1_000_001,
        ..BY_RATE
    })));
}
