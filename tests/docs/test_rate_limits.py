"""The samples of docs/how-to/rate-limits.md work as they stand there."""

from __future__ import annotations

import pytest
from tests.pages import load

pytestmark = pytest.mark.anyio

load("docs/how-to/rate-limits.md", globals())
