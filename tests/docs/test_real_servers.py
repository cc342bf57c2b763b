"""The samples of docs/how-to/test-with-real-servers.md work as they stand there."""

from __future__ import annotations

import pytest
from tests.pages import load
from tests.servers import need

from bascule.testing.servers import MariaDBServer, RedisServer


@pytest.fixture(autouse=True)
def _servers() -> None:
    need(RedisServer)
    need(MariaDBServer)


load("docs/how-to/test-with-real-servers.md", globals())
