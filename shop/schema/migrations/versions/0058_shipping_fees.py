"""what shipping costs, in versions, and the version of each order

Functions of the version before place orders without a fee, whose version is null.

Revision ID: 0058
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0058"
down_revision = "0057"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the columns lock orders for a moment
    op.execute("set local lock_timeout = '2s'")
    op.create_table(
        "shipping_fees",
        sa.Column("version", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("free_from_minor", sa.BigInteger()),
        sa.Column("vat_basis_points", sa.Integer(), nullable=False),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("surcharges", JSONB(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("amount_minor >= 0", name="fee_not_negative"),
        sa.CheckConstraint("free_from_minor > 0", name="free_from_an_amount"),
        sa.CheckConstraint("vat_basis_points between 0 and 10000", name="fee_vat_is_a_rate"),
        sa.CheckConstraint("jsonb_typeof(surcharges) = 'array'", name="surcharges_are_a_list"),
        sa.CheckConstraint("starts_at >= created_at", name="fee_begins_later"),
        sa.PrimaryKeyConstraint("version"),
        schema="shop",
        comment="writer: shipping_fees",
    )
    op.add_column("orders", sa.Column("shipping_version", sa.BigInteger()), schema="shop")
    op.add_column("orders", sa.Column("shipping_region", sa.Integer()), schema="shop")
