"""What programs see of gRPC-Web and Connect: settings, and calls like any other."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from tests.generated import echo_pb2
from tests.interop.echo import BasculeGoogle, Behaviour

from bascule.errors import ConfigurationError
from bascule.rpc import (
    Cardinality,
    Method,
    MethodHandler,
    Server,
    ServerInterceptor,
    WebSettings,
    call_context,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

ECHO = Method("/echo.Echo/Unary", Cardinality.UNARY_UNARY, echo_pb2.EchoRequest, echo_pb2.EchoReply)


class Service:
    """One method by a function."""

    def __init__(self, function: Any, method: Any = ECHO) -> None:
        self._handler = MethodHandler.unary(method, function)
        self._path = method.path

    def __mapping__(self) -> dict[str, MethodHandler]:
        return {self._path: self._handler}


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{server.addresses[0]}", timeout=30) as client:
        yield client


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"allow_origins": "https://a"}, "expected a tuple"),
        ({"allow_origins": ("a.example",)}, "expected scheme://host"),
        ({"allow_origins": ("https://a.example/",)}, "expected scheme://host"),
        ({"allow_origins": ("https://A.example",)}, "lower case"),
        ({"allow_origins": ("*",), "allow_credentials": True}, "name the origins"),
        ({"max_age": -1.0}, "max_age"),
        ({"max_age": float("inf")}, "max_age"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        WebSettings(**options)


async def test_a_call_is_the_same_for_interceptors_contexts_and_counters() -> None:
    seen: dict[str, Any] = {}

    class Interceptor(ServerInterceptor):
        async def unary(self, call: Any, request: Any, proceed: Any) -> Any:
            seen["intercepted"] = request.text
            return await proceed(request)

    async def echo(request: echo_pb2.EchoRequest) -> echo_pb2.EchoReply:
        context = call_context()
        seen["method"] = context.method
        seen["peer"] = context.peer.partition(":")[0]
        seen["metadata"] = context.metadata["x-own"], context.metadata["x-own-bin"]
        seen["has_deadline"] = 0 < context.time_left <= 20
        await context.send_initial_metadata([("x-initial", "early")])
        context.trailing_metadata.add("x-trailing", "late")
        return echo_pb2.EchoReply(text=request.text)

    async with Server([Service(echo)], interceptors=[Interceptor()], web=WebSettings()) as server:
        async with client_of(server) as client:
            headers = {"x-own": "1", "x-own-bin": "AP8", "connect-timeout-ms": "20000"}
            answer = await client.post(ECHO.path, json={"text": "hi"}, headers=headers)
        rows = server.stats.snapshot()
    assert (answer.status_code, answer.json()) == (200, {"text": "hi"})
    assert answer.headers["x-initial"] == "early"
    assert answer.headers["trailer-x-trailing"] == "late"
    assert seen == {
        "intercepted": "hi",
        "method": "/echo.Echo/Unary",
        "peer": "127.0.0.1",
        "metadata": ("1", b"\0\xff"),
        "has_deadline": True,
    }
    assert [(row[0], row[1], row[2]) for row in rows] == [("echo.Echo", "Unary", [("OK", 1)])]


@pytest.mark.parametrize(
    "document", ["", "[]", "{", '{"text":1}', '{"text":"a","text":"b"}', "[" * 1000]
)
async def test_a_document_that_does_not_fit_is_an_invalid_argument(document: str) -> None:
    async with (
        Server([BasculeGoogle(Behaviour())], web=WebSettings()) as server,
        client_of(server) as client,
    ):
        headers = {"content-type": "application/json"}
        answer = await client.post(ECHO.path, content=document, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
        assert "echo.EchoRequest" in answer.json()["message"]
        later = {"text": "a", "unknown": {"deep": [1]}}
        answer = await client.post(ECHO.path, json=later)
        assert answer.json() == {"text": "a"}, "a client may know more than the server"


async def test_messages_that_are_bytes_have_no_json() -> None:
    async def pass_on(request: bytes) -> bytes:
        return request

    method = Method("/raw.Raw/PassOn", Cardinality.UNARY_UNARY, bytes, bytes)
    service = Service(pass_on, method)
    async with Server([service], web=WebSettings()) as server, client_of(server) as client:
        answer = await client.post(method.path, json={})
        assert (answer.status_code, answer.json()["code"]) == (501, "unimplemented")
        headers = {"content-type": "application/proto"}
        answer = await client.post(method.path, content=b"raw", headers=headers)
        assert answer.content == b"raw"


async def test_the_drain_waits_for_a_call_over_http1() -> None:
    begun, go_on = anyio.Event(), anyio.Event()
    answers: list[httpx.Response] = []

    async def wait(request: echo_pb2.EchoRequest) -> echo_pb2.EchoReply:
        begun.set()
        await go_on.wait()
        return echo_pb2.EchoReply(text="done")

    async with Server([Service(wait)], web=WebSettings()) as server, client_of(server) as client:

        async def call() -> None:
            answers.append(await client.post(ECHO.path, json={}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await begun.wait()
            tasks.start_soon(server.drain)
            await anyio.wait_all_tasks_blocked()
            go_on.set()
    assert answers[0].json() == {"text": "done"}
    assert answers[0].headers["connection"] == "close"


def search() -> tuple[Any, Any]:
    """Request and reply of a service, one of whose methods says that it has no side effects."""
    file = descriptor_pb2.FileDescriptorProto(name="search.proto", package="s", syntax="proto3")
    file.message_type.add(name="Query").field.add(
        name="text",
        json_name="text",
        number=1,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )
    service = file.service.add(name="Search")
    for name in ("Find", "Change"):
        service.method.add(name=name, input_type=".s.Query", output_type=".s.Query")
    service.method[0].options.idempotency_level = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    kind = GetMessageClass(pool.FindMessageTypeByName("s.Query"))
    return tuple(
        Method(f"/s.Search/{name}", Cardinality.UNARY_UNARY, kind, kind)
        for name in ("Find", "Change")
    )


async def test_get_calls_what_is_declared_to_have_no_side_effects() -> None:
    async def echo(request: Any) -> Any:
        return request

    find, change = search()
    services = [Service(echo, find), Service(echo, change)]
    async with Server(services, web=WebSettings()) as server, client_of(server) as client:
        query = {"connect": "v1", "encoding": "json", "message": json.dumps({"text": "a+b c"})}
        answer = await client.get(find.path, params=query)
        assert (answer.status_code, answer.json()) == (200, {"text": "a+b c"})
        answer = await client.get(change.path, params=query)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_server_without_settings_serves_grpc_only() -> None:
    async with Server([BasculeGoogle(Behaviour())]) as server, client_of(server) as client:
        with pytest.raises(httpx.TransportError):
            await client.post(ECHO.path, json={})
