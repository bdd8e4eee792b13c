"""no index of the status changes by entity, which no statement read

Each status change wrote an entry.  An entity's changes are read by its order: the primary key.

Revision ID: 0028
"""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # PostgreSQL drops no index of a partitioned table concurrently; it is a change of the catalogue
    op.execute("set local lock_timeout = '2s'")
    op.execute("drop index if exists shop.transitions_by_entity")
