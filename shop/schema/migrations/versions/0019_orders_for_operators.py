"""operators find orders by product, status and total through indexes

Revision ID: 0019
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _create("order_lines_by_product", "order_lines", ["product_id", "order_id"])
        _create(
            "orders_by_status",
            "orders",
            ["status", "order_id"],
            postgresql_where=sa.text("status <> 'PAID'"),
        )
        _create("orders_by_total", "orders", ["total_minor", "order_id"])


def _create(name: str, table: str, columns: list[str], **options: Any) -> None:
    # one of an interrupted migration
    op.drop_index(name, table, schema="shop", if_exists=True, postgresql_concurrently=True)
    op.create_index(name, table, columns, schema="shop", postgresql_concurrently=True, **options)
