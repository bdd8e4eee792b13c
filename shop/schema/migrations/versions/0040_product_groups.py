"""images of products, and groups of products that differ in options

Both are shown by functions that know them; those of the version before leave them as they are.

Revision ID: 0040
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

VALUES_IFF_IN_A_GROUP = "(group_id is null) = (option_values is null)"
NEW_CONSTRAINTS = {
    "values_iff_in_a_group": f"check ({VALUES_IFF_IN_A_GROUP})",
    "products_group_id_fkey": "foreign key (group_id) references shop.product_groups (group_id)",
}
# A product that joins or leaves a group, or is withdrawn, changes what its group shows.  Groups are
# locked in the order of their ids.
COUNT_GROUP_CHANGE = """
create function shop.count_group_change() returns trigger
language plpgsql security definer set search_path = pg_catalog as $$
begin
  perform from shop.product_groups where group_id in (old.group_id, new.group_id)
    order by group_id for update;
  update shop.product_groups set version = version + 1, updated_at = now()
    where group_id in (old.group_id, new.group_id);
  return null;
end $$
"""
TRIGGER = """
create trigger count_group_change after update of active, group_id, option_values on shop.products
for each row when ((old.active, old.group_id, old.option_values)
  is distinct from (new.active, new.group_id, new.option_values))
execute function shop.count_group_change()
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    _create_groups()
    _extend_products()


def _create_groups() -> None:
    op.create_table(
        "product_groups",
        sa.Column("group_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("options", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.CheckConstraint("char_length(name) between 1 and 200", name="group_name_length"),
        sa.CheckConstraint("cardinality(options) between 1 and 5", name="group_options"),
        sa.PrimaryKeyConstraint("group_id"),
        schema="shop",
        comment="writer: catalog",
    )


def _extend_products() -> None:
    for column in (
        sa.Column("images", JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("group_id", sa.BigInteger()),
        sa.Column("option_values", sa.ARRAY(sa.Text())),
    ):
        op.add_column("products", column, schema="shop")
    for name, condition in NEW_CONSTRAINTS.items():
        op.execute(f"alter table shop.products add constraint {name} {condition} not valid")
    op.execute(COUNT_GROUP_CHANGE)
    op.execute("revoke all on function shop.count_group_change() from public")
    op.execute(TRIGGER)


def _now(name: str) -> sa.Column[object]:
    zoned = sa.DateTime(timezone=True)
    return sa.Column(name, zoned, server_default=sa.text("now()"), nullable=False)
