"""products in a flash sale, of which an account has few unpaid orders

Revision ID: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.add_column(
        "products",
        sa.Column("flash_sale", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="shop",
    )
