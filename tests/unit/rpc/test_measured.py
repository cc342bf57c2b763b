"""What servers and channels count, read where Prometheus reads it."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from cryptography.x509 import load_pem_x509_certificate
from grpclib.const import Cardinality
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.errors import RejectedError, RpcError, Status
from bascule.net import ServerTLS
from bascule.observe import Exposition, Metrics
from bascule.resilience import BreakerSettings, CircuitBreaker, GcraLimiter
from bascule.rpc import Channel, Method, Server, ServerLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.certificates import Certificates

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
UNARY = {"service": "echo.Echo", "method": "Unary"}
OPEN = [("accept", "application/openmetrics-text")]


class Echo(EchoBase):
    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.leave = anyio.Event()
        self.failing = False

    async def unary(self, request: EchoRequest) -> EchoReply:
        if request.text == "wait":
            self.entered.set()
            await self.leave.wait()
        if self.failing:
            raise RpcError(Status.UNAVAILABLE, "not now")
        return EchoReply(text=request.text)


class Measured:
    """A server, a channel to it and what is shown of both."""

    def __init__(self, server: Server, channel: Channel, echo: Echo) -> None:
        self.server, self.channel, self.echo = server, channel, echo
        self.stub = EchoStub(channel)
        self.metrics = Metrics()
        self.metrics.add_server(server)
        self.metrics.add_channel(channel, "echo")
        self._exposition = Exposition(self.metrics)

    async def samples(self) -> list[Any]:
        _, _, body = await self._exposition.answer("", OPEN)
        families = text_string_to_metric_families(body.decode())
        return [sample for family in families for sample in family.samples]

    async def value(self, metric: str, /, **labels: str) -> float | None:
        found = [
            each.value
            for each in await self.samples()
            if each.name == metric and labels.items() <= each.labels.items()
        ]
        assert len(found) < 2, "name more labels"
        return found[0] if found else None

    async def settle(self, wanted: float, metric: str, /, **labels: str) -> None:
        with anyio.fail_after(30):
            while await self.value(metric, **labels) != wanted:  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(0.01)


@asynccontextmanager
async def measured(
    limits: ServerLimits | None = None, breaker: BreakerSettings | None = None
) -> AsyncIterator[Measured]:
    echo = Echo()
    async with AsyncExitStack() as stack:
        server = Server([echo], listen="127.0.0.1:0", limits=limits)
        await stack.enter_async_context(server)
        channel = Channel(server.addresses[0], breaker=breaker)
        await stack.enter_async_context(channel)
        yield Measured(server, channel, echo)


async def test_calls_are_in_progress_until_they_end_however_they_end() -> None:
    async with measured() as seen, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(seen.stub.unary, EchoRequest(text="wait"))
        await seen.settle(3, "grpc_requests_in_progress", **UNARY)
        await seen.settle(3, "grpc_client_requests_in_progress", **UNARY)
        await seen.settle(3, "server_requests_in_progress", server="grpc")
        await seen.settle(3, "grpc_client_endpoint_in_flight", target=seen.channel.target)
        async with anyio.create_task_group() as given_up:
            given_up.start_soon(seen.stub.unary, EchoRequest(text="wait"))
            await seen.settle(4, "grpc_requests_in_progress", **UNARY)
            given_up.cancel_scope.cancel()
        await seen.settle(3, "grpc_client_requests_in_progress", **UNARY)
        await seen.settle(3, "grpc_requests_in_progress", **UNARY)
        seen.echo.leave.set()
        await seen.settle(0, "grpc_requests_in_progress", **UNARY)
        await seen.settle(0, "grpc_client_requests_in_progress", **UNARY)
        await seen.settle(3, "grpc_requests_total", **UNARY, status="OK")
        await seen.settle(1, "grpc_requests_total", **UNARY, status="CANCELLED")


async def test_calls_that_a_closed_channel_leaves_are_in_progress_no_more() -> None:
    async with measured() as seen:
        async with Channel(seen.server.addresses[0]) as other, anyio.create_task_group() as tasks:
            tasks.start_soon(EchoStub(other).unary, EchoRequest(text="wait"))
            await seen.settle(1, "grpc_requests_in_progress", **UNARY)
            await seen.settle(2, "server_connections", server="grpc")
            tasks.cancel_scope.cancel()
        await seen.settle(0, "grpc_requests_in_progress", **UNARY)
        await seen.settle(1, "server_connections", server="grpc")
        assert other.stats.in_progress() == [("echo.Echo", "Unary", 0)]


@pytest.mark.parametrize(("flags", "kept"), [("01", True), ("00", False)])
async def test_a_sampled_call_is_the_exemplar_of_its_bucket(flags: str, kept: bool) -> None:
    async with measured() as seen:
        before = time.time()
        traceparent = f"00-{TRACE}-00f067aa0ba902b7-{flags}"
        await seen.stub.unary(EchoRequest(text="x"), metadata={"traceparent": traceparent})
        await seen.stub.unary(EchoRequest(text="x"))
        found = {each.name: (each, each.exemplar) for each in await seen.samples() if each.exemplar}
        names = {
            "grpc_request_duration_seconds_bucket",
            "grpc_client_request_duration_seconds_bucket",
        }
        assert set(found) == (names if kept else set())
        for sample, exemplar in found.values():
            assert exemplar.labels == {"trace_id": TRACE}
            assert exemplar.value <= float(sample.labels["le"])
            assert before - 1 <= float(exemplar.timestamp) <= time.time() + 1


async def test_what_no_handler_saw_is_counted_by_reason() -> None:
    async with measured(ServerLimits(max_calls=1)) as seen, anyio.create_task_group() as tasks:
        unknown = Method("/echo.Echo/Unknown", Cardinality.UNARY_UNARY, EchoRequest, EchoReply)
        with pytest.raises(RpcError):
            await seen.channel.unary(unknown, EchoRequest())
        assert await seen.value("server_requests_refused_total", reason="unknown_method") == 1
        tasks.start_soon(seen.stub.unary, EchoRequest(text="wait"))
        await seen.echo.entered.wait()
        with pytest.raises(RpcError) as refused:
            await seen.stub.unary(EchoRequest())
        assert refused.value.status is Status.RESOURCE_EXHAUSTED
        assert await seen.value("server_requests_refused_total", reason="overloaded") == 1
        assert await seen.value("server_limit", limit="calls") == 1
        assert await seen.value("server_limit", limit="connections") == 10_000
        assert await seen.value("server_connections_accepted_total", server="grpc") == 1
        seen.echo.leave.set()


async def test_who_is_cut_off_for_a_flood_is_counted_by_what_it_was() -> None:
    """Far more pings than a client without calls may send (gRFC A8), by hand: no client does that."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
    ping = b"\x00\x00\x08\x06" + bytes(13)
    async with measured() as seen:
        host, _, port = seen.server.addresses[0].rpartition(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            with suppress(anyio.BrokenResourceError):
                await stream.send(preface + ping * 2_000)
            await seen.settle(1, "server_floods_total", server="grpc", reason="pings")


async def test_a_channel_shows_its_endpoints_and_what_their_breakers_did() -> None:
    settings = BreakerSettings(failure_threshold=2, success_threshold=1, timeout=0.0)
    async with measured(breaker=settings) as seen:
        target = seen.channel.target
        name = f"echo@{seen.server.addresses[0]}"
        await seen.stub.unary(EchoRequest())
        assert await seen.value("grpc_client_subchannels", target=target, state="ready") == 1
        assert await seen.value("circuit_breaker_state", name=name) == 0
        seen.echo.failing = True
        for _ in range(2):
            with pytest.raises(RpcError):
                await seen.stub.unary(EchoRequest())
        assert await seen.value("circuit_breaker_state", name=name) == 1
        seen.echo.failing = False
        await seen.stub.unary(EchoRequest())
        assert await seen.value("circuit_breaker_state", name=name) == 0
        for state in ("open", "half_open", "closed"):
            assert (
                await seen.value("circuit_breaker_transitions_total", name=name, state=state) == 1
            )
        outcomes = {"success": 2, "failure": 2, "abandoned": 0, "rejected": 0}
        for outcome, count in outcomes.items():
            found = await seen.value("circuit_breaker_calls_total", name=name, outcome=outcome)
            assert found == count, outcome
        assert await seen.value("grpc_client_picks_total", target=target) == 4
        for outcome in ("success", "failure"):
            labels = {"target": target, "outcome": outcome}
            assert await seen.value("grpc_client_endpoint_calls_total", **labels) == 2
        assert await seen.value("grpc_client_resolver_failing", target=target) == 0


async def test_what_a_channel_refuses_itself_is_counted() -> None:
    async with measured(breaker=BreakerSettings(failure_threshold=1)) as seen:
        seen.echo.failing = True
        with pytest.raises(RpcError):
            await seen.stub.unary(EchoRequest())
        for _ in range(3):
            with pytest.raises(RejectedError):
                await seen.stub.unary(EchoRequest())
        assert await seen.value("grpc_client_refused_total", reason="breaker_open") == 3
        assert await seen.value("grpc_client_refused_total", reason="rate_limited") == 0


async def test_breakers_and_limiters_of_a_program_are_shown_on_demand() -> None:
    async with measured() as seen:
        breaker = CircuitBreaker("mail", BreakerSettings(failure_threshold=1))
        limiter = GcraLimiter(2, 1000.0, name="mails")
        seen.metrics.add_breaker(breaker)
        seen.metrics.add_limiter(limiter)
        with pytest.raises(OSError, match="away"):
            async with breaker:
                raise OSError("away")
        with pytest.raises(RejectedError):
            async with breaker:
                pass
        for key in "aaab":
            limiter.check(key)
        limiter.check("a", 0)
        assert await seen.value("circuit_breaker_state", name="mail") == 1
        assert await seen.value("circuit_breaker_calls_total", name="mail", outcome="rejected") == 1
        assert (
            await seen.value("rate_limit_decisions_total", limit="mails", outcome="admitted") == 3
        )
        assert (
            await seen.value("rate_limit_decisions_total", limit="mails", outcome="rejected") == 1
        )
        assert await seen.value("rate_limit_keys", limit="mails") == 2


async def test_a_certificate_shows_when_it_expires(certificates: Certificates) -> None:
    tls = ServerTLS(certificates.certificate, certificates.key)
    server = Server([Echo()], listen="127.0.0.1:0", tls=tls)
    metrics = Metrics()
    metrics.add_server(server, "shop")
    text = metrics.render()[0].decode()
    found = load_pem_x509_certificate(certificates.certificate.read_bytes())
    expires = found.not_valid_after_utc.timestamp()
    (line,) = [each for each in text.splitlines() if each.startswith("tls_certificate_not_after")]
    name, value = line.split()
    assert name == 'tls_certificate_not_after_timestamp_seconds{name="shop"}'
    assert float(value) == expires
    assert 'tls_certificate_stale{name="shop"} 0.0' in text


NAMES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#"), max_size=30
)


