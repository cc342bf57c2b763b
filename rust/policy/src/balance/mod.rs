//! Which endpoint takes the next call.
//!
//! A balancer sees only candidates that can take a call: ready, weighted above 0 and not refused
//! by their breaker. So it can stay small: one file and one implementation of [`Balancer`] each.

mod least_request;
mod line;
mod maglev;
mod peak_ewma;
mod random;
mod ring_hash;
mod round_robin;
mod subset;

pub use least_request::LeastRequest;
pub use maglev::Maglev;
pub use peak_ewma::PeakEwma;
pub use random::RandomChoice;
pub use ring_hash::RingHash;
pub use round_robin::RoundRobin;
pub use subset::subset;

use crate::SettingError;

/// Somebody that is listed with a weight above 0, whether it can take calls now or not.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What the resolver calls it.
    pub key: &'a str,
    /// Its share of the calls.
    pub weight: u32,
}

/// Somebody that can take a call now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the last [`Balancer::handle_members`].
    pub member: usize,
    /// Its share of the calls now, never 0.
    pub weight: u32,
}

/// How busy the candidates are.
pub trait Loads {
    /// The calls of a candidate that are in flight.
    fn in_flight(&self, candidate: usize) -> u32;

    /// How long its calls take lately, in nanoseconds; None if it has not ended one yet.
    fn latency(&self, candidate: usize) -> Option<f64>;
}

/// What is known of a call before it is sent.
pub struct Call<'a> {
    /// What calls that belong together have in common, for balancers that keep them together.
    pub hash: Option<u64>,
    /// How busy the candidates are.
    pub loads: &'a dyn Loads,
}

/// Chooses between candidates, which it knows by their place in the last update.
pub trait Balancer: std::fmt::Debug + Send {
    /// Learns who is listed; an update always follows.
    fn handle_members(&mut self, members: &[Member<'_>]) {
        let _ = members;
    }

    /// Learns the candidates.
    fn handle_update(&mut self, candidates: &[Candidate]);

    /// Chooses a candidate; None if there is none.
    fn pick(&mut self, call: &Call<'_>) -> Option<usize>;
}

/// A balancer's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each in turn, by weight.
    RoundRobin,
    /// Each in turn, by weights that are learned from reports.
    WeightedRoundRobin,
    /// Any, by weight.
    Random,
    /// The less busy one of two.
    LeastRequest,
    /// The one of two that is likely to answer sooner.
    PeakEwma,
    /// By the call's hash, on a ring.
    RingHash,
    /// By the call's hash, from a table.
    Maglev,
}

impl Kind {
    /// Every balancer.
    pub const ALL: [Self; 7] = [
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::Random,
        Self::LeastRequest,
        Self::PeakEwma,
        Self::RingHash,
        Self::Maglev,
    ];

    /// The name that settings use.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::WeightedRoundRobin => "weighted_round_robin",
            Self::Random => "random",
            Self::LeastRequest => "least_request",
            Self::PeakEwma => "peak_ewma",
            Self::RingHash => "ring_hash",
            Self::Maglev => "maglev",
        }
    }

    /// The balancer of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether calls with the same hash go to the same endpoint.
    pub fn hashes(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }

    /// A balancer of this kind.
    ///
    /// The seed makes its choices repeatable; give each channel another, else all of them start
    /// with the same endpoint.
    pub fn build(self, seed: u64, sizes: &Sizes) -> Box<dyn Balancer> {
        match self {
            Self::RoundRobin | Self::WeightedRoundRobin => Box::new(RoundRobin::new(seed)),
            Self::Random => Box::new(RandomChoice::new(seed)),
            Self::LeastRequest => Box::new(LeastRequest::new(seed)),
            Self::PeakEwma => Box::new(PeakEwma::new(seed)),
            Self::RingHash => Box::new(RingHash::new(seed, sizes.ring_min, sizes.ring_max)),
            Self::Maglev => Box::new(Maglev::new(seed, sizes.table)),
        }
    }
}

/// How much the balancers that keep a table may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Points that a ring has at least.
    pub ring_min: u32,
    /// Points that a ring has at most.
    pub ring_max: u32,
    /// Entries of a Maglev table, a prime.
    pub table: u32,
}

/// The largest ring and table: Envoy's 8 Mi points and the paper's largest table are more than a
/// client should build; 1 Mi points are 16 MiB.
const MOST: u32 = 1 << 20;

impl Default for Sizes {
    /// gRFC A42's ring of 1,024 to 4,096 points, the Maglev paper's table of 65,537.
    fn default() -> Self {
        Self {
            ring_min: 1_024,
            ring_max: 4_096,
            table: 65_537,
        }
    }
}

impl Sizes {
    /// Refuses sizes that no table can have.
    pub fn checked(self) -> Result<Self, SettingError> {
        if self.ring_min == 0 || self.ring_min > self.ring_max {
            return Err(SettingError(
                "ring_size must be from at least 1 to at least as much",
            ));
        }
        if self.ring_max > MOST {
            return Err(SettingError("ring_size must be at most 1048576"));
        }
        if self.table > MOST || !is_prime(self.table) {
            return Err(SettingError(
                "table_size must be a prime and at most 1048576",
            ));
        }
        Ok(self)
    }
}

fn is_prime(number: u32) -> bool {
    number >= 2 && !(2..=number.isqrt()).any(|divisor| number.is_multiple_of(divisor))
}
