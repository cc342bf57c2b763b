"""Reads betterproto2's field metadata into the plan that the Rust codec follows."""

from __future__ import annotations

import dataclasses
import datetime
from abc import ABCMeta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import betterproto2

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ElementSpec", "FieldSpec", "KeySpec", "PlanSpec", "plan_for"]

How: TypeAlias = Literal["bare", "call", "foreign"]
ElementSpec: TypeAlias = tuple[str, type | None, int | None]
KeySpec: TypeAlias = tuple[str, Any]
FieldSpec: TypeAlias = tuple[str, int, str, Any, ElementSpec, KeySpec | None]
PlanSpec: TypeAlias = tuple[type, How, list[FieldSpec]]

_SCALARS = {
    betterproto2.TYPE_BOOL: False,
    betterproto2.TYPE_INT32: 0,
    betterproto2.TYPE_INT64: 0,
    betterproto2.TYPE_UINT32: 0,
    betterproto2.TYPE_UINT64: 0,
    betterproto2.TYPE_SINT32: 0,
    betterproto2.TYPE_SINT64: 0,
    betterproto2.TYPE_FIXED32: 0,
    betterproto2.TYPE_FIXED64: 0,
    betterproto2.TYPE_SFIXED32: 0,
    betterproto2.TYPE_SFIXED64: 0,
    betterproto2.TYPE_FLOAT: 0.0,
    betterproto2.TYPE_DOUBLE: 0.0,
    betterproto2.TYPE_STRING: "",
    betterproto2.TYPE_BYTES: b"",
}

# A class that replaces one of these has its own idea of the wire format.
_WIRE_METHODS = (
    "__bytes__",
    "SerializeToString",
    "load",
    "parse",
    "FromString",
    "_postprocess_single",
    "_get_field_default",
    "_cls_for",
)

_UTC = datetime.UTC
# Conversions that the Rust codec does itself, with values that tell betterproto2's from another.
_SAMPLES: dict[str, list[tuple[tuple[int, int], Any]]] = {
    "timestamp": [
        ((0, 0), datetime.datetime(1970, 1, 1, tzinfo=_UTC)),
        ((-1, 999_999_000), datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, _UTC)),
        ((1_234_567_890, 123_456_000), datetime.datetime(2009, 2, 13, 23, 31, 30, 123_456, _UTC)),
    ],
    "duration": [
        ((0, 0), datetime.timedelta(0)),
        (
            (90_061, 7_000),
            datetime.timedelta(days=1, hours=1, minutes=1, seconds=1, microseconds=7),
        ),
    ],
}


class _UnsupportedError(Exception):
    """A field that the plan cannot describe."""


def plan_for(message_type: type[betterproto2.Message]) -> list[PlanSpec]:
    """Describe a message class and all classes that its fields lead to, the class itself first.

    A class described as ``foreign`` is left to betterproto2 altogether: a pydantic dataclass, one
    that overrides a method which reads or writes bytes, or one with a field that is not
    betterproto2's. ``call`` means that instances are made by calling the class, because its
    constructor does more than to set the fields; ``bare`` that setting them is enough.
    """
    return _Builder().build(message_type)


