//! Few calls for an endpoint that has just come, more by and by.

use crate::latency::approximate;
use crate::{Nanos, SettingError};

/// How an endpoint comes to its full weight.
///
/// Source: Envoy's "Slow start mode": for `window` after it became ready an endpoint has
/// `max(least, (age / window) ^ (1 / aggression))` of its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// How long it takes.
    pub window: Nanos,
    /// 1 is a straight line; more gives more calls early on, less gives fewer.
    pub aggression: f64,
    /// The share of its weight that it starts with, 0 to 1.
    pub least: f64,
}

impl SlowStart {
    /// What an ageing weight is multiplied by, so that a share of it is still a whole number.
    const SCALE: u32 = 1_000;

    /// Refuses settings by which an endpoint would never come to its weight.
    pub fn checked(self) -> Result<Self, SettingError> {
        if self.window == 0 {
            return Err(SettingError("slow_start must be longer than 0"));
        }
        if !(self.aggression > 0.0 && self.aggression.is_finite()) {
            return Err(SettingError("aggression must be greater than 0"));
        }
        if !(0.0..=1.0).contains(&self.least) {
            return Err(SettingError("the least weight must be from 0 to 1"));
        }
        Ok(self)
    }

    /// How often weights are looked at again while somebody starts.
    pub(crate) fn step(&self) -> Nanos {
        (self.window / 100).max(1)
    }

    /// Whether an endpoint of that age has not come to its full weight.
    pub(crate) fn starting(&self, age: Nanos) -> bool {
        age < self.window
    }

    /// Scales the weights of endpoints of these ages, all of them by the same factor besides, and
    /// none to 0.
    pub(crate) fn apply(&self, weights: &mut [u32], ages: &[Nanos]) {
        if !ages.iter().any(|&age| self.starting(age)) {
            return;
        }
        let heaviest = weights.iter().copied().max().unwrap_or(1);
        let scale = f64::from(Self::SCALE.min(u32::MAX / heaviest));
        for (weight, &age) in weights.iter_mut().zip(ages) {
            let scaled = (f64::from(*weight) * scale * self.share(age)).round();
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "from 0 to u32::MAX by the choice of the scale"
            )]
            let scaled = scaled as u32;
            *weight = scaled.max(1);
        }
    }

    fn share(&self, age: Nanos) -> f64 {
        if !self.starting(age) {
            return 1.0;
        }
        let gone = approximate(age) / approximate(self.window);
        gone.powf(1.0 / self.aggression).max(self.least)
    }
}
