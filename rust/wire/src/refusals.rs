//! What a server refuses or cuts off, counted by reason.
//!
//! The reasons are words of this crate: however a peer misbehaves, they are few.

use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The method is not served.
pub(crate) const UNKNOWN_METHOD: &str = "unknown_method";
/// The head of the request is no call that could be served.
pub(crate) const MALFORMED: &str = "malformed";
/// There are as many calls as there may be over all connections.
pub(crate) const OVERLOADED: &str = "overloaded";
/// All connections together hold too much of requests that are not whole.
pub(crate) const MEMORY: &str = "memory";
/// There are as many streams as there may be on a connection.
pub(crate) const STREAMS: &str = "streams";

/// The counters that all connections of a server share. None of them is on the way of a call
/// that is served.
#[derive(Debug, Default)]
pub struct Refusals {
    requests: Mutex<BTreeMap<&'static str, u64>>,
    floods: Mutex<BTreeMap<&'static str, u64>>,
}

impl Refusals {
    /// Requests that no handler saw, by reason.
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        listed(&self.requests)
    }

    /// Connections that were cut off, by what there was too much of.
    pub fn floods(&self) -> Vec<(&'static str, u64)> {
        listed(&self.floods)
    }

    pub(crate) fn count(&self, reason: &'static str) {
        *self.requests.lock().entry(reason).or_default() += 1;
    }

    pub(crate) fn count_flood(&self, of: &'static str) {
        *self.floods.lock().entry(of).or_default() += 1;
    }
}

fn listed(counts: &Mutex<BTreeMap<&'static str, u64>>) -> Vec<(&'static str, u64)> {
    let counts = counts.lock();
    counts
        .iter()
        .map(|(reason, count)| (*reason, *count))
        .collect()
}
