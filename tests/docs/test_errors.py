"""What docs/concepts/errors.md says of errors holds."""

from __future__ import annotations

import pytest
from tests.pages import load

pytestmark = pytest.mark.anyio

load("docs/concepts/errors.md", globals())
