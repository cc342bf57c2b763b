"""Reads a document by a schema of dataclasses, and names the key that is at fault."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from bascule.gateway._file_schema import Key

__all__ = ["keys_of", "read_table"]

T = TypeVar("T")

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_PLAIN = re.compile("[A-Za-z0-9_-]+")
_ABSENT: Any = object()


def read_table(
    document: Mapping[str, Any], schema: type[T], environment: Mapping[str, str], under: str = ""
) -> T:
    """Make a table of a document.

    Text becomes what the environment makes of it where the schema says so; text that is empty
    then counts as not given.

    :param under: dotted key of the table
    :raises ConfigurationError: naming the key, if something is unknown, missing or of a wrong kind
    """
    keys = keys_of(schema)
    unknown = sorted(set(document) - set(keys))
    if unknown:
        names = ", ".join(keys)
        raise ConfigurationError(f"{join(under, unknown[0])}: there is no such key; known: {names}")
    values: dict[str, Any] = {}
    for name, (kind, key) in keys.items():
        if name in document:
            value = _value(document[name], kind, key, environment, join(under, name))
            if value is not _ABSENT:
                values[name] = value
    for each in dataclasses.fields(schema):  # type: ignore[arg-type]
        required = (
            each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        )
        if required and each.name not in values:
            says = keys[each.name][1].says
            raise ConfigurationError(f"{join(under, each.name)}: it is missing ({says})")
    return schema(**values)


def keys_of(schema: type) -> dict[str, tuple[Any, Key]]:
    """The keys of a table, each with its type and its documentation."""
    found: dict[str, tuple[Any, Key]] = {}
    for name, hint in typing.get_type_hints(schema, include_extras=True).items():
        kind, key = typing.get_args(hint)
        found[name] = kind, key
    return found


def join(under: str, name: str) -> str:
    """The dotted key, quoted as TOML would have it."""
    part = name if _PLAIN.fullmatch(name) else f'"{name}"'
    return f"{under}.{part}" if under else part


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types of a union; the type itself if it is none."""
    union = typing.get_origin(kind) in {typing.Union, types.UnionType}
    return typing.get_args(kind) if union else (kind,)


def _value(value: Any, kind: Any, key: Key, environment: Mapping[str, str], at: str) -> Any:
    kinds = alternatives(kind)
    if isinstance(value, Mapping):
        for each in kinds:
            if dataclasses.is_dataclass(each):
                return read_table(value, typing.cast("type", each), environment, at)
            if typing.get_origin(each) is dict:
                inner = typing.get_args(each)[1]
                return {
                    name: _required(_value(one, inner, key, environment, join(at, name)), at, name)
                    for name, one in value.items()
                }
    if isinstance(value, str):
        value = _expanded(value, key, environment, at)
        if value == "" and key.environment:
            return _ABSENT
    if isinstance(value, list):
        value = [_expanded(e, key, environment, at) if isinstance(e, str) else e for e in value]
    try:
        return msgspec.convert(value, typing.Union[tuple(_leaf(each) for each in kinds)])  # noqa: UP007
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{at}: {value!r} is not {expected(kind)}") from error


def _leaf(kind: Any) -> Any:
    """What stands for a type where no table was given."""
    return None if dataclasses.is_dataclass(kind) or typing.get_origin(kind) is dict else kind


def _required(value: Any, at: str, name: str) -> Any:
    if value is _ABSENT:
        raise ConfigurationError(f"{join(at, name)}: it is empty")
    return value


def _expanded(text: str, key: Key, environment: Mapping[str, str], at: str) -> str:
    if "${" not in text:
        return text
    if not key.environment:
        raise ConfigurationError(f"{at}: {text!r}: the environment cannot stand here")

    def replace(found: re.Match[str]) -> str:
        value = environment.get(found["name"]) or found["default"]
        if value is None:
            raise ConfigurationError(
                f"{at}: {text!r}: the environment has no {found['name']}; set it, or write ${{{found['name']}:-default}}"
            )
        return value

    expanded = _VARIABLE.sub(replace, text)
    if "${" in _VARIABLE.sub("", text):
        raise ConfigurationError(f"{at}: {text!r}: write ${{NAME}} or ${{NAME:-default}}")
    return expanded


def expected(kind: Any) -> str:
    """A type in words."""
    said = [_words(each) for each in alternatives(kind) if each is not types.NoneType]
    return " or ".join(said)


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _words(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(f'"{each}"' for each in arguments)
    if origin is list:
        inner = _words(arguments[0])
        return "a list of " + ("texts" if inner == "text" else inner)
    if origin is dict or dataclasses.is_dataclass(kind):
        return "a table"
    return _WORDS[kind]
