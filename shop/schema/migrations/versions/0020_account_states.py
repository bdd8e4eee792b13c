"""states of accounts, the role admin, language and verified addresses

Revision ID: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# The accounts that operators have made until now, so that every later change has a before.
RECORD_OPERATORS = """
insert into shop.audit_log (actor_kind, action, object_kind, object_id, after, trace_id)
select 'COMMAND', 'user.recorded', 'user', user_id::text,
  jsonb_build_object('role', role, 'state', state), ''
from shop.users where role <> 'customer' or state <> 'ACTIVE'
"""
CHECKS = {
    "known_role": "role in ('customer', 'staff', 'support', 'finance', 'admin')",
    "known_account_state": "state in ('ACTIVE', 'DISABLED', 'CLOSED')",
    "active_is_a_state": "active = (state = 'ACTIVE')",
    "known_language": "language in ('ko', 'en')",
}


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    for name, default in (("state", "'ACTIVE'"), ("language", "'ko'")):
        column = sa.Column(name, sa.Text(), server_default=sa.text(default), nullable=False)
        op.add_column("users", column, schema="shop")
    verified = sa.Column("email_verified_at", sa.DateTime(timezone=True))
    op.add_column("users", verified, schema="shop")
    op.execute("update shop.users set state = 'DISABLED' where not active")
    op.execute(RECORD_OPERATORS)
    op.drop_constraint("known_role", "users", schema="shop")
    for name, condition in CHECKS.items():
        # 0021 validates them, without keeping writers from the table
        op.execute(f"alter table shop.users add constraint {name} check ({condition}) not valid")
