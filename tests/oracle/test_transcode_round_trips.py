"""Both directions against ``google.protobuf.json_format``, over messages of every kind of field."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.library import descriptor_set, pool, read
from tests.oracle.messages import messages

from bascule.gateway._transcode import Transcoder

if TYPE_CHECKING:
    from google.protobuf.message import Message

PLAIN = Transcoder(descriptor_set(), max_depth=128)
WITH_DEFAULTS = Transcoder(
    descriptor_set(), max_depth=128, always_print_fields_with_no_presence=True
)
NAMES = ["library.All", "library.Shelf", "google.protobuf.Any", "google.protobuf.Value"]


def printed(message: Message, **options: bool) -> str:
    return json_format.MessageToJson(message, descriptor_pool=pool(), **options)


def values(document: str | bytes) -> object:
    """A document's values, floats in single precision.

    Of two shortest texts of the same ``float``, either may be printed. That a ``double`` keeps its
    digits shows when ``json_format`` reads them.
    """
    return json.loads(document, parse_float=_single)


def _single(text: str) -> float:
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", float(text)))
    except OverflowError:
        return float(text)
    return float(rounded)


def canonical(message: Message) -> str:
    """Text to compare by: bytes would not do, since those of an ``Any`` have no one order."""
    return json.dumps(json.loads(printed(message)), sort_keys=True)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), as_declared=st.booleans(), numbers=st.booleans(), ascii_only=st.booleans())
def test_prints_and_reads_as_json_format_does(
    name: str, data: st.DataObject, *, as_declared: bool, numbers: bool, ascii_only: bool
) -> None:
    """Each way by the same messages: to make them takes much longer than to look at them."""
    message = data.draw(messages(name))
    prints_what_json_format_prints(name, message)
    document = printed(
        message,
        preserving_proto_field_name=as_declared,
        use_integers_for_enums=numbers,
        ensure_ascii=ascii_only,
    )
    wire = PLAIN.from_json(name, document.encode())
    assert canonical(read(name, wire)) == canonical(message)
    json_format_reads_what_it_prints(name, message)


def prints_what_json_format_prints(name: str, message: Message) -> None:
    wire = message.SerializeToString()
    assert values(PLAIN.to_json(name, wire)) == values(printed(message))
    expected = printed(message, always_print_fields_with_no_presence=True)
    assert values(WITH_DEFAULTS.to_json(name, wire)) == values(expected)


def json_format_reads_what_it_prints(name: str, message: Message) -> None:
    document = WITH_DEFAULTS.to_json(name, message.SerializeToString())
    again = json_format.Parse(document, type(message)(), descriptor_pool=pool())
    assert canonical(again) == canonical(message)


@given(parts=st.lists(messages("library.All"), min_size=2, max_size=3))
def test_prints_messages_that_come_in_parts(parts: list[Message]) -> None:
    """Scattered, repeated and split fields mean what protobuf says that they mean."""
    wire = b"".join(part.SerializeToString() for part in parts)
    whole = read("library.All", wire)
    try:
        expected = printed(whole)
    except json_format.SerializeToJsonError:
        # Put together, the parts of two times may be none.
        return
    assert values(PLAIN.to_json("library.All", wire)) == values(expected)


@given(message=messages("library.All"), junk=st.binary(max_size=4))
def test_damaged_bytes_are_refused_or_read(message: Message, junk: bytes) -> None:
    from bascule.errors import DecodeError, EncodeError

    wire = message.SerializeToString() + junk
    try:
        json.loads(PLAIN.to_json("library.All", wire))
    except (DecodeError, EncodeError):
        return
