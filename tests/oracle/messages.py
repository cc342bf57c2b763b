"""Strategies for messages of the library's schema, by their descriptors."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from tests.oracle.library import message_class, pool

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

_TEXT = st.text(max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_OBJECT = st.dictionaries(_TEXT, _JSON, max_size=3)
_PATH = st.from_regex(re.compile(r"[a-z]+(_[a-z]+){0,2}(\.[a-z]+)?", re.ASCII), fullmatch=True)

_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    1: st.floats(),
    # json_format prints subnormal ones with digits that are not needed.
    2: st.floats(width=32, allow_subnormal=False),
    3: st.integers(-(2**63), 2**63 - 1),
    4: st.integers(0, 2**64 - 1),
    5: st.integers(-(2**31), 2**31 - 1),
    6: st.integers(0, 2**64 - 1),
    7: st.integers(0, 2**32 - 1),
    8: st.booleans(),
    9: _TEXT,
    12: st.binary(max_size=8),
    13: st.integers(0, 2**32 - 1),
    14: st.sampled_from([0, 1, 70000, -3, 5, -1]),
    15: st.integers(-(2**31), 2**31 - 1),
    16: st.integers(-(2**63), 2**63 - 1),
    17: st.integers(-(2**31), 2**31 - 1),
    18: st.integers(-(2**63), 2**63 - 1),
}
_ENUM, _MESSAGE = 14, 11
_NULL = st.just(0)

#: What an ``Any`` may hold.
_PACKABLE = [
    "library.All",
    "library.Book",
    "google.protobuf.Any",
    "google.protobuf.Duration",
    "google.protobuf.Empty",
    "google.protobuf.Int64Value",
    "google.protobuf.Struct",
    "google.protobuf.Timestamp",
    "google.protobuf.Value",
]


def messages(full_name: str, depth: int = 2) -> st.SearchStrategy[Message]:
    """Messages with a few fields set, nested at most ``depth`` levels."""
    return _of(pool().FindMessageTypeByName(full_name), depth)


@cache  # to make a strategy costs more than to draw from it
def _of(descriptor: Descriptor, depth: int) -> st.SearchStrategy[Message]:
    return _filled(descriptor, depth)


@st.composite
def _filled(draw: st.DrawFn, descriptor: Descriptor, depth: int) -> Message:
    message: Any = message_class(descriptor.full_name)()
    known = _KNOWN.get(descriptor.full_name)
    if known is not None:
        known(draw, message, depth)
        return message
    for field in draw(_chosen(descriptor, depth > 0)):
        _fill(draw, message, field, depth)
    return message


@cache
def _chosen(descriptor: Descriptor, nested: bool) -> st.SearchStrategy[list[FieldDescriptor]]:
    fields = [field for field in descriptor.fields if nested or field.type != _MESSAGE]
    if not fields:
        return st.just([])
    return st.lists(st.sampled_from(fields), max_size=6, unique_by=lambda field: field.number)


@cache
def _few(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=3)


def _fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        target = getattr(message, field.name)
        for name in draw(_few(_scalar(key))):
            if value.type == _MESSAGE:
                target[name].CopyFrom(draw(_of(value.message_type, depth - 1)))
            else:
                target[name] = draw(_scalar(value))
    elif field.is_repeated and field.type == _MESSAGE:
        items = draw(_few(_of(field.message_type, depth - 1)))
        getattr(message, field.name).extend(items)
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(_few(_scalar(field))))
    elif field.type == _MESSAGE:
        inner = getattr(message, field.name)
        inner.SetInParent()
        inner.CopyFrom(draw(_of(field.message_type, depth - 1)))
    else:
        setattr(message, field.name, draw(_scalar(field)))


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == _ENUM and field.enum_type.full_name == "google.protobuf.NullValue":
        return _NULL
    return _SCALARS[field.type]


def _timestamp(draw: st.DrawFn, message: Any, _: int) -> None:
    message.seconds = draw(st.integers(-62135596800, 253402300799))
    message.nanos = draw(_NANOS)


def _duration(draw: st.DrawFn, message: Any, _: int) -> None:
    sign = draw(st.sampled_from([1, -1]))
    message.seconds = sign * draw(st.integers(0, 315576000000))
    message.nanos = sign * draw(_NANOS)


_NANOS = st.just(0) | st.builds(
    int.__mul__, st.integers(0, 999), st.sampled_from([1, 1000, 1000000])
)


def _mask(draw: st.DrawFn, message: Any, _: int) -> None:
    message.paths.extend(draw(_few(_PATH)))


def _struct(draw: st.DrawFn, message: Any, _: int) -> None:
    message.update(draw(_OBJECT))


def _list(draw: st.DrawFn, message: Any, _: int) -> None:
    message.extend(draw(_few(_JSON)))


def _value(draw: st.DrawFn, message: Any, _: int) -> None:
    holder: Any = message_class("google.protobuf.ListValue")()
    holder.append(draw(_JSON))
    message.CopyFrom(holder.values[0])


def _any(draw: st.DrawFn, message: Any, depth: int) -> None:
    if depth > 0 and draw(st.booleans()):
        message.Pack(draw(messages(draw(st.sampled_from(_PACKABLE)), depth - 1)))


_KNOWN = {
    "google.protobuf.Any": _any,
    "google.protobuf.Duration": _duration,
    "google.protobuf.FieldMask": _mask,
    "google.protobuf.ListValue": _list,
    "google.protobuf.Struct": _struct,
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Value": _value,
}
