"""validates the checks of 0010, which reads the tables without blocking writes

Revision ID: 0011
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.execute("alter table shop.ledger validate constraint known_posting")
    op.execute("alter table shop.refunds validate constraint known_refund_origin")
