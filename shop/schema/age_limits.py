"""How long anything may wait in a status that is not final before an operator is alerted.

The views ``overdue`` and ``due_work``, the due job ``age_limit``, the metric ``shop_overdue`` and
the alert rules of Prometheus are made from this one table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AgeLimit:
    """Rows ``t`` of ``table`` that are ``is_open`` and whose ``since`` is more than ``age`` ago.

    ``age`` is a PostgreSQL interval; ``subject``, of the type ``key_type``, names a row.  A partial
    index on ``since`` makes the oldest row one look-up.
    """

    name: str
    table: str
    subject: str
    key_type: str
    since: str
    is_open: str
    age: str
    summary: str
    severity: str = "ticket"

    @property
    def alert_kind(self) -> str:
        """The kind of the operator alert about each row."""
        return f"overdue_{self.name}"

    @property
    def rule(self) -> str:
        """The name of the alert rule in Prometheus."""
        return "ShopOverdue" + "".join(word.capitalize() for word in self.name.split("_"))


AGE_LIMITS = (
    AgeLimit(
        name="order",
        table="orders",
        subject="t.order_id",
        key_type="uuid",
        since="t.expires_at",
        is_open="t.status = 'PENDING'",
        age="24 hours",
        summary="orders are PENDING a day after their expiry",
    ),
    AgeLimit(
        name="cancellation",
        table="orders",
        subject="t.order_id",
        key_type="uuid",
        since="t.updated_at",
        is_open="t.status = 'CANCELLING'",
        age="24 hours",
        summary="orders have been CANCELLING for a day",
    ),
    AgeLimit(
        name="payment",
        table="payments",
        subject="t.payment_id",
        key_type="uuid",
        since="t.created_at",
        is_open="t.status in ('INTENT', 'UNKNOWN')",
        age="2 hours",
        summary="payments have had no final outcome for two hours",
        severity="page",
    ),
    AgeLimit(
        name="payment_action",
        table="payments",
        subject="t.payment_id",
        key_type="uuid",
        since="t.act_until",
        is_open="t.status = 'REQUIRES_ACTION'",
        age="1 hour",
        summary="payments wait for a customer whose time to act was over an hour ago",
        severity="page",
    ),
    AgeLimit(
        name="refund",
        table="refunds",
        subject="t.refund_id",
        key_type="uuid",
        since="t.created_at",
        is_open="t.status in ('INTENT', 'UNKNOWN')",
        age="24 hours",
        summary="refunds have had no final outcome for a day",
        severity="page",
    ),
    AgeLimit(
        name="dispute",
        table="disputes",
        subject="t.dispute_id",
        key_type="uuid",
        since="t.created_at",
        is_open="t.status = 'OPEN'",
        # banks decide within two to three months
        age="90 days",
        summary="disputes have had no result for 90 days",
    ),
    AgeLimit(
        name="shipment",
        table="shipments",
        subject="t.shipment_id",
        key_type="uuid",
        since="t.created_at",
        is_open="t.status = 'PREPARING'",
        age="3 days",
        summary="shipments have been in preparation for three days",
    ),
    AgeLimit(
        name="delivery",
        table="shipments",
        subject="t.shipment_id",
        key_type="uuid",
        since="t.shipped_at",
        is_open="t.status = 'SHIPPED'",
        age="14 days",
        summary="shipments have been under way for two weeks",
    ),
    AgeLimit(
        name="return",
        table="returns",
        subject="t.return_id",
        key_type="uuid",
        since="t.updated_at",
        is_open="t.status in ('REQUESTED', 'APPROVED')",
        age="14 days",
        summary="returns have been requested, or expected, for two weeks",
    ),
    AgeLimit(
        name="unmatched_charge",
        table="alarms",
        subject="t.subject",
        key_type="text",
        since="t.raised_at",
        is_open="t.resolved_at is null and t.kind in ('ghost_charge', 'ghost_refund')",
        age="24 hours",
        summary="transactions that only the provider has have been open for a day",
        severity="page",
    ),
    AgeLimit(
        name="settlement_day",
        table="due_rows",
        subject="t.id",
        key_type="text",
        since="t.due_at",
        is_open="t.kind = 'close_day'",
        age="6 hours",
        summary="business days could not be closed for six hours",
    ),
    AgeLimit(
        name="due_job",
        table="due_rows",
        subject="t.kind || ' ' || t.id",
        key_type="text",
        since="t.due_at",
        is_open="t.kind not in ('close_day', 'outbox')",
        age="1 hour",
        summary="due jobs have been due for an hour",
    ),
    AgeLimit(
        name="event",
        table="outbox",
        subject="t.event_id",
        key_type="uuid",
        since="t.created_at",
        is_open="t.done_at is null and t.parked_at is null",
        age="24 hours",
        summary="events have not been consumed for a day",
    ),
    AgeLimit(
        name="mail",
        table="mails",
        subject="t.event_id",
        key_type="uuid",
        since="t.created_at",
        is_open="t.status in ('PENDING', 'SENDING', 'UNKNOWN')",
        # mail servers may ask for a second attempt after some minutes
        age="2 hours",
        summary="mails have not been sent for two hours",
    ),
    AgeLimit(
        name="dead_letter",
        table="dead_letters",
        subject="t.dead_letter_id",
        key_type="uuid",
        since="t.received_at",
        is_open="t.replayed_at is null and t.dropped_at is null",
        age="72 hours",
        summary="dead letters have been open for three days",
    ),
)
