"""ghosts: charges that only the provider knows

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.create_table(
        "ghosts",
        sa.Column("provider_key", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("provider_ref", sa.Text(), nullable=False),
        sa.Column("refund_key", sa.Text(), nullable=False),
        sa.Column(
            "found_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("returned_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("amount_minor > 0", name="ghost_amount_is_positive"),
        sa.PrimaryKeyConstraint("provider_key"),
        sa.UniqueConstraint("refund_key", name="one_ghost_refund_key"),
        schema="shop",
        comment="writer: ghosts",
    )
