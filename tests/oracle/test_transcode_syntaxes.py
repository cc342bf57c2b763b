"""Schemas other than proto3: what presence, closed enums, packing and groups do there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import Edition, FeatureSet, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from bascule.errors import TranscodeError
from bascule.gateway._transcode import Transcoder, descriptor_set

if TYPE_CHECKING:
    from google.protobuf.message import Message

ENUM, GROUP, INT32, STRING = 14, 10, 5, 9


def schema(syntax: str) -> FileDescriptorProto:
    """A message with plain, repeated and enum fields, whose meaning is the syntax's."""
    file = FileDescriptorProto(name=f"{syntax}.proto", package=syntax, syntax=syntax)
    level = file.enum_type.add(name="Level")
    level.value.add(name="LOW", number=0)
    level.value.add(name="HIGH", number=5)
    message = file.message_type.add(name="M")
    for number, (name, kind, label) in enumerate(
        [
            ("one_number", INT32, 1),
            ("one_text", STRING, 1),
            ("numbers", INT32, 3),
            ("level", ENUM, 1),
            ("levels", ENUM, 3),
        ],
        start=1,
    ):
        field = message.field.add(name=name, number=number, type=kind, label=label)
        if kind == ENUM:
            field.type_name = f".{syntax}.Level"
    if syntax == "editions":
        file.edition = Edition.EDITION_2023
        message.field[0].options.features.field_presence = FeatureSet.IMPLICIT
        message.field[2].options.features.repeated_field_encoding = FeatureSet.EXPANDED
        level.options.features.enum_type = FeatureSet.CLOSED
        level.value[0].number, level.value[1].number = 1, 5
    return file


def compiled(syntax: str) -> tuple[Transcoder, type[Message]]:
    pool = DescriptorPool()
    pool.Add(schema(syntax))
    transcoder = Transcoder(
        descriptor_set(pool.FindFileByName(f"{syntax}.proto")),
        always_print_fields_with_no_presence=True,
    )
    return transcoder, GetMessageClass(pool.FindMessageTypeByName(f"{syntax}.M"))


@pytest.mark.parametrize("syntax", ["proto2", "proto3", "editions"])
@pytest.mark.parametrize(
    "document",
    [
        "{}",
        '{"oneNumber":0}',
        '{"oneNumber":7,"oneText":""}',
        '{"numbers":[1,2,3]}',
        '{"level":"LOW"}',
        '{"levels":["HIGH","LOW",5]}',
    ],
)
def test_each_syntax_reads_and_prints_as_json_format(syntax: str, document: str) -> None:
    transcoder, kind = compiled(syntax)
    expected = json_format.Parse(document, kind())
    wire = transcoder.from_json(f"{syntax}.M", document.encode())
    assert kind.FromString(wire) == expected
    assert wire == expected.SerializeToString(deterministic=True)
    printed = json_format.MessageToDict(expected, always_print_fields_with_no_presence=True)
    assert json.loads(transcoder.to_json(f"{syntax}.M", wire)) == printed


@pytest.mark.parametrize("syntax", ["proto2", "editions"])
def test_a_closed_enum_takes_its_own_numbers_only(syntax: str) -> None:
    transcoder, kind = compiled(syntax)
    with pytest.raises(json_format.ParseError):
        json_format.Parse('{"level":3}', kind())
    with pytest.raises(TranscodeError) as caught:
        transcoder.from_json(f"{syntax}.M", b'{"level":3}')
    assert caught.value.kind == "unknown_value"
    # Another number on the wire is an unknown field.
    assert "level" not in json.loads(transcoder.to_json(f"{syntax}.M", b"\x20\x03"))
    packed = json.loads(transcoder.to_json(f"{syntax}.M", b"\x2a\x03\x05\x03\x05"))
    assert packed["levels"] == ["HIGH", "HIGH"]


def test_groups_are_refused() -> None:
    file: Any = schema("proto2")
    file.message_type.add(name="G")
    field = file.message_type[0].field.add(name="g", number=9, type=GROUP, label=1)
    field.type_name = ".proto2.G"
    pool = DescriptorPool()
    pool.Add(file)
    transcoder = Transcoder(descriptor_set(pool.FindFileByName("proto2.proto")))
    with pytest.raises(TranscodeError) as caught:
        transcoder.from_json("proto2.M", b'{"g":{}}')
    assert caught.value.kind == "unsupported"
    assert transcoder.to_json("proto2.M", b"\x4b\x4c\x08\x05") == b'{"oneNumber":5}'
