"""How protobuf names become Python names."""

from __future__ import annotations

import builtins
import keyword
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A method with one of these names would hide a type that annotations use, or replace part of the object protocol.
_TAKEN_IN_CLASSES = frozenset({*dir(builtins), *dir(object), "__mapping__", "_channel"})

_SNAKE_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PASCAL_WORD = re.compile(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+")


def snake_case(name: str) -> str:
    """``GetHTTPInfo`` -> ``get_http_info``, ``ListV2`` -> ``list_v2``."""
    if name.startswith("__"):
        name = "_" + name.lstrip(
            "_"
        )  # else a class body would mangle it, and no subclass could override it
    return _SNAKE_BOUNDARY.sub("_", name).lower()


def betterproto2_class(nested: Iterable[str]) -> str:
    """Name the class that betterproto2's compiler makes of a message: ``Outer.HTTPInner`` -> ``OuterHttpInner``.

    :param nested: names of the message and of those around it, the outermost first
    """
    return "".join(word.capitalize() for name in nested for word in _PASCAL_WORD.findall(name))


def is_name(text: str) -> bool:
    """Whether ``text`` can stand in Python source as a name."""
    return text.isidentifier() and not keyword.iskeyword(text)


class Namespace:
    """Names already given in one scope; what would collide gets underscores at its end.

    :param taken: names that must not be given
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def claim(self, wanted: str) -> str:
        """Return ``wanted``, or the nearest free name."""
        name = wanted
        while name in self._taken or keyword.iskeyword(name):
            name += "_"
        self._taken.add(name)
        return name


def method_namespace(modules: Iterable[str]) -> Namespace:
    """Make the scope of the methods of one generated class.

    :param modules: aliases under which the generated module imports others
    """
    return Namespace({*_TAKEN_IN_CLASSES, *modules})
