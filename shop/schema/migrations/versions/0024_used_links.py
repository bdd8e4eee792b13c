"""which one-time links were used, and when passwords were changed

Revision ID: 0024
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    changed = sa.Column("password_changed_at", sa.DateTime(timezone=True))
    op.add_column("users", changed, schema="shop")
    uses = sa.Column("uses", sa.SmallInteger(), server_default=sa.text("0"), nullable=False)
    op.add_column("one_time_links", uses, schema="shop")
    # a table of days: what is checked is a few rows
    op.create_check_constraint(
        "link_is_used_once", "one_time_links", "uses in (0, 1)", schema="shop"
    )
