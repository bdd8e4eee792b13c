"""price history, and prices for a time

The history is written by a trigger, so that functions of the version before write it too.  It begins
with the price that each product has now.

Revision ID: 0035
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shop.schema.triggers_and_views import APPEND_ONLY_TRIGGER

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

RECORD_PRICE = """
create function shop.record_price() returns trigger
language plpgsql security definer set search_path = pg_catalog as $$
begin
  insert into shop.price_changes (product_id, from_minor, to_minor, changed_by, schedule_id)
  values (new.product_id, old.price_minor, new.price_minor,
    nullif(current_setting('shop.user_id', true), '')::bigint,
    coalesce(new.price_schedule_id, old.price_schedule_id));
  return null;
end $$
"""
TRIGGERS = (
    "create trigger record_first_price after insert on shop.products "
    "for each row execute function shop.record_price()",
    "create trigger record_price after update of price_minor on shop.products "
    "for each row when (new.price_minor <> old.price_minor) "
    "execute function shop.record_price()",
)
BEGIN_HISTORY = """
insert into shop.price_changes (product_id, to_minor)
select product_id, price_minor from shop.products order by product_id
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.add_column("products", sa.Column("price_schedule_id", sa.UUID()), schema="shop")
    _price_schedules()
    _price_changes()
    op.execute(RECORD_PRICE)
    op.execute("revoke all on function shop.record_price() from public")
    for trigger in TRIGGERS:
        op.execute(trigger)
    op.execute(BEGIN_HISTORY)
    op.execute(APPEND_ONLY_TRIGGER.format(table="price_changes"))


def _price_schedules() -> None:
    op.create_table(
        "price_schedules",
        sa.Column("schedule_id", sa.UUID(), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("regular_minor", sa.BigInteger()),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'PLANNED'"), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.CheckConstraint("price_minor > 0", name="scheduled_price_is_positive"),
        sa.CheckConstraint("starts_at < ends_at", name="starts_before_it_ends"),
        sa.CheckConstraint(
            "state in ('PLANNED', 'ACTIVE', 'ENDED', 'CANCELLED', 'MISSED')",
            name="known_price_schedule_state",
        ),
        sa.CheckConstraint(
            "state not in ('ACTIVE', 'ENDED') or regular_minor is not null",
            name="knows_the_price_before",
        ),
        sa.ForeignKeyConstraint(["product_id"], ["shop.products.product_id"]),
        sa.PrimaryKeyConstraint("schedule_id"),
        schema="shop",
        comment="writer: price_schedules",
    )
    for name, columns, condition, unique in (
        ("one_active_price_schedule", ["product_id"], "state = 'ACTIVE'", True),
        (
            "price_schedules_open",
            ["product_id", "starts_at"],
            "state in ('PLANNED', 'ACTIVE')",
            False,
        ),
        ("price_schedules_to_start", ["starts_at"], "state = 'PLANNED'", False),
        ("price_schedules_to_end", ["ends_at"], "state = 'ACTIVE'", False),
    ):
        op.create_index(
            name,
            "price_schedules",
            columns,
            unique=unique,
            schema="shop",
            postgresql_where=sa.text(condition),
        )


def _price_changes() -> None:
    op.create_table(
        "price_changes",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("from_minor", sa.BigInteger()),
        sa.Column("to_minor", sa.BigInteger(), nullable=False),
        _now("changed_at"),
        sa.Column("changed_by", sa.BigInteger()),
        sa.Column("schedule_id", sa.UUID()),
        sa.ForeignKeyConstraint(["product_id"], ["shop.products.product_id"]),
        sa.ForeignKeyConstraint(["schedule_id"], ["shop.price_schedules.schedule_id"]),
        sa.PrimaryKeyConstraint("seq"),
        schema="shop",
        comment="writer: the trigger on products; append only",
    )
    op.create_index(
        "price_changes_of_product", "price_changes", ["product_id", "seq"], schema="shop"
    )


def _now(name: str) -> sa.Column[object]:
    zoned = sa.DateTime(timezone=True)
    return sa.Column(name, zoned, server_default=sa.text("now()"), nullable=False)
