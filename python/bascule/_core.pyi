"""Types of the Rust core. stubtest holds this file to the compiled module."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias, final

__all__: list[str] = []

# --- codec ---------------------------------------------------------------

__all__ += ["MessageCodec"]

@final
class MessageCodec:
    """Encoder and decoder of one betterproto2 message class."""

    def __new__(cls, name: str, plans: Sequence[tuple[type, str, Sequence[Any]]]) -> MessageCodec:
        """
        :param name: the class's name, for error messages
        :param plans: the class, then every class that its fields lead to
        :raises ValueError: if a plan contradicts itself
        """

    def encode(self, message: Any, /) -> bytes:
        """The bytes of a message, identical to ``bytes(message)``.

        :raises EncodeError: if the message is of another class, or a field holds what its type cannot carry
        """

    def decode(self, data: bytes, /) -> Any:
        """The message that the bytes hold.

        :raises DecodeError: if the bytes are no valid encoding of the message
        """

# --- policy --------------------------------------------------------------

__all__ += [
    "Breaker",
    "CallPolicy",
    "ConcurrencyLimiter",
    "ConcurrencyRule",
    "Decision",
    "KeyedLimiter",
    "ServerAdmission",
    "subset",
    "xxh64",
]

def subset(keys: list[str], client: int, size: int) -> list[int]:
    """The places of the keys that client number ``client`` should connect to, ascending.

    By gRFC A68's deterministic subsetting; all of them if they are no more than ``size``.
    """

def xxh64(data: bytes, seed: int = 0) -> int:
    """The XXH64 hash of some bytes, which hashing balancers use."""

#: What a breaker has done: how often it became open, half-open and closed; how many permitted calls
#: succeeded, failed and were abandoned; how many of them were slow; how many calls were refused; and
#: the calls, failures and slow calls by which one with a window is judged now.
_BreakerRow: TypeAlias = tuple[list[int], list[int], int, int, tuple[int, int, int] | None]

@final
class Breaker:
    """A circuit breaker; times are nanoseconds of one clock that the caller keeps to.

    :param window: if not None, it counts instead of the thresholds: ``(size, width_ns,
        minimum_calls, failure_rate, slow_call_ns, slow_call_rate)``, where a width of 0 makes a
        window of so many calls, any other one of so many buckets of time
    :raises ValueError: if a setting cannot work
    """

    def __new__(
        cls,
        *,
        failure_threshold: int,
        success_threshold: int,
        open_for_ns: int,
        half_open_permits: int,
        half_open_for_ns: int,
        window: tuple[int, int, int, float, int | None, float] | None = None,
    ) -> Breaker: ...
    def admit(self, now_ns: int) -> tuple[int, int]:
        """Return ``(permit, -1)``, or ``(-1, retry_after_ns)`` if refused; -1 is unknown."""

    def admit_if_closed(self) -> int:
        """Return the permit of a closed breaker, which needs no time; -1 in any other state."""

    def complete(self, permit: int, outcome: int, now_ns: int, began_ns: int | None = None) -> None:
        """Report how an admitted call ended, once: 0 success, 1 failure, 2 abandoned.

        :param began_ns: when it began, by which a window tells whether it was slow
        :raises ValueError: if the outcome is none of these
        """

    def succeed(self, permit: int) -> None:
        """Report that an admitted call succeeded, which needs no time if there is no window."""

    def force_open(self) -> None: ...
    def force_closed(self) -> None: ...
    def reset(self) -> None: ...
    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half_open``."""

    def counts(self, now_ns: int) -> _BreakerRow:
        """Return what it has done."""

    def snapshot(self) -> tuple[str, bool, int, int, int, int, int]:
        """Return ``(state, forced, failures, successes, probes, opened, rejected)``."""

@final
class ConcurrencyRule:
    """How a limit of concurrency moves.

    :raises ValueError: from each of its makers, if a setting cannot work
    """

    @staticmethod
    def fixed(limit: int) -> ConcurrencyRule: ...
    @staticmethod
    def aimd(
        *, initial: int, least: int, most: int, backoff: float, slow_ns: int | None = None
    ) -> ConcurrencyRule: ...
    @staticmethod
    def gradient2(
        *,
        initial: int,
        least: int,
        most: int,
        window_ns: int,
        samples: int,
        long_window_ns: int,
        tolerance: float,
        smoothing: float,
        queue: int | None,
        quick_ns: int,
        probe_interval_ns: int | None,
    ) -> ConcurrencyRule: ...

