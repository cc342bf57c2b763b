//! The methods of a server or channel and their counters.

use bascule_wire::stats::{BUCKETS_US, CallTable};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::Arc;

/// gRPC's names of the codes 0 to 16.
const STATUS_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Service, method, bucket, trace id, seconds, seconds since the epoch.
type ExemplarRow = (String, String, usize, String, f64, f64);

type Row = (String, String, Vec<(&'static str, u64)>, Vec<u64>, f64);

#[pyclass(module = "bascule._core", name = "CallTable", frozen)]
#[derive(Default)]
pub(crate) struct PyCallTable(pub(crate) Arc<CallTable>);

#[pymethods]
impl PyCallTable {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn register(&self, path: &str, unary_request: bool) -> PyResult<u32> {
        self.0.register(path, unary_request).ok_or_else(|| {
            PyValueError::new_err(format!(
                "{path:?} is no method path like /package.Service/Method"
            ))
        })
    }

    fn align(&self, epoch_ns: i64) {
        self.0.align(epoch_ns);
    }

    /// Service, method and the number of its calls in progress, for each method.
    fn in_progress(&self) -> Vec<(String, String, i64)> {
        let entries = self.0.entries();
        let counted = entries.iter().filter_map(|entry| {
            let (service, method) = names(entry.path())?;
            Some((service.to_owned(), method.to_owned(), entry.running()))
        });
        counted.collect()
    }

    /// The last sampled call of each bucket that had one.
    #[allow(clippy::cast_precision_loss)]
    fn exemplars(&self) -> Vec<ExemplarRow> {
        let epoch = self.0.epoch() as f64 / 1e9;
        let mut rows = Vec::new();
        for entry in self.0.entries() {
            let Some((service, method)) = names(entry.path()) else {
                continue;
            };
            for (bucket, kept) in entry.exemplars() {
                rows.push((
                    service.to_owned(),
                    method.to_owned(),
                    bucket,
                    String::from_utf8_lossy(&kept.trace).into_owned(),
                    kept.took.as_secs_f64(),
                    kept.at.as_secs_f64() + epoch,
                ));
            }
        }
        rows
    }

    /// One row a method that was called: service, method, calls by status, calls by bucket, seconds.
    #[allow(clippy::cast_precision_loss)]
    fn snapshot(&self) -> Vec<Row> {
        self.0
            .entries()
            .iter()
            .filter_map(|entry| {
                let (statuses, buckets, sum_ns) = entry.totals();
                let (service, method) = names(entry.path())?;
                let statuses: Vec<_> = STATUS_NAMES
                    .into_iter()
                    .zip(statuses)
                    .filter(|(_, count)| *count > 0)
                    .collect();
                let row = (
                    service.to_owned(),
                    method.to_owned(),
                    statuses,
                    buckets,
                    sum_ns as f64 / 1e9,
                );
                (!row.2.is_empty()).then_some(row)
            })
            .collect()
    }
}

/// Service and method of a path.
fn names(path: &str) -> Option<(&str, &str)> {
    path.trim_start_matches('/').rsplit_once('/')
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn buckets(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
    PyTuple::new(py, BUCKETS_US.iter().map(|micros| *micros as f64 / 1e6))
}
