"""Sessions: what locks are held by, and what ends when their owner does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import quote

import msgspec

from bascule.discovery.consul._agent import duration
from bascule.discovery.consul._wire import SessionInfo
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule.discovery.consul._client import ConsulClient

__all__ = ["Sessions"]


class _Created(msgspec.Struct):
    id: str = msgspec.field(name="ID")


_Found = cast("type[tuple[SessionInfo, ...] | None]", tuple[SessionInfo, ...] | None)


class Sessions:
    """Get it as :attr:`ConsulClient.sessions`.

    Every method raises :class:`ConsulError` if Consul is away, refuses or answers nonsense.
    """

    def __init__(self, client: ConsulClient) -> None:
        self._client = client

    async def create(
        self,
        *,
        name: str = "",
        ttl: float | None = None,
        lock_delay: float = 15.0,
        behavior: Literal["release", "delete"] = "release",
        node_checks: Sequence[str] = ("serfHealth",),
    ) -> str:
        """Make a session, and return its id.

        :param ttl: seconds without renewal after which it may end, from 10 to 86,400; Consul ends it
            at the latest after twice as long. None: it ends by its checks alone
        :param lock_delay: seconds, up to 60, for which what it held cannot be locked after it ended by
            itself: for a holder that does not know yet
        :param behavior: what becomes of the keys that it holds when it ends
        :param node_checks: checks of the node that end it when they are critical
        :raises ConfigurationError: if a time is out of range
        """
        if (ttl is not None and not 10 <= ttl <= 86_400) or not 0 <= lock_delay <= 60:
            message = f"session {name!r}: ttl is {ttl} and lock_delay {lock_delay}: give 10 to 86,400 s, and 0 to 60 s"
            raise ConfigurationError(message)
        fields: dict[str, object] = {
            "Name": name,
            "LockDelay": duration(lock_delay),
            "Behavior": behavior,
            "NodeChecks": list(node_checks),
        }
        if ttl is not None:
            fields["TTL"] = duration(ttl)
        answer = await self._client.http.call(
            "PUT", "/v1/session/create", _Created, body=msgspec.json.encode(fields)
        )
        return answer.value.id

    async def renew(self, session: str, *, timeout: float = 10.0) -> bool:
        """Begin its time to live again: False if there is no such session any more."""
        answer = await self._client.http.call(
            "PUT",
            f"/v1/session/renew/{quote(session, safe='')}",
            tuple[SessionInfo, ...],
            absent=(),
            timeout=timeout,
        )
        return bool(answer.value)

    async def destroy(self, session: str) -> None:
        """End it, and what it holds; one that is not there counts as ended."""
        path = f"/v1/session/destroy/{quote(session, safe='')}"
        await self._client.http.call("PUT", path, type(None))

    async def info(self, session: str) -> SessionInfo | None:
        """What is known of it; None if there is none."""
        path = f"/v1/session/info/{quote(session, safe='')}"
        answer = await self._client.http.call("GET", path, _Found)
        return answer.value[0] if answer.value else None
