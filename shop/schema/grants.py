"""The rights of each database role: one role per trust domain, with the least privileges.

A test proves that the database grants exactly this matrix.
Column tuples limit a right to columns; ``ALL`` means the whole table.  Only three roles may delete:
``shop_relay`` expired rows, ``shop_ordering`` cart lines, and ``shop_identity`` failed log-ins.
``shop_relay`` may also call the functions of ``partitions.py``, and has no right on a partition.
Who may call those of ``personal_data.py`` is in that file.
"""

from __future__ import annotations

from collections.abc import Iterable

from shop.primitives.spec import PERMITTED_ROLES, FunctionSpec
from shop.registry import all_specs

ALL = ("*",)

Rights = dict[str, tuple[str, ...]]

READ: Rights = {"select": ALL}
READ_APPEND: Rights = {"select": ALL, "insert": ALL}

# of any role with protected routes: who a key is of, and that it is used
_KEY_CHECK: Rights = {
    "select": ("key_hash", "session_id", "scopes", "last_used_at"),
    "update": ("last_used_at",),
}
_SESSION_CHECK: dict[str, Rights] = {
    "api_keys": _KEY_CHECK,
    "sessions": {"select": ("session_id", "user_id", "revoked_at", "expires_at")},
    "users": {"select": ("user_id", "active", "role")},
}
_IDEMPOTENCY: dict[str, Rights] = {
    "idempotency": {
        "select": ALL,
        "insert": ALL,
        "update": ("state", "status_code", "headers", "body"),
    },
}
_OUTBOX_UPDATE = ("sent_at", "done_at", "parked_at", "tries", "next_try_at")
_ANNOUNCE: dict[str, Rights] = {
    "outbox": {"select": ALL, "insert": ALL, "update": _OUTBOX_UPDATE},
    "subscriptions": READ,
    "inbox": READ,
}
_CONSUME: dict[str, Rights] = {**_ANNOUNCE, "inbox": READ_APPEND}
_ORDER_TABLES: dict[str, Rights] = {
    "transitions": READ_APPEND,
    "allowed_transitions": READ,
}
# Who writes an entry reads none, not even its own.
_RECORD: dict[str, Rights] = {
    "audit_log": {
        "insert": (
            "actor_kind",
            "actor_id",
            "actor_role",
            "action",
            "object_kind",
            "object_id",
            "before",
            "after",
            "trace_id",
        ),
    },
}
_ORDER_UPDATE = (
    "status",
    "reason",
    "version",
    "updated_at",
    "charge_at",
    "payment_method",
    "cart_taken",
)
_PAYMENT_UPDATE = (
    "status",
    "late",
    "provider_ref",
    "refund_reserved_minor",
    "tries",
    "updated_at",
    "next_try_at",
    "action",
    "act_until",
    "action_token",
)
# All but what a customer has to do and the provider's token for it, with which one could pay.
_PAYMENT_READ: Rights = {
    "select": (
        "payment_id",
        "order_id",
        "user_id",
        "attempt",
        "status",
        "amount_minor",
        "currency",
        "payment_method",
        "late",
        "provider_key",
        "provider_ref",
        "refund_reserved_minor",
        "tries",
        "created_at",
        "updated_at",
        "charge_not_after",
        "next_try_at",
        "act_until",
    )
}
_REFUND_UPDATE = ("status", "tries", "updated_at", "next_try_at")
_SHIPMENT_UPDATE = (
    "status",
    "updated_at",
    "carrier",
    "tracking_number",
    "shipped_at",
    "delivered_at",
)
_ADDRESS = ("recipient", "phone", "country", "postcode", "region", "city", "line1", "line2")
_RETURN_WITHOUT_TEXT = ("return_id", "order_id", "status", "created_at", "updated_at")
_STOCK_UPDATE = ("on_hand", "reserved")
_SCHEDULE_UPDATE = ("state", "regular_minor", "updated_at")
# orders count their coupons, whose terms only staff write
_COUPON_COUNT: Rights = {"select": ALL, "update": ("uses",)}
_GIVE_BACK: Rights = {"select": ALL, "update": ("given_back_at",)}
_MONEY: dict[str, Rights] = {
    "orders": {"select": ALL, "update": _ORDER_UPDATE},
    "order_lines": READ,
    "order_price_lines": READ,
    "coupons": _COUPON_COUNT,
    "coupon_uses": _GIVE_BACK,
    "payments": {"select": ALL, "insert": ALL, "update": _PAYMENT_UPDATE},
    "refunds": {"select": ALL, "insert": ALL, "update": _REFUND_UPDATE},
    "disputes": {"select": ALL, "insert": ALL, "update": ("status", "updated_at")},
    # a shipment is no longer packed once all money is returned
    "shipments": {"select": ALL, "update": _SHIPMENT_UPDATE},
    "shipment_lines": READ,
    "returns": READ,
    "return_lines": READ,
    "stock": {"select": ALL, "update": _STOCK_UPDATE},
    "stock_moves": READ_APPEND,
    "reservations": {"select": ALL, "update": ("status",)},
    "ledger": READ_APPEND,
    "alarms": {"select": ALL, "insert": ALL},
    "cart_items": {"insert": ("user_id", "product_id", "qty")},
    **_ORDER_TABLES,
    **_CONSUME,
}

