"""the oldest open dispute is one look-up

Revision ID: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

NAME = "disputes_open_by_age"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # one of an interrupted migration is replaced
        op.drop_index(NAME, "disputes", schema="shop", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            NAME,
            "disputes",
            ["created_at"],
            schema="shop",
            postgresql_concurrently=True,
            postgresql_where=sa.text("status = 'OPEN'"),
        )
