"""A Consul that goes wrong by order: as a transport of httpx, in virtual time, or on a socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.abc
import h11
import httpx
from tests import listener as sockets

#: What reliability asks for: each of them ends as it began, without a word.
FAULTS = (
    "backwards",
    "zero",
    "error",
    "hang",
    "cut",
    "garbage",
    "empty",
    "restart",
    "stale",
    "flap",
    "slow",
    "dropped",
)


@dataclass
class Reply:
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    #: Bytes after which the connection breaks.
    breaks_after: int | None = None


class RefusedError(Exception):
    """Nobody listens."""


class DeadError(Exception):
    """The connection broke before there was an answer."""


def entry(address: str, *checks: str, **service: Any) -> dict[str, Any]:
    """An instance as Consul lists it, with the statuses of its checks."""
    host, _, port = address.rpartition(":")
    named = service.pop("name", "users")
    identity = service.pop("id", f"{named}-{port}")
    return {
        "Node": {"Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc1", "Meta": None},
        "Service": {
            "ID": identity,
            "Service": named,
            "Address": host,
            "Port": int(port),
            "Tags": [],
            "Meta": {},
            "Weights": {"Passing": 1, "Warning": 1},
            **service,
        },
        "Checks": [
            {
                "Node": "n1",
                "CheckID": f"check-{number}",
                "Status": status,
                "ServiceID": identity,
                "ServiceName": named,
            }
            for number, status in enumerate(checks or ("passing",))
        ],
    }


class FakeConsul:
    """Knows services, answers by blocking queries, and misbehaves while :attr:`fault` says so."""

    def __init__(self) -> None:
        self.services: dict[str, list[dict[str, Any]]] = {}
        self.index = 100
        self.fault: str | None = None
        #: Time, path and index of each request.
        self.requests: list[tuple[float, str, int]] = []
        self.blocked = self.most_blocked = 0
        self._changed = anyio.Event()
        self._kicked = anyio.Event()
        self._turn = 0

    def set(self, name: str, *instances: dict[str, Any]) -> None:
        """Change a service."""
        self.services[name] = list(instances)
        self.index += 1
        self._wake()

    def begin(self, fault: str) -> None:
        """Go wrong, also towards those that wait."""
        self.fault = fault
        kicked, self._kicked = self._kicked, anyio.Event()
        kicked.set()

    def recover(self) -> None:
        """Go right. What was asked meanwhile and hangs, hangs for ever."""
        self.index = 10 if self.fault == "restart" else self.index + 1
        self.fault = None
        self._wake()

    def since(self, time: float) -> list[float]:
        """When requests came after some time."""
        return [at for at, _, _ in self.requests if at >= time]

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def answer(self, target: str) -> Reply:
        """Answer a request.

        :raises RefusedError: if nobody listens
        :raises DeadError: if the connection breaks
        """
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        index = int(query.get("index", ["0"])[0])
        self.requests.append((anyio.current_time(), parts.path, index))
        if self.fault is None and index >= self.index:
            self.blocked += 1
            self.most_blocked = max(self.most_blocked, self.blocked)
            wait = float(query["wait"][0].removesuffix("ms")) / 1000
            try:
                await self._block(index, wait)
            finally:
                self.blocked -= 1
            if self.fault in {"hang", "restart", "dropped"}:
                raise DeadError  # as keepalive finds out, or a reset tells
        if self.fault is not None:
            return await self._misbehave(self.fault, parts.path, index)
        return self._reply(self._content(parts.path), self.index)

    async def _block(self, index: int, wait: float) -> None:
        kicked = self._kicked
        with anyio.move_on_after(wait):
            while index >= self.index and not kicked.is_set():
                async with anyio.create_task_group() as tasks:

                    async def watch(event: anyio.Event) -> None:
                        await event.wait()
                        tasks.cancel_scope.cancel()

                    tasks.start_soon(watch, kicked)
                    tasks.start_soon(watch, self._changed)

    def _content(self, path: str) -> list[dict[str, Any]]:
        if path.startswith("/v1/health/service/"):
            return self.services.get(path.rpartition("/")[2], [])
        if path == "/v1/health/state/any":
            return [
                each for all_ in self.services.values() for one in all_ for each in one["Checks"]
            ]
        raise AssertionError(path)

    def _reply(self, content: object, index: int, **headers: str) -> Reply:
        told = [
            ("x-consul-index", str(index)),
            *((k.replace("_", "-"), v) for k, v in headers.items()),
        ]
        return Reply(200, told, json.dumps(content).encode())

    async def _misbehave(self, fault: str, path: str, index: int) -> Reply:
        self._turn += 1
        content = self._content(path)
        good = self._reply(content, self.index)
        match fault:
            case "backwards":
                return self._reply(content, max(50 - self._turn, 1))
            case "zero":
                return self._reply(content, 0)
            case "error":
                return Reply(500, [], b"rpc error: No cluster leader")
            case "hang":
                await anyio.sleep_forever()
            case "cut":
                return Reply(200, good.headers, good.body[: len(good.body) // 2])
            case "garbage":
                return Reply(200, good.headers, b"<html>\x00\xff please log in </html>")
            case "empty":
                self.index += 1
                return self._reply([], self.index)
            case "restart":
                raise RefusedError
            case "stale":
                return self._reply([], self.index, x_consul_lastcontact="3600000")
            case "flap":
                self.index += 1
                return self._reply(content[:1] if self._turn % 2 else content, self.index)
            case "slow":
                await anyio.sleep(3)
                return good
            case "dropped":
                if self._turn % 2:
                    raise DeadError
                return Reply(200, good.headers, good.body, breaks_after=len(good.body) // 2)
        raise AssertionError(fault)


class Transport(httpx.AsyncBaseTransport):
    """Asks a fake without a socket, so that time can be virtual."""

    def __init__(self, consul: FakeConsul) -> None:
        self.consul = consul

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            reply = await self.consul.answer(request.url.raw_path.decode())
        except RefusedError as error:
            raise httpx.ConnectError("connection refused") from error
        except DeadError as error:
            raise httpx.ReadError("connection reset") from error
        return httpx.Response(reply.status, headers=reply.headers, stream=_Stream(reply))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._reply.breaks_after is not None:
            yield self._reply.body[: self._reply.breaks_after]
            raise httpx.RemoteProtocolError("peer closed connection without the whole body")
        yield self._reply.body


@asynccontextmanager
async def speaking(
    speak: Callable[[anyio.abc.SocketStream], Awaitable[None]], port: int = 0
) -> AsyncIterator[str]:
    """A server that says what it likes: its address."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream, DeadError, RefusedError):
            await speak(stream)

    async with sockets.listening(serve, port) as port:
        yield f"http://127.0.0.1:{port}"


def listening(consul: FakeConsul, port: int = 0) -> AbstractAsyncContextManager[str]:
    """Serve a fake on a socket: its address."""
    return speaking(lambda stream: _converse(consul, stream), port)


async def _converse(consul: FakeConsul, stream: anyio.abc.SocketStream) -> None:
    while True:
        machine = h11.Connection(h11.SERVER)
        request: h11.Request | None = None
        while True:
            event = machine.next_event()
            if event is h11.NEED_DATA:
                machine.receive_data(await stream.receive())
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return
        assert request is not None
        reply = await consul.answer(request.target.decode())
        head = h11.Response(
            status_code=reply.status,
            headers=[*reply.headers, ("content-length", str(len(reply.body)))],
        )
        await stream.send(machine.send(head) or b"")
        await stream.send(reply.body[: reply.breaks_after])
        if reply.breaks_after is not None:
            return
