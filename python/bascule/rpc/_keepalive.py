"""How long connections live, and how they are found dead."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bascule.errors import ConfigurationError

__all__ = ["ConnectionSettings", "KeepaliveSettings"]


@dataclass(frozen=True, slots=True)
class KeepaliveSettings:
    """Pings that find out whether the peer of a quiet connection is still there.

    A server that is pinged more often than it allows ends the connection; a channel then waits
    twice as long between its pings to that endpoint. Servers allow one ping in 5 minutes unless
    they say otherwise.

    Source: gRFC A8 (client) and A9 (server).

    :param time: the peer is pinged after so many seconds without anything from it
    :param timeout: seconds after a ping in which something has to come, or the connection is closed
    :param without_calls: whether a connection without calls is pinged too
    :raises ConfigurationError: if a time is not positive
    """

    time: float
    timeout: float = 20.0
    without_calls: bool = False

    def __post_init__(self) -> None:
        require_positive("keepalive time", self.time)
        require_positive("keepalive timeout", self.timeout)

    def to_core(self) -> tuple[int, int, bool]:
        """As the core takes it."""
        return nanoseconds(self.time), nanoseconds(self.timeout), self.without_calls

    def slower(self) -> KeepaliveSettings:
        """With twice the time."""
        return replace(self, time=2 * self.time)


#: What every connection says that it is (gRPC over HTTP/2, "User-Agents").
USER_AGENT = "grpc-python-bascule/0.1.0"


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What the connections of one channel have in common."""

    max_message: int
    compression: str | None = None
    keepalive: KeepaliveSettings | None = None
    user_agent: str = USER_AGENT


def user_agent_of(program: str | None) -> str:
    """What connections say that they are: the program, and bascule.

    :raises ConfigurationError: if no header can carry it
    """
    if program is None:
        return USER_AGENT
    if not (program.isascii() and program.isprintable() and program.strip()):
        message = f"user agent {program!r}: expected printable ASCII, such as 'shop/1.2'"
        raise ConfigurationError(message)
    return f"{program.strip()} {USER_AGENT}"


def require_positive(what: str, seconds: float) -> None:
    """:raises ConfigurationError: if it is no positive number of seconds"""
    if not seconds > 0:
        message = f"{what} {seconds!r}: expected a positive number of seconds"
        raise ConfigurationError(message)


def nanoseconds(seconds: float) -> int:
    """A duration as the core takes it; for ever is a century."""
    return int(min(seconds, _CENTURY) * 1e9)


_CENTURY = 3.2e9
