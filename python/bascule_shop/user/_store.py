"""Where users are kept."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa

from bascule.events import outbox_tables
from bascule.sql import EXACT_TEXT, from_micros, to_micros
from bascule_shop._generated.user import User

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule.events import Event, SqlOutbox
    from bascule.sql import Database

__all__ = ["METADATA", "EmailTakenError", "SqlUserStore", "UserStore"]


class EmailTakenError(Exception):
    """Another user has this e-mail address."""


class UserStore(Protocol):
    """What the service needs of a store."""

    async def add(self, user: User, password_hash: str, event: Event[Any]) -> None:
        """Add a user and the event that tells of it, both or neither.

        :raises EmailTakenError: if another user has the e-mail address
        """

    async def get(self, user_id: str) -> User | None:
        """Give a user; None if there is none."""

    async def list(self, after: str | None, limit: int) -> Sequence[User]:
        """Give users by ascending id."""


METADATA = sa.MetaData()
outbox_tables(METADATA)
_USERS = sa.Table(
    "users",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("email", sa.String(254), nullable=False),
    sa.Column("display_name", sa.String(100), nullable=False),
    sa.Column("password_hash", sa.String(200), nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("email", name="uq_users_email"),
    **EXACT_TEXT,
)


# Built once: building takes SQLAlchemy longer than SQLite takes to run them.
_GET = sa.select(_USERS).where(_USERS.c.id == sa.bindparam("of"))


class SqlUserStore:
    """Users in SQL."""

    def __init__(self, database: Database, outbox: SqlOutbox) -> None:
        self._database = database
        self._outbox = outbox

    async def add(self, user: User, password_hash: str, event: Event[Any]) -> None:
        """Add a user and an event. See :class:`UserStore`."""

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.insert(_USERS).values(_to_row(user, password_hash)))
            self._outbox.add(connection, event)

        try:
            await self._database.write(work)
        except sa.exc.IntegrityError as error:
            raise EmailTakenError(user.email) from error

    async def get(self, user_id: str) -> User | None:
        """Give a user; None if there is none."""
        wanted = {"of": user_id}
        row = await self._database.read(lambda connection: connection.execute(_GET, wanted).first())
        return None if row is None else _from_row(row)

    async def list(self, after: str | None, limit: int) -> Sequence[User]:
        """Give users by ascending id."""
        query = sa.select(_USERS).where(_USERS.c.id > (after or "")).order_by(_USERS.c.id)
        rows = await self._database.read(
            lambda connection: connection.execute(query.limit(limit)).all()
        )
        return [_from_row(row) for row in rows]

    async def seed(self, users: Sequence[User]) -> None:
        """Add users that have no password, if there is no user at all."""

        def work(connection: sa.Connection) -> None:
            if connection.scalar(sa.select(_USERS.c.id).limit(1)) is None:
                connection.execute(sa.insert(_USERS), [_to_row(user, "!") for user in users])

        # Another process may be seeding too: one of them has its way.
        with suppress(sa.exc.IntegrityError):
            await self._database.write(work)


def _to_row(user: User, password_hash: str) -> dict[str, Any]:
    assert user.create_time is not None  # noqa: S101 - the service sets it
    return {
        "id": user.id,
        "email": user.email,
        "display_name": user.display_name,
        "password_hash": password_hash,
        "create_time": to_micros(user.create_time),
    }


def _from_row(row: sa.Row[Any]) -> User:
    return User(
        id=row.id,
        email=row.email,
        display_name=row.display_name,
        create_time=from_micros(row.create_time),
    )
