//! Limits of concurrency.

use bascule_policy::concurrency::{
    Admission, AimdSettings, Ending, Gradient2Settings, Limiter, LimiterCounts, Permit, Range,
    Refused, Rule,
};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::limiter::refused;

/// Limit, calls in progress; those done, lost and untold; those refused.
pub(super) type Row = (u32, u32, [u64; 3], u64);

pub(super) fn row((limit, in_flight, counts): (u32, u32, LimiterCounts)) -> Row {
    (limit, in_flight, counts.endings, counts.rejected)
}

const FULL: i64 = -1;
const LATE: i64 = -2;

/// 0 done, 1 lost, 2 untold.
fn ending(code: u8) -> PyResult<Ending> {
    match code {
        0 => Ok(Ending::Done),
        1 => Ok(Ending::Lost),
        2 => Ok(Ending::Untold),
        _ => Err(PyValueError::new_err(format!(
            "ending is {code}, must be 0 (done), 1 (lost) or 2 (untold)"
        ))),
    }
}

fn number(permit: &Permit) -> i64 {
    i64::try_from(permit.began()).unwrap_or(i64::MAX)
}

/// How a limit moves.
#[pyclass(module = "bascule._core", frozen)]
pub(crate) struct ConcurrencyRule(pub(super) Rule);

#[pymethods]
impl ConcurrencyRule {
    #[staticmethod]
    fn fixed(limit: u32) -> PyResult<Self> {
        Ok(Self(Rule::Fixed(limit).checked().map_err(refused)?))
    }

    #[staticmethod]
    #[pyo3(signature = (*, initial, least, most, backoff, slow_ns=None))]
    fn aimd(
        initial: u32,
        least: u32,
        most: u32,
        backoff: f64,
        slow_ns: Option<u64>,
    ) -> PyResult<Self> {
        let rule = Rule::Aimd(AimdSettings {
            range: Range {
                initial,
                least,
                most,
            },
            backoff,
            slow: slow_ns,
        });
        Ok(Self(rule.checked().map_err(refused)?))
    }

    #[staticmethod]
    #[pyo3(signature = (
        *, initial, least, most, window_ns, samples, long_window_ns, tolerance, smoothing, queue,
        quick_ns, probe_interval_ns,
    ))]
    #[allow(clippy::too_many_arguments, reason = "all have names in Python")]
    fn gradient2(
        initial: u32,
        least: u32,
        most: u32,
        window_ns: u64,
        samples: u32,
        long_window_ns: u64,
        tolerance: f64,
        smoothing: f64,
        queue: Option<u32>,
        quick_ns: u64,
        probe_interval_ns: Option<u64>,
    ) -> PyResult<Self> {
        let rule = Rule::Gradient2(Gradient2Settings {
            range: Range {
                initial,
                least,
                most,
            },
            window: window_ns,
            samples,
            long_window: long_window_ns,
            tolerance,
            smoothing,
            queue,
            quick: quick_ns,
            probe_interval: probe_interval_ns,
        });
        Ok(Self(rule.checked().map_err(refused)?))
    }
}

/// A limit and the calls that are within it.
#[pyclass(module = "bascule._core", frozen)]
pub(crate) struct ConcurrencyLimiter {
    core: Mutex<Limiter>,
}

#[pymethods]
impl ConcurrencyLimiter {
    #[new]
    fn new(rule: &ConcurrencyRule, seed: u64) -> Self {
        Self {
            core: Mutex::new(Limiter::new(rule.0, seed)),
        }
    }

    fn admit(&self, now_ns: u64) -> i64 {
        let permit = self.core.lock().handle_admit(now_ns);
        permit.as_ref().map_or(FULL, number)
    }

    fn complete(&self, permit: u64, ending: u8, now_ns: u64) -> PyResult<()> {
        let ending = self::ending(ending)?;
        self.core
            .lock()
            .handle_complete(Permit::begun_at(permit), ending, now_ns);
        Ok(())
    }

    fn snapshot(&self) -> Row {
        let core = self.core.lock();
        row((core.limit(), core.in_flight(), core.counts()))
    }
}

/// What a server takes on.
#[pyclass(module = "bascule._core", frozen)]
pub(crate) struct ServerAdmission {
    core: Mutex<Admission>,
}

#[pymethods]
impl ServerAdmission {
    #[new]
    fn new(rule: Option<&ConcurrencyRule>, seed: u64, methods: usize, sheds_late: bool) -> Self {
        let rule = rule.map(|rule| rule.0);
        Self {
            core: Mutex::new(Admission::new(rule, seed, methods, sheds_late)),
        }
    }

    fn admit(&self, method: usize, timeout_ns: Option<u64>, now_ns: u64) -> (i64, u64) {
        match self.core.lock().handle_admit(method, timeout_ns, now_ns) {
            Ok(permit) => (number(&permit), 0),
            Err(Refused::Full) => (FULL, 0),
            Err(Refused::Late { shortest }) => (LATE, shortest),
        }
    }

    fn complete(&self, method: usize, permit: u64, ending: u8, now_ns: u64) -> PyResult<()> {
        let ending = self::ending(ending)?;
        self.core
            .lock()
            .handle_complete(method, Permit::begun_at(permit), ending, now_ns);
        Ok(())
    }

    fn snapshot(&self) -> (Option<Row>, u64) {
        let core = self.core.lock();
        (core.limiter().map(row), core.late())
    }
}
