//! A limit that follows the ratio of two latencies.

use super::{Range, Sample, whole};
use crate::latency::approximate;
use crate::random::Random;
use crate::{Nanos, SettingError};

/// How a limit follows latency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradient2Settings {
    /// The limit at first, and its bounds.
    pub range: Range,
    /// The limit is looked at so often, if there were enough calls.
    pub window: Nanos,
    /// Calls that a window needs.
    pub samples: u32,
    /// Over how long the latency of the long run is averaged.
    pub long_window: Nanos,
    /// How much longer than in the long run calls may take: at least 1.
    pub tolerance: f64,
    /// How much of each change is made: more than 0, at most 1.
    pub smoothing: f64,
    /// Calls that may queue; None: the square root of the limit, at least 2.
    pub queue: Option<u32>,
    /// Calls that take no longer are never crowded.
    pub quick: Nanos,
    /// How often the latency of the long run is measured with few calls in progress; None: never.
    pub probe_interval: Option<Nanos>,
}

impl Gradient2Settings {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        if self.window == 0 || self.long_window == 0 {
            return Err(SettingError("windows must be longer than 0"));
        }
        if self.samples == 0 {
            return Err(SettingError("samples must be at least 1"));
        }
        if !(self.tolerance >= 1.0 && self.tolerance.is_finite()) {
            return Err(SettingError("tolerance must be a number from 1"));
        }
        if !(self.smoothing > 0.0 && self.smoothing <= 1.0) {
            return Err(SettingError("smoothing must be more than 0 and at most 1"));
        }
        if self.probe_interval == Some(0) {
            return Err(SettingError("probe_interval must be longer than 0"));
        }
        self.range.check()
    }
}

/// The least gradient: a limit is at most halved at once, whatever one window says.
const STEEPEST: f64 = 0.5;

/// Calls that may queue at least: what lets the smallest limit grow.
const LEAST_QUEUE: f64 = 2.0;

/// By what a limit grows with each window until calls queue for the first time: a quarter of a
/// minute is long to wait for what a server could do from its first second on.
const START: f64 = 1.5;

/// The first probe comes after this part of the interval: until then, the latency of the long run
/// is what was seen first, which may have been a crowd.
const FIRST_PROBE: Nanos = 10;

/// The part of the limit that a probe leaves: well below where calls queue, even if a few rounds
/// of it have learned a latency that is too long.
const PROBE_PART: f64 = 0.25;

/// A probe comes so much of its interval earlier or later, so that a fleet's do not come together
/// (Envoy's `jitter`).
const PROBE_JITTER: f64 = 0.15;

/// A limit that shrinks while calls take longer than they do in the long run, since then they
/// queue, and else grows by what may queue.
///
/// ```text
/// gradient = tolerance * long / short     from 0.5 to 1
/// limit    = limit * gradient + queue     smoothed, once a window
/// ```
///
/// Source: `Gradient2Limit` of Netflix's concurrency-limits. There, the latency of the long run is
/// an average that learns from crowded times as well, so in an overload that lasts it comes to
/// think the queue normal, and the limit drifts upward. Here a crowd teaches it nothing longer;
/// while there is one, it is measured from time to time with few calls in progress, as by Envoy's
/// gradient controller. Without probes, it is as at Netflix. Calls that are
/// lost have no latency that means anything: the gradient is at most the part that was not, and so
/// much less may queue.
#[derive(Clone, Debug)]
pub(super) struct Gradient2 {
    settings: Gradient2Settings,
    limit: f64,
    /// How long calls take in the long run, in nanoseconds.
    long: Option<f64>,
    /// Whether it was ever seen with few calls in progress.
    is_measured: bool,
    window: Window,
    /// Whether calls have never queued so far.
    is_starting: bool,
    is_probing: bool,
    /// When the next one begins; None if there are none, or the clock is not known yet.
    probe_at: Option<Nanos>,
    random: Random,
}

/// What was seen since the limit was last looked at.
#[derive(Clone, Debug, Default)]
struct Window {
    began: Option<Nanos>,
    done: u32,
    lost: u32,
    took: f64,
    most_in_flight: u32,
}

impl Gradient2 {
    pub(super) fn new(settings: Gradient2Settings, seed: u64) -> Self {
        Self {
            settings,
            limit: f64::from(settings.range.initial),
            long: None,
            is_measured: false,
            window: Window::default(),
            is_starting: true,
            is_probing: false,
            probe_at: None,
            random: Random::new(seed),
        }
    }

    pub(super) fn limit(&self) -> u32 {
        if self.is_probing {
            self.probe_limit()
        } else {
            whole(self.limit)
        }
    }

    pub(super) fn handle_begin(&mut self, in_flight: u32) {
        self.window.most_in_flight = self.window.most_in_flight.max(in_flight);
    }

