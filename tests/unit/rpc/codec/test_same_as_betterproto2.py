"""The Rust codec against betterproto2's own: same bytes, same messages."""

from __future__ import annotations

from typing import Any

import betterproto2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.generated import codec_pb2
from tests.generated.codec import codec as messages
from tests.unit.rpc.codec.messages import CLASSES, assert_same, messages_of

from bascule._core import MessageCodec
from bascule.errors import DecodeError
from bascule.rpc._codec import codec_for

every_class = pytest.mark.parametrize(
    "message_type", CLASSES, ids=lambda message_type: message_type.__name__
)


def parsed(message_type: Any, data: bytes) -> Any:
    """What betterproto2 makes of the bytes; None if it cannot."""
    try:
        return message_type.parse(data)
    except OverflowError:  # a duration at the end of the range: betterproto2 writes it rounded up
        return None


@every_class
@given(data=st.data())
def test_messages_are_written_and_read_as_betterproto2_does(
    message_type: Any, data: st.DataObject
) -> None:
    """All of it by the same messages: to make them takes much longer than to look at them."""
    message, later = data.draw(messages_of(message_type)), data.draw(messages_of(message_type))
    bytes_are_identical_and_messages_equal(message_type, message)
    what_google_writes_is_read_as_betterproto2_reads_it(message_type, message)
    later_values_replace_earlier_ones(message_type, message, later)


def bytes_are_identical_and_messages_equal(message_type: Any, message: Any) -> None:
    codec = codec_for(message_type)
    assert isinstance(codec, MessageCodec)

    encoded = codec.encode(message)

    assert encoded == bytes(message)
    expected = parsed(message_type, encoded)
    if expected is None:
        with pytest.raises(DecodeError):
            codec.decode(encoded)
    else:
        decoded = codec.decode(encoded)
        assert_same(decoded, expected)
        assert codec.encode(decoded) == bytes(expected)


def what_google_writes_is_read_as_betterproto2_reads_it(message_type: Any, message: Any) -> None:
    google = getattr(codec_pb2, message_type.__name__)
    encoded = google.FromString(bytes(message)).SerializeToString()
    expected = parsed(message_type, encoded)
    if expected is not None:
        assert_same(codec_for(message_type).decode(encoded), expected)


def later_values_replace_earlier_ones(message_type: Any, message: Any, later: Any) -> None:
    joined = bytes(message) + bytes(later)
    expected = parsed(message_type, joined)
    if expected is not None:
        assert_same(codec_for(message_type).decode(joined), expected)


@given(messages_of(messages.Unpacked))
def test_packed_and_unpacked_are_both_read(message: messages.Unpacked) -> None:
    unpacked = codec_pb2.Unpacked.FromString(bytes(message)).SerializeToString()
    assert_same(codec_for(messages.Unpacked).decode(unpacked), messages.Unpacked.parse(unpacked))
    assert_same(codec_for(messages.Repeateds).decode(unpacked), messages.Repeateds.parse(unpacked))


@given(messages_of(messages.Repeateds), messages_of(messages.Repeateds))
def test_repeated_fields_of_joined_messages_are_joined(
    left: messages.Repeateds, right: messages.Repeateds
) -> None:
    joined = bytes(left) + bytes(right)
    assert_same(codec_for(messages.Repeateds).decode(joined), messages.Repeateds.parse(joined))


@given(messages_of(messages.Scalars))
def test_unknown_fields_are_kept(message: messages.Scalars) -> None:
    codec = codec_for(messages.Partial)
    partial = codec.decode(bytes(message))
    assert_same(partial, messages.Partial.parse(bytes(message)))
    assert codec.encode(partial) == bytes(partial)
    assert_same(
        codec_for(messages.Scalars).decode(codec.encode(partial)),
        messages.Scalars.parse(bytes(message)),
    )


def test_set_and_unset_are_told_apart() -> None:
    codec = codec_for(messages.Optionals)
    zero = codec.decode(
        codec.encode(messages.Optionals(a_int32=0, a_string="", a_message=messages.Scalars()))
    )
    assert zero.is_set("a_int32")
    assert zero.is_set("a_string")
    assert zero.a_message == messages.Scalars()
    assert not zero.is_set("a_bool")
    assert zero.a_bool is None
    assert codec.decode(b"") == messages.Optionals()


def test_the_field_of_a_oneof_is_told() -> None:
    codec = codec_for(messages.Oneofs)
    decoded = codec.decode(codec.encode(messages.Oneofs(a_int32=0, b_float=1.5)))
    assert betterproto2.which_one_of(decoded, "first") == ("a_int32", 0)
    assert betterproto2.which_one_of(decoded, "second") == ("b_float", 1.5)
    assert betterproto2.which_one_of(codec.decode(b""), "first") == ("", None)


def test_enums_are_members_and_unknown_values_are_kept() -> None:
    codec = codec_for(messages.Scalars)
    decoded = codec.decode(codec.encode(messages.Scalars(a_level=messages.Level.HIGH)))
    assert decoded.a_level is messages.Level.HIGH
    unknown = codec.decode(codec.encode(messages.Scalars(a_level=messages.Level(12))))
    assert type(unknown.a_level) is messages.Level
    assert unknown.a_level == 12
    assert unknown.a_level.name == ""


def test_decoded_messages_own_their_lists_and_maps() -> None:
    codec = codec_for(messages.Repeateds)
    first, second = codec.decode(b""), codec.decode(b"")
    first.a_int32.append(1)
    assert second.a_int32 == []
    maps = codec_for(messages.MapKeys)
    one, other = maps.decode(b""), maps.decode(b"")
    one.a_int32[1] = 1
    assert other.a_int32 == {}


def test_entries_without_key_or_value() -> None:
    codec = codec_for(messages.MapValues)
    # field, length 0: neither key nor value; a message is then None, as betterproto2 has it
    for number in range(1, 21):
        data = betterproto2.encode_varint(number << 3 | 2) + b"\0"
        assert_same(codec.decode(data), messages.MapValues.parse(data))
    for number in range(1, 13):
        data = betterproto2.encode_varint(number << 3 | 2) + b"\0"
        assert_same(codec_for(messages.MapKeys).decode(data), messages.MapKeys.parse(data))
