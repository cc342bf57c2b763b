"""The order of a service's life, and what it does while something is missing. In virtual time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.app import App, Life, Phase, Resource
from bascule.discovery import MemoryRegistry
from bascule.errors import ClosedError, ConfigurationError, RpcError, Status
from bascule.rpc import Channel
from bascule.rpc._generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
from bascule.rpc._health import HEALTH_CHECK, HEALTH_WATCH
from bascule.testing import virtual_backend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

pytestmark = pytest.mark.anyio

SERVICE = "echo.Echo"
ADDRESS = "memory:app"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


class Echo(EchoBase):
    """Answers when it is let; tells what happens to its calls."""

    def __init__(self, said: list[str], database: Resource[str] | None = None) -> None:
        self.said = said
        self.database = database
        self.begun = anyio.Event()
        self.seconds = 0.0

    async def unary(self, request: EchoRequest) -> EchoReply:
        text = request.text if self.database is None else self.database.get()
        self.begun.set()
        try:
            await anyio.sleep(self.seconds)
        except BaseException:
            self.said.append("call cancelled")
            raise
        self.said.append("call answered")
        return EchoReply(text=text)


class Dependency:
    """Can be away, break, and take its time."""

    def __init__(self, name: str, said: list[str]) -> None:
        self.name = name
        self.said = said
        self.away: Exception | None = None
        self.attempts = 0
        self.broken = anyio.Event()
        self.closing_takes = 0.0
        self.opening_takes = 0.0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        self.attempts += 1
        await anyio.sleep(self.opening_takes)
        if self.away is not None:
            raise self.away
        self.said.append(f"{self.name} opened")
        self.broken = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._break)
                yield self.name
                tasks.cancel_scope.cancel()
        finally:
            try:
                await anyio.sleep(self.closing_takes)
            except BaseException:
                self.said.append(f"{self.name} closed by force")
                raise
            self.said.append(f"{self.name} closed")

    async def _break(self) -> None:
        await self.broken.wait()
        message = "the connection was lost"
        raise ConnectionResetError(message)

    def resource(self, **settings: Any) -> Resource[str]:
        return Resource(self.name, self.open, **settings)


class Registry(MemoryRegistry):
    """Tells when it is asked."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self.said = said

    @asynccontextmanager
    async def registered(self, registration):
        assert (registration.service, registration.address) == (SERVICE, ADDRESS)
        self.said.append("registered")
        async with super().registered(registration) as state:
            try:
                yield state
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.2)
                self.said.append("deregistered")


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[tuple[Life, Channel, TaskGroup]]:
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        async with Channel(ADDRESS) as channel:
            yield life, channel, tasks


async def health(channel: Channel, name: str = "") -> str:
    answer = await channel.unary(HEALTH_CHECK, HealthCheckRequest(service=name))
    return HealthCheckResponse.ServingStatus.Name(answer.status)


async def watch_health(channel: Channel, said: list[str], *, task_status) -> None:
    async with channel.server_stream(HEALTH_WATCH, HealthCheckRequest()) as stream:
        async for answer in stream:
            said.append(HealthCheckResponse.ServingStatus.Name(answer.status))
            if said[-1] == "SERVING":
                task_status.started()


async def test_the_order_of_life() -> None:
    """Configuration, resources, ready, register; NOT_SERVING, deregister, wait, drain, and back."""
    said: list[str] = []
    config, first, second = (Dependency(name, said) for name in ("config", "first", "second"))
    echo, registry = Echo(said), Registry(said)
    app = App(
        "echo",
        services=lambda: [echo],
        listen=lambda: ADDRESS,
        config=config.open(),
        resources=[first.resource(), second.resource()],
        registrar=lambda: registry,
        propagation=3.0,
    )
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        assert [each.address for each in registry.endpoints(SERVICE)] == [ADDRESS]
        async with Channel(ADDRESS) as channel:
            await tasks.start(watch_health, channel, said)
            echo.seconds = 10.0
            tasks.start_soon(EchoStub(channel).unary, EchoRequest(text="slow"))
            await echo.begun.wait()
            begun = anyio.current_time()
            life.stop()
            await life.wait_stopped()
            assert 10.0 <= anyio.current_time() - begun < 11.0, "the drain ends with the last call"
    assert said == [
        *("config opened", "first opened", "second opened", "registered", "SERVING"),
        *("NOT_SERVING", "deregistered", "call answered"),
        *("second closed", "first closed", "config closed"),
    ]


