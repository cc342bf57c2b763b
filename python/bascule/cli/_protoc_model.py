"""What one generated module holds, read from descriptors: no formatting here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from bascule.cli._protoc_names import Namespace, method_namespace, snake_case

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_SERVICE_FIELD: Final = FileDescriptorProto.SERVICE_FIELD_NUMBER
_METHOD_FIELD: Final = ServiceDescriptorProto.METHOD_FIELD_NUMBER


class GenerationError(ValueError):
    """The request cannot be answered; the message goes to protoc, which prints it."""


@dataclass(frozen=True, eq=False)
class MessageType:
    """Where a message is declared; an index holds each one once, so identity is equality."""

    file: FileDescriptorProto
    nested: tuple[str, ...]  #: its name and those of the messages around it, the outermost first


@dataclass(frozen=True)
class MethodModel:
    """One method, in Python's terms."""

    name: str
    constant: str
    path: str
    client_streaming: bool
    server_streaming: bool
    request: str  #: expression for the message class
    reply: str
    doc: str
    deprecated: bool


@dataclass(frozen=True)
class ServiceModel:
    """One service, in Python's terms."""

    name: str
    full_name: str
    methods: tuple[MethodModel, ...]
    doc: str
    deprecated: bool


@dataclass(frozen=True)
class Import:
    """``from module import name as alias``; a bare ``import name`` if there is no module."""

    module: str
    name: str
    alias: str


@dataclass(frozen=True)
class ModuleModel:
    """One generated module."""

    path: str
    sources: tuple[str, ...]
    imports: tuple[Import, ...]
    services: tuple[ServiceModel, ...]


class Layout(Protocol):
    """How the classes of one message kind are laid out in modules."""

    def modules(
        self, files: Sequence[FileDescriptorProto]
    ) -> Iterator[tuple[str, Sequence[FileDescriptorProto]]]:
        """Yield the path of each module to generate, and the proto files whose services go there."""

    def references(
        self, files: Sequence[FileDescriptorProto], messages: Iterable[MessageType]
    ) -> tuple[dict[MessageType, str], tuple[Import, ...]]:
        """Give each message an expression, valid in the module of ``files`` after the imports."""


class Index:
    """All message types of a request, by full name.

    :param files: everything protoc sent, imports included
    """

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._types: dict[str, MessageType] = {}
        for file in files:
            prefix = f".{file.package}" if file.package else ""
            self._add(file, prefix, (), file.message_type)

    def _add(
        self,
        file: FileDescriptorProto,
        prefix: str,
        outer: tuple[str, ...],
        messages: Iterable[DescriptorProto],
    ) -> None:
        for message in messages:
            nested = (*outer, message.name)
            self._types[".".join((prefix, *nested))] = MessageType(file, nested)
            self._add(file, prefix, nested, message.nested_type)

    def __getitem__(self, full_name: str) -> MessageType:
        """Look ``.package.Message`` up."""
        return self._types[full_name]


def build_module(
    path: str, files: Sequence[FileDescriptorProto], index: Index, layout: Layout
) -> ModuleModel:
    """Model the module at ``path`` with the services of ``files``."""
    methods = [method for file in files for service in file.service for method in service.method]
    messages = dict.fromkeys(
        index[name] for method in methods for name in (method.input_type, method.output_type)
    )
    expressions, imports = layout.references(files, messages)
    builder = _Builder(index, expressions, [item.alias for item in imports])
    services = tuple(builder.service(file, at) for file in files for at in range(len(file.service)))
    return ModuleModel(path, tuple(file.name for file in files), imports, services)


class _Builder:
    def __init__(
        self, index: Index, expressions: dict[MessageType, str], modules: Sequence[str]
    ) -> None:
        self._index = index
        self._expressions = expressions
        self._modules = modules
        self._constants = Namespace()

    def service(self, file: FileDescriptorProto, at: int) -> ServiceModel:
        service = file.service[at]
        comments = _comments(file)
        full_name = f"{file.package}.{service.name}" if file.package else service.name
        deprecated = service.options.deprecated or file.options.deprecated
        names = method_namespace(self._modules)
        methods = tuple(
            self._method(
                f"/{full_name}/{method.name}",
                f"{snake_case(service.name)}_{snake_case(method.name)}".upper(),
                method,
                names,
                comments.get((_SERVICE_FIELD, at, _METHOD_FIELD, number), ""),
            )
            for number, method in enumerate(service.method)
        )
        return ServiceModel(
            service.name, full_name, methods, comments.get((_SERVICE_FIELD, at), ""), deprecated
        )

    def _method(
        self, path: str, constant: str, method: MethodDescriptorProto, names: Namespace, doc: str
    ) -> MethodModel:
        return MethodModel(
            name=names.claim(snake_case(method.name)),
            constant=self._constants.claim(constant),
            path=path,
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
            request=self._expressions[self._index[method.input_type]],
            reply=self._expressions[self._index[method.output_type]],
            doc=doc,
            deprecated=method.options.deprecated,
        )


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {
        tuple(location.path): _clean(location.leading_comments, location.trailing_comments)
        for location in file.source_code_info.location
        if location.leading_comments or location.trailing_comments
    }


def _clean(*comments: str) -> str:
    """Join comments by an empty line; drop the space that follows each comment sign and the margin of a block."""
    paragraphs = []
    for comment in comments:
        lines = [line.removeprefix(" ").rstrip() for line in comment.expandtabs(4).splitlines()]
        paragraphs.append("\n".join(lines).strip("\n"))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph).strip()
