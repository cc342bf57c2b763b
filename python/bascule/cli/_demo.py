"""The shop in one process, and a client that takes a tour through its gateway."""

from __future__ import annotations

import signal
import ssl
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx

from bascule.app import settle_memory
from bascule.cli._questions import ask
from bascule.cli._tour import STOPS, Tour
from bascule.cli._trace import fetch_trace
from bascule.gateway import DevelopmentKey, LineLog
from bascule.net import ServerTLS, development_certificate
from bascule.observe import traced_by, tracing_wanted
from bascule.resilience import BreakerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bascule.cli._questions import Question
    from bascule.cli._tour import Visit
    from bascule.cli._trace import TraceNode
    from bascule.observe import OpenTelemetryTracer
    from bascule_shop.app import Shop
    from bascule_shop.servers import Component, Components

__all__ = ["Account", "DemoSettings", "run_demo"]

#: So short that a tour can wait for it; the default is 30 s.
BREAKER_TIMEOUT = 1.0

#: Spans that may wait to be sent.
MOST_SPANS = 50_000

#: So long that a busy machine does not make the gateway count by itself: the tour counts what is admitted.
LIMIT_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What the command line asks for. See :func:`bascule.cli._main.demo`."""

    listen: str
    data: Path | None
    serve: bool
    backend: str
    components: tuple[Component, ...] = ()


@dataclass(slots=True, kw_only=True)
class Account:
    """What the tour has seen.

    :ivar url: of the gateway
    :ivar services: address of each service by short name
    :ivar components: address of each real server that the shop uses
    :ivar certificate: file that a client must trust
    :ivar token: of a seeded user, for who wants to try the gateway
    :ivar starting: seconds until the gateway took requests
    :ivar seconds: that the tour took
    :ivar rules: files of alerts that Prometheus evaluates; None without Prometheus
    :ivar questions: what it was asked
    :ivar trace: of an order of the tour, where there is a Jaeger
    :ivar trace_url: where it can be looked at
    """

    backend: str
    url: str
    services: dict[str, str]
    components: dict[str, str]
    certificate: str
    token: str
    starting: float
    seconds: float = 0.0
    visits: list[Visit] = field(default_factory=list)
    rules: int | None = None
    questions: list[Question] = field(default_factory=list)
    trace: TraceNode | None = None
    trace_url: str | None = None

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
    from bascule_shop.app import SERVICES, Shop
    from bascule_shop.gateway import shop_gateway
    from bascule_shop.servers import Component, start_components, start_prometheus

    begun = time.perf_counter()
    async with AsyncExitStack() as stack:
        data = settings.data
        if data is None:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bascule-demo-")))
        certificate, key_file = development_certificate(data)
        key = DevelopmentKey(data)
        access_log = LineLog(stack.enter_context((data / "access.log").open("ab")))
        components = await start_components(settings.components, stack)
        tracer = await stack.enter_async_context(_tracing(components))
        shop = await stack.enter_async_context(
            Shop(
                data,
                databases=components.databases,
                consul=components.consul,
                events=components.redis,
                tracers=None if tracer is None else {each: tracer.named(each) for each in SERVICES},
                grace=2.0,
            )
        )
        gateway = await stack.enter_async_context(
            shop_gateway(
                key.auth,
                listen=settings.listen,
                tls=ServerTLS(certificate, key_file),
                targets={SERVICES[name]: shop.target(name) for name in SERVICES},
                registry=shop.registry,
                redis=components.redis,
                limit_timeout=LIMIT_TIMEOUT,
                breaker=BreakerSettings(timeout=BREAKER_TIMEOUT),
                access_log=access_log,
                metrics=shop.metrics,
                tracer=tracer,
                ready=shop.ready,
                grace=2.0,
            )
        )
        account = Account(
            backend=settings.backend,
            url=f"https://{gateway.addresses[0]}",
            services={name: server.address for name, server in shop.servers.items()},
            components=components.addresses,
            certificate=str(certificate),
            token=key.mint_token("usr_ada", lifetime=24 * 3600.0),
            starting=time.perf_counter() - begun,
        )
        watcher = None
        if Component.PROMETHEUS in settings.components:
            watcher = await start_prometheus(f"{account.url}/metrics", certificate, stack)
            account.components[Component.PROMETHEUS] = watcher.url
            account.rules = watcher.rules
        # It hears the shop's events, as another service would.
        with traced_by(None if tracer is None else tracer.named("tour")):
            order_request = await _take_tour(account, shop, key)
        if watcher is not None:
            account.questions = await ask(watcher)
        if tracer is not None and components.jaeger is not None and order_request:
            await tracer.flush()
            # The gateway gives a request the id of the trace that it begins.
            account.trace = await fetch_trace(components.jaeger, order_request)
            account.trace_url = f"{components.jaeger}/trace/{order_request}"
        report(account)
        if settings.serve:
            settle_memory()
            await _wait_for_signal()
    return account.ok


@asynccontextmanager
async def _tracing(components: Components) -> AsyncIterator[OpenTelemetryTracer | None]:
    """Record what is done, if there is a Jaeger, or the ``OTEL_`` variables say where spans go."""
    if components.spans is None and not tracing_wanted():
        yield None
        return
    from bascule.observe import OpenTelemetryTracer, Sampling

    # What a tour asks for in a second or two is many times what the SDK's own limits are made for.
    if components.spans is None:
        tracer = OpenTelemetryTracer("gateway", most_waiting=MOST_SPANS)
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(f"{components.spans}/v1/traces")
        tracer = OpenTelemetryTracer(
            "gateway", exporter=exporter, sampling=Sampling(), most_waiting=MOST_SPANS
        )
    async with tracer:
        yield tracer


async def _take_tour(account: Account, shop: Shop, key: DevelopmentKey) -> str:
    """Take the tour; give the request id of an order that was made."""
    trust = ssl.create_default_context(cafile=account.certificate)
    begun = time.perf_counter()
    async with httpx.AsyncClient(
        http1=False, http2=True, verify=trust, base_url=account.url, timeout=30.0
    ) as client:
        tour = Tour(client, shop, key, breaker_timeout=BREAKER_TIMEOUT)
        for stop in STOPS:
            account.visits.append(await tour.visit(stop))
    account.seconds = time.perf_counter() - begun
    return tour.order_request


async def _wait_for_signal() -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return
