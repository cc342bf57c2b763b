"""The samples of docs/how-to/limit-concurrency.md work as they stand there."""

from __future__ import annotations

import pytest
from tests.pages import load

pytestmark = pytest.mark.anyio

load("docs/how-to/limit-concurrency.md", globals())
