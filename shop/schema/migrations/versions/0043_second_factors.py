"""second factors of operators

Revision ID: 0043
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # the foreign key locks users for a moment
    op.execute("set local lock_timeout = '2s'")
    op.add_column("users", sa.Column("factor_id", sa.UUID()), schema="shop")
    op.create_table(
        "second_factors",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("factor_id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("confirmed_at", sa.DateTime(timezone=True)),
        sa.Column("last_step", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("accepted", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True)),
        sa.Column(
            "recovery_hashes",
            ARRAY(sa.LargeBinary()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.CheckConstraint("failures >= 0", name="factor_failures_not_negative"),
        sa.CheckConstraint(
            "(confirmed_at is null) = (accepted = 0) and (confirmed_at is null) = (last_step = 0)",
            name="factor_is_confirmed_by_a_code",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["shop.users.user_id"], name=op.f("second_factors_user_id_fkey")
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("second_factors_pkey")),
        sa.UniqueConstraint("factor_id", name=op.f("second_factors_factor_id_key")),
        schema="shop",
        comment="writer: second_factors",
    )
