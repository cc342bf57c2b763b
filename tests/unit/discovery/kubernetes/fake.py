"""An API server that does what the test tells it to, over a real socket."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import anyio
from tests.listener import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import SocketStream


def endpoint(address: str, **fields: Any) -> dict[str, Any]:
    return {"addresses": [address], "conditions": {"ready": True}, **fields}


def endpoint_slice(
    name: str,
    *endpoints: dict[str, Any],
    ports: Any = None,
    family: str = "IPv4",
    version: str = "1",
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": version},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": "grpc", "port": 50051}] if ports is None else ports,
    }


class FakeKube:
    """Lists what :attr:`slices` has; watches give what :meth:`send` is told.

    :ivar requests: the query of each request, and the token that came with it
    :ivar lists: answers (status, document or bytes) for the next lists, instead of the true one
    :ivar watches: the same for the next watches: status and lines; then they end
    """

    def __init__(self) -> None:
        self.slices: list[dict[str, Any]] = []
        self.version = "100"
        self.requests: list[tuple[dict[str, str], str]] = []
        self.lists: list[tuple[int, Any]] = []
        self.watches: list[tuple[int, list[Any]]] = []
        self.refusing = False
        self.url = ""
        self._streams: set[SocketStream] = set()
        self._watches = 0
        self._changed = anyio.Event()

    @property
    def watched_from(self) -> list[str]:
        return [query["resourceVersion"] for query, _ in self.requests if "watch" in query]

    @property
    def listed(self) -> int:
        return sum("watch" not in query for query, _ in self.requests)

    async def until_watched(self, count: int) -> None:
        """Wait until so many watches have begun."""
        with anyio.fail_after(20):
            while self._watches < count:
                await self._changed.wait()

    async def send(self, kind: str, obj: Any) -> None:
        """Tell all watches an event."""
        await self.send_raw(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    async def send_raw(self, data: bytes) -> None:
        for stream in tuple(self._streams):
            await stream.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end_watches(self) -> None:
        """As the server does after timeoutSeconds."""
        for stream in tuple(self._streams):
            self._streams.discard(stream)
            await stream.send(b"0\r\n\r\n")

    async def drop(self) -> None:
        """Break all watches midway."""
        for stream in tuple(self._streams):
            self._streams.discard(stream)
            await stream.aclose()

    async def serve(self, stream: SocketStream) -> None:
        try:
            async with stream:
                if not self.refusing:
                    await self._answer(stream)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            pass
        finally:
            self._streams.discard(stream)

    async def _answer(self, stream: SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive()
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        query = {
            name: values[0]
            for name, values in parse_qs(urlsplit(lines[0].split()[1]).query).items()
        }
        self.requests.append((query, headers.get("authorization", "")))
        if "watch" in query:
            await self._watch(stream)
        else:
            document = {"metadata": {"resourceVersion": self.version}, "items": self.slices}
            status, body = self.lists.pop(0) if self.lists else (200, document)
            await self._send(stream, status, body)

    async def _watch(self, stream: SocketStream) -> None:
        if self.watches:
            status, lines = self.watches.pop(0)
            body = b"".join(
                each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n"
                for each in lines
            )
            await self._send(stream, status, body)
            self._begin()
            return
        await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        self._streams.add(stream)
        self._begin()
        await stream.receive()

    def _begin(self) -> None:
        self._watches += 1
        self._changed.set()
        self._changed = anyio.Event()

    async def _send(self, stream: SocketStream, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
        await stream.send(head.encode() + data)


@asynccontextmanager
async def fake_kube() -> AsyncIterator[FakeKube]:
    fake = FakeKube()
    async with listening(fake.serve) as port:
        fake.url = f"http://127.0.0.1:{port}"
        yield fake
