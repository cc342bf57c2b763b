"""A new project: its files, and how they come onto the disk."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING

from bascule.cli._new_protobuf import gencode, generated
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from bascule.cli._new_names import ProjectName

__all__ = ["ProjectSettings", "project", "write_project"]

#: The version whose protoc makes what is generated here.
GRPCIO_TOOLS = "1.85.1"

#: Files that are programs.
_PROGRAMS = frozenset([".ci/run"])


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """What a project is made with.

    :ivar loop: the event loop that it runs on: ``asyncio`` or ``trio``
    """

    name: ProjectName
    loop: str = "asyncio"


def project(settings: ProjectSettings) -> dict[str, str]:
    """Every file of the project by its path."""
    words = {
        "bascule-version": version("bascule"),
        "bascule-loop": settings.loop,
        "protobuf-version": ".".join(map(str, gencode())),
        "grpcio-tools-version": GRPCIO_TOOLS,
    }

    def fill(text: str) -> str:
        for word, value in words.items():
            text = text.replace(word, value)
        return settings.name.fill(text)

    templates = _templates(files("bascule.cli") / "_new" / "project", "")
    return {fill(path): fill(text) for path, text in templates} | generated(settings.name)


def write_project(folder: Path, made: Mapping[str, str], *, force: bool) -> list[str]:
    """Write the files of a project.

    :param force: write into a folder that is not empty, and over what is there
    :returns: the files that were there and were other ones
    :raises ConfigurationError: if it is not empty without ``force``, or cannot be written
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise ConfigurationError(f"{folder}: it is a file: choose another folder")
        if not force and folder.is_dir() and any(folder.iterdir()):
            found = sorted(path for path in made if (folder / path).exists())
            what = f"it has {found[0]} already" if found else "it is not empty"
            raise ConfigurationError(f"{folder}: {what}: choose another folder, or --force")
        replaced = []
        for path, text in made.items():
            target = folder / path
            if target.exists() and target.read_bytes() != text.encode():
                replaced.append(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode())
            if path in _PROGRAMS:
                target.chmod(0o755)
        return replaced
    except OSError as error:
        raise ConfigurationError(f"{folder}: it cannot be written: {error}") from error


def _templates(folder: Traversable, under: str) -> Iterator[tuple[str, str]]:
    """Path and text of each: ``dot-x.in`` is ``.x``, so that no tool takes a template for its own file."""
    for each in sorted(folder.iterdir(), key=lambda one: one.name):
        name = each.name.replace("dot-", ".", 1) if each.name.startswith("dot-") else each.name
        if each.is_dir():
            yield from _templates(each, f"{under}{name}/")
        elif name.endswith(".in"):
            yield f"{under}{name.removesuffix('.in')}", each.read_text(encoding="utf-8")
