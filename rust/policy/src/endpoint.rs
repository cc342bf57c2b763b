//! One endpoint of a channel, and what its calls have shown of it.

use crate::balance::Loads;
use crate::concurrency::{Limiter, LimiterCounts};
use crate::latency::Latency;
use crate::load_report::Reported;
use crate::outlier::Record;
use crate::{Breaker, BreakerState, Nanos};

/// An endpoint as a snapshot shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointView<'a> {
    /// What the resolver calls it.
    pub key: &'a str,
    /// Its share of the calls.
    pub weight: u32,
    /// Whether it can take calls.
    pub ready: bool,
    /// Calls admitted and not reported yet.
    pub in_flight: u32,
    /// What its breaker does; closed if it has none.
    pub breaker: BreakerState,
    /// Calls admitted so far.
    pub picks: u64,
    /// Calls that ended well.
    pub successes: u64,
    /// Calls that it failed.
    pub failures: u64,
    /// How long its calls take lately, in nanoseconds, if that is learned and one has ended.
    pub latency: Option<f64>,
    /// Calls that there may be and are within its limit, and what became of them, if it has one.
    pub concurrency: Option<(u32, u32, LimiterCounts)>,
    /// When it may come back, if it is ejected.
    pub ejected_until: Option<Nanos>,
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) id: u64,
    pub(crate) key: String,
    pub(crate) weight: u32,
    pub(crate) ready: bool,
    /// When it was first looked at since it became ready.
    pub(crate) ready_since: Option<Nanos>,
    pub(crate) in_flight: u32,
    pub(crate) picks: u64,
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) limiter: Option<Limiter>,
    pub(crate) latency: Latency,
    pub(crate) record: Record,
    pub(crate) reported: Reported,
}

impl Endpoint {
    /// One that has just been listed.
    pub(crate) fn new(id: u64, key: &str, weight: u32, breaker: Option<Breaker>) -> Self {
        Self {
            id,
            key: key.to_owned(),
            weight,
            ready: false,
            ready_since: None,
            in_flight: 0,
            picks: 0,
            successes: 0,
            failures: 0,
            breaker,
            limiter: None,
            latency: Latency::default(),
            record: Record::default(),
            reported: Reported::default(),
        }
    }

    /// Whether it could take calls as far as the breaker and its record allow.
    pub(crate) fn usable(&self) -> bool {
        self.ready && self.weight > 0
    }

    /// Whether it has as many calls as its limit allows.
    pub(crate) fn is_full(&self) -> bool {
        self.limiter.as_ref().is_some_and(|limit| !limit.admits())
    }
}

/// The candidates of one pick, as a balancer sees them.
pub(crate) struct CandidateLoads<'a> {
    pub(crate) endpoints: &'a [Endpoint],
    pub(crate) candidates: &'a [usize],
    pub(crate) now: Nanos,
    pub(crate) decay: Nanos,
}

impl Loads for CandidateLoads<'_> {
    fn in_flight(&self, candidate: usize) -> u32 {
        self.endpoints[self.candidates[candidate]].in_flight
    }

    fn latency(&self, candidate: usize) -> Option<f64> {
        let endpoint = &self.endpoints[self.candidates[candidate]];
        endpoint.latency.now(self.now, self.decay)
    }
}
