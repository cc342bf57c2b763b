"""Bringing a service's database to what its code expects."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from bascule.errors import ConfigurationError
from bascule.sql import Database
from bascule_shop.order import _store as order_tables
from bascule_shop.payment import _store as payment_tables
from bascule_shop.product import _store as product_tables
from bascule_shop.product import is_mongo
from bascule_shop.user import _store as user_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HEADS", "METADATA", "migrate"]

METADATA: Mapping[str, sa.MetaData] = {
    "user": user_tables.METADATA,
    "product": product_tables.METADATA,
    "payment": payment_tables.METADATA,
    "order": order_tables.METADATA,
}
"""The tables that each service's code expects, by its short name."""

HEADS: Mapping[str, str] = {
    "user": "user_0001",
    "product": "product_0001",
    "payment": "payment_0001",
    "order": "order_0002",
}
"""The last revision of each history. What is there already need not load alembic, which takes long."""

_VERSION = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), primary_key=True),
)
logger = logging.getLogger("bascule_shop")

_FOLDER = Path(__file__).parent
#: Seconds that all revisions together may take, and that others wait for them.
_PATIENCE = 600.0
#: alembic's ``op`` is one for the whole process.
_OP = threading.Lock()


async def migrate(service: str, url: str) -> None:
    """Run the revisions that a service's database has not seen. Several processes may call it at once.

    :param service: short name, such as ``user``
    :param url: of the database; for ``product``, of MongoDB too
    :raises ConfigurationError: if there is no such service, or the URL cannot be used
    :raises DatabaseUnavailableError: if the database cannot be reached
    """
    if service not in METADATA:
        raise ConfigurationError(f"no service is called {service!r}: use {', '.join(METADATA)}")
    if is_mongo(url):
        if service != "product":
            raise ConfigurationError(
                f"only products can be kept in MongoDB, not those of {service!r}"
            )
        await _migrate_mongo(url)
        return
    async with Database(
        url, pool_size=1, lock_timeout=_PATIENCE, statement_timeout=_PATIENCE
    ) as database:
        await database.write(lambda connection: _upgrade(connection, service))


async def _migrate_mongo(url: str) -> None:
    from bascule_shop._mongo import MongoDatabase

    async with MongoDatabase(url) as database:
        await database.run(lambda collection: collection("reservations").create_index("state"))


def _upgrade(connection: sa.Connection, service: str) -> None:
    _lock(connection)
    try:
        tables = sa.inspect(connection).get_table_names()
        if _VERSION.name in tables:
            version = connection.scalar(sa.select(_VERSION.c.version_num))
        else:
            version = None
        if version is None and not tables and connection.dialect.name == "sqlite":
            # An empty file, as each demo begins with, is what the revisions come to in a single step.
            METADATA[service].create_all(connection)
            _VERSION.create(connection)
            connection.execute(sa.insert(_VERSION).values(version_num=HEADS[service]))
        elif version != HEADS[service]:
            _run_revisions(connection, service, version)
    finally:
        _unlock(connection)


def _run_revisions(connection: sa.Connection, service: str, version: str | None) -> None:
    """Run what is missing; nothing, if a later release has been here, as it has in a roll-out or after a roll-back."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(_FOLDER, version_locations=[_FOLDER / service])
    if version is not None and version not in {each.revision for each in script.walk_revisions()}:
        logger.warning(
            "the database is newer than this code", extra={"service": service, "version": version}
        )
        return

    def missing(revision: Any, _context: object) -> Any:
        return script._upgrade_revs("head", revision)  # what alembic.command.upgrade does

    with _OP, EnvironmentContext(Config(), script, fn=missing) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()


def _lock(connection: sa.Connection) -> None:
    """Let one process at a time change the tables. SQLite's transaction does so by itself."""
    match connection.dialect.name:
        case "mysql":
            connection.execute(
                sa.text("SELECT GET_LOCK(SHA1(CONCAT('bascule_shop', DATABASE())), :seconds)"),
                {"seconds": _PATIENCE},
            )
        case "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('bascule_shop'))"))
        case _:
            pass


def _unlock(connection: sa.Connection) -> None:
    if connection.dialect.name == "mysql" and not connection.invalidated:
        # Before the lock goes, what is noted of the revisions must be seen by others.
        connection.exec_driver_sql("COMMIT")
        connection.execute(sa.text("SELECT RELEASE_LOCK(SHA1(CONCAT('bascule_shop', DATABASE())))"))
