"""What parts of bascule tell of themselves, and that they say nothing where nobody asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import msgspec
import pytest
import sqlalchemy as sa
from opentelemetry.trace import SpanKind
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.tracing import Spans, context_of, exceptions_of, is_child, recorded, status_of
from tests.unit.rpc.scripted import ANSWER, FAIL, Scripted, configured

from bascule.app import App, Life
from bascule.discovery.consul import ConsulClient
from bascule.errors import DatabaseUnavailableError, RpcError
from bascule.observe import current_tracer, span
from bascule.resilience import RedisClient
from bascule.rpc import Channel, MethodConfig, RetryPolicy, Server
from bascule.saga import MemorySagaLog, Saga, SagaCoordinator, SagaFailedError, StepCall
from bascule.sql import Database

pytestmark = pytest.mark.anyio

METADATA = sa.MetaData()
NOTES = sa.Table("notes", METADATA, sa.Column("text", sa.String(20), primary_key=True))
SECRET = "4711-secret"


async def test_a_transaction_is_a_span_and_shows_no_values(tmp_path: Path) -> None:
    def refuse(connection: sa.Connection) -> None:
        raise LookupError(SECRET)

    insert = sa.insert(NOTES).values(text=SECRET)
    async with recorded() as spans, Database(f"sqlite:///{tmp_path}/notes.db", METADATA) as notes:
        # By itself it is no trace: what polls a database would fill them.
        await notes.ping()
        assert await spans.all() == ()
        with span("work"):
            await notes.write(lambda connection: connection.execute(insert))
            with pytest.raises(sa.exc.IntegrityError):
                await notes.write(lambda connection: connection.execute(insert))
            with pytest.raises(LookupError):
                await notes.write(refuse)
            with pytest.raises(sa.exc.OperationalError):
                await notes.read(lambda connection: connection.execute(sa.text("SELECT 1 FRM x")))
        *writes, read, work = await spans.all()
    assert [each.name for each in writes] == ["write notes.db"] * 3
    assert read.name == "read notes.db"
    for each in (*writes, read):
        assert is_child(each, work)
        assert each.kind is SpanKind.CLIENT
        assert each.attributes is not None
        assert each.attributes["db.system"] == "sqlite"
        assert SECRET not in each.to_json()
    # A constraint, and the function itself, have said no: the database did as it was told.
    assert [status_of(each) for each in (*writes, read)] == ["UNSET"] * 3 + ["ERROR"]
    assert [exceptions_of(each) for each in (*writes, read)] == [[], [], [], []]


async def test_a_database_that_is_away_has_failed(tmp_path: Path) -> None:
    async with recorded() as spans, Database(f"sqlite:///{tmp_path}/no/notes.db") as notes:
        with span("work"), pytest.raises(DatabaseUnavailableError):
            await notes.ping()
        failed, work = await spans.all()
    assert status_of(failed) == "ERROR"
    assert exceptions_of(failed) == ["bascule.errors.DatabaseUnavailableError"]
    assert status_of(work) == "UNSET"


class Context(msgspec.Struct, frozen=True):
    done: int = 0


class Steps:
    """Two steps, the second of which may fail."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    async def act(self, context: Context, call: StepCall) -> Mapping[str, Any]:
        if self.broken and call.step == "second":
            raise ValueError("no")
        return {"done": context.done + 1}

    async def undo(self, context: Context, call: StepCall) -> None: ...

    def saga(self) -> Saga[Context]:
        made = Saga("order", Context).step("first", self.act, self.undo)
        return made.step("second", self.act, self.undo)


async def test_a_saga_is_a_span_and_so_is_each_step() -> None:
    async with recorded() as spans:
        await SagaCoordinator(MemorySagaLog()).run(Steps().saga(), Context(), saga_id="o-1")
        first, second, run = await spans.all()
    assert [each.name for each in (first, second, run)] == [
        "step first",
        "step second",
        "saga order",
    ]
    for each in (first, second):
        assert is_child(each, run)
        assert each.attributes is not None
        assert each.attributes["saga.id"] == "o-1"


async def test_a_step_that_fails_is_undone_in_the_same_trace() -> None:
    async with recorded() as spans:
        with pytest.raises(SagaFailedError):
            await SagaCoordinator(MemorySagaLog()).run(Steps(broken=True).saga(), Context())
        *steps, run = await spans.all()
    assert [each.name for each in steps] == [
        *("step first", "step second"),
        *("undo second", "undo first"),
    ]
    assert [status_of(each) for each in (*steps, run)] == [
        *("UNSET", "ERROR", "UNSET", "UNSET"),
        "ERROR",
    ]
    assert exceptions_of(steps[1]) == ["ValueError"]
    assert exceptions_of(run) == []


