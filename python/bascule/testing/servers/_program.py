"""Where the programs of servers are."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from bascule.testing.servers._errors import MissingProgramError

__all__ = ["cache_folder", "find_program"]


def cache_folder() -> Path:
    """Answer with the folder whose ``bin`` has what ``scripts/provision.py`` built or installed."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "bascule"


def find_program(name: str, hint: str) -> Path:
    """Find a program on the PATH, beside this Python's own, or in bascule's cache, in this order.

    :param hint: how to get it, for the message
    :raises MissingProgramError: if it is in none of them
    """
    # Debian puts daemons where only root's PATH leads.
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
    places += [str(Path(sys.executable).parent), str(cache_folder() / "bin")]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise MissingProgramError(f"{name} is missing: {hint}")
    return Path(found)