async def test_it_waits_before_it_drains_and_takes_calls_meanwhile() -> None:
    """Clients that do not know yet are served until the propagation delay is over."""
    said: list[str] = []
    app = App("echo", [Echo(said)], ADDRESS, propagation=5.0, grace=1.0)
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        life.stop()
        begun = anyio.current_time()
        await anyio.sleep(4.9)
        assert life.phase is Phase.LEAVING
        async with Channel(ADDRESS) as late:
            assert (await EchoStub(late).unary(EchoRequest(text="late"))).text == "late"
            assert await health(late) == "NOT_SERVING"
            assert await health(late, "liveness") == "SERVING"
            await anyio.sleep(0.2)
            with pytest.raises(RpcError):
                await EchoStub(late).unary(EchoRequest())
    assert anyio.current_time() - begun < 7.0


async def test_what_is_away_at_the_start_does_not_stop_it() -> None:
    said: list[str] = []
    database, cache = Dependency("database", said), Dependency("cache", said)
    database.away = ConnectionRefusedError("nobody listens")
    resource = database.resource()
    registry = Registry(said)
    app = App(
        "echo",
        [Echo(said, resource)],
        ADDRESS,
        resources=[resource, cache.resource()],
        registrar=registry,
        propagation=0.0,
    )
    async with serving(app) as (life, channel, _):
        await anyio.sleep(60.0)
        assert said == ["cache opened"]
        assert life.status().missing == {"database": "ConnectionRefusedError: nobody listens"}
        assert [
            await health(channel, each)
            for each in ("", "readiness", SERVICE, "resource/database", "resource/cache")
        ] == ["NOT_SERVING", "NOT_SERVING", "NOT_SERVING", "NOT_SERVING", "SERVING"]
        assert await health(channel, "liveness") == await health(channel, "startup") == "SERVING"
        with pytest.raises(RpcError, match="database is not available") as caught:
            await EchoStub(channel).unary(EchoRequest())
        assert caught.value.status is Status.UNAVAILABLE
        assert 5 <= database.attempts <= 12, "attempts are spread by a growing pause"

        database.away = None
        await anyio.sleep(20.0)
        assert said == ["cache opened", "database opened", "registered"]
        assert (life.ready, life.status().missing) == (True, {})
        assert (await EchoStub(channel).unary(EchoRequest())).text == "database"
        life.stop()
    assert said[-3:] == ["deregistered", "cache closed", "database closed"]


async def test_what_breaks_is_opened_anew() -> None:
    said: list[str] = []
    database = Dependency("database", said)
    app = App("echo", [Echo(said)], ADDRESS, resources=[database.resource()], propagation=0.0)
    async with serving(app) as (life, channel, _):
        assert life.ready
        database.away = OSError("down for a while")
        database.broken.set()
        await anyio.sleep(0.1)
        assert not life.ready
        assert life.status().missing == {
            "database": "ConnectionResetError: the connection was lost"
        }
        assert await health(channel) == "NOT_SERVING"
        database.away = None
        await anyio.sleep(20.0)
        assert await health(channel) == "SERVING"
        life.stop()
    assert said == ["database opened", "database closed"] * 2


async def test_what_is_away_for_days_is_opened_when_it_is_back() -> None:
    """The pause between attempts stops growing, however many there were."""
    database = Dependency("database", [])
    database.away = OSError("away")
    app = App("echo", [Echo([])], ADDRESS, resources=[database.resource()], propagation=0.0)
    async with serving(app) as (life, _, _):
        await anyio.sleep(86_400.0)
        assert not life.ready
        database.away = None
        await anyio.sleep(20.0)
        assert life.ready
        life.stop()


async def test_an_optional_resource_does_not_decide_readiness() -> None:
    cache = Dependency("cache", [])
    cache.away = OSError("away")
    app = App("echo", [Echo([])], ADDRESS, resources=[cache.resource(required=False)])
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        assert life.ready
        assert life.status().missing == {"cache": "OSError: away"}
        life.hurry()


async def test_an_attempt_to_open_takes_no_longer_than_it_may() -> None:
    database = Dependency("database", [])
    database.opening_takes = 1e6
    app = App("echo", [Echo([])], ADDRESS, resources=[database.resource(open_timeout=2.0)])
    async with anyio.create_task_group() as tasks:
        begun = anyio.current_time()
        life = await tasks.start(Life(app).live)
        assert anyio.current_time() - begun == pytest.approx(2.0, abs=0.1)
        assert life.status().missing == {"database": "it did not open within 2.0 s"}
        life.hurry()