# The auditor reads everything that the checks compare, but no password, token or personal data.
_AUDIT: dict[str, Rights] = {
    **dict.fromkeys(
        (
            "categories",
            "product_groups",
            "products",
            "price_schedules",
            "price_changes",
            "stock",
            "stock_moves",
            "reservations",
            "cart_items",
            "orders",
            "order_lines",
            "order_price_lines",
            "shipping_fees",
            "coupons",
            "coupon_uses",
            "refunds",
            "disputes",
            "shipments",
            "shipment_lines",
            "return_lines",
            "ledger",
            "ledger_keys",
            "ledger_chains",
            "settlements",
            "settlement_batches",
            "settlement_lines",
            "outbox",
            "inbox",
            "subscriptions",
            "allowed_transitions",
            "transitions",
            "dead_letters",
            "alarms",
            "reconciliation",
            "audits",
            "audit_log",
            "unmatched_charges",
            "ghosts",
            "mails",
            "due_work",
            "overdue",
            "months",
            "webhooks",
            "webhook_deliveries",
            "webhook_attempts",
        ),
        READ,
    ),
    "payments": _PAYMENT_READ,
    "users": {
        "select": (
            "user_id",
            "role",
            "active",
            "state",
            "created_at",
            "password_changed_at",
            "email_verified_at",
            "factor_id",
        ),
    },
    "sessions": {"select": ("session_id", "user_id", "created_at", "revoked_at")},
    "api_keys": {"select": ("session_id", "prefix", "scopes", "last_used_at")},
    "second_factors": {"select": ("user_id", "factor_id", "confirmed_at", "accepted")},
    "one_time_links": {
        "select": ("link_id", "purpose", "user_id", "expires_at", "ended_at", "uses"),
    },
    "idempotency": {
        "select": ("user_id", "scope", "key", "state", "status_code", "created_at"),
    },
    "notes": {"select": ("note_id", "order_id", "user_id", "author_id", "at")},
    "returns": {"select": _RETURN_WITHOUT_TEXT},
    "saved_addresses": {"select": ("address_id", "user_id")},
}

