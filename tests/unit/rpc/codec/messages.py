"""Hypothesis strategies for messages of any generated class, and the comparison that leaves nothing out."""

from __future__ import annotations

import datetime
import math
import struct
from functools import cache
from typing import Any

import betterproto2
import pytest
from hypothesis import strategies as st
from tests.generated.codec import codec as messages
from tests.generated.codec.google import protobuf as known

from bascule.errors import EncodeError
from bascule.rpc._codec import codec_for

#: Every class of tests/protos/codec.proto that can be made without a warning.
CLASSES: list[Any] = [
    messages.Scalars,
    messages.Optionals,
    messages.Repeateds,
    messages.Unpacked,
    messages.MapKeys,
    messages.MapValues,
    messages.Oneofs,
    messages.WellKnown,
    messages.Tree,
    messages.Forest,
    messages.Numbers,
    messages.Names,
    messages.Nothing,
    messages.Partial,
    messages.Small,
    messages.UserList,
]

UTC = datetime.UTC


def _float32(value: float) -> bool:
    return math.isnan(value) or math.isinf(value) or abs(value) < 3.4e38


_INT32 = st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-2, 200)
_INT64 = st.integers(-(1 << 63), (1 << 63) - 1) | _INT32
_UINT32 = st.integers(0, (1 << 32) - 1) | st.integers(0, 300)
_UINT64 = st.integers(0, (1 << 64) - 1) | _UINT32
_DOUBLE = st.floats(width=64) | st.sampled_from([0.0, -0.0])
_TEXT = st.text(max_size=20) | st.sampled_from(
    ["", "x" * 127, "x" * 128, "é" * 70, "\0", "\U0010ffff"]
)
_BYTES = st.binary(max_size=20) | st.sampled_from([b"", b"x" * 127, b"x" * 128, b"x" * 20_000])
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int32": _INT32,
    "int64": _INT64,
    "uint32": _UINT32,
    "uint64": _UINT64,
    "sint32": _INT32,
    "sint64": _INT64,
    "fixed32": _UINT32,
    "fixed64": _UINT64,
    "sfixed32": _INT32,
    "sfixed64": _INT64,
    "float": _DOUBLE.filter(_float32),
    "double": _DOUBLE,
    "string": _TEXT,
    "bytes": _BYTES,
}

_ZONES = st.integers(-1439, 1439).map(
    lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))
)
# Two days away from the ends: UTC must not leave the calendar.
_TIMES = st.datetimes(
    datetime.datetime(1, 1, 3),  # noqa: DTZ001  # hypothesis adds the zone
    datetime.datetime(9999, 12, 29),  # noqa: DTZ001
    timezones=st.just(UTC) | _ZONES,
) | st.sampled_from(
    [
        datetime.datetime(1970, 1, 1, tzinfo=UTC),
        datetime.datetime.min.replace(tzinfo=UTC),
        datetime.datetime.max.replace(tzinfo=UTC),
        datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime.datetime(2000, 2, 29, tzinfo=UTC),
    ]
)
_DELTAS = st.timedeltas() | st.timedeltas(datetime.timedelta(days=-2), datetime.timedelta(days=2))
_WRAPPED: dict[type, st.SearchStrategy[Any]] = {
    known.Timestamp: _TIMES,
    known.Duration: _DELTAS,
    known.BoolValue: SCALARS["bool"],
    known.Int32Value: SCALARS["int32"],
    known.Int64Value: SCALARS["int64"],
    known.UInt32Value: SCALARS["uint32"],
    known.UInt64Value: SCALARS["uint64"],
    known.FloatValue: SCALARS["float"],
    known.DoubleValue: SCALARS["double"],
    known.StringValue: SCALARS["string"],
    known.BytesValue: SCALARS["bytes"],
}


