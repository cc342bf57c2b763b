"""The names of protobuf messages, and one kind of message as another: google's and betterproto2's."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

__all__ = ["full_name", "packed_in", "read_as"]

M = TypeVar("M")

#: What usually stands before the name of a message in the URL of its type.
TYPE_PREFIX = "type.googleapis.com/"


def full_name(message_type: type) -> str | None:
    """``package.Message`` of a class that was generated; None if it is no such class."""
    name = getattr(getattr(message_type, "DESCRIPTOR", None), "full_name", None)
    if isinstance(name, str):
        return name
    # betterproto2 generates descriptors only if asked to, but always a pool beside its classes.
    pool = getattr(sys.modules.get(message_type.__module__), "default_message_pool", None)
    url = None if pool is None else pool.type_to_url.get(message_type)
    return None if url is None else str(url).removeprefix(TYPE_PREFIX)


def packed_in(message: Any) -> tuple[str, bytes] | None:
    """Type URL and bytes of what an ``Any`` packs, or would pack; None if it is no message."""
    name = full_name(type(message))
    if name == "google.protobuf.Any":
        return str(message.type_url), bytes(message.value)
    if name is None:
        return None
    encode = getattr(message, "SerializeToString", None)
    return TYPE_PREFIX + name, bytes(message) if encode is None else encode()


def read_as(message_type: type[M], data: bytes) -> M:
    """Parse with a class of either library, which raises its own errors."""
    generated: Any = message_type
    parse = getattr(generated, "FromString", None) or generated.parse
    return parse(data)  # type: ignore[no-any-return]
