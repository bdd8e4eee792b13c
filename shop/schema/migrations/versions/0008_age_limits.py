"""the oldest row of each status that is not final is one look-up

Revision ID: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OPEN = "status in ('INTENT', 'UNKNOWN')"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _create_index("alerts_by_subject", "alarms", "kind", "subject")
        _create_index("payments_open_by_age", "payments", "created_at", where=OPEN)
        _create_index("refunds_open_by_age", "refunds", "created_at", where=OPEN)
        _create_index(
            "outbox_open_by_age",
            "outbox",
            "created_at",
            where="done_at is null and parked_at is null",
        )
        _create_index(
            "dead_letters_open", "dead_letters", "received_at", where="replayed_at is null"
        )


def _create_index(name: str, table: str, *columns: str, where: str = "") -> None:
    """Builds an index while the table is written; one of an interrupted migration is replaced."""
    op.drop_index(name, table, schema="shop", if_exists=True, postgresql_concurrently=True)
    op.create_index(
        name,
        table,
        list(columns),
        schema="shop",
        postgresql_concurrently=True,
        postgresql_where=sa.text(where) if where else None,
    )
