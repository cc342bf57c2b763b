"""Load on a method of any gRPC server: so many calls in flight, each sent when the one before is answered."""

from __future__ import annotations

import math
import time
from array import array
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from bascule.cli._calling import one_request
from bascule.cli._schema import DescriptorSet, find_method, method_of, open_reflection
from bascule.errors import ConfigurationError, RpcError
from bascule.rpc import Channel

if TYPE_CHECKING:
    from pathlib import Path

    from bascule.net import ClientTLS

__all__ = ["Load", "LoadSettings", "run_load"]

#: Bars of the plot of latencies.
_BARS = 10

#: Seconds for describing the method.
_ASKING = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """What the command line asks for. Times are seconds.

    :ivar source: the request: JSON, ``@file`` or ``-``
    :ivar in_flight: calls at a time, over all connections
    :ivar calls: in all; None to go on for ``seconds``
    :ivar timeout: of each call; None for none
    """

    target: str
    method: str
    source: str = "{}"
    in_flight: int = 50
    connections: int = 1
    calls: int | None = None
    seconds: float = 5.0
    timeout: float | None = None
    descriptors: Path | None = None
    tls: ClientTLS | None = None
    metadata: list[tuple[str, str | bytes]] = field(default_factory=list)


class Load(msgspec.Struct):
    """What came of it. Times are seconds; latencies are those of calls that ended with OK.

    :ivar seconds: from the first call to the last answer
    :ivar statuses: calls by status
    :ivar percentiles: 50, 90, 99 and 99.9
    :ivar bars: upper bound and number of calls, by equal factors from the fastest to the slowest
    """

    target: str
    method: str
    in_flight: int
    connections: int
    seconds: float
    calls: int
    statuses: dict[str, int]
    fastest: float | None = None
    slowest: float | None = None
    mean: float | None = None
    percentiles: dict[str, float] = {}
    bars: list[tuple[float, int]] = []

    @property
    def rate(self) -> float:
        """Calls a second, whatever their status."""
        return self.calls / self.seconds if self.seconds else 0.0


async def run_load(settings: LoadSettings) -> Load:
    """Find the method, then call it.

    :raises BasculeError: if it cannot be called at all
    """
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                Channel(settings.target, tls=settings.tls, metadata=settings.metadata)
            )
            for _ in range(settings.connections)
        ]
        described = (
            open_reflection(channels[0], _ASKING)
            if settings.descriptors is None
            else nullcontext(DescriptorSet(settings.descriptors))
        )
        async with described as schema:
            method = method_of(await find_method(schema, settings.method))
            if method.cardinality.client_streaming or method.cardinality.server_streaming:
                raise ConfigurationError(f"{method.path} streams: name a method of one reply")
            request = await one_request(method, schema.pool, settings.source)
        return await _drive(channels, method, request, settings)


async def _drive(
    channels: list[Channel], method: Any, request: Any, settings: LoadSettings
) -> Load:
    latencies: array[float] = array("d")
    statuses: dict[str, int] = {}
    clock = time.perf_counter
    began = clock()
    end = math.inf if settings.calls is not None else began + settings.seconds
    left = math.inf if settings.calls is None else settings.calls

    async def caller(channel: Channel) -> None:
        nonlocal left
        while left > 0 and (before := clock()) < end:
            left -= 1
            try:
                await channel.unary(method, request, timeout=settings.timeout)
            except RpcError as error:
                statuses[error.status.name] = statuses.get(error.status.name, 0) + 1
            else:
                latencies.append(clock() - before)

    async with anyio.create_task_group() as tasks:
        for index in range(settings.in_flight):
            tasks.start_soon(caller, channels[index % len(channels)])
    took = clock() - began
    if latencies:
        statuses = {"OK": len(latencies), **statuses}
    found = Load(
        settings.target,
        method.path.removeprefix("/"),
        settings.in_flight,
        settings.connections,
        took,
        sum(statuses.values()),
        statuses,
    )
    if latencies:
        _describe(found, sorted(latencies))
    return found


def _describe(found: Load, latencies: list[float]) -> None:
    count, least, most = len(latencies), latencies[0], latencies[-1]
    found.fastest, found.slowest, found.mean = least, most, sum(latencies) / count
    for percent in (50.0, 90.0, 99.0, 99.9):
        found.percentiles[f"{percent:g}"] = latencies[math.ceil(count * percent / 100) - 1]
    bounds = [least * (most / least) ** (index / _BARS) for index in range(1, _BARS)] + [most]
    below = 0
    for bound in bounds:
        until = below
        while until < count and latencies[until] <= bound:
            until += 1
        found.bars.append((bound, until - below))
        below = until
