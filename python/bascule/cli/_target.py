"""Finds what a ``MODULE:NAME`` on the command line means."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from bascule.errors import ConfigurationError

__all__ = ["imported"]


def imported(target: str, kind: str, example: str) -> Any:
    """Import a module and give an object of it. Modules are looked for in the current folder first.

    :param kind: what is expected after the colon, for messages
    :param example: for messages
    :raises ConfigurationError: if there is no such thing
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name.isidentifier()):
        raise ConfigurationError(f"{target!r}: expected MODULE:{kind}, such as {example}")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"{target!r}: there is no module {error.name!r} in {folder} or on Python's path"
        ) from error
    if not hasattr(loaded, name):
        raise ConfigurationError(f"{target!r}: module {module!r} has no {name!r}")
    return getattr(loaded, name)
