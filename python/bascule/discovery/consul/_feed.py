"""One query that tells which services have changed, for those watches that have no query of their own.

HTTP/1.1 needs a connection for each query that blocks, and an agent refuses more than 200 of a client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from bascule.discovery.consul._blocking import BlockingQuery, jitter
from bascule.discovery.consul._errors import ConsulError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bascule.discovery.consul._wire import CheckState

__all__ = ["Follower", "ServiceFeed"]

#: Seconds after which a service is asked for in any case: a change of its address, tags, weights or
#: metadata alone changes no check.
RESYNC = 120.0

#: What is compared: where a check is, and its status; and the statuses of the nodes' own checks.
_Mark = frozenset[tuple[str, ...]]


class Follower:
    """One watch of one service. Between :meth:`clear` and the end of :meth:`wait`, no change is lost.

    All followers wait in tasks of their own, and one of those makes the query for them all; when it
    leaves, another one goes on with it. So the feed needs no task, and no owner.
    """

    def __init__(self, feed: ServiceFeed, service: str) -> None:
        self._feed = feed
        self.service = service
        self.dirty = True
        self._based = False
        self._wake = anyio.Event()
        self._leading: anyio.CancelScope | None = None

    def clear(self) -> None:
        """The service is about to be asked for: what changed before does not matter any more."""
        self._feed.add(self)
        self._based = self._feed.marks is not None
        self.dirty = False

    async def wait(self) -> None:
        """Until the service may have changed."""
        feed = self._feed
        with anyio.move_on_after(jitter(RESYNC * 0.75, RESYNC * 1.25)):
            while not self.dirty:
                if feed.leader is None:
                    await self._lead()
                else:
                    self._wake = anyio.Event()
                    feed.waiting[self] = None
                    try:
                        await self._wake.wait()
                    finally:
                        feed.waiting.pop(self, None)
                        if feed.leader is None:
                            # It was to lead, and may not: it is cancelled, or has news of its own.
                            feed.look_for_leader()

    def end(self) -> None:
        """The watch is over."""
        self._feed.remove(self)

    def mark(self) -> None:
        """Its service has changed."""
        self.dirty = True
        self.wake()
        if self._leading is not None:
            self._leading.cancel()

    def wake(self) -> None:
        """Look what to do now."""
        self._wake.set()

    def is_unsure(self) -> bool:
        """Whether it asked before there was anything to compare with."""
        return not self._based

    async def _lead(self) -> None:
        feed = self._feed
        feed.leader = self
        try:
            with anyio.CancelScope() as self._leading:
                while not self.dirty:
                    await feed.step()
        finally:
            self._leading = None
            feed.leader = None
            feed.query.rest()
            feed.look_for_leader()


class ServiceFeed:
    """The checks of all services, compared from answer to answer.

    :ivar marks: the last answer's checks by service; None before the first one
    """

    def __init__(self, query: BlockingQuery[tuple[CheckState, ...]]) -> None:
        self.query = query
        self.leader: Follower | None = None
        self.waiting: dict[Follower, None] = {}
        self.marks: dict[str, _Mark] | None = None
        self._followers: dict[str, set[Follower]] = {}

    def add(self, follower: Follower) -> None:
        """Tell it of changes from now on."""
        self._followers.setdefault(follower.service, set()).add(follower)

    def remove(self, follower: Follower) -> None:
        """Tell it of nothing any more."""
        others = self._followers.get(follower.service, set())
        others.discard(follower)
        if not others:
            self._followers.pop(follower.service, None)

    def look_for_leader(self) -> None:
        """Wake one that waits: it leads if nobody does by then."""
        for each in self.waiting:
            each.wake()
            break

    async def step(self) -> None:
        """Ask once, and wake those whose services have changed."""
        try:
            answer = await self.query.next()
        except ConsulError:
            return  # the query pauses by itself; what changes meanwhile differs from the last marks
        before, self.marks = self.marks, _marks(answer.value)
        for service, followers in self._followers.items():
            changed = before is not None and before.get(service) != self.marks.get(service)
            for each in tuple(followers):
                if changed or (before is None and each.is_unsure()):
                    each.mark()


def _marks(checks: Iterable[CheckState]) -> dict[str, _Mark]:
    services: dict[str, set[tuple[str, ...]]] = {}
    nodes: dict[str, list[tuple[str, str]]] = {}
    for each in checks:
        if each.service_name:
            mark = (each.node, each.service_id, each.check_id, each.status)
            services.setdefault(each.service_name, set()).add(mark)
        else:
            nodes.setdefault(each.node, []).append((each.check_id, each.status))
    told = {node: str(sorted(states)) for node, states in nodes.items()}
    return {
        service: frozenset(marks | {(mark[0], told.get(mark[0], "")) for mark in marks})
        for service, marks in services.items()
    }
