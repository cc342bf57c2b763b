//! The circuit breaker.

use bascule_policy::{Breaker as Core, BreakerSettings, Permit, Verdict};
use parking_lot::Mutex;
use pyo3::prelude::*;

use super::limiter::refused;
use super::{UNKNOWN, outcome, span_until};

/// State, forced, failures, successes, probes, opened, rejected.
type Snapshot = (&'static str, bool, u32, u32, u32, u64, u64);

/// A circuit breaker.
#[pyclass(module = "bascule._core", frozen)]
pub(crate) struct Breaker {
    core: Mutex<Core>,
}

#[pymethods]
impl Breaker {
    #[new]
    #[pyo3(signature = (*, failure_threshold, success_threshold, open_for_ns, half_open_permits, half_open_for_ns))]
    fn new(
        failure_threshold: u32,
        success_threshold: u32,
        open_for_ns: u64,
        half_open_permits: u32,
        half_open_for_ns: u64,
    ) -> PyResult<Self> {
        let settings = BreakerSettings {
            failure_threshold,
            success_threshold,
            open_for: open_for_ns,
            half_open_permits,
            half_open_for: half_open_for_ns,
        };
        Ok(Self {
            core: Mutex::new(Core::new(settings.checked().map_err(refused)?)),
        })
    }

    fn admit(&self, now_ns: u64) -> (i64, i64) {
        match self.core.lock().handle_admit(now_ns) {
            Verdict::Admit(permit) => (
                i64::try_from(permit.generation()).unwrap_or(i64::MAX),
                UNKNOWN,
            ),
            Verdict::Reject { retry_at } => (UNKNOWN, span_until(retry_at, now_ns)),
        }
    }

    fn admit_if_closed(&self) -> i64 {
        match self.core.lock().permit_if_closed() {
            Some(permit) => i64::try_from(permit.generation()).unwrap_or(i64::MAX),
            None => UNKNOWN,
        }
    }

    #[pyo3(signature = (permit, outcome, now_ns))]
    fn complete(&self, permit: u64, outcome: u8, now_ns: u64) -> PyResult<()> {
        let outcome = self::outcome(outcome)?;
        self.core
            .lock()
            .handle_complete(Permit::from_generation(permit), outcome, now_ns);
        Ok(())
    }

    fn succeed(&self, permit: u64) {
        self.core
            .lock()
            .handle_success(Permit::from_generation(permit));
    }

    fn force_open(&self) {
        self.core.lock().handle_force_open();
    }

    fn force_closed(&self) {
        self.core.lock().handle_force_closed();
    }

    fn reset(&self) {
        self.core.lock().handle_reset();
    }

    #[getter]
    fn state(&self) -> &'static str {
        self.core.lock().state().name()
    }

    fn counts(&self) -> ([u64; 3], [u64; 3]) {
        let counts = self.core.lock().counts();
        (counts.transitions, counts.outcomes)
    }

    fn snapshot(&self) -> Snapshot {
        let core = self.core.lock();
        (
            core.state().name(),
            core.forced(),
            core.failures(),
            core.successes(),
            core.probes(),
            core.opened(),
            core.rejected(),
        )
    }
}