async def test_a_run_that_another_process_goes_on_with_has_a_link_to_its_beginning() -> None:
    log = MemorySagaLog()
    begun = anyio.Event()

    class Interrupted(Steps):
        async def act(self, context: Context, call: StepCall) -> Mapping[str, Any]:
            if call.step == "second":
                begun.set()
                raise KilledError
            return {"done": 1}

    async with recorded() as spans:
        coordinator = SagaCoordinator(log, lease=0.05)
        with pytest.raises(KilledError):
            await coordinator.run(Interrupted().saga(), Context(), saga_id="o-1")
        first = await spans.one("saga order")
        await anyio.sleep(0.06)
        with pytest.raises(SagaFailedError):
            await SagaCoordinator(log).resume(Steps().saga(), "o-1")
        resumed = await spans.one("resume saga order")
    assert resumed.parent is None
    (link,) = resumed.links
    assert link.context.span_id == int(context_of(first).span_id, 16)


class KilledError(BaseException):
    """The process ends here."""


async def test_attempts_that_failed_are_events_of_the_calls_span() -> None:
    policy = RetryPolicy(max_attempts=3, initial_backoff=0.001, max_backoff=0.002)
    service = Scripted(FAIL, FAIL, ANSWER)
    async with (
        recorded() as spans,
        Server([service]) as server,
        Channel(server.addresses[0]) as channel,
    ):
        configured(channel, MethodConfig(retry=policy))
        await EchoStub(channel).unary(EchoRequest(text="x"))
        *handled, asked = await spans.until(4)
    assert all(is_child(each, asked) for each in handled)
    assert [dict(event.attributes or {}) for event in asked.events] == [
        {"rpc.attempt": 1, "rpc.grpc.status": "UNAVAILABLE"},
        {"rpc.attempt": 2, "rpc.grpc.status": "UNAVAILABLE"},
    ]
    assert status_of(asked) == "UNSET"
    assert asked.attributes is not None
    assert asked.attributes["server.address"] == "127.0.0.1"
    assert asked.attributes["server.port"] == int(server.addresses[0].rpartition(":")[2])


class Nothing(httpx.AsyncByteStream):
    """What Consul answers."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"[]"


async def test_consul_is_asked_in_a_span_where_there_is_a_trace() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Nothing()))
    async with (
        recorded() as spans,
        ConsulClient("http://consul.example:8500", transport=transport) as consul,
    ):
        await consul.kv.get("a/b")
        with span("work"):
            await consul.kv.get("a/b")
        asked, work = await spans.all()
    assert is_child(asked, work)
    assert asked.name == "consul GET"
    assert asked.attributes is not None
    assert asked.attributes["server.address"] == "consul.example"
    assert asked.attributes["url.path"] == "/v1/kv/a/b"


async def test_redis_is_asked_in_a_span_that_shows_no_keys_and_no_values(redis_url: str) -> None:
    async with recorded() as spans, RedisClient(redis_url) as redis:
        await redis.call("SET", SECRET, SECRET)
        with span("work"):
            await redis.call("GET", SECRET)
        asked, work = await spans.all()
    assert is_child(asked, work)
    assert (asked.name, asked.kind) == ("GET", SpanKind.CLIENT)
    assert asked.attributes is not None
    assert asked.attributes["db.system"] == "redis"
    assert SECRET not in asked.to_json()


class Echo(EchoBase):
    tracer: object = None

    async def unary(self, request: EchoRequest) -> EchoReply:
        self.tracer = current_tracer()
        if request.text == "fail":
            raise ValueError("no")
        return EchoReply()


async def test_an_app_is_traced_by_the_tracer_it_is_given_until_it_ends() -> None:
    spans, echo = Spans(), Echo()
    app = App("echo", [echo], listen="memory:traced", propagation=0.0, tracing=spans.tracer)
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        async with Channel("memory:traced") as channel:
            await EchoStub(channel).unary(EchoRequest())
            with pytest.raises(RpcError):
                await EchoStub(channel).unary(EchoRequest(text="fail"))
        life.stop()
    assert echo.tracer is spans.tracer
    assert current_tracer() is None
    # All of it was sent when it ended.
    good, bad = spans.exporter.get_finished_spans()
    assert [exceptions_of(each) for each in (good, bad)] == [[], ["ValueError"]]


@pytest.mark.parametrize("tracing", [True, False])
async def test_an_app_records_nothing_unless_it_is_asked_to(tracing: bool) -> None:
    echo = Echo()
    app = App("echo", [echo], listen="memory:silent", propagation=0.0, tracing=tracing)
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        async with Channel("memory:silent") as channel:
            await EchoStub(channel).unary(EchoRequest())
        life.stop()
    assert echo.tracer is None


async def test_an_app_is_traced_by_what_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    echo = Echo()
    app = App("echo", [echo], listen="memory:asked", propagation=0.0)
    async with anyio.create_task_group() as tasks:
        life = await tasks.start(Life(app).live)
        async with Channel("memory:asked") as channel:
            await EchoStub(channel).unary(EchoRequest())
        life.stop()
    assert getattr(echo.tracer, "service", None) == "echo"
