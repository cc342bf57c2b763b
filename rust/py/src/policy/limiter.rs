//! The keyed limiters.

use std::sync::atomic::{AtomicU64, Ordering};

use bascule_policy::limit::{self, Gcra, Keyed, Quota, SlidingWindow, TokenBucket};
use bascule_policy::{Nanos, SettingError};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The answer to one check.
#[pyclass(module = "bascule._core", frozen)]
pub(crate) struct Decision(limit::Decision);

#[pymethods]
impl Decision {
    #[getter]
    fn allowed(&self) -> bool {
        self.0.allowed
    }

    #[getter]
    fn limit(&self) -> u32 {
        self.0.limit
    }

    #[getter]
    fn remaining(&self) -> u32 {
        self.0.remaining
    }

    #[getter]
    fn reset_after_ns(&self) -> u64 {
        self.0.reset_after
    }

    #[getter]
    fn retry_after_ns(&self) -> Option<u64> {
        self.0.retry_after
    }

    #[getter]
    fn reset_after(&self) -> f64 {
        seconds(self.0.reset_after)
    }

    #[getter]
    fn retry_after(&self) -> Option<f64> {
        self.0.retry_after.map(seconds)
    }

    fn __bool__(&self) -> bool {
        self.0.allowed
    }

    fn __repr__(&self) -> String {
        let limit::Decision {
            allowed,
            limit,
            remaining,
            ..
        } = self.0;
        let retry_after = self
            .retry_after()
            .map_or("None".to_owned(), |span| span.to_string());
        format!(
            "Decision(allowed={}, limit={limit}, remaining={remaining}, reset_after={}, \
             retry_after={retry_after})",
            if allowed { "True" } else { "False" },
            self.reset_after(),
        )
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a span in seconds needs no 64 bits"
)]
fn seconds(span: Nanos) -> f64 {
    span as f64 / 1e9
}

enum Core {
    Gcra(Keyed<Gcra>),
    TokenBucket(Keyed<TokenBucket>),
    SlidingWindow(Keyed<SlidingWindow>),
}

impl Core {
    fn new(
        algorithm: &str,
        limit: u32,
        period: Nanos,
        burst: u32,
        max_keys: u32,
    ) -> PyResult<Self> {
        let quota = Quota::new(limit, period, burst).map_err(refused)?;
        match algorithm {
            "gcra" => Ok(Self::Gcra(Keyed::new(Gcra::new(quota), max_keys))),
            "token_bucket" => {
                let bucket = TokenBucket::new(quota).map_err(refused)?;
                Ok(Self::TokenBucket(Keyed::new(bucket, max_keys)))
            }
            "sliding_window" if burst != limit => Err(PyValueError::new_err(format!(
                "burst is {burst}, but a sliding window of {limit} allows {limit} at once: leave \
                 burst out"
            ))),
            "sliding_window" => {
                let window = SlidingWindow::new(limit, period).map_err(refused)?;
                Ok(Self::SlidingWindow(Keyed::new(window, max_keys)))
            }
            _ => Err(PyValueError::new_err(format!(
                "algorithm is {algorithm:?}, must be 'gcra', 'token_bucket' or 'sliding_window'"
            ))),
        }
    }

    fn check(&mut self, key: &str, cost: u32, now: Nanos) -> limit::Decision {
        match self {
            Self::Gcra(limiter) => limiter.handle_check(key, cost, now),
            Self::TokenBucket(limiter) => limiter.handle_check(key, cost, now),
            Self::SlidingWindow(limiter) => limiter.handle_check(key, cost, now),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Gcra(limiter) => limiter.len(),
            Self::TokenBucket(limiter) => limiter.len(),
            Self::SlidingWindow(limiter) => limiter.len(),
        }
    }

    fn displaced(&self) -> u64 {
        match self {
            Self::Gcra(limiter) => limiter.displaced(),
            Self::TokenBucket(limiter) => limiter.displaced(),
            Self::SlidingWindow(limiter) => limiter.displaced(),
        }
    }
}

/// A quota for each of many keys.
#[pyclass(module = "bascule._core", frozen)]
pub(crate) struct KeyedLimiter {
    core: Mutex<Core>,
    admitted: AtomicU64,
    rejected: AtomicU64,
}

#[pymethods]
impl KeyedLimiter {
    #[new]
    #[pyo3(signature = (*, algorithm, limit, period_ns, burst, max_keys))]
    fn new(
        algorithm: &str,
        limit: u32,
        period_ns: u64,
        burst: u32,
        max_keys: u32,
    ) -> PyResult<Self> {
        Ok(Self {
            core: Mutex::new(Core::new(algorithm, limit, period_ns, burst, max_keys)?),
            admitted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        })
    }

    fn check(&self, key: &str, cost: u32, now_ns: u64) -> Decision {
        let decision = self.core.lock().check(key, cost, now_ns);
        if cost > 0 {
            let counter = if decision.allowed {
                &self.admitted
            } else {
                &self.rejected
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Decision(decision)
    }

    fn __len__(&self) -> usize {
        self.core.lock().len()
    }

    #[getter]
    fn admitted(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed)
    }

    #[getter]
    fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    #[getter]
    fn displaced(&self) -> u64 {
        self.core.lock().displaced()
    }
}

pub(super) fn refused(error: SettingError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