#: The limit, calls in progress, calls done, lost and untold, calls refused.
_ConcurrencyRow: TypeAlias = tuple[int, int, list[int], int]

@final
class ConcurrencyLimiter:
    """A limit of concurrency; times are nanoseconds of one clock that the caller keeps to."""

    def __new__(cls, rule: ConcurrencyRule, seed: int) -> ConcurrencyLimiter: ...
    def admit(self, now_ns: int) -> int:
        """Return the permit, which is when the call began; -1 if there is no room."""

    def complete(self, permit: int, ending: int, now_ns: int) -> None:
        """Give a permit back, once: 0 done, 1 lost to overload, 2 it says nothing of load.

        :raises ValueError: if the ending is none of these
        """

    def snapshot(self) -> _ConcurrencyRow: ...

@final
class ServerAdmission:
    """What a server takes on.

    :param rule: how many calls there may be at once; None for any number
    :param methods: how many there are
    :param sheds_late: whether a call whose caller waits for less time than the shortest one of its
        method lately took is refused
    """

    def __new__(
        cls, rule: ConcurrencyRule | None, seed: int, methods: int, sheds_late: bool
    ) -> ServerAdmission: ...
    def admit(self, method: int, timeout_ns: int | None, now_ns: int) -> tuple[int, int]:
        """Return ``(permit, 0)``, ``(-1, 0)`` if there is no room, or ``(-2, shortest_ns)`` if the
        caller waits for less than that.
        """

    def complete(self, method: int, permit: int, ending: int, now_ns: int) -> None:
        """Give a permit back, as :meth:`ConcurrencyLimiter.complete` does."""

    def snapshot(self) -> tuple[_ConcurrencyRow | None, int]:
        """Return what the limit does, if there is one, and the calls refused as too late."""

