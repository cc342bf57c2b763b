//! Everything that is decided before a call, in one step: limits, breaker and pick.

use rustc_hash::FxHashMap;

use crate::balance::{Balancer, Call, Candidate, Member};
use crate::concurrency::{self, Ending, Limiter, Rule};
use crate::endpoint::{CandidateLoads, Endpoint, EndpointView};
use crate::limit::{Gcra, Keyed};
use crate::load_report::{self, LoadReport, LoadReportSettings};
use crate::outlier::{Outlier, OutlierSettings};
use crate::slow_start::SlowStart;
use crate::{Breaker, BreakerSettings, BreakerState, CallPermit, Nanos, Outcome, Permit, Verdict};

/// What a call may do.
#[derive(Debug, PartialEq, Eq)]
pub enum CallVerdict {
    /// Go to this endpoint, then report with [`CallPolicy::handle_complete`].
    Admit {
        /// The endpoint's id.
        endpoint: u64,
        /// To be handed back with the report.
        permit: CallPermit,
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
    /// All endpoints that would take the call have as many as their limits allow.
    ConcurrencyLimited,
}

/// How often a balancer is asked for an endpoint that a call was not sent to.
const PICKS: usize = 4;

/// The policies of one channel: a breaker for each endpoint, and a balancer over those that can
/// take a call.
#[derive(Debug)]
pub struct CallPolicy {
    balancer: Box<dyn Balancer>,
    breaker: Option<BreakerSettings>,
    limit: Option<Keyed<Gcra>>,
    /// How many calls an endpoint may have at once, and the seed of that.
    concurrency: Option<(Rule, u64)>,
    slow_start: Option<SlowStart>,
    reports: Option<LoadReportSettings>,
    outlier: Option<Outlier>,
    /// By how much what is known of latencies loses weight; None if they are not learned.
    decay: Option<Nanos>,
    /// Whether it matters how long calls take: to latencies, or to breakers.
    timed: bool,
    endpoints: Vec<Endpoint>,
    /// Where the endpoint of an id is in `endpoints`.
    places: FxHashMap<u64, usize>,
    next_id: u64,
    /// The places that the balancer chooses between.
    candidates: Vec<usize>,
    /// Whether `candidates` must be gathered again before the next pick.
    stale: bool,
    /// When time alone will change the candidates or their weights.
    stale_at: Nanos,
    /// When endpoints are judged next.
    judge_at: Nanos,
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
            timed: breaker.is_some_and(|settings| settings.timed()),
            breaker,
            limit,
            concurrency: None,
            slow_start: None,
            reports: None,
            outlier: None,
            decay: None,
            endpoints: Vec::new(),
            places: FxHashMap::default(),
            next_id: 0,
            candidates: Vec::new(),
            stale: true,
            stale_at: Nanos::MAX,
            judge_at: Nanos::MAX,
        }
    }

    /// Limits the calls that an endpoint has at once, each endpoint by itself.
    #[must_use]
    pub fn with_concurrency(mut self, rule: Rule, seed: u64) -> Self {
        self.concurrency = Some((rule, seed));
        self
    }

    /// Brings endpoints that become ready to their weight by and by.
    #[must_use]
    pub fn with_slow_start(mut self, settings: SlowStart) -> Self {
        self.slow_start = Some(settings);
        self
    }

    /// Weighs endpoints by what they report of their load, as soon as two of them do.
    #[must_use]
    pub fn with_load_reports(mut self, settings: LoadReportSettings) -> Self {
        self.reports = Some(settings);
        self
    }

    /// Ejects endpoints that do worse than the others; the seed decides where enforcement is not
    /// certain.
    #[must_use]
    pub fn with_outlier_detection(mut self, settings: OutlierSettings, seed: u64) -> Self {
        self.outlier = Some(Outlier::new(settings, seed));
        self
    }

    /// Learns how long calls take; what is known loses its weight within some times `decay`.
    #[must_use]
    pub fn with_latency(mut self, decay: Nanos) -> Self {
        self.decay = Some(decay.max(1));
        self.timed = true;
        self
    }

    /// Replaces the endpoints and returns the id of each listed one.
    ///
    /// A key that stays keeps its id, its breaker and its calls; a new one is not ready; one that
    /// left is never picked again, and if it comes back it comes as a new one. A key that is
    /// listed twice has the sum of both weights.
    pub fn handle_update<'a>(
        &mut self,
        listed: impl IntoIterator<Item = (&'a str, u32)>,
        now: Nanos,
    ) -> Vec<u64> {
        self.handle_time(now);
        let members_before = self.members();
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
        // Resolvers often say the same again, and a table takes milliseconds to fill.
        if self.members() != members_before {
            let members: Vec<_> = self.endpoints.iter().map(member).collect();
            self.balancer.handle_members(&members);
        }
        if let Some(outlier) = self.outlier.as_mut().filter(|_| !self.endpoints.is_empty()) {
            outlier.start(now);
            self.judge_at = outlier.next();
        }
        self.stale = true;
        ids
    }

    /// Tells whether an endpoint can take calls; an id that has left is ignored.
    pub fn handle_ready(&mut self, endpoint: u64, ready: bool) {
        if let Some(&place) = self.places.get(&endpoint) {
            let endpoint = &mut self.endpoints[place];
            endpoint.ready = ready;
            if !ready {
                endpoint.ready_since = None;
                endpoint.reported.handle_ready();
            }
            self.stale = true;
        }
    }

    /// Takes what an endpoint reports of its load; of one that has left it is ignored.
    pub fn handle_load_report(&mut self, endpoint: u64, report: &LoadReport, now: Nanos) {
        if let (Some(settings), Some(&place)) = (&self.reports, self.places.get(&endpoint)) {
            let endpoint = &mut self.endpoints[place];
            endpoint.reported.handle_report(report, settings, now);
        }
    }

    /// Asks to make a call; `key` says whose limit it counts against, and calls with the same
    /// `hash` go to the same endpoint if the balancer keeps them together.
    ///
    /// Only a call that has somewhere to go takes from the limit, and only one within the limit
    /// takes the permit of a breaker.
    pub fn handle_admit(&mut self, key: &str, hash: Option<u64>, now: Nanos) -> CallVerdict {
        self.handle_admit_elsewhere(key, hash, &[], now)
    }

    /// The same for a call that was sent to some endpoints already, and should go
    /// to another one if there is any.
    pub fn handle_admit_elsewhere(
        &mut self,
        key: &str,
        hash: Option<u64>,
        avoid: &[u64],
        now: Nanos,
    ) -> CallVerdict {
        self.admit(key, hash, avoid, now, self.concurrency.is_some())
    }

    /// The same for a stream, which may last for ever: it does not count against the limit of
    /// concurrency, and is not held to it.
    pub fn handle_admit_stream(
        &mut self,
        key: &str,
        hash: Option<u64>,
        avoid: &[u64],
        now: Nanos,
    ) -> CallVerdict {
        self.admit(key, hash, avoid, now, false)
    }

    fn admit(
        &mut self,
        key: &str,
        hash: Option<u64>,
        avoid: &[u64],
        now: Nanos,
        counts: bool,
    ) -> CallVerdict {
        if self.stale || now >= self.stale_at {
            self.gather(now);
        }
        if self.candidates.is_empty() {
            return self.refuse();
        }
        if counts && self.is_full() {
            return self.refuse_full();
        }
        if let Some(limit) = &mut self.limit {
            let decision = limit.handle_check(key, 1, now);
            if !decision.allowed {
                let retry_at = decision.retry_after.map(|span| now.saturating_add(span));
                return CallVerdict::RateLimited { retry_at };
            }
        }
        let loads = CandidateLoads {
            endpoints: &self.endpoints,
            candidates: &self.candidates,
            now,
            decay: self.decay.unwrap_or(1),
        };
        let call = Call {
            hash,
            loads: &loads,
        };
        let was_sent_to = |index: &usize| {
            let place = self.candidates[*index];
            avoid.contains(&self.endpoints[place].id)
        };
        let is_full = |index: &usize| counts && self.endpoints[self.candidates[*index]].is_full();
        let Some(mut index) = self.balancer.pick(&call) else {
            return self.refuse();
        };
        if was_sent_to(&index) || is_full(&index) {
            let again = (0..PICKS).filter_map(|_| self.balancer.pick(&call));
            let count = self.candidates.len();
            // Some balancers always give the same one for the same call.
            let next = (1..count).map(|step| (index + step) % count);
            // One to avoid is better than none, one that is full is not.
            let mut avoided = Some(index).filter(|index| !is_full(index));
            let found = again
                .chain(next)
                .filter(|each| !is_full(each))
                .find(|each| {
                    avoided.get_or_insert(*each);
                    !was_sent_to(each)
                });
            index = found.or(avoided).unwrap_or(index);
        }
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
        endpoint.picks += 1;
        let is_timed = self.timed || counts;
        let mut permit = CallPermit::new(&permit, if is_timed { now } else { 0 });
        if counts
            && let Some(limiter) = &mut endpoint.limiter
            && limiter.handle_admit(now).is_some()
        {
            permit = permit.counted();
        }
        CallVerdict::Admit {
            endpoint: endpoint.id,
            permit,
        }
    }

    /// Takes the report of a call; that of an endpoint that has left is ignored.
    pub fn handle_complete(
        &mut self,
        endpoint: u64,
        permit: CallPermit,
        outcome: Outcome,
        now: Nanos,
    ) {
        self.complete(endpoint, permit, outcome, ending_of(outcome), now, true);
    }

    /// The same of a stream: it may last as long as it likes without being slow to a breaker.
    pub fn handle_stream_complete(
        &mut self,
        endpoint: u64,
        permit: CallPermit,
        outcome: Outcome,
        now: Nanos,
    ) {
        self.complete(endpoint, permit, outcome, ending_of(outcome), now, false);
    }

    /// Takes the report of a call that failed because there were too many.
    pub fn handle_overload(&mut self, endpoint: u64, permit: CallPermit, now: Nanos) {
        self.complete(endpoint, permit, Outcome::Failure, Ending::Lost, now, true);
    }

    #[allow(
        clippy::needless_pass_by_value,
        reason = "a permit is used up by its report"
    )]
    fn complete(
        &mut self,
        endpoint: u64,
        permit: CallPermit,
        outcome: Outcome,
        ending: Ending,
        now: Nanos,
        may_be_slow: bool,
    ) {
        self.handle_time(now);
        let Some(&place) = self.places.get(&endpoint) else {
            return;
        };
        let endpoint = &mut self.endpoints[place];
        if permit.is_counted()
            && let Some(limiter) = &mut endpoint.limiter
        {
            let began = now.saturating_sub(permit.age(now));
            limiter.handle_complete(concurrency::Permit::begun_at(began), ending, now);
        }
        endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Success => endpoint.successes += 1,
            Outcome::Failure => endpoint.failures += 1,
            Outcome::Abandoned => {}
        }
        if self.outlier.is_some() {
            endpoint.record.count(outcome);
        }
        let took = if self.timed { permit.age(now) } else { 0 };
        if let Some(decay) = self.decay {
            endpoint.latency.handle_end(took, outcome, now, decay);
        }
        if let Some(breaker) = &mut endpoint.breaker {
            if !permit.is_of(breaker.generation()) {
                return;
            }
            let before = breaker.state();
            let permit = Permit::from_generation(breaker.generation());
            let took = if may_be_slow { took } else { 0 };
            breaker.handle_complete(permit, outcome, took, now);
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
            picks: endpoint.picks,
            successes: endpoint.successes,
            failures: endpoint.failures,
            latency: endpoint.latency.seen(),
            concurrency: endpoint
                .limiter
                .as_ref()
                .map(|limiter| (limiter.limit(), limiter.in_flight(), limiter.counts())),
            ejected_until: self
                .outlier
                .as_ref()
                .and_then(|outlier| outlier.until(&endpoint.record)),
        })
    }

    /// The breaker of every endpoint, if they have some, in the same order.
    pub fn breakers(&self) -> impl Iterator<Item = Option<&Breaker>> {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.breaker.as_ref())
    }

    /// Who is listed, in what order, with what weight.
    fn members(&self) -> Vec<(u64, u32)> {
        let endpoints = self.endpoints.iter();
        endpoints.map(|each| (each.id, each.weight)).collect()
    }

    fn new_endpoint(&mut self, key: &str, weight: u32) -> Endpoint {
        let id = self.next_id;
        self.next_id += 1;
        let mut endpoint = Endpoint::new(id, key, weight, self.breaker.map(Breaker::new));
        endpoint.limiter = self
            .concurrency
            .map(|(rule, seed)| Limiter::new(rule, seed.wrapping_add(id)));
        endpoint
    }

    /// Judges the endpoints if it is time.
    fn handle_time(&mut self, now: Nanos) {
        if now < self.judge_at {
            return;
        }
        let Some(outlier) = &mut self.outlier else {
            return;
        };
        let endpoints = self.endpoints.iter_mut();
        let mut records: Vec<_> = endpoints.map(|endpoint| &mut endpoint.record).collect();
        outlier.handle_time(&mut records, now);
        self.judge_at = outlier.next();
        self.stale = true;
    }

    /// Gathers the endpoints that would take a call now, and when that will change by itself.
    ///
    /// Those that are ejected are left out, unless nobody else is left: then it is not them.
    fn gather(&mut self, now: Nanos) {
        self.handle_time(now);
        self.stale = false;
        self.stale_at = self.judge_at;
        self.candidates.clear();
        for (place, endpoint) in self
            .endpoints
            .iter_mut()
            .enumerate()
            .filter(|(_, e)| e.usable())
        {
            if let Some(breaker) = &mut endpoint.breaker {
                let admits = breaker.admits(now);
                if let Some(at) = breaker.changes_at().filter(|at| *at > now) {
                    self.stale_at = self.stale_at.min(at);
                }
                if !admits {
                    continue;
                }
            }
            self.candidates.push(place);
        }
        let endpoints = &self.endpoints;
        let well = |place: &usize| !endpoints[*place].record.ejected();
        if self.candidates.iter().any(well) {
            self.candidates.retain(well);
        }
        let weights = self.weights(now);
        let weighted = self.candidates.iter().zip(weights);
        let candidates: Vec<_> = weighted
            .map(|(&member, weight)| Candidate { member, weight })
            .collect();
        self.balancer.handle_update(&candidates);
    }

    /// The weights of the candidates now, and notes when they will be others.
    fn weights(&mut self, now: Nanos) -> Vec<u32> {
        let mut weights = self.base_weights(now);
        let Some(slow_start) = &self.slow_start else {
            return weights;
        };
        let mut ages = Vec::with_capacity(weights.len());
        for &place in &self.candidates {
            let since = *self.endpoints[place].ready_since.get_or_insert(now);
            let age = now.saturating_sub(since);
            if slow_start.starting(age) {
                self.stale_at = self.stale_at.min(now.saturating_add(slow_start.step()));
            }
            ages.push(age);
        }
        slow_start.apply(&mut weights, &ages);
        weights
    }

    /// The weights as reported, else as listed.
    fn base_weights(&mut self, now: Nanos) -> Vec<u32> {
        if let Some(settings) = &self.reports {
            let next = now.saturating_add(settings.weight_update_period);
            self.stale_at = self.stale_at.min(next);
            // Candidates are in the order of the endpoints.
            let mut chosen = self.candidates.iter().peekable();
            let endpoints = self.endpoints.iter_mut().enumerate();
            let candidates = endpoints.filter(|(place, _)| chosen.next_if_eq(&place).is_some());
            let reported = candidates.map(|(_, endpoint)| &mut endpoint.reported);
            if let Some(weights) = load_report::weights(reported, settings, now) {
                return weights;
            }
        }
        let places = self.candidates.iter();
        places.map(|&place| self.endpoints[place].weight).collect()
    }

    /// Whether no candidate has room for one more call.
    fn is_full(&self) -> bool {
        let mut places = self.candidates.iter();
        places.all(|&place| self.endpoints[place].is_full())
    }

    fn refuse_full(&mut self) -> CallVerdict {
        for &place in &self.candidates {
            if let Some(limiter) = &mut self.endpoints[place].limiter {
                limiter.handle_rejected();
            }
        }
        CallVerdict::ConcurrencyLimited
    }

    fn refuse(&self) -> CallVerdict {
        let mut refusing = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.usable())
            .peekable();
        if refusing.peek().is_none() {
            return CallVerdict::NoEndpoint;
        }
        let open = refusing
            .filter_map(|endpoint| endpoint.breaker.as_ref())
            .filter(|breaker| breaker.state() == BreakerState::Open);
        CallVerdict::BreakerOpen {
            retry_at: open.filter_map(Breaker::changes_at).min(),
        }
    }
}

/// What a limit of concurrency learns from an outcome: a failure may be of any kind.
fn ending_of(outcome: Outcome) -> Ending {
    match outcome {
        Outcome::Success => Ending::Done,
        Outcome::Failure | Outcome::Abandoned => Ending::Untold,
    }
}

fn member(endpoint: &Endpoint) -> Member<'_> {
    Member {
        key: &endpoint.key,
        weight: endpoint.weight,
    }
}
