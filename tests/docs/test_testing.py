"""The samples of docs/how-to/testing.md work as they stand there."""

from __future__ import annotations

from tests.pages import load

load("docs/how-to/testing.md", globals())
