"""The reference of a gateway's file, made of its schema."""

from __future__ import annotations

import dataclasses
import typing
from typing import TYPE_CHECKING, Any

from bascule.gateway._file_read import alternatives, expected, keys_of
from bascule.gateway._file_schema import FileTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bascule.gateway._file_schema import Key

__all__ = ["reference"]


def reference() -> str:
    """Every key of the file, as Markdown: a table for each table, in the order of the schema."""
    return "\n".join(_tables(FileTable, [""]))


def _tables(schema: type, names: list[str]) -> Iterator[str]:
    """:param names: dotted names of the tables that take these keys"""
    title = ", ".join(f"`[{name}]`" for name in names if name)
    yield f"## {title or 'The top'}\n"
    if title:
        # Lines of a docstring are lines of source, not of text.
        yield f"{' '.join((schema.__doc__ or '').split())}\n"
    yield "| Key | Value | If not given | What it says |"
    yield "|---|---|---|---|"
    defaults = {each.name: each for each in dataclasses.fields(schema)}
    # `upstream` and `upstreams.NAME` take the same keys.
    inner: dict[type, list[str]] = {}
    for key_name, (kind, key) in keys_of(schema).items():
        shown, value = key_name, kind
        for each in alternatives(kind):
            if typing.get_origin(each) is dict:
                shown, value = f"{key_name}.NAME", typing.get_args(each)[1]
        for each in alternatives(value):
            if dataclasses.is_dataclass(each):
                found = [f"{name}.{shown}".removeprefix(".") for name in names]
                inner.setdefault(typing.cast("type", each), []).extend(found)
        cells = (f"`{shown}`", _value(value, key), _default(defaults[key_name]), key.says)
        yield f"| {' | '.join(cells)} |"
    yield ""
    for each, found in inner.items():
        yield from _tables(each, found)


def _value(kind: Any, key: Key) -> str:
    said = expected(kind).replace('"', "`")
    return f"{'path' if key.path else said}{', `${}`' if key.environment else ''}"


def _default(each: dataclasses.Field[Any]) -> str:
    if each.default_factory is not dataclasses.MISSING:
        made = each.default_factory()
        return "" if dataclasses.is_dataclass(made) or not made else _shown(made)
    if each.default is dataclasses.MISSING:
        return "**needed**"
    return "" if each.default is None else _shown(each.default)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else f"`{value}`"
