"""Orders, and the events about them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bascule_shop.migrations._shared import create_index, create_outbox

revision = "order_0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "orders",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("lines", sa.LargeBinary, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("total_minor", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("idempotency_key", sa.String(128)),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("failure", sa.LargeBinary),
        sa.UniqueConstraint("user_id", "idempotency_key", name="uq_orders_key"),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        if_not_exists=True,
    )
    create_index("ix_orders_user_id", "orders", "user_id")
    create_outbox()
