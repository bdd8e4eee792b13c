"""the number of a run of reconciliation, which guards what it writes

Revision ID: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.add_column(
        "reconciliation",
        sa.Column("run_number", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        schema="shop",
    )
