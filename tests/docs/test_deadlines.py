"""What docs/concepts/structured-concurrency.md says of deadlines and cancellation holds."""

from __future__ import annotations

import pytest
from tests.pages import load

pytestmark = pytest.mark.anyio

load("docs/concepts/structured-concurrency.md", globals())
