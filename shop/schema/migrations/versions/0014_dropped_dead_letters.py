"""dead letters that an operator decided never to process

Revision ID: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.add_column(
        "dead_letters",
        sa.Column("dropped_at", sa.DateTime(timezone=True), nullable=True),
        schema="shop",
    )
    op.add_column("dead_letters", sa.Column("dropped_reason", sa.Text()), schema="shop")
    # reads the whole table under its lock, which is small: an event in it failed for good
    op.create_check_constraint(
        "dropped_for_a_reason",
        "dead_letters",
        "(dropped_at is null) = (dropped_reason is null)",
        schema="shop",
    )
