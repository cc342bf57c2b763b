"""What a server serves: its services and messages, by reflection or from a descriptor set."""

from __future__ import annotations

import difflib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from bascule.errors import BasculeError, RpcError, Status
from bascule.rpc import Cardinality, Method
from bascule.rpc._generated.reflection_v1_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from google.protobuf.descriptor import MethodDescriptor

    from bascule.rpc import Channel, Stream

__all__ = [
    "DescriptorSet",
    "Reflection",
    "Schema",
    "SchemaError",
    "find_method",
    "find_symbol",
    "instead",
    "method_of",
    "open_reflection",
]

#: Newest first: a server that lacks one answers UNIMPLEMENTED (gRPC's server reflection document).
VERSIONS = ("v1", "v1alpha")


class SchemaError(BasculeError, LookupError):
    """Nothing describes what was asked for; the message says what there is instead."""


class Schema(Protocol):
    """Where descriptors come from."""

    #: What was learned so far.
    pool: DescriptorPool

    async def services(self) -> list[str]:
        """Full names of all services."""
        ...

    async def learn(self, symbol: str) -> None:
        """Have the pool know a full name.

        :raises KeyError: if nothing describes it
        """
        ...


class DescriptorSet:
    """A serialized ``google.protobuf.FileDescriptorSet``, with all imports.

    :raises SchemaError: if the file is no such thing
    """

    def __init__(self, path: Path) -> None:
        try:
            files = FileDescriptorSet.FromString(path.read_bytes()).file
        except DecodeError as error:
            raise SchemaError(
                f"{path} is no descriptor set: make one with "
                "`protoc --include_imports --descriptor_set_out=FILE ...`"
            ) from error
        self.pool = DescriptorPool()
        self._services = [_join(file.package, each.name) for file in files for each in file.service]
        _add_all(self.pool, {file.name: file for file in files})

    async def services(self) -> list[str]:
        """Full names of all services."""
        return sorted(self._services)

    async def learn(self, symbol: str) -> None:
        """Find out whether the set has it."""
        self.pool.FindFileContainingSymbol(symbol)


class Reflection:
    """A server that describes itself.

    :ivar version: of the protocol, ``v1`` or ``v1alpha``
    :ivar questions: how many were asked
    :ivar files: how many were received
    """

    def __init__(self, version: str, stream: Stream[Any, Any]) -> None:
        self.pool = DescriptorPool()
        self.version = version
        self.questions = 0
        self._stream = stream
        self._files: dict[str, FileDescriptorProto] = {}

    @property
    def files(self) -> int:
        """How many proto files were received."""
        return len(self._files)

    async def services(self) -> list[str]:
        """Full names of all services."""
        answer = await self._ask(list_services="*")
        return sorted(each.name for each in answer.list_services_response.service)

    async def learn(self, symbol: str) -> None:
        """Ask for the file that declares a name, and for those that it imports.

        :raises KeyError: if the server knows none
        """
        asked: set[str] = set()
        answer = await self._ask(file_containing_symbol=symbol)
        while True:
            for packed in answer.file_descriptor_response.file_descriptor_proto:
                file = FileDescriptorProto.FromString(packed)
                self._files.setdefault(file.name, file)
            missing = self._missing() - asked
            if not missing:
                break
            # Most servers send the imports along; they need not.
            name = missing.pop()
            asked.add(name)
            answer = await self._ask(file_by_filename=name)
        _add_all(self.pool, self._files)
        self.pool.FindFileContainingSymbol(symbol)

    def _missing(self) -> set[str]:
        wanted = {name for file in self._files.values() for name in file.dependency}
        return {name for name in wanted - self._files.keys() if _bundled(name) is None}

    async def _ask(self, **question: Any) -> ServerReflectionResponse:
        self.questions += 1
        await self._stream.send_message(ServerReflectionRequest(**question))
        answer: ServerReflectionResponse | None = await self._stream.recv_message()
        if answer is None:
            await self._stream.recv_trailing_metadata()
            raise RpcError(Status.INTERNAL, "the server ended reflection without an answer")
        if answer.WhichOneof("message_response") == "error_response":
            raise KeyError(answer.error_response.error_message)
        return answer


@asynccontextmanager
async def open_reflection(channel: Channel, timeout: float | None) -> AsyncIterator[Reflection]:
    """Ask a server to describe itself, by the newest version of the protocol that it has.

    :param timeout: seconds for all questions; None for no limit
    :raises SchemaError: if the server has no reflection
    :raises RpcError: if it cannot be asked
    """
    for version in VERSIONS:
        stream = _ask_by(channel, version, timeout)
        async with stream:
            try:
                await stream.send_message(ServerReflectionRequest(list_services="*"))
                await stream.recv_message()
            except RpcError as error:
                if error.status is not Status.UNIMPLEMENTED:
                    raise
                continue
            reflection = Reflection(version, stream)
            yield reflection
            await stream.end()
            return
    raise SchemaError(
        f"{channel.target} has no server reflection ({' and '.join(VERSIONS)} are unimplemented): "
        "give a descriptor set with --proto, or serve bascule.rpc.ReflectionService there"
    )


def _ask_by(channel: Channel, version: str, timeout: float | None) -> Stream[Any, Any]:
    # Both versions have the same messages.
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    method = Method(
        path, Cardinality.STREAM_STREAM, ServerReflectionRequest, ServerReflectionResponse
    )
    return channel.stream(method, timeout=timeout)


