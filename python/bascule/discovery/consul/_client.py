"""The client: one agent, and what it can be asked."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import anyio
from anyio.lowlevel import RunVar

from bascule.discovery.consul._agent import Agent
from bascule.discovery.consul._blocking import POLL, WAIT, BlockingQuery, Outage, jitter
from bascule.discovery.consul._feed import ServiceFeed
from bascule.discovery.consul._health import Health
from bascule.discovery.consul._http import Http
from bascule.discovery.consul._kv import KvStore
from bascule.discovery.consul._lock import HeldLock, hold_lock
from bascule.discovery.consul._sessions import Sessions
from bascule.discovery.consul._settings import ConsulSettings
from bascule.errors import ClosedError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    import httpx

    from bascule.discovery.consul._blocking import Ask
    from bascule.discovery.consul._http import Answer
    from bascule.discovery.consul._wire import CheckState
    from bascule.net import ClientTLS

__all__ = ["ConsulClient", "shared_client"]

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
        self.http = Http(self.settings, polls=max_polls + 1, transport=transport)
        self.agent = Agent(self)
        self.health = Health(self)
        self.kv = KvStore(self)
        self.sessions = Sessions(self)
        self._wait = wait
        self._free_polls = max_polls
        self._entered = False

    async def __aenter__(self) -> Self:
        if self._entered:
            message = "this Consul client is entered already"
            raise ClosedError(message)
        self._entered = True
        self.outage = Outage()
        self.disk = anyio.CapacityLimiter(2)
        self.feed = ServiceFeed(BlockingQuery(self._ask_checks, self.outage, wait=self._wait))
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

    def lock(
        self, key: str, *, value: bytes = b"", ttl: float = 15.0, lock_delay: float = 15.0
    ) -> AbstractAsyncContextManager[HeldLock]:
        """Hold a lock: ``async with client.lock("locks/bill") as held``.

        Waits until the key is free; bound that by a cancel scope around it. While Consul is away, it
        waits, too. A task keeps its session alive. If the lock is lost, the body is cancelled and
        the ``async with`` raises. Leaving it gives the lock back, within 5 s, also if cancelled.

        :param value: written to the key, for people that want to know who holds it
        :param ttl: seconds until Consul takes the lock from a holder that is gone, at least 10; up to
            twice as long
        :param lock_delay: seconds, up to 60, for which nobody gets the lock after it was taken so
        :raises LockLostError: if the lock is, or may be, lost
        :raises ConsulError: on entering, if Consul refuses for good
        :raises ConfigurationError: if a time is out of range
        """
        return hold_lock(self, key, value=value, ttl=ttl, lock_delay=lock_delay)

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

    async def _ask_checks(
        self, index: int, wait: float, timeout: float
    ) -> Answer[tuple[CheckState, ...]]:
        return await self.health.state(index=index, wait=wait, timeout=timeout)


@dataclass(slots=True)
class _Shared:
    client: ConsulClient
    users: int = 0


_shared: RunVar[dict[ConsulSettings, _Shared]] = RunVar("clients of bascule.discovery.consul")


@asynccontextmanager
async def shared_client(settings: ConsulSettings) -> AsyncIterator[ConsulClient]:
    """One client for all that ask for these settings in this event loop; the last one closes it.

    It has no task, so it does not matter that one task opens it and another one closes it.
    """
    clients = _shared.get(None)
    if clients is None:
        _shared.set(clients := {})
    entry = clients.get(settings)
    if entry is None:
        entry = clients[settings] = _Shared(ConsulClient(settings=settings))
        await entry.client.__aenter__()
    entry.users += 1
    try:
        yield entry.client
    finally:
        entry.users -= 1
        if entry.users == 0:
            del clients[settings]
            await entry.client.__aexit__(None, None, None)


async def _poll() -> None:
    await anyio.sleep(jitter(POLL * 0.9, POLL * 1.1))
