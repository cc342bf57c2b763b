"""How a client shares its calls among the endpoints of a service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from bascule import _core
from bascule.errors import ConfigurationError
from bascule.resilience import BreakerSettings
from bascule.resilience._concurrency import rule_of
from bascule.resilience._time import count, span_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule._core import CallPolicy
    from bascule.resilience import ConcurrencyLimit

#: The trailer in which servers report their load (gRFC A51).
LOAD_REPORT = "endpoint-load-metrics-bin"

#: The most points of a ring and entries of a table.
_MOST_ENTRIES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessRateEjection:
    """Ejects endpoints whose success rate is far below the others' (gRFC A50).

    :ivar stdev_factor: an endpoint is out if its rate is below the mean by more than this many
        thousandths of the standard deviation
    :ivar enforcement_percentage: how often one that is to be ejected really is, in per cent
    :ivar minimum_hosts: endpoints with enough calls that there must be to tell
    :ivar request_volume: calls within an interval by which an endpoint is judged
    :raises ConfigurationError: if one of them is out of range
    """

    stdev_factor: int = 1900
    enforcement_percentage: int = 100
    minimum_hosts: int = 5
    request_volume: int = 100

    def __post_init__(self) -> None:
        _within("stdev_factor", self.stdev_factor, 0, 1_000_000)
        _check_rule(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePercentageEjection:
    """Ejects endpoints by their own failures alone (gRFC A50).

    :ivar threshold: an endpoint is out if more than this many per cent of its calls failed
    :ivar enforcement_percentage: how often one that is to be ejected really is, in per cent
    :ivar minimum_hosts: endpoints that there must be to tell
    :ivar request_volume: calls within an interval by which an endpoint is judged
    :raises ConfigurationError: if one of them is out of range
    """

    threshold: int = 85
    enforcement_percentage: int = 100
    minimum_hosts: int = 5
    request_volume: int = 50

    def __post_init__(self) -> None:
        _within("threshold", self.threshold, 0, 100)
        _check_rule(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection:
    """Gives endpoints that do worse than the others no calls for a while (gRFC A50).

    Endpoints are judged once an interval; what a caller cancelled does not count. If all endpoints
    that could take calls are ejected, ejections are ignored. Without one of the two rules nothing
    is ejected.

    :ivar interval: seconds from one judgement to the next; endpoints come back at these times, too
    :ivar base_ejection_time: seconds for which an endpoint is out the first time; the nth time
        n times that. Each judgement that it stands takes one time back.
    :ivar max_ejection_time: the most seconds for which one is out, unless the base is longer
    :ivar max_ejection_percent: no more are ejected once so many per cent of all endpoints are; so
        one may be, unless it is 0
    :ivar success_rate: eject by comparison with the others
    :ivar failure_percentage: eject by an endpoint's own failures
    :raises ConfigurationError: if one of them is out of range
    """

    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_percent: int = 10
    success_rate: SuccessRateEjection | None = None
    failure_percentage: FailurePercentageEjection | None = None

    def __post_init__(self) -> None:
        interval_ns = span_ns("interval", self.interval)
        base_ns = span_ns("base_ejection_time", self.base_ejection_time, least_ns=0)
        most_ns = span_ns("max_ejection_time", self.max_ejection_time, least_ns=0)
        _within("max_ejection_percent", self.max_ejection_percent, 0, 100)
        if max(base_ns, most_ns) // interval_ns > 100_000:
            msg = (
                f"interval is {self.interval}: give at least a 100,000th of the longest "
                "ejection time"
            )
            raise ConfigurationError(msg)

    def _for_core(self) -> tuple[int, int, int, int, _Rule | None, _Rule | None]:
        rate, failure = self.success_rate, self.failure_percentage
        return (
            span_ns("interval", self.interval),
            span_ns("base_ejection_time", self.base_ejection_time, least_ns=0),
            span_ns("max_ejection_time", self.max_ejection_time, least_ns=0),
            self.max_ejection_percent,
            None if rate is None else (rate.stdev_factor, *_shared(rate)),
            None if failure is None else (failure.threshold, *_shared(failure)),
        )


_Rule = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStart:
    """Gives an endpoint that has become ready few calls at first (Envoy's slow start mode).

    Until ``window`` has passed, an endpoint has
    ``max(min_weight_percent / 100, (age / window) ** (1 / aggression))`` of its weight; its age
    counts from the first call that could have gone to it.

    :ivar window: seconds
    :ivar aggression: 1 is a straight line; more gives more calls early, less gives fewer
    :ivar min_weight_percent: what it begins with, in per cent of its weight
    :raises ConfigurationError: if one of them is out of range
    """

    window: float
    aggression: float = 1.0
    min_weight_percent: float = 10.0

    def __post_init__(self) -> None:
        span_ns("window", self.window)
        if not 0.0 < self.aggression < float("inf"):
            msg = f"aggression is {self.aggression}: give a number greater than 0"
            raise ConfigurationError(msg)
        if not 0.0 <= self.min_weight_percent <= 100.0:
            msg = f"min_weight_percent is {self.min_weight_percent}: give a number from 0 to 100"
            raise ConfigurationError(msg)

    def _for_core(self) -> tuple[int, float, float]:
        return (span_ns("window", self.window), self.aggression, self.min_weight_percent / 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReports:
    """How ``weighted_round_robin`` takes what servers report of their load (gRFC A58).

    The weight of an endpoint is ``qps / (utilization + eps / qps * error_utilization_penalty)``;
    until two endpoints have weights, those of the resolver hold.

    :ivar blackout_period: seconds for which an endpoint must have reported before it counts
    :ivar weight_expiration_period: seconds for which a report counts
    :ivar weight_update_period: seconds after which weights follow the reports
    :ivar error_utilization_penalty: how much one error in a hundred calls weighs against one per
        cent of utilization
    :raises ConfigurationError: if one of them is out of range
    """

    blackout_period: float = 10.0
    weight_expiration_period: float = 180.0
    weight_update_period: float = 1.0
    error_utilization_penalty: float = 1.0

    def __post_init__(self) -> None:
        self._for_core()
        if not 0.0 <= self.error_utilization_penalty < float("inf"):
            msg = (
                f"error_utilization_penalty is {self.error_utilization_penalty}: give a number "
                "from 0"
            )
            raise ConfigurationError(msg)

    def _for_core(self) -> tuple[int, int, int, float]:
        return (
            span_ns("blackout_period", self.blackout_period, least_ns=0),
            span_ns("weight_expiration_period", self.weight_expiration_period),
            span_ns("weight_update_period", self.weight_update_period),
            self.error_utilization_penalty,
        )


class _Addressed(Protocol):
    @property
    def address(self) -> str: ...


_E = TypeVar("_E", bound=_Addressed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Connects a client to some of the endpoints, all of which get as many clients as the next.

    Deterministic subsetting of gRFC A68, after "Site Reliability Engineering", chapter 20.

    :ivar client: this client's number among all clients of the service, from 0 without gaps; the
        ordinal of a StatefulSet's pod for example
    :ivar size: endpoints that it connects to
    :raises ConfigurationError: if one of them is out of range
    """

    client: int
    size: int

    def __post_init__(self) -> None:
        _within("client", self.client, 0, 2**63 - 1)
        count("size", self.size)

    def of(self, endpoints: Sequence[_E]) -> list[_E]:
        """The endpoints to connect to, in their order; all of them if they are too few."""
        places = _core.subset([each.address for each in endpoints], self.client, self.size)
        return [endpoints[place] for place in places]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancing:
    """How a channel chooses an endpoint for each call.

    :ivar balancer: one of :attr:`BALANCERS`; ``docs/reference/load-balancing.md`` says which is
        for what
    :ivar outlier: leave out endpoints that do worse than the others
    :ivar slow_start: spare endpoints that have just come; not with ``ring_hash`` and ``maglev``
    :ivar subset: connect to some of the endpoints only
    :ivar ring_size: the least and most points of ``ring_hash``
    :ivar table_size: the entries of ``maglev``, a prime
    :ivar latency_decay: seconds within which what is known of latencies loses most of its weight.
        If None, only ``peak_ewma`` learns them, with 10 s
    :ivar load_reports: how ``weighted_round_robin`` takes load reports; gRPC's defaults if None
    :ivar shuffle: whether ``pick_first`` tries the endpoints in a random order (gRFC A62)
    :ivar hash_header: the metadata key by whose value ``ring_hash`` and ``maglev`` send calls
        (gRFC A76); a call without it goes anywhere
    :raises ConfigurationError: if one of them is out of range, or they do not fit together
    """

    BALANCERS: ClassVar[tuple[str, ...]] = (
        "pick_first",
        "round_robin",
        "weighted_round_robin",
        "random",
        "least_request",
        "peak_ewma",
        "ring_hash",
        "maglev",
    )

    balancer: str = "round_robin"
    outlier: OutlierDetection | None = None
    slow_start: SlowStart | None = None
    subset: Subset | None = None
    ring_size: tuple[int, int] = (1024, 4096)
    table_size: int = 65537
    latency_decay: float | None = None
    load_reports: LoadReports | None = None
    shuffle: bool = False
    hash_header: str | None = None

    def __post_init__(self) -> None:
        if self.balancer not in self.BALANCERS:
            msg = f"balancer is {self.balancer!r}: give one of {', '.join(self.BALANCERS)}"
            raise ConfigurationError(msg)
        least, most = self.ring_size
        if not 1 <= least <= most <= _MOST_ENTRIES:
            msg = f"ring_size is {self.ring_size}: give (least, most) from 1 to {_MOST_ENTRIES}"
            raise ConfigurationError(msg)
        if self.hash_header is not None and self.balancer not in {"ring_hash", "maglev"}:
            msg = f"hash_header is of use to ring_hash and maglev, not to {self.balancer}"
            raise ConfigurationError(msg)
        try:
            self.policy(seed=0)
        except (ValueError, OverflowError) as error:
            raise ConfigurationError(str(error)) from error

    def policy(
        self,
        *,
        seed: int,
        breaker: BreakerSettings | None = None,
        concurrency: ConcurrencyLimit | None = None,
    ) -> CallPolicy:
        """The core's policy by these settings; ``pick_first`` has only one endpoint to choose."""
        slow_start, outlier, decay = self.slow_start, self.outlier, self.latency_decay
        reports = self.load_reports
        settings = breaker or BreakerSettings()
        return _core.CallPolicy(
            balancer="round_robin" if self.balancer == "pick_first" else self.balancer,
            seed=seed,
            breaker=None if breaker is None else _breaker_for_core(breaker),
            half_open_for_ns=settings.half_open_timeout_ns,
            ring_size=self.ring_size,
            table_size=self.table_size,
            latency_decay_ns=None if decay is None else span_ns("latency_decay", decay),
            slow_start=None if slow_start is None else slow_start._for_core(),
            outlier=None if outlier is None else outlier._for_core(),
            load_reports=None if reports is None else reports._for_core(),
            breaker_window=settings.core_window,
            concurrency=None if concurrency is None else rule_of(concurrency),
        )


def _breaker_for_core(breaker: BreakerSettings) -> tuple[int, int, int, int]:
    return (
        breaker.failure_threshold,
        breaker.success_threshold,
        breaker.timeout_ns,
        breaker.permits,
    )


def _check_rule(rule: SuccessRateEjection | FailurePercentageEjection) -> None:
    _within("enforcement_percentage", rule.enforcement_percentage, 0, 100)
    _within("minimum_hosts", rule.minimum_hosts, 0, 2**32 - 1)
    _within("request_volume", rule.request_volume, 0, 2**32 - 1)


def _shared(rule: SuccessRateEjection | FailurePercentageEjection) -> tuple[int, int, int]:
    return (rule.enforcement_percentage, rule.minimum_hosts, rule.request_volume)


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        msg = f"{name} is {value}: give a whole number from {least} to {most}"
        raise ConfigurationError(msg)
