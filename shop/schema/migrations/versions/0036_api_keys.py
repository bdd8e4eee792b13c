"""service accounts and their API keys

Revision ID: 0036
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    is_service = sa.Column("is_service", sa.Boolean(), server_default="false", nullable=False)
    op.add_column("users", is_service, schema="shop")
    op.create_table(
        "api_keys",
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("session_id", sa.UUID(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("scopes", ARRAY(sa.Text()), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("octet_length(key_hash) = 32", name="key_hash_is_sha256"),
        sa.CheckConstraint("cardinality(scopes) between 1 and 20", name="key_has_scopes"),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["shop.sessions.session_id"],
            name=op.f("api_keys_session_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("key_hash", name=op.f("api_keys_pkey")),
        schema="shop",
        comment="writer: api_keys",
    )
    op.create_index("api_keys_by_session", "api_keys", ["session_id"], schema="shop")
