"""orders placed from the cart whose lines return to it when they are not paid

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.add_column("orders", sa.Column("cart_taken", sa.Boolean(), nullable=True), schema="shop")
