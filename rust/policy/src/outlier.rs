//! Which endpoints do so much worse than the others that they get no calls for a while.

use crate::random::Random;
use crate::{Nanos, Outcome, SettingError};

/// When endpoints are ejected and for how long; both ways of telling may be used together.
///
/// Source: gRFC A50, whose names and defaults these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierSettings {
    /// How often endpoints are judged; those that were ejected come back at these times, too.
    pub interval: Nanos,
    /// How long an endpoint is out the first time; the nth time in a row n times that.
    pub base_ejection_time: Nanos,
    /// The longest, unless the base is longer.
    pub max_ejection_time: Nanos,
    /// No more are ejected once this part of all endpoints is, in per cent: so one at least may be
    /// unless it is 0.
    pub max_ejection_percent: u32,
    /// Eject by how far a success rate is below the others'.
    pub success_rate: Option<SuccessRate>,
    /// Eject by the rate of failures alone.
    pub failure_percentage: Option<FailurePercentage>,
}

/// An endpoint whose success rate is below `mean - stdev_factor / 1000 * standard deviation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// How many thousandths of the standard deviation below the mean is too low.
    pub stdev_factor: u32,
    /// How often one that is to be ejected really is, in per cent.
    pub enforcement_percentage: u32,
    /// Endpoints with enough calls that there must be to tell.
    pub minimum_hosts: u32,
    /// Calls within the interval by which an endpoint is judged.
    pub request_volume: u32,
}

/// An endpoint of whose calls more than `threshold` per cent failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    /// The per cent of failures that are still well.
    pub threshold: u32,
    /// How often one that is to be ejected really is, in per cent.
    pub enforcement_percentage: u32,
    /// Endpoints that there must be to tell.
    pub minimum_hosts: u32,
    /// Calls within the interval by which an endpoint is judged.
    pub request_volume: u32,
}

impl Default for OutlierSettings {
    fn default() -> Self {
        Self {
            interval: 10_000_000_000,
            base_ejection_time: 30_000_000_000,
            max_ejection_time: 300_000_000_000,
            max_ejection_percent: 10,
            success_rate: None,
            failure_percentage: None,
        }
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            stdev_factor: 1_900,
            enforcement_percentage: 100,
            minimum_hosts: 5,
            request_volume: 100,
        }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self {
            threshold: 85,
            enforcement_percentage: 100,
            minimum_hosts: 5,
            request_volume: 50,
        }
    }
}

impl OutlierSettings {
    /// Refuses settings by which nothing could be judged, and parts of more than the whole.
    pub fn checked(self) -> Result<Self, SettingError> {
        if self.interval == 0 {
            return Err(SettingError("the outlier interval must be longer than 0"));
        }
        // What was missed is made up for interval by interval.
        if self.out_for(u32::MAX) / self.interval > 100_000 {
            return Err(SettingError(
                "the outlier interval must be at least a 100000th of the longest ejection",
            ));
        }
        let rate = self.success_rate.unwrap_or_default();
        let failure = self.failure_percentage.unwrap_or_default();
        let parts = [
            self.max_ejection_percent,
            rate.enforcement_percentage,
            failure.enforcement_percentage,
            failure.threshold,
        ];
        if parts.iter().any(|&part| part > 100) {
            return Err(SettingError("outlier percentages must be at most 100"));
        }
        if rate.stdev_factor > 1_000_000 {
            return Err(SettingError("stdev_factor must be at most 1000000"));
        }
        Ok(self)
    }

    /// How long an endpoint is out that is ejected for the nth time in a row.
    fn out_for(&self, times: u32) -> Nanos {
        let longest = self.base_ejection_time.max(self.max_ejection_time);
        let wanted = self.base_ejection_time.saturating_mul(u64::from(times));
        wanted.min(longest)
    }
}

/// What is held for or against one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Record {
    /// Calls that ended well, and not well, since the last judgement.
    successes: u64,
    failures: u64,
    /// Since when it is ejected.
    ejected_at: Option<Nanos>,
    /// How often it was ejected, less the judgements since that it stood.
    times: u32,
}

impl Record {
    pub(crate) fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Success => self.successes += 1,
            Outcome::Failure => self.failures += 1,
            Outcome::Abandoned => {}
        }
    }

    pub(crate) fn ejected(&self) -> bool {
        self.ejected_at.is_some()
    }

    fn volume(&self) -> u64 {
        self.successes + self.failures
    }

    /// The part of the calls that ended well, in millionths, so that sums are exact.
    fn success_rate(&self) -> i128 {
        i128::from(self.successes) * 1_000_000 / i128::from(self.volume().max(1))
    }

    fn quiet(&self) -> bool {
        !self.ejected() && self.times == 0
    }
}

