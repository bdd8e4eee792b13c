"""the shop

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from shop.schema.triggers_and_views import (
    ALLOWED_TRANSITIONS,
    APPEND_ONLY_TRIGGER,
    CHAIN_POSTING,
    RECONCILIATION,
    REFUSE_CHANGE,
)

# as of this revision: later tables bring their triggers with them
APPEND_ONLY = (
    "ledger",
    "stock_moves",
    "transitions",
    "settlements",
    "settlement_lines",
    "inbox",
)

# as of this revision: shop/schema/views.py replaces it
DUE_WORK = """
create view shop.due_work (kind, id, due_at) as
  select 'outbox', event_id::text, next_try_at from shop.outbox
    where done_at is null and parked_at is null
  union all
  select 'charge', order_id::text, charge_at from shop.orders
    where status = 'PENDING' and charge_at is not null
  union all
  select 'payment', payment_id::text, next_try_at from shop.payments
    where status in ('INTENT', 'UNKNOWN')
  union all
  select 'refund', refund_id::text, next_try_at from shop.refunds
    where status in ('INTENT', 'UNKNOWN')
  union all
  select 'expire', o.order_id::text,
      case when p.payment_id is null then o.expires_at else o.hard_expires_at end
    from shop.orders o
    left join shop.payments p on p.order_id = o.order_id and p.status in ('INTENT', 'UNKNOWN')
    where o.status = 'PENDING'
  union all
  select 'finish', o.order_id::text, o.updated_at + interval '30 seconds' from shop.orders o
    where o.status = 'CANCELLING' and not exists (
      select from shop.payments p where p.order_id = o.order_id and (
        p.status in ('INTENT', 'UNKNOWN') or p.status = 'CAPTURED' and p.amount_minor > (
          select coalesce(sum(r.amount_minor), 0) from shop.refunds r
          where r.payment_id = p.payment_id and r.status = 'SUCCEEDED')))
  union all
  select 'close_day', d.day::text, ((d.day + 1)::timestamp at time zone z.name)
      + interval '2 minutes'
    from (select coalesce(nullif(current_setting('shop.business_time_zone', true), ''),
      'Asia/Seoul') as name) z
    cross join lateral (
      select (min(l.posted_at) at time zone z.name)::date as day from shop.ledger l
      where l.posted_at >= coalesce((select (max(s.day) + 1)::timestamp at time zone z.name
        from shop.settlements s), '-infinity')) d
    where d.day is not null
  union all
  select 'reconcile', r.provider, least(r.next_run_at, interval '5 minutes' + (
      select min(p.created_at) from shop.payments p where p.created_at > r.ran_at))
    from shop.reconciliation r
  union all
  select 'retention', 'idempotency', min(created_at) + interval '7 days 1 hour'
    from shop.idempotency having count(*) > 0
  union all
  select 'retention', 'outbox', min(done_at) + interval '30 days 1 hour'
    from shop.outbox where done_at is not null having count(*) > 0
  union all
  select 'retention', 'sessions', min(expires_at) + interval '30 days 1 hour'
    from shop.sessions having count(*) > 0