@cache
def messages_of(message_type: Any, depth: int = 2) -> st.SearchStrategy[Any]:
    """Make messages of a class, nested at most ``depth`` deep, at most one field of a oneof set."""
    groups: dict[str, list[str]] = {}
    fields: dict[str, st.SearchStrategy[Any]] = {}
    meta = message_type._betterproto
    for name, field in meta.meta_by_field_name.items():
        if field.group:
            groups.setdefault(field.group, []).append(name)
        values = _values(message_type, name, depth)
        if values is not None:
            fields[name] = (
                values if field.group else st.just(None) | values if field.optional else values
            )

    def build(values: dict[str, Any], chosen: tuple[str | None, ...], unknown: bytes) -> Any:
        unset = {name for names in groups.values() for name in names} - set(chosen)
        message = message_type(
            **{name: value for name, value in values.items() if name not in unset}
        )
        message._unknown_fields = unknown
        return message

    chosen = [st.none() | st.sampled_from(names) for names in groups.values()]
    return st.builds(
        build, st.fixed_dictionaries({}, optional=fields), st.tuples(*chosen), unknown_fields()
    )


def unknown_fields() -> st.SearchStrategy[bytes]:
    """Encode fields with numbers that no class of the tests has."""
    field = st.builds(
        lambda number, value: bytes(messages.Small(name=value)).replace(b"\x12", _tag(number), 1),
        st.integers(3_000, 200_000),
        st.text("ab", min_size=1, max_size=3),
    )
    return st.just(b"") | st.lists(field, max_size=2).map(b"".join)


def _tag(number: int) -> bytes:
    return betterproto2.encode_varint(number << 3 | 2)


def _values(message_type: Any, name: str, depth: int) -> st.SearchStrategy[Any] | None:
    field = message_type._betterproto.meta_by_field_name[name]
    value_type = message_type._betterproto.cls_by_field[name]
    if field.map_meta:
        keys = SCALARS[field.map_meta[0].proto_type]
        values = _singles(
            field.map_meta[1], message_type._betterproto.cls_by_field[f"{name}.value"], depth
        )
        return None if values is None else st.dictionaries(keys, values, max_size=2)
    single = _singles(field, value_type, depth)
    return st.lists(single, max_size=2) if field.repeated and single is not None else single


def _singles(
    field: betterproto2.FieldMetadata, value_type: Any, depth: int
) -> st.SearchStrategy[Any] | None:
    if field.unwrap is not None:
        return _WRAPPED[field.unwrap()]
    if field.proto_type == betterproto2.TYPE_ENUM:
        return st.sampled_from(list(value_type)) | _INT32.map(value_type)
    if field.proto_type == betterproto2.TYPE_MESSAGE:
        return messages_of(value_type, depth - 1) if depth else None
    return SCALARS[field.proto_type]


def assert_same(left: object, right: object) -> None:
    """Compare values to the last bit: types, order of attributes, order of maps, kinds of zero and of NaN."""
    assert type(left) is type(right)
    if isinstance(left, betterproto2.Message):
        assert list(vars(left)) == list(vars(right))
        for ours, theirs in zip(vars(left).values(), vars(right).values(), strict=True):
            assert_same(ours, theirs)
    elif isinstance(left, list) and isinstance(right, list):
        assert len(left) == len(right)
        for ours, theirs in zip(left, right, strict=True):
            assert_same(ours, theirs)
    elif isinstance(left, dict) and isinstance(right, dict):
        assert_same(list(left), list(right))
        assert_same(list(left.values()), list(right.values()))
    elif isinstance(left, float) and isinstance(right, float):
        assert struct.pack("<d", left) == struct.pack("<d", right)
    elif isinstance(left, datetime.datetime) and isinstance(right, datetime.datetime):
        assert left == right
        assert left.tzinfo is right.tzinfo
    else:
        assert left == right


def assert_encoded_as_betterproto2_does(message: Any) -> None:
    """The same bytes as betterproto2, or EncodeError where it raises."""
    codec: Any = codec_for(type(message))
    expected: bytes | Exception
    try:
        expected = bytes(message)
    except Exception as error:  # noqa: BLE001  # whatever it is
        expected = error
    if isinstance(expected, bytes):
        assert codec.encode(message) == expected
    else:
        with pytest.raises(EncodeError) as caught:
            codec.encode(message)
        assert type(caught.value.__cause__) is type(expected)