@final
class CallPolicy:
    """Limit, breaker and pick for the calls of one channel, decided in one crossing.

    A breaker is ``(failure_threshold, success_threshold, open_for_ns, half_open_permits)``, a
    limit ``(limit, period_ns, burst, max_keys)``, held by GCRA for each key of ``admit``.
    Times are nanoseconds of one clock that the caller keeps to.

    :param balancer: ``round_robin``, ``weighted_round_robin``, ``random``, ``least_request``,
        ``peak_ewma``, ``ring_hash`` or ``maglev``
    :param seed: of every random choice; give each channel another
    :param ring_size: least and most points of ``ring_hash``
    :param table_size: entries of ``maglev``, a prime
    :param latency_decay_ns: by how much what is known of latencies loses its weight; if None, only
        ``peak_ewma`` learns them, with 10 s
    :param slow_start: ``(window_ns, aggression, least_share)``
    :param outlier: ``(interval_ns, base_ejection_ns, max_ejection_ns, max_ejection_percent,
        success_rate, failure_percentage)``; the last two are None or ``(stdev_factor or threshold,
        enforcement_percentage, minimum_hosts, request_volume)``
    :param load_reports: ``(blackout_ns, expiration_ns, update_ns, error_utilization_penalty)`` of
        gRFC A58, for ``weighted_round_robin`` only; its defaults if None
    :param breaker_window: as :class:`Breaker` takes it
    :param concurrency: how many calls an endpoint may have at once, each endpoint by itself
    :raises ValueError: if the balancer is unknown or a setting cannot work
    """

    def __new__(
        cls,
        *,
        balancer: str,
        seed: int,
        breaker: tuple[int, int, int, int] | None,
        limit: tuple[int, int, int, int] | None = None,
        half_open_for_ns: int = ...,
        ring_size: tuple[int, int] = ...,
        table_size: int = ...,
        latency_decay_ns: int | None = None,
        slow_start: tuple[int, float, float] | None = None,
        outlier: tuple[int, int, int, int, _OutlierRule | None, _OutlierRule | None] | None = None,
        load_reports: tuple[int, int, int, float] | None = None,
        breaker_window: tuple[int, int, int, float, int | None, float] | None = None,
        concurrency: ConcurrencyRule | None = None,
    ) -> CallPolicy: ...
    def update(self, endpoints: list[tuple[str, int]], now_ns: int) -> list[int]:
        """Replace the endpoints, ``(key, weight)`` each, and return the id of each.

        A key that stays keeps its id, breaker and calls. A new one is not ready. One that left is
        never picked again; should it come back, it gets a new id. The weights of a key that is
        listed twice add up. Weight 0 is never picked.
        """

    def set_ready(self, endpoint: int, ready: bool) -> None:
        """Tell whether an endpoint can take calls; an id that has left is ignored."""

    def admit(
        self,
        now_ns: int,
        hash: int | None = None,  # noqa: A002
        key: str | None = None,
        avoid: Sequence[int] | None = None,
    ) -> tuple[int, int, int, int]:
        """Return ``(verdict, endpoint, permit, retry_after_ns)``.

        ``ring_hash`` and ``maglev`` send calls with the same ``hash``, 64 bits, to the same
        endpoint; ``key`` says whose limit the call counts against. Endpoints to ``avoid`` are
        passed over if there are others.

        The verdict is 0 admitted, 1 rate-limited, 2 all breakers open, 3 no endpoint ready, 4 all
        endpoints have as many calls as they may. ``retry_after_ns`` is -1 if unknown. Only an
        admitted call takes from the limit.
        """

    def admit_stream(
        self,
        now_ns: int,
        hash: int | None = None,  # noqa: A002
        key: str | None = None,
        avoid: Sequence[int] | None = None,
    ) -> tuple[int, int, int, int]:
        """The same for a stream, which is not held to the limit of concurrency."""

    def complete(self, endpoint: int, permit: int, outcome: int, now_ns: int) -> None:
        """Report how an admitted call ended, once: 0 success, 1 failure, 2 abandoned, 3 a failure
        that shows overload.

        :raises ValueError: if the outcome is none of these
        """

    def complete_stream(self, endpoint: int, permit: int, outcome: int, now_ns: int) -> None:
        """The same of a stream: it may last as long as it likes without being slow to a breaker.

        :raises ValueError: if the outcome is none of these
        """

    def report(self, endpoint: int, report: bytes, now_ns: int) -> bool:
        """Take what a server reports of its load: an ``xds.data.orca.v3.OrcaLoadReport``, encoded.

        Ignored by balancers other than ``weighted_round_robin``. False if the bytes are no report.
        """

    def breakers(self, now_ns: int) -> list[_BreakerRow | None]:
        """Return what :meth:`Breaker.counts` does for each endpoint's breaker; None if it has
        none. In the order of :meth:`snapshot`.
        """

    def concurrency(self) -> list[_ConcurrencyRow | None]:
        """Return what the limit of each endpoint does; None if it has none. In the order of
        :meth:`snapshot`.
        """

    def snapshot(self) -> list[_EndpointRow]:
        """Return ``(key, weight, ready, in_flight, breaker_state, picks, successes, failures,
        latency_ns, ejected_until_ns)`` of each endpoint.

        The state is ``closed``, ``open`` or ``half_open``; the latency is None if none is learned.
        """

_OutlierRule: TypeAlias = tuple[int, int, int, int]
_EndpointRow: TypeAlias = tuple[str, int, bool, int, str, int, int, int, float | None, int | None]

@final
class Decision:
    """A limiter's answer to one check; true if allowed."""

    @property
    def allowed(self) -> bool:
        """Whether it may happen; if not, nothing was taken."""

    @property
    def limit(self) -> int:
        """What a key that rested may take at once: the burst."""

    @property
    def remaining(self) -> int:
        """What the key may still take at once now."""

    @property
    def reset_after(self) -> float:
        """Seconds until all of ``limit`` is there again."""

    @property
    def reset_after_ns(self) -> int: ...
    @property
    def retry_after(self) -> float | None:
        """Seconds until the same check would be allowed: 0 if it was, None if never."""

    @property
    def retry_after_ns(self) -> int | None: ...
    def __bool__(self) -> bool: ...

