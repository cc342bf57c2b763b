"""Messages whose fields hold what a generated class does not promise: betterproto2 has the last word."""

from __future__ import annotations

import datetime
import decimal
import enum
from collections import OrderedDict, defaultdict
from fractions import Fraction
from typing import Any

import betterproto2
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.generated.codec import codec as messages
from tests.generated.codec.google.protobuf import Value
from tests.unit.rpc.codec.messages import SCALARS, assert_encoded_as_betterproto2_does

from bascule.errors import EncodeError
from bascule.rpc._codec import codec_for


class Text(str):
    __slots__ = ()


class Plan(enum.StrEnum):
    FREE = "free"


class Choice(enum.IntEnum):
    TWO = 2


class Index:
    def __index__(self) -> int:
        return 3


ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    127,
    128,
    2**31,
    2**32,
    -(2**31) - 1,
    2**63,
    2**64 - 1,
    2**64,
    2**70,
    -(2**63),
    -(2**63) - 1,
    0.0,
    -0.0,
    1.0,
    1e39,
    -1e39,
    3.4028235677973366e38,
    float("inf"),
    float("nan"),
    10**400,
    decimal.Decimal("1.5"),
    decimal.Decimal(0),
    Fraction(1, 3),
    1j,
    Index(),
    "",
    "text",
    "\ud800",
    Text(""),
    Text("text"),
    Plan.FREE,
    Choice.TWO,
    messages.Level.HIGH,
    b"",
    b"bytes",
    bytearray(),
    bytearray(b"array"),
    memoryview(b"view"),
    [],
    [1],
    ["text"],
    (),
    (1, 2),
    {},
    {"key": 1},
    {1: 2},
    defaultdict(int, {"key": 1}),
    OrderedDict({"key": 1}),
    range(3),
    datetime.datetime(2024, 1, 1),  # noqa: DTZ001  # naive: refused
    datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-1))),
    datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    datetime.date(2024, 1, 1),
    datetime.timedelta(seconds=-1, microseconds=1),
    messages.Scalars(),
    messages.Scalars(a_int32=2),
    messages.Small(),
    object(),
]

CLASSES: list[Any] = [
    messages.Scalars,
    messages.Optionals,
    messages.Repeateds,
    messages.MapKeys,
    messages.MapValues,
    messages.Oneofs,
    messages.WellKnown,
]
FIELDS = [
    (message_type, name)
    for message_type in CLASSES
    for name in message_type._betterproto.meta_by_field_name
]


def too_large(message_type: Any, name: str, value: object) -> bool:
    """True for an int in place of a message: betterproto2 asks for ``bytes(value)``, that many zeros."""
    meta = message_type._betterproto.meta_by_field_name[name]
    values = value if isinstance(value, list) else [value]
    return meta.proto_type in {"message", "map"} and any(
        isinstance(v, int) and 1 << 16 < v < 1 << 63 for v in values
    )


@pytest.mark.parametrize(
    ("message_type", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part)
)
def test_odd_values(message_type: Any, name: str) -> None:
    for value in ODD:
        if too_large(message_type, name, value):
            continue
        for wrapped in (
            value,
            [value],
            {"key": value},
            {1: value},
            {value: 1} if _hashable(value) else value,
        ):
            assert_encoded_as_betterproto2_does(message_type(**{name: wrapped}))


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except (TypeError, ValueError):
        return False
    return True


@given(
    st.sampled_from(FIELDS),
    st.one_of(*SCALARS.values(), st.lists(st.one_of(*SCALARS.values()), max_size=3)),
)
def test_values_of_another_type(field: tuple[Any, str], value: object) -> None:
    message_type, name = field
    assume(not too_large(message_type, name, value))
    assert_encoded_as_betterproto2_does(message_type(**{name: value}))


def test_a_message_of_a_subclass_is_encoded_as_itself() -> None:
    class Special(messages.Scalars):
        def __bytes__(self) -> bytes:
            return b"\x72\x07special"

    assert codec_for(messages.Scalars).encode(Special()) == b"\x72\x07special"
    assert_encoded_as_betterproto2_does(messages.Optionals(a_message=Special()))
    assert_encoded_as_betterproto2_does(
        messages.Repeateds(a_message=[messages.Scalars(), Special()])
    )


def test_a_message_of_another_class_is_refused() -> None:
    for other in (messages.Small(), None, b"bytes", messages.Scalars):
        with pytest.raises(
            EncodeError, match=r"cannot encode tests\..*\.Scalars: got an object of type \w+$"
        ):
            codec_for(messages.Scalars).encode(other)  # type: ignore[arg-type]


def test_a_deleted_attribute_is_refused() -> None:
    message = messages.Scalars()
    del message.a_int32
    with pytest.raises(EncodeError, match="a_int32"):
        codec_for(messages.Scalars).encode(message)


def test_deep_messages_are_encoded_as_far_as_betterproto2_goes() -> None:
    tree = messages.Tree(name="leaf")
    for depth in range(150):
        assert_encoded_as_betterproto2_does(tree)
        tree = messages.Tree(name=str(depth), child=tree)


def test_a_message_inside_of_itself_is_refused() -> None:
    tree = messages.Tree()
    tree.child = tree
    with pytest.raises(EncodeError) as caught:
        codec_for(messages.Tree).encode(tree)
    assert isinstance(caught.value.__cause__, RecursionError)


def test_a_map_that_changes_while_it_is_encoded() -> None:
    class Growing(messages.Scalars):
        def __bytes__(self) -> bytes:
            values["later"] = messages.Scalars()
            return b""

    values: dict[str, messages.Scalars] = {"now": Growing()}
    with pytest.raises(EncodeError, match="changed size during iteration"):
        codec_for(messages.MapValues).encode(messages.MapValues(a_message=values))


def test_an_interrupt_is_no_encode_error() -> None:
    class Interrupted(messages.Scalars):
        def __getattribute__(self, name: str) -> object:
            if name == "a_int32":
                raise KeyboardInterrupt
            return super().__getattribute__(name)

    with pytest.raises(KeyboardInterrupt):
        codec_for(Interrupted).encode(Interrupted())


def test_large_messages_after_small_ones() -> None:
    codec = codec_for(messages.Scalars)
    for size in (0, 1, 127, 128, 16_383, 16_384, 3_000_000, 5):
        message = messages.Scalars(a_bytes=b"x" * size)
        assert codec.encode(message) == bytes(message)
        deep = messages.Optionals(a_message=message)
        assert codec_for(messages.Optionals).encode(deep) == bytes(deep)


def test_a_oneof_with_two_fields_set_is_encoded_and_decoded_as_betterproto2_does() -> None:
    message = messages.Oneofs(a_int32=1, a_string="both")
    assert_encoded_as_betterproto2_does(message)
    decoded = codec_for(messages.Oneofs).decode(bytes(message))
    assert vars(decoded) == vars(messages.Oneofs.parse(bytes(message)))
    with pytest.raises(RuntimeError, match="more than one field"):
        betterproto2.which_one_of(decoded, "first")


def test_values_of_json_like_types() -> None:
    value = Value.from_dict({"a": [1, None, {"b": True}], "c": "text"})
    assert_encoded_as_betterproto2_does(messages.WellKnown(value=value))
