//! What a channel decides before its policy is asked, and the settings of balancers.

use bascule_policy::balance::{Kind, Sizes};
use bascule_policy::{
    FailurePercentage, LoadReportSettings, OutlierSettings, SlowStart, SuccessRate,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::limiter::refused;

/// `(threshold or factor, enforcement_percentage, minimum_hosts, request_volume)`.
type Rule = (u32, u32, u32, u32);

/// `(interval_ns, base_ejection_ns, max_ejection_ns, max_ejection_percent, success_rate,
/// failure_percentage)`.
pub(super) type Outlier = (u64, u64, u64, u32, Option<Rule>, Option<Rule>);

/// The places of the keys that one client should connect to.
#[pyfunction]
#[allow(clippy::needless_pass_by_value, reason = "pyo3 extracts owned lists")]
pub(super) fn subset(keys: Vec<String>, client: u64, size: usize) -> Vec<usize> {
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    bascule_policy::balance::subset(&keys, client, size)
}

#[pyfunction]
#[pyo3(signature = (data, seed=0))]
pub(super) fn xxh64(data: &[u8], seed: u64) -> u64 {
    bascule_policy::xxh64(data, seed)
}

pub(super) fn kind(name: &str) -> PyResult<Kind> {
    Kind::by_name(name).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let known = known.join("', '");
        PyValueError::new_err(format!("balancer is {name:?}, must be one of '{known}'"))
    })
}

pub(super) fn sizes((ring_min, ring_max): (u32, u32), table: u32) -> PyResult<Sizes> {
    let sizes = Sizes {
        ring_min,
        ring_max,
        table,
    };
    sizes.checked().map_err(refused)
}

pub(super) fn slow_start((window, aggression, least): (u64, f64, f64)) -> PyResult<SlowStart> {
    let settings = SlowStart {
        window,
        aggression,
        least,
    };
    settings.checked().map_err(refused)
}

/// `(blackout_ns, expiration_ns, update_ns, error_utilization_penalty)`.
pub(super) fn load_reports(
    (blackout_period, weight_expiration_period, weight_update_period, error_utilization_penalty): (
        u64,
        u64,
        u64,
        f64,
    ),
) -> PyResult<LoadReportSettings> {
    let settings = LoadReportSettings {
        blackout_period,
        weight_expiration_period,
        weight_update_period,
        error_utilization_penalty,
    };
    settings.checked().map_err(refused)
}

pub(super) fn outlier(
    (interval, base_ejection_time, max_ejection_time, max_ejection_percent, success, failure): Outlier,
) -> PyResult<OutlierSettings> {
    let success_rate = success.map(
        |(stdev_factor, enforcement_percentage, minimum_hosts, request_volume)| SuccessRate {
            stdev_factor,
            enforcement_percentage,
            minimum_hosts,
            request_volume,
        },
    );
    let failure_percentage = failure.map(
        |(threshold, enforcement_percentage, minimum_hosts, request_volume)| FailurePercentage {
            threshold,
            enforcement_percentage,
            minimum_hosts,
            request_volume,
        },
    );
    let settings = OutlierSettings {
        interval,
        base_ejection_time,
        max_ejection_time,
        max_ejection_percent,
        success_rate,
        failure_percentage,
    };
    settings.checked().map_err(refused)
}
