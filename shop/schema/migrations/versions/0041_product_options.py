"""validates the constraints of 0040, and keeps products of a group apart by their options

Revision ID: 0041
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

NAME = "one_product_per_options"


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    for constraint in ("values_iff_in_a_group", "products_group_id_fkey"):
        op.execute(f"alter table shop.products validate constraint {constraint}")
    with op.get_context().autocommit_block():
        # one of an interrupted migration is replaced
        op.drop_index(NAME, "products", schema="shop", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            NAME,
            "products",
            ["group_id", "option_values"],
            unique=True,
            schema="shop",
            postgresql_where=sa.text("group_id is not null"),
            postgresql_concurrently=True,
        )
