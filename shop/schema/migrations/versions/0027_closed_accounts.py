"""when an account was closed and erased, and an index for all sessions of an account

Revision ID: 0027
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# name -> table, column, condition; of an interrupted migration they are replaced
INDEXES = {
    "users_to_erase": ("users", "closed_at", "closed_at is not null and erased_at is null"),
    "sessions_of_user": ("sessions", "user_id", None),
}


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    for column in ("closed_at", "erased_at"):
        op.add_column("users", sa.Column(column, sa.DateTime(timezone=True)), schema="shop")
    with op.get_context().autocommit_block():
        for name, (table, column, condition) in INDEXES.items():
            op.drop_index(name, table, schema="shop", if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                table,
                [column],
                schema="shop",
                postgresql_concurrently=True,
                postgresql_where=None if condition is None else sa.text(condition),
            )
        # its queries are answered by the one above
        op.drop_index(
            "sessions_by_user",
            "sessions",
            schema="shop",
            if_exists=True,
            postgresql_concurrently=True,
        )
