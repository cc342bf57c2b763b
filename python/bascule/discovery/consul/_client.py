"""The client: one agent, and what it can be asked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

import anyio

from bascule.discovery.consul._blocking import POLL, WAIT, BlockingQuery, Outage, jitter
from bascule.discovery.consul._http import Http
from bascule.discovery.consul._kv import KvStore
from bascule.discovery.consul._settings import ConsulSettings
from bascule.errors import ClosedError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import TracebackType

    import httpx

    from bascule.discovery.consul._blocking import Ask
    from bascule.net import ClientTLS

__all__ = ["ConsulClient"]

T = TypeVar("T")


class ConsulClient:
    """Talks to one Consul agent, inside of its ``async with``, from one event loop.

    Whatever is not given is taken from the environment as Consul's own command does, see
    :meth:`ConsulSettings.read`. Namespaces and partitions of Consul Enterprise are not supported.

    Sockets are bounded: 16 for requests and one for each of ``max_polls`` blocking queries. A watch
    beyond that works without one: services share one query that tells of changed checks, keys are
    looked at every 10 s.

    :param url: ``http://host:port``, ``https://host:port`` or ``unix:///path``
    :param token: ACL token
    :param tls: authorities and identity for https
    :param datacenter: where queries go; None for the agent's own
    :param max_polls: blocking queries at once. Agents refuse more than 200 connections from one
        address (``http_max_conns_per_client``), of all processes together
    :param wait: seconds that a query blocks
    :raises ConfigurationError: if a setting cannot work
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        tls: ClientTLS | None = None,
        datacenter: str | None = None,
        max_polls: int = 32,
        wait: float = WAIT,
        settings: ConsulSettings | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if max_polls < 1 or not 1 <= wait <= 600:
            message = (
                f"max_polls is {max_polls} and wait {wait}: give at least 1 poll, and 1 to 600 s"
            )
            raise ConfigurationError(message)
        self.settings = settings or ConsulSettings.read(url, token, tls, datacenter)
        #: For the parts of this package.
        self.http = Http(self.settings, polls=max_polls, transport=transport)
        self.kv = KvStore(self)
        self._wait = wait
        self._free_polls = max_polls
        self._entered = False

    async def __aenter__(self) -> Self:
        if self._entered:
            message = "this Consul client is entered already"
            raise ClosedError(message)
        self._entered = True
        self.outage = Outage()
        self.http.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered = False
        await self.http.close()

    @contextmanager
    def blocking(
        self, ask: Ask[T], *, instead: Callable[[], Awaitable[None]] | None = None
    ) -> Iterator[BlockingQuery[T]]:
        """Watch something: the query takes one of the connections for that until the ``with`` ends.

        :param instead: waits for a change if no connection is free; by default, for 10 s or so
        """
        has_poll = self._free_polls > 0
        self._free_polls -= has_poll
        try:
            with BlockingQuery(
                ask, self.outage, wait=self._wait, instead=None if has_poll else instead or _poll
            ) as query:
                yield query
        finally:
            self._free_polls += has_poll


async def _poll() -> None:
    await anyio.sleep(jitter(POLL * 0.9, POLL * 1.1))
