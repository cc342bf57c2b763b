//! Everything that is decided before a call, in one step: limit, breaker and pick.

use rustc_hash::FxHashMap;

use crate::balance::Balancer;
use crate::limit::{Gcra, Keyed};
use crate::{Breaker, BreakerSettings, BreakerState, Nanos, Outcome, Permit, Verdict};

/// What a call may do.
#[derive(Debug, PartialEq, Eq)]
pub enum CallVerdict {
    /// Go to this endpoint, then report with [`CallPolicy::handle_complete`].
    Admit {
        /// The endpoint's id.
        endpoint: u64,
        /// To be handed back with the report.
        permit: Permit,
    },
    /// The limit of the key is used up.
    RateLimited {
        /// When it will allow the call.
        retry_at: Option<Nanos>,
    },
    /// The breakers of all endpoints that are ready refuse.
    BreakerOpen {
        /// When the first of them will let a probe through; None if that depends on one in flight.
        retry_at: Option<Nanos>,
    },
    /// No endpoint with a weight above 0 is ready.
    NoEndpoint,
}

/// An endpoint as a snapshot shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

#[derive(Debug)]
struct Endpoint {
    id: u64,
    key: String,
    weight: u32,
    ready: bool,
    in_flight: u32,
    breaker: Option<Breaker>,
}

impl Endpoint {
    fn candidate(&self) -> bool {
        self.ready && self.weight > 0
    }
}

/// The policies of one channel: a breaker for each endpoint, and a balancer over those that can
/// take a call.
#[derive(Debug)]
pub struct CallPolicy {
    balancer: Box<dyn Balancer>,
    breaker: Option<BreakerSettings>,
    limit: Option<Keyed<Gcra>>,
    endpoints: Vec<Endpoint>,
    /// Where the endpoint of an id is in `endpoints`.
    places: FxHashMap<u64, usize>,
    next_id: u64,
    /// The places that the balancer chooses between.
    candidates: Vec<usize>,
    /// Whether `candidates` must be gathered again before the next pick.
    stale: bool,
    /// When time alone will make another endpoint a candidate.
    stale_at: Nanos,
}

impl CallPolicy {
    /// Without endpoints; `breaker` is for each of those to come.
    pub fn new(
        balancer: Box<dyn Balancer>,
        breaker: Option<BreakerSettings>,
        limit: Option<Keyed<Gcra>>,
    ) -> Self {
        Self {
            balancer,
            breaker,
            limit,
            endpoints: Vec::new(),
            places: FxHashMap::default(),
            next_id: 0,
            candidates: Vec::new(),
            stale: true,
            stale_at: Nanos::MAX,
        }
    }

    /// Replaces the endpoints and returns the id of each listed one.
    ///
    /// A key that stays keeps its id, its breaker and its calls; a new one is not ready; one that
    /// left is never picked again, and if it comes back it comes as a new one. A key that is
    /// listed twice has the sum of both weights.
    pub fn handle_update<'a>(
        &mut self,
        listed: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Vec<u64> {
        let mut before: FxHashMap<String, Endpoint> = self
            .endpoints
            .drain(..)
            .map(|endpoint| (endpoint.key.clone(), endpoint))
            .collect();
        let mut places: FxHashMap<String, usize> = FxHashMap::default();
        let mut ids = Vec::new();
        for (key, weight) in listed {
            if let Some(&place) = places.get(key) {
                let endpoint = &mut self.endpoints[place];
                endpoint.weight = endpoint.weight.saturating_add(weight);
                ids.push(endpoint.id);
                continue;
            }
            let endpoint = match before.remove(key) {
                Some(known) => Endpoint { weight, ..known },
                None => self.new_endpoint(key, weight),
            };
            ids.push(endpoint.id);
            places.insert(key.to_owned(), self.endpoints.len());
            self.endpoints.push(endpoint);
        }
        self.places = self
            .endpoints
            .iter()
            .enumerate()
            .map(|(place, known)| (known.id, place))
            .collect();
        self.stale = true;
        ids
    }

    /// Tells whether an endpoint can take calls; an id that has left is ignored.
    pub fn handle_ready(&mut self, endpoint: u64, ready: bool) {
        if let Some(&place) = self.places.get(&endpoint) {
            self.endpoints[place].ready = ready;
            self.stale = true;
        }
    }

