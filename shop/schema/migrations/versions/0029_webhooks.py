"""webhooks, and a delivery of each event to each of them

Revision ID: 0029
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# With the rights of the tables' owner: every role that stores an event causes deliveries, and none
# of them can read whom an event is delivered to.
DELIVER = """
create function shop.deliver_to_webhooks() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into shop.webhook_deliveries (webhook_id, event_id, type)
  select w.webhook_id, e.event_id, e.type
  from stored e join shop.webhooks w on w.state = 'ACTIVE' and e.type = any(w.event_types);
  return null;
end $$;
create trigger deliver_to_webhooks after insert on shop.outbox
  referencing new table as stored for each statement execute function shop.deliver_to_webhooks();
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", sa.UUID(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'ACTIVE'"), nullable=False),
        sa.Column("disabled_by", sa.Text()),
        sa.Column("secret_number", sa.Integer(), server_default=sa.text("1"), nullable=False),
        _when("previous_secret_until", nullable=True),
        _when("created_at"),
        _when("active_since"),
        _when("failing_since", nullable=True),
        sa.Column("failed_runs", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _when("next_run_at"),
        sa.CheckConstraint(
            "state in ('ACTIVE', 'DISABLED', 'DELETED')", name="known_webhook_state"
        ),
        sa.CheckConstraint(
            "disabled_by in ('ADMINISTRATOR', 'GONE', 'FAILING')", name="known_disabled_by"
        ),
        sa.CheckConstraint(
            "(state = 'DISABLED') = (disabled_by is not null)", name="disabled_by_one"
        ),
        sa.CheckConstraint("char_length(url) between 1 and 500", name="webhook_url_length"),
        sa.CheckConstraint("cardinality(event_types) > 0", name="webhook_has_event_types"),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("webhooks_pkey")),
        schema="shop",
        comment="writer: webhooks",
    )
    op.create_index(
        "one_webhook_per_url",
        "webhooks",
        ["url"],
        unique=True,
        schema="shop",
        postgresql_where=sa.text("state <> 'DELETED'"),
    )
    _create_deliveries()
    _create_attempts()
    op.execute(DELIVER)


def _create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("webhook_id", sa.UUID(), nullable=False),
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'PENDING'"), nullable=False),
        _when("created_at"),
        _when("scheduled_at"),
        _when("next_try_at"),
        _when("delivered_at", nullable=True),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "state in ('PENDING', 'DELIVERED', 'FAILED')", name="known_delivery_state"
        ),
        sa.ForeignKeyConstraint(["webhook_id"], ["shop.webhooks.webhook_id"]),
        sa.PrimaryKeyConstraint("webhook_id", "event_id"),
        schema="shop",
        comment="writer: webhooks; rows are added by the trigger on outbox",
    )
    op.create_index(
        "webhook_deliveries_open",
        "webhook_deliveries",
        ["webhook_id", "next_try_at"],
        schema="shop",
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_index(
        "webhook_deliveries_by_age", "webhook_deliveries", ["created_at"], schema="shop"
    )


def _create_attempts() -> None:
    op.create_table(
        "webhook_attempts",
        sa.Column("webhook_id", sa.UUID(), nullable=False),
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        _when("at"),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("status", sa.SmallInteger()),
        sa.Column("error", sa.Text()),
        sa.Column("request_head", sa.Text(), nullable=False),
        sa.Column("response_head", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["webhook_id", "event_id"],
            ["shop.webhook_deliveries.webhook_id", "shop.webhook_deliveries.event_id"],
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("webhook_id", "event_id", "number"),
        schema="shop",
        comment="writer: webhooks",
    )


def _when(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        server_default=None if nullable else sa.text("now()"),
        nullable=nullable,
    )
