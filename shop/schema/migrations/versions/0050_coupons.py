"""coupons, and the orders that use them

Revision ID: 0050
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the foreign key locks orders for a moment
    op.execute("set local lock_timeout = '500ms'")
    _coupons()
    _uses()


def _coupons() -> None:
    op.create_table(
        "coupons",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("discount_minor", sa.BigInteger()),
        sa.Column("discount_basis_points", sa.Integer()),
        sa.Column("discount_max_minor", sa.BigInteger()),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("goods_min_minor", sa.BigInteger(), nullable=False),
        sa.Column("combinable", sa.Boolean(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True)),
        sa.Column("uses_max", sa.Integer()),
        sa.Column("uses_per_customer_max", sa.Integer()),
        sa.Column("uses", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'ACTIVE'"), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("code ~ '^[A-Z0-9][A-Z0-9-]{2,31}$'", name="coupon_code_form"),
        sa.CheckConstraint(
            "(discount_minor is null) <> (discount_basis_points is null)",
            name="one_kind_of_discount",
        ),
        sa.CheckConstraint("discount_minor > 0", name="discount_is_positive"),
        sa.CheckConstraint("discount_basis_points between 1 and 10000", name="discount_is_a_part"),
        sa.CheckConstraint(
            "discount_max_minor is null or discount_max_minor > 0 "
            "and discount_basis_points is not null",
            name="maximum_of_a_part",
        ),
        sa.CheckConstraint("goods_min_minor >= 0", name="goods_minimum_not_negative"),
        sa.CheckConstraint("starts_at < ends_at", name="coupon_starts_before_it_ends"),
        sa.CheckConstraint("uses_per_customer_max > 0", name="customers_may_use_it"),
        sa.CheckConstraint("uses >= 0 and uses <= uses_max", name="uses_le_limit"),
        sa.CheckConstraint("state in ('ACTIVE', 'ENDED')", name="known_coupon_state"),
        sa.PrimaryKeyConstraint("code"),
        schema="shop",
        comment="writer: coupons",
    )


def _uses() -> None:
    op.create_table(
        "coupon_uses",
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("discount_minor", sa.BigInteger(), nullable=False),
        sa.Column("given_back_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("discount_minor > 0", name="used_discount_is_positive"),
        sa.ForeignKeyConstraint(["code"], ["shop.coupons.code"]),
        sa.ForeignKeyConstraint(
            ["order_id", "user_id"], ["shop.orders.order_id", "shop.orders.user_id"]
        ),
        sa.PrimaryKeyConstraint("order_id", "code"),
        schema="shop",
        comment="writer: coupons",
    )
    op.create_index(
        "coupon_uses_of_customer",
        "coupon_uses",
        ["user_id", "code"],
        schema="shop",
        postgresql_where=sa.text("given_back_at is null"),
    )
