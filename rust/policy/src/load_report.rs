//! What servers report of their own load, and the weights that follow from it.

use crate::{Nanos, SettingError};

/// How reports become weights.
///
/// Source: gRFC A58 (`weighted_round_robin`), whose names and defaults these are. The weight of an
/// endpoint is `qps / (utilization + eps / qps * error_utilization_penalty)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadReportSettings {
    /// How long an endpoint must have reported before its reports count.
    pub blackout_period: Nanos,
    /// How long a report counts.
    pub weight_expiration_period: Nanos,
    /// How often weights follow the reports.
    pub weight_update_period: Nanos,
    /// How much an error in a hundred calls weighs against a per cent of utilization.
    pub error_utilization_penalty: f64,
}

impl Default for LoadReportSettings {
    fn default() -> Self {
        Self {
            blackout_period: 10_000_000_000,
            weight_expiration_period: 180_000_000_000,
            weight_update_period: 1_000_000_000,
            error_utilization_penalty: 1.0,
        }
    }
}

impl LoadReportSettings {
    /// Refuses settings by which no report could ever count.
    pub fn checked(self) -> Result<Self, SettingError> {
        if self.weight_expiration_period == 0 || self.weight_update_period == 0 {
            return Err(SettingError(
                "periods of load reports must be longer than 0",
            ));
        }
        let penalty = self.error_utilization_penalty;
        if !(penalty >= 0.0 && penalty.is_finite()) {
            return Err(SettingError("error_utilization_penalty must be at least 0"));
        }
        Ok(self)
    }
}

/// The part of `xds.data.orca.v3.OrcaLoadReport` that weights come from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// The part of its processors that the server uses; may exceed 1.
    pub cpu_utilization: f64,
    /// The part of what limits the application, if that is not the processor.
    pub application_utilization: f64,
    /// Calls a second.
    pub qps: f64,
    /// Calls a second that fail.
    pub eps: f64,
}

impl LoadReport {
    /// The report in a trailer `endpoint-load-metrics-bin`; None if the bytes are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut report = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            match (tag >> 3, tag & 7) {
                (1, 1) => report.cpu_utilization = double(&mut rest)?,
                (6, 1) => report.qps = double(&mut rest)?,
                (7, 1) => report.eps = double(&mut rest)?,
                (9, 1) => report.application_utilization = double(&mut rest)?,
                (0, _) => return None,
                (_, 0) => drop(varint(&mut rest)?),
                (_, 1) => drop(take(&mut rest, 8)?),
                (_, 2) => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    take(&mut rest, length)?;
                }
                (_, 5) => drop(take(&mut rest, 4)?),
                _ => return None,
            }
        }
        Some(report)
    }

    /// The weight by the report; None if it does not tell.
    fn weight(&self, penalty: f64) -> Option<f64> {
        let utilization = if self.application_utilization > 0.0 {
            self.application_utilization
        } else {
            self.cpu_utilization
        };
        // Written so that NaN tells nothing.
        if !(self.qps > 0.0 && utilization > 0.0) {
            return None;
        }
        let errors = if self.eps > 0.0 {
            self.eps / self.qps * penalty
        } else {
            0.0
        };
        let weight = self.qps / (utilization + errors);
        (weight > 0.0 && weight.is_finite()).then_some(weight)
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn double(rest: &mut &[u8]) -> Option<f64> {
    let bytes = take(rest, 8)?.try_into().ok()?;
    Some(f64::from_le_bytes(bytes))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// What the reports of one endpoint come to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reported {
    weight: f64,
    /// When the last report came, and since when reports have come without a gap.
    last: Option<Nanos>,
    since: Option<Nanos>,
}

impl Reported {
    pub(crate) fn handle_report(
        &mut self,
        report: &LoadReport,
        settings: &LoadReportSettings,
        now: Nanos,
    ) {
        if let Some(weight) = report.weight(settings.error_utilization_penalty) {
            self.weight = weight;
            self.last = Some(now);
            self.since.get_or_insert(now);
        }
    }

    /// A connection that is new must prove itself again.
    pub(crate) fn handle_ready(&mut self) {
        self.since = None;
    }

    fn weight(&mut self, settings: &LoadReportSettings, now: Nanos) -> Option<f64> {
        let age = now.saturating_sub(self.last?);
        if age >= settings.weight_expiration_period {
            self.since = None;
            return None;
        }
        let proven = now.saturating_sub(self.since?) >= settings.blackout_period;
        proven.then_some(self.weight)
    }
}

/// What the mean weight becomes, so that a part of it is still a whole number.
const MEAN: f64 = 1_000.0;

/// Weights for all of these; None if fewer than two have any by their reports.
///
/// One without gets the mean of the others. As in gRPC's C core none is further from the mean than
/// ten times, else one wrong report would draw all calls.
pub(crate) fn weights<'a>(
    reported: impl Iterator<Item = &'a mut Reported>,
    settings: &LoadReportSettings,
    now: Nanos,
) -> Option<Vec<u32>> {
    let weights: Vec<_> = reported.map(|each| each.weight(settings, now)).collect();
    let (mut count, mut sum) = (0.0, 0.0);
    for weight in weights.iter().flatten() {
        count += 1.0;
        sum += weight;
    }
    if count < 2.0 {
        return None;
    }
    let mean = sum / count;
    let scaled = weights.into_iter().map(|weight| {
        let parts = weight.map_or(1.0, |weight| (weight / mean).clamp(0.1, 10.0));
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 100 to 10,000"
        )]
        let scaled = (parts * MEAN).round() as u32;
        scaled
    });
    Some(scaled.collect())
}
