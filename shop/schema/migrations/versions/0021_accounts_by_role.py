"""validates the checks of 0020, and makes the accounts of a role one range of an index

Revision ID: 0021
"""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

CHECKS = ("known_role", "known_account_state", "active_is_a_state", "known_language")
NAME = "users_by_role"


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    for check in CHECKS:
        op.execute(f"alter table shop.users validate constraint {check}")
    with op.get_context().autocommit_block():
        # one of an interrupted migration is replaced
        op.drop_index(NAME, "users", schema="shop", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            NAME, "users", ["role", "user_id"], schema="shop", postgresql_concurrently=True
        )
