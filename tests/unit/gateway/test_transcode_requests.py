"""Whole requests: what of path, query and body fills which field, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tests.oracle import library

from bascule.errors import (
    ConfigurationError,
    DecodeError,
    EncodeError,
    RouteNotFoundError,
    TranscodeError,
)
from bascule.gateway._transcode import Transcoder, descriptor_set

TRANSCODER = Transcoder(library.descriptor_set())


def translate(method: str, target: str, body: str = "") -> dict[str, Any]:
    """The request message, as JSON."""
    index, rpc_path, wire = TRANSCODER.begin(method, target, body.encode())
    binding = TRANSCODER.bindings[index]
    assert rpc_path == binding.rpc_path
    matched, values, query = TRANSCODER.match(method, target)
    assert matched == index
    assert TRANSCODER.request(matched, values, query, body.encode()) == wire
    library.read(binding.input_type, wire)
    result: dict[str, Any] = json.loads(TRANSCODER.to_json(binding.input_type, wire))
    return result


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        # path
        ("GET", "/v1/shelves/7", "", {"id": "7"}),
        ("GET", "/v1/shelves/featured", "", {}),
        ("GET", "/v1/shelves/a%2Fb/books/2", "", {"name": "shelves/a%2Fb/books/2"}),
        (
            "GET",
            "/typed/-5/true/LEVEL_LOW/_-8/2020-01-01T00:00:00Z/1e3",
            "",
            {
                "anInt32": -5,
                "aBool": True,
                "aLevel": "LEVEL_LOW",
                "aBytes": "/+8=",
                "aTime": "2020-01-01T00:00:00Z",
                "inner": {"aDouble": 1000.0},
            },
        ),
        ("GET", "/typed/0/false/70000/AA/1970-01-01T00%3A00%3A00Z/NaN", "", {
            "aLevel": "LEVEL_HIGH", "aBytes": "AA==", "aTime": "1970-01-01T00:00:00Z",
            "inner": {"aDouble": "NaN"},
        }),
        # query
        ("GET", "/v1/shelves/7?name=a+b%2Bc", "", {"id": "7", "name": "a b+c"}),
        ("GET", "/v1/shelves/7?&&name=x&", "", {"id": "7", "name": "x"}),
        ("GET", "/v1/shelves/7?name", "", {"id": "7"}),
        ("GET", "/v1/shelves/7?name=", "", {"id": "7"}),
        ("GET", "/v1/shelves/7?name=a=b", "", {"id": "7", "name": "a=b"}),
        ("GET", "/v1/shelves/7?n%61me=x%0Ay", "", {"id": "7", "name": "x\ny"}),
        ("GET", "/search?anInt32=5&a_bool=true", "", {"anInt32": 5, "aBool": True}),
        ("GET", "/search?an_int64=-5&aUint64=18446744073709551615", "",
         {"anInt64": "-5", "aUint64": "18446744073709551615"}),
        ("GET", "/search?aFloat=1.5&aDouble=-Infinity", "", {"aFloat": 1.5, "aDouble": "-Infinity"}),
        ("GET", "/search?int32s=1&int32s=2&int32s=1", "", {"int32s": [1, 2, 1]}),
        ("GET", "/search?strings=b&aBool=true&strings=a", "", {"aBool": True, "strings": ["b", "a"]}),
        ("GET", "/search?levels=LEVEL_HIGH&levels=1&levels=-3", "",
         {"levels": ["LEVEL_HIGH", "LEVEL_LOW", "LEVEL_BELOW"]}),
        ("GET", "/search?inner.aString=x&inner.inner.an_int32=1&inner.aBool=true", "",
         {"inner": {"aBool": True, "aString": "x", "inner": {"anInt32": 1}}}),
        ("GET", "/search?inner.int32s=1&aBool=true&inner.int32s=2", "",
         {"aBool": True, "inner": {"int32s": [1, 2]}}),
        ("GET", "/search?aTime=2020-01-01T00:00:00.5%2B01:00&aDuration=-1.5s&aMask=aB,c", "",
         {"aTime": "2019-12-31T23:00:00.500Z", "aDuration": "-1.500s", "aMask": "aB,c"}),
        ("GET", "/search?wrappedInt64=0&wrappedBool=false&wrappedString=&wrappedBytes=AA", "",
         {"wrappedInt64": "0", "wrappedBool": False, "wrappedString": "", "wrappedBytes": "AA=="}),
        ("GET", "/search?wrappedStrings=a&wrappedStrings=", "", {"wrappedStrings": ["a", ""]}),
        ("GET", "/search?maybeInt32=0&choiceString=", "", {"maybeInt32": 0, "choiceString": ""}),
        ("GET", "/search?far=x&an_int32=0", "", {"far": "x"}),
        # body "*"
        ("POST", "/v1/shelves", '{"id":"7","books":[{"pages":1}]}',
         {"id": "7", "books": [{"pages": 1}]}),
        ("POST", "/v1/shelves", "{}", {}),
        ("POST", "/v1/loans/7:cancel", "", {"id": "7"}),
        ("POST", "/v1/loans/7:cancel", "{}", {"id": "7"}),
        # the path wins over the body
        ("POST", "/v1/loans/7:cancel", '{"id":"8"}', {"id": "7"}),
        ("PUT", "/v1/shelves/1/books/2", '{"book":{"id":"3","name":"n"},"shelf":"4"}',
         {"shelf": "1", "book": {"id": "2", "name": "n"}}),
        # body of one field
        ("POST", "/v1/shelves/1/books", '{"name":"n"}', {"shelf": "1", "book": {"name": "n"}}),
        ("POST", "/v1/shelves/1/books?validateOnly=true", "{}",
         {"shelf": "1", "book": {}, "validateOnly": True}),
        ("POST", "/v1/shelves/1/books", "null", {"shelf": "1"}),
        ("PATCH", "/v1/shelves/1/books/2", '{"name":"n","id":"3"}',
         {"shelf": "1", "book": {"id": "2", "name": "n"}}),
        ("POST", "/v1/shelves/1:import", '[{"id":"a"},{}]', {"id": "1", "books": [{"id": "a"}, {}]}),
        ("POST", "/v1/shelves/1:import?name=n", "[]", {"id": "1", "name": "n"}),
        ("PUT", "/v1/shelves/1/labels", '{"a":"b"}', {"id": "1", "labels": {"a": "b"}}),
        ("PUT", "/v1/shelves/1/name", ' "n" ', {"id": "1", "name": "n"}),
    ],
)  # fmt: skip
def test_taken(method: str, target: str, body: str, expected: dict[str, Any]) -> None:
    assert translate(method, target, body) == expected


def test_a_message_of_body_and_path_comes_in_one_part() -> None:
    """Not every reader merges parts, as protobuf does."""
    _, _, wire = TRANSCODER.begin("PUT", "/v1/shelves/1/books/2", b'{"book":{"name":"n"}}')
    assert wire == b"\n\x011" + b"\x12\x06" + b"\x12\x01n" + b"\n\x012"


@pytest.mark.parametrize(
    ("method", "target", "body", "kind", "field"),
    [
        ("GET", "/typed/x/true/1/AA/2020-01-01T00:00:00Z/1", "", "wrong_type", "an_int32"),
        ("GET", "/typed/2147483648/true/1/AA/2020-01-01T00:00:00Z/1", "", "out_of_range", "an_int32"),
        ("GET", "/typed/1/1/1/AA/2020-01-01T00:00:00Z/1", "", "wrong_type", "a_bool"),
        ("GET", "/typed/1/true/NO/AA/2020-01-01T00:00:00Z/1", "", "unknown_value", "a_level"),
        ("GET", "/typed/1/true/1/A/2020-01-01T00:00:00Z/1", "", "wrong_type", "a_bytes"),
        ("GET", "/typed/1/true/1/AA/today/1", "", "wrong_type", "a_time"),
        ("GET", "/typed/1/true/1/AA/2020-01-01T00:00:00Z/1e999", "", "out_of_range", "inner.a_double"),
        ("GET", "/search?nope=1", "", "unknown_field", "nope"),
        ("GET", "/search?=1", "", "unknown_field", ""),
        ("GET", "/search?inner.nope=1", "", "unknown_field", "inner.nope"),
        ("GET", "/search?inner.=1", "", "unknown_field", "inner."),
        ("GET", "/search?.anInt32=1", "", "unknown_field", ".anInt32"),
        ("GET", "/search?anInt32.x=1", "", "unknown_field", "anInt32.x"),
        ("GET", "/search?items.anInt32=1", "", "unknown_field", "items.anInt32"),
        ("GET", "/search?aTime.seconds=1", "", "unknown_field", "aTime.seconds"),
        ("GET", "/search?inner=1", "", "wrong_type", "inner"),
        ("GET", "/search?items={}", "", "wrong_type", "items"),
        ("GET", "/search?byString=a", "", "wrong_type", "byString"),
        ("GET", "/search?byString.a=a", "", "unknown_field", "byString.a"),
        ("GET", "/search?aStruct={}", "", "wrong_type", "aStruct"),
        ("GET", "/search?aValue=1", "", "wrong_type", "aValue"),
        ("GET", "/search?anAny=1", "", "wrong_type", "anAny"),
        ("GET", "/search?anInt32=", "", "wrong_type", "anInt32"),
        ("GET", "/search?anInt32=1.5", "", "wrong_type", "anInt32"),
        ("GET", "/search?anInt32=1&an_int32=1", "", "duplicate_key", "an_int32"),
        ("GET", "/search?aString=a&aString=a", "", "duplicate_key", "aString"),
        ("GET", "/search?inner.aBool=true&inner.aBool=true", "", "duplicate_key", "inner.aBool"),
        ("GET", "/search?choiceBool=true&choiceInt32=1", "", "oneof_conflict", "choiceInt32"),
        ("GET", "/search?inner.choiceBool=true&inner.choiceInt32=1", "", "oneof_conflict",
         "inner.choiceInt32"),
        ("GET", "/search?levels=1&levels=NO", "", "unknown_value", "levels"),
        ("GET", "/search?aString=%zz", "", "bad_target", "aString"),
        ("GET", "/search?aString=%00", "", "bad_target", "aString"),
        ("GET", "/search?aString=%FF", "", "bad_target", "aString"),
        ("GET", "/search?%zz=1", "", "bad_target", ""),
        ("GET", "/search?" + "inner." * 64 + "aBool=true", "", "too_deep", "inner." * 10 + "inne..."),
        ("GET", "/v1/shelves/7?id=8", "", "duplicate_key", "id"),
        ("GET", "/v1/shelves/7", "{}", "unexpected_body", ""),
        ("DELETE", "/v1/books/7", " ", "unexpected_body", ""),
        ("POST", "/v1/shelves", "", "missing_body", ""),
        ("POST", "/v1/shelves/1/books", "", "missing_body", ""),
        ("POST", "/v1/shelves", " ", "malformed", ""),
        ("POST", "/v1/shelves", "{}{}", "malformed", ""),
        ("POST", "/v1/shelves", "[]", "wrong_type", ""),
        ("POST", "/v1/shelves", "null", "wrong_type", ""),
        ("POST", "/v1/shelves?name=n", "{}", "unknown_field", "name"),
        ("POST", "/v1/loans/7:cancel?id=8", "", "unknown_field", "id"),
        ("POST", "/v1/shelves/1/books?book.name=n", "{}", "unknown_field", "book.name"),
        ("POST", "/v1/shelves/1/books", '{"shelf":"2"}', "unknown_field", "shelf"),
        ("POST", "/v1/shelves/1/books", "{}x", "malformed", ""),
        ("PATCH", "/v1/shelves/1/books/2", "null", "wrong_type", ""),
        ("POST", "/v1/shelves/1:import", "{}", "wrong_type", ""),
        ("POST", "/v1/shelves/1:import", '[{},{"pages":"x"}]', "wrong_type", "[1].pages"),
        ("PUT", "/v1/shelves/1/labels", '{"a":1}', "wrong_type", '["a"]'),
    ],
)  # fmt: skip
def test_refused(method: str, target: str, body: str, kind: str, field: str) -> None:
    with pytest.raises(TranscodeError) as caught:
        translate(method, target, body)
    assert (caught.value.kind, caught.value.field) == (kind, field)
    assert caught.value.reason


@pytest.mark.parametrize(
    ("target", "reply", "expected"),
    [
        ("/v1/shelves/1:import", {"books": [{"id": "a"}]}, [{"id": "a"}]),
        ("/v1/shelves/1:import", {}, []),
        ("/v1/shelves/1/labels", {"labels": {"a": "b"}}, {"a": "b"}),
        ("/v1/shelves/1/labels", {"id": "x"}, {}),
        ("/v1/shelves/1/name", {"name": "n"}, "n"),
        ("/v1/shelves/1/name", {}, ""),
    ],
)
def test_response_body(target: str, reply: object, expected: object) -> None:
    index, _, _ = TRANSCODER.match("POST" if target.endswith("import") else "PUT", target)
    wire = TRANSCODER.from_json("library.Shelf", json.dumps(reply).encode())
    assert json.loads(TRANSCODER.response(index, wire)) == expected


def test_response_prints_defaults_if_asked() -> None:
    printing = Transcoder(library.descriptor_set(), always_print_fields_with_no_presence=True)
    index, _, _ = printing.match("GET", "/v1/shelves/7")
    assert json.loads(printing.response(index, b"")) == {
        "id": "",
        "name": "",
        "books": [],
        "labels": {},
    }
    assert TRANSCODER.response(index, b"") == b"{}"


def test_damaged_replies_are_the_services_fault() -> None:
    index, _, _ = TRANSCODER.match("GET", "/v1/shelves/7")
    for damaged in [b"\x0a", b"\x0a\x05ab", b"\x00", b"\x0b", b"\x0a\x01\xff", b"\xff" * 20]:
        with pytest.raises(DecodeError):
            TRANSCODER.response(index, damaged)


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("google.protobuf.Value", b"\x11\x00\x00\x00\x00\x00\x00\xf8\x7f"),
        ("google.protobuf.Timestamp", b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x40"),
        ("google.protobuf.Duration", b"\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ("google.protobuf.FieldMask", b"\x0a\x01A"),
        ("google.protobuf.Any", b"\x0a\x04x/no"),
    ],
)
def test_what_json_cannot_carry_is_told(name: str, wire: bytes) -> None:
    with pytest.raises(EncodeError):
        TRANSCODER.to_json(name, wire)


def test_replies_nested_too_deep_are_told() -> None:
    wire = b""
    for _ in range(101):
        length = len(wire)
        prefix = bytes([length & 0x7F | 0x80, length >> 7]) if length > 127 else bytes([length])
        wire = b"\x8a\x01" + prefix + wire
    with pytest.raises(EncodeError, match="too deep"):
        TRANSCODER.to_json("library.All", wire)


def test_bindings_say_what_is_declared() -> None:
    by_template = {binding.template: binding for binding in TRANSCODER.bindings}
    update = by_template["/v1/shelves/{shelf}/books/{book.id}"]
    assert update.variables == ("shelf", "book.id")
    assert (update.service, update.method) == ("library.Library", "UpdateBook")
    assert update.input_type == "library.BookRequest"
    assert update.output_type == "library.Book"
    assert by_template["/search"].server_streaming
    assert not by_template["/search"].client_streaming
    assert not any(binding.method == "Hidden" for binding in TRANSCODER.bindings)
    assert [binding.index for binding in TRANSCODER.bindings] == [*range(len(TRANSCODER.bindings))]


def test_services_can_be_chosen() -> None:
    none = Transcoder(library.descriptor_set(), services=[])
    assert none.bindings == ()
    with pytest.raises(RouteNotFoundError):
        none.match("GET", "/v1/shelves/7")
    with pytest.raises(ConfigurationError, match=r"no service library\.Nope"):
        Transcoder(library.descriptor_set(), services=["library.Library", "library.Nope"])


def test_a_set_is_collected_from_generated_modules() -> None:
    from google.protobuf import struct_pb2, type_pb2

    data = descriptor_set(type_pb2.DESCRIPTOR, struct_pb2.DESCRIPTOR)
    names = [file.name for file in FileDescriptorSet.FromString(data).file]
    assert names.index("google/protobuf/any.proto") < names.index("google/protobuf/type.proto")
    assert len(names) == len(set(names))
    assert Transcoder(data).from_json("google.protobuf.Type", b'{"name":"x"}') == b"\n\x01x"


def altered(**rule: Any) -> bytes:
    """The set with another rule for GetShelf: fields by name."""
    from google.api import annotations_pb2, http_pb2

    files = FileDescriptorSet.FromString(library.descriptor_set())
    library_file = next(file for file in files.file if file.name == "transcode.proto")
    method = library_file.service[0].method[0]
    http: Any = annotations_pb2.http
    method.options.Extensions[http].CopyFrom(http_pb2.HttpRule(**rule))
    return files.SerializeToString()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "no pattern"),
        ({"get": "v1"}, "start with a slash"),
        ({"get": "/v1/{nope}"}, "nope"),
        ({"get": "/v1/{id"}, "does not end"),
        ({"get": "/v1/{books}"}, "books"),
        ({"get": "/v1/{labels}"}, "labels"),
        ({"get": "/v1/{id}/**/x"}, "last segment"),
        ({"get": "/v1/x", "body": "nope"}, "nope"),
        ({"get": "/v1/x", "response_body": "nope"}, "nope"),
        ({"get": "/v1/shelves/featured"}, "FeaturedShelf.*GetShelf"),
        ({"get": "/v1/loans/{name}"}, r"/v1/loans/\{id\}.*/v1/loans/\{name\}"),
    ],
)
def test_rules_that_cannot_work_are_told(rule: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Transcoder(altered(**rule))


@pytest.mark.parametrize("damaged", [b"\xff", b"\x0a\x05abc", b"nonsense", b"\x0a\x02\x22\xff"])
def test_other_bytes_are_no_descriptor_set(damaged: bytes) -> None:
    with pytest.raises(ConfigurationError, match="no FileDescriptorSet"):
        Transcoder(damaged)


def test_a_set_without_its_imports_is_told() -> None:
    files = FileDescriptorSet.FromString(library.descriptor_set())
    del files.file[:-1]
    with pytest.raises(ConfigurationError, match="made with imports"):
        Transcoder(files.SerializeToString())


@pytest.mark.parametrize("depth", [0, 129])
def test_the_limit_of_depth_has_limits(depth: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 128"):
        Transcoder(library.descriptor_set(), max_depth=depth)


def test_unknown_names_and_indices_are_lookup_errors() -> None:
    with pytest.raises(LookupError, match="no message"):
        TRANSCODER.from_json("library.Nope", b"{}")
    with pytest.raises(LookupError, match="no message"):
        TRANSCODER.to_json("library.Level", b"")
    with pytest.raises(IndexError, match="no route 99"):
        TRANSCODER.response(99, b"")
