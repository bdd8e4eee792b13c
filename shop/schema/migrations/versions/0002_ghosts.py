"""ghosts: charges that only the provider knows

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shop.schema.triggers_and_views import APPEND_ONLY_TRIGGER

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.create_table(
        "ghosts",
        sa.Column("provider_key", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=True),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("amount_minor >= 0", name="ghost_amount_is_not_negative"),
        sa.CheckConstraint(
            "(amount_minor > 0) = (currency is not null)", name="money_has_a_currency"
        ),
        sa.PrimaryKeyConstraint("provider_key"),
        schema="shop",
        comment="writer: ghosts; append only",
    )
    op.execute(APPEND_ONLY_TRIGGER.format(table="ghosts"))