    pub(super) fn handle_sample(&mut self, sample: &Sample) {
        self.begin_probe_if_due(sample.now);
        let window = &mut self.window;
        let began = *window.began.get_or_insert(sample.began);
        // What began earlier has seen what the limit was before, or the crowd before a probe.
        if sample.began < began {
            return;
        }
        window.most_in_flight = window.most_in_flight.max(sample.in_flight);
        if sample.lost {
            window.lost = window.lost.saturating_add(1);
        } else {
            window.done = window.done.saturating_add(1);
            window.took += approximate(sample.took);
        }
        let seen = window.done.saturating_add(window.lost);
        let span = sample.now.saturating_sub(began);
        if self.is_probing {
            // Two rounds of what a probe lets through are enough, however few that is.
            if seen >= self.settings.samples.min(self.probe_limit() * 2) {
                self.end_probe(sample.now);
            }
        } else if seen >= self.settings.samples && span >= self.settings.window {
            self.end_window(span, sample.now);
        }
    }

    fn begin_probe_if_due(&mut self, now: Nanos) {
        if self.is_probing {
            return;
        }
        match self.probe_at {
            Some(at) if now >= at => {
                self.probe_at = None;
                self.is_probing = true;
                self.window = Window::beginning(now);
            }
            Some(_) => {}
            None => self.plan_probe(FIRST_PROBE, now),
        }
    }

    fn end_probe(&mut self, now: Nanos) {
        let window = std::mem::replace(&mut self.window, Window::beginning(now));
        self.is_probing = false;
        self.plan_probe(1, now);
        self.learn_uncrowded(&window);
    }

    fn end_window(&mut self, span: Nanos, now: Nanos) {
        let window = std::mem::replace(&mut self.window, Window::beginning(now));
        let most = f64::from(window.most_in_flight);
        if window.lost == 0 && most * 2.0 < self.limit {
            // A limit that nobody comes near is neither too low nor too high, and latency that is
            // free of it needs no probe to be seen.
            self.plan_probe(1, now);
            if most <= self.limit * PROBE_PART {
                self.learn_uncrowded(&window);
            } else {
                self.learn(&window, span);
            }
            return;
        }
        let both = self.long.zip(window.mean());
        let is_longer = both.is_some_and(|(long, short)| short > long);
        if !is_longer || self.settings.probe_interval.is_none() {
            self.learn(&window, span);
        }
        let kept = window.kept();
        let gradient = self.gradient(&window).min(kept).clamp(STEEPEST, 1.0);
        self.is_starting &= gradient >= 1.0;
        let limit = if self.is_starting {
            self.limit * START
        } else {
            let wanted = self.limit * gradient + self.queue() * kept;
            self.limit + (wanted - self.limit) * self.settings.smoothing
        };
        self.limit = self.settings.range.hold(limit);
    }

    fn gradient(&self, window: &Window) -> f64 {
        let (Some(long), Some(short)) = (self.long, window.mean()) else {
            return 1.0;
        };
        let long = long.max(approximate(self.settings.quick));
        self.settings.tolerance * long / short.max(1.0)
    }

    fn queue(&self) -> f64 {
        let root = || self.limit.sqrt().max(LEAST_QUEUE);
        self.settings.queue.map_or_else(root, f64::from)
    }

    fn learn(&mut self, window: &Window, span: Nanos) {
        let Some(short) = window.mean() else {
            return;
        };
        let Some(long) = self.long else {
            self.long = Some(short);
            return;
        };
        let kept = (-approximate(span) / approximate(self.settings.long_window)).exp();
        let mut long = long * kept + short * (1.0 - kept);
        if long > short * 2.0 {
            // Overload has ended: Netflix's does not wait for the average either.
            long *= 0.9;
        }
        self.long = Some(long);
    }

    /// A few calls are few, so half of what is known stays, unless it comes from a crowd.
    fn learn_uncrowded(&mut self, window: &Window) {
        let Some(short) = window.mean() else {
            return;
        };
        let known = self.long.filter(|_| self.is_measured);
        self.long = Some(known.map_or(short, |long| f64::midpoint(long, short)));
        self.is_measured = true;
    }

    fn probe_limit(&self) -> u32 {
        whole(self.limit * PROBE_PART).max(self.settings.range.least)
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast saturates"
    )]
    fn plan_probe(&mut self, part: Nanos, now: Nanos) {
        self.probe_at = self.settings.probe_interval.map(|interval| {
            let interval = interval / part;
            let most = (approximate(interval) * 2.0 * PROBE_JITTER) as u64;
            let least = (approximate(interval) * (1.0 - PROBE_JITTER)) as u64;
            now.saturating_add(least.saturating_add(self.random.below(most)))
        });
    }
}

impl Window {
    fn beginning(now: Nanos) -> Self {
        Self {
            began: Some(now),
            ..Self::default()
        }
    }

    /// How long its calls took, in nanoseconds, if any was done.
    fn mean(&self) -> Option<f64> {
        (self.done > 0).then(|| self.took / f64::from(self.done))
    }

    /// The part of its calls that was not lost.
    fn kept(&self) -> f64 {
        f64::from(self.done) / f64::from(self.done.saturating_add(self.lost).max(1))
    }
}
