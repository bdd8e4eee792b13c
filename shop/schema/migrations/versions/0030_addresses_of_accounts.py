"""one-time links that verify and change the addresses of accounts

Revision ID: 0030
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

CHECKS = {
    "known_link_purpose": "purpose in ('SET_PASSWORD', 'VERIFY_EMAIL', 'CHANGE_EMAIL')",
    "addresses_of_a_change": (
        "(email is null) = (email_before is null) and (purpose = 'CHANGE_EMAIL' or email is null)"
    ),
}


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    for name in ("email", "email_before"):
        op.add_column("one_time_links", sa.Column(name, sa.Text()), schema="shop")
    op.drop_constraint("known_link_purpose", "one_time_links", schema="shop")
    # a table of days: what is checked is a few rows
    for name, condition in CHECKS.items():
        op.create_check_constraint(name, "one_time_links", condition, schema="shop")