GRANTS: dict[str, dict[str, Rights]] = {
    "shop_catalog_ro": {
        "products": READ,
        "product_groups": READ,
        "stock": READ,
        "categories": READ,
        "subscriptions": READ,
        "inbox": READ_APPEND,
        "outbox": {"select": ALL, "update": ("sent_at", "done_at")},
    },
    "shop_identity": {
        # without role and active: an account that registers is a customer's
        "users": {
            "select": ALL,
            "insert": ("email", "email_key", "name", "language", "password_hash"),
            "update": (
                "password_hash",
                "password_changed_at",
                "name",
                "language",
                "email",
                "email_key",
                "email_verified_at",
                "factor_id",
            ),
        },
        "sessions": {"select": ALL, "insert": ALL, "update": ("revoked_at", "expires_at")},
        "refresh_tokens": {"select": ALL, "insert": ALL, "update": ("used_at",)},
        "api_keys": _KEY_CHECK,
        "saved_addresses": {
            "select": ALL,
            "insert": ALL,
            "update": (*_ADDRESS, "chosen_at", "updated_at"),
            "delete": ALL,
        },
        "second_factors": {
            "select": ALL,
            "insert": ("user_id", "factor_id", "key_id"),
            "update": (
                "factor_id",
                "key_id",
                "salt",
                "pad",
                "created_at",
                "confirmed_at",
                "last_step",
                "accepted",
                "failures",
                "blocked_until",
                "recovery_hashes",
            ),
            "delete": ALL,
        },
        # what raising an alert needs; it reads none
        "alarms": {"select": ("alarm_id", "kind", "subject", "resolved_at"), "insert": ALL},
        **_RECORD,
        "login_failures": {"select": ALL, "insert": ALL, "delete": ALL},
        "one_time_links": {
            "select": ALL,
            "insert": (
                "link_id",
                "purpose",
                "user_id",
                "recipient",
                "network",
                "expires_at",
                "email",
                "email_before",
            ),
            "update": ("ended_at", "uses"),
        },
        **_IDEMPOTENCY,
        **_ANNOUNCE,
    },
    # Operators' accounts: of a password it can write the hash only.
    "shop_accounts": {
        "users": {
            "select": (
                "user_id",
                "email",
                "email_key",
                "name",
                "role",
                "active",
                "state",
                "language",
                "email_verified_at",
                "is_service",
                "created_at",
            ),
            "insert": (
                "email",
                "email_key",
                "name",
                "language",
                "password_hash",
                "role",
                "is_service",
            ),
            "update": (
                "password_hash",
                "password_changed_at",
                "role",
                "active",
                "state",
                "factor_id",
            ),
        },
        "sessions": {
            "select": ("session_id", "user_id", "created_at", "revoked_at", "expires_at"),
            "insert": ("session_id", "user_id", "expires_at"),
            "update": ("revoked_at", "expires_at"),
        },
        "second_factors": {
            "select": ("user_id", "factor_id", "confirmed_at", "key_id", "salt", "pad"),
            "update": ("key_id", "salt", "pad"),
            "delete": ALL,
        },
        "api_keys": {
            "select": ALL,
            "insert": ("key_hash", "session_id", "prefix", "scopes"),
            "update": ("last_used_at",),
        },
        "one_time_links": {
            "select": ("link_id", "purpose", "user_id", "expires_at", "ended_at"),
            "insert": ("link_id", "purpose", "user_id", "expires_at"),
            "update": ("ended_at",),
        },
        "audit_log": {**_RECORD["audit_log"], "select": ALL},
        **_IDEMPOTENCY,
        **_ANNOUNCE,
    },
    "shop_ordering": {
        **_SESSION_CHECK,
        "users": {"select": ("user_id", "active", "role", "email_verified_at")},
        "categories": READ,
        "products": READ,
        "stock": {"select": ALL, "update": _STOCK_UPDATE},
        "stock_moves": READ_APPEND,
        "reservations": {"select": ALL, "insert": ALL, "update": ("status", "returned_qty")},
        "cart_items": {"select": ALL, "insert": ALL, "update": ("qty",), "delete": ALL},
        "orders": {"select": ALL, "insert": ALL, "update": _ORDER_UPDATE},
        "order_lines": READ_APPEND,
        "order_price_lines": READ_APPEND,
        "shipping_fees": READ,
        "coupons": _COUPON_COUNT,
        "coupon_uses": {**_GIVE_BACK, "insert": ALL},
        "payments": {
            "select": ALL,
            "update": (
                "refund_reserved_minor",
                "updated_at",
                "next_try_at",
                "act_until",
                "action_token",
            ),
        },
        "refunds": READ_APPEND,
        "disputes": READ,
        "shipments": {"select": ALL, "insert": ALL, "update": _SHIPMENT_UPDATE},
        "shipment_lines": READ_APPEND,
        "order_addresses": READ_APPEND,
        "saved_addresses": READ,
        "returns": {"select": ALL, "insert": ALL, "update": ("status", "updated_at")},
        "return_lines": {
            "select": ALL,
            "insert": ALL,
            "update": ("restocked_qty", "amount_minor"),
        },
        "ledger": READ,
        "notes": {"insert": ("note_id", "order_id", "author_id", "text")},
        **_ORDER_TABLES,
        **_RECORD,
        **_IDEMPOTENCY,
        **_ANNOUNCE,
        # reports of carriers
        "inbox": READ_APPEND,
    },
    # Operators' orders and customers: it writes notes, and can read no password and no token.
    "shop_back_office": {
        "api_keys": _KEY_CHECK,
        "users": {
            "select": (
                "user_id",
                "email",
                "email_key",
                "name",
                "role",
                "active",
                "state",
                "language",
                "email_verified_at",
                "is_service",
                "created_at",
            ),
        },
        "sessions": {
            "select": ("session_id", "user_id", "created_at", "revoked_at", "expires_at"),
        },
        "refresh_tokens": {"select": ("session_id", "created_at")},
        "products": {"select": ("product_id", "name")},
        "orders": READ,
        "order_lines": READ,
        "order_price_lines": READ,
        "coupon_uses": READ,
        "payments": _PAYMENT_READ,
        "refunds": READ,
        "disputes": READ,
        "shipments": READ,
        "shipment_lines": READ,
        "order_addresses": READ,
        "returns": READ,
        "return_lines": READ,
        "transitions": READ,
        "ledger": READ,
        "settlement_lines": {"select": ("seq", "day")},
        "outbox": READ,
        "subscriptions": READ,
        "inbox": READ,
        "alarms": {"select": ALL, "update": ("resolved_at", "note")},
        "dead_letters": {"select": ALL, "update": ("dropped_at", "dropped_reason")},
        "notes": READ_APPEND,
        **_RECORD,
        **_IDEMPOTENCY,
    },
    "shop_payment": _MONEY,
    "shop_stock": {
        **_SESSION_CHECK,
        "categories": READ_APPEND,
        "products": {
            "select": ALL,
            "insert": ALL,
            "update": (
                "name",
                "description",
                "category",
                "price_minor",
                "active",
                "flash_sale",
                "version",
                "updated_at",
                "price_schedule_id",
                "images",
                "translations",
                "group_id",
                "option_values",
            ),
        },
        "product_groups": {
            "select": ALL,
            "insert": ("name", "options"),
            "update": ("name", "options", "version", "updated_at"),
        },
        "price_changes": READ,
        "shipping_fees": READ_APPEND,
        "coupons": {
            "select": ALL,
            "insert": (
                "code",
                "discount_minor",
                "discount_basis_points",
                "discount_max_minor",
                "currency",
                "goods_min_minor",
                "combinable",
                "starts_at",
                "ends_at",
                "uses_max",
                "uses_per_customer_max",
            ),
            "update": (
                "ends_at",
                "uses_max",
                "state",
                "version",
                "updated_at",
            ),
        },
        "price_schedules": {
            "select": ALL,
            "insert": (
                "schedule_id",
                "product_id",
                "price_minor",
                "starts_at",
                "ends_at",
                "created_by",
            ),
            "update": _SCHEDULE_UPDATE,
        },
        "stock": {"select": ALL, "insert": ALL, "update": _STOCK_UPDATE},
        "stock_moves": READ_APPEND,
        "reservations": {"select": ("reservation_id", "order_id")},
        **_RECORD,
        **_IDEMPOTENCY,
        **_ANNOUNCE,
    },
    "shop_settlement": {
        **_SESSION_CHECK,
        "ledger": READ,
        "settlements": READ_APPEND,
        "settlement_batches": READ_APPEND,
        "settlement_lines": READ_APPEND,
        "alarms": READ_APPEND,
        **_CONSUME,
    },
    # What leaves the shop: orders without their customers, and no right to change one.
    "shop_webhooks": {
        **_SESSION_CHECK,
        "webhooks": {
            "select": ALL,
            "insert": ALL,
            "update": (
                "url",
                "event_types",
                "state",
                "disabled_by",
                "secret_number",
                "previous_secret_until",
                "active_since",
                "failing_since",
                "failed_runs",
                "next_run_at",
            ),
        },
        "webhook_deliveries": {
            "select": ALL,
            "insert": ALL,
            "update": (
                "state",
                "scheduled_at",
                "next_try_at",
                "delivered_at",
                "tries",
                "attempts",
            ),
        },
        "webhook_attempts": READ_APPEND,
        "due_work": READ,
        "outbox": READ,
        "orders": READ,
        "order_lines": READ,
        "order_price_lines": READ,
        "coupon_uses": READ,
        "payments": READ,
        "refunds": READ,
        "shipments": READ,
        "shipment_lines": READ,
        "returns": {"select": _RETURN_WITHOUT_TEXT},
        "return_lines": READ,
        "alarms": {"select": ALL, "insert": ALL, "update": ("resolved_at",)},
        **_RECORD,
        **_IDEMPOTENCY,
    },
    "shop_relay": {
        **_MONEY,
        "products": {
            "select": ALL,
            "update": ("price_minor", "price_schedule_id", "version", "updated_at"),
        },
        "product_groups": READ,
        "price_schedules": {"select": ALL, "update": _SCHEDULE_UPDATE},
        "settlements": READ,
        "settlement_lines": READ,
        "reconciliation": {
            "select": ALL,
            "insert": ALL,
            "update": ("cursor", "ran_at", "next_run_at", "run_number"),
        },
        "unmatched_charges": READ,
        "ghosts": READ,
        "due_work": READ,
        "overdue": READ,
        "months": READ,
        "inbox": {"select": ALL, "insert": ALL, "delete": ALL},
        "outbox": {"select": ALL, "insert": ALL, "update": _OUTBOX_UPDATE, "delete": ALL},
        "alarms": {"select": ALL, "insert": ALL, "update": ("resolved_at",), "delete": ALL},
        "dead_letters": {
            "select": (
                "dead_letter_id",
                "source",
                "event_id",
                "received_at",
                "replayed_at",
                "dropped_at",
            ),
            "update": ("replayed_at",),
            "delete": ALL,
        },
        "idempotency": {"select": ("user_id", "scope", "key", "created_at"), "delete": ALL},
        "sessions": {"select": ("session_id", "expires_at"), "delete": ALL},
        "refresh_tokens": {"select": ("session_id",), "delete": ALL},
        # a row that another transaction has locked is skipped, which needs a right to lock
        "login_failures": {
            "select": ("failure_id", "failed_at"),
            "update": ("failed_at",),
            "delete": ALL,
        },
        "one_time_links": {"select": ("link_id", "expires_at"), "delete": ALL},
        "webhook_deliveries": {
            "select": ("webhook_id", "event_id", "created_at"),
            "update": ("created_at",),
            "delete": ALL,
        },
        "notes": {"select": ("note_id", "at"), "delete": ALL},
        "mails": {"select": ("event_id", "created_at"), "delete": ALL},
        "order_addresses": {"select": ("order_id", "created_at"), "delete": ALL},
    },
    # Mails: who a row is about, and what the mail says of it.
    "shop_notices": {
        "users": {"select": ("user_id", "email", "email_key", "name", "language", "active")},
        "one_time_links": {
            "select": (
                "link_id",
                "user_id",
                "purpose",
                "expires_at",
                "ended_at",
                "email",
                "email_before",
            ),
        },
        "orders": READ,
        "order_lines": READ,
        "order_price_lines": READ,
        "products": {"select": ("product_id", "name")},
        "payments": {"select": ("payment_id", "order_id")},
        "refunds": {"select": ("refund_id", "payment_id", "amount_minor", "currency")},
        "mails": {
            "select": ALL,
            "insert": ALL,
            "update": ("status", "failure", "reply_code", "tries", "updated_at", "next_try_at"),
        },
        "alarms": READ_APPEND,
        "subscriptions": READ,
        "inbox": READ_APPEND,
        "outbox": {"select": ALL, "update": ("sent_at", "done_at")},
    },
    "shop_ops": {
        "dead_letters": {
            "select": ALL,
            "insert": ALL,
            "update": ("replayed_at", "dropped_at", "dropped_reason"),
        },
        "alarms": {"select": ALL, "insert": ALL, "update": ("resolved_at",)},
        "audits": {"select": ALL, "insert": ALL, "update": ("ran_at", "found")},
        "unmatched_charges": READ_APPEND,
        # what recording a bounce needs
        "mails": {
            "select": ("event_id", "kind", "subject_id", "status", "tries", "bounce"),
            "update": ("bounce", "bounce_code", "bounced_at", "updated_at"),
        },
        "ghosts": READ_APPEND,
        "reconciliation": {"select": ALL, "update": ("cursor", "next_run_at", "run_number")},
        "due_work": READ,
        "overdue": READ,
        "months": READ,
        "outbox": {"select": ALL, "update": ("parked_at", "tries", "next_try_at")},
        "inbox": READ,
        "subscriptions": READ,
        "orders": READ,
        "payments": _PAYMENT_READ,
        "refunds": READ,
        "disputes": READ,
        "shipments": READ,
        "shipment_lines": READ,
        "returns": READ,
        "return_lines": READ,
        "transitions": READ,
        "ledger": READ,
    },
    "shop_auditor": _AUDIT,
    # KEDA's operator counts due rows with it, from another namespace
    "shop_scaler": {"due_work": {"select": ("kind", "due_at")}},
}

