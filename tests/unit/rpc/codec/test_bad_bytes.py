"""Bytes that are no valid encoding: one documented error, google's decoder as judge of what is valid."""

from __future__ import annotations

from typing import Any

import betterproto2
import google.protobuf.message
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.generated import codec_pb2
from tests.generated.codec import codec as messages
from tests.unit.rpc.codec.messages import (
    assert_encoded_as_betterproto2_does,
    assert_same,
    messages_of,
)

from bascule.errors import BasculeError, DecodeError
from bascule.rpc._codec import codec_for

#: No classes with times, durations or text wrapped in messages: Python refuses values that protobuf allows.
JUDGED: list[Any] = [
    messages.Scalars,
    messages.Optionals,
    messages.Repeateds,
    messages.MapKeys,
    messages.Tree,
    messages.Numbers,
    messages.UserList,
]
judged = pytest.mark.parametrize(
    "message_type", JUDGED, ids=lambda message_type: message_type.__name__
)


def accepts(message_type: Any, data: bytes) -> bool:
    try:
        getattr(codec_pb2, message_type.__name__).FromString(data)
    except google.protobuf.message.DecodeError:
        return False
    return True


def check(message_type: Any, data: bytes) -> None:
    """The bytes are refused exactly when google refuses them; what is read is what betterproto2 reads."""
    codec = codec_for(message_type)
    try:
        message = codec.decode(data)
    except DecodeError as error:
        message, reason = None, str(error)
    if message is None:
        assert "groups are not supported" in reason or not accepts(message_type, data)
        return
    assert accepts(message_type, data)
    # an entry of a map without its message is None for betterproto2, which it cannot encode
    assert_encoded_as_betterproto2_does(message)
    if not has_wrong_wire_type(message_type, data):
        assert_same(message, message_type.parse(data))


def has_wrong_wire_type(message_type: Any, data: bytes) -> bool:
    """True if a field has another wire type than its own: betterproto2 stores such values, or stumbles over them."""
    meta = message_type._betterproto
    for parsed in betterproto2.parse_fields(data):
        name = meta.field_name_by_number.get(parsed.number)
        if name is None:
            continue
        field = meta.meta_by_field_name[name]
        packed = (
            field.repeated
            and field.proto_type in betterproto2.PACKED_TYPES
            and parsed.wire_type == 2
        )
        if parsed.wire_type != wire_type(field.proto_type) and not packed:
            return True
        if field.proto_type in {"message", "map"} and has_wrong_wire_type(
            meta.cls_by_field[name], parsed.value
        ):
            return True
    return False


def wire_type(proto_type: str) -> int:
    types = {
        betterproto2.WIRE_VARINT: betterproto2.WIRE_VARINT_TYPES,
        betterproto2.WIRE_FIXED_64: betterproto2.WIRE_FIXED_64_TYPES,
        betterproto2.WIRE_LEN_DELIM: betterproto2.WIRE_LEN_DELIM_TYPES,
        betterproto2.WIRE_FIXED_32: betterproto2.WIRE_FIXED_32_TYPES,
    }
    return next(number for number, names in types.items() if proto_type in names)


@judged
@given(data=st.binary(max_size=40))
@example(data=b"\x80")
@example(data=b"\x08" + b"\xff" * 9 + b"\x7f")
@example(data=b"\x08" + b"\x80" * 9 + b"\x02")
@example(data=b"\x08" + b"\xff" * 10)
@example(data=b"\x00\x00")
def test_random_bytes(message_type: Any, data: bytes) -> None:
    check(message_type, data)


@judged
@given(data=st.data())
def test_mutated_messages_and_every_prefix(message_type: Any, data: st.DataObject) -> None:
    """Both by the same messages: to make them takes longer than to look at them."""
    encoded = bytes(data.draw(messages_of(message_type)))[:300]
    check(message_type, mutated(encoded, data))
    for end in range(min(len(encoded), 200)):
        check(message_type, encoded[:end])


