"""Locks and leaders: mutual exclusion as far as it goes, and fencing tokens beyond.

Source: Consul's guides on sessions and leader election; M. Kleppmann, "How to do distributed
locking" (2016), on fencing tokens.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio

from bascule._tasks import finish, owned_tasks
from bascule.discovery.consul._errors import ConsulError, LockLostError, TransactionError
from bascule.discovery.consul._kv import KvOperation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from bascule.discovery.consul._client import ConsulClient
    from bascule.discovery.consul._http import Answer
    from bascule.discovery.consul._kv import KeyValue

__all__ = ["HeldLock", "LeaderElection", "hold_lock"]

#: Seconds that giving a lock back may take; after that, its session ends by itself.
RELEASE = 5.0


class HeldLock:
    """A lock that this process holds, as far as it can know.

    Nobody can know for sure: a process that was stopped for a minute wakes up believing that it
    holds the lock. So give :attr:`fencing_token` to what the lock protects, and let that refuse
    tokens that are smaller than the largest one it has seen.

    :ivar fencing_token: greater than those of all holders before, also if the key was deleted in between
    :ivar session: id of the session that holds it
    :ivar problem: how it was lost; None while it is held
    """

    def __init__(self, key: str, session: str, fencing_token: int) -> None:
        self.key = key
        self.session = session
        self.fencing_token = fencing_token
        self.problem: str | None = None
        self._body = anyio.CancelScope()

    def _lose(self, problem: str) -> None:
        if self.problem is None:
            self.problem = problem
            self._body.cancel()


class _Session:
    """A session that its task keeps alive."""

    def __init__(self, client: ConsulClient, ttl: float) -> None:
        self._client = client
        self._ttl = ttl
        self.id = ""
        self.ended: str | None = None
        self.holds: HeldLock | None = None

    async def start(self, name: str, lock_delay: float) -> None:
        self._valid_until = anyio.current_time() + self._ttl
        self.id = await self._client.sessions.create(
            name=name, ttl=self._ttl, lock_delay=lock_delay
        )

    async def keep(self) -> None:
        """Renew it until it is over.

        It counts as over when its time to live has passed here, even though Consul may give it more.
        """
        pause = self._ttl / 3
        while self.ended is None:
            with anyio.move_on_after(self._valid_until - anyio.current_time()) as scope:
                await anyio.sleep(pause)
                begun = anyio.current_time()
                try:
                    if not await self._client.sessions.renew(self.id, timeout=self._ttl / 3):
                        self._end("Consul has ended its session")
                        return
                except ConsulError:
                    # A refusal may pass as well: the time to live decides.
                    pause = min(1.0, self._ttl / 10)
                    continue
                self._valid_until, pause = begun + self._ttl, self._ttl / 3
            if scope.cancelled_caught:
                self._end(f"its session could not be renewed for {self._ttl:g} s")

    def _end(self, problem: str) -> None:
        self.ended = problem
        if self.holds is not None:
            self.holds._lose(problem)


@asynccontextmanager
async def hold_lock(
    client: ConsulClient, key: str, *, value: bytes, ttl: float, lock_delay: float
) -> AsyncIterator[HeldLock]:
    """See :meth:`ConsulClient.lock`."""
    lost: str | None = None
    async with owned_tasks() as tasks:
        session, token = await _acquire(client, tasks, key, value, ttl, lock_delay)
        held = HeldLock(key, session.id, token)
        try:
            session.holds = held
            if session.ended is not None:
                held._lose(session.ended)
            tasks.start_soon(_watch, client, held)
            with held._body:
                yield held
            lost = held.problem
        finally:
            tasks.cancel_scope.cancel()
            await _release(client, key, session.id)
    if lost is not None:
        raise LockLostError(key, lost)


async def _acquire(
    client: ConsulClient, tasks: TaskGroup, key: str, value: bytes, ttl: float, lock_delay: float
) -> tuple[_Session, int]:
    async def ask(index: int, wait: float, timeout: float) -> Answer[tuple[KeyValue, ...]]:
        return await client.kv._ask(
            key, recurse=False, consistency="consistent", index=index, wait=wait, timeout=timeout
        )

    session: _Session | None = None
    try:
        with client.blocking(ask) as query:
            while True:
                try:
                    found = (await query.next()).value
                    holder = found[0].session if found else None
                    if holder is not None and session is not None and holder == session.id:
                        # It was locked, but the answer did not come through.
                        return session, found[0].modify_index
                    if holder is not None:
                        continue
                    if session is None or session.ended is not None:
                        session = _Session(client, ttl)
                        await session.start(f"lock {key}", lock_delay)
                        tasks.start_soon(session.keep)
                    operation = KvOperation("lock", key, value, session=session.id)
                    (locked,) = await client.kv.transaction([operation])
                    return session, locked.modify_index
                except TransactionError:
                    # Free but not to be had: it is within its lock-delay, or another one was faster.
                    query.restart()
                except ConsulError as error:
                    if not error.retryable:
                        raise
                    query.restart()
    except BaseException:
        if session is not None and session.id:
            await _release(client, key, session.id)
        raise


async def _watch(client: ConsulClient, held: HeldLock) -> None:
    """Notice that the lock went to another holder, or to nobody."""

    async def ask(index: int, wait: float, timeout: float) -> Answer[tuple[KeyValue, ...]]:
        return await client.kv._ask(
            held.key, recurse=False, consistency="default", index=index, wait=wait, timeout=timeout
        )

    with client.blocking(ask) as query:
        while held.problem is None:
            try:
                found = (await query.next()).value
            except ConsulError:
                continue  # whether it is held still, its session says
            if not found or found[0].session != held.session:
                held._lose("its key is held by another session, or by none")


async def _release(client: ConsulClient, key: str, session: str) -> None:
    """Give it back, then end the session: the other way round, a lock-delay would begin."""

    async def release() -> None:
        with suppress(ConsulError):
            await client.kv.transaction([KvOperation("unlock", key, session=session)])
        with suppress(ConsulError):
            await client.sessions.destroy(session)

    await finish(release, RELEASE)


class LeaderElection:
    """One of many processes leads, as long as it can show that it is alive.

    :param key: the same for all candidates, such as ``service/orders/leader``
    :param value: what the leader tells of itself, such as its address
    :param ttl: seconds until a leader that is gone is noticed, at least 10; up to twice as long
    :param lock_delay: seconds for which nobody leads after a leader that did not step back
    """

    def __init__(
        self,
        client: ConsulClient,
        key: str,
        *,
        value: bytes = b"",
        ttl: float = 15.0,
        lock_delay: float = 15.0,
    ) -> None:
        self._client = client
        self.key = key
        self._settings: dict[str, Any] = {"value": value, "ttl": ttl, "lock_delay": lock_delay}

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[HeldLock]:
        """Wait to be elected, and lead until the ``async with`` ends.

        :raises LockLostError: if the leadership was lost; the body is cancelled then
        """
        async with hold_lock(self._client, self.key, **self._settings) as term:
            yield term

    async def leader(self) -> KeyValue | None:
        """What the leader tells of itself; None if nobody leads."""
        found = await self._client.kv.get(self.key)
        return None if found is None or found.session is None else found
