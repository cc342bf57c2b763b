"""The programs of others that suites need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest
from scripts.provision import MissingToolError, provide

#: Where suites must not be left out.
REQUIRED = any(os.environ.get(name) for name in ("CI", "BASCULE_REQUIRE_TOOLS"))


def tool(name: str) -> Path:
    """Answer with the path of a tool, which is built if need be.

    Where it cannot be had, the test is skipped by its name; it fails if ``CI`` or
    ``BASCULE_REQUIRE_TOOLS`` is set.
    """
    try:
        return provide(name)
    except MissingToolError as error:
        lacking(f"needs {name}: {error}")


def lacking(reason: str) -> NoReturn:
    """Skip the test that needs what is not there, or fail it where suites must not be left out."""
    if REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
