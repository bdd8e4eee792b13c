"""an order's total as a sum of lines, and the VAT of categories

Functions of the version before place orders without these lines: their total is the sum of
``order_lines``.  Prices in Korea contain 10 % of VAT, so that is what categories have.

Revision ID: 0049
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the foreign keys lock orders and products for a moment
    op.execute("set local lock_timeout = '2s'")
    for column in (
        sa.Column("vat_basis_points", sa.Integer(), server_default=sa.text("1000"), nullable=False),
        sa.Column("vat_included", sa.Boolean(), server_default=sa.text("true"), nullable=False),
    ):
        op.add_column("categories", column, schema="shop")
    # categories are few
    op.create_check_constraint(
        "vat_is_a_rate", "categories", "vat_basis_points between 0 and 10000", schema="shop"
    )
    op.create_table(
        "order_price_lines",
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("product_id", sa.BigInteger()),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("vat_minor", sa.BigInteger(), nullable=False),
        sa.Column("vat_basis_points", sa.Integer(), nullable=False),
        sa.CheckConstraint("kind in ('GOODS', 'DISCOUNT', 'SHIPPING')", name="known_price_line"),
        sa.CheckConstraint(
            "case when kind = 'DISCOUNT' then amount_minor < 0 else amount_minor > 0 end",
            name="price_line_sign",
        ),
        sa.CheckConstraint("(kind = 'SHIPPING') = (product_id is null)", name="goods_iff_product"),
        sa.CheckConstraint("abs(vat_minor) <= abs(amount_minor)", name="vat_is_a_part"),
        sa.ForeignKeyConstraint(
            ["order_id", "user_id"], ["shop.orders.order_id", "shop.orders.user_id"]
        ),
        sa.ForeignKeyConstraint(["product_id"], ["shop.products.product_id"]),
        sa.PrimaryKeyConstraint("order_id", "line"),
        schema="shop",
        comment="writer: ordering.orders",
    )
