"""Read docstrings for the reference: the roles and literal blocks of Sphinx become Markdown."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import griffe

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")
_ONLY_COLONS = re.compile(r"^[ ]*::\n", re.MULTILINE)
_LITERAL = re.compile(r"::$", re.MULTILINE)


class DocstringRoles(griffe.Extension):
    """Link what a role names if the reference shows it, and set it as code if not."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings of a package once all of it is known."""
        for each in _objects(pkg):
            if each.docstring is not None:
                text = _ROLE.sub(partial(_link, pkg, each), each.docstring.value)
                each.docstring.value = _LITERAL.sub(":", _ONLY_COLONS.sub("", text))


def _objects(top: griffe.Object) -> Iterator[griffe.Object]:
    yield top
    for member in top.members.values():
        if isinstance(member, griffe.Object):
            yield from _objects(member)


def _link(pkg: griffe.Module, owner: griffe.Object, found: re.Match[str]) -> str:
    name = found[1]
    target = name if name.startswith("bascule.") else _resolved(owner, name)
    return f"[`{name}`][{target}]" if _shown(pkg, target) else f"`{name}`"


def _resolved(owner: griffe.Object, name: str) -> str:
    first, _, rest = name.partition(".")
    try:
        path = owner.resolve(first)
    except griffe.NameResolutionError:
        return name
    return f"{path}.{rest}" if rest else path


def _shown(pkg: griffe.Module, target: str) -> bool:
    """Whether the reference has a place for it: a public name with a docstring."""
    package, _, path = target.partition(".")
    try:
        found = pkg[path] if package == pkg.name else None
    except KeyError:
        return False
    if found is None or found.is_module:
        return found is not None and not found.name.startswith("_")
    if not found.has_docstring:
        return False
    while not found.is_module:
        if found.name.startswith("_"):
            return False
        found = found.parent
    return True
