"""What a gateway's file may say. Each key carries its own documentation: the reference is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

__all__ = ["FileTable", "Key", "LimitTable", "RouteTable", "UpstreamTable"]

Algorithm = Literal["RS256", "ES256", "EdDSA", "HS256"]
AwayChoice = Literal["local", "open", "closed"]
LimitChoice = Literal["gcra", "token_bucket", "sliding_window"]


@dataclass(frozen=True, slots=True)
class Key:
    """What is to be known of a key.

    :param says: for the reference
    :param environment: whether its text may hold ``${NAME}`` or ``${NAME:-default}``
    :param path: whether it is a path, relative to the folder of the file
    """

    says: str
    environment: bool = False
    path: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NameTable:
    """The identity for clients that ask for another name."""

    certificate: Annotated[str, Key("PEM file", environment=True, path=True)]
    key: Annotated[str, Key("PEM file, not encrypted", environment=True, path=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsTable:
    """The listener's identity. Files are read again when they have changed."""

    certificate: Annotated[
        str | None,
        Key("PEM file with the certificate and its intermediates", environment=True, path=True),
    ] = None
    key: Annotated[
        str | None, Key("PEM file with the key, not encrypted", environment=True, path=True)
    ] = None
    client_ca: Annotated[
        str | None,
        Key("PEM file; clients must show a certificate of it", environment=True, path=True),
    ] = None
    names: Annotated[
        dict[str, NameTable], Key("other identities by the name that a client asks for (SNI)")
    ] = field(default_factory=dict)
    development: Annotated[
        str | None,
        Key(
            "folder of a self-signed certificate for localhost, made if there is none; instead of `certificate` and `key`",
            environment=True,
            path=True,
        ),
    ] = None
    reload: Annotated[float, Key("seconds between two looks whether the files have changed")] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsTable:
    """What operators ask. Without authentication: for an inner address."""

    listen: Annotated[
        str | None,
        Key("address of `/livez`, `/readyz` and `/metrics`", environment=True),
    ] = None
    health_path: Annotated[
        str | None, Key("path on the gateway's own listener that answers 200 while it lives")
    ] = None
    ready_path: Annotated[
        str | None, Key("path on the gateway's own listener that answers 200 while it serves")
    ] = None
    metrics_path: Annotated[
        str | None, Key("path on the gateway's own listener with Prometheus text")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountWindowTable:
    """Judges the last calls by rates."""

    calls: Annotated[int, Key("how many of the last calls count")] = 100
    minimum_calls: Annotated[int, Key("calls below which the rates say nothing yet")] = 20
    failure_rate: Annotated[float, Key("share of failures that opens it")] = 0.5
    slow_call: Annotated[float | None, Key("seconds after which a call is slow")] = None
    slow_call_rate: Annotated[float, Key("share of slow calls that opens it")] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWindowTable:
    """Judges the calls of the last time by rates."""

    seconds: Annotated[float, Key("how long a call counts")] = 60.0
    buckets: Annotated[int, Key("parts of that time; each is forgotten as a whole")] = 10
    minimum_calls: Annotated[int, Key("calls below which the rates say nothing yet")] = 20
    failure_rate: Annotated[float, Key("share of failures that opens it")] = 0.5
    slow_call: Annotated[float | None, Key("seconds after which a call is slow")] = None
    slow_call_rate: Annotated[float, Key("share of slow calls that opens it")] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerTable:
    """A circuit breaker for each endpoint: by failures in a row, or by one of the windows."""

    failure_threshold: Annotated[int, Key("failures in a row that open it")] = 5
    success_threshold: Annotated[int, Key("successes that close it")] = 3
    timeout: Annotated[float, Key("seconds until a probe is let through")] = 30.0
    half_open_permits: Annotated[
        int | None,
        Key(
            "probes in flight together, 1 if not given; with a window, probes in all, 3 if not given"
        ),
    ] = None
    half_open_timeout: Annotated[float, Key("seconds until a probe is taken for lost")] = 30.0
    count_window: Annotated[
        CountWindowTable | None, Key("judges by rates of the last calls instead")
    ] = None
    time_window: Annotated[
        TimeWindowTable | None, Key("judges by rates of the calls of the last time instead")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottlingTable:
    """Stops retries while too many attempts fail."""

    max_tokens: Annotated[float, Key("tokens at most; a failure takes one")] = 10.0
    token_ratio: Annotated[float, Key("what a success gives back")] = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTlsTable:
    """TLS towards a service. Files are read again when they have changed."""

    ca: Annotated[
        str | None, Key("PEM file; the system's if not given", environment=True, path=True)
    ] = None
    certificate: Annotated[
        str | None, Key("PEM file of the gateway's own certificate", environment=True, path=True)
    ] = None
    key: Annotated[str | None, Key("PEM file of its key", environment=True, path=True)] = None
    server_name: Annotated[
        str | None, Key("name that the service's certificate must carry", environment=True)
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTable:
    """How a gRPC service is reached. What a service does not say is as in `[upstream]`."""

    target: Annotated[
        str | None,
        Key(
            "`consul:///service`, `k8s:///service.namespace:port`, `dns:///host:port`, `static:///a:1,b:2`, `unix:/path`",
            environment=True,
        ),
    ] = None
    tls: Annotated[
        ClientTlsTable | bool, Key("`true`: with the authorities that the system trusts")
    ] = False
    breaker: Annotated[BreakerTable | bool, Key("`false`: none")] = True
    balancer: Annotated[str, Key("`round_robin`, `pick_first`, `least_request`, ...")] = (
        "round_robin"
    )
    wait_for_ready: Annotated[
        bool, Key("wait, up to the route's timeout, while no endpoint can be reached")
    ] = False
    retry_throttling: Annotated[
        ThrottlingTable, Key("stops the routes' retries while too many attempts fail")
    ] = field(default_factory=ThrottlingTable)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryTable:
    """Repeat calls that failed. For methods that do no harm when they run twice."""

    max_attempts: Annotated[int, Key("in all, 2 to 5")] = 3
    initial_backoff: Annotated[float, Key("seconds before the first repetition")] = 0.1
    max_backoff: Annotated[float, Key("seconds that the growing pause does not exceed")] = 1.0
    backoff_multiplier: Annotated[float, Key("growth of the pause")] = 2.0
    statuses: Annotated[list[str], Key("names of the statuses that are worth it")] = field(
        default_factory=lambda: ["UNAVAILABLE"]
    )
    per_attempt_timeout: Annotated[
        float | None, Key("seconds for each attempt; the route's timeout if not given")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeTable:
    """Send a call again before the first attempt has failed. For methods that may run several times."""

    max_attempts: Annotated[int, Key("in all, 2 to 5")] = 2
    delay: Annotated[float, Key("seconds from one attempt to the next")] = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """How routes are served. A method takes what it does not say from its service's `/*`, and that from `[route]`."""

    public: Annotated[bool, Key("whether it answers without a token")] = False
    scopes: Annotated[list[str], Key("what a token must permit, all of it")] = field(
        default_factory=list
    )
    timeout: Annotated[float, Key("seconds until the answer is 504")] = 15.0
    created: Annotated[
        str | bool,
        Key(
            "answer 201; a text is the `Location`, with fields of the answer in braces: `/api/v1/orders/{id}`"
        ),
    ] = False
    retry: Annotated[RetryTable | bool, Key("`true`: with the defaults")] = False
    hedge: Annotated[HedgeTable | bool, Key("`true`: with the defaults; not with `retry`")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthTable:
    """Which tokens are believed. Exactly one of the four sources of keys is given."""

    issuer: Annotated[str | None, Key("the `iss` that tokens must have", environment=True)] = None
    audience: Annotated[str | None, Key("the `aud` that tokens must have", environment=True)] = None
    algorithms: Annotated[
        list[Algorithm], Key("what is allowed; by default all that the source of keys can have")
    ] = field(default_factory=list)
    jwks_url: Annotated[
        str | None,
        Key("address of the issuer's keys, fetched again as they change", environment=True),
    ] = None
    jwks_ca: Annotated[
        str | None,
        Key("PEM file with the authorities to trust at that address", environment=True, path=True),
    ] = None
    jwks_file: Annotated[
        str | None, Key("file with a JSON Web Key Set", environment=True, path=True)
    ] = None
    secret_file: Annotated[
        str | None,
        Key("file with the secret of HS256, 32 bytes or more", environment=True, path=True),
    ] = None
    development: Annotated[
        str | None,
        Key(
            "folder of a signing key for development, made if there is none; `--token` signs with it",
            environment=True,
            path=True,
        ),
    ] = None
    leeway: Annotated[float, Key("seconds by which the issuer's clock may differ")] = 30.0
    cache_seconds: Annotated[float, Key("seconds for which a token is not verified again")] = 60.0
    cache_size: Annotated[int, Key("verified tokens that are remembered")] = 10_000
    realm: Annotated[str, Key("named in `WWW-Authenticate`")] = "bascule"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitTable:
    """How many requests one key may make."""

    requests: Annotated[int, Key("so many requests ...")]
    per: Annotated[float, Key("... in so many seconds")] = 60.0
    burst: Annotated[int | None, Key("so many at once; `requests` if not given")] = None
    algorithm: Annotated[
        LimitChoice, Key("how they are counted; `sliding_window` has no `burst`")
    ] = "gcra"
    max_keys: Annotated[int, Key("keys remembered at the same time")] = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsTable:
    """How often clients may ask."""

    address: Annotated[
        LimitTable | bool, Key("before anything is verified: 6000 in 60 s; `false`: none")
    ] = True
    subject: Annotated[
        LimitTable | bool,
        Key("for each subject, or address without a token: 1000 in 60 s; `false`: none"),
    ] = True
    away: Annotated[
        AwayChoice,
        Key(
            "while Redis cannot be asked: each gateway counts by itself, admits all, or answers 503"
        ),
    ] = "local"
    timeout: Annotated[float, Key("seconds that Redis has to answer")] = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisTable:
    """What several gateways share: the limit by subject, and idempotency keys."""

    url: Annotated[str | None, Key("`redis://host:6379/0` or `rediss://...`", environment=True)] = (
        None
    )
    url_file: Annotated[
        str | None, Key("file with the URL, if it has a password", environment=True, path=True)
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyTable:
    """Repeated requests with an `Idempotency-Key`."""

    ttl: Annotated[float, Key("seconds that an answer is kept")] = 86_400.0
    max_answers: Annotated[int, Key("answers kept without Redis")] = 10_000
    max_bytes: Annotated[int, Key("bytes of their bodies")] = 64 * 1024 * 1024
    max_body: Annotated[int, Key("bytes of one body")] = 256 * 1024
    away: Annotated[
        Literal["open", "closed"],
        Key("while Redis cannot be asked: serve as if without a key, or answer 503"),
    ] = "closed"
    timeout: Annotated[float, Key("seconds that Redis has to answer")] = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsTable:
    """Pages of other origins that may call from a browser."""

    allow_origins: Annotated[
        list[str], Key("origins of the pages: `https://app.example`; `*` is every page")
    ]
    allow_credentials: Annotated[bool, Key("whether they may send cookies")] = False
    allow_headers: Annotated[
        list[str], Key("request headers that they may send, beside the usual ones")
    ] = field(default_factory=list)
    expose_headers: Annotated[
        list[str], Key("answer headers that they may read, beside the usual ones")
    ] = field(default_factory=list)
    max_age: Annotated[float, Key("seconds for which a browser may remember it")] = 7200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTable:
    """Bounds of each connection and request."""

    max_body: Annotated[int, Key("bytes of a request's body")] = 1024 * 1024
    max_header_bytes: Annotated[int, Key("bytes of a request's head")] = 32 * 1024
    max_headers: Annotated[int, Key("header fields in a request")] = 100
    max_json_depth: Annotated[int, Key("objects and arrays that a JSON body may nest")] = 64
    max_streams: Annotated[int, Key("requests at once on a connection")] = 100
    max_connections: Annotated[int, Key("connections at once")] = 10_000
    header_timeout: Annotated[float, Key("seconds from a head's first byte to its last")] = 10.0
    body_timeout: Annotated[float, Key("seconds from there to the end of the body")] = 15.0
    idle_timeout: Annotated[float, Key("seconds without a request")] = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTable:
    """What is written, and where."""

    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        Key("the least severe lines to show"),
    ] = "info"
    format: Annotated[Literal["json", "console"], Key("how they look")] = "json"
    access: Annotated[
        Literal["stderr", "stdout", "off"], Key("where a JSON line for each request goes")
    ] = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTable:
    """The whole file."""

    listen: Annotated[
        str | list[str], Key("address or addresses; port 0 is any free one", environment=True)
    ] = "127.0.0.1:8443"
    descriptors: Annotated[
        list[str],
        Key(
            "what declares the routes: files with a `FileDescriptorSet`, or `python:MODULE` of a generated "
            "module, or `python:MODULE:NAME` of bytes or of a function that returns them",
            environment=True,
        ),
    ]
    forward_headers: Annotated[
        list[str], Key("request headers that travel on as gRPC metadata, lower case")
    ] = field(default_factory=lambda: ["accept-language", "idempotency-key"])
    propagation: Annotated[
        float, Key("seconds from not ready to the drain: until load balancers know")
    ] = 3.0
    grace: Annotated[float, Key("seconds that requests in progress have to finish")] = 30.0
    tls: Annotated[TlsTable | None, Key("none: plain HTTP/1.1 and h2c")] = None
    operations: Annotated[OperationsTable, Key("health, readiness, metrics")] = field(
        default_factory=OperationsTable
    )
    upstream: Annotated[UpstreamTable, Key("what holds for every service")] = field(
        default_factory=UpstreamTable
    )
    upstreams: Annotated[
        dict[str, str | UpstreamTable],
        Key(
            "the services whose routes are served, by full name; a text is the target",
            environment=True,
        ),
    ]
    route: Annotated[RouteTable, Key("what holds for every route")] = field(
        default_factory=RouteTable
    )
    routes: Annotated[
        dict[str, RouteTable],
        Key("exceptions by gRPC path: `/order.OrderService/CreateOrder`, `/order.OrderService/*`"),
    ] = field(default_factory=dict)
    auth: Annotated[AuthTable | None, Key("none if every route is public")] = None
    limits: Annotated[LimitsTable, Key("rate limits")] = field(default_factory=LimitsTable)
    redis: Annotated[RedisTable, Key("what gateways share")] = field(default_factory=RedisTable)
    idempotency: Annotated[IdempotencyTable | bool, Key("`false`: keys are only passed on")] = True
    cors: Annotated[CorsTable | None, Key("none: pages of other origins may not call")] = None
    http: Annotated[HttpTable, Key("bounds")] = field(default_factory=HttpTable)
    log: Annotated[LogTable, Key("logs")] = field(default_factory=LogTable)
