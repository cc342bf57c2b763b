"""A channel's states, which endpoint pick_first takes, waiting for endpoints, health and idleness."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.services import Echo

from bascule.discovery import Endpoint, MemoryRegistry, ResolverState
from bascule.errors import ConfigurationError, NoEndpointError, RpcError, Status
from bascule.rpc import (
    Cardinality,
    Channel,
    ConnectionBackoff,
    ConnectivityState,
    HealthService,
    LoadBalancing,
    Method,
    MethodConfig,
    Server,
    ServiceConfig,
    Subset,
)
from bascule.rpc._pick_first import interleave

pytestmark = pytest.mark.anyio

UNARY = Method("/echo.Echo/Unary", Cardinality.UNARY_UNARY, EchoRequest, EchoReply)
QUICK = ConnectionBackoff(initial=0.01, most=0.02)
READY, IDLE = ConnectivityState.READY, ConnectivityState.IDLE
FAILED, CONNECTING = ConnectivityState.TRANSIENT_FAILURE, ConnectivityState.CONNECTING


class Told:
    """A resolver that a test tells what to say."""

    def __init__(self, said) -> None:
        self.said = said
        self.changed = anyio.Event()
        self.refreshed = 0

    def say(self, said) -> None:
        self.said = said
        self.changed.set()
        self.changed = anyio.Event()

    def refresh(self) -> None:
        self.refreshed += 1

    @asynccontextmanager
    async def watch(self):
        async def states():
            while True:
                changed = self.changed
                yield self.said
                await changed.wait()

        yield states()


@pytest.fixture
def silent():
    """An address that takes connections in, but answers none: its queue is full."""
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.setblocking(False)
        host, port = listener.getsockname()
        fillers = [filler]
        for _ in range(8):
            each = socket.socket()
            each.setblocking(False)
            each.connect_ex((host, port))
            fillers.append(each)
        yield f"{host}:{port}"
        for each in fillers:
            each.close()


def free_address() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


async def serving_address(channel: Channel) -> str:
    context = []

    async with channel.stream(UNARY) as stream:
        await stream.send_message(EchoRequest())
        await stream.recv_message()
        context.append(stream.peer)
    return context[0]


async def test_the_states_of_a_life() -> None:
    address = free_address()
    channel = Channel(address, backoff=QUICK)
    assert channel.state is ConnectivityState.SHUTDOWN
    async with channel:
        assert channel.state is CONNECTING
        await channel.wait_for_state(FAILED)
        (subchannel,) = channel.snapshot().subchannels
        assert address in (subchannel.failure or "")
        async with Server([Echo()], listen=address):
            with anyio.fail_after(20):
                assert await channel.wait_for_state(READY) is READY
            assert channel.snapshot().subchannels[0].failure is None
    assert channel.state is ConnectivityState.SHUTDOWN


async def test_what_cannot_be_reached_is_told_in_full() -> None:
    one, two = free_address(), free_address()
    async with Channel(f"static:///{one},{two}") as channel:
        with pytest.raises(RpcError) as raised:
            await EchoStub(channel).unary(EchoRequest())
    text = str(raised.value)
    assert raised.value.status is Status.UNAVAILABLE
    assert f"none of 2 endpoints of static:///{one},{two} can be reached" in text
    assert f"cannot connect to {one}: " in text
    assert f"cannot connect to {two}: " in text


@pytest.mark.parametrize("config", ["call", "channel", "method"])
async def test_a_call_may_wait_for_an_endpoint(config) -> None:
    address = free_address()
    methods = {"/echo.Echo/": MethodConfig(wait_for_ready=True)}
    async with Channel(
        address,
        backoff=QUICK,
        wait_for_ready=config == "channel",
        service_config=ServiceConfig(methods=methods if config == "method" else {}),
    ) as channel:
        await channel.wait_for_state(FAILED)
        with pytest.raises(RpcError) as raised:
            await channel.unary(UNARY, EchoRequest(), wait_for_ready=False)
        assert raised.value.status is Status.UNAVAILABLE
        with pytest.raises(RpcError, match=address) as raised:
            await channel.unary(UNARY, EchoRequest(), timeout=0.05, wait_for_ready=True)
        assert raised.value.status is Status.DEADLINE_EXCEEDED
        answered = anyio.Event()

        async def call() -> None:
            wait = True if config == "call" else None
            await channel.unary(UNARY, EchoRequest(), wait_for_ready=wait)
            async with channel.stream(UNARY, wait_for_ready=wait) as stream:
                await stream.send_message(EchoRequest())
                assert await stream.recv_message() is not None
            answered.set()

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                async with Server([Echo()], listen=address):
                    await answered.wait()


async def test_pick_first_takes_the_first_and_stays() -> None:
    async with Server([Echo()]) as one, Server([Echo()]) as two:
        target = f"static:///{one.addresses[0]},{two.addresses[0]}"
        async with Channel(target, balancer="pick_first") as channel:
            for _ in range(3):
                assert await serving_address(channel) == one.addresses[0]
            assert [each.state for each in channel.snapshot().subchannels] == [READY, IDLE]
            assert [each.picks for each in channel.snapshot().subchannels] == [3, 0]
            await one.drain()
            with anyio.fail_after(20):
                await channel.wait_for_state(IDLE)
            # Nobody connects before a call does.
            assert two.serving.connections == 0
            assert await serving_address(channel) == two.addresses[0]


async def test_pick_first_passes_by_what_fails() -> None:
    async with Server([Echo()]) as server:
        target = f"static:///{free_address()},{free_address()},{server.addresses[0]}"
        async with Channel(target, balancer="pick_first") as channel:
            assert await serving_address(channel) == server.addresses[0]
            assert channel.state is READY


async def test_pick_first_does_not_wait_for_one_that_is_silent(silent) -> None:
    async with Server([Echo()]) as server:
        target = f"static:///{silent},{server.addresses[0]}"
        async with Channel(target, balancer="pick_first") as channel:
            with anyio.fail_after(5):
                assert await serving_address(channel) == server.addresses[0]
            await anyio.wait_all_tasks_blocked()
            assert [each.state for each in channel.snapshot().subchannels] == [IDLE, READY]


async def test_pick_first_fails_when_all_have_failed_and_tries_on() -> None:
    address = free_address()
    resolver = Told([Endpoint(free_address()), Endpoint(address)])
    async with Channel("x:1", resolver=resolver, balancer="pick_first", backoff=QUICK) as channel:
        with pytest.raises(RpcError, match="none of 2 endpoints"):
            await channel.unary(UNARY, EchoRequest())
        assert channel.state is FAILED
        assert resolver.refreshed > 0
        async with Server([Echo()], listen=address):
            with anyio.fail_after(20):
                await channel.wait_for_state(READY)
            await channel.unary(UNARY, EchoRequest())


async def test_pick_first_follows_the_list() -> None:
    async with Server([Echo()]) as one, Server([Echo()]) as two:
        first, second = Endpoint(one.addresses[0]), Endpoint(two.addresses[0])
        resolver = Told([first])
        async with Channel("x:1", resolver=resolver, balancer="pick_first") as channel:
            assert await serving_address(channel) == first.address
            resolver.say([second, first])
            await anyio.wait_all_tasks_blocked()
            assert await serving_address(channel) == first.address  # it stays connected
            resolver.say([second])
            with anyio.fail_after(20):
                while await serving_address(channel) != second.address:
                    await anyio.lowlevel.checkpoint()
            resolver.say([])
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(NoEndpointError):
                await channel.unary(UNARY, EchoRequest())


async def test_pick_first_may_shuffle() -> None:
    async with Server([Echo()]) as one, Server([Echo()]) as two:
        target = f"static:///{one.addresses[0]},{two.addresses[0]}"
        found = set()
        for _ in range(40):
            balancing = LoadBalancing(balancer="pick_first", shuffle=True)
            async with Channel(target, balancer=balancing) as channel:
                found.add(await serving_address(channel))
        assert len(found) == 2


def test_families_take_turns() -> None:
    class Fake:
        def __init__(self, address: str) -> None:
            self.endpoint = Endpoint(address)

    order = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1", "unix:/x"]
    turned = [each.endpoint.address for each in interleave([Fake(each) for each in order])]  # type: ignore[arg-type]
    assert turned == ["[::1]:1", "1.1.1.1:1", "unix:/x", "[::2]:1", "2.2.2.2:1", "[::3]:1"]


async def test_an_idle_channel_leaves_its_connections() -> None:
    async with Server([Echo()]) as server:
        async with Channel(server.addresses[0], idle_timeout=0.1) as channel:
            await channel.unary(UNARY, EchoRequest())
            for _ in range(2):
                with anyio.fail_after(20):
                    await channel.wait_for_state(IDLE)
                assert channel.snapshot().subchannels == ()
                await channel.unary(UNARY, EchoRequest())
            with anyio.fail_after(20):
                await channel.wait_for_state(IDLE)
                await channel.wait_ready()
            # A call in progress is no idleness.
            async with EchoStub(channel).bidi() as call:
                await call.send_message(EchoRequest(text="a", replies=1))
                await call.recv_message()
                with anyio.move_on_after(0.5):
                    await channel.wait_for_state(IDLE)
                assert channel.state is READY
                await call.send_message(EchoRequest(text="b", replies=1), end=True)
                assert (await call.recv_message()).text == "b"


async def test_only_healthy_endpoints_get_calls() -> None:
    health, other = HealthService(["echo.Echo"]), HealthService(["echo.Echo"])
    config = ServiceConfig(health_check_service="echo.Echo")
    async with (
        Server([Echo(), health]) as one,
        Server([Echo(), other]) as two,
        Channel(
            f"static:///{one.addresses[0]},{two.addresses[0]}", service_config=config
        ) as channel,
    ):

        async def until_ready(count: int) -> None:
            with anyio.fail_after(20):
                while sum(each.state is READY for each in channel.snapshot().subchannels) != count:
                    await channel._pool.wait_change()

        await until_ready(2)
        health.set("echo.Echo", serving=False)
        await until_ready(1)
        failure = channel.snapshot().subchannels[0].failure or ""
        assert "NOT_SERVING" in failure
        for _ in range(4):
            assert await serving_address(channel) == two.addresses[0]
        other.set("echo.Echo", serving=False)
        await until_ready(0)
        with pytest.raises(RpcError, match="NOT_SERVING"):
            await channel.unary(UNARY, EchoRequest())
        health.set("echo.Echo", serving=True)
        await until_ready(1)
        assert await serving_address(channel) == one.addresses[0]


async def test_a_server_without_health_service_counts_as_well(caplog) -> None:
    config = {"healthCheckConfig": {"serviceName": "echo.Echo"}}
    async with (
        Server([Echo()]) as server,
        Channel(server.addresses[0], service_config=config) as channel,
    ):
        await channel.unary(UNARY, EchoRequest())
    assert "no health service" in caplog.text


async def test_a_resolver_may_give_the_config() -> None:
    config = {
        "methodConfig": [{"name": [{}], "timeout": "0.05s"}],
        "loadBalancingConfig": [{"pick_first": {}}],
    }
    async with Server([Echo()]) as one, Server([Echo()]) as two:
        endpoints = [Endpoint(one.addresses[0]), Endpoint(two.addresses[0])]
        resolver = Told(ResolverState(endpoints, config))
        async with Channel("x:1", resolver=resolver) as channel:
            assert {await serving_address(channel) for _ in range(3)} == {one.addresses[0]}
            with pytest.raises(RpcError) as raised:
                await channel.unary(UNARY, EchoRequest(hang=True))
            assert raised.value.status is Status.DEADLINE_EXCEEDED
            resolver.say(ResolverState(endpoints, "{"))
            await anyio.wait_all_tasks_blocked()
            snapshot = channel.snapshot()
            assert "no valid JSON" in (snapshot.resolver.last_error or "")
            assert snapshot.balancer.balancer == "pick_first"
            await channel.unary(UNARY, EchoRequest())
            resolver.say(endpoints)
            with anyio.fail_after(20):
                while len({await serving_address(channel) for _ in range(2)}) < 2:
                    await anyio.lowlevel.checkpoint()
            assert channel.snapshot().resolver.last_error is None
            await channel.unary(UNARY, EchoRequest(), timeout=20)


async def test_a_first_config_that_is_wrong_fails_calls() -> None:
    resolver = Told(ResolverState([Endpoint("memory:x")], {"methodConfig": 1}))
    async with Channel("x:1", resolver=resolver) as channel:
        with pytest.raises(RpcError, match="methodConfig: a list") as raised:
            await channel.unary(UNARY, EchoRequest())
        assert raised.value.status is Status.UNAVAILABLE
        assert channel.state is FAILED


async def test_calls_in_progress_survive_another_balancer() -> None:
    async with Server([Echo()], listen="memory:balanced"):
        resolver = Told([Endpoint("memory:balanced")])
        async with Channel("x:1", resolver=resolver) as channel:
            async with EchoStub(channel).bidi() as call:
                await call.send_message(EchoRequest(text="a", replies=1))
                await call.recv_message()
                config = {"loadBalancingConfig": [{"least_request": {}}]}
                resolver.say(ResolverState([Endpoint("memory:balanced")], config))
                await anyio.wait_all_tasks_blocked()
                await channel.unary(UNARY, EchoRequest())
                await call.send_message(EchoRequest(text="b", replies=1), end=True)
                assert (await call.recv_message()).text == "b"
            assert channel.snapshot().balancer.balancer == "least_request"
            assert [each.in_flight for each in channel.snapshot().subchannels] == [0]


async def test_the_hash_of_a_header_chooses_the_endpoint() -> None:
    balancing = LoadBalancing(balancer="ring_hash", hash_header="x-user")
    async with Server([Echo()]) as one, Server([Echo()]) as two, Server([Echo()]) as three:
        addresses = ",".join(each.addresses[0] for each in (one, two, three))
        async with Channel(f"static:///{addresses}", balancer=balancing) as channel:
            with anyio.fail_after(20):
                while any(each.state is not READY for each in channel.snapshot().subchannels):
                    await channel._pool.wait_change()
            for user in range(20):
                for _ in range(3):
                    await channel.unary(UNARY, EchoRequest(), metadata={"x-user": str(user)})
            picks = [each.picks for each in channel.snapshot().subchannels]
            assert sum(picks) == 60
            assert all(each % 3 == 0 for each in picks)
            assert sum(each > 0 for each in picks) > 1


async def test_a_subset_of_the_endpoints() -> None:
    registry = MemoryRegistry()
    for number in range(6):
        registry.register("echo", Endpoint(f"memory:subset-{number}"))
    balancing = LoadBalancing(subset=Subset(client=0, size=2))
    async with Channel("memory:///echo", registry=registry, balancer=balancing) as channel:
        await channel.wait_for_state(FAILED)
        assert len(channel.snapshot().subchannels) == 2


async def test_reset_backoff_tries_at_once() -> None:
    address = free_address()
    async with Channel(address, backoff=ConnectionBackoff(initial=1000, most=1000)) as channel:
        await channel.wait_for_state(FAILED)
        async with Server([Echo()], listen=address):
            channel.reset_backoff()
            with anyio.fail_after(20):
                await channel.wait_for_state(READY)


@pytest.mark.parametrize(
    "settings",
    [{"initial": 0}, {"most": float("inf")}, {"multiplier": 0.5}, {"jitter": 1}, {"jitter": -0.1}],
)
async def test_a_backoff_that_cannot_work_is_refused(settings) -> None:
    with pytest.raises(ConfigurationError):
        ConnectionBackoff(**settings)


async def test_what_a_resolver_says_as_the_channel_becomes_idle_connects_nothing() -> None:
    registry = MemoryRegistry()
    async with (
        Server([Echo()]) as server,
        Channel("memory:///echo", registry=registry) as channel,
    ):
        await anyio.wait_all_tasks_blocked()
        registry.register("echo", Endpoint(server.addresses[0]))
        # The answer is on its way, which on both loops no cancellation stops.
        channel._pool.enter_idle()
        await anyio.wait_all_tasks_blocked()
        assert channel.state is IDLE
        assert channel.snapshot().subchannels == ()
        await channel.unary(UNARY, EchoRequest())


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
async def test_an_idle_timeout_that_cannot_work_is_refused(timeout) -> None:
    with pytest.raises(ConfigurationError):
        Channel("x:1", idle_timeout=timeout)


async def test_the_pauses_grow_and_vary() -> None:
    backoff = ConnectionBackoff()
    for attempts, pause in [(1, 1.0), (2, 1.6), (3, 2.56), (50, 120.0), (10_000, 120.0)]:
        pauses = [backoff.after(attempts) for _ in range(50)]
        assert pause * 0.8 <= min(pauses) < max(pauses) <= pause * 1.2