# timeouts by role (docs/design/security.md): a function's deadline is longer than any of these
ROLE_SETTINGS = {
    "statement_timeout": "3s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "5s",
    # responses contain times as they are read, so they must not depend on the server's zone
    "timezone": "UTC",
}
# The statements of these roles are planned for their values: a search depends on what is searched,
# and the auditor's statements are not repeated.  All others are planned once in a connection; left
# to itself, PostgreSQL plans statements that take arrays anew at each execution.
PLANNED_FOR_VALUES = ("shop_accounts", "shop_back_office", "shop_catalog_ro", "shop_auditor")

# to find open transactions: settlement those that began before midnight, the auditor all
READS_ACTIVITY = ("shop_settlement", "shop_auditor")

POLICIES = (
    "own_rows",
    "support_rows",
    "shipped_rows",
    "back_office",
    "expired_rows",
    "returned_lines",
    "owner_reads",
    "auditor_reads",
    "every_row_select",
    "every_row_update",
    "every_row_delete",
    "owner_erases",
    "expired_keys",
    "operators_read",
    "author_writes",
    "expired_notes",
    *(f"domain_of_{role}" for role in sorted(GRANTS)),
)
CUSTOMER_TABLES = (
    "orders",
    "order_lines",
    "order_price_lines",
    "order_addresses",
    "coupon_uses",
    "payments",
    "cart_items",
)
ROW_SECURITY_TABLES = (*CUSTOMER_TABLES, "saved_addresses", "idempotency", "notes", "outbox")
SEES_ALL_ROWS = (
    "shop_back_office",
    "shop_payment",
    "shop_settlement",
    "shop_webhooks",
    "shop_relay",
    "shop_notices",
    "shop_ops",
)

