"""Types of the Rust core. stubtest holds this file to the compiled module."""

from collections.abc import Sequence
from typing import Any, Final, final

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

__all__ += ["Breaker", "CallPolicy", "Decision", "KeyedLimiter"]

@final
class Breaker:
    """A circuit breaker; times are nanoseconds of one clock that the caller keeps to.

    :raises ValueError: if a threshold or the permits are 0, or ``half_open_for_ns`` is
    """

    def __new__(
        cls,
        *,
        failure_threshold: int,
        success_threshold: int,
        open_for_ns: int,
        half_open_permits: int,
        half_open_for_ns: int,
    ) -> Breaker: ...
    def admit(self, now_ns: int) -> tuple[int, int]:
        """Return ``(permit, -1)``, or ``(-1, retry_after_ns)`` if refused; -1 is unknown."""

    def complete(self, permit: int, outcome: int, now_ns: int) -> None:
        """Report how an admitted call ended, once: 0 success, 1 failure, 2 abandoned.

        :raises ValueError: if the outcome is none of these
        """

    def force_open(self) -> None: ...
    def force_closed(self) -> None: ...
    def reset(self) -> None: ...
    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half_open``."""

    def snapshot(self) -> tuple[str, bool, int, int, int, int, int]:
        """Return ``(state, forced, failures, successes, probes, opened, rejected)``."""

@final
class CallPolicy:
    """Limit, breaker and pick for the calls of one channel, decided in one crossing.

    A breaker is ``(failure_threshold, success_threshold, open_for_ns, half_open_permits)``, a
    limit ``(limit, period_ns, burst, max_keys)``, held by GCRA for each key of ``admit``.
    Times are nanoseconds of one clock that the caller keeps to.

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
    ) -> CallPolicy: ...
    def update(self, endpoints: list[tuple[str, int]], now_ns: int) -> list[int]:
        """Replace the endpoints, ``(key, weight)`` each, and return the id of each.

        A key that stays keeps its id, breaker and calls. A new one is not ready. One that left is
        never picked again; should it come back, it gets a new id. The weights of a key that is
        listed twice add up. Weight 0 is never picked.
        """

    def set_ready(self, endpoint: int, ready: bool) -> None:
        """Tell whether an endpoint can take calls; an id that has left is ignored."""

    def admit(self, now_ns: int, key: str | None = None) -> tuple[int, int, int, int]:
        """Return ``(verdict, endpoint, permit, retry_after_ns)``.

        The verdict is 0 admitted, 1 rate-limited, 2 all breakers open, 3 no endpoint ready.
        ``retry_after_ns`` is -1 if unknown. Only an admitted call takes from the limit.
        """

    def complete(self, endpoint: int, permit: int, outcome: int, now_ns: int) -> None:
        """Report how an admitted call ended, once: 0 success, 1 failure, 2 abandoned.

        :raises ValueError: if the outcome is none of these
        """

    def snapshot(self) -> list[tuple[str, int, bool, int, str]]:
        """Return ``(key, weight, ready, in_flight, breaker_state)`` of each endpoint.

        The state is ``closed``, ``open`` or ``half_open``.
        """

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
    one that would have rested soon. The algorithm is ``gcra`` or ``token_bucket``.

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
    def displaced(self) -> int:
        """Keys that were displaced before they had rested."""

# --- transcode -----------------------------------------------------------

@final
class RouteTable:
    def __new__(cls) -> RouteTable: ...
    def add(self, method: str, template: str, owner: str) -> tuple[str, ...]: ...
    def match(self, method: str, target: str) -> tuple[int, tuple[str, ...], str]: ...

@final
class Transcoder:
    def __new__(
        cls,
        descriptor_set: bytes,
        services: list[str] | None,
        max_depth: int,
        print_defaults: bool,
    ) -> Transcoder: ...
    def bindings(
        self,
    ) -> list[
        tuple[str, str, str, str, str, tuple[str, ...], str, str, str, str, bool, bool]
    ]: ...
    def match(self, method: str, target: str) -> tuple[int, tuple[str, ...], str]: ...
    def request(
        self, binding: int, values: tuple[str, ...], query: str, body: bytes
    ) -> bytes: ...
    def begin(
        self, method: str, target: str, body: bytes
    ) -> tuple[int, str, bytes]: ...
    def response(self, binding: int, message: bytes) -> bytes: ...
    def from_json(self, message_type: str, document: bytes) -> bytes: ...
    def to_json(self, message_type: str, message: bytes) -> bytes: ...

# --- wire ----------------------------------------------------------------
