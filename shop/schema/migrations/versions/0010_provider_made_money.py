"""refunds and disputes that the provider made without a request of the shop

Revision ID: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

POSTING_KINDS = (
    "'CAPTURE', 'REFUND', 'REFUND_REVERSED', 'REFUND_BY_OTHER_MEANS', 'WRITE_OFF', "
    "'DISPUTE', 'DISPUTE_REVERSAL', 'DISPUTE_FEE', 'DISPUTE_FEE_REVERSAL'"
)
# as of this revision; those that are legal in a new database are there already
TRANSITIONS = """
insert into shop.allowed_transitions (entity, from_status, to_status, event_type) values
  ('refund', '-', 'SUCCEEDED', 'refund.succeeded'),
  ('refund', 'REJECTED', 'SUCCEEDED', 'refund.succeeded'),
  ('dispute', '-', 'OPEN', null),
  ('dispute', 'OPEN', 'WON', null),
  ('dispute', 'OPEN', 'LOST', null)
on conflict do nothing
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    _disputes()
    op.add_column(
        "refunds",
        sa.Column("origin", sa.Text(), server_default=sa.text("'SHOP'"), nullable=False),
        schema="shop",
    )
    op.execute(TRANSITIONS)
    op.drop_constraint("known_posting", "ledger", schema="shop")
    _check("ledger", "known_posting", f"kind in ({POSTING_KINDS})")
    _check("refunds", "known_refund_origin", "origin in ('SHOP', 'PROVIDER')")


def _check(table: str, name: str, condition: str) -> None:
    """Adds a check without reading the table under its lock; 0011 validates it."""
    op.execute(f"alter table shop.{table} add constraint {name} check ({condition}) not valid")


def _disputes() -> None:
    op.create_table(
        "disputes",
        sa.Column("dispute_id", sa.UUID(), nullable=False),
        sa.Column("payment_id", sa.UUID(), nullable=False),
        sa.Column("provider_ref", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.CheckConstraint("amount_minor > 0", name="dispute_amount_is_positive"),
        sa.CheckConstraint("status in ('OPEN', 'WON', 'LOST')", name="known_dispute_status"),
        sa.ForeignKeyConstraint(["payment_id"], ["shop.payments.payment_id"]),
        sa.PrimaryKeyConstraint("dispute_id"),
        sa.UniqueConstraint("provider_ref", name="one_dispute_ref"),
        schema="shop",
        comment="writer: ordering.disputes",
    )
    op.create_index("disputes_by_payment", "disputes", ["payment_id"], schema="shop")


def _now(name: str) -> sa.Column[object]:
    zoned = sa.DateTime(timezone=True)
    return sa.Column(name, zoned, server_default=sa.text("now()"), nullable=False)
