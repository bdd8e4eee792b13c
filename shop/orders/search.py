"""Finds orders by id, customer, product, status, time and total, newest first.  Writes nothing.

For operators: the statements read the orders of all customers, as far as row-level security lets
the role see them.
"""

from __future__ import annotations

from datetime import datetime
from itertools import product
from typing import LiteralString
from uuid import UUID

from events.records import frozen
from shop.accounts import email_key
from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.ids import first_uuid_at
from shop.primitives.statuses import OrderStatus

LAST_ID = UUID(int=2**128 - 1)
TOTAL_MAX = 2**63 - 1
# as far as orders are counted, so that a count reads no more than a bounded number of matches
COUNT_MAX = 1_000


class FoundOrder(Row):
    """An order as it is listed."""

    order_id: UUID
    user_id: int
    status: OrderStatus = enum_column(OrderStatus)
    reason: str | None
    total_minor: int
    currency: str
    created_at: datetime


class PriceSums(Row):
    """What the price lines of an order sum to, by kind, and the VAT that is in them."""

    order_id: UUID
    goods_minor: int
    discount_minor: int
    shipping_minor: int
    vat_minor: int


class Count(Row):
    """How many orders were counted."""

    orders: int


@frozen(kw_only=True)
class Criteria:
    """What an order must have; None accepts every order.

    ``placed_from`` is inclusive and ``placed_before`` exclusive, to the millisecond; totals are
    inclusive minor units.
    """

    order_id: UUID | None = None
    user_id: int | None = None
    email: str | None = None
    product_id: int | None = None
    status: OrderStatus | None = None
    placed_from: datetime | None = None
    placed_before: datetime | None = None
    total_min: int | None = None
    total_max: int | None = None


# There is a query for each combination of criteria, and every criterion has an index.  Which one is
# best depends on the values (few orders are not PAID, some products are in most orders), so the
# role must plan for values (shop/schema/grants.py).  An order's id begins with the time at which it
# was placed.
_ORDERS: LiteralString = """
select o.order_id, o.user_id, o.status, o.reason, o.total_minor, o.currency::text as currency,
  o.created_at
from shop.orders o
where o.order_id >= %(first)s::uuid and o.order_id < %(before)s::uuid"""
_OF_PRODUCT: LiteralString = """
select o.order_id, o.user_id, o.status, o.reason, o.total_minor, o.currency::text as currency,
  o.created_at
from shop.order_lines l join shop.orders o using (order_id)
where l.product_id = %(product_id)s::bigint
  and l.order_id >= %(first)s::uuid and l.order_id < %(before)s::uuid"""
_OF_USER: LiteralString = """
  and o.user_id = %(user_id)s::bigint"""
_OF_EMAIL: LiteralString = """
  and o.user_id = (select u.user_id from shop.users u where u.email_key = %(email_key)s::text)"""
_IN_STATUS: LiteralString = """
  and o.status = %(status)s::text"""
_WITH_TOTAL: LiteralString = """
  and o.total_minor between %(total_min)s::bigint and %(total_max)s::bigint"""
_NEWEST: LiteralString = """
order by order_id desc limit %(limit)s::int
"""
_COUNT: LiteralString = """
select count(*) as orders from ("""
_AT_MOST: LiteralString = """
limit %(limit)s::int) found
"""

_CUSTOMERS: tuple[LiteralString, ...] = ("", _OF_USER, _OF_EMAIL)
# whether there is a product, the condition on the customer, and whether on status and total
Shape = tuple[bool, LiteralString, bool, bool]
_EITHER = (False, True)


def _sql(shape: Shape) -> LiteralString:
    has_product, of_customer, in_status, with_total = shape
    return (
        (_OF_PRODUCT if has_product else _ORDERS)
        + of_customer
        + (_IN_STATUS if in_status else "")
        + (_WITH_TOTAL if with_total else "")
    )


_SHAPES = tuple(product(_EITHER, _CUSTOMERS, _EITHER, _EITHER))
SEARCHES: dict[Shape, Query[FoundOrder]] = {
    shape: Query(FoundOrder, _sql(shape) + _NEWEST) for shape in _SHAPES
}
COUNTS: dict[Shape, Query[Count]] = {
    shape: Query(Count, _COUNT + _sql(shape) + _AT_MOST) for shape in _SHAPES
}


PRICE_SUMS = Query(
    PriceSums,
    """
select order_id, coalesce(sum(amount_minor) filter (where kind = 'GOODS'), 0)::bigint
    as goods_minor,
  coalesce(sum(amount_minor) filter (where kind = 'DISCOUNT'), 0)::bigint as discount_minor,
  coalesce(sum(amount_minor) filter (where kind = 'SHIPPING'), 0)::bigint as shipping_minor,
  coalesce(sum(vat_minor), 0)::bigint as vat_minor
from shop.order_price_lines where order_id = any(%(order_ids)s::uuid[]) group by order_id
""",
)


def price_sums(order_ids: list[UUID]) -> Statement[PriceSums]:
    """The sums of several orders' price lines; no row for orders of version 0.1.0."""
    return PRICE_SUMS(order_ids=order_ids)


def page(criteria: Criteria, *, before: UUID | None = None, limit: int) -> Statement[FoundOrder]:
    """At most ``limit`` orders that meet all criteria, newest first, older than ``before``.

    A customer is given by id or by e-mail address; the role needs the right to read addresses for
    the latter.
    """
    shape, parameters = _shape_and_parameters(criteria)
    if before is not None:
        parameters["before"] = min(before, _end_of(criteria))
    return SEARCHES[shape](**parameters, limit=limit)


def count(criteria: Criteria) -> Statement[Count]:
    """How many orders meet all criteria, ``COUNT_MAX + 1`` for more than ``COUNT_MAX``."""
    shape, parameters = _shape_and_parameters(criteria)
    return COUNTS[shape](**parameters, limit=COUNT_MAX + 1)


def _shape_and_parameters(criteria: Criteria) -> tuple[Shape, dict[str, object]]:
    assert criteria.user_id is None or criteria.email is None, "one way to name the customer"
    parameters: dict[str, object] = {"first": _first_of(criteria), "before": _end_of(criteria)}
    of_customer: LiteralString = ""
    if criteria.user_id is not None:
        of_customer, parameters["user_id"] = _OF_USER, criteria.user_id
    elif criteria.email is not None:
        of_customer, parameters["email_key"] = _OF_EMAIL, email_key(criteria.email)
    if criteria.product_id is not None:
        parameters["product_id"] = criteria.product_id
    if criteria.status is not None:
        parameters["status"] = criteria.status
    with_total = criteria.total_min is not None or criteria.total_max is not None
    if with_total:
        parameters["total_min"] = criteria.total_min or 0
        parameters["total_max"] = TOTAL_MAX if criteria.total_max is None else criteria.total_max
    shape = (criteria.product_id is not None, of_customer, criteria.status is not None, with_total)
    return shape, parameters


def _first_of(criteria: Criteria) -> UUID:
    first = first_uuid_at(criteria.placed_from) if criteria.placed_from else UUID(int=0)
    return max(first, criteria.order_id) if criteria.order_id else first


def _end_of(criteria: Criteria) -> UUID:
    """The id before which all orders that meet the criteria come."""
    end = first_uuid_at(criteria.placed_before) if criteria.placed_before else LAST_ID
    following = UUID(int=min(criteria.order_id.int + 1, LAST_ID.int)) if criteria.order_id else end
    return min(end, following)