@final
class KeyedLimiter:
    """``limit`` units in each period, ``burst`` of them at once, for each key apart.

    Keys that have rested are forgotten. When ``max_keys`` others are known, a new key displaces
    one that has used little. The algorithm is ``gcra``, ``token_bucket`` or ``sliding_window``;
    the last has no other burst than its limit.

    :raises ValueError: if the algorithm is unknown or a setting cannot work
    """

    def __new__(
        cls, *, algorithm: str, limit: int, period_ns: int, burst: int, max_keys: int
    ) -> KeyedLimiter: ...
    def check(self, key: str, cost: int, now_ns: int) -> Decision:
        """Take ``cost`` units if they are there; 0 only looks."""

    def __len__(self) -> int:
        """Return the number of keys remembered."""

    @property
    def admitted(self) -> int:
        """Checks that were allowed, of a cost above 0."""

    @property
    def rejected(self) -> int:
        """Checks that were refused."""

    @property
    def displaced(self) -> int:
        """Keys that were displaced before they had rested."""

# --- transcode -----------------------------------------------------------

__all__ += ["RouteTable", "Transcoder"]

@final
class RouteTable:
    """Paths and methods of routes. ``bascule.gateway._router`` documents the rules."""

    def __new__(cls) -> RouteTable: ...
    def add(self, method: str, template: str, owner: str) -> tuple[str, ...]:
        """Add a route; its index is the number of those before it.

        :returns: names of the template's variables
        :raises ConfigurationError: if the template is invalid or takes another route's requests
        """

    def match(self, method: str, target: str) -> tuple[int, tuple[str, ...], str]:
        """:returns: index of the route, values of its variables, the query as it was sent

        :raises TranscodeError: with kind ``bad_target`` if the target is malformed
        :raises RouteNotFoundError: if no route has this path
        :raises MethodNotAllowedError: if its routes take other methods only
        """

@final
class Transcoder:
    """Routes and types of a descriptor set. ``bascule.gateway._transcode`` documents each method."""

    def __new__(
        cls,
        descriptor_set: bytes,
        services: list[str] | None,
        max_depth: int,
        print_defaults: bool,
        ignore_unknown: bool = False,
    ) -> Transcoder: ...
    def bindings(
        self,
    ) -> list[tuple[str, str, str, str, str, tuple[str, ...], str, str, str, str, bool, bool]]:
        """The fields of ``Binding`` after its index, for each declared route."""

    def match(self, method: str, target: str) -> tuple[int, tuple[str, ...], str]: ...
    def request(self, binding: int, values: tuple[str, ...], query: str, body: bytes) -> bytes: ...
    def begin(self, method: str, target: str, body: bytes) -> tuple[int, str, bytes]: ...
    def response(self, binding: int, message: bytes) -> bytes: ...
    def from_json(self, message_type: str, document: bytes) -> bytes: ...
    def to_json(self, message_type: str, message: bytes) -> bytes: ...

# --- wire ----------------------------------------------------------------

__all__ += [
    "CALL_BUCKETS",
    "ENCODINGS",
    "CallTable",
    "ClientConnection",
    "Headers",
    "ServerConfig",
    "ServerConnection",
    "WebConfig",
]

#: Upper bounds of the latency buckets in seconds; one more bucket takes the rest.
CALL_BUCKETS: Final[tuple[float, ...]]

#: Names of the compressions.
ENCODINGS: Final[tuple[str, ...]]

@final
class CallTable:
    """The methods of one server or channel, with the counters of their calls."""

    def __new__(cls) -> CallTable: ...
    def register(self, path: str, unary_request: bool) -> int:
        """Return the index of ``/package.Service/Method``, the same one for the same path.

        :raises ValueError: if the path has another form
        """

    def align(self, epoch_ns: int) -> None:
        """Tell how many nanoseconds the clock of the wall is ahead of that of the calls."""

    def in_progress(self) -> list[tuple[str, str, int]]:
        """Return service, method and the number of its calls in progress, for each method."""

    def exemplars(self) -> list[tuple[str, str, int, str, float, float]]:
        """Return service, method, bucket, trace id, seconds and seconds since the epoch of the last
        sampled call of each bucket that had one.
        """

    def snapshot(self) -> list[tuple[str, str, list[tuple[str, int]], list[int], float]]:
        """Return service, method, calls by status, calls by bucket (not cumulative) and seconds
        for each method that was called.
        """

@final
class Headers:
    """Metadata as it came, turned into Python values only when asked for."""

    def items(self) -> list[tuple[str, str | bytes]]:
        """Return the application's metadata in order."""

    def get(self, name: str) -> str | None:
        """Return the first value of any header, the protocol's included."""

    def __len__(self) -> int: ...

