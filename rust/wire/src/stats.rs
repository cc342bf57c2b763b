//! The methods of a server or channel, with the counters of their calls.
//!
//! Counting here costs a call some atomic additions; the same through a Python
//! metrics library costs a third of the call.

use http::uri::PathAndQuery;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the latency buckets in microseconds; a last one takes the rest.
pub const BUCKETS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// gRPC defines the codes 0 to 16.
pub const STATUSES: usize = 17;

/// One method: its path, how its request arrives, and what its calls came to.
#[derive(Debug)]
pub struct MethodEntry {
    path: PathAndQuery,
    unary_request: bool,
    statuses: [AtomicU64; STATUSES],
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl MethodEntry {
    /// `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    /// For building a request without parsing the path again.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.path
    }

    /// Whether the request is exactly one message.
    pub fn unary_request(&self) -> bool {
        self.unary_request
    }

    /// Counts a call that ended.
    pub fn record(&self, status: u32, took: Duration) {
        let status = usize::try_from(status)
            .ok()
            .filter(|s| *s < STATUSES)
            .unwrap_or(2);
        self.statuses[status].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Calls by status code, calls by bucket, and the sum of their durations in nanoseconds.
    pub fn totals(&self) -> (Vec<u64>, Vec<u64>, u64) {
        let load = |cells: &[AtomicU64]| cells.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        (
            load(&self.statuses),
            load(&self.buckets),
            self.sum_ns.load(Ordering::Relaxed),
        )
    }
}

#[derive(Debug, Default)]
struct Methods {
    entries: Vec<Arc<MethodEntry>>,
    by_path: FxHashMap<String, u32>,
}

/// The methods of one server or channel; it only grows, by what the program
/// declares and never by what a peer sends.
#[derive(Debug, Default)]
pub struct CallTable(RwLock<Methods>);

impl CallTable {
    /// Adds a method, or finds it; `None` if `path` is no valid request path.
    pub fn register(&self, path: &str, unary_request: bool) -> Option<u32> {
        let mut methods = self.0.write();
        if let Some(index) = methods.by_path.get(path) {
            return Some(*index);
        }
        if !path.starts_with('/') {
            return None;
        }
        let index = u32::try_from(methods.entries.len()).ok()?;
        methods.entries.push(Arc::new(MethodEntry {
            path: PathAndQuery::try_from(path).ok()?,
            unary_request,
            statuses: Default::default(),
            buckets: Default::default(),
            sum_ns: AtomicU64::new(0),
        }));
        methods.by_path.insert(path.to_owned(), index);
        Some(index)
    }

    /// The index and entry of a path that was registered.
    pub fn find(&self, path: &str) -> Option<(u32, Arc<MethodEntry>)> {
        let methods = self.0.read();
        let index = *methods.by_path.get(path)?;
        Some((index, Arc::clone(methods.entries.get(index as usize)?)))
    }

    /// The entry of an index that [`Self::register`] gave.
    pub fn get(&self, index: u32) -> Option<Arc<MethodEntry>> {
        self.0.read().entries.get(index as usize).map(Arc::clone)
    }

    /// Every entry, in order of registration.
    pub fn entries(&self) -> Vec<Arc<MethodEntry>> {
        self.0.read().entries.clone()
    }
}
