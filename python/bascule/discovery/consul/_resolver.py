"""Follows the instances of a service in Consul."""

from __future__ import annotations

import hashlib
import math
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio
import anyio.to_thread

from bascule.discovery._endpoint import Endpoint, ResolverState
from bascule.discovery.consul._cache import DiskCache
from bascule.discovery.consul._client import ConsulClient, shared_client
from bascule.discovery.consul._errors import ConsulError
from bascule.discovery.consul._feed import Follower
from bascule.discovery.consul._instances import Protection, ServiceList, instances_of
from bascule.discovery.consul._settings import ConsulSettings
from bascule.discovery.consul._stats import ConsulStats, ListSource, ListStatus, Watched
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from os import PathLike

    from bascule.discovery.consul._blocking import BlockingQuery
    from bascule.discovery.consul._health import Consistency
    from bascule.discovery.consul._http import Answer
    from bascule.discovery.consul._wire import ServiceEntry

__all__ = ["ConsulResolver"]

#: Seconds without an answer after which the list on disk is used.
FIRST = 1.0

#: Least seconds between the questions that failing connections ask for.
REFRESH = 5.0

#: Seconds after which a list on disk that is still true is dated again.
REDATE = 300.0


class ConsulResolver:
    """Follows the healthy instances of a service; give it to a :class:`bascule.rpc.Channel`.

    It waits for a service that does not exist yet. While Consul is away, what was good last stays,
    and with ``cache`` it is there at the next start, too. An answer that takes away more than a
    part of the known instances is not believed at once, see :class:`Protection`. Instances in
    maintenance are left out. Addresses that no service can have (link-local, metadata services
    of clouds) are passed over. For use from one event loop.

    :param client: inside of its ``async with``; None: one that all resolvers of an event loop with
        the same settings share
    :param settings: of that one; by default what the environment says
    :param tags: only instances that have all of these
    :param near: nearest first, from this node; ``_agent``: from the agent's own
    :param passing_only: leave out instances with a check that warns; otherwise, they are called by
        their weight for warnings
    :param filter: in Consul's language, such as ``Service.Meta.version == "2"``
    :param datacenter: None for the agent's own
    :param consistency: ``stale`` lets any server answer; ``consistent`` costs a round of the servers
    :param protection: against answers that are too bad to be true
    :param cache: folder for the last good lists; None for none
    :param max_cache_age: seconds for which they are believed
    :param authority: the name that calls are addressed to and certificates are checked for; None for
        the service's
    :param stats: where the watch can be looked at
    :raises ConfigurationError: if a setting cannot work
    """

    def __init__(
        self,
        service: str,
        *,
        client: ConsulClient | None = None,
        settings: ConsulSettings | None = None,
        tags: Sequence[str] = (),
        near: str | None = None,
        passing_only: bool = True,
        filter: str | None = None,  # noqa: A002
        datacenter: str | None = None,
        consistency: Consistency = "default",
        protection: Protection | None = None,
        cache: str | PathLike[str] | None = None,
        max_cache_age: float = 86_400.0,
        authority: str | None = None,
        stats: ConsulStats | None = None,
    ) -> None:
        if not service or "/" in service:
            raise ConfigurationError(f"Consul service {service!r}: expected its name")
        if consistency not in {"default", "stale", "consistent"}:
            raise ConfigurationError(
                f"consistency is {consistency!r}: expected default, stale or consistent"
            )
        self.service = service
        self._client = client
        self._settings = (
            client.settings if client is not None else settings or ConsulSettings.read()
        )
        self._query = _Query(service, tuple(tags), near, filter, datacenter, consistency)
        self._passing_only = passing_only
        self._protection = protection or Protection()
        self._authority = service if authority is None else authority
        self._cache: DiskCache | None = None
        if cache is not None:
            self._cache = DiskCache(
                Path(cache) / self._query.file_name(self._settings.url),
                most_age=max_cache_age,
            )
        self._stats = stats or ConsulStats.default()
        self._watches: dict[Watched, BlockingQuery[tuple[ServiceEntry, ...]]] = {}

    def refresh(self) -> None:
        """Ask now, if the last answer is older than 5 s: a connection has failed."""
        for each in self._watches.values():
            each.poke(REFRESH)

    def statuses(self) -> tuple[ListStatus, ...]:
        """Each watch of this resolver, now."""
        return tuple(each.status() for each in self._watches)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[ResolverState]]:
        """Give each list that differs from the one before, and when Consul fails or is back.

        It never raises a :class:`ConsulError`: that is told as the state's ``problem``.
        """
        async with AsyncExitStack() as stack:
            client = self._client
            if client is None:
                client = await stack.enter_async_context(shared_client(self._settings))
            yield await stack.enter_async_context(aclosing(self._states(client)))

    async def _states(self, client: ConsulClient) -> AsyncGenerator[ResolverState]:
        listing = ServiceList(self._protection, warnings=not self._passing_only)
        follower = Follower(client.feed, self.service)
        watched = self._stats.begin(self.service)

        async def ask(index: int, wait: float, timeout: float) -> Answer[tuple[ServiceEntry, ...]]:
            if query.is_shared:
                follower.clear()
            return await self._query.ask(client, index, wait, timeout)

        try:
            with client.blocking(ask, instead=follower.wait) as query:
                self._watches[watched] = query
                saver = _Saver(self._cache, client)
                cached = await saver.load()
                if cached is not None:
                    endpoints, age = cached
                    listing.believe(endpoints)
                    watched.confirm(age)
                failure: str | None = "Consul has not answered yet"
                answered, said = False, None
                while True:
                    patience = FIRST if listing.known and said is None else math.inf
                    left = listing.until - anyio.current_time()
                    with anyio.move_on_after(min(left, patience)) as scope:
                        failure = await self._step(query, listing, watched)
                    answered = answered or failure is None
                    if scope.cancelled_caught and answered:
                        listing.review(anyio.current_time())
                    problem = failure or listing.problem
                    watched.problem, watched.endpoints = problem, len(listing.endpoints)
                    watched.source = _source(listing, answered=answered, good=problem is None)
                    if problem is None:
                        await saver.save(listing.endpoints)
                    saying = self._comparable(listing.endpoints), problem is None
                    if saying != said:
                        said = saying
                        yield ResolverState(listing.endpoints, problem=problem)
        finally:
            follower.end()
            self._watches.pop(watched, None)
            self._stats.end(watched)

    async def _step(
        self,
        query: BlockingQuery[tuple[ServiceEntry, ...]],
        listing: ServiceList,
        watched: Watched,
    ) -> str | None:
        """Ask once and take the answer: what went wrong, or None."""
        try:
            answer = await query.next()
        except ConsulError as error:
            watched.count(error)
            return str(error)
        instances = instances_of(
            self.service,
            answer.value,
            authority=self._authority,
            in_order=self._query.near is not None,
        )
        watched.confirm()
        listing.take(instances, anyio.current_time())
        return None

    def _comparable(self, endpoints: tuple[Endpoint, ...]) -> object:
        """Order counts if Consul was asked for one."""
        return endpoints if self._query.near is not None else frozenset(endpoints)


