"""Descriptors as text that reads like a proto file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["describe"]

_SCALARS = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in (
        *("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64"),
        *("fixed32", "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes"),
    )
}


def describe(descriptor: Any) -> str:
    """A service, method, message or enum; with a method come its two messages."""
    if isinstance(descriptor, ServiceDescriptor):
        lines = [f"service {descriptor.full_name} {{"]
        lines += [f"  {_rpc(method)}" for method in descriptor.methods]
        return "\n".join([*lines, "}"])
    if isinstance(descriptor, MethodDescriptor):
        head = f"// of service {descriptor.containing_service.full_name}\n{_rpc(descriptor)}"
        messages = dict.fromkeys((descriptor.input_type, descriptor.output_type))
        return "\n\n".join([head, *("\n".join(_message(each)) for each in messages)])
    if isinstance(descriptor, EnumDescriptor):
        return "\n".join(_enum(descriptor, descriptor.full_name))
    return "\n".join(_message(descriptor))


def _rpc(method: MethodDescriptor) -> str:
    taken = "stream " if method.client_streaming else ""
    given = "stream " if method.server_streaming else ""
    return (
        f"rpc {method.name}({taken}{method.input_type.full_name}) "
        f"returns ({given}{method.output_type.full_name});"
    )


def _message(message: Descriptor, name: str | None = None) -> Iterator[str]:
    yield f"message {name or message.full_name} {{"
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            yield from _indented(_message(nested, nested.name))
    for enum in message.enum_types:
        yield from _indented(_enum(enum, enum.name))
    told: set[str] = set()
    for field in message.fields:
        group = field.containing_oneof
        if group is None or _is_optional(field):
            yield f"  {_field(field)}"
        elif group.name not in told:
            told.add(group.name)
            yield f"  oneof {group.name} {{"
            yield from (f"    {_field(each)}" for each in group.fields)
            yield "  }"
    yield "}"


def _enum(enum: EnumDescriptor, name: str) -> Iterator[str]:
    yield f"enum {name} {{"
    yield from (f"  {value.name} = {value.number};" for value in enum.values)
    yield "}"


def _field(field: FieldDescriptor) -> str:
    kind = _type(field)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = (_type(entry.fields_by_name[each]) for each in ("key", "value"))
        kind = f"map<{key}, {value}>"
    elif field.is_repeated:
        kind = f"repeated {kind}"
    elif field.is_required:
        kind = f"required {kind}"
    elif _is_optional(field):
        kind = f"optional {kind}"
    return f"{kind} {field.name} = {field.number};"


def _type(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return str(field.message_type.full_name)
    if field.enum_type is not None:
        return str(field.enum_type.full_name)
    return _SCALARS[field.type]


def _is_optional(field: FieldDescriptor) -> bool:
    """Whether it was declared ``optional``: proto3 keeps that as a oneof of its own."""
    group = field.containing_oneof
    return group is not None and len(group.fields) == 1 and group.name == f"_{field.name}"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
