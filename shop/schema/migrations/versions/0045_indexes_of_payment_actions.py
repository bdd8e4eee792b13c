"""validates the checks of 0044; indexes of open payments include those that wait for the customer

Each new index covers what the one that it replaces covered, also for the release before.

Revision ID: 0045
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

OPEN = "status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')"


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.execute("alter table shop.payments validate constraint known_payment_status")
    op.execute("alter table shop.payments validate constraint action_iff_required")
    with op.get_context().autocommit_block():
        _create_index("one_open_payment", "order_id", OPEN, unique=True)
        _create_index("payments_due", "next_try_at", OPEN)
        _create_index("payments_by_deadline", "act_until", "status = 'REQUIRES_ACTION'")
        _drop_index("one_live_payment")
        _drop_index("payments_to_resolve")


def _create_index(name: str, column: str, where: str, *, unique: bool = False) -> None:
    _drop_index(name)  # one of an interrupted migration is replaced
    op.create_index(
        name,
        "payments",
        [column],
        schema="shop",
        unique=unique,
        postgresql_concurrently=True,
        postgresql_where=sa.text(where),
    )


def _drop_index(name: str) -> None:
    op.drop_index(name, "payments", schema="shop", if_exists=True, postgresql_concurrently=True)
