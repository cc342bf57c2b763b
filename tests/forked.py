"""Processes for tests that need many: forked from one that has imported everything.

A fresh interpreter spends a second on imports alone. The fork server is one for the whole test run, so
what all of them need is named here.
"""

from __future__ import annotations

import multiprocessing

__all__ = ["FORKED"]

FORKED = multiprocessing.get_context("forkserver")
"""Give its ``Process`` a function at the top of a module, and what can be pickled."""

FORKED.set_forkserver_preload(
    [
        "tests.integration.events.workers",
        "tests.integration.shop_forks",
        "anyio._backends._asyncio",
        "anyio._backends._trio",
        "coredis.connection",
        "prometheus_client",
        "pymysql",
        "sqlalchemy.dialects.mysql.pymysql",
        "sqlalchemy.dialects.sqlite.pysqlite",
    ]
)
