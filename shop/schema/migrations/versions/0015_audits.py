"""the last result of each audit

Revision ID: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audits",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "ran_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("found", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("audits_pkey")),
        schema="shop",
        comment="writer: audits",
    )
