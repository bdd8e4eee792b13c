"""settlement_batches: a day is settled in batches before it is closed

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shop.schema.triggers_and_views import APPEND_ONLY_TRIGGER

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Version 0.1.0 closes a day with the postings that are not settled yet.  While it still runs, it
# must not close a day of which this version has settled a part.
EQUAL_THE_BATCHES = """
create function shop.settlement_equals_its_batches() returns trigger
language plpgsql set search_path = pg_catalog as $$
declare settled record;
begin
  select coalesce(sum(captures_minor) filter (where currency = new.currency), 0) as captures_minor,
    coalesce(sum(refunds_minor) filter (where currency = new.currency), 0) as refunds_minor,
    coalesce(sum(captures) filter (where currency = new.currency), 0) as captures,
    coalesce(sum(n) filter (where currency = new.currency), 0) as n, count(*) as batches
  into settled from shop.settlement_batches where day = new.day;
  if settled.batches > 0 and (new.captures_minor, new.refunds_minor, new.captures, new.n)
      is distinct from
      (settled.captures_minor, settled.refunds_minor, settled.captures, settled.n) then
    raise exception 'the settlement of % differs from its batches', new.day
      using errcode = 'integrity_constraint_violation';
  end if;
  return new;
end $$;
create trigger equals_its_batches before insert on shop.settlements
  for each row execute function shop.settlement_equals_its_batches();
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.create_table(
        "settlement_batches",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("captures_minor", sa.BigInteger(), nullable=False),
        sa.Column("refunds_minor", sa.BigInteger(), nullable=False),
        sa.Column("captures", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("last_posted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column(
            "settled_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("day", "batch", "currency"),
        schema="shop",
        comment="writer: settlement; append only",
    )
    op.execute(APPEND_ONLY_TRIGGER.format(table="settlement_batches"))
    op.execute(EQUAL_THE_BATCHES)
    op.drop_constraint(
        "settlement_lines_day_currency_fkey",
        "settlement_lines",
        schema="shop",
        type_="foreignkey",
    )
