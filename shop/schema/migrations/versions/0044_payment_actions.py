"""payments that wait for the customer, until a deadline

Revision ID: 0044
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None

STATUSES = "'INTENT', 'UNKNOWN', 'REQUIRES_ACTION', 'CAPTURED', 'DECLINED', 'VOIDED'"
ACTION_IFF_REQUIRED = (
    "(status = 'REQUIRES_ACTION') = (action is not null) "
    "and (action is null or act_until is not null) "
    "and (action_token is null or action is not null)"
)
# as of this revision; those that are legal in a new database are there already
TRANSITIONS = """
insert into shop.allowed_transitions (entity, from_status, to_status, event_type) values
  ('payment', 'INTENT', 'REQUIRES_ACTION', null),
  ('payment', 'UNKNOWN', 'REQUIRES_ACTION', null),
  ('payment', 'REQUIRES_ACTION', 'CAPTURED', 'payment.captured'),
  ('payment', 'REQUIRES_ACTION', 'DECLINED', 'payment.declined'),
  ('payment', 'REQUIRES_ACTION', 'VOIDED', null)
on conflict do nothing
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    for column in (
        sa.Column("action", postgresql.JSONB()),
        sa.Column("act_until", sa.DateTime(timezone=True)),
        sa.Column("action_token", sa.Text()),
    ):
        op.add_column("payments", column, schema="shop")
    op.execute(TRANSITIONS)
    op.drop_constraint("known_payment_status", "payments", schema="shop")
    _check("known_payment_status", f"status in ({STATUSES})")
    _check("action_iff_required", ACTION_IFF_REQUIRED)


def _check(name: str, condition: str) -> None:
    """Adds a check without reading the table under its lock; 0045 validates it."""
    op.execute(f"alter table shop.payments add constraint {name} check ({condition}) not valid")
