"""The log of the sagas that make orders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from bascule_shop.migrations._shared import create_index

revision = "order_0002"
down_revision = "order_0001"


def _exact(length: int) -> sa.types.TypeEngine[str]:
    bound = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(bound, "mysql", "mariadb")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "saga_runs",
        sa.Column("saga_id", _exact(128), primary_key=True),
        sa.Column("name", _exact(100), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("context", sa.LargeBinary(2**24 - 1), nullable=False),
        sa.Column("idempotency_key", _exact(128)),
        sa.Column("owner", sa.String(128)),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("due", sa.BigInteger),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("step", sa.String(100)),
        sa.Column("error", sa.Text),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("name", "idempotency_key", name="uq_saga_runs_key"),
        if_not_exists=True,
    )
    create_index("ix_saga_runs_due", "saga_runs", "due")
    create_index("ix_saga_runs_state", "saga_runs", "state", "created", "saga_id")
    op.create_table(
        "saga_records",
        sa.Column("saga_id", _exact(128), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("done_by", sa.String(128), nullable=False),
        sa.Column("step", sa.String(100)),
        sa.Column("note", sa.Text),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
