"""saved addresses of customers

Revision ID: 0054
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0054"
down_revision = "0053"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the foreign key locks users for a moment
    op.execute("set local lock_timeout = '2s'")
    op.create_table(
        "saved_addresses",
        sa.Column("address_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=False),
        sa.Column("country", sa.CHAR(length=2), nullable=False),
        sa.Column("postcode", sa.Text()),
        sa.Column("region", sa.Text()),
        sa.Column("city", sa.Text()),
        sa.Column("line1", sa.Text(), nullable=False),
        sa.Column("line2", sa.Text()),
        sa.Column("chosen_at", sa.DateTime(timezone=True)),
        _when("created_at"),
        _when("updated_at"),
        sa.CheckConstraint("country <> 'KR' or postcode ~ '^[0-9]{5}$'", name="korean_postcode"),
        sa.ForeignKeyConstraint(["user_id"], ["shop.users.user_id"]),
        sa.PrimaryKeyConstraint("address_id"),
        schema="shop",
        comment="writer: saved_addresses",
    )
    op.create_index("saved_addresses_by_user", "saved_addresses", ["user_id"], schema="shop")


def _when(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )
