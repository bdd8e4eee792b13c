"""What the mails of each kind say, read when a mail is sent: mails store ids only."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from events.records import frozen
from shop.adapters.statements import Query, Row
from shop.primitives.statuses import MailKind

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.mails import Mail

LINES_MAX = 100


class Recipient(Row):
    """Whom a mail is sent to, and in which language."""

    email: str
    name: str
    language: str


class OrderFacts(Recipient):
    """An order: what it costs, and why it was cancelled, if it was."""

    order_id: UUID
    total_minor: int
    currency: str
    reason: str


class RefundFacts(Recipient):
    """A refund of an order."""

    order_id: UUID
    amount_minor: int
    currency: str


class LinkFacts(Recipient):
    """A one-time link, and the minutes for which it is still valid."""

    link_id: UUID
    minutes: int


class Line(Row):
    """A line of an order, and what was paid for it: less discounts; shipping is no product."""

    product: str | None
    qty: int
    amount_minor: int


@frozen
class Facts:
    """What a mail is about; ``lines`` are those of an order."""

    about: OrderFacts | RefundFacts | LinkFacts | Recipient
    lines: tuple[Line, ...] = ()


ORDER = Query(
    OrderFacts,
    """
select u.email, u.name, u.language, o.order_id, o.total_minor, o.currency,
  coalesce(o.reason, '') as reason
from shop.orders o join shop.users u using (user_id)
where o.order_id = %(order_id)s and u.active
""",
)

LINES = Query(
    Line,
    """
(select p.name as product, l.qty, l.qty * l.unit_price_minor + (
  select coalesce(sum(d.amount_minor), 0)::bigint from shop.order_price_lines d
  where d.order_id = l.order_id and d.product_id = l.product_id and d.kind = 'DISCOUNT')
  as amount_minor
from shop.order_lines l join shop.products p using (product_id)
where l.order_id = %(order_id)s order by l.product_id limit %(lines_max)s)
union all
(select null as product, 1 as qty, s.amount_minor from shop.order_price_lines s
where s.order_id = %(order_id)s and s.kind = 'SHIPPING' limit 1)
""",
)

REFUND = Query(
    RefundFacts,
    """
select u.email, u.name, u.language, o.order_id, r.amount_minor, r.currency
from shop.refunds r join shop.payments p using (payment_id) join shop.orders o using (order_id)
join shop.users u on u.user_id = o.user_id
where r.refund_id = %(refund_id)s and u.active
""",
)

LINK = Query(
    LinkFacts,
    """
select u.email, u.name, u.language, l.link_id,
  ceil(extract(epoch from l.expires_at - now()) / 60)::int as minutes
from shop.one_time_links l join shop.users u using (user_id)
where l.link_id = %(link_id)s and l.email is null and l.ended_at is null
  and l.expires_at > now() and u.active
""",
)

# An address that has an account gets no link, with which nothing could be changed.
NEW_ADDRESS = Query(
    LinkFacts,
    """
select coalesce(l.email, '') as email, u.name, u.language, l.link_id,
  ceil(extract(epoch from l.expires_at - now()) / 60)::int as minutes
from shop.one_time_links l join shop.users u using (user_id)
where l.link_id = %(link_id)s and l.email is not null and l.ended_at is null
  and l.expires_at > now() and u.active
  and not exists (select from shop.users where email_key = lower(l.email))
""",
)

OLD_ADDRESS = Query(
    Recipient,
    """
select coalesce(l.email_before, '') as email, u.name, u.language
from shop.one_time_links l join shop.users u using (user_id)
where l.link_id = %(link_id)s and l.email_before is not null and u.active
""",
)

ACCOUNT = Query(
    Recipient,
    """
select email, name, language from shop.users where user_id = %(user_id)s and active
""",
)


def read(tx: Transaction, mail: Mail) -> Facts | None:
    """What the mail says (one round trip); None when there is nothing to send any more."""
    match mail.kind:
        case MailKind.ORDER_PAID | MailKind.ORDER_CANCELLED:
            order_id = UUID(mail.subject_id)
            orders, lines = tx.pipeline(
                ORDER(order_id=order_id), LINES(order_id=order_id, lines_max=LINES_MAX)
            )
            return Facts(orders[0], tuple(lines)) if orders else None
        case MailKind.REFUND_SUCCEEDED:
            about = tx.fetch_one(REFUND(refund_id=UUID(mail.subject_id)))
        case MailKind.PASSWORD_RESET | MailKind.INVITATION | MailKind.EMAIL_VERIFICATION:
            about = tx.fetch_one(LINK(link_id=UUID(mail.subject_id)))
        case MailKind.EMAIL_CHANGE:
            about = tx.fetch_one(NEW_ADDRESS(link_id=UUID(mail.subject_id)))
        case MailKind.EMAIL_CHANGE_STARTED | MailKind.EMAIL_CHANGED:
            about = tx.fetch_one(OLD_ADDRESS(link_id=UUID(mail.subject_id)))
        case (
            MailKind.USER_REGISTERED
            | MailKind.PASSWORD_CHANGED
            | MailKind.SECOND_FACTOR_ENABLED
            | MailKind.SECOND_FACTOR_REMOVED
            | MailKind.RECOVERY_CODES_RENEWED
            | MailKind.RECOVERY_CODE_USED
        ):
            about = tx.fetch_one(ACCOUNT(user_id=int(mail.subject_id)))
    return None if about is None else Facts(about)
