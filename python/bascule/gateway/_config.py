"""What a gateway can be told. Every value is checked when it is set, not when a request meets it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from string import Formatter
from typing import TYPE_CHECKING

from bascule.errors import ConfigurationError
from bascule.resilience import Away, LimitAlgorithm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bascule.gateway._keys import KeySource
    from bascule.net import ClientTLS, HttpLimits, ServerTLS
    from bascule.resilience import BreakerSettings
    from bascule.rpc import LoadBalancing, ServiceConfig

__all__ = [
    "AuthConfig",
    "CorsConfig",
    "Created",
    "GatewayConfig",
    "IdempotencyConfig",
    "LimitConfig",
    "RouteConfig",
    "UpstreamConfig",
]

_ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA", "HS256"})
# RFC 9110, 7.6.1, and what older proxies add: these speak to the next hop only.
_HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "host",
        "content-length",
        "content-type",
    ]
)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigurationError(message)


def _require_positive(name: str, value: float) -> None:
    _require(
        math.isfinite(value) and value > 0, f"{name} is {value!r}: it must be a positive number"
    )


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """How many requests one key may make.

    :ivar requests: so many requests ...
    :ivar per: ... in so many seconds
    :ivar burst: so many at once; None for ``requests``
    :ivar algorithm: how they are counted
    :ivar max_keys: keys remembered at the same time; idle ones are forgotten first
    :raises ConfigurationError: if a value is not positive, the algorithm is unknown, or a sliding window
        has a ``burst``
    """

    requests: int = 1000
    per: float = 60.0
    burst: int | None = None
    algorithm: LimitAlgorithm | str = LimitAlgorithm.GCRA
    max_keys: int = 100_000

    def __post_init__(self) -> None:
        for name in ("requests", "per", "max_keys"):
            _require_positive(f"LimitConfig.{name}", getattr(self, name))
        if self.burst is not None:
            _require_positive("LimitConfig.burst", self.burst)
        _require(
            self.algorithm in set(LimitAlgorithm),
            f"LimitConfig.algorithm is {self.algorithm!r}: use 'gcra', 'token_bucket' or 'sliding_window'",
        )
        _require(
            self.algorithm != LimitAlgorithm.SLIDING_WINDOW or self.burst in {None, self.requests},
            f"LimitConfig.burst is {self.burst!r}: a sliding window has none, leave it out",
        )


@dataclass(frozen=True, slots=True)
class Created:
    """Answer 201 instead of 200.

    :ivar location: the ``Location`` header, with fields of the answer in braces:
        ``"/api/v1/orders/{id}"``; None for none
    :raises ConfigurationError: if there is more than a field's name in the braces
    """

    location: str | None = None

    def __post_init__(self) -> None:
        fields = [
            name for _, name, _, _ in Formatter().parse(self.location or "") if name is not None
        ]
        _require(
            all(map(str.isidentifier, fields)),
            f"Created.location {self.location!r}: braces hold a field's name",
        )


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """How one route is served.

    :ivar public: whether it answers without a token; a token that is sent is verified all the same
    :ivar scopes: what a token must permit, all of it
    :ivar timeout: seconds until the answer is 504; the upstream call has this deadline
    :ivar created: answer 201, with a ``Location``
    :raises ConfigurationError: if ``timeout`` is not positive, or a public route asks for scopes
    """

    public: bool = False
    scopes: frozenset[str] = frozenset()
    timeout: float = 15.0
    created: Created | None = None

    def __post_init__(self) -> None:
        _require_positive("RouteConfig.timeout", self.timeout)
        _require(
            not (self.public and self.scopes),
            "a public route cannot ask for scopes: nobody need have a token",
        )


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Which tokens are believed.

    :ivar issuer: the ``iss`` claim must be this
    :ivar audience: the ``aud`` claim must be, or hold, this
    :ivar keys: where the keys come from
    :ivar algorithms: the algorithms that are allowed; each key takes those of its type only
    :ivar leeway: seconds by which the issuer's clock may differ from ours
    :ivar cache_seconds: how long a verified token is not verified again
    :ivar cache_size: how many verified tokens are remembered
    :ivar realm: named in ``WWW-Authenticate``
    :raises ConfigurationError: if a value cannot work
    """

    issuer: str
    audience: str
    keys: KeySource
    algorithms: frozenset[str] = frozenset({"RS256", "ES256", "EdDSA"})
    leeway: float = 30.0
    cache_seconds: float = 60.0
    cache_size: int = 10_000
    realm: str = "bascule"

    def __post_init__(self) -> None:
        _require(bool(self.issuer), "AuthConfig.issuer is empty: name who makes the tokens")
        _require(
            bool(self.audience), "AuthConfig.audience is empty: name whom the tokens are meant for"
        )
        unknown = set(self.algorithms) - _ALGORITHMS
        _require(
            bool(self.algorithms) and not unknown,
            f"AuthConfig.algorithms has {sorted(unknown)}: choose from {sorted(_ALGORITHMS)}",
        )
        _require(0 <= self.leeway <= 300, f"AuthConfig.leeway is {self.leeway!r} s: use 0 to 300")
        _require(
            self.cache_seconds >= 0,
            f"AuthConfig.cache_seconds is {self.cache_seconds!r}: use 0 or more",
        )
        _require_positive("AuthConfig.cache_size", self.cache_size)
        _require(
            self.realm.isascii() and self.realm.isprintable() and not set(self.realm) & set('"\\'),
            f"AuthConfig.realm {self.realm!r} cannot stand in a header: use printable ASCII without quotes",
        )


