"""The shop in one process, and a client that takes a tour through its gateway."""

from __future__ import annotations

import signal
import ssl
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx

from bascule.app import settle_memory
from bascule.cli._tour import STOPS, Tour
from bascule.gateway import DevelopmentKey, LineLog
from bascule.net import ServerTLS, development_certificate
from bascule.observe import Metrics
from bascule.resilience import BreakerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from bascule.cli._tour import Visit
    from bascule_shop.app import Shop

__all__ = ["Account", "DemoSettings", "run_demo"]

#: So short that a tour can wait for it; the default is 30 s.
BREAKER_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What the command line asks for. See :func:`bascule.cli._main.demo`."""

    listen: str
    data: Path | None
    serve: bool
    backend: str


@dataclass(slots=True, kw_only=True)
class Account:
    """What the tour has seen.

    :ivar url: of the gateway
    :ivar services: address of each service by short name
    :ivar certificate: file that a client must trust
    :ivar token: of a seeded user, for who wants to try the gateway
    :ivar starting: seconds until the gateway took requests
    :ivar seconds: that the tour took
    """

    backend: str
    url: str
    services: dict[str, str]
    certificate: str
    token: str
    starting: float
    seconds: float = 0.0
    visits: list[Visit] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every answer was the expected one."""
        return all(visit.problem is None for visit in self.visits)


async def run_demo(settings: DemoSettings, report: Callable[[Account], None]) -> bool:
    """Start everything, take the tour, report, and serve on if asked to.

    :param report: called with the account when the tour is over
    :return: whether every answer was the expected one
    :raises BasculeError: if something could not be started
    """
    from bascule_shop.app import Shop
    from bascule_shop.gateway import shop_gateway

    begun = time.perf_counter()
    async with AsyncExitStack() as stack:
        data = settings.data
        if data is None:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bascule-demo-")))
        certificate, key_file = development_certificate(data)
        key = DevelopmentKey(data)
        access_log = LineLog(stack.enter_context((data / "access.log").open("ab")))
        shop = await stack.enter_async_context(Shop(data, grace=2.0))
        gateway = await stack.enter_async_context(
            shop_gateway(
                key.auth,
                listen=settings.listen,
                tls=ServerTLS(certificate, key_file),
                registry=shop.registry,
                breaker=BreakerSettings(timeout=BREAKER_TIMEOUT),
                access_log=access_log,
                metrics=_metrics(shop),
                ready=shop.ready,
                grace=2.0,
            )
        )
        account = Account(
            backend=settings.backend,
            url=f"https://{gateway.addresses[0]}",
            services={name: server.address for name, server in shop.servers.items()},
            certificate=str(certificate),
            token=key.mint_token("usr_ada", lifetime=24 * 3600.0),
            starting=time.perf_counter() - begun,
        )
        await _take_tour(account, shop, key)
        report(account)
        if settings.serve:
            settle_memory()
            await _wait_for_signal()
    return account.ok


def _metrics(shop: Shop) -> Metrics:
    metrics = Metrics()
    for server in shop.servers.values():
        if server.server is not None:
            metrics.add_calls(server.server.stats, side="server")
    for channel in shop.channels.values():
        metrics.add_calls(channel.stats, side="client")
    for source in (shop.bus, *shop.relays):
        metrics.add_events(source.stats)
    return metrics


async def _take_tour(account: Account, shop: Shop, key: DevelopmentKey) -> None:
    trust = ssl.create_default_context(cafile=account.certificate)
    begun = time.perf_counter()
    async with httpx.AsyncClient(
        http1=False, http2=True, verify=trust, base_url=account.url, timeout=30.0
    ) as client:
        tour = Tour(client, shop, key, breaker_timeout=BREAKER_TIMEOUT)
        for stop in STOPS:
            account.visits.append(await tour.visit(stop))
    account.seconds = time.perf_counter() - begun


async def _wait_for_signal() -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return
