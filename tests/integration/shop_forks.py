"""A service of the shop as a process; the order service kills itself at a moment that it is told."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio

from bascule.app import run
from bascule.discovery import Registered
from bascule.events import RedisEventBus, SqlOutbox
from bascule.saga import SagaWorker
from bascule.saga._check_life import _FatalLog
from bascule_shop import _services, process
from bascule_shop.process import ProcessSettings, shop_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from bascule.discovery import Registration
    from bascule.events import Event

__all__ = ["MOMENTS", "Death", "serve"]

_WRITES = (
    "started",
    "done order, begun inventory",
    "done inventory, begun payment",
    "done payment, begun confirm",
    "done confirm, completed",
    "failed inventory",
    "failed payment",
    "compensated payment",
    "compensated inventory",
    "compensated order, undone",
)
_REPLIES = (
    *("add", "confirm", "reject"),  # of its own store
    *("reserve_inventory", "release_inventory"),
    *("charge", "refund"),
)

MOMENTS: tuple[str, ...] = (
    *(f"{when} the log has: {what}" for what in _WRITES for when in ("before", "after")),
    "after the log has: claimed",
    *(f"when {name} has replied" for name in _REPLIES),
    *("when an event is claimed", "when an event is published", "when an event is settled"),
)
"""Where it may be killed: at every write of the saga's log and every reply that a step waits for, on the
way forward and back, and around the publishing of the event."""


@dataclass(frozen=True)
class Death:
    """When a process is to kill itself.

    :ivar moment: one of :data:`MOMENTS`
    :ivar time: 1 for the first time that it comes to it
    """

    moment: str
    time: int


class _Points:
    """Counts how often the process has come to its last moment."""

    def __init__(self, death: Death | None, tell: Connection) -> None:
        self._death = death
        self._tell = tell
        self._times = 0

    def passing(self, moment: str) -> None:
        if self._death is None or moment != self._death.moment:
            return
        self._times += 1
        if self._times == self._death.time:
            self._tell.send(("killed", moment))
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # The signal may take a moment.


class _Replies:
    """A client that passes a point when it has its reply, good or bad."""

    def __init__(self, client: Any, points: _Points) -> None:
        self._client = client
        self._points = points

    def __getattr__(self, name: str) -> Any:
        async def ask(*request: Any, **options: Any) -> Any:
            try:
                reply = await getattr(self._client, name)(*request, **options)
            except Exception:
                self._points.passing(f"when {name} has replied")
                raise
            self._points.passing(f"when {name} has replied")
            return reply

        return ask


class _Outbox(SqlOutbox):
    def __init__(self, *about: Any, points: _Points, **options: Any) -> None:
        super().__init__(*about, **options)
        self._points = points

    async def claim(self, *about: Any, **options: Any) -> Any:
        claim = await super().claim(*about, **options)
        if claim is not None:
            self._points.passing("when an event is claimed")
        return claim

    async def settle(self, *about: Any, **options: Any) -> Any:
        claim = await super().settle(*about, **options)
        self._points.passing("when an event is settled")
        return claim


class _Bus(RedisEventBus):
    points: _Points

    async def publish(self, *events: Event[Any]) -> None:
        await super().publish(*events)
        self.points.passing("when an event is published")


class _Registrar:
    """Tells the test where the service is, once it is ready."""

    def __init__(self, tell: Connection) -> None:
        self._tell = tell

    @asynccontextmanager
    async def registered(self, registration: Registration) -> AsyncIterator[Registered]:
        self._tell.send(("serving", registration.address))
        yield _Known()


class _Known:
    problem: str | None = None


def serve(
    settings: ProcessSettings, backend: str, death: Death | None, tell: Connection, log: Path
) -> None:
    """Serve as ``python -m bascule_shop serve`` does, to be the target of a process."""
    logging.basicConfig(filename=log, level=logging.INFO, format=f"{os.getpid()} %(message)s")
    points = _Points(death, tell)
    named: Any = _services
    for name in ("ProductServiceStub", "PaymentServiceStub", "SqlOrderStore"):
        made = getattr(_services, name)
        setattr(named, name, lambda *about, made=made: _Replies(made(*about), points))
    named.SqlSagaLog = functools.partial(_FatalLog, points=points)
    named.SqlOutbox = functools.partial(_Outbox, points=points)
    named.OutboxRelay = functools.partial(_services.OutboxRelay, lease=settings.lease, poll=0.1)
    _Bus.points = points
    named.RedisEventBus = _Bus
    named = process
    # What the last process left is looked for more often than is good for a database.
    named.SagaWorker = functools.partial(SagaWorker, poll=0.1)
    app = replace(shop_app(settings), registrar=_Registrar(tell))
    sys.exit(anyio.run(run, app, backend=backend))
