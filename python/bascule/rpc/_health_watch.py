"""Asks one connection's server whether it is well, for as long as the connection lives."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
from google.protobuf.message import DecodeError

from bascule.errors import Status
from bascule.rpc._generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
from bascule.rpc._health import HEALTH_WATCH
from bascule.rpc._streams import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from bascule.net._link import Event
    from bascule.rpc._subchannel import Connection, Terms

    #: Takes why calls should not be sent; None if they should.
    Tell = Callable[[str | None], None]

logger = logging.getLogger("bascule.rpc")


async def watch_health(connection: Connection, service: str, terms: Terms, tell: Tell) -> None:
    """Follow a service's health by ``Health.Watch``, and tell each change.

    A server without health service counts as well. When the call ends in any other way, it is
    made again: at once if it has told anything, else by the backoff of connections.

    Source: gRFC A17.
    """
    index = terms.calls.register(HEALTH_WATCH.path, unary_request=True)
    request = HealthCheckRequest(service=service).SerializeToString()
    failed = 0
    while True:
        watch = _Watch(connection, tell)
        begun = anyio.current_time()
        status, message = await watch.run(index, request, terms)
        if status == Status.UNIMPLEMENTED.value:
            logger.warning(
                "%s has no health service: its calls are sent unchecked", connection.link.peer
            )
            tell(None)
            return
        if not watch.told:
            failed += 1
            name = Status(status).name
            tell(f"cannot watch the health of {service!r}: {name}: {message or 'no message'}")
        else:
            failed = 0
        pause = terms.backoff.after(failed) + begun - anyio.current_time() if failed else 0.0
        await anyio.sleep(max(pause, 0.0))


class _Watch:
    """One call of Watch, as the connection sees it."""

    def __init__(self, connection: Connection, tell: Tell) -> None:
        self.told = False
        self._connection = connection
        self._tell = tell
        self._ended = connection.driver.future()
        self._call = 0

    async def run(self, index: int, request: bytes, terms: Terms) -> tuple[int, str | None]:
        """Make the call and wait for its status and message."""
        connection = self._connection
        machine, now_ns = connection.machine, terms.driver.now_ns
        call = machine.start(index, request, None, None, False, now_ns())
        if call is None:
            return Status.UNAVAILABLE.value, "the connection takes no calls"
        self._call = call
        connection.streams[call] = self
        connection.link.flush_soon()
        try:
            status, message = await self._ended
        except BaseException:
            if connection.streams.pop(call, None) is not None:
                machine.cancel(call, now_ns())
                connection.link.flush_soon()
            raise
        return status, message

    def handle_headers(self, headers: Any) -> None:
        """Nothing in them matters."""

    def handle_writable(self) -> None:
        """The one request was sent with the headers."""

    def handle_message(self, data: bytes) -> None:
        """The connection reports an answer."""
        self._connection.machine.consume(self._call, PREFIX + len(data))
        self._connection.link.flush_soon()
        self.told = True
        try:
            answer = HealthCheckResponse.FromString(data).status
        except DecodeError:
            self._tell("the answer about its health cannot be decoded")
            return
        if answer == HealthCheckResponse.SERVING:
            self._tell(None)
        else:
            known = HealthCheckResponse.ServingStatus.values()
            name = HealthCheckResponse.ServingStatus.Name(answer) if answer in known else answer
            self._tell(f"the server says that it is {name}")

    def handle_end(self, event: Event) -> None:
        """The connection reports the status."""
        _, _, status, message, _, _ = event
        if not self._ended.done():
            self._ended.set_result((status, message))