APPEND_ONLY = (
    "ledger",
    "ledger_keys",
    "stock_moves",
    "transitions",
    "settlements",
    "settlement_batches",
    "settlement_lines",
    "unmatched_charges",
    "audit_log",
    "price_changes",
    "shipment_lines",
)


def role_settings(role: str) -> dict[str, str]:
    """A role's own defaults of PostgreSQL's settings."""
    mode = "auto" if role in PLANNED_FOR_VALUES else "force_generic_plan"
    return {**ROLE_SETTINGS, "plan_cache_mode": mode}


def grant_statements() -> list[str]:
    """The GRANTs of the matrix, as SQL (identifiers come from this file only)."""
    statements: list[str] = []
    for role, tables in GRANTS.items():
        statements.append(f"grant usage on schema shop to {role}")
        for table, rights in tables.items():
            for right, columns in rights.items():
                what = right if columns == ALL else f"{right} ({', '.join(columns)})"
                statements.append(f"grant {what} on shop.{table} to {role}")
    return statements


def policy_statements() -> list[str]:
    """Row-level security: rows are visible to their owner, to support and to the back office.

    Staff, who pack and send orders, and reports of carriers see them as support does.
    """
    statements: list[str] = []
    own = "user_id = nullif(current_setting('shop.user_id', true), '')::bigint"
    support = "current_setting('shop.role', true) = 'support'"
    shipping = "current_setting('shop.role', true) in ('staff', 'carrier')"
    for table in ROW_SECURITY_TABLES:
        statements += [
            f"alter table shop.{table} enable row level security",
            f"alter table shop.{table} force row level security",
            # the due_work view reads as its owner, who on a managed server is no superuser
            f"create policy owner_reads on shop.{table} for select to current_user using (true)",
            f"create policy auditor_reads on shop.{table} for select to shop_auditor using (true)",
        ]
    for table in CUSTOMER_TABLES:
        statements += [
            f"create policy own_rows on shop.{table} to shop_ordering "
            f"using ({own}) with check ({own})",
        ]
        if table != "cart_items":
            statements.append(
                f"create policy support_rows on shop.{table} to shop_ordering "
                f"using ({support}) with check ({support})"
            )
            statements.append(
                f"create policy shipped_rows on shop.{table} to shop_ordering "
                f"using ({shipping}) with check ({shipping})"
            )
            statements.append(
                f"create policy back_office on shop.{table} to {', '.join(SEES_ALL_ROWS)} "
                "using (true) with check (true)"
            )
    return [
        *statements,
        "create policy own_rows on shop.saved_addresses to shop_identity, shop_ordering "
        f"using ({own}) with check ({own})",
        *_expiry_policies(),
        _returned_lines_policy(),
        *_idempotency_policies(),
        *_notes_policies(),
        *_outbox_policies(),
    ]