@final
class ServerConfig:
    """What the connections of one listener share. Without ``http_max_body`` only gRPC is served,
    without ``calls`` only plain HTTP.
    """

    def __new__(
        cls,
        *,
        calls: CallTable | None = None,
        max_streams: int = 100,
        max_message: int = 4_194_304,
        max_header_bytes: int = 16_384,
        http_max_body: int | None = None,
        http_max_headers: int = 100,
        http_header_timeout_ns: int = ...,
        http_body_timeout_ns: int = ...,
        handshake_timeout_ns: int = ...,
        idle_timeout_ns: int = ...,
        web: WebConfig | None = None,
        compression: str | None = None,
        max_calls: int | None = None,
        blocked_timeout_ns: int = ...,
        stream_idle_timeout_ns: int = ...,
        keepalive: tuple[int, int, bool] | None = None,
        min_ping_interval_ns: int | None = None,
        pings_without_calls: bool = False,
        max_age_ns: int | None = None,
        max_age_grace_ns: int = ...,
        max_incomplete: int = 16_777_216,
        max_incomplete_of_all: int = ...,
    ) -> ServerConfig:
        """
        :param keepalive: time and timeout in nanoseconds, and whether to ping without calls
        :raises ValueError: if the compression is unknown
        """
    def refusals(self) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """Return requests that no handler saw by reason, and connections that were cut off by what
        there was too much of.
        """

    @property
    def incomplete(self) -> int:
        """Bytes that are held of requests that are not whole, by all connections."""

@final
class WebConfig:
    """How browsers are served: gRPC-Web and Connect beside gRPC, over HTTP/2 and HTTP/1.1."""

    def __new__(
        cls,
        *,
        origins: Sequence[str] | None,
        credentials: bool,
        max_age_ns: int,
        unary: Sequence[int],
        safe: Sequence[int],
    ) -> WebConfig:
        """
        :param origins: pages of these may call besides the server's own; None is every page
        :param unary: methods with one request and one reply
        :param safe: those among them that may be called by GET
        """

