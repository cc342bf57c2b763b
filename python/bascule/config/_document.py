"""Documents: nested mappings with text keys, addressed by dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from bascule.errors import ConfigurationError

__all__ = ["MISSING", "Document", "changes_between", "check_key", "find", "merged", "replaced"]

Document: TypeAlias = Mapping[str, Any]

#: Stands for what is not there: None is a value.
MISSING: Any = type("Missing", (), {"__repr__": lambda _: "MISSING"})()


def check_key(key: str) -> tuple[str, ...]:
    """The parts of a dotted key.

    :raises ConfigurationError: if a part is empty or cannot be part of a path
    """
    parts = tuple(key.split("."))
    if not all(part and "/" not in part and part.isprintable() for part in parts):
        message = f"key {key!r}: expected names with dots between them, such as server.port"
        raise ConfigurationError(message)
    return parts


def merged(below: Document, above: Document) -> dict[str, Any]:
    """Both documents; where they differ, ``above`` holds. Mappings are merged, lists are not."""
    whole = dict(below)
    for name, value in above.items():
        old = whole.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        whole[name] = merged(old, value) if both else value  # type: ignore[arg-type]
    return whole


def find(document: Any, parts: tuple[str, ...]) -> Any:
    """What is there; MISSING if nothing is."""
    for part in parts:
        if not isinstance(document, Mapping) or part not in document:
            return MISSING
        document = document[part]
    return document


def replaced(document: Document, parts: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy with another value; MISSING takes it away, and what is empty then."""
    name, *rest = parts
    whole = dict(document)
    if rest:
        inner = whole.get(name)
        value = replaced(inner if isinstance(inner, Mapping) else {}, tuple(rest), value)
        if not value and not inner:
            value = MISSING
    if value is MISSING:
        whole.pop(name, None)
    else:
        whole[name] = value
    return whole


def changes_between(before: Document, after: Document, under: str = "") -> dict[str, list[Any]]:
    """The dotted keys that differ, each with the old and the new value; None for none."""
    changes: dict[str, list[Any]] = {}
    for name in sorted({*before, *after}):
        old, new = before.get(name, MISSING), after.get(name, MISSING)
        key = f"{under}{name}"
        if _is_inner(old, new) or _is_inner(new, old):
            inner = [each if isinstance(each, Mapping) else {} for each in (old, new)]
            changes |= changes_between(inner[0], inner[1], f"{key}.")
        elif old != new:
            changes[key] = [None if each is MISSING else each for each in (old, new)]
    return changes


def _is_inner(one: Any, other: Any) -> bool:
    """Whether the change is told by what is inside; what is empty has nothing inside."""
    if not isinstance(one, Mapping):
        return False
    return isinstance(other, Mapping) or (other is MISSING and bool(one))
