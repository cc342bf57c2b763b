"""Server reflection: ``grpc.reflection.v1`` and ``v1alpha``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from bascule.errors import ConfigurationError, RpcError, Status
from bascule.rpc._generated import reflection_v1_pb2, reflection_v1alpha_pb2
from bascule.rpc._generated.reflection_v1_pb2 import (
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)
from bascule.rpc._method import Cardinality, Method, MethodHandler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from google.protobuf.descriptor import FileDescriptor
    from grpclib.const import Handler

    from bascule.rpc._binding import Servable

__all__ = ["ReflectionService"]


# Both versions have the same messages, so the classes of v1 serve for both.
_METHODS: Final = tuple(
    Method(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        Cardinality.STREAM_STREAM,
        ServerReflectionRequest,
        ServerReflectionResponse,
    )
    for version in ("v1", "v1alpha")
)


class ReflectionService:
    """Lets clients such as grpcurl learn what a server serves. Serve it beside the services it describes.

    The descriptors are those of the message classes. betterproto2's classes have them if they were generated with the
    option ``google_protobuf_descriptors``; give ``descriptors`` otherwise.

    :param services: what the server serves
    :param descriptors: a serialized ``google.protobuf.FileDescriptorSet`` with all imports
        (``protoc --include_imports --descriptor_set_out``)
    :raises ConfigurationError: if nothing describes one of the services
    """

    def __init__(self, services: Iterable[Servable], *, descriptors: bytes | None = None) -> None:
        self._files = _Files()
        if descriptors is not None:
            for proto in FileDescriptorSet.FromString(descriptors).file:
                self._files.add(proto)
        for own in (reflection_v1_pb2, reflection_v1alpha_pb2):
            self._files.add_with_imports(own.DESCRIPTOR)
        names = {method.service for method in _METHODS}
        for service in services:
            for path, handler in service.__mapping__().items():
                names.add(path.split("/")[1])
                self._add_messages(path.split("/")[1], handler)
        self._names = sorted(names)
        for name in self._names:
            if name not in self._files.symbols:
                message = (
                    f"reflection: nothing describes service {name!r}; pass descriptors=, or generate its betterproto2 "
                    "messages with google_protobuf_descriptors"
                )
                raise ConfigurationError(message)

    def __mapping__(self) -> dict[str, MethodHandler]:
        """Give the server the handlers of both versions."""
        return {method.path: MethodHandler.bidi(method, self._info) for method in _METHODS}

    def _add_messages(self, service: str, handler: Handler) -> None:
        for message_type in (handler.request_type, handler.reply_type):
            descriptor = getattr(message_type, "DESCRIPTOR", None)
            if not isinstance(descriptor, Descriptor):
                continue
            self._files.add_with_imports(descriptor.file)
            try:
                declaring = descriptor.file.pool.FindFileContainingSymbol(service)
            except KeyError:
                continue  # in another pool, or in a file that was not generated
            self._files.add_with_imports(declaring)

    async def _info(
        self, requests: AsyncIterator[ServerReflectionRequest]
    ) -> AsyncIterator[ServerReflectionResponse]:
        async for request in requests:
            yield self._answer(request)

    def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        response = ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            match request.WhichOneof("message_request"):
                case "list_services":
                    services = [ServiceResponse(name=name) for name in self._names]
                    response.list_services_response.CopyFrom(ListServiceResponse(service=services))
                case "file_by_filename":
                    response.file_descriptor_response.CopyFrom(self._file(request.file_by_filename))
                case "file_containing_symbol":
                    file = self._files.symbols[request.file_containing_symbol]
                    response.file_descriptor_response.CopyFrom(self._file(file))
                case "file_containing_extension":
                    wanted = request.file_containing_extension
                    file = self._files.extensions[wanted.containing_type][wanted.extension_number]
                    response.file_descriptor_response.CopyFrom(self._file(file))
                case "all_extension_numbers_of_type":
                    name = request.all_extension_numbers_of_type
                    numbers = sorted(self._files.extensions[name])
                    response.all_extension_numbers_response.CopyFrom(
                        ExtensionNumberResponse(base_type_name=name, extension_number=numbers)
                    )
                case _:
                    raise RpcError(
                        Status.INVALID_ARGUMENT, "the reflection request asks for nothing"
                    )
        except KeyError as error:
            message = f"{error.args[0]!r} is not known here"
            response.error_response.CopyFrom(
                ErrorResponse(error_code=Status.NOT_FOUND.value, error_message=message)
            )
        return response

    def _file(self, name: str) -> FileDescriptorResponse:
        return FileDescriptorResponse(file_descriptor_proto=self._files.with_imports(name))


class _Files:
    """Proto files by name, by what they declare and by what they extend. Of two declarations the first one counts."""

    def __init__(self) -> None:
        self._serialized: dict[str, bytes] = {}
        self._imports: dict[str, list[str]] = {}
        #: Name of the declaring file for each full name.
        self.symbols: dict[str, str] = {}
        #: Name of the declaring file for each number, for each message; messages without extensions have no numbers.
        self.extensions: dict[str, dict[int, str]] = {}

    def add_with_imports(self, file: FileDescriptor) -> None:
        if file.name in self._serialized:
            return
        for imported in file.dependencies:
            self.add_with_imports(imported)
        self.add(FileDescriptorProto.FromString(file.serialized_pb))

    def add(self, file: FileDescriptorProto) -> None:
        if file.name in self._serialized:
            return
        self._serialized[file.name] = file.SerializeToString()
        self._imports[file.name] = list(file.dependency)
        for name in _declared(file):
            self.symbols.setdefault(name, file.name)
        for message in _messages(file.package, file.message_type):
            self.extensions.setdefault(message[0], {})
        for extension in _extensions(file):
            numbers = self.extensions.setdefault(extension.extendee.removeprefix("."), {})
            numbers.setdefault(extension.number, file.name)

    def with_imports(self, name: str) -> list[bytes]:
        """Return the file and all it needs, each once.

        :raises KeyError: if there is no such file
        """
        found = {name: self._serialized[name]}
        waiting = [*self._imports[name]]
        while waiting:
            imported = waiting.pop()
            if imported not in found and imported in self._serialized:
                found[imported] = self._serialized[imported]
                waiting += self._imports[imported]
        return list(found.values())


def _messages(
    scope: str, messages: Iterable[DescriptorProto]
) -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        name = _join(scope, message.name)
        yield name, message
        yield from _messages(name, message.nested_type)


def _declared(file: FileDescriptorProto) -> Iterator[str]:
    """Yield the full name of everything that a file declares."""
    for service in file.service:
        name = _join(file.package, service.name)
        yield name
        yield from (_join(name, method.name) for method in service.method)
    yield from _enums(file.package, file.enum_type)
    yield from (_join(file.package, extension.name) for extension in file.extension)
    for name, message in _messages(file.package, file.message_type):
        yield name
        members: tuple[Iterable[Any], ...] = (message.field, message.oneof_decl, message.extension)
        yield from (_join(name, member.name) for group in members for member in group)
        yield from _enums(name, message.enum_type)


def _enums(scope: str, enums: Iterable[EnumDescriptorProto]) -> Iterator[str]:
    for enum in enums:
        yield _join(scope, enum.name)
        # An enum's values are siblings of the enum, not its children.
        yield from (_join(scope, value.name) for value in enum.value)


def _extensions(file: FileDescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from file.extension
    for _, message in _messages(file.package, file.message_type):
        yield from message.extension


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name
