"""The tables of sagas, for a service's metadata and so for its migrations."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from bascule.sql import exact

__all__ = ["SagaTables", "barrier_table", "saga_tables"]

_JSON_BYTES = 2**24 - 1  # MySQL's MEDIUMBLOB: a BLOB there ends at 64 KiB


@dataclass(frozen=True, slots=True)
class SagaTables:
    """The tables that :class:`SqlSagaLog` needs.

    :ivar runs: a row a run
    :ivar records: their journals
    """

    runs: sa.Table
    records: sa.Table


def saga_tables(metadata: sa.MetaData, *, prefix: str = "saga_") -> SagaTables:
    """Define the tables of a :class:`SqlSagaLog`; give those that were defined if they were.

    :param prefix: of their names
    """
    if f"{prefix}runs" in metadata.tables:
        return SagaTables(metadata.tables[f"{prefix}runs"], metadata.tables[f"{prefix}records"])
    runs = sa.Table(
        f"{prefix}runs",
        metadata,
        sa.Column("saga_id", exact(128), primary_key=True),
        sa.Column("name", exact(100), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("context", sa.LargeBinary(_JSON_BYTES), nullable=False),
        sa.Column("idempotency_key", exact(128)),
        sa.Column("owner", sa.String(128)),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("due", sa.BigInteger),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("step", sa.String(100)),
        sa.Column("error", sa.Text),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("name", "idempotency_key", name=f"uq_{prefix}runs_key"),
        sa.Index(f"ix_{prefix}runs_due", "due"),
        sa.Index(f"ix_{prefix}runs_state", "state", "created", "saga_id"),
    )
    records = sa.Table(
        f"{prefix}records",
        metadata,
        sa.Column("saga_id", exact(128), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("done_by", sa.String(128), nullable=False),
        sa.Column("step", sa.String(100)),
        sa.Column("note", sa.Text),
        # A run's journal is read and deleted by its id alone: no second b-tree is kept up to date.
        sqlite_with_rowid=False,
    )
    return SagaTables(runs, records)


def barrier_table(metadata: sa.MetaData, *, name: str = "saga_barrier") -> sa.Table:
    """Define the table of a :class:`SqlBarrier`; give the one that was defined if it was."""
    if name in metadata.tables:
        return metadata.tables[name]
    return sa.Table(
        name,
        metadata,
        sa.Column("saga_id", exact(128), primary_key=True),
        sa.Column("step", exact(100), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
