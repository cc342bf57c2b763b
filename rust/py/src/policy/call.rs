//! The decision about a call in one crossing.

use bascule_policy::limit::{Gcra, Keyed, Quota};
use bascule_policy::{
    BreakerSettings, CallPolicy as Core, CallVerdict, HALF_OPEN_FOR, Permit, balance,
};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::limiter::refused;
use super::{UNKNOWN, outcome, span_until};

const ADMITTED: u8 = 0;
const RATE_LIMITED: u8 = 1;
const BREAKER_OPEN: u8 = 2;
const NO_ENDPOINT: u8 = 3;

/// Limit, breaker and pick for the calls of one channel.
#[pyclass(module = "bascule._core", frozen)]
pub(crate) struct CallPolicy {
    core: Mutex<Core>,
}

#[pymethods]
impl CallPolicy {
    #[new]
    #[pyo3(signature = (*, balancer, seed, breaker, limit=None, half_open_for_ns=HALF_OPEN_FOR))]
    fn new(
        balancer: &str,
        seed: u64,
        breaker: Option<(u32, u32, u64, u32)>,
        limit: Option<(u32, u64, u32, u32)>,
        half_open_for_ns: u64,
    ) -> PyResult<Self> {
        let balancer = balance::by_name(balancer, seed).ok_or_else(|| {
            PyValueError::new_err(format!(
                "balancer is {balancer:?}, must be 'round_robin' or 'least_request'"
            ))
        })?;
        let breaker = breaker
            .map(
                |(failure_threshold, success_threshold, open_for, half_open_permits)| {
                    let settings = BreakerSettings {
                        failure_threshold,
                        success_threshold,
                        open_for,
                        half_open_permits,
                        half_open_for: half_open_for_ns,
                    };
                    settings.checked().map_err(refused)
                },
            )
            .transpose()?;
        let limit = limit
            .map(|(limit, period, burst, max_keys)| {
                let quota = Quota::new(limit, period, burst).map_err(refused)?;
                Ok::<_, PyErr>(Keyed::new(Gcra::new(quota), max_keys))
            })
            .transpose()?;
        Ok(Self {
            core: Mutex::new(Core::new(balancer, breaker, limit)),
        })
    }

    #[allow(clippy::needless_pass_by_value, reason = "pyo3 extracts owned lists")]
    fn update(&self, endpoints: Vec<(String, u32)>, now_ns: u64) -> Vec<u64> {
        // No policy ages endpoints yet; the time is there for those that will.
        let _ = now_ns;
        let listed = endpoints
            .iter()
            .map(|(key, weight)| (key.as_str(), *weight));
        self.core.lock().handle_update(listed)
    }

    fn set_ready(&self, endpoint: u64, ready: bool) {
        self.core.lock().handle_ready(endpoint, ready);
    }

    #[pyo3(signature = (now_ns, key=None))]
    fn admit(&self, now_ns: u64, key: Option<&str>) -> (u8, i64, u64, i64) {
        match self
            .core
            .lock()
            .handle_admit(key.unwrap_or_default(), now_ns)
        {
            CallVerdict::Admit { endpoint, permit } => (
                ADMITTED,
                endpoint.cast_signed(),
                permit.generation(),
                UNKNOWN,
            ),
            CallVerdict::RateLimited { retry_at } => {
                (RATE_LIMITED, UNKNOWN, 0, span_until(retry_at, now_ns))
            }
            CallVerdict::BreakerOpen { retry_at } => {
                (BREAKER_OPEN, UNKNOWN, 0, span_until(retry_at, now_ns))
            }
            CallVerdict::NoEndpoint => (NO_ENDPOINT, UNKNOWN, 0, UNKNOWN),
        }
    }

    #[pyo3(signature = (endpoint, permit, outcome, now_ns))]
    fn complete(&self, endpoint: u64, permit: u64, outcome: u8, now_ns: u64) -> PyResult<()> {
        let outcome = self::outcome(outcome)?;
        let permit = Permit::from_generation(permit);
        self.core
            .lock()
            .handle_complete(endpoint, permit, outcome, now_ns);
        Ok(())
    }

    fn snapshot(&self) -> Vec<(String, u32, bool, u32, &'static str)> {
        let core = self.core.lock();
        let views = core.endpoints();
        views
            .map(|view| {
                (
                    view.key.to_owned(),
                    view.weight,
                    view.ready,
                    view.in_flight,
                    view.breaker.name(),
                )
            })
            .collect()
    }
}
