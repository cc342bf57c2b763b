"""Takes up runs that nobody is at: left by a process that is gone, or due for their next attempt."""

from __future__ import annotations

import logging
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import anyio

from bascule._tasks import owned_tasks
from bascule.errors import ConfigurationError
from bascule.saga._errors import SagaError, SagaLogError

if TYPE_CHECKING:
    from types import TracebackType

    from bascule.saga._coordinator import SagaCoordinator
    from bascule.saga._definition import Saga
    from bascule.saga._records import SagaRun

__all__ = ["SagaWorker"]

_logger = logging.getLogger("bascule.saga")
_TIDY = 10.0  # seconds between two countings of the unfinished runs


class SagaWorker:
    """Claims runs that are due and brings them to their end. Use it with ``async with``.

    Any number of workers may share a log, in any number of processes: each run goes to one of them. On
    the way out it claims no more, waits for what it is at, and leaves the rest to others.

    :param coordinator: drives the runs
    :param sagas: which it knows; runs of others are left alone
    :param concurrency: runs at a time
    :param poll: seconds between looks at the log, half of it to one and a half by chance
    :param patience: seconds that a run may wait for its next attempt here; longer waits are left to the
        log, so that they block nobody
    :param grace: seconds that runs have to end on the way out
    :param keep: seconds that finished runs are kept, with their idempotency keys; None for ever
    :raises ConfigurationError: if no saga is given, two share a name, or a number cannot be used
    """

    def __init__(
        self,
        coordinator: SagaCoordinator,
        *sagas: Saga[Any],
        concurrency: int = 8,
        poll: float = 1.0,
        patience: float = 2.0,
        grace: float = 10.0,
        keep: float | None = 7 * 86_400.0,
    ) -> None:
        self._sagas = {saga.name: saga for saga in sagas}
        if not sagas or len(self._sagas) != len(sagas):
            raise ConfigurationError("a worker needs at least one saga, each of another name")
        if concurrency < 1 or poll <= 0:
            raise ConfigurationError("concurrency must be at least 1, and poll more than 0 seconds")
        self._coordinator = coordinator
        self._concurrency = concurrency
        self._poll = poll
        self._patience = patience
        self._grace = grace
        self._keep = keep
        self._active = 0
        self._closing = False
        self._wanted = anyio.Event()
        self._tidied = float("-inf")
        self._stack = AsyncExitStack()

    def notify(self) -> None:
        """Have it look at the log now."""
        self._wanted.set()

    async def __aenter__(self) -> Self:
        """Start to claim."""
        self._tasks = await self._stack.enter_async_context(owned_tasks())
        self._tasks.start_soon(self._work, name="saga worker")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Claim no more; leave what has not ended within ``grace``."""
        self._closing = True
        self.notify()
        self._tasks.cancel_scope.deadline = anyio.current_time() + self._grace
        await self._stack.__aexit__(exc_type, exc, traceback)

    async def _work(self) -> None:
        pause = self._poll
        while not self._closing:
            self._wanted = anyio.Event()
            try:
                full = await self._claim()
                await self._tidy()
                pause = self._poll
            except SagaLogError as error:
                _logger.warning("saga worker: %s", error)
                full, pause = False, min(pause * 2, 30.0, self._poll * 8)
            if not full or self._active >= self._concurrency:
                with anyio.move_on_after(pause * (0.5 + random.random())):  # noqa: S311 - no secret
                    await self._wanted.wait()

    async def _claim(self) -> bool:
        """Claim as many runs as there is room for; tell whether there were as many."""
        free = self._concurrency - self._active
        if free == 0:
            return True
        coordinator = self._coordinator
        with anyio.CancelScope(shield=True):
            runs = await coordinator.log.claim(
                coordinator.owner, coordinator.lease, names=self._sagas, limit=free
            )
            for run in runs:
                self._active += 1
                self._tasks.start_soon(self._end, run, name=f"saga {run.saga_id}")
        return len(runs) == free

    async def _end(self, run: SagaRun) -> None:
        try:
            await self._coordinator.end(self._sagas[run.name], run, patience=self._patience)
        except (SagaError, SagaLogError) as error:
            # The log has it: a failed run is undone, a parked one is counted.
            _logger.info("saga worker: %s", error)
        finally:
            if self._active == self._concurrency:
                self.notify()
            self._active -= 1

    async def _tidy(self) -> None:
        """Count the unfinished runs and forget old ones, now and then."""
        now = anyio.current_time()
        if now < self._tidied + _TIDY:
            return
        self._tidied = now
        log = self._coordinator.log
        self._coordinator.stats.counted(self._sagas, await log.count())
        if self._keep is not None:
            await log.forget(log.now() - self._keep)