@dataclass(frozen=True, slots=True)
class IdempotencyConfig:
    """How long answers are kept for requests that come again with their ``Idempotency-Key``.

    :ivar ttl: seconds that an answer is kept
    :ivar max_answers: answers kept in this process at most, if there is no Redis; the oldest go first
    :ivar max_bytes: bytes of their bodies at most
    :ivar max_body: bytes of one body; the answer to a repeated request with a longer one is 409
    :ivar away: while Redis cannot be asked: ``closed`` answers 503, ``open`` serves the request as if it
        had no key, so that only the services know whether it is a repeated one
    :ivar timeout: seconds that Redis has to answer
    :raises ConfigurationError: if a value cannot work
    """

    ttl: float = 86_400.0
    max_answers: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    max_body: int = 256 * 1024
    away: str = "closed"
    timeout: float = 0.25

    def __post_init__(self) -> None:
        for name in ("ttl", "max_answers", "max_bytes", "max_body", "timeout"):
            _require_positive(f"IdempotencyConfig.{name}", getattr(self, name))
        _require(
            self.away in {"open", "closed"},
            f"IdempotencyConfig.away is {self.away!r}: use 'open' or 'closed'",
        )


@dataclass(frozen=True, slots=True)
class CorsConfig:
    """Which pages of other origins may call the gateway from a browser.

    :ivar allow_origins: origins of the pages, ``https://app.example``; ``"*"`` stands for every page
    :ivar allow_credentials: whether they may send cookies; tokens in ``Authorization`` need it not
    :ivar allow_headers: request headers that they may send
    :ivar expose_headers: answer headers that they may read
    :ivar max_age: seconds for which a browser may remember what it was allowed
    :raises ConfigurationError: if an origin has another form, or every page could use its
        visitor's cookies
    """

    allow_origins: tuple[str, ...]
    allow_credentials: bool = False
    allow_headers: tuple[str, ...] = (
        *("authorization", "content-type", "accept-language", "idempotency-key"),
        *("x-request-id", "x-request-timeout", "traceparent", "tracestate"),
    )
    expose_headers: tuple[str, ...] = (
        *("location", "ratelimit", "ratelimit-policy", "retry-after"),
        *("x-request-id", "idempotency-replayed", "www-authenticate"),
    )
    max_age: float = 7200.0

    def __post_init__(self) -> None:
        from bascule.rpc._web import check_origin

        for origin in self.allow_origins:
            check_origin(origin)
        _require(
            not ("*" in self.allow_origins and self.allow_credentials),
            "CorsConfig.allow_credentials with '*' would let any page act as its visitor: name the origins",
        )
        for name in (*self.allow_headers, *self.expose_headers):
            _require(
                name.isascii() and name.replace("-", "").replace("_", "").isalnum(),
                f"CorsConfig has the header {name!r}: use letters, digits, '-' and '_'",
            )
        _require(
            math.isfinite(self.max_age) and self.max_age >= 0,
            f"CorsConfig.max_age is {self.max_age!r}: use 0 or more seconds",
        )


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """How a gRPC service is reached.

    :ivar target: as for :class:`bascule.rpc.Channel`: ``memory:///user.UserService``, ``127.0.0.1:50051``, ...
    :ivar tls: for a service behind TLS
    :ivar breaker: a circuit breaker's settings, an endpoint each; None for none
    :ivar balancer: how its endpoints share the calls, as for a channel
    :ivar service_config: retries and hedging; a service config of the resolver goes before it
    :ivar wait_for_ready: whether requests wait, up to their timeout, while no endpoint can be reached
    """

    target: str
    tls: ClientTLS | None = None
    breaker: BreakerSettings | None = None
    balancer: str | LoadBalancing = "round_robin"
    service_config: ServiceConfig | None = None
    wait_for_ready: bool = False


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where a gateway listens, what it serves, and whom.

    :ivar upstreams: a target for each gRPC service whose annotated routes are served
    :ivar listen: address or addresses, such as ``"0.0.0.0:8443"``; port 0 for any free one
    :ivar tls: certificate and key; None for plain HTTP/1.1 and h2c, for development only
    :ivar auth: which tokens are believed; None if every route is public
    :ivar route: how routes are served that ``routes`` does not name; protected unless you say otherwise
    :ivar routes: exceptions by gRPC path, ``"/order.OrderService/CreateOrder"``, or by service,
        ``"/order.OrderService/*"``
    :ivar subject_limit: for each subject, and for each address that comes without a token; None for none
    :ivar address_limit: the coarse one, before anything is verified; None for none
    :ivar redis: URL of the Redis that gateways share for ``subject_limit`` and idempotency keys:
        ``redis://user:password@host:6379/0``, ``rediss://...``; None if each is on its own
    :ivar limit_away: what ``subject_limit`` does while Redis cannot be asked: ``local`` counts in each
        gateway by itself, ``open`` admits everything, ``closed`` answers 503
    :ivar limit_timeout: seconds that Redis has to answer
    :ivar idempotency: how POST and PATCH with an ``Idempotency-Key`` are answered once; None to only
        pass the key on
    :ivar cors: which pages of other origins may call; None for none
    :ivar forward_headers: request headers that travel on as gRPC metadata, lower case
    :ivar max_json_depth: objects and arrays that a JSON body may nest
    :ivar http: limits of the listener; None for its defaults
    :ivar health_path: answers 200 while the process lives; None for no such route
    :ivar ready_path: answers 200 while it can serve, else 503
    :ivar metrics_path: Prometheus text. Without authentication: serve it on an inner address, or not
    :ivar grace: seconds that requests in progress have to finish when the gateway stops
    :raises ConfigurationError: if a value cannot work
    """

    upstreams: Mapping[str, UpstreamConfig | str]
    listen: str | tuple[str, ...] = "127.0.0.1:8443"
    tls: ServerTLS | None = None
    auth: AuthConfig | None = None
    route: RouteConfig = RouteConfig()
    routes: Mapping[str, RouteConfig] = field(default_factory=dict)
    subject_limit: LimitConfig | None = LimitConfig()
    address_limit: LimitConfig | None = LimitConfig(requests=6000, per=60.0)
    redis: str | None = None
    limit_away: Away | str = Away.LOCAL
    limit_timeout: float = 0.05
    idempotency: IdempotencyConfig | None = IdempotencyConfig()
    cors: CorsConfig | None = None
    forward_headers: tuple[str, ...] = ("accept-language", "idempotency-key")
    max_json_depth: int = 64
    http: HttpLimits | None = None
    health_path: str | None = "/healthz"
    ready_path: str | None = "/readyz"
    metrics_path: str | None = "/metrics"
    grace: float = 30.0

    def __post_init__(self) -> None:
        for name in self.forward_headers:
            _check_forwarded(name)
        for name in ("health_path", "ready_path", "metrics_path"):
            path = getattr(self, name)
            _require(
                path is None or path.startswith("/"),
                f"GatewayConfig.{name} is {path!r}: it starts with a slash",
            )
        _require_positive("GatewayConfig.limit_timeout", self.limit_timeout)
        _require(
            self.limit_away in set(Away),
            f"GatewayConfig.limit_away is {self.limit_away!r}: use 'local', 'open' or 'closed'",
        )
        _require(self.grace >= 0, f"GatewayConfig.grace is {self.grace!r}: use 0 or more seconds")

    def upstream(self, service: str) -> UpstreamConfig:
        """Return how ``service`` is reached."""
        upstream = self.upstreams[service]
        return UpstreamConfig(upstream) if isinstance(upstream, str) else upstream

    def settings(self, rpc_path: str) -> RouteConfig:
        """Return how the route of a gRPC method is served: its own exception, its service's, or the default."""
        service = rpc_path.rpartition("/")[0]
        return self.routes.get(rpc_path) or self.routes.get(f"{service}/*") or self.route


def _check_forwarded(name: str) -> None:
    why = None
    if not name or name != name.lower() or name.strip("abcdefghijklmnopqrstuvwxyz0123456789-_"):
        why = "use lower-case letters, digits, '-' and '_'"
    elif name.startswith(("grpc-", "x-bascule-")):
        why = "this prefix is reserved"
    elif name.endswith("-bin"):
        why = "binary metadata cannot come from an HTTP header"
    elif name in _HOP_BY_HOP:
        why = "it describes one hop or its body"
    elif name in {"x-request-id", "traceparent", "tracestate"}:
        why = "the gateway sends its own"
    _require(why is None, f"GatewayConfig.forward_headers cannot have {name!r}: {why}")