@dataclass(frozen=True, slots=True)
class _Query:
    service: str
    tags: tuple[str, ...]
    near: str | None
    filter: str | None
    datacenter: str | None
    consistency: Consistency

    async def ask(
        self, client: ConsulClient, index: int, wait: float, timeout: float
    ) -> Answer[tuple[ServiceEntry, ...]]:
        # Also those that are not healthy: they count for the panic threshold.
        return await client.health.service(
            self.service,
            tags=self.tags,
            near=self.near,
            filter=self.filter,
            datacenter=self.datacenter,
            consistency=self.consistency,
            index=index,
            wait=wait,
            timeout=timeout,
        )

    def file_name(self, url: str) -> str:
        """One for each question to each Consul."""
        whole = repr((url, self.tags, self.near, self.filter, self.datacenter))
        return (
            f"{quote(self.service, safe='')}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}.json"
        )


class _Saver:
    """The list on disk, written when it changes and now and then."""

    def __init__(self, cache: DiskCache | None, client: ConsulClient) -> None:
        self._cache = cache
        self._limiter = client.disk
        self._saved: tuple[Endpoint, ...] | None = None
        self._saved_at = -math.inf

    async def load(self) -> tuple[tuple[Endpoint, ...], float] | None:
        if self._cache is None:
            return None
        return await anyio.to_thread.run_sync(self._cache.load, limiter=self._limiter)

    async def save(self, endpoints: tuple[Endpoint, ...]) -> None:
        now = anyio.current_time()
        fresh = endpoints == self._saved and now - self._saved_at < REDATE
        if self._cache is None or fresh:
            return
        await anyio.to_thread.run_sync(self._cache.save, endpoints, limiter=self._limiter)
        self._saved, self._saved_at = endpoints, now


def _source(listing: ServiceList, *, answered: bool, good: bool) -> ListSource:
    if good:
        return ListSource.LIVE
    if answered:
        return ListSource.MEMORY
    return ListSource.DISK if listing.known else ListSource.NONE
