"""What docs/concepts/resilience-order.md says of the order holds."""

from __future__ import annotations

import pytest
from tests.pages import load

pytestmark = pytest.mark.anyio

load("docs/concepts/resilience-order.md", globals())