async def find_method(schema: Schema, name: str) -> MethodDescriptor:
    """The method of a name: ``package.Service/Method``, ``package.Service.Method``, or without
    the package if one service alone has the name.

    :raises SchemaError: if there is none; the message names similar ones
    """
    service_name, _, method_name = name.removeprefix("/").replace("/", ".").rpartition(".")
    services = await schema.services()
    fitting = [each for each in services if each == service_name]
    fitting = fitting or [each for each in services if each.endswith(f".{service_name}")]
    if not service_name or not fitting:
        wanted = service_name or method_name
        raise SchemaError(f"there is no service {wanted!r} here{instead(wanted, services)}")
    if len(fitting) > 1:
        raise SchemaError(f"{service_name!r} is more than one service: {', '.join(fitting)}")
    try:
        await schema.learn(fitting[0])
        service = schema.pool.FindServiceByName(fitting[0])
    except KeyError as error:
        raise SchemaError(f"the server lists {fitting[0]} but does not describe it") from error
    if method_name not in service.methods_by_name:
        names = [each.name for each in service.methods]
        raise SchemaError(
            f"{service.full_name} has no method {method_name!r}{instead(method_name, names)}"
        )
    return service.methods_by_name[method_name]


async def find_symbol(schema: Schema, name: str) -> Any:
    """The descriptor of a service, method, message or enum.

    :raises SchemaError: if there is none; the message names similar ones
    """
    symbol = name.removeprefix("/").replace("/", ".").removeprefix(".")
    try:
        await schema.learn(symbol)
    except KeyError:
        services = await schema.services()
        service = symbol.rpartition(".")[0]
        if service in services or any(each.endswith(f".{service}") for each in services):
            return await find_method(schema, symbol)
        known = [*services, *await _messages_of(schema, services)]
        fitting = [each for each in known if each.endswith(f".{symbol}")]
        if len(fitting) != 1:
            text = f"nothing here is called {symbol!r}{instead(symbol, fitting or known)}"
            raise SchemaError(text) from None
        symbol = fitting[0]
        await schema.learn(symbol)
    pool = schema.pool
    finders = (pool.FindServiceByName, pool.FindMessageTypeByName, pool.FindEnumTypeByName)
    for find in (*finders, pool.FindMethodByName):
        try:
            return find(symbol)
        except KeyError:
            continue
    raise SchemaError(f"{symbol} is no service, method, message or enum: describe what declares it")


def method_of(descriptor: MethodDescriptor) -> Method[Any, Any]:
    """What a channel calls, with message classes made from the descriptors."""
    return Method(
        f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        Cardinality((descriptor.client_streaming, descriptor.server_streaming)),  # type: ignore[call-arg]
        GetMessageClass(descriptor.input_type),
        GetMessageClass(descriptor.output_type),
    )


async def _messages_of(schema: Schema, services: Iterable[str]) -> set[str]:
    """Full names of all messages and enums that the methods of services lead to."""
    names: set[str] = set()
    for name in services:
        try:
            await schema.learn(name)
            methods = schema.pool.FindServiceByName(name).methods
        except KeyError:
            continue
        for method in methods:
            waiting = [method.input_type, method.output_type]
            while waiting:
                found = waiting.pop()
                if found.full_name not in names:
                    names.add(found.full_name)
                    for each in getattr(found, "fields", ()):  # an enum has none
                        waiting += [kind for kind in (each.message_type, each.enum_type) if kind]
    return names


def instead(wanted: str, names: Iterable[str]) -> str:
    """What to say after "there is none": the similar names, or all if they are few."""
    # Only the last part is compared: packages would make everything similar.
    by_last = {each.rpartition(".")[2].lower(): each for each in names}
    if not by_last:
        return ""
    last = wanted.rpartition(".")[2].lower()
    similar = difflib.get_close_matches(last, by_last, n=3, cutoff=0.5)
    if similar:
        return f"; did you mean {' or '.join(by_last[each] for each in similar)}?"
    every = sorted(by_last.values())
    return f"; there is {', '.join(every[:10])}{', ...' if len(every) > 10 else ''}"


def _add_all(pool: DescriptorPool, files: dict[str, FileDescriptorProto]) -> None:
    """Add files after those that they import.

    :raises SchemaError: if an import is missing, or a file contradicts another one
    """
    added: set[str] = set()

    def add(name: str, importer: str) -> None:
        if name in added:
            return
        added.add(name)
        file = files.get(name) or _bundled(name)
        if file is None:
            raise SchemaError(
                f"{importer} imports {name}, which is not there: "
                "make the descriptor set with --include_imports"
            )
        for imported in file.dependency:
            add(imported, name)
        try:
            pool.FindFileByName(name)
        except KeyError:
            pool.Add(file)

    for name in files:
        try:
            add(name, name)
        except TypeError as error:
            raise SchemaError(f"{name} cannot be used: {error}") from error


def _bundled(name: str) -> FileDescriptorProto | None:
    """A well-known file of protobuf itself, which servers may leave out."""
    if not name.startswith("google/protobuf/"):
        return None
    # Imported for their effect: they register themselves in the default pool.
    from google.protobuf import (  # noqa: F401
        any_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )

    file = FileDescriptorProto()
    try:
        descriptor_pool.Default().FindFileByName(name).CopyToProto(file)
    except KeyError:
        return None
    return file


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name