# of an order that its customer placed from the cart
_RETURNED_LINE = (
    "exists (select from shop.orders o join shop.order_lines l using (order_id) "
    "where o.user_id = cart_items.user_id and o.cart_taken is not null "
    "and l.product_id = cart_items.product_id and l.qty = cart_items.qty)"
)


def _expiry_policies() -> list[str]:
    """A request may cancel other customers' expired orders, to free the stock that they hold.

    Only while it acts as ``expiry``, a role that no account can have.
    """
    expiring = "current_setting('shop.role', true) = 'expiry'"
    expired = "expires_at <= now() and (status = 'PENDING' or reason = 'EXPIRED')"
    of_such = "exists (select from shop.orders o where o.order_id = {0}.order_id)"
    return [
        "create policy expired_rows on shop.orders to shop_ordering "
        f"using ({expiring} and {expired}) with check ({expiring} and {expired})",
        "create policy expired_rows on shop.payments for select to shop_ordering "
        f"using ({expiring} and {of_such.format('payments')})",
        "create policy expired_rows on shop.coupon_uses to shop_ordering "
        f"using ({expiring} and {of_such.format('coupon_uses')})",
        "create policy expired_rows on shop.order_lines for select to shop_ordering "
        f"using ({expiring} and {of_such.format('order_lines')})",
        "create policy expired_rows on shop.cart_items for insert to shop_ordering "
        f"with check ({expiring} and {_RETURNED_LINE})",
    ]