class _Builder:
    def __init__(self) -> None:
        self._indexes: dict[type, int] = {}
        self._plans: list[PlanSpec] = []

    def build(self, message_type: type) -> list[PlanSpec]:
        self._index(message_type)
        for index, plan in enumerate(self._plans):  # grows while it is walked
            self._plans[index] = self._describe(plan[0])
        return self._plans

    def _index(self, message_type: type) -> int:
        index = self._indexes.setdefault(message_type, len(self._plans))
        if index == len(self._plans):
            self._plans.append((message_type, "foreign", []))
        return index

    def _describe(self, message_type: type) -> PlanSpec:
        if _overrides_wire(message_type):
            return message_type, "foreign", []
        known = len(self._plans)
        try:
            fields = [
                self._field(message_type, field) for field in dataclasses.fields(message_type)
            ]
        except (_UnsupportedError, NameError):  # a type hint that names nothing
            for dropped, _, _ in self._plans[known:]:
                del self._indexes[dropped]
            del self._plans[known:]
            return message_type, "foreign", []
        return message_type, "bare" if _is_bare(message_type) else "call", fields

    def _field(self, message_type: type, field: dataclasses.Field[Any]) -> FieldSpec:
        meta = field.metadata.get("betterproto")
        if not isinstance(meta, betterproto2.FieldMetadata) or not 0 < meta.number < 1 << 29:
            raise _UnsupportedError(field.name)
        proto: betterproto2.ProtoClassMetadata = message_type._betterproto  # type: ignore[attr-defined]
        default = proto.default_gen[field.name]()
        if meta.map_meta is not None:
            key_meta, value_meta = meta.map_meta
            if default != {} or key_meta.proto_type not in _SCALARS:
                raise _UnsupportedError(field.name)
            element = self._element(value_meta, proto.cls_by_field[f"{field.name}.value"])
            absent = proto.cls_by_field[field.name]._betterproto.default_gen["value"]()  # type: ignore[attr-defined]
            key = key_meta.proto_type, _SCALARS[key_meta.proto_type]
            return field.name, meta.number, "map", absent, element, key
        element = self._element(meta, proto.cls_by_field[field.name])
        if meta.repeated:
            if default != []:
                raise _UnsupportedError(field.name)
            return field.name, meta.number, "repeated", None, element, None
        if default is not None and not _is_zero(meta.proto_type, default):
            raise _UnsupportedError(field.name)
        return field.name, meta.number, "single", default, element, None

    def _element(self, meta: betterproto2.FieldMetadata, value_type: type) -> ElementSpec:
        if meta.proto_type in _SCALARS:
            return meta.proto_type, None, None
        if meta.proto_type == betterproto2.TYPE_ENUM and issubclass(value_type, IntEnum):
            return "enum", value_type, None
        if meta.proto_type != betterproto2.TYPE_MESSAGE:
            raise _UnsupportedError(meta.proto_type)
        if meta.unwrap is None:
            return "message", None, self._index(value_type)
        wrapper = meta.unwrap()
        return _wrapped_kind(wrapper), None, self._index(wrapper)


def _overrides_wire(message_type: type) -> bool:
    if not issubclass(message_type, betterproto2.Message) or not dataclasses.is_dataclass(
        message_type
    ):
        return True
    if hasattr(message_type, "__pydantic_core_schema__"):
        return True

    def function(owner: type, name: str) -> Callable[..., Any]:
        method = getattr(owner, name)
        function: Callable[..., Any] = getattr(method, "__func__", method)
        return function

    return any(
        function(message_type, name) is not function(betterproto2.Message, name)
        for name in _WIRE_METHODS
    )


def _is_bare(message_type: type) -> bool:
    code = getattr(getattr(message_type, "__init__", None), "__code__", None)
    generated_by_dataclasses = code is not None and code.co_filename == "<string>"
    inherited: list[tuple[str, type]] = [
        ("__new__", object),
        ("__setattr__", object),
        ("__post_init__", betterproto2.Message),
    ]
    return (
        generated_by_dataclasses
        and type(message_type) is ABCMeta
        and all(getattr(message_type, name) is getattr(owner, name) for name, owner in inherited)
    )


def _is_zero(proto_type: str, default: Any) -> bool:
    if proto_type == betterproto2.TYPE_ENUM:
        return isinstance(default, IntEnum) and default == 0
    return default == _SCALARS.get(proto_type) and type(default) is type(_SCALARS[proto_type])


def _wrapped_kind(wrapper: type) -> str:
    """Name the conversion of a wrapped message, by its fields and by trying it."""
    if _overrides_wire(wrapper):
        return "wrapped"
    fields = [(field.name, field.metadata["betterproto"]) for field in dataclasses.fields(wrapper)]
    layout = [(name, meta.number, meta.proto_type) for name, meta in fields]
    if layout == [("seconds", 1, "int64"), ("nanos", 2, "int32")]:
        for kind, samples in _SAMPLES.items():
            if wrapper.__name__.lower() == kind and all(
                _converts(wrapper, *sample) for sample in samples
            ):
                return kind
    if wrapper.__name__.endswith("Value") and [(name, number) for name, number, _ in layout] == [
        ("value", 1)
    ]:
        sample = {bool: True, int: 1_000_003, float: 1.5, str: "sample", bytes: b"sample"}.get(
            type(_SCALARS.get(layout[0][2]))
        )
        if sample is not None and _converts(wrapper, (sample,), sample):
            return "wrapper"
    return "wrapped"


def _converts(wrapper: Any, parts: tuple[Any, ...], value: Any) -> bool:
    message = wrapper(*parts)
    return bool(message.to_wrapped() == value and wrapper.from_wrapped(value) == message)
