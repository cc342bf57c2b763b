"""What revisions of several services share. It must never change: revisions that have run rely on it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["create_index", "create_outbox"]


def create_index(name: str, table: str, *columns: str) -> None:
    """Create an index that is missing: MySQL has no IF NOT EXISTS for it."""
    known = sa.inspect(op.get_bind()).get_indexes(table)
    if name not in {index["name"] for index in known}:
        op.create_index(name, table, list(columns))


def create_outbox() -> None:
    """Create the tables of an outbox as of the first revision."""
    op.create_table(
        "outbox",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("shard", sa.SmallInteger, nullable=False),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    create_index("outbox_by_shard", "outbox", "shard", "number")
    op.create_table(
        "outbox_leases",
        sa.Column("shard", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("relay", sa.String(64), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
