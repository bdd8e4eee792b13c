"""all links of an account by an index; no index of settlement lines and mails that nothing reads

The export and the closing of an account read its links that have ended, too.

Revision ID: 0037
"""

from __future__ import annotations

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

UNUSED = {
    "one_time_links_by_user": "one_time_links",
    "settlement_lines_by_day": "settlement_lines",
    "mails_by_subject": "mails",
}
NAME = "one_time_links_by_account"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # one of an interrupted migration is replaced
        _drop(NAME, "one_time_links")
        op.create_index(
            NAME, "one_time_links", ["user_id"], schema="shop", postgresql_concurrently=True
        )
        for name, table in UNUSED.items():
            _drop(name, table)


def _drop(name: str, table: str) -> None:
    op.drop_index(name, table, schema="shop", if_exists=True, postgresql_concurrently=True)