"""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    op.create_table(
        "alarms",
        sa.Column("alarm_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column(
            "raised_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("alarm_id"),
        schema="shop",
        comment="writer: alarms",
    )
    op.create_index(
        "one_open_alarm",
        "alarms",
        ["kind", "subject"],
        unique=True,
        schema="shop",
        postgresql_where=sa.text("resolved_at is null"),
    )
    op.create_index(
        "alarms_open",
        "alarms",
        ["raised_at"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("resolved_at is null"),
    )
    op.create_table(
        "allowed_transitions",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=False),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("entity", "from_status", "to_status"),
        schema="shop",
        comment="writer: the migrations",
    )
    op.create_table(
        "categories",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("char_length(name) between 1 and 50", name="category_name_length"),
        sa.PrimaryKeyConstraint("name"),
        schema="shop",
        comment="writer: catalog",
    )
    op.create_table(
        "dead_letters",
        sa.Column("dead_letter_id", sa.UUID(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_data", sa.Text(), nullable=True),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("dead_letter_id"),
        sa.UniqueConstraint(
            "source", "event_id", "destination", name="one_dead_letter_per_consumer"
        ),
        schema="shop",
        comment="writer: dead_letters",
    )
    op.create_table(
        "idempotency",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(state = 'DONE') = (status_code is not null and body is not null)",
            name="done_has_answer",
        ),
        sa.CheckConstraint("state in ('STARTED', 'DONE')", name="known_key_state"),
        sa.PrimaryKeyConstraint("user_id", "scope", "key"),
        schema="shop",
        comment="writer: idempotency",
    )
    op.create_index(
        "idempotency_by_age", "idempotency", ["created_at"], unique=False, schema="shop"
    )
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("consumer", "source", "event_id"),
        schema="shop",
        comment="writer: inbox; append only",
    )
    op.create_index("inbox_by_age", "inbox", ["received_at"], unique=False, schema="shop")
    op.create_table(
        "ledger_chains",
        sa.Column("chain", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("chain_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain"),
        schema="shop",
        comment="writer: the trigger on ledger",
    )
    op.create_table(
        "outbox",
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("parked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("event_id"),
        schema="shop",
        comment="writer: outbox",
    )
    op.create_index("outbox_by_order", "outbox", ["order_id"], unique=False, schema="shop")
    op.create_index(
        "outbox_done",
        "outbox",
        ["done_at"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("done_at is not null"),
    )
    op.create_index(
        "outbox_open",
        "outbox",
        ["next_try_at"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("done_at is null and parked_at is null"),
    )
    op.create_table(
        "reconciliation",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column(
            "ran_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("next_run_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("provider"),
        schema="shop",
        comment="writer: reconciliation",
    )
    op.create_table(
        "settlements",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("captures_minor", sa.BigInteger(), nullable=False),
        sa.Column("refunds_minor", sa.BigInteger(), nullable=False),
        sa.Column("captures", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column(
            "closed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("day", "currency"),
        schema="shop",
        comment="writer: settlement; append only",
    )
    op.create_table(
        "subscriptions",
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("type", "consumer"),
        schema="shop",
        comment="writer: tools.migrate (from the specs)",
    )
    op.create_table(
        "users",
        sa.Column("user_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("email_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), server_default=sa.text("'customer'"), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "role in ('customer', 'staff', 'support', 'finance')", name="known_role"
        ),
        sa.CheckConstraint("email_key = lower(email_key)", name="email_key_is_folded"),
        sa.PrimaryKeyConstraint("user_id"),
        sa.UniqueConstraint("email_key", name="one_account_per_email"),
        schema="shop",
        comment="writer: accounts",
    )
    op.create_table(
        "orders",
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("payment_method", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("idem_scope", sa.Text(), nullable=True),
        sa.Column("idem_key", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hard_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("charge_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status in ('CANCELLING', 'CANCELLED')) = (reason is not null)",
            name="reason_iff_cancelled",
        ),
        sa.CheckConstraint(
            "reason in ('USER', 'EXPIRED', 'DECLINED', 'OPERATOR')", name="known_reason"
        ),
        sa.CheckConstraint(
            "status in ('PENDING', 'PAID', 'CANCELLING', 'CANCELLED')", name="known_order_status"
        ),
        sa.CheckConstraint(
            "(idem_scope is null) = (idem_key is null)", name="idempotency_key_is_whole"
        ),
        sa.CheckConstraint("total_minor > 0", name="total_is_positive"),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["shop.users.user_id"],
        ),
        sa.PrimaryKeyConstraint("order_id"),
        sa.UniqueConstraint("order_id", "user_id", name="one_buyer_per_order"),
        sa.UniqueConstraint("user_id", "idem_scope", "idem_key", name="one_order_per_key"),
        schema="shop",
        comment="writer: ordering.orders",
    )
    op.create_index(
        "orders_by_user", "orders", ["user_id", "order_id"], unique=False, schema="shop"
    )
    op.create_index(
        "orders_open_by_user",
        "orders",
        ["user_id"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("status = 'PENDING'"),
    )
    op.create_index(
        "orders_to_charge",
        "orders",
        ["charge_at"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("status = 'PENDING' and charge_at is not null"),
    )
    op.create_index(
        "orders_to_expire",
        "orders",
        ["expires_at"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("status = 'PENDING'"),
    )
    op.create_index(
        "orders_to_finish",
        "orders",
        ["updated_at"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("status = 'CANCELLING'"),
    )
    op.create_table(
        "products",
        sa.Column("product_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("char_length(name) between 1 and 200", name="product_name_length"),
        sa.CheckConstraint("price_minor > 0", name="price_is_positive"),
        sa.ForeignKeyConstraint(
            ["category"],
            ["shop.categories.name"],
        ),
        sa.PrimaryKeyConstraint("product_id"),
        schema="shop",
        comment="writer: catalog",
    )
    op.create_index(
        "products_by_name",
        "products",
        ["name", "product_id"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("active"),
    )
    op.create_index(
        "products_by_category",
        "products",
        ["category", "product_id"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("active"),
    )
    op.create_index(
        "products_by_name_trigram",
        "products",
        [sa.literal_column("lower(name) gin_trgm_ops")],
        unique=False,
        schema="shop",
        postgresql_using="gin",
    )
    op.create_index(
        "products_by_price",
        "products",
        ["price_minor", "product_id"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("active"),
    )
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["shop.users.user_id"],
        ),
        sa.PrimaryKeyConstraint("session_id"),
        schema="shop",
        comment="writer: accounts",
    )
    op.create_index("sessions_by_expiry", "sessions", ["expires_at"], unique=False, schema="shop")
    op.create_index(
        "sessions_by_user",
        "sessions",
        ["user_id"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("revoked_at is null"),
    )
    op.create_table(
        "transitions",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=False),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("event_id", sa.UUID(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["entity", "from_status", "to_status"],
            [
                "shop.allowed_transitions.entity",
                "shop.allowed_transitions.from_status",
                "shop.allowed_transitions.to_status",
            ],
            name="transition_is_allowed",
        ),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("event_id", name="one_transition_per_event"),
        schema="shop",
        comment="writer: transitions; append only",
    )
    op.create_index(
        "transitions_by_entity", "transitions", ["entity_id", "seq"], unique=False, schema="shop"
    )
    op.create_index(
        "transitions_by_order", "transitions", ["order_id", "seq"], unique=False, schema="shop"
    )
    op.create_table(
        "cart_items",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("qty", sa.Integer(), nullable=False),
        sa.Column(
            "added_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint("qty between 1 and 1000", name="cart_qty_range"),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["shop.products.product_id"],
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["shop.users.user_id"],
        ),
        sa.PrimaryKeyConstraint("user_id", "product_id"),
        schema="shop",
        comment="writer: carts",
    )
    op.create_table(
        "ledger",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("debit", sa.Text(), nullable=False),
        sa.Column("credit", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column(
            "posted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("chain", sa.SmallInteger(), nullable=False),
        sa.Column("chain_seq", sa.BigInteger(), nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("kind in ('CAPTURE', 'REFUND')", name="known_posting"),
        sa.CheckConstraint("amount_minor > 0", name="posting_amount_is_positive"),
        sa.CheckConstraint("debit <> credit", name="two_sides"),
        sa.ForeignKeyConstraint(
            ["order_id"],
            ["shop.orders.order_id"],
        ),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("chain", "chain_seq", name="one_link_per_place"),
        sa.UniqueConstraint("kind", "source_id", name="one_posting_per_source"),
        schema="shop",
        comment="writer: ledger; append only; chained by trigger",
    )
    op.create_index("ledger_by_order", "ledger", ["order_id"], unique=False, schema="shop")
    op.create_index("ledger_by_time", "ledger", ["posted_at"], unique=False, schema="shop")
    op.create_table(
        "order_lines",
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("qty", sa.Integer(), nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("qty between 1 and 1000", name="line_qty_range"),
        sa.CheckConstraint("unit_price_minor > 0", name="unit_price_is_positive"),
        sa.ForeignKeyConstraint(
            ["order_id", "user_id"],
            ["shop.orders.order_id", "shop.orders.user_id"],
        ),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["shop.products.product_id"],
        ),
        sa.PrimaryKeyConstraint("order_id", "product_id"),
        schema="shop",
        comment="writer: ordering.orders",
    )
    op.create_table(
        "payments",
        sa.Column("payment_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("payment_method", sa.Text(), nullable=False),
        sa.Column("late", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("provider_key", sa.Text(), nullable=False),
        sa.Column("provider_ref", sa.Text(), nullable=True),
        sa.Column(
            "refund_reserved_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False
        ),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("charge_not_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("not late or status = 'CAPTURED'", name="late_is_captured"),
        sa.CheckConstraint(
            "refund_reserved_minor >= 0 and refund_reserved_minor <= case when status = 'CAPTURED' then amount_minor else 0 end",
            name="refunds_le_capture",
        ),
        sa.CheckConstraint(
            "status in ('INTENT', 'UNKNOWN', 'CAPTURED', 'DECLINED', 'VOIDED')",
            name="known_payment_status",
        ),
        sa.CheckConstraint("amount_minor > 0", name="payment_amount_is_positive"),
        sa.ForeignKeyConstraint(
            ["order_id", "user_id"],
            ["shop.orders.order_id", "shop.orders.user_id"],
        ),
        sa.PrimaryKeyConstraint("payment_id"),
        sa.UniqueConstraint("order_id", "attempt", name="one_attempt"),
        sa.UniqueConstraint("provider_key", name="one_provider_key"),
        sa.UniqueConstraint("provider_ref", name="one_provider_ref"),
        schema="shop",
        comment="writer: ordering.payments",
    )
    op.create_index(
        "one_kept_capture",
        "payments",
        ["order_id"],
        unique=True,
        schema="shop",
        postgresql_where=sa.text("status = 'CAPTURED' and not late"),
    )
    op.create_index(
        "one_live_payment",
        "payments",
        ["order_id"],
        unique=True,
        schema="shop",
        postgresql_where=sa.text("status in ('INTENT', 'UNKNOWN')"),
    )
    op.create_index("payments_by_age", "payments", ["created_at"], unique=False, schema="shop")
    op.create_index(
        "payments_to_resolve",
        "payments",
        ["next_try_at"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("status in ('INTENT', 'UNKNOWN')"),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("session_id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),
        sa.ForeignKeyConstraint(["session_id"], ["shop.sessions.session_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("token_hash"),
        schema="shop",
        comment="writer: accounts",
    )
    op.create_index(
        "refresh_tokens_by_session", "refresh_tokens", ["session_id"], unique=False, schema="shop"
    )
    op.create_table(
        "stock",
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("on_hand", sa.Integer(), nullable=False),
        sa.Column("reserved", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("on_hand >= 0", name="on_hand_not_negative"),
        sa.CheckConstraint("reserved <= on_hand", name="reserved_le_on_hand"),
        sa.CheckConstraint("reserved >= 0", name="reserved_not_negative"),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["shop.products.product_id"],
        ),
        sa.PrimaryKeyConstraint("product_id"),
        schema="shop",
        comment="writer: inventory",
    )
    op.create_table(
        "refunds",
        sa.Column("refund_id", sa.UUID(), nullable=False),
        sa.Column("payment_id", sa.UUID(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.BigInteger(), nullable=True),
        sa.Column("provider_key", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status in ('INTENT', 'UNKNOWN', 'SUCCEEDED', 'REJECTED')", name="known_refund_status"
        ),
        sa.CheckConstraint("amount_minor > 0", name="refund_amount_is_positive"),
        sa.ForeignKeyConstraint(
            ["payment_id"],
            ["shop.payments.payment_id"],
        ),
        sa.PrimaryKeyConstraint("refund_id"),
        sa.UniqueConstraint("provider_key", name="one_refund_key"),
        schema="shop",
        comment="writer: ordering.refunds",
    )
    op.create_index("refunds_by_payment", "refunds", ["payment_id"], unique=False, schema="shop")
    op.create_index(
        "refunds_to_resolve",
        "refunds",
        ["next_try_at"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("status in ('INTENT', 'UNKNOWN')"),
    )
    op.create_table(
        "reservations",
        sa.Column("reservation_id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("qty", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "status in ('HELD', 'COMMITTED', 'RELEASED', 'RETURNED')",
            name="known_reservation_status",
        ),
        sa.CheckConstraint("qty > 0", name="reservation_qty_is_positive"),
        sa.ForeignKeyConstraint(
            ["order_id"],
            ["shop.orders.order_id"],
        ),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["shop.stock.product_id"],
        ),
        sa.PrimaryKeyConstraint("reservation_id"),
        sa.UniqueConstraint("order_id", "product_id", name="one_reservation_per_line"),
        schema="shop",
        comment="writer: inventory",
    )
    op.create_index(
        "reservations_held",
        "reservations",
        ["product_id"],
        unique=False,
        schema="shop",
        postgresql_where=sa.text("status = 'HELD'"),
    )
    op.create_table(
        "settlement_lines",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("currency", sa.CHAR(length=3), nullable=False),
        sa.ForeignKeyConstraint(
            ["day", "currency"],
            ["shop.settlements.day", "shop.settlements.currency"],
        ),
        sa.ForeignKeyConstraint(
            ["seq"],
            ["shop.ledger.seq"],
        ),
        sa.PrimaryKeyConstraint("seq"),
        schema="shop",
        comment="writer: settlement; append only",
    )
    op.create_index(
        "settlement_lines_by_day",
        "settlement_lines",
        ["day", "currency"],
        unique=False,
        schema="shop",
    )
    op.create_table(
        "stock_moves",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("qty", sa.Integer(), nullable=False),
        sa.Column("reservation_id", sa.UUID(), nullable=True),
        sa.Column(
            "moved_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint(
            "(kind = 'COMMIT' and qty < 0) or (kind <> 'COMMIT' and qty > 0)", name="move_sign"
        ),
        sa.CheckConstraint(
            "(kind in ('COMMIT', 'RETURN')) = (reservation_id is not null)",
            name="reservation_iff_sold",
        ),
        sa.CheckConstraint("kind in ('INITIAL', 'RESTOCK', 'COMMIT', 'RETURN')", name="known_move"),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["shop.stock.product_id"],
        ),
        sa.ForeignKeyConstraint(
            ["reservation_id"],
            ["shop.reservations.reservation_id"],
        ),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("reservation_id", "kind", name="one_move_per_reservation"),
        schema="shop",
        comment="writer: inventory; append only",
    )
    op.create_index(
        "stock_moves_by_product", "stock_moves", ["product_id"], unique=False, schema="shop"
    )
    _promise()


def _promise() -> None:
    op.bulk_insert(
        sa.table(
            "allowed_transitions",
            sa.column("entity"),
            sa.column("from_status"),
            sa.column("to_status"),
            sa.column("event_type"),
            schema="shop",
        ),
        [
            dict(zip(("entity", "from_status", "to_status", "event_type"), row, strict=True))
            for row in ALLOWED_TRANSITIONS
        ],
    )
    op.execute(CHAIN_POSTING)
    op.execute(REFUSE_CHANGE)
    for table in APPEND_ONLY:
        op.execute(APPEND_ONLY_TRIGGER.format(table=table))
    op.execute(RECONCILIATION)
    op.execute(DUE_WORK)
