"""where orders are sent

Revision ID: 0048
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the foreign key locks orders for a moment
    op.execute("set local lock_timeout = '2s'")
    op.create_table(
        "order_addresses",
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=False),
        sa.Column("country", sa.CHAR(length=2), nullable=False),
        sa.Column("postcode", sa.Text()),
        sa.Column("region", sa.Text()),
        sa.Column("city", sa.Text()),
        sa.Column("line1", sa.Text(), nullable=False),
        sa.Column("line2", sa.Text()),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("country <> 'KR' or postcode ~ '^[0-9]{5}$'", name="korean_postcode"),
        sa.ForeignKeyConstraint(
            ["order_id", "user_id"], ["shop.orders.order_id", "shop.orders.user_id"]
        ),
        sa.PrimaryKeyConstraint("order_id"),
        schema="shop",
        comment="writer: ordering.addresses",
    )
    for name, column in (
        ("order_addresses_by_user", "user_id"),
        ("order_addresses_by_age", "created_at"),
    ):
        op.create_index(name, "order_addresses", [column], schema="shop")
