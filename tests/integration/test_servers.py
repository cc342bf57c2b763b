"""Servers for tests answer, keep their data when they are started again, and leave nothing."""

from __future__ import annotations

import httpx
import pymysql
import pytest
from tests.tools import lacking

from bascule.testing.servers import ConsulServer, LocalServer, MariaDBServer, RedisServer


def test_shared(redis_url: str, mariadb_url: str, redis_server: RedisServer):
    assert redis_server.pid
