"""How one call went, told in a readable way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from bascule.cli._schema import Reflection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.descriptor_pool import DescriptorPool

    from bascule.cli._schema import Schema
    from bascule.errors import RpcError
    from bascule.rpc import Channel, Stream, SubchannelSnapshot

__all__ = ["Account"]


@dataclass(slots=True)
class Account:
    """What is noted while a call runs. Times are seconds in the loop's clock."""

    begun: float = field(default_factory=anyio.current_time)
    #: When the channel was first able to send, when the call began, and when its first reply came.
    connected: float | None = None
    called: float | None = None
    replied: float | None = None
    method: str | None = None
    timeout: float | None = None
    schema: str = ""
    #: The message types, as far as they are known.
    pool: DescriptorPool | None = None
    sent: int = 0
    received: int = 0
    stream: Stream[Any, Any] | None = None

    async def watch(self, channel: Channel) -> None:
        """Note when the channel is connected."""
        await channel.wait_ready()
        self.connected = anyio.current_time()

    def learned(self, schema: Schema) -> None:
        """Note where the descriptors came from."""
        self.schema = "a descriptor set"
        if isinstance(schema, Reflection):
            self.schema = (
                f"server reflection {schema.version}: {_count(schema.questions, 'question')}, "
                f"{_count(schema.files, 'file')}"
            )

    def begin(self, stream: Stream[Any, Any], method: str, timeout: float | None) -> None:
        """Note that the call begins."""
        self.called = anyio.current_time()
        self.stream, self.method, self.timeout = stream, method, timeout

    def reply(self) -> None:
        """Note a reply."""
        self.received += 1
        if self.replied is None:
            self.replied = anyio.current_time()

    def tell(self, channel: Channel, error: RpcError | None) -> str:
        """The whole account, once the call has ended."""
        lines = [f"{name:<10}{text}" for name, text in self._lines(channel, error)]
        return "\n".join(lines)

    def _lines(self, channel: Channel, error: RpcError | None) -> Iterator[tuple[str, str]]:
        ended = anyio.current_time()
        snapshot = channel.snapshot()
        endpoints = _count(len(snapshot.subchannels), "endpoint")
        yield "target", f"{snapshot.target}, {snapshot.state}"
        resolver = f"{snapshot.resolver.kind}: {endpoints}, shared by {snapshot.balancer.balancer}"
        if snapshot.resolver.last_error is not None:
            resolver += f"; {snapshot.resolver.last_error}"
        yield "resolver", resolver
        for each in snapshot.subchannels:
            yield "endpoint", _endpoint(each)
        if self.schema:
            yield "schema", self.schema
        if self.called is None or self.stream is None:
            return
        yield "method", f"{self.method}"
        yield "deadline", "none" if self.timeout is None else f"{self.timeout:g} s for the call"
        messages = f"{_count(self.sent, 'message')} sent, {self.received} received"
        yield "messages", messages
        counts = snapshot.attempts
        attempts = f"{_count(counts.retries, 'retry', 'retries')}, {_count(counts.hedges, 'hedge')}"
        attempts += f", {counts.transparent} transparent, {counts.throttled} throttled"
        yield "attempts", attempts
        yield "peer", f"{self.stream.peer or 'none'}"
        yield from _pairs("header", self.stream.initial_metadata)
        yield from _pairs("trailer", self.stream.trailing_metadata)
        if self.connected is not None:
            yield "time", f"connected after {_ms(self.connected - self.begun)}"
        if self.replied is not None:
            yield "", f"first reply {_ms(self.replied - self.called)} after the call began"
        yield "", f"the call took {_ms(ended - self.called)}, everything {_ms(ended - self.begun)}"
        yield "status", "OK (0)" if error is None else f"{error.status.name} ({error.status.value})"


def _endpoint(each: SubchannelSnapshot) -> str:
    parts = [f"{each.address} {each.state}", _count(each.picks, "call")]
    parts += [f"{each.successes} answered", f"{each.failures} failed"]
    if each.in_flight:
        parts.append(f"{each.in_flight} in flight")
    if each.breaker is not None:
        parts.append(f"breaker {each.breaker.name.lower()}")
    if each.ejected:
        parts.append("ejected")
    if each.failure is not None:
        parts.append(each.failure)
    return ", ".join(parts)


def _pairs(name: str, metadata: Any) -> Iterator[tuple[str, str]]:
    pairs: Iterable[tuple[str, str | bytes]] = () if metadata is None else metadata.items()
    for key, value in pairs:
        text = value if isinstance(value, str) else f"{len(value)} bytes"
        # What a server sends must not move a terminal's cursor.
        yield name, f"{key}: {text.encode('unicode_escape').decode()}"


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
