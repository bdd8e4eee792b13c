"""reports of carriers find shipments by tracking number

Revision ID: 0057
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0057"
down_revision = "0056"
branch_labels = None
depends_on = None

NAME = "shipments_by_number"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # one of an interrupted migration is replaced
        op.drop_index(
            NAME, "shipments", schema="shop", if_exists=True, postgresql_concurrently=True
        )
        op.create_index(
            NAME,
            "shipments",
            ["carrier", "tracking_number"],
            schema="shop",
            postgresql_where=sa.text("tracking_number is not null"),
            postgresql_concurrently=True,
        )
