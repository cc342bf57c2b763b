//! Python's view of `bascule-policy`: frozen classes, integers across the boundary.

mod balance;
mod breaker;
mod call;
mod concurrency;
mod limiter;

use bascule_policy::Outcome;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Adds the classes of this module to the extension.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(balance::subset, module)?)?;
    module.add_function(wrap_pyfunction!(balance::xxh64, module)?)?;
    module.add_class::<breaker::Breaker>()?;
    module.add_class::<call::CallPolicy>()?;
    module.add_class::<concurrency::ConcurrencyRule>()?;
    module.add_class::<concurrency::ConcurrencyLimiter>()?;
    module.add_class::<concurrency::ServerAdmission>()?;
    module.add_class::<limiter::Decision>()?;
    module.add_class::<limiter::KeyedLimiter>()
}

/// A span or time that stands for "unknown" across the boundary.
const UNKNOWN: i64 = -1;

/// 0 success, 1 failure, 2 abandoned.
fn outcome(code: u8) -> PyResult<Outcome> {
    match code {
        0 => Ok(Outcome::Success),
        1 => Ok(Outcome::Failure),
        2 => Ok(Outcome::Abandoned),
        _ => Err(PyValueError::new_err(format!(
            "outcome is {code}, must be 0 (success), 1 (failure) or 2 (abandoned)"
        ))),
    }
}

/// How long until a time: -1 if there is none.
fn span_until(time: Option<u64>, now: u64) -> i64 {
    time.map_or(UNKNOWN, |time| {
        i64::try_from(time.saturating_sub(now)).unwrap_or(i64::MAX)
    })
}
