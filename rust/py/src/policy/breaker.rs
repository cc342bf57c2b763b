//! The circuit breaker.

use bascule_policy::{
    Breaker as Core, BreakerSettings, Permit, Span, Trip, Verdict, WindowSettings,
};
use parking_lot::Mutex;
use pyo3::prelude::*;

use super::limiter::refused;
use super::{UNKNOWN, outcome, span_until};

/// State, forced, failures, successes, probes, opened, rejected.
type Snapshot = (&'static str, bool, u32, u32, u32, u64, u64);

/// Size, width of a bucket or 0, minimum of calls, rate of failures, slow call, rate of those.
pub(super) type Window = (u32, u64, u32, f64, Option<u64>, f64);

/// Transitions, outcomes, slow calls, refused calls, and calls, failures and slow calls by which it
/// is judged now.
pub(super) type Counts = ([u64; 3], [u64; 3], u64, u64, Option<(u32, u32, u32)>);

/// In a row by the two thresholds, or by a window if there is one.
pub(super) fn trip(failure_threshold: u32, success_threshold: u32, window: Option<Window>) -> Trip {
    let Some((size, width, minimum_calls, failure_rate, slow_call, slow_call_rate)) = window else {
        return Trip::InARow {
            failure_threshold,
            success_threshold,
        };
    };
    let span = if width == 0 {
        Span::Calls(size)
    } else {
        Span::Time {
            buckets: size,
            width,
        }
    };
    Trip::Window(WindowSettings {
        span,
        minimum_calls,
        failure_rate,
        slow_call,
        slow_call_rate,
    })
}

pub(super) fn counts(core: &Core, now: u64) -> Counts {
    let counts = core.counts();
    let tally = core.tally(now);
    (
        counts.transitions,
        counts.outcomes,
        counts.slow,
        core.rejected(),
        tally.map(|tally| (tally.calls, tally.failures, tally.slow)),
    )
}

/// A circuit breaker.
#[pyclass(module = "bascule._core", frozen)]
pub(crate) struct Breaker {
    core: Mutex<Core>,
}

#[pymethods]
impl Breaker {
    #[new]
    #[pyo3(signature = (
        *,
        failure_threshold,
        success_threshold,
        open_for_ns,
        half_open_permits,
        half_open_for_ns,
        window=None,
    ))]
    fn new(
        failure_threshold: u32,
        success_threshold: u32,
        open_for_ns: u64,
        half_open_permits: u32,
        half_open_for_ns: u64,
        window: Option<Window>,
    ) -> PyResult<Self> {
        let settings = BreakerSettings {
            trip: trip(failure_threshold, success_threshold, window),
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

    #[pyo3(signature = (permit, outcome, now_ns, began_ns=None))]
    fn complete(
        &self,
        permit: u64,
        outcome: u8,
        now_ns: u64,
        began_ns: Option<u64>,
    ) -> PyResult<()> {
        let outcome = self::outcome(outcome)?;
        let permit = Permit::from_generation(permit);
        let took = now_ns.saturating_sub(began_ns.unwrap_or(now_ns));
        self.core
            .lock()
            .handle_complete(permit, outcome, took, now_ns);
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

    fn counts(&self, now_ns: u64) -> Counts {
        counts(&self.core.lock(), now_ns)
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
