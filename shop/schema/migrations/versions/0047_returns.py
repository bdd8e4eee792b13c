"""units of an order that go back, and their moves of the stock

Tables are locked for a moment only: checks of large tables are proven while these are in use.  Each
step can be repeated.

Revision ID: 0047
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None

# those that are legal in a new database are there already
TRANSITIONS = """
insert into shop.allowed_transitions (entity, from_status, to_status, event_type) values
  ('return', '-', 'UNSENT', null),
  ('return', '-', 'REQUESTED', 'return.requested'),
  ('return', 'REQUESTED', 'APPROVED', 'return.approved'),
  ('return', 'REQUESTED', 'REJECTED', 'return.rejected'),
  ('return', 'APPROVED', 'REJECTED', 'return.rejected'),
  ('return', 'APPROVED', 'RECEIVED', 'return.received')
on conflict do nothing
"""
MOVES = (
    "'INITIAL', 'RESTOCK', 'COMMIT', 'RETURN', 'LINE_RETURN', 'DAMAGE', 'LOSS', "
    "'SUPPLIER_RETURN', 'CUSTOMER_RETURN', 'COUNT'"
)


def upgrade() -> None:
    # the foreign keys lock orders and order_lines for a moment
    op.execute("set local lock_timeout = '2s'")
    op.execute(TRANSITIONS)
    _returns()
    _return_lines()
    op.add_column(
        "reservations",
        sa.Column("returned_qty", sa.Integer(), server_default=sa.text("0"), nullable=False),
        schema="shop",
    )
    with op.get_context().autocommit_block():
        op.execute("set lock_timeout = '2s'")
        op.execute(
            "alter table shop.reservations drop constraint if exists returned_le_reserved, "
            "add constraint returned_le_reserved check (returned_qty between 0 and qty) not valid"
        )
        op.execute("alter table shop.reservations validate constraint returned_le_reserved")
        op.execute(
            "alter table shop.stock_moves drop constraint if exists known_move, "
            f"add constraint known_move check (kind in ({MOVES})) not valid"
        )
        op.execute("alter table shop.stock_moves validate constraint known_move")
        op.execute("reset lock_timeout")


def _returns() -> None:
    op.create_table(
        "returns",
        sa.Column("return_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.CheckConstraint(
            "status in ('REQUESTED', 'APPROVED', 'REJECTED', 'RECEIVED', 'UNSENT')",
            name="known_return_status",
        ),
        sa.CheckConstraint("char_length(reason) <= 200", name="return_reason_length"),
        sa.ForeignKeyConstraint(["order_id"], ["shop.orders.order_id"]),
        sa.PrimaryKeyConstraint("return_id"),
        sa.UniqueConstraint("return_id", "order_id", name="one_order_per_return"),
        schema="shop",
        comment="writer: ordering.returns",
    )
    op.create_index("returns_by_order", "returns", ["order_id"], schema="shop")
    op.create_index(
        "returns_open_by_age",
        "returns",
        ["updated_at"],
        schema="shop",
        postgresql_where=sa.text("status in ('REQUESTED', 'APPROVED')"),
    )


def _return_lines() -> None:
    op.create_table(
        "return_lines",
        sa.Column("return_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("qty", sa.Integer(), nullable=False),
        sa.Column("restocked_qty", sa.Integer()),
        sa.Column("amount_minor", sa.BigInteger()),
        sa.CheckConstraint("qty > 0", name="returned_line_qty_is_positive"),
        sa.CheckConstraint("restocked_qty between 0 and qty", name="restocked_le_returned"),
        sa.CheckConstraint("amount_minor >= 0", name="returned_amount_not_negative"),
        sa.CheckConstraint(
            "(restocked_qty is null) = (amount_minor is null)", name="given_back_as_a_whole"
        ),
        sa.ForeignKeyConstraint(
            ["return_id", "order_id"], ["shop.returns.return_id", "shop.returns.order_id"]
        ),
        sa.ForeignKeyConstraint(
            ["order_id", "product_id"],
            ["shop.order_lines.order_id", "shop.order_lines.product_id"],
        ),
        sa.PrimaryKeyConstraint("return_id", "product_id"),
        schema="shop",
        comment="writer: ordering.returns",
    )


def _now(name: str) -> sa.Column[object]:
    zoned = sa.DateTime(timezone=True)
    return sa.Column(name, zoned, server_default=sa.text("now()"), nullable=False)
