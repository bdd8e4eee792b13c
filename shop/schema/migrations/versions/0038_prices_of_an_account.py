"""the price changes and schedules of an account by indexes

The export and the closing of an account read them.

Revision ID: 0038
"""

from __future__ import annotations

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

INDEXES = {
    "price_changes_by_account": ("price_changes", "changed_by"),
    "price_schedules_by_account": ("price_schedules", "created_by"),
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, (table, column) in INDEXES.items():
            # one of an interrupted migration is replaced
            op.drop_index(name, table, schema="shop", if_exists=True, postgresql_concurrently=True)
            op.create_index(name, table, [column], schema="shop", postgresql_concurrently=True)
