"""The barrier in SQLite, and what tells a service which step it is called for."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import sqlalchemy as sa
from tests.generated import echo_bascule, echo_pb2
from tests.unit.saga.barriers import METADATA, STOCK, BarrierRules, Shop

from bascule.errors import RpcError, Status
from bascule.saga import (
    MemorySagaLog,
    Saga,
    SagaCall,
    SagaClientInterceptor,
    SagaCoordinator,
    SagaFailedError,
    StepCall,
    saga_call,
)
from bascule.sql import Database
from bascule.testing import memory_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


class TestSqliteBarrier(BarrierRules):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'shop.db'}"

    @asynccontextmanager
    async def shop(self) -> AsyncIterator[Shop]:
        async with Database(self.url, METADATA) as database:
            stock = sa.insert(STOCK).values(id=1, left=10)
            await database.write(lambda connection: connection.execute(stock))
            yield Shop(database)


class Context(msgspec.Struct, frozen=True):
    pass


class Told(echo_bascule.EchoBase):
    """Notes which step it is called for."""

    def __init__(self) -> None:
        self.calls: list[SagaCall | None] = []

    async def unary(self, request: echo_pb2.EchoRequest) -> echo_pb2.EchoReply:
        self.calls.append(saga_call())
        return echo_pb2.EchoReply()

    async def server_stream(
        self, request: echo_pb2.EchoRequest
    ) -> AsyncIterator[echo_pb2.EchoReply]:
        self.calls.append(saga_call())
        yield echo_pb2.EchoReply()


async def test_a_service_is_told_the_step_that_calls_it() -> None:
    service = Told()
    async with memory_channel(service, interceptors=[SagaClientInterceptor()]) as channel:
        stub = echo_bascule.EchoStub(channel)

        async def act(_context: Context, _call: StepCall) -> None:
            await stub.unary(echo_pb2.EchoRequest())
            async with stub.server_stream(echo_pb2.EchoRequest()) as replies:
                assert [reply async for reply in replies] == [echo_pb2.EchoReply()]
            raise ValueError

        async def undo(_context: Context, _call: StepCall) -> None:
            await stub.unary(echo_pb2.EchoRequest())

        saga = Saga("told", Context).step("only", act, undo)
        await stub.unary(echo_pb2.EchoRequest())
        with pytest.raises(SagaFailedError):
            await SagaCoordinator(MemorySagaLog()).run(saga, Context(), saga_id="s1")
        await stub.unary(echo_pb2.EchoRequest())
    action, undo_call = SagaCall("s1", "only", "action"), SagaCall("s1", "only", "undo")
    assert service.calls == [None, action, action, undo_call, None]
    assert action.key == StepCall(saga_id="s1", step="only").idempotency_key


@pytest.mark.parametrize(
    "metadata",
    [
        {"saga-id": "s"},
        {"saga-id": "s", "saga-step": "a"},
        {"saga-step": "a", "saga-op": "action"},
        {"saga-id": "s", "saga-step": "a", "saga-op": "redo"},
        {"saga-id": "x" * 129, "saga-step": "a", "saga-op": "undo"},
    ],
)
async def test_metadata_that_names_no_step_is_refused(metadata: dict[str, str]) -> None:
    async with memory_channel(Told()) as channel:
        with pytest.raises(RpcError, match="malformed") as caught:
            await echo_bascule.EchoStub(channel).unary(echo_pb2.EchoRequest(), metadata=metadata)
    assert caught.value.status is Status.INVALID_ARGUMENT
