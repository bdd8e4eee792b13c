"""shipments of lines of an order

Revision ID: 0042
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shop.schema.triggers_and_views import APPEND_ONLY_TRIGGER

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

# those that are legal in a new database are there already
TRANSITIONS = """
insert into shop.allowed_transitions (entity, from_status, to_status, event_type) values
  ('shipment', '-', 'PREPARING', 'shipment.created'),
  ('shipment', 'PREPARING', 'SHIPPED', 'shipment.shipped'),
  ('shipment', 'PREPARING', 'CANCELLED', null),
  ('shipment', 'SHIPPED', 'DELIVERED', 'shipment.delivered')
on conflict do nothing
"""


def upgrade() -> None:
    # the foreign keys lock orders and order_lines for a moment
    op.execute("set local lock_timeout = '2s'")
    op.execute(TRANSITIONS)
    _shipments()
    op.create_table(
        "shipment_lines",
        sa.Column("shipment_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("qty", sa.Integer(), nullable=False),
        sa.CheckConstraint("qty > 0", name="shipped_qty_is_positive"),
        sa.ForeignKeyConstraint(
            ["shipment_id", "order_id"],
            ["shop.shipments.shipment_id", "shop.shipments.order_id"],
        ),
        sa.ForeignKeyConstraint(
            ["order_id", "product_id"],
            ["shop.order_lines.order_id", "shop.order_lines.product_id"],
        ),
        sa.PrimaryKeyConstraint("shipment_id", "product_id"),
        schema="shop",
        comment="writer: ordering.shipments; append only",
    )
    op.execute(APPEND_ONLY_TRIGGER.format(table="shipment_lines"))


def _shipments() -> None:
    op.create_table(
        "shipments",
        sa.Column("shipment_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("carrier", sa.Text()),
        sa.Column("tracking_number", sa.Text()),
        _now("created_at"),
        _now("updated_at"),
        sa.Column("shipped_at", sa.DateTime(timezone=True)),
        sa.Column("delivered_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "status in ('PREPARING', 'SHIPPED', 'DELIVERED', 'CANCELLED')",
            name="known_shipment_status",
        ),
        sa.CheckConstraint(
            "num_nonnulls(carrier, tracking_number, shipped_at) = "
            "case when status in ('SHIPPED', 'DELIVERED') then 3 else 0 end",
            name="sent_iff_with_a_carrier",
        ),
        sa.CheckConstraint(
            "(status = 'DELIVERED') = (delivered_at is not null)", name="delivered_iff_at_a_time"
        ),
        sa.ForeignKeyConstraint(["order_id"], ["shop.orders.order_id"]),
        sa.PrimaryKeyConstraint("shipment_id"),
        sa.UniqueConstraint("shipment_id", "order_id", name="one_order_per_shipment"),
        schema="shop",
        comment="writer: ordering.shipments",
    )
    op.create_index("shipments_by_order", "shipments", ["order_id"], schema="shop")
    for name, columns, status in (
        ("one_parcel_per_number", ["carrier", "tracking_number"], "SHIPPED"),
        ("shipments_preparing_by_age", ["created_at"], "PREPARING"),
        ("shipments_sent_by_age", ["shipped_at"], "SHIPPED"),
    ):
        op.create_index(
            name,
            "shipments",
            columns,
            schema="shop",
            unique=name.startswith("one_"),
            postgresql_where=sa.text(f"status = '{status}'"),
        )


def _now(name: str) -> sa.Column[object]:
    zoned = sa.DateTime(timezone=True)
    return sa.Column(name, zoned, server_default=sa.text("now()"), nullable=False)
