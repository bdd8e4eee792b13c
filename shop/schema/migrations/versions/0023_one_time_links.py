"""links that are valid once, to set a password

Revision ID: 0023
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "one_time_links",
        sa.Column("link_id", sa.UUID(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("user_id", sa.BigInteger()),
        sa.Column("recipient", sa.LargeBinary()),
        sa.Column("network", sa.LargeBinary()),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("purpose in ('SET_PASSWORD')", name="known_link_purpose"),
        sa.CheckConstraint("octet_length(recipient) = 32", name="recipient_is_sha256"),
        sa.CheckConstraint("octet_length(network) = 32", name="network_is_sha256"),
        sa.CheckConstraint("(recipient is null) = (network is null)", name="requested_or_made"),
        sa.PrimaryKeyConstraint("link_id", name=op.f("one_time_links_pkey")),
        schema="shop",
        comment="writer: one_time_links",
    )
    op.create_index(
        "one_time_links_by_user",
        "one_time_links",
        ["user_id"],
        schema="shop",
        postgresql_where=sa.text("ended_at is null"),
    )
    for name, columns in (
        ("one_time_links_by_recipient", ["recipient", "created_at"]),
        ("one_time_links_by_network", ["network", "created_at"]),
        ("one_time_links_by_expiry", ["expires_at"]),
    ):
        op.create_index(name, "one_time_links", columns, schema="shop")
