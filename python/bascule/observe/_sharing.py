"""Metrics of several processes behind one scrape: what keeps this process's part up to date."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from bascule._tasks import owned_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bascule.observe._metrics import Metrics
    from bascule.observe._shared import SharedFolder

__all__ = ["FOLDER_VARIABLE", "shared_metrics"]

#: The folder, by the name that prometheus-client has given it.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

#: Seconds between two writes at least, and how many times as long as a write took.
EVERY, REST = 1.0, 50.0


@asynccontextmanager
async def shared_metrics(metrics: Metrics) -> AsyncIterator[None]:
    """Have metrics shown together with those of other processes, if the environment names a folder
    for it (``PROMETHEUS_MULTIPROC_DIR``) and they are not yet.

    A process that is killed loses what it counted in about the last second.

    :raises OSError: if the folder cannot be made or written to
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder or metrics.shared is not None:
        yield
        return
    from bascule.observe._shared import SharedFolder

    shared = SharedFolder(folder)
    metrics.shared = shared
    try:
        async with owned_tasks() as tasks:
            tasks.start_soon(_keep_written, metrics, shared, name="shared metrics")
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
    finally:
        metrics.shared = None
        # A matter of milliseconds, and the last word: whatever cancels must not cut it.
        shared.write(metrics.registry.collect())
        shared.close()


async def _keep_written(metrics: Metrics, shared: SharedFolder) -> None:
    while True:
        since = perf_counter()
        await metrics.write_shared(shared)
        await anyio.sleep(max(EVERY, REST * (perf_counter() - since)))
