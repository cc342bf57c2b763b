"""Requests to Consul: bounded in size, in time and in sockets, with one kind of errors."""

from __future__ import annotations

import socket
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import anyio
import httpx
import msgspec

from bascule.discovery.consul._errors import (
    ConsulAnswerError,
    ConsulDeniedError,
    ConsulStatusError,
    ConsulUnavailableError,
)
from bascule.errors import ClosedError, ConfigurationError
from bascule.observe import SpanKind, span, tracer_variable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from bascule.discovery.consul._settings import ConsulSettings
    from bascule.observe import AttributeValue

__all__ = ["Answer", "Http"]

T = TypeVar("T")
Params = dict[str, str | list[str]]

#: Seconds for a request that does not block.
TIMEOUT = 10.0

#: Requests at once that do not block; more wait for their turn.
MOST_AT_ONCE = 16

#: Bytes of an answer. The largest value of a key is 512 KiB.
LARGEST = 64 * 1024 * 1024

#: A peer that is gone without a word is noticed after 15 + 3 * 5 seconds, not at the end of a wait.
_KEEPALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
]


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What Consul said.

    :ivar index: for the next blocking query; None if it came without one
    :ivar last_contact: seconds since the server that answered heard of its leader; only stale answers
        have more than 0. (``X-Consul-KnownLeader`` is of no use: it is false for whatever comes
        from Consul's streaming backend, as issue 9776 of hashicorp/consul says)
    """

    value: T
    index: int | None
    last_contact: float = 0.0


class Http:
    """One pool of connections for requests, another one for those that block.

    Two pools, so that neither waits for the other: a client whose blocking queries have taken all
    connections must still be able to renew a session.

    :param polls: blocking queries at once, each of which takes a connection
    :param transport: in place of sockets, for tests
    """

    def __init__(
        self,
        settings: ConsulSettings,
        *,
        polls: int,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self._context = settings.context()
        self._headers = settings.headers()
        for name, value in self._headers.items():
            if not value.isascii() or not value.isprintable():
                raise ConfigurationError(f"{name}: expected printable ASCII, without line ends")
        self._polls = polls
        self._transport = transport
        self._clients: tuple[httpx.AsyncClient, httpx.AsyncClient] | None = None
        self._turns: anyio.CapacityLimiter
        self._extensions: dict[str, Any] = {}
        if settings.tls is not None and settings.tls.server_name is not None:
            self._extensions["sni_hostname"] = settings.tls.server_name

    def open(self) -> None:
        """Begin; connections are made when they are needed."""
        self._turns = anyio.CapacityLimiter(MOST_AT_ONCE)
        self._clients = (self._client(MOST_AT_ONCE), self._client(self._polls))

    async def close(self) -> None:
        """Close all connections, also if cancelled."""
        clients, self._clients = self._clients, None
        with anyio.CancelScope(shield=True):
            for each in clients or ():
                await each.aclose()

    def _client(self, connections: int) -> httpx.AsyncClient:
        transport = self._transport or httpx.AsyncHTTPTransport(
            verify=self._context or False,
            trust_env=False,
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=60.0),
            uds=self.settings.socket,
            socket_options=None if self.settings.socket is not None else _KEEPALIVE,
        )
        # Time is ours: one scope for all of a request is simpler than four timeouts, and bounds it.
        return httpx.AsyncClient(
            base_url=self.settings.base,
            headers=self._headers,
            timeout=None,  # noqa: S113
            trust_env=False,
            transport=transport,
        )

    async def call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        params: Mapping[str, str | list[str] | None] | None = None,
        body: bytes | None = None,
        absent: T | None = None,
        index: int = 0,
        wait: float = 0.0,
        timeout: float = TIMEOUT,
    ) -> Answer[T]:
        """Send a request and read its answer.

        :param path: begins with a slash; already quoted
        :param answer: what the answer is decoded to; None's type if it does not matter
        :param params: those that are None are left out
        :param absent: the value that status 404 stands for; without, it is an error
        :param index: above 0: a blocking query from this index
        :param wait: seconds that the query may block
        :param timeout: seconds beside ``wait`` for everything
        :raises ConsulUnavailableError: if there is no answer
        :raises ConsulStatusError: if it is an error
        :raises ConsulAnswerError: if it cannot be read
        """
        query: Params = {key: value for key, value in (params or {}).items() if value is not None}
        if self.settings.datacenter and "dc" not in query:
            query["dc"] = self.settings.datacenter
        if index > 0:
            query["index"], query["wait"] = str(index), f"{max(int(wait * 1000), 1)}ms"
            # Consul waits up to a sixteenth longer, so that not all come back at once.
            timeout += wait * 17 / 16
        named = f"{method} {path}"
        if index > 0:
            status, headers, content = await self._send(1, method, path, query, body, timeout)
        else:
            self._require_client(0)
            async with self._turns, _spanned(method, path, self.settings.base):
                status, headers, content = await self._send(0, method, path, query, body, timeout)
        if status == 404 and absent is not None:
            return _answer(named, absent, headers)
        if not 200 <= status < 300:
            error = ConsulDeniedError if status in {401, 403} else ConsulStatusError
            raise error(named, status, content)
        if answer is type(None):
            return _answer(named, None, headers)
        try:
            value = msgspec.json.decode(content, type=answer)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise ConsulAnswerError(named, f"no JSON of this kind: {error}") from error
        return _answer(named, value, headers)

    def _require_client(self, kind: int) -> httpx.AsyncClient:
        if self._clients is None:
            raise ClosedError("this Consul client is not open: use it inside of its async with")
        return self._clients[kind]

    async def _send(
        self,
        kind: int,
        method: str,
        path: str,
        query: Params,
        body: bytes | None,
        timeout: float,
    ) -> tuple[int, httpx.Headers, bytes]:
        client = self._require_client(kind)
        named = f"{method} {path}"
        content = bytearray()
        too_large = False
        try:
            with anyio.move_on_after(timeout) as scope:
                request = client.build_request(
                    method, path, params=query, content=body, extensions=self._extensions
                )
                request.stream = _Body(body)
                async with aclosing(await client.send(request, stream=True)) as response:
                    if response.headers.get("content-encoding", "identity") != "identity":
                        raise ConsulAnswerError(named, "it is compressed, which nobody asked for")
                    async for chunk in response.aiter_raw():
                        content += chunk
                        if len(content) > LARGEST:
                            # Leaving the loop would leave httpx's generators behind: let the next
                            # wait for bytes end them from within.
                            too_large = True
                            content.clear()
                            scope.cancel()
                    return response.status_code, response.headers, bytes(content)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise ConsulUnavailableError(named, _reason(error), sent=False) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            # Also if it was cut short, or is no HTTP at all.
            raise ConsulUnavailableError(named, _reason(error)) from error
        if too_large:
            raise ConsulAnswerError(named, f"it has more than {LARGEST} bytes")
        raise ConsulUnavailableError(named, f"no answer within {timeout:.3g} s")


class _Body(httpx.AsyncByteStream):
    """The bytes of a request, once. httpx's own is a generator, which a cancelled request leaves behind."""

    def __init__(self, content: bytes | None) -> None:
        self._parts = iter([content] if content else [])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for part in self._parts:
            return part
        raise StopAsyncIteration


def _spanned(method: str, path: str, base: str) -> AbstractAsyncContextManager[object]:
    """Put a request into the trace of the work that makes it, if it belongs to one."""
    if tracer_variable.get() is None:
        return _UNSPANNED
    return _in_span(method, path, base)


@asynccontextmanager
async def _in_span(method: str, path: str, base: str) -> AsyncIterator[None]:
    url = httpx.URL(base)
    attributes: dict[str, AttributeValue] = {
        "http.request.method": method,
        "url.path": path,
        "peer.service": "consul",
        "server.address": url.host,
    }
    if url.port is not None:
        attributes["server.port"] = url.port
    name = f"consul {method}"
    with span(name, attributes, kind=SpanKind.CLIENT, begins=False):
        yield


_UNSPANNED = nullcontext()


def _answer(named: str, value: T, headers: httpx.Headers) -> Answer[T]:
    index, contact = headers.get("x-consul-index"), headers.get("x-consul-lastcontact")
    try:
        return Answer(value, None if index is None else int(index), int(contact or 0) / 1000)
    except ValueError as error:
        raise ConsulAnswerError(named, f"its index {index!r:.40} or {contact!r:.40}") from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