async def test_hostile_names_make_no_series() -> None:
    """Whatever is called for, with whatever headers: only what is declared is a label."""
    async with measured() as seen:
        await seen.stub.unary(EchoRequest())

        async def call(service: str, method: str, agent: str) -> None:
            asked = Method(f"/{service}/{method}", Cardinality.UNARY_UNARY, EchoRequest, EchoReply)
            async with Channel(seen.server.addresses[0]) as channel:
                # Some are no paths at all, which the channel itself refuses.
                with pytest.raises((RpcError, ValueError)):
                    await channel.unary(asked, EchoRequest(), metadata={"x-agent": agent})

        def series(samples: list[Any]) -> set[tuple[str, tuple[str, ...]]]:
            return {
                (each.name, tuple(sorted(each.labels.values())))
                for each in samples
                if each.name.startswith(("grpc_request", "server_"))
            }

        before: set[tuple[str, tuple[str, ...]]] = set()
        for service, method, agent in hostile_names():
            await call(service, method, agent)
            now = series(await seen.samples())
            if before:
                assert now == before
            before = now
        assert ("server_requests_refused_total", ("grpc", "unknown_method")) in before


def hostile_names() -> list[tuple[str, str, str]]:
    """Names as hypothesis makes them; one server for all of them."""
    made: list[tuple[str, str, str]] = [
        ("echo.Echo", "unary", "x"),
        ("grpc.health.v1.Health", "", ""),
    ]

    @settings(max_examples=50)
    @given(NAMES, NAMES, NAMES)
    def make(service: str, method: str, agent: str) -> None:
        made.append((service.replace("/", ""), method.replace("/", ""), agent))

    make()
    return made
