"""refunds by other means, write-offs, reversed refunds and refunded orders

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WIDER_CHECKS = {
    ("orders", "known_order_status"): (
        "status in ('PENDING', 'PAID', 'REFUNDED', 'CANCELLING', 'CANCELLED')"
    ),
    ("refunds", "known_refund_status"): (
        "status in ('INTENT', 'UNKNOWN', 'SUCCEEDED', 'REJECTED', 'REVERSED')"
    ),
    ("ledger", "known_posting"): (
        "kind in ('CAPTURE', 'REFUND', 'REFUND_REVERSED', 'REFUND_BY_OTHER_MEANS', 'WRITE_OFF')"
    ),
}
NEW_CHECKS = {
    "known_refund_means": "means in ('PROVIDER', 'OTHER_MEANS', 'WRITE_OFF')",
    "other_means_has_a_reference": "(means = 'OTHER_MEANS') = (reference is not null)",
}
# A new database has these rows from migration 0001, which inserts the present table.
NEW_TRANSITIONS = """
insert into shop.allowed_transitions (entity, from_status, to_status, event_type) values
  ('order', 'PAID', 'REFUNDED', 'order.refunded'),
  ('refund', 'SUCCEEDED', 'REVERSED', 'refund.rejected')
on conflict do nothing
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.add_column(
        "refunds",
        sa.Column("means", sa.Text(), server_default=sa.text("'PROVIDER'"), nullable=False),
        schema="shop",
    )
    op.add_column("refunds", sa.Column("reference", sa.Text(), nullable=True), schema="shop")
    op.add_column(
        "refunds",
        sa.Column("restock", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="shop",
    )
    for name, check in NEW_CHECKS.items():
        op.execute(f"alter table shop.refunds add constraint {name} check ({check}) not valid")
    for (table, name), check in WIDER_CHECKS.items():
        op.execute(
            f"alter table shop.{table} drop constraint {name}, "
            f"add constraint {name} check ({check}) not valid"
        )
    op.execute(NEW_TRANSITIONS)
    # the tables are read without a lock that stops writers
    with op.get_context().autocommit_block():
        for name in NEW_CHECKS:
            op.execute(f"alter table shop.refunds validate constraint {name}")
        for table, name in WIDER_CHECKS:
            op.execute(f"alter table shop.{table} validate constraint {name}")
