//! The methods of a server or channel, with the counters of their calls.
//!
//! Counting here costs a call some atomic additions; the same through a Python
//! metrics library costs a third of the call.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the latency buckets in microseconds; a last one takes the rest.
pub const BUCKETS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// gRPC defines the codes 0 to 16.
pub const STATUSES: usize = 17;

/// The buckets and the one for the rest.
const ALL_BUCKETS: usize = BUCKETS_US.len() + 1;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A trace's id, in hexadecimal digits.
pub type TraceId = [u8; 32];

/// One call of a bucket whose trace is kept by somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// Which trace it is in.
    pub trace: TraceId,
    /// How long it took.
    pub took: Duration,
    /// When it ended.
    pub at: Duration,
}

/// One method: its path, how its request arrives, and what its calls came to.
#[derive(Debug)]
pub struct MethodEntry {
    path: PathAndQuery,
    unary_request: bool,
    statuses: [AtomicU64; STATUSES],
    buckets: [AtomicU64; ALL_BUCKETS],
    sum_ns: AtomicU64,
    running: AtomicI64,
    /// One a bucket at most; nothing is kept before the first sampled call.
    exemplars: Mutex<Option<Box<[Option<Exemplar>; ALL_BUCKETS]>>>,
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

    /// Calls that have begun and are not over.
    pub fn running(&self) -> i64 {
        self.running.load(Ordering::Relaxed)
    }

    /// The last sampled call of each bucket that had one.
    pub fn exemplars(&self) -> Vec<(usize, Exemplar)> {
        let kept = self.exemplars.lock();
        let slots = kept.iter().flat_map(|slots| slots.iter().enumerate());
        slots
            .filter_map(|(bucket, slot)| Some((bucket, (*slot)?)))
            .collect()
    }

    fn record(&self, status: u32, took: Duration) -> usize {
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
        bucket
    }

    fn keep(&self, bucket: usize, exemplar: Exemplar) {
        let mut kept = self.exemplars.lock();
        kept.get_or_insert_default()[bucket] = Some(exemplar);
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

/// A call of a method: counted as in progress for as long as this lives.
#[derive(Debug)]
pub struct Running {
    method: Arc<MethodEntry>,
    /// Which trace it is in, if that is sampled.
    trace: Option<TraceId>,
}

impl Running {
    /// `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.method.path()
    }

    /// A call that has just begun, with these request headers.
    pub fn new(method: Arc<MethodEntry>, headers: &HeaderMap) -> Self {
        method.running.fetch_add(1, Ordering::Relaxed);
        Self {
            method,
            trace: sampled_trace(headers),
        }
    }

    /// Counts its end.
    pub fn end(&self, status: u32, started: Duration, now: Duration) {
        let took = now.saturating_sub(started);
        let bucket = self.method.record(status, took);
        if let Some(trace) = self.trace {
            let at = now;
            self.method.keep(bucket, Exemplar { trace, took, at });
        }
    }
}

impl Deref for Running {
    type Target = MethodEntry;

    fn deref(&self) -> &MethodEntry {
        &self.method
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.method.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The trace that the sender of the headers records (W3C Trace Context, 3.2): what is malformed is
/// none, as what is not sampled.
fn sampled_trace(headers: &HeaderMap) -> Option<TraceId> {
    let value = headers.get(&TRACEPARENT)?.as_bytes();
    let flags = value.get(52..55).filter(|flags| flags[0] == b'-')?;
    let sampled = char::from(flags[2]).to_digit(16)? & 1 == 1;
    let trace: TraceId = value.get(3..35)?.try_into().ok()?;
    let is_id = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
    (sampled && trace.iter().all(is_id)).then_some(trace)
}

#[derive(Debug, Default)]
struct Methods {
    entries: Vec<Arc<MethodEntry>>,
    by_path: FxHashMap<String, u32>,
}

/// The methods of one server or channel; it only grows, by what the program
/// declares and never by what a peer sends.
#[derive(Debug, Default)]
pub struct CallTable {
    methods: RwLock<Methods>,
    /// Nanoseconds from the clock of the calls to that of the wall.
    epoch: AtomicI64,
}

impl CallTable {
    /// Tells how many nanoseconds the clock of the wall is ahead of that of the calls.
    pub fn align(&self, epoch_ns: i64) {
        self.epoch.store(epoch_ns, Ordering::Relaxed);
    }

    /// What [`Self::align`] was told last.
    pub fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Adds a method, or finds it; `None` if `path` is no valid request path.
    pub fn register(&self, path: &str, unary_request: bool) -> Option<u32> {
        let mut methods = self.methods.write();
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
            running: AtomicI64::new(0),
            exemplars: Mutex::new(None),
        }));
        methods.by_path.insert(path.to_owned(), index);
        Some(index)
    }

    /// The index and entry of a path that was registered.
    pub fn find(&self, path: &str) -> Option<(u32, Arc<MethodEntry>)> {
        let methods = self.methods.read();
        let index = *methods.by_path.get(path)?;
        Some((index, Arc::clone(methods.entries.get(index as usize)?)))
    }

    /// The entry of an index that [`Self::register`] gave.
    pub fn get(&self, index: u32) -> Option<Arc<MethodEntry>> {
        self.methods
            .read()
            .entries
            .get(index as usize)
            .map(Arc::clone)
    }

    /// Every entry, in order of registration.
    pub fn entries(&self) -> Vec<Arc<MethodEntry>> {
        self.methods.read().entries.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn headers(traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(value) = traceparent.parse() {
            headers.insert(&TRACEPARENT, value);
        }
        headers
    }

    fn entry() -> Arc<MethodEntry> {
        let table = CallTable::default();
        table.register("/a.B/C", true);
        table.get(0).unwrap_or_else(|| unreachable!())
    }

    #[test]
    fn a_call_is_in_progress_until_it_is_dropped() {
        let entry = entry();
        let call = Running::new(Arc::clone(&entry), &HeaderMap::new());
        assert_eq!(entry.running(), 1);
        call.end(0, Duration::ZERO, Duration::from_millis(1));
        drop(call);
        assert_eq!(entry.running(), 0);
        assert_eq!(entry.totals().0[0], 1);
    }

    #[test]
    fn the_last_sampled_call_of_a_bucket_is_kept() {
        let entry = entry();
        for (flags, millis) in [("01", 3), ("00", 4), ("01", 4), ("03", 20)] {
            let sent = headers(&format!("00-{TRACE}-00f067aa0ba902b7-{flags}"));
            let call = Running::new(Arc::clone(&entry), &sent);
            call.end(0, Duration::ZERO, Duration::from_millis(millis));
        }
        let kept = entry.exemplars();
        let took: Vec<_> = kept
            .iter()
            .map(|(bucket, exemplar)| (*bucket, exemplar.took.as_millis()))
            .collect();
        assert_eq!(took, [(3, 4), (5, 20)]);
        assert_eq!(kept[0].1.trace, TRACE.as_bytes());
    }

    #[test]
    fn a_malformed_trace_is_none() {
        for value in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\"-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        ] {
            assert_eq!(sampled_trace(&headers(value)), None, "{value}");
        }
    }
}
