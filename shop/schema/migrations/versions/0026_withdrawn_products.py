"""an index of the products that are withdrawn

Revision ID: 0026
"""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("set lock_timeout = '2s'")
        # one of an interrupted migration
        op.execute("drop index concurrently if exists shop.products_withdrawn")
        op.execute(
            "create index concurrently products_withdrawn on shop.products (product_id) "
            "where not active"
        )
        op.execute("reset lock_timeout")
