"""login_failures: failed log-ins of the last minutes

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.create_table(
        "login_failures",
        sa.Column("failure_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("account", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.LargeBinary(), nullable=False),
        sa.Column("is_known_device", sa.Boolean(), nullable=False),
        sa.Column(
            "failed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("octet_length(account) = 32", name="account_is_sha256"),
        sa.CheckConstraint("octet_length(source) = 32", name="source_is_sha256"),
        sa.PrimaryKeyConstraint("failure_id"),
        schema="shop",
        comment="writer: login_failures",
    )
    for name, columns in (
        ("login_failures_by_account", ["account", "failed_at"]),
        ("login_failures_by_source", ["source", "failed_at"]),
        ("login_failures_by_time", ["failed_at"]),
    ):
        op.create_index(name, "login_failures", columns, schema="shop")
