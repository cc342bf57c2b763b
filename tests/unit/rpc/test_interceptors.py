"""What interceptors see on either side, and what they may change."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest
from tests.unit.rpc.services import Echo

from bascule.errors import RpcError, Status
from bascule.rpc import ClientInterceptor, ServerInterceptor, call_context
from bascule.testing import memory_channel

pytestmark = pytest.mark.anyio


class Record(ServerInterceptor):
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    async def unary(self, call, request, proceed):
        self.log.append(f"{self.name} in {call.method}")
        call.state["user"] = call.metadata.get("x-user")
        try:
            return await proceed(request)
        except RpcError as error:
            self.log.append(f"{self.name} saw {error.status.name}")
            raise
        finally:
            self.log.append(f"{self.name} out")

    async def stream(self, call, stream, proceed):
        self.log.append(f"{self.name} stream in")
        await proceed(stream)
        self.log.append(f"{self.name} stream out")


async def test_the_first_interceptor_is_the_outermost() -> None:
    log: list[str] = []
    around = [Record("a", log), Record("b", log)]
    async with memory_channel(Echo(), server_interceptors=around) as channel:
        await EchoStub(channel).unary(EchoRequest())
        assert log == ["a in /echo.Echo/Unary", "b in /echo.Echo/Unary", "b out", "a out"]
        log.clear()
        async with EchoStub(channel).server_stream(EchoRequest(replies=1)) as replies:
            assert [reply.number async for reply in replies] == [0]
        assert log == ["a stream in", "b stream in", "b stream out", "a stream out"]


async def test_an_interceptor_sees_the_status_of_a_failure() -> None:
    log: list[str] = []
    async with memory_channel(Echo(), server_interceptors=[Record("a", log)]) as channel:
        request = EchoRequest()
        request.failure.code, request.failure.message = 5, "no such thing"
        with pytest.raises(RpcError, match="no such thing") as raised:
            await EchoStub(channel).unary(request)
        assert raised.value.status is Status.NOT_FOUND
    assert "a saw NOT_FOUND" in log


async def test_an_interceptor_may_refuse() -> None:
    class Refuse(ServerInterceptor):
        async def unary(self, call, request, proceed):
            raise RpcError(Status.PERMISSION_DENIED, f"not for {call.peer.split(':')[0]}")

    echo = Echo()
    async with memory_channel(echo, server_interceptors=[Refuse()]) as channel:
        with pytest.raises(RpcError, match="not for memory") as raised:
            await EchoStub(channel).unary(EchoRequest())
    assert raised.value.status is Status.PERMISSION_DENIED
    assert echo.begun == 0


class Sign(ClientInterceptor):
    def __init__(self) -> None:
        self.seen: list[object] = []

    async def unary(self, call, request, proceed):
        call.metadata.add("x-user", "ada")
        call.metadata.add("x-token-bin", b"\x00\xff")
        reply = await proceed(request)
        self.seen += [call.method, call.peer, call.trailing_metadata.get("x-handled-by")]
        return reply

    @asynccontextmanager
    async def stream(self, call):
        call.metadata.add("x-user", "ada")
        yield
        self.seen.append(call.trailing_metadata.getall("x-end"))


class Tell(EchoBase):
    async def unary(self, request: EchoRequest) -> EchoReply:
        metadata = call_context().metadata
        call_context().trailing_metadata.add("x-handled-by", "tell")
        assert metadata["x-token-bin"] == b"\x00\xff"
        return EchoReply(text=str(metadata["x-user"]))

    async def server_stream(self, request: EchoRequest):
        call_context().trailing_metadata.extend([("x-end", "1"), ("x-end", "2")])
        yield EchoReply(text=str(call_context().metadata["x-user"]))


async def test_a_client_interceptor_sees_and_changes_metadata() -> None:
    sign = Sign()
    async with memory_channel(Tell(), interceptors=[sign]) as channel:
        assert (await EchoStub(channel).unary(EchoRequest())).text == "ada"
        async with EchoStub(channel).server_stream(EchoRequest()) as replies:
            assert [reply.text async for reply in replies] == ["ada"]
    method, peer, handled_by, end = sign.seen
    assert method == "/echo.Echo/Unary"
    assert str(peer).startswith("memory:testing-")
    assert (handled_by, end) == ("tell", ["1", "2"])


async def test_a_client_interceptor_may_call_again() -> None:
    class Again(ClientInterceptor):
        async def unary(self, call, request, proceed):
            await proceed(request)
            return await proceed(request)

    echo = Echo()
    async with memory_channel(echo, interceptors=[Again()]) as channel:
        assert (await EchoStub(channel).unary(EchoRequest(text="x"))).text == "x"
    assert echo.begun == 2


async def test_a_handlers_bug_is_not_told_to_the_client(caplog) -> None:
    class Broken(EchoBase):
        async def unary(self, request: EchoRequest) -> EchoReply:
            raise KeyError("secret")

    async with memory_channel(Broken()) as channel:
        with pytest.raises(RpcError) as raised:
            await EchoStub(channel).unary(EchoRequest())
    assert raised.value.status is Status.UNKNOWN
    assert "secret" not in str(raised.value)
    assert "secret" in caplog.text


async def test_metadata_that_cannot_be_sent_is_refused_by_name() -> None:
    async with memory_channel(Echo()) as channel:
        stub = EchoStub(channel)
        for bad, reason in [
            ({"x-data": b"bytes"}, "-bin"),
            ({"x-data-bin": "text"}, "takes bytes"),
            ({"grpc-timeout": "1S"}, "reserved"),
            ({"sp ace": "x"}, "characters"),
            ({"x-text": "caf\u00e9"}, "ASCII"),
        ]:
            with pytest.raises(ValueError, match=reason):
                await stub.unary(EchoRequest(), metadata=bad)
        assert (await stub.unary(EchoRequest(text="alive"))).text == "alive"
