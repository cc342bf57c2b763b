"""The envelope that events travel in."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from bascule.errors import DecodeError

__all__ = ["Event", "Topic"]

PayloadT = TypeVar("PayloadT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Generic[PayloadT]):
    """One thing that happened.

    :ivar topic: what kind of thing, such as ``user.created``
    :ivar key: what it happened to; events of one key keep their order
    :ivar payload: what is to be known of it: ids rather than data that could be stale or secret
    :ivar id: unique; a consumer that sees it twice handles it once
    :ivar time: when it happened, in seconds of the Unix epoch
    :ivar traceparent: the W3C trace context in which it happened
    """

    topic: Topic[PayloadT]
    key: str
    payload: PayloadT
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    time: float = field(default_factory=time.time)
    traceparent: str | None = None


class _Envelope(msgspec.Struct, omit_defaults=True):
    key: str
    payload: msgspec.Raw
    id: str
    time: float
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Topic(Generic[PayloadT]):
    """A kind of event and the type of its payload.

    >>> USER_CREATED = Topic("user.created", UserCreated)
    >>> await bus.publish(USER_CREATED.event(user.id, UserCreated(user_id=user.id)))

    :ivar name: as it appears in streams and metrics
    :ivar payload_type: a msgspec Struct or a dataclass
    """

    name: str
    payload_type: type[PayloadT]

    def event(
        self, key: str, payload: PayloadT, *, traceparent: str | None = None
    ) -> Event[PayloadT]:
        """Make an event that happens now."""
        return Event(topic=self, key=key, payload=payload, traceparent=traceparent)

    def encode(self, event: Event[PayloadT]) -> bytes:
        """Write an event of this topic as JSON."""
        payload = msgspec.Raw(msgspec.json.encode(event.payload))
        return msgspec.json.encode(
            _Envelope(event.key, payload, event.id, event.time, event.traceparent)
        )

    def decode(self, data: bytes) -> Event[PayloadT]:
        """Read an event of this topic.

        :raises DecodeError: if the data is no event with this topic's payload
        """
        try:
            envelope = msgspec.json.decode(data, type=_Envelope)
            payload = msgspec.json.decode(envelope.payload, type=self.payload_type)
        except msgspec.MsgspecError as error:
            raise DecodeError(f"no event of topic {self.name!r}: {error}") from error
        return Event(
            topic=self,
            key=envelope.key,
            payload=payload,
            id=envelope.id,
            time=envelope.time,
            traceparent=envelope.traceparent,
        )