/// Judges the endpoints of one channel from time to time.
#[derive(Debug)]
pub(crate) struct Outlier {
    settings: OutlierSettings,
    random: Random,
    /// When endpoints are judged next; None before the first endpoint is listed.
    next: Option<Nanos>,
}

impl Outlier {
    pub(crate) fn new(settings: OutlierSettings, seed: u64) -> Self {
        Self {
            settings,
            random: Random::new(seed),
            next: None,
        }
    }

    /// Starts the first interval, unless it has begun.
    pub(crate) fn start(&mut self, now: Nanos) {
        let first = now.saturating_add(self.settings.interval);
        self.next.get_or_insert(first);
    }

    /// When [`Outlier::handle_time`] has something to do.
    pub(crate) fn next(&self) -> Nanos {
        self.next.unwrap_or(Nanos::MAX)
    }

    /// When an ejected endpoint has been out for long enough.
    pub(crate) fn until(&self, record: &Record) -> Option<Nanos> {
        let at = record.ejected_at?;
        Some(at.saturating_add(self.settings.out_for(record.times)))
    }

    /// Judges as often as the time asks for.
    pub(crate) fn handle_time(&mut self, records: &mut [&mut Record], now: Nanos) {
        while let Some(due) = self.next.filter(|&due| due <= now) {
            self.judge(records, due);
            let mut next = due.saturating_add(self.settings.interval);
            if records.iter().all(|record| record.quiet()) {
                // Nothing more can change before now: skip what would be judged in between.
                let missed = now.saturating_sub(next) / self.settings.interval;
                next = next.saturating_add(missed.saturating_mul(self.settings.interval));
            }
            self.next = Some(next);
            if next == Nanos::MAX {
                return;
            }
        }
    }

    fn judge(&mut self, records: &mut [&mut Record], now: Nanos) {
        if let Some(rule) = self.settings.success_rate {
            self.eject_by_success_rate(records, rule, now);
        }
        if let Some(rule) = self.settings.failure_percentage {
            self.eject_by_failures(records, rule, now);
        }
        for record in records {
            (record.successes, record.failures) = (0, 0);
            match self.until(record) {
                None => record.times = record.times.saturating_sub(1),
                Some(until) if now > until => record.ejected_at = None,
                Some(_) => {}
            }
        }
    }

    fn eject_by_success_rate(
        &mut self,
        records: &mut [&mut Record],
        rule: SuccessRate,
        now: Nanos,
    ) {
        let enough = |record: &Record| record.volume() >= u64::from(rule.request_volume).max(1);
        let rates = records.iter().filter(|record| enough(record));
        let (mut count, mut sum, mut squares) = (0_i128, 0_i128, 0_i128);
        for rate in rates.map(|record| record.success_rate()) {
            count += 1;
            sum += rate;
            squares += rate * rate;
        }
        if count < i128::from(rule.minimum_hosts).max(1) {
            return;
        }
        // Whether mean - rate > factor / 1000 * stdev, multiplied out: both sides are squared.
        let variance = squares * count - sum * sum;
        let factor = i128::from(rule.stdev_factor);
        let too_low = |record: &Record| {
            let below = sum - record.success_rate() * count;
            below > 0 && below * below * 1_000_000 > factor * factor * variance
        };
        self.eject(records, rule.enforcement_percentage, now, |record| {
            enough(record) && too_low(record)
        });
    }

    fn eject_by_failures(
        &mut self,
        records: &mut [&mut Record],
        rule: FailurePercentage,
        now: Nanos,
    ) {
        if (records.len() as u64) < u64::from(rule.minimum_hosts) {
            return;
        }
        let volume = u64::from(rule.request_volume).max(1);
        self.eject(records, rule.enforcement_percentage, now, |record| {
            record.volume() >= volume
                && record.failures * 100 > record.volume() * u64::from(rule.threshold)
        });
    }

    fn eject(
        &mut self,
        records: &mut [&mut Record],
        enforcement: u32,
        now: Nanos,
        outlier: impl Fn(&Record) -> bool,
    ) {
        let most = records.len() * self.settings.max_ejection_percent as usize;
        let mut ejected = records.iter().filter(|record| record.ejected()).count();
        for record in records {
            if ejected * 100 >= most {
                return;
            }
            if record.ejected() || !outlier(record) {
                continue;
            }
            if self.random.below(100) < u64::from(enforcement) {
                record.ejected_at = Some(now);
                record.times += 1;
                ejected += 1;
            }
        }
    }
}
