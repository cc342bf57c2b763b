//! Which endpoint takes the next call.
//!
//! A balancer sees only candidates that can take a call: ready, weighted above 0 and not refused
//! by their breaker. So it can stay small: one file and one implementation of [`Balancer`] each.

mod least_request;
mod round_robin;

pub use least_request::LeastRequest;
pub use round_robin::RoundRobin;

/// Chooses between candidates, which it knows by their place in the last update.
pub trait Balancer: std::fmt::Debug + Send {
    /// Learns the candidates: the weight of each, never 0.
    fn handle_update(&mut self, weights: &[u32]);

    /// Chooses a candidate; `load` tells the calls in flight of one. None if there is none.
    fn pick(&mut self, load: &dyn Fn(usize) -> u32) -> Option<usize>;
}

/// The balancer of that name: `round_robin` or `least_request`; None if there is none.
///
/// The seed makes its choices repeatable; give each channel another, else all of them start with
/// the same endpoint.
pub fn by_name(name: &str, seed: u64) -> Option<Box<dyn Balancer>> {
    match name {
        "round_robin" => Some(Box::new(RoundRobin::new(seed))),
        "least_request" => Some(Box::new(LeastRequest::new(seed))),
        _ => None,
    }
}
