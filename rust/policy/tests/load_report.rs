//! Weights by what servers report.

#![allow(clippy::unwrap_used, reason = "a test may")]

use bascule_policy::balance::{Kind, Sizes};
use bascule_policy::{CallPolicy, CallVerdict, LoadReport, LoadReportSettings, Nanos, Outcome};

const SETTINGS: LoadReportSettings = LoadReportSettings {
    blackout_period: 100,
    weight_expiration_period: 1_000,
    weight_update_period: 10,
    error_utilization_penalty: 1.0,
};

fn load(qps: f64, cpu_utilization: f64) -> LoadReport {
    LoadReport {
        qps,
        cpu_utilization,
        ..LoadReport::default()
    }
}

struct Channel {
    policy: CallPolicy,
    ids: Vec<u64>,
}

impl Channel {
    fn new(settings: LoadReportSettings, weights: &[u32]) -> Self {
        let balancer = Kind::WeightedRoundRobin.build(1, &Sizes::default());
        let policy = CallPolicy::new(balancer, None, None);
        let mut policy = policy.with_load_reports(settings.checked().unwrap());
        let names: Vec<_> = (0..weights.len()).map(|host| format!("h{host}")).collect();
        let listed = names
            .iter()
            .map(String::as_str)
            .zip(weights.iter().copied());
        let ids = policy.handle_update(listed, 0);
        for &id in &ids {
            policy.handle_ready(id, true);
        }
        Self { policy, ids }
    }

    fn report(&mut self, host: usize, report: &LoadReport, now: Nanos) {
        self.policy.handle_load_report(self.ids[host], report, now);
    }

    /// Of so many calls at a time, those to each host.
    fn share(&mut self, calls: usize, now: Nanos) -> Vec<usize> {
        let mut taken = vec![0; self.ids.len()];
        for _ in 0..calls {
            let (endpoint, permit) = match self.policy.handle_admit("", None, now) {
                CallVerdict::Admit { endpoint, permit } => (endpoint, permit),
                refused => unreachable!("{refused:?}"),
            };
            taken[self.ids.iter().position(|&id| id == endpoint).unwrap()] += 1;
            let outcome = Outcome::Success;
            self.policy.handle_complete(endpoint, permit, outcome, now);
        }
        taken
    }
}

/// Give or take one call: a third is no whole number of thousandths.
fn two_to_one(share: &[usize]) {
    assert!(share[0].abs_diff(2_000) <= 1, "{share:?}");
}

#[test]
fn capacity_is_calls_for_utilization() {
    let mut channel = Channel::new(SETTINGS, &[1, 1]);
    // 100 calls at 25 % are as much as 300 at 75 %, and twice as much as 100 at 50 %.
    channel.report(0, &load(100.0, 0.25), 0);
    channel.report(1, &load(100.0, 0.5), 0);
    two_to_one(&channel.share(3_000, 100));
    channel.report(1, &load(300.0, 0.75), 100);
    assert_eq!(channel.share(2_000, 110), [1_000, 1_000]);
}

#[test]
fn the_applications_own_utilization_comes_first_and_errors_count() {
    let mut channel = Channel::new(SETTINGS, &[1, 1]);
    let own = LoadReport {
        application_utilization: 0.25,
        ..load(100.0, 0.9)
    };
    channel.report(0, &own, 0);
    channel.report(1, &load(100.0, 0.5), 0);
    two_to_one(&channel.share(3_000, 100));
    // 25 errors of 100 weigh as much as another quarter of utilization.
    channel.report(0, &LoadReport { eps: 25.0, ..own }, 100);
    assert_eq!(channel.share(2_000, 200), [1_000, 1_000]);
    let settings = LoadReportSettings {
        error_utilization_penalty: 0.0,
        ..SETTINGS
    };
    let mut channel = Channel::new(settings, &[1, 1]);
    channel.report(0, &LoadReport { eps: 25.0, ..own }, 0);
    channel.report(1, &load(100.0, 0.5), 0);
    two_to_one(&channel.share(3_000, 100));
}

#[test]
fn reports_count_after_a_blackout_and_expire() {
    let mut channel = Channel::new(SETTINGS, &[3, 1]);
    channel.report(0, &load(100.0, 0.5), 0);
    channel.report(1, &load(100.0, 0.5), 50);
    // Until two have proven themselves, the listed weights hold.
    assert_eq!(channel.share(400, 149), [300, 100]);
    assert_eq!(channel.share(400, 159), [200, 200]);
    channel.report(0, &load(100.0, 0.5), 500);
    assert_eq!(channel.share(400, 1_040), [200, 200]);
    assert_eq!(channel.share(400, 1_050), [300, 100]);
    // After a gap there is a blackout again.
    channel.report(1, &load(100.0, 0.5), 1_100);
    assert_eq!(channel.share(400, 1_199), [300, 100]);
    assert_eq!(channel.share(400, 1_210), [200, 200]);
}

#[test]
fn weights_follow_at_their_own_pace() {
    let mut channel = Channel::new(SETTINGS, &[1, 1]);
    channel.report(0, &load(100.0, 0.5), 0);
    channel.report(1, &load(100.0, 0.5), 0);
    assert_eq!(channel.share(400, 100), [200, 200]);
    channel.report(0, &load(300.0, 0.5), 101);
    assert_eq!(channel.share(400, 109), [200, 200]);
    assert_eq!(channel.share(400, 110), [300, 100]);
}