async def test_what_opens_too_late_is_not_taken_for_open() -> None:
    """A thread that migrates cannot be cancelled: the next attempt has less to do."""
    said: list[str] = []
    seconds = [3.0, 0.0]

    @asynccontextmanager
    async def late() -> AsyncIterator[str]:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(seconds.pop(0))
        said.append("opened")
        yield "value"
        said.append("closed in order")

    resource = Resource("database", late, open_timeout=2.0)
    app = App("echo", [Echo([])], ADDRESS, resources=[resource])
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        assert (life.ready, said) == (False, ["opened"])
        assert life.status().missing == {"database": "it did not open within 2.0 s"}
        await anyio.sleep(1.0)
        assert (life.ready, resource.get()) == (True, "value")
        life.stop()
    assert said == ["opened", "opened", "closed in order"]


async def test_stopping_while_it_starts_closes_what_is_open() -> None:
    said: list[str] = []
    first, second = Dependency("first", said), Dependency("second", said)
    second.opening_takes = 9.0
    app = App("echo", [Echo(said)], ADDRESS, resources=[first.resource(), second.resource()])
    life = Life(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(life.live)
        await anyio.sleep(1.0)
        assert life.phase is Phase.STARTING
        begun = anyio.current_time()
        life.stop()
    assert anyio.current_time() - begun < 0.1
    assert said == ["first opened", "first closed"]
    assert life.phase is Phase.STOPPED


async def test_hurry_cancels_calls_and_still_closes_in_order() -> None:
    said: list[str] = []
    first, second = Dependency("first", said), Dependency("second", said)
    echo, registry = Echo(said), Registry(said)
    echo.seconds = 1e6
    app = App(
        "echo",
        [echo],
        ADDRESS,
        resources=[first.resource(), second.resource()],
        registrar=registry,
        propagation=1000.0,
        grace=1000.0,
    )

    async def call(channel: Channel) -> None:
        with pytest.raises(RpcError):
            await EchoStub(channel).unary(EchoRequest())

    async with serving(app) as (life, channel, tasks):
        tasks.start_soon(call, channel)
        await echo.begun.wait()
        life.stop()
        await anyio.sleep(1.0)
        begun = anyio.current_time()
        life.hurry()
        await life.wait_stopped()
        assert anyio.current_time() - begun < 1.0
    assert said == [
        *("first opened", "second opened", "registered", "deregistered"),
        *("call cancelled", "second closed", "first closed"),
    ]


async def test_cancellation_from_outside_deregisters_and_closes_in_order() -> None:
    said: list[str] = []
    first, second = Dependency("first", said), Dependency("second", said)
    second.closing_takes = 0.5
    app = App(
        "echo",
        [Echo(said)],
        ADDRESS,
        resources=[first.resource(), second.resource()],
        registrar=Registry(said),
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(Life(app).live)
        tasks.cancel_scope.cancel()
    assert said == [
        *("first opened", "second opened", "registered"),
        *("deregistered", "second closed", "first closed"),
    ]


async def test_closing_takes_no_longer_than_it_may() -> None:
    said: list[str] = []
    first, second = Dependency("first", said), Dependency("second", said)
    second.closing_takes = 1e6
    resources = [first.resource(), second.resource(close_timeout=4.0)]
    app = App("echo", [Echo(said)], ADDRESS, resources=resources, propagation=0.0)
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        life.stop()
        begun = anyio.current_time()
    assert anyio.current_time() - begun == pytest.approx(4.0, abs=0.2)
    assert said[2:] == ["second closed by force", "first closed"]


async def test_a_setting_that_cannot_work_ends_the_start() -> None:
    """There is no use in trying again what can never work."""
    said: list[str] = []
    first, second = Dependency("first", said), Dependency("second", said)
    second.away = ConfigurationError("database url is empty")
    app = App("echo", [Echo(said)], ADDRESS, resources=[first.resource(), second.resource()])
    with pytest.raises(ConfigurationError, match="url is empty"):
        await Life(app).live()
    assert said == ["first opened", "first closed"]


async def test_an_address_for_clients_is_asked_for_if_it_listens_at_all() -> None:
    app = App("echo", [Echo([])], "0.0.0.0:0", registrar=MemoryRegistry())
    with pytest.raises(ConfigurationError, match="advertise"):
        await Life(app).live()


async def test_a_life_is_lived_once() -> None:
    life = Life(App("echo", [Echo([])], ADDRESS, propagation=0.0))
    async with anyio.create_task_group() as tasks:
        await tasks.start(life.live)
        life.stop()
    with pytest.raises(ClosedError):
        await life.live()


def test_settings_are_checked_when_they_are_made() -> None:
    with pytest.raises(ConfigurationError, match="grace"):
        App("echo", [], grace=-1.0)
    resource = Dependency("one", []).resource()
    with pytest.raises(ConfigurationError, match="name of their own"):
        App("echo", [], resources=[resource, resource])
    with pytest.raises(ConfigurationError, match="open_timeout"):
        Dependency("one", []).resource(open_timeout=0.0)
