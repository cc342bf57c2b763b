"""The envelope that events travel in."""

from __future__ import annotations

import time
import uuid
from base64 import b64decode, b64encode
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import msgspec

from bascule._messages import full_name, read_as
from bascule.errors import ConfigurationError, DecodeError, EncodeError
from bascule.events._trace import made_here

__all__ = ["Event", "Topic"]

PayloadT = TypeVar("PayloadT")

_LONGEST_KEY = 200
_LONGEST_ID = 64
# Ids rather than data: an outbox has room for this many bytes in a column of every database.
_LARGEST = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Generic[PayloadT]):
    """One thing that happened.

    :ivar topic: what kind of thing, such as ``user.created``
    :ivar key: what it happened to; events of one key keep their order
    :ivar payload: what is to be known of it: ids rather than data that could be stale or secret
    :ivar id: unique; a consumer that sees it twice handles it once
    :ivar time: when it happened, in seconds of the Unix epoch
    :ivar traceparent: the W3C trace context in which it happened; filled in from the call being
        handled when the event is published or put in an outbox
    :ivar tracestate: what vendors say of that trace
    """

    topic: Topic[PayloadT]
    key: str
    payload: PayloadT
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    time: float = field(default_factory=time.time)
    traceparent: str | None = None
    tracestate: str = ""

    def traced(self) -> Event[PayloadT]:
        """Give the event with the trace context of the work in progress, if it has none of its own."""
        if self.traceparent is not None:
            return self
        trace = made_here(self.topic.name, self.id)
        if trace is None:
            return self
        return replace(self, traceparent=trace.traceparent, tracestate=trace.state)


class _Envelope(msgspec.Struct, omit_defaults=True):
    key: str
    payload: msgspec.Raw
    id: str
    time: float
    traceparent: str | None = None
    tracestate: str = ""
    type: str | None = None


_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(_Envelope).decode
_read_text = msgspec.json.Decoder(str).decode


class Topic(Generic[PayloadT]):
    """A kind of event and the type of its payload.

    >>> USER_CREATED = Topic("user.created", UserCreated)
    >>> await bus.publish(USER_CREATED.event(user.id, UserCreated(user_id=user.id)))

    :ivar name: as it appears in streams and metrics
    :ivar payload_type: a msgspec Struct, a dataclass, or a message class that google's or
        betterproto2's compiler has generated. The former travel as JSON, messages in protobuf's
        binary form with the name of their type
    :raises ConfigurationError: if the name cannot be part of a stream's
    """

    __slots__ = ("_message", "_payload", "name", "payload_type")

    def __init__(self, name: str, payload_type: type[PayloadT]) -> None:
        if not name or len(name) > 100 or not name.isascii() or set(name) & set(" {}:*?[]\\\"'"):
            raise ConfigurationError(
                f"topic {name!r}: use up to 100 ASCII characters without blanks, ':' and braces"
            )
        self.name = name
        self.payload_type = payload_type
        self._message = full_name(payload_type)
        self._payload = msgspec.json.Decoder(Any if self._message else payload_type)

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, {self.payload_type.__name__})"

    def event(
        self, key: str, payload: PayloadT, *, traceparent: str | None = None
    ) -> Event[PayloadT]:
        """Make an event that happens now."""
        return Event(topic=self, key=key, payload=payload, traceparent=traceparent)

    def encode(self, event: Event[PayloadT]) -> bytes:
        """Write an event of this topic.

        :raises EncodeError: if it is larger than 60,000 bytes, or its key longer than 200 characters
        """
        payload: Any = event.payload
        if self._message is not None:
            serialize = getattr(payload, "SerializeToString", None)
            payload = b64encode(bytes(payload) if serialize is None else serialize())
        data = _write(
            _Envelope(
                event.key,
                msgspec.Raw(_write(payload if self._message is None else payload.decode())),
                event.id,
                event.time,
                event.traceparent,
                event.tracestate,
                self._message,
            )
        )
        if len(data) > _LARGEST:
            raise EncodeError(
                f"an event of topic {self.name!r} has {len(data)} bytes, more than {_LARGEST}:"
                " let it name what the handler can ask for"
            )
        if len(event.key) > _LONGEST_KEY or not 0 < len(event.id) <= _LONGEST_ID:
            raise EncodeError(
                f"an event of topic {self.name!r} has a key of {len(event.key)} and an id of"
                f" {len(event.id)} characters: keys have up to {_LONGEST_KEY}, ids 1 to {_LONGEST_ID}"
            )
        return data

    def decode(self, data: bytes) -> Event[PayloadT]:
        """Read an event of this topic.

        :raises DecodeError: if the data is no event with this topic's payload
        """
        try:
            envelope = _read(data)
            if envelope.type != self._message or not 0 < len(envelope.id) <= _LONGEST_ID:
                raise DecodeError(
                    f"no event of topic {self.name!r}: its payload is {envelope.type}"
                )
            payload: Any
            if self._message is None:
                payload = self._payload.decode(envelope.payload)
            else:
                packed = b64decode(_read_text(envelope.payload), validate=True)
                payload = _message(self.payload_type, packed)
        except (msgspec.MsgspecError, ValueError) as error:
            if isinstance(error, DecodeError):
                raise
            raise DecodeError(f"no event of topic {self.name!r}: {error}") from error
        return Event(
            topic=self,
            key=envelope.key,
            payload=payload,
            id=envelope.id,
            time=envelope.time,
            traceparent=envelope.traceparent,
            tracestate=envelope.tracestate,
        )


def _message(message_type: type[PayloadT], data: bytes) -> PayloadT:
    try:
        return read_as(message_type, data)
    except Exception as error:  # each library raises what it likes for bad bytes
        raise ValueError(f"its payload is no {message_type.__name__}") from error
