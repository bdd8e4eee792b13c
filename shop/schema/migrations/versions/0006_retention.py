"""inbox, quarantined events, dead letters and operator alerts have a retention

Revision ID: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Rows of the inbox are still never updated, and not deleted while their event can be sent again.
INBOX_TRIGGERS = """
drop trigger append_only on shop.inbox;
create trigger append_only before update on shop.inbox
  for each row execute function shop.refuse_change();
create trigger kept_for_60_days before delete on shop.inbox
  for each row when (old.received_at >= now() - interval '60 days')
  execute function shop.refuse_change();
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.execute(INBOX_TRIGGERS)
    with op.get_context().autocommit_block():
        _create_index("outbox_quarantined", "outbox", "parked_at", "parked_at is not null")
        _create_index("dead_letters_by_age", "dead_letters", "received_at")
        _create_index("alerts_resolved", "alarms", "resolved_at", "resolved_at is not null")


def _create_index(name: str, table: str, column: str, where: str = "") -> None:
    """Builds an index while the table is written; one of an interrupted migration is replaced."""
    op.drop_index(name, table, schema="shop", if_exists=True, postgresql_concurrently=True)
    op.create_index(
        name,
        table,
        [column],
        schema="shop",
        postgresql_concurrently=True,
        postgresql_where=sa.text(where) if where else None,
    )