    /// Asks to make a call; `key` says whose limit it counts against.
    ///
    /// Only a call that has somewhere to go takes from the limit, and only one within the limit
    /// takes the permit of a breaker.
    pub fn handle_admit(&mut self, key: &str, now: Nanos) -> CallVerdict {
        if self.stale || now >= self.stale_at {
            self.gather(now);
        }
        if self.candidates.is_empty() {
            return self.refuse();
        }
        if let Some(limit) = &mut self.limit {
            let decision = limit.handle_check(key, 1, now);
            if !decision.allowed {
                let retry_at = decision.retry_after.map(|span| now.saturating_add(span));
                return CallVerdict::RateLimited { retry_at };
            }
        }
        let (endpoints, candidates) = (&self.endpoints, &self.candidates);
        let Some(index) = self
            .balancer
            .pick(&|index| endpoints[candidates[index]].in_flight)
        else {
            return self.refuse();
        };
        let endpoint = &mut self.endpoints[self.candidates[index]];
        let permit = match &mut endpoint.breaker {
            None => Permit::from_generation(0),
            Some(breaker) => match breaker.handle_admit(now) {
                Verdict::Admit(permit) => {
                    self.stale |= breaker.state() != BreakerState::Closed;
                    permit
                }
                // Only a clock that went backwards comes here.
                Verdict::Reject { retry_at } => {
                    self.stale = true;
                    return CallVerdict::BreakerOpen { retry_at };
                }
            },
        };
        endpoint.in_flight += 1;
        CallVerdict::Admit {
            endpoint: endpoint.id,
            permit,
        }
    }

    /// Takes the report of a call; that of an endpoint that has left is ignored.
    pub fn handle_complete(&mut self, endpoint: u64, permit: Permit, outcome: Outcome, now: Nanos) {
        let Some(&place) = self.places.get(&endpoint) else {
            return;
        };
        let endpoint = &mut self.endpoints[place];
        endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
        if let Some(breaker) = &mut endpoint.breaker {
            let before = breaker.state();
            breaker.handle_complete(permit, outcome, now);
            let closed = BreakerState::Closed;
            self.stale |= before != closed || breaker.state() != closed;
        }
    }

    /// Every endpoint, in the order of the last update.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointView<'_>> {
        self.endpoints.iter().map(|endpoint| EndpointView {
            key: &endpoint.key,
            weight: endpoint.weight,
            ready: endpoint.ready,
            in_flight: endpoint.in_flight,
            breaker: endpoint
                .breaker
                .as_ref()
                .map_or(BreakerState::Closed, Breaker::state),
        })
    }

    fn new_endpoint(&mut self, key: &str, weight: u32) -> Endpoint {
        let id = self.next_id;
        self.next_id += 1;
        let breaker = self.breaker.map(Breaker::new);
        Endpoint {
            id,
            key: key.to_owned(),
            weight,
            ready: false,
            in_flight: 0,
            breaker,
        }
    }

    /// Gathers the endpoints that would take a call now, and when that will change by itself.
    fn gather(&mut self, now: Nanos) {
        self.stale = false;
        self.stale_at = Nanos::MAX;
        self.candidates.clear();
        for (place, endpoint) in self
            .endpoints
            .iter()
            .enumerate()
            .filter(|(_, e)| e.candidate())
        {
            match &endpoint.breaker {
                Some(breaker) if !breaker.admits(now) => {
                    self.stale_at = self.stale_at.min(breaker.admits_at().unwrap_or(Nanos::MAX));
                }
                _ => self.candidates.push(place),
            }
        }
        let weights: Vec<u32> = self
            .candidates
            .iter()
            .map(|&place| self.endpoints[place].weight)
            .collect();
        self.balancer.handle_update(&weights);
    }

    fn refuse(&self) -> CallVerdict {
        let mut refusing = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.candidate())
            .peekable();
        if refusing.peek().is_none() {
            return CallVerdict::NoEndpoint;
        }
        let open = refusing
            .filter_map(|endpoint| endpoint.breaker.as_ref())
            .filter(|breaker| breaker.state() == BreakerState::Open);
        CallVerdict::BreakerOpen {
            retry_at: open.filter_map(Breaker::admits_at).min(),
        }
    }
}
