"""stock adjustments with a reason, and the stock moves of a product in their order

Tables are locked for a moment only: the checks are proven, and the index is built partition by
partition, while they are in use.  Each step can be repeated.

Revision ID: 0025
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

KINDS = (
    "'INITIAL', 'RESTOCK', 'COMMIT', 'RETURN', 'DAMAGE', 'LOSS', 'SUPPLIER_RETURN', "
    "'CUSTOMER_RETURN', 'COUNT'"
)
SIGN = (
    "case when kind = 'COUNT' then qty <> 0 "
    "when kind in ('COMMIT', 'DAMAGE', 'LOSS', 'SUPPLIER_RETURN') "
    "then qty < 0 else qty > 0 end"
)
PARTITIONS = (
    "select relid::regclass::text from pg_partition_tree('shop.stock_moves') "
    "where isleaf order by 1"
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("set lock_timeout = '2s'")
        op.execute(
            "alter table shop.stock_moves "
            "drop constraint if exists known_move, drop constraint if exists move_sign, "
            f"add constraint known_move check (kind in ({KINDS})) not valid, "
            f"add constraint move_sign check ({SIGN}) not valid"
        )
        op.execute("alter table shop.stock_moves validate constraint known_move")
        op.execute("alter table shop.stock_moves validate constraint move_sign")
        _build_index()
        op.execute("reset lock_timeout")


def _build_index() -> None:
    """Builds the index of each partition; that of the table then consists of them."""
    op.execute("drop index if exists shop.stock_moves_of_product")
    for (partition,) in op.get_bind().execute(sa.text(PARTITIONS)).fetchall():
        # the name that PostgreSQL gives it in a month to come
        index = f"{partition.removeprefix('shop.')}_product_id_seq_idx"
        # one of an interrupted migration
        op.execute(f"drop index concurrently if exists shop.{index}")
        op.execute(f"create index concurrently {index} on {partition} (product_id, seq)")
    op.execute("create index stock_moves_of_product on shop.stock_moves (product_id, seq)")
    op.execute("drop index if exists shop.stock_moves_by_product")