@final
class ServerConnection:
    """A sans-IO server connection. What takes input answers with the events it led to:

    - ``(0, stream, method, headers, timeout_ns, message)``: a call began; with a message it is whole
    - ``(1, stream, message)``: a message of a streaming request; report it with ``consume``
    - ``(2, stream)``: a streaming request has ended
    - ``(3, stream)``: there is room again after a ``send_message`` that answered false
    - ``(4, stream)``: the peer gave up: cancel the handler, then call ``handler_ended``
    - ``(5, stream, method, target, headers, body, problem, version)``: a plain request
    - ``(6, error)``: the connection ended; all its streams were reported before
    - ``(8, ...)``: as 0, but the messages of the call are JSON in both directions

    With ``http_max_body`` or ``web``, the first bytes tell HTTP/1.1 from HTTP/2, unless TLS has agreed on one
    of them in ``alpn``.

    Each call is answered by exactly one of ``respond``, ``finish``, ``respond_http``, ``reset`` and,
    after event 4, ``handler_ended``. Times are nanoseconds of one clock that the caller keeps to.
    """

    def __new__(
        cls, config: ServerConfig, now_ns: int, alpn: str | None = None
    ) -> ServerConnection: ...
    def receive(self, data: bytes, now_ns: int) -> list[tuple[Any, ...]]: ...
    def receive_eof(self, now_ns: int) -> list[tuple[Any, ...]]: ...
    def tick(self, now_ns: int) -> list[tuple[Any, ...]]:
        """Look at the timeouts; to be called about once a second."""

    def flush(self) -> tuple[bytes | None, list[tuple[Any, ...]]]:
        """Return bytes to send, and the events that making them led to."""

    def respond(
        self,
        stream: int,
        message: bytes,
        initial: Iterable[tuple[str, str | bytes]] | None,
        trailing: Iterable[tuple[str, str | bytes]] | None,
        now_ns: int,
    ) -> None:
        """Answer a call with one message and OK.

        :raises ValueError: if metadata cannot be sent; the call is still to be answered
        :raises TypeError: if a metadata value is neither str nor bytes; likewise
        """

    def set_compression(self, stream: int, name: str | None, accepted: str | None) -> bool:
        """Compress the next messages of a reply, if ``accepted``, the client's
        ``grpc-accept-encoding``, allows it. False if the headers are out and announced another one.

        :raises ValueError: if the name is unknown
        """

    def send_headers(
        self, stream: int, initial: Iterable[tuple[str, str | bytes]] | None
    ) -> None: ...
    def send_message(self, stream: int, message: bytes) -> bool:
        """Send a message of a streaming reply; false: wait for event 3 before the next."""

    def finish(
        self,
        stream: int,
        status: int,
        message: str | None,
        initial: Iterable[tuple[str, str | bytes]] | None,
        trailing: Iterable[tuple[str, str | bytes]] | None,
        now_ns: int,
    ) -> None:
        """End a call with a status; raises as ``respond`` does."""

    def respond_http(
        self, stream: int, status: int, headers: Iterable[tuple[str, str]], body: bytes, now_ns: int
    ) -> None:
        """Answer a plain request.

        :raises ValueError: if the status or a header is none; the request is still to be answered
        """

    def reset(self, stream: int, code: int, now_ns: int) -> None:
        """End a stream with RST_STREAM, or an HTTP/1.1 connection."""

    def consume(self, stream: int, size: int) -> None:
        """Give back the credit of messages that the application has taken."""

    def handler_ended(self, stream: int) -> None: ...
    def shutdown(self) -> None:
        """Send GOAWAY and close when the streams in progress have ended."""

    @property
    def wants_read(self) -> bool: ...
    @property
    def wants_write(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    @property
    def in_flight(self) -> int: ...

@final
class ClientConnection:
    """A sans-IO client connection. What takes input answers with the events it led to:

    - ``(0, call, status, reply, message, headers, trailers, unprocessed)``: a call with one reply ended
    - ``(1, call, message)``: a message of a streaming reply; report it with ``consume``
    - ``(2, call, headers)``: the headers of a streaming reply
    - ``(3, call)``: there is room again after a ``send_message`` that answered false
    - ``(4, call, status, message, trailers, unprocessed)``: a streaming call ended
    - ``(5,)``: the connection takes no new calls
    - ``(6, error)``: the connection ended; all its calls were reported before

    :raises ValueError: if the authority is no host and port, or the compression is unknown
    """

    def __new__(
        cls,
        calls: CallTable,
        authority: str,
        now_ns: int,
        *,
        tls: bool = False,
        user_agent: str,
        max_message: int = 4_194_304,
        compression: str | None = None,
        keepalive: tuple[int, int, bool] | None = None,
    ) -> ClientConnection: ...
    def receive(self, data: bytes, now_ns: int) -> list[tuple[Any, ...]]: ...
    def receive_eof(self, now_ns: int) -> list[tuple[Any, ...]]: ...
    def tick(self, now_ns: int) -> list[tuple[Any, ...]]:
        """End the calls whose deadline has come; ping a quiet server, or give it up."""

    def next_timeout(self) -> int | None:
        """Return when ``tick`` is due."""

    def flush(self) -> tuple[bytes | None, list[tuple[Any, ...]]]:
        """Return bytes to send, and the events that making them led to."""

    def start(
        self,
        method: int,
        request: bytes | None,
        metadata: Iterable[tuple[str, str | bytes]] | None,
        deadline_ns: int | None,
        unary_reply: bool,
        now_ns: int,
    ) -> int | None:
        """Start a call and return its id, or None if the connection takes no new calls.

        ``grpc-encoding`` in the metadata compresses its messages instead of the connection's own.

        :raises ValueError: if metadata cannot be sent, or the compression is unknown
        :raises TypeError: if a metadata value is neither str nor bytes
        """

    def send_message(self, call: int, message: bytes) -> bool:
        """Send a message of a streaming request; false: wait for event 3 before the next."""

    def end(self, call: int) -> None:
        """End a streaming request."""

    def cancel(self, call: int, now_ns: int) -> None:
        """Reset a call; nothing is reported for it any more."""

    def consume(self, call: int, size: int) -> None:
        """Give back the credit of messages that the application has taken."""

    def shutdown(self) -> None:
        """Take no new calls; the connection closes when those in progress have ended."""

    @property
    def wants_read(self) -> bool: ...
    @property
    def wants_write(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    @property
    def pings_refused(self) -> bool:
        """Whether the server has ended the connection because it was pinged too often."""

    @property
    def in_flight(self) -> int: ...
