"""Server reflection by its own method: what it finds, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc_health.v1.health_pb2
import grpc_reflection.v1alpha.reflection_pb2
import grpclib.reflection.v1.reflection_pb2
import pytest
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from tests.generated.better.echo.services import EchoBase as BetterEcho
from tests.generated.echo_bascule import EchoBase
from tests.generated.odd.odd_names_bascule import KindsBase

import bascule_shop
from bascule.errors import ConfigurationError, RpcError, Status
from bascule.rpc import Cardinality, Method, MethodHandler, ReflectionService
from bascule.rpc._generated import health_pb2, reflection_v1_pb2, reflection_v1alpha_pb2
from bascule.rpc._generated.reflection_v1_pb2 import ExtensionRequest, ServerReflectionRequest
from bascule_shop._generated.order.services import OrderServiceBase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

SHOP = (Path(bascule_shop.__file__).parent / "_generated/descriptors.binpb").read_bytes()
OWN = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


async def ask(service: ReflectionService, version: str = "v1", **fields: Any) -> Any:
    async def requests() -> AsyncIterator[ServerReflectionRequest]:
        yield ServerReflectionRequest(host="here", **fields)

    handler = service.__mapping__()[
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    ]
    (response,) = [response async for response in handler.direct(requests())]
    assert response.valid_host == "here"
    return response


async def files(service: ReflectionService, **fields: Any) -> list[str]:
    found = (await ask(service, **fields)).file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(file).name for file in found]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_the_services_are_listed_with_reflection_itself(version: str) -> None:
    response = await ask(ReflectionService([EchoBase()]), version, list_services="")
    assert [item.name for item in response.list_services_response.service] == ["echo.Echo", *OWN]


@pytest.mark.parametrize("base", [EchoBase, BetterEcho])
async def test_a_symbol_is_found_in_the_file_that_declares_it(base: Any) -> None:
    service = ReflectionService([base()])
    for symbol in (
        "echo.Echo",
        "echo.Echo.Unary",
        "echo.EchoRequest",
        "echo.EchoRequest.text",
        "echo.Failure.code",
    ):
        assert await files(service, file_containing_symbol=symbol) == ["tests/generated/echo.proto"]
    for symbol in ("echo", "echo.Nothing", "Echo", ""):
        error = (await ask(service, file_containing_symbol=symbol)).error_response
        assert (error.error_code, error.error_message) == (5, f"{symbol!r} is not known here")


async def test_a_file_comes_with_all_that_it_imports_once() -> None:
    service = ReflectionService([KindsBase()])
    name = "tests/generated/odd/odd-names.proto"
    found = await files(service, file_by_filename=name)
    assert found[0] == name
    assert sorted(found) == [
        "google/protobuf/empty.proto",
        "google/protobuf/timestamp.proto",
        "tests/generated/odd/odd-names.proto",
        "tests/generated/odd/rootless.proto",
        "tests/generated/odd/shared.proto",
    ]
    assert (await ask(service, file_by_filename="none.proto")).error_response.error_code == 5
    assert (
        await files(service, file_containing_symbol="odd.names.Outer.Inner.HTTPInnermost") == found
    )
    assert await files(service, file_containing_symbol="odd.shared.Item.Part") == [
        "tests/generated/odd/shared.proto"
    ]


async def test_messages_without_descriptors_are_described_by_a_set() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"nothing describes service 'order\.OrderService'; pass descriptors=",
    ):
        ReflectionService([OrderServiceBase()])
    service = ReflectionService([OrderServiceBase()], descriptors=SHOP)
    found = await files(service, file_containing_symbol="order.OrderService")
    assert found[0] == "order/order.proto"
    assert {
        "shop/money.proto",
        "google/api/annotations.proto",
        "google/protobuf/descriptor.proto",
    } <= {*found}
    assert await files(service, file_containing_symbol="order.ORDER_STATUS_PENDING") == found


async def test_extensions_are_found_by_number() -> None:
    service = ReflectionService([OrderServiceBase()], descriptors=SHOP)
    options = "google.protobuf.MethodOptions"
    found = await files(
        service,
        file_containing_extension=ExtensionRequest(
            containing_type=options, extension_number=72295728
        ),
    )
    assert found[0] == "google/api/annotations.proto"
    numbers = (
        await ask(service, all_extension_numbers_of_type=options)
    ).all_extension_numbers_response
    assert (numbers.base_type_name, list(numbers.extension_number)) == (options, [72295728])
    none = await ask(service, all_extension_numbers_of_type="order.Order")
    assert list(none.all_extension_numbers_response.extension_number) == []
    assert none.WhichOneof("message_response") == "all_extension_numbers_response"

    wrong = ExtensionRequest(containing_type=options, extension_number=1)
    assert (await ask(service, file_containing_extension=wrong)).error_response.error_code == 5
    assert (
        await ask(service, all_extension_numbers_of_type="order.None")
    ).error_response.error_code == 5


async def test_extensions_inside_messages_are_found() -> None:
    file = FileDescriptorProto(name="x.proto", package="x", syntax="proto2")
    file.message_type.add(name="Open").extension_range.add(start=100, end=200)
    inner = file.message_type.add(name="Holder").extension.add(
        name="note", number=150, extendee=".x.Open", type=FieldDescriptorProto.TYPE_STRING
    )
    inner.label = FieldDescriptorProto.LABEL_OPTIONAL
    file.service.add(name="S")
    descriptors = FileDescriptorSet(file=[file]).SerializeToString()

    class Service:
        def __mapping__(self) -> dict[str, MethodHandler]:
            method = Method("/x.S/Do", Cardinality.UNARY_UNARY, bytes, bytes)
            return {method.path: MethodHandler.unary(method, self._do)}

        async def _do(self, request: bytes) -> bytes:
            return request

    service = ReflectionService([Service()], descriptors=descriptors)
    wanted = ExtensionRequest(containing_type="x.Open", extension_number=150)
    assert await files(service, file_containing_extension=wanted) == ["x.proto"]
    assert await files(service, file_containing_symbol="x.Holder.note") == ["x.proto"]


async def test_a_request_for_nothing_is_refused() -> None:
    with pytest.raises(RpcError, match="asks for nothing") as raised:
        await ask(ReflectionService([EchoBase()]))
    assert raised.value.status is Status.INVALID_ARGUMENT


def shape(message: Any) -> Any:
    """All that is seen of a message type on the wire."""
    return (
        [
            (
                field.name,
                field.number,
                field.type,
                field.is_repeated,
                field.message_type and shape(field.message_type),
            )
            for field in message.fields
            if field.message_type is not message
        ],
        [(enum.name, enum.values_by_name.keys()) for enum in message.enum_types],
    )


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (health_pb2, grpc_health.v1.health_pb2),
        (reflection_v1_pb2, grpclib.reflection.v1.reflection_pb2),
        (reflection_v1alpha_pb2, grpc_reflection.v1alpha.reflection_pb2),
    ],
)
def test_the_messages_are_those_of_other_libraries(own: Any, other: Any) -> None:
    for name, message in other.DESCRIPTOR.message_types_by_name.items():
        assert shape(own.DESCRIPTOR.message_types_by_name[name]) == shape(message)
    for name, service in other.DESCRIPTOR.services_by_name.items():
        mine = own.DESCRIPTOR.services_by_name[name]
        assert mine.full_name == service.full_name
        assert [method.name for method in mine.methods] == [
            method.name for method in service.methods
        ]
