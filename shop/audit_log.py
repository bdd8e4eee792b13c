"""Who changed what, when, and from which values to which.  Writer of ``audit_log``.

Every write of an operator has one entry, stored in its transaction: by a person with a role, a
service account, or a command.  Rows are only ever appended, so an entry holds ids and values of the
shop, no secret and no personal data: of an e-mail address it says that it changed, not the address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from events.records import frozen
from shop.adapters.statements import Command, Query, Row, Statement
from shop.primitives.statuses import ActorKind

if TYPE_CHECKING:
    from shop.primitives.messages import Request

# what no entry may hold, by a part of its name
FORBIDDEN_NAMES = ("password", "secret", "token", "hash", "email")
TRACE_ID = slice(3, 35)  # of a traceparent, which has a fixed form (W3C Trace Context)


class Action(StrEnum):
    """What was done; the first word is the kind of the object that it was done to."""

    AUDIT_LOG_STARTED = "audit_log.started"
    USER_RECORDED = "user.recorded"
    USER_CREATED = "user.created"
    USER_CHANGED = "user.changed"
    USER_CLOSED = "user.closed"
    USER_PASSWORD_SET = "user.password_set"  # noqa: S105 (a name)
    USER_LINK_MADE = "user.link_made"
    USER_FACTOR_ENABLED = "user.factor_enabled"
    USER_FACTOR_REMOVED = "user.factor_removed"
    USER_RECOVERY_CODES_RENEWED = "user.recovery_codes_renewed"
    USER_RECOVERY_CODE_USED = "user.recovery_code_used"
    USER_NOTED = "user.noted"
    API_KEY_CREATED = "api_key.created"
    API_KEY_ROTATED = "api_key.rotated"
    API_KEY_ENDED = "api_key.ended"
    PRODUCT_ADDED = "product.added"
    PRODUCT_CHANGED = "product.changed"
    PRODUCT_RESTOCKED = "product.restocked"
    PRODUCT_STOCK_ADJUSTED = "product.stock_adjusted"
    PRODUCT_PRICE_SCHEDULED = "product.price_scheduled"
    PRODUCT_PRICE_SCHEDULE_CANCELLED = "product.price_schedule_cancelled"
    PRODUCT_GROUP_ADDED = "product_group.added"
    PRODUCT_GROUP_CHANGED = "product_group.changed"
    COUPON_ADDED = "coupon.added"
    COUPON_CHANGED = "coupon.changed"
    COUPON_ENDED = "coupon.ended"
    SHIPPING_FEE_ADDED = "shipping_fee.added"
    CATEGORY_ADDED = "category.added"
    ORDER_CANCELLED = "order.cancelled"
    ORDER_REFUNDED = "order.refunded"
    ORDER_NOTED = "order.noted"
    ORDER_SHIPMENT_CREATED = "order.shipment_created"
    ORDER_SHIPMENT_CHANGED = "order.shipment_changed"
    ORDER_RETURN_CHANGED = "order.return_changed"
    SECOND_FACTOR_KEY_ROTATED = "second_factor.key_rotated"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_KEY_ROTATED = "webhook.key_rotated"
    WEBHOOK_DELETED = "webhook.deleted"
    WEBHOOK_REDELIVERED = "webhook.redelivered"
    ALERT_RESOLVED = "alert.resolved"
    DEAD_LETTER_DROPPED = "dead_letter.dropped"


@frozen(kw_only=True)
class Actor:
    """Who acts, and the trace of the request in which they do; a command has no account."""

    kind: ActorKind
    account_id: int | None = None
    role: str | None = None
    trace_id: str = ""


COMMAND: Final = Actor(kind=ActorKind.COMMAND)


class Entry(Row):
    """An entry as administrators read it."""

    seq: int
    at: datetime
    actor_kind: str
    actor_id: int | None
    actor_role: str | None
    action: str
    object_kind: str
    object_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    trace_id: str


# Planned for its values: what is not asked for is left out of the plan.
LIST = Query(
    Entry,
    """
select seq, at, actor_kind, actor_id, actor_role, action, object_kind, object_id, before, after,
  trace_id
from shop.audit_log
where (%(actor_id)s::bigint is null or actor_id = %(actor_id)s)
  and (%(action)s::text is null or action = %(action)s)
  and (%(object_kind)s::text is null or object_kind = %(object_kind)s)
  and (%(object_id)s::text is null or object_id = %(object_id)s)
  and (%(before)s::bigint is null or seq < %(before)s)
order by seq desc limit %(limit)s::int
""",
)

RECORD = Command(
    """
insert into shop.audit_log (actor_kind, actor_id, actor_role, action, object_kind, object_id,
  before, after, trace_id)
values (%(actor_kind)s, %(actor_id)s, %(actor_role)s, %(action)s, %(object_kind)s, %(object_id)s,
  %(before)s::jsonb, %(after)s::jsonb, %(trace_id)s)
"""
)


# Any: the body and query of a request, which are not read
def actor_of(request: Request[Any, Any]) -> Actor:
    """The account that sends a request with a token."""
    assert request.caller is not None, "this route requires no token"
    is_service = request.caller.scopes is not None
    return Actor(
        kind=ActorKind.SERVICE if is_service else ActorKind.PERSON,
        account_id=request.caller.user_id,
        role=request.caller.role,
        trace_id=request.traceparent[TRACE_ID],
    )


def record(
    actor: Actor,
    action: Action,
    object_id: object,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> Statement[Row]:
    """Records a write; send it in the transaction, and best in the pipeline, of the write itself.

    ``before`` and ``after`` have what the write changed, as JSON values; None where the object did
    not exist.  ``ValueError`` for the name of a secret or of an e-mail address.
    """
    _check_names(before or {})
    _check_names(after or {})
    return RECORD(
        actor_kind=actor.kind,
        actor_id=actor.account_id,
        actor_role=actor.role,
        action=action,
        object_kind=action.partition(".")[0],
        object_id=str(object_id),
        before=_json(before),
        after=_json(after),
        trace_id=actor.trace_id,
    )


def list_entries(
    *,
    actor_id: int | None = None,
    action: str | None = None,
    object_kind: str | None = None,
    object_id: str | None = None,
    before: int | None = None,
    limit: int,
) -> Statement[Entry]:
    """Entries that match, newest first; those before an entry's seq."""
    return LIST(
        actor_id=actor_id,
        action=action,
        object_kind=object_kind,
        object_id=object_id,
        before=before,
        limit=limit,
    )


def _check_names(values: Mapping[str, object]) -> None:
    for name in values:
        if any(part in name.lower() for part in FORBIDDEN_NAMES):
            raise ValueError(f"the audit log does not hold {name}")


def _json(values: Mapping[str, object] | None) -> str | None:
    return None if values is None else json.dumps(values, ensure_ascii=False)