#[test]
fn who_does_not_report_has_the_mean() {
    let mut channel = Channel::new(SETTINGS, &[1, 1, 1, 0]);
    channel.report(0, &load(100.0, 0.5), 0);
    channel.report(1, &load(300.0, 0.5), 0);
    channel.report(3, &load(900.0, 0.5), 0);
    assert_eq!(channel.share(600, 100), [100, 300, 200, 0]);
}

#[test]
fn one_report_draws_no_more_than_ten_times_the_mean() {
    let mut channel = Channel::new(SETTINGS, &[1; 40]);
    for host in 0..40 {
        let qps = if host == 0 { 1e12 } else { 1.0 };
        channel.report(host, &load(qps, 0.5), 0);
    }
    // The mean is nearly a 40th of the first: it gets 10 of it, the others a tenth each.
    let share = channel.share(13_900, 100);
    assert_eq!((share[0], share[1]), (10_000, 100));
}

#[test]
fn a_new_connection_proves_itself_again() {
    let mut channel = Channel::new(SETTINGS, &[3, 1]);
    channel.report(0, &load(100.0, 0.5), 0);
    channel.report(1, &load(100.0, 0.5), 0);
    assert_eq!(channel.share(400, 100), [200, 200]);
    channel.policy.handle_ready(channel.ids[1], false);
    channel.policy.handle_ready(channel.ids[1], true);
    assert_eq!(channel.share(400, 120), [300, 100]);
    channel.report(1, &load(100.0, 0.5), 130);
    assert_eq!(channel.share(400, 229), [300, 100]);
    assert_eq!(channel.share(400, 240), [200, 200]);
}

#[test]
fn reports_that_tell_nothing_are_ignored() {
    let mut channel = Channel::new(SETTINGS, &[1, 1]);
    channel.report(0, &load(100.0, 0.5), 0);
    channel.report(1, &load(300.0, 0.5), 0);
    for (qps, cpu) in [
        (0.0, 0.5),
        (100.0, 0.0),
        (-1.0, 0.5),
        (100.0, -0.5),
        (f64::NAN, 0.5),
        (100.0, f64::NAN),
        (f64::INFINITY, 0.5),
        (100.0, f64::INFINITY),
        (1e308, 1e-308),
    ] {
        channel.report(0, &load(qps, cpu), 50);
        let failing = LoadReport {
            eps: 80.0,
            ..load(qps, cpu)
        };
        if cpu <= 0.0 {
            channel.report(0, &failing, 50);
        }
    }
    channel.policy.handle_load_report(99, &load(1.0, 1.0), 50);
    assert_eq!(channel.share(400, 100), [100, 300]);
}

#[test]
fn a_report_is_read_from_its_encoding() {
    let mut bytes = Vec::new();
    let mut double = |field: u8, value: f64| {
        bytes.push(field << 3 | 1);
        bytes.extend(value.to_le_bytes());
    };
    double(1, 0.25);
    double(2, 0.75);
    double(6, 100.0);
    double(7, 2.0);
    double(9, 0.5);
    let report = LoadReport {
        cpu_utilization: 0.25,
        application_utilization: 0.5,
        qps: 100.0,
        eps: 2.0,
    };
    assert_eq!(LoadReport::decode(&bytes), Some(report));
    // Others, of every wire type: rps, a map's entry, and numbers that do not exist yet.
    bytes.extend([3 << 3, 0x96, 0x01]);
    bytes.extend([5 << 3 | 2, 3, 0x0a, 0x01, b'x']);
    bytes.extend([0xf8 | 5, 0x01, 1, 2, 3, 4]);
    assert_eq!(LoadReport::decode(&bytes), Some(report));
    assert_eq!(LoadReport::decode(&[]), Some(LoadReport::default()));
}

#[test]
fn bytes_that_are_no_report_are_refused() {
    for bytes in [
        &[1 << 3 | 1, 0, 0][..],
        &[2 << 3 | 1, 0, 0],
        &[5 << 3 | 2, 4, 0],
        &[
            5 << 3 | 2,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0x01,
        ],
        &[4 << 3 | 5, 0],
        &[3 << 3, 0x80],
        &[
            3 << 3,
            0x80,
            0x80,
            0x80,
            0x80,
            0x80,
            0x80,
            0x80,
            0x80,
            0x80,
            0x80,
            0x00,
        ],
        &[5 << 3 | 3],
        &[0, 0],
        &[0x80],
    ] {
        assert_eq!(LoadReport::decode(bytes), None, "{bytes:?}");
    }
}

#[test]
fn load_report_settings_are_checked() {
    let with = |change: fn(&mut LoadReportSettings)| {
        let mut settings = SETTINGS;
        change(&mut settings);
        settings.checked().is_ok()
    };
    assert!(with(|each| each.blackout_period = 0));
    assert!(with(|each| each.error_utilization_penalty = 0.0));
    assert!(!with(|each| each.weight_expiration_period = 0));
    assert!(!with(|each| each.weight_update_period = 0));
    assert!(!with(|each| each.error_utilization_penalty = -0.1));
    assert!(!with(|each| each.error_utilization_penalty = f64::NAN));
    assert!(!with(|each| each.error_utilization_penalty = f64::INFINITY));
}
