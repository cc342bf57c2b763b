//! Breakers, limiters and balancers without I/O: time is an argument.
//!
//! Times are nanoseconds since an epoch that the caller chooses and keeps: only differences
//! count. Each policy is one file; [`CallPolicy`] asks all of them about a call at once.
//!
//! Room for more: a balancer implements [`balance::Balancer`]; a policy that judges calls, such as
//! outlier detection, joins [`CallPolicy`] in `handle_admit` and `handle_complete`.

pub mod balance;
mod breaker;
mod call;
mod call_permit;
pub mod concurrency;
mod endpoint;
mod hash;
mod latency;
pub mod limit;
mod load_report;
mod outlier;
mod random;
mod slow_start;

pub use breaker::{
    Breaker, BreakerCounts, BreakerSettings, BreakerState, HALF_OPEN_FOR, MOST_BUCKETS, MOST_CALLS,
    Outcome, Permit, Span, Tally, Trip, Verdict, WindowSettings,
};
pub use call::{CallPolicy, CallVerdict};
pub use call_permit::CallPermit;
pub use endpoint::EndpointView;
pub use hash::xxh64;
pub use latency::LATENCY_DECAY;
pub use load_report::{LoadReport, LoadReportSettings};
pub use outlier::{FailurePercentage, OutlierSettings, SuccessRate};
pub use slow_start::SlowStart;

/// Nanoseconds: a point in time on the caller's clock, or a span of it.
pub type Nanos = u64;

/// A setting that cannot work; the text says which and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingError(pub &'static str);

impl std::fmt::Display for SettingError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for SettingError {}
