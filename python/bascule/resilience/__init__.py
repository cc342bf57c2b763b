"""Policies that keep a service standing, usable alone: circuit breaker, bulkhead, limits of rate and
concurrency.
"""

from bascule._redis import RedisClient as RedisClient
from bascule.resilience._balancing import EndpointSnapshot as EndpointSnapshot
from bascule.resilience._balancing import endpoint_snapshots as endpoint_snapshots
from bascule.resilience._balancing import hash_key as hash_key
from bascule.resilience._breaker import BreakerSnapshot as BreakerSnapshot
from bascule.resilience._breaker import BreakerState as BreakerState
from bascule.resilience._breaker import CircuitBreaker as CircuitBreaker
from bascule.resilience._breaker import Outcome as Outcome
from bascule.resilience._breaker import Permit as Permit
from bascule.resilience._breaker_settings import BreakerSettings as BreakerSettings
from bascule.resilience._breaker_settings import CountWindow as CountWindow
from bascule.resilience._breaker_settings import TimeWindow as TimeWindow
from bascule.resilience._bulkhead import Bulkhead as Bulkhead
from bascule.resilience._bulkhead import BulkheadPermit as BulkheadPermit
from bascule.resilience._concurrency import AdaptiveLimiter as AdaptiveLimiter
from bascule.resilience._concurrency import Aimd as Aimd
from bascule.resilience._concurrency import ConcurrencyLimit as ConcurrencyLimit
from bascule.resilience._concurrency import ConcurrencyPermit as ConcurrencyPermit
from bascule.resilience._concurrency import ConcurrencySnapshot as ConcurrencySnapshot
from bascule.resilience._concurrency import FixedLimit as FixedLimit
from bascule.resilience._concurrency import Gradient2 as Gradient2
from bascule.resilience._fallback import failed_there as failed_there
from bascule.resilience._fallback import fallback as fallback
from bascule.resilience._limiter import Decision as Decision
from bascule.resilience._limiter import GcraLimiter as GcraLimiter
from bascule.resilience._limiter import LimitAlgorithm as LimitAlgorithm
from bascule.resilience._limiter import RateLimiter as RateLimiter
from bascule.resilience._limiter import SlidingWindowLimiter as SlidingWindowLimiter
from bascule.resilience._limiter import TokenBucketLimiter as TokenBucketLimiter
from bascule.resilience._shared_limiter import Away as Away
from bascule.resilience._shared_limiter import SharedDecision as SharedDecision
from bascule.resilience._shared_limiter import SharedRateLimiter as SharedRateLimiter
