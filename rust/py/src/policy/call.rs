//! The decision about a call in one crossing.

use bascule_policy::limit::{Gcra, Keyed, Quota};
use bascule_policy::{
    BreakerSettings, CallPermit, CallPolicy as Core, CallVerdict, HALF_OPEN_FOR, LATENCY_DECAY,
    LoadReport, balance::Kind,
};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::concurrency::{self, ConcurrencyRule};
use super::limiter::refused;
use super::{UNKNOWN, balance, breaker, outcome, span_until};

const ADMITTED: u8 = 0;
const RATE_LIMITED: u8 = 1;
const BREAKER_OPEN: u8 = 2;
const NO_ENDPOINT: u8 = 3;
const CONCURRENCY_LIMITED: u8 = 4;

/// An outcome of calls only: a failure that shows overload.
const OVERLOAD: u8 = 3;

/// An endpoint in a snapshot; `_core.pyi` names the columns.
type Row = (
    String,
    u32,
    bool,
    u32,
    &'static str,
    u64,
    u64,
    u64,
    Option<f64>,
    Option<u64>,
);

/// Limit, breaker and pick for the calls of one channel.
#[pyclass(module = "bascule._core", frozen)]
pub(crate) struct CallPolicy {
    core: Mutex<Core>,
}

#[pymethods]
impl CallPolicy {
    #[new]
    #[pyo3(signature = (
        *,
        balancer,
        seed,
        breaker,
        limit=None,
        half_open_for_ns=HALF_OPEN_FOR,
        ring_size=(1_024, 4_096),
        table_size=65_537,
        latency_decay_ns=None,
        slow_start=None,
        outlier=None,
        load_reports=None,
        breaker_window=None,
        concurrency=None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "all have names in Python")]
    fn new(
        balancer: &str,
        seed: u64,
        breaker: Option<(u32, u32, u64, u32)>,
        limit: Option<(u32, u64, u32, u32)>,
        half_open_for_ns: u64,
        ring_size: (u32, u32),
        table_size: u32,
        latency_decay_ns: Option<u64>,
        slow_start: Option<(u64, f64, f64)>,
        outlier: Option<balance::Outlier>,
        load_reports: Option<(u64, u64, u64, f64)>,
        breaker_window: Option<breaker::Window>,
        concurrency: Option<&ConcurrencyRule>,
    ) -> PyResult<Self> {
        let kind = balance::kind(balancer)?;
        if slow_start.is_some() && kind.hashes() {
            return Err(PyValueError::new_err(format!(
                "slow_start would move calls that {balancer} keeps together: leave it out"
            )));
        }
        if load_reports.is_some() && kind != Kind::WeightedRoundRobin {
            return Err(PyValueError::new_err(format!(
                "load_reports are for weighted_round_robin, not for {balancer}: leave them out"
            )));
        }
        let sizes = balance::sizes(ring_size, table_size)?;
        let breaker = breaker
            .map(
                |(failure_threshold, success_threshold, open_for, half_open_permits)| {
                    let settings = BreakerSettings {
                        trip: breaker::trip(failure_threshold, success_threshold, breaker_window),
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
        let mut core = Core::new(kind.build(seed, &sizes), breaker, limit);
        let learned = (kind == Kind::PeakEwma).then_some(LATENCY_DECAY);
        if let Some(decay) = latency_decay_ns.or(learned) {
            core = core.with_latency(decay);
        }
        if kind == Kind::WeightedRoundRobin {
            let settings = load_reports.map(balance::load_reports).transpose()?;
            core = core.with_load_reports(settings.unwrap_or_default());
        }
        if let Some(rule) = concurrency {
            core = core.with_concurrency(rule.0, seed);
        }
        if let Some(settings) = slow_start {
            core = core.with_slow_start(balance::slow_start(settings)?);
        }
        if let Some(settings) = outlier {
            core = core.with_outlier_detection(balance::outlier(settings)?, seed);
        }
        Ok(Self {
            core: Mutex::new(core),
        })
    }

    #[allow(clippy::needless_pass_by_value, reason = "pyo3 extracts owned lists")]
    fn update(&self, endpoints: Vec<(String, u32)>, now_ns: u64) -> Vec<u64> {
        let listed = endpoints
            .iter()
            .map(|(key, weight)| (key.as_str(), *weight));
        self.core.lock().handle_update(listed, now_ns)
    }

    fn set_ready(&self, endpoint: u64, ready: bool) {
        self.core.lock().handle_ready(endpoint, ready);
    }

    #[pyo3(signature = (now_ns, hash=None, key=None, avoid=None))]
    #[allow(clippy::needless_pass_by_value)]
    fn admit(
        &self,
        now_ns: u64,
        hash: Option<u64>,
        key: Option<&str>,
        avoid: Option<Vec<u64>>,
    ) -> (u8, i64, u64, i64) {
        let avoid = avoid.as_deref().unwrap_or_default();
        let verdict =
            self.core
                .lock()
                .handle_admit_elsewhere(key.unwrap_or_default(), hash, avoid, now_ns);
        answer(verdict, now_ns)
    }

    #[pyo3(signature = (now_ns, hash=None, key=None, avoid=None))]
    #[allow(clippy::needless_pass_by_value)]
    fn admit_stream(
        &self,
        now_ns: u64,
        hash: Option<u64>,
        key: Option<&str>,
        avoid: Option<Vec<u64>>,
    ) -> (u8, i64, u64, i64) {
        let avoid = avoid.as_deref().unwrap_or_default();
        let verdict =
            self.core
                .lock()
                .handle_admit_stream(key.unwrap_or_default(), hash, avoid, now_ns);
        answer(verdict, now_ns)
    }

    #[pyo3(signature = (endpoint, permit, outcome, now_ns))]
    fn complete(&self, endpoint: u64, permit: u64, outcome: u8, now_ns: u64) -> PyResult<()> {
        let permit = CallPermit::from_bits(permit);
        if outcome == OVERLOAD {
            self.core.lock().handle_overload(endpoint, permit, now_ns);
            return Ok(());
        }
        let outcome = self::outcome(outcome)?;
        self.core
            .lock()
            .handle_complete(endpoint, permit, outcome, now_ns);
        Ok(())
    }

    #[pyo3(signature = (endpoint, permit, outcome, now_ns))]
    fn complete_stream(
        &self,
        endpoint: u64,
        permit: u64,
        outcome: u8,
        now_ns: u64,
    ) -> PyResult<()> {
        let outcome = self::outcome(outcome)?;
        let permit = CallPermit::from_bits(permit);
        self.core
            .lock()
            .handle_stream_complete(endpoint, permit, outcome, now_ns);
        Ok(())
    }

    fn report(&self, endpoint: u64, report: &[u8], now_ns: u64) -> bool {
        let Some(report) = LoadReport::decode(report) else {
            return false;
        };
        self.core
            .lock()
            .handle_load_report(endpoint, &report, now_ns);
        true
    }

    /// What the breaker of each endpoint has done, in the order of the snapshot.
    fn breakers(&self, now_ns: u64) -> Vec<Option<breaker::Counts>> {
        let core = self.core.lock();
        let breakers = core.breakers();
        breakers
            .map(|each| each.map(|each| breaker::counts(each, now_ns)))
            .collect()
    }

    /// What the limit of each endpoint does, in the order of the snapshot.
    fn concurrency(&self) -> Vec<Option<concurrency::Row>> {
        let core = self.core.lock();
        let views = core.endpoints();
        views
            .map(|view| view.concurrency.map(concurrency::row))
            .collect()
    }

    fn snapshot(&self) -> Vec<Row> {
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
                    view.picks,
                    view.successes,
                    view.failures,
                    view.latency,
                    view.ejected_until,
                )
            })
            .collect()
    }
}

fn answer(verdict: CallVerdict, now_ns: u64) -> (u8, i64, u64, i64) {
    match verdict {
        CallVerdict::Admit { endpoint, permit } => {
            (ADMITTED, endpoint.cast_signed(), permit.bits(), UNKNOWN)
        }
        CallVerdict::RateLimited { retry_at } => {
            (RATE_LIMITED, UNKNOWN, 0, span_until(retry_at, now_ns))
        }
        CallVerdict::BreakerOpen { retry_at } => {
            (BREAKER_OPEN, UNKNOWN, 0, span_until(retry_at, now_ns))
        }
        CallVerdict::NoEndpoint => (NO_ENDPOINT, UNKNOWN, 0, UNKNOWN),
        CallVerdict::ConcurrencyLimited => (CONCURRENCY_LIMITED, UNKNOWN, 0, UNKNOWN),
    }
}
