"""notes of those who resolve operator alerts

Revision ID: 0056
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0056"
down_revision = "0055"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # expand only: the release before this one runs on the new schema too
    op.execute("set local lock_timeout = '500ms'")
    op.add_column("alarms", sa.Column("note", sa.Text()), schema="shop")
    # reads the whole table under its lock, which is small: alerts are deleted after 180 days
    op.create_check_constraint(
        "note_of_a_resolved_alert",
        "alarms",
        "note is null or resolved_at is not null",
        schema="shop",
    )