def mutated(encoded: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(encoded)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        match data.draw(st.sampled_from(["set", "insert", "delete", "cut"])):
            case "set" if at < len(changed):
                changed[at] = data.draw(st.integers(0, 255))
            case "insert":
                changed[at:at] = data.draw(st.binary(max_size=3))
            case "delete":
                del changed[at : at + data.draw(st.integers(1, 5))]
            case _:
                del changed[at:]
    return bytes(changed)


@given(
    messages_of(messages.WellKnown) | messages_of(messages.MapValues),
    st.integers(0, 10_000),
    st.integers(0, 255),
)
def test_mutated_known_types_raise_nothing_else(message: Any, at: int, byte: int) -> None:
    encoded = bytearray(bytes(message))
    if encoded:
        encoded[at % len(encoded)] = byte
    codec: Any = codec_for(type(message))
    try:
        decoded = codec.decode(bytes(encoded))
    except DecodeError:
        return
    assert_encoded_as_betterproto2_does(decoded)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x10", "Scalars.a_int32: the bytes end in the middle of a value (byte 1 of 1)"),
        (b"\x72\x05abc", "Scalars.a_string: the bytes end in the middle of a value (byte 5 of 5)"),
        (b"\x08" + b"\x80" * 10, "Scalars.a_bool: a varint has more than 10 bytes (byte 1 of 11)"),
        (b"\x72\x02\xc3(", "Scalars.a_string: 'utf-8' codec can't decode byte 0xc3 in position 0"),
        (
            b"\x72\x03\xed\xa0\x80",
            "Scalars.a_string: 'utf-8' codec can't decode byte 0xed in position 0",
        ),
        (b"\x00\x01", "Scalars: a tag is outside 1 to 536870911 (byte 0 of 2)"),
        (b"\x80\x80\x80\x80\x10\x01", "Scalars: a tag is outside 1 to 536870911 (byte 0 of 6)"),
        (b"\x0b\x0c", "Scalars: groups are not supported (byte 1 of 2)"),
        (b"\xfb\x07\xfc\x07", "Scalars: groups are not supported (byte 2 of 4)"),
        (b"\x0c", "Scalars: groups are not supported (byte 1 of 1)"),
        (b"\x0e", "Scalars: wire type 6 does not exist (byte 1 of 1)"),
        (b"\x0f", "Scalars: wire type 7 does not exist (byte 1 of 1)"),
    ],
)
def test_the_error_says_what_and_where(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec_for(messages.Scalars).decode(data)
    assert str(caught.value).startswith(f"cannot decode tests.generated.codec.codec.{reason}")
    assert isinstance(caught.value, BasculeError)
    assert isinstance(caught.value, ValueError)


def test_the_error_names_the_path_of_fields() -> None:
    data = bytes(
        messages.UserList(
            users=[messages.User(), messages.User(address=messages.Address(city="?"))]
        )
    )
    with pytest.raises(
        DecodeError, match=r"UserList\.users\.address\.city: 'utf-8' codec .* \(byte 8 of 9\)"
    ):
        codec_for(messages.UserList).decode(data.replace(b"?", b"\xff"))


@pytest.mark.parametrize(
    "value",
    [
        b"\x0a\x06\x08\xff\xff\xff\xff\x7f",  # the year 3058: fine
        b"\x0a\x08\x08\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0a\x0b\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        b"\x12\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    ],
)
def test_times_outside_of_python_are_refused(value: bytes) -> None:
    codec = codec_for(messages.WellKnown)
    try:
        expected = messages.WellKnown.parse(value)
    except OverflowError:
        with pytest.raises(DecodeError) as caught:
            codec.decode(value)
        assert isinstance(caught.value.__cause__, OverflowError)
    else:
        assert_same(codec.decode(value), expected)


def nested(depth: int, *tags: bytes) -> bytes:
    """Empty messages inside of each other, the outer ones with the last tag."""
    data = b""
    for level in range(depth):
        data = tags[level % len(tags)] + betterproto2.encode_varint(len(data)) + data
    return data


@pytest.mark.parametrize(
    "tags",
    [[b"\x12"], [b"\x1a"], [b"\x12", b"\x22"], [b"\x0a", b"\x2a"]],
    ids=["single", "repeated", "map: the entry counts", "two classes"],
)
def test_nesting_is_limited_as_google_limits_it(tags: list[bytes]) -> None:
    codec = codec_for(messages.Tree)
    deepest = nested(100, *tags)
    assert accepts(messages.Tree, deepest)
    assert_same(codec.decode(deepest), messages.Tree.parse(deepest))
    for depth in (100 + len(tags), 200, 20_000):
        assert not accepts(messages.Tree, nested(depth, *tags))
        with pytest.raises(DecodeError, match="nested more than 100 deep"):
            codec.decode(nested(depth, *tags))


def test_a_length_that_overflows_is_refused() -> None:
    for length in (b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x7f"):
        with pytest.raises(DecodeError, match="end in the middle"):
            codec_for(messages.Scalars).decode(b"\x72" + length + b"abc")


def test_only_bytes_are_decoded() -> None:
    with pytest.raises(TypeError, match="str"):
        codec_for(messages.Scalars).decode("text")  # type: ignore[arg-type]