def _returned_lines_policy() -> str:
    """Who records that an order was not paid puts its lines, and nothing else, into the cart."""
    return (
        "create policy returned_lines on shop.cart_items for insert to shop_payment, shop_relay "
        f"with check ({_RETURNED_LINE})"
    )


def _idempotency_policies() -> list[str]:
    """Stored responses are visible to the trust domain whose routes made them, and to no other."""
    statements = [
        "create policy expired_keys on shop.idempotency to shop_relay using (true)",
    ]
    for role in sorted(GRANTS):
        scopes = _quoted(
            f"{route.method} {route.path}" for spec in _functions_of(role) for route in spec.routes
        )
        if scopes and "insert" in GRANTS[role].get("idempotency", {}):
            statements.append(
                f"create policy domain_of_{role} on shop.idempotency to {role} "
                f"using (scope in ({scopes})) with check (scope in ({scopes}))"
            )
    return statements


def _notes_policies() -> list[str]:
    """The back office reads all notes; operators write them in their own name, customers none."""
    operators = _quoted(PERMITTED_ROLES["operator_or_admin"])
    own_notes = "author_id = nullif(current_setting('shop.user_id', true), '')::bigint"
    return [
        "create policy operators_read on shop.notes for select to shop_back_office using (true)",
        "create policy author_writes on shop.notes for insert to shop_back_office, shop_ordering "
        f"with check ({own_notes} and current_setting('shop.role', true) in ({operators}))",
        "create policy expired_notes on shop.notes to shop_relay using (true)",
    ]


def _outbox_policies() -> list[str]:
    """A role writes only events that its functions declare, in the name of one of them."""
    rights = {role: tables["outbox"] for role, tables in GRANTS.items() if "outbox" in tables}
    statements: list[str] = []
    for right in ("select", "update", "delete"):
        # the auditor has its policy already
        roles = sorted(r for r in rights if right in rights[r] and r != "shop_auditor")
        statements.append(
            f"create policy every_row_{right} on shop.outbox for {right} "
            f"to {', '.join(roles)} using (true)"
        )
    for role in sorted(role for role in rights if "insert" in rights[role]):
        specs = [spec for spec in _functions_of(role) if spec.emits]
        sources = _quoted(spec.source for spec in specs)
        types = _quoted(sorted({name for spec in specs for name in spec.emits}))
        statements.append(
            f"create policy domain_of_{role} on shop.outbox for insert to {role} "
            f"with check (source in ({sources}) and type in ({types}))"
        )
    return statements


def _functions_of(role: str) -> list[FunctionSpec]:
    return [spec for spec in all_specs() if f"shop_{spec.database_role}" == role]


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(f"'{text}'" for text in texts)
