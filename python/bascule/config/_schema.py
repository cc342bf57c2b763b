"""From a document to a typed value, with the key that is at fault if that does not work."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bascule.config._document import MISSING, replaced
from bascule.errors import ConfigurationError

__all__ = ["InvalidError", "secrets_in", "typed", "with_secrets"]

T = TypeVar("T")

#: Bytes of a file with a secret.
LARGEST_SECRET = 64 * 1024

_MSGSPEC = re.compile(r"(?P<reason>.*?)(?: - at `(?P<path>\$.*)`)?", re.DOTALL)
_MISSING_FIELD = re.compile(r"Object (missing required|contains unknown) field `(?P<name>[^`]*)`")


class InvalidError(ConfigurationError):
    """A document that does not fit its schema.

    :ivar key: dotted; empty for all of it
    :ivar reason: without the value, which may be a secret
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.key or 'the whole'}: {self.reason}"


def typed(document: Mapping[str, Any], schema: type[T]) -> T:
    """Convert to a msgspec Struct, a dataclass, a TypedDict or a pydantic model.

    :raises InvalidError: if it does not fit
    """
    validate = getattr(schema, "model_validate", None)
    if validate is not None:
        return _by_pydantic(document, validate)  # type: ignore[no-any-return]
    try:
        # Not strictly: the environment has nothing but text.
        return msgspec.convert(document, schema, strict=False)
    except msgspec.ValidationError as error:
        match = _MSGSPEC.fullmatch(str(error))
        reason, path = (match["reason"], match["path"] or "$") if match else (str(error), "$")
        key = path.removeprefix("$").removeprefix(".")
        field = _MISSING_FIELD.match(reason)
        if field is not None:
            key = f"{key}.{field['name']}".removeprefix(".")
        raise InvalidError(key, reason) from error
    except ValueError as error:  # of a __post_init__
        raise InvalidError("", str(error)) from error


def _by_pydantic(document: Mapping[str, Any], validate: Any) -> Any:
    from pydantic import ValidationError

    try:
        return validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidError(".".join(map(str, first["loc"])), first["msg"]) from error


def secrets_in(document: Mapping[str, Any], schema: Any) -> dict[tuple[str, ...], str]:
    """Files that hold the values of fields: by the place of the field, the path.

    ``password_file`` stands for ``password`` where the schema has a field ``password`` and none
    that is called ``password_file``.
    """
    fields = _fields(schema)
    if fields is None:
        return {}
    found: dict[tuple[str, ...], str] = {}
    for name, value in document.items():
        if name in fields:
            if isinstance(value, Mapping):
                inner = secrets_in(value, fields[name])
                found |= {(name, *place): path for place, path in inner.items()}
        elif name.removesuffix("_file") in fields and isinstance(value, str):
            found[(name.removesuffix("_file"),)] = value
    return found


def with_secrets(
    document: Mapping[str, Any], secrets: Mapping[tuple[str, ...], str]
) -> dict[str, Any]:
    """The document with the content of the files in the place of their paths. Blocks: for threads.

    :raises InvalidError: if a file cannot be read
    """
    whole = dict(document)
    for place, path in secrets.items():
        named = (*place[:-1], f"{place[-1]}_file")
        whole = replaced(replaced(whole, named, MISSING), place, _secret(".".join(named), path))
    return whole


def _secret(key: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_SECRET + 1)
        if len(content) > LARGEST_SECRET:
            raise InvalidError(key, f"{path!r} has more than {LARGEST_SECRET} bytes")
        return content.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(key, f"{path!r} cannot be read: {error}") from error


def _fields(schema: Any) -> dict[str, Any] | None:
    """The types of a schema's fields by the names that documents have for them; None if it has none."""
    if typing.get_origin(schema) is typing.Annotated:
        return _fields(typing.get_args(schema)[0])
    if isinstance(schema, type) and issubclass(schema, msgspec.Struct):
        return {each.encode_name: each.type for each in msgspec.structs.fields(schema)}
    if dataclasses.is_dataclass(schema) or typing.is_typeddict(schema):
        return typing.get_type_hints(schema)
    model = getattr(schema, "model_fields", None)
    if isinstance(model, dict):
        return {each.alias or name: each.annotation for name, each in model.items()}
    if typing.get_origin(schema) in {typing.Union, types.UnionType}:
        found = (_fields(each) for each in typing.get_args(schema))
        return next((each for each in found if each is not None), None)
    return None
