"""Coupons: codes that take something off the goods of an order.  Writer of ``coupons`` and
``coupon_uses``.

An order uses its coupons in the transaction that places it, and gives them back in the one that
releases its stock, so a use is held by exactly the orders that are not paid yet or were paid.  The
counter of a coupon is locked after stock, and several in the order of their codes.  What a coupon
takes off never changes; staff change until when and how often in all it may be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from events.records import frozen
from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.price_lines import Discount, discount_of
from shop.primitives.statuses import CouponObstacle, CouponState

# of one order
COUPONS_MAX = 5


class Coupon(Row):
    """A coupon as staff see it; null is no limit, and ``uses`` are those not given back."""

    code: str
    discount_minor: int | None
    discount_basis_points: int | None
    discount_max_minor: int | None
    currency: str
    goods_min_minor: int
    combinable: bool
    starts_at: datetime
    ends_at: datetime | None
    uses_max: int | None
    uses_per_customer_max: int | None
    uses: int
    state: CouponState = enum_column(CouponState)
    version: int
    created_at: datetime


class OfferedCoupon(Row):
    """A coupon as it is for one customer now; ``obstacle`` is a ``CouponObstacle``, or null."""

    code: str
    discount_minor: int | None
    discount_basis_points: int | None
    discount_max_minor: int | None
    currency: str
    goods_min_minor: int
    combinable: bool
    obstacle: str | None


class UsedCoupon(Row):
    """A coupon that an order uses."""

    code: str


@frozen
class CouponDiscounts:
    """What each coupon takes off an amount of goods, or why it takes nothing off."""

    minor: Mapping[str, int]
    obstacles: Mapping[str, CouponObstacle]


ADD = Query(
    Coupon,
    """
insert into shop.coupons (code, discount_minor, discount_basis_points, discount_max_minor, currency,
  goods_min_minor, combinable, starts_at, ends_at, uses_max, uses_per_customer_max)
select %(code)s, %(discount_minor)s::bigint, %(discount_basis_points)s::int,
  %(discount_max_minor)s::bigint, %(currency)s, %(goods_min_minor)s::bigint, %(combinable)s::bool,
  starts_at, %(ends_at)s::timestamptz, %(uses_max)s::int, %(uses_per_customer_max)s::int
from (select coalesce(%(starts_at)s::timestamptz, now()) as starts_at) s
where starts_at < coalesce(%(ends_at)s::timestamptz, 'infinity')
on conflict (code) do nothing
returning code, discount_minor, discount_basis_points, discount_max_minor, currency,
  goods_min_minor, combinable, starts_at, ends_at, uses_max, uses_per_customer_max, uses, state,
  version, created_at
""",
)

LIST = Query(
    Coupon,
    """
select code, discount_minor, discount_basis_points, discount_max_minor, currency,
  goods_min_minor, combinable, starts_at, ends_at, uses_max, uses_per_customer_max, uses, state,
  version, created_at
from shop.coupons where code > %(code_before)s order by code limit %(limit)s::int
""",
)

READ = Query(
    Coupon,
    """
select code, discount_minor, discount_basis_points, discount_max_minor, currency,
  goods_min_minor, combinable, starts_at, ends_at, uses_max, uses_per_customer_max, uses, state,
  version, created_at
from shop.coupons where code = %(code)s
""",
)

LOCK = Query(
    Coupon,
    """
select code, discount_minor, discount_basis_points, discount_max_minor, currency,
  goods_min_minor, combinable, starts_at, ends_at, uses_max, uses_per_customer_max, uses, state,
  version, created_at
from shop.coupons where code = %(code)s for no key update
""",
)

CHANGE = Query(
    Coupon,
    """
update shop.coupons
set ends_at = %(ends_at)s::timestamptz, uses_max = %(uses_max)s::int, version = version + 1,
  updated_at = now()
where code = %(code)s
returning code, discount_minor, discount_basis_points, discount_max_minor, currency,
  goods_min_minor, combinable, starts_at, ends_at, uses_max, uses_per_customer_max, uses, state,
  version, created_at
""",
)

END = Query(
    Coupon,
    """
update shop.coupons set state = 'ENDED', version = version + 1, updated_at = now()
where code = %(code)s
returning code, discount_minor, discount_basis_points, discount_max_minor, currency,
  goods_min_minor, combinable, starts_at, ends_at, uses_max, uses_per_customer_max, uses, state,
  version, created_at
""",
)

OFFERED = Query(
    OfferedCoupon,
    """
select code, discount_minor, discount_basis_points, discount_max_minor, currency, goods_min_minor,
  combinable,
  case when state = 'ENDED' or ends_at <= now() then 'ENDED'
    when starts_at > now() then 'NOT_STARTED'
    when uses >= uses_max then 'USED_UP'
    when uses_per_customer_max <= (select count(*) from shop.coupon_uses u
      where u.user_id = %(user_id)s::bigint and u.code = c.code and u.given_back_at is null)
    then 'USED_BY_YOU' end as obstacle
from shop.coupons c where code = any(%(codes)s::text[])
""",
)

# No row: the coupon was used up, ended or changed meanwhile, or the order was not written.
USE = Query(
    UsedCoupon,
    """
with requested as (
  select code, minor from unnest(%(codes)s::text[], %(discounts)s::bigint[]) as a(code, minor)
  where exists (select from shop.orders where order_id = %(order_id)s::uuid)
), locked as (
  select c.code from shop.coupons c join requested using (code)
  order by c.code for no key update of c
), counted as (
  update shop.coupons c set uses = c.uses + 1
  from requested a join locked using (code)
  where c.code = a.code and c.state = 'ACTIVE' and c.starts_at <= now()
    and (c.ends_at is null or c.ends_at > now()) and (c.uses_max is null or c.uses < c.uses_max)
    and (c.uses_per_customer_max is null or c.uses_per_customer_max > (
      select count(*) from shop.coupon_uses u where u.user_id = %(user_id)s::bigint
        and u.code = c.code and u.given_back_at is null))
  returning c.code
)
insert into shop.coupon_uses (order_id, code, user_id, discount_minor)
select %(order_id)s::uuid, a.code, %(user_id)s::bigint, a.minor
from requested a join counted using (code)
returning code
""",
)

GIVE_BACK = Query(
    UsedCoupon,
    """
with returned as (
  update shop.coupon_uses set given_back_at = now()
  where order_id = %(order_id)s::uuid and given_back_at is null
  returning code
), locked as (
  select c.code from shop.coupons c join returned using (code)
  order by c.code for no key update of c
)
update shop.coupons c set uses = c.uses - 1 from locked where c.code = locked.code
returning c.code
""",
)

LOCK_OF_ORDERS = Query(
    UsedCoupon,
    """
select code from shop.coupons
where code = any(%(codes)s::text[]) or code in (select u.code from shop.coupon_uses u
  where u.order_id = any(%(order_ids)s::uuid[]) and u.given_back_at is null)
order by code for no key update
""",
)


def add(
    *,
    code: str,
    discount: Discount,
    currency: str,
    goods_min_minor: int,
    combinable: bool,
    starts_at: datetime | None,
    ends_at: datetime | None,
    uses_max: int | None,
    uses_per_customer_max: int | None,
) -> Statement[Coupon]:
    """Creates a coupon, from now on without ``starts_at``; no row when there is one of its code.

    No row either for an end that is not after the start.
    """
    return ADD(
        code=code,
        discount_minor=discount.amount_minor,
        discount_basis_points=discount.basis_points,
        discount_max_minor=discount.maximum_minor,
        currency=currency,
        goods_min_minor=goods_min_minor,
        combinable=combinable,
        starts_at=starts_at,
        ends_at=ends_at,
        uses_max=uses_max,
        uses_per_customer_max=uses_per_customer_max,
    )


def coupons(*, after: str, limit: int) -> Statement[Coupon]:
    """A page of all coupons, by code."""
    return LIST(code_before=after, limit=limit)


def read(code: str) -> Statement[Coupon]:
    """One coupon; no row when there is none of this code."""
    return READ(code=code)


def lock(code: str) -> Statement[Coupon]:
    """As ``read``, for a change in the same transaction."""
    return LOCK(code=code)


def change(code: str, *, ends_at: datetime | None, uses_max: int | None) -> Statement[Coupon]:
    """Changes a locked coupon; a limit below its uses violates a constraint."""
    return CHANGE(code=code, ends_at=ends_at, uses_max=uses_max)


def end(code: str) -> Statement[Coupon]:
    """Ends a locked coupon."""
    return END(code=code)


def offered(codes: Sequence[str], user_id: int) -> Statement[OfferedCoupon]:
    """Those of the coupons that exist, as they are for a customer."""
    return OFFERED(codes=list(codes), user_id=user_id)


def use(order_id: UUID, user_id: int, minor: Mapping[str, int]) -> Statement[UsedCoupon]:
    """Counts the use of coupons by an order that was just written; a row for each that is used.

    ``minor`` is what each takes off.  The caller has locked the account's orders before.
    """
    return USE(
        order_id=order_id, user_id=user_id, codes=list(minor), discounts=list(minor.values())
    )


def give_back(order_id: UUID) -> Statement[UsedCoupon]:
    """Gives the coupons of an order back that was not paid; each once."""
    return GIVE_BACK(order_id=order_id)


def lock_of_orders(order_ids: list[UUID], codes: Sequence[str]) -> Statement[UsedCoupon]:
    """Locks these coupons and those of several orders, which are to be given back."""
    return LOCK_OF_ORDERS(order_ids=order_ids, codes=list(codes))


def discounts(
    codes: Sequence[str], found: Sequence[OfferedCoupon], *, goods_minor: int, currency: str
) -> CouponDiscounts:
    """What coupons take off goods of this amount, together at most all of it.

    Each is a part of the whole amount, whatever others take off.
    """
    by_code = {coupon.code: coupon for coupon in found}
    minor: dict[str, int] = {}
    obstacles: dict[str, CouponObstacle] = {}
    for code in sorted(codes):
        coupon, left_minor = by_code.get(code), goods_minor - sum(minor.values())
        obstacle = _obstacle(coupon, len(codes), goods_minor=goods_minor, currency=currency)
        part = discount_of(_terms(coupon), goods_minor, left_minor=left_minor) if coupon else 0
        if obstacle is None and part:
            minor[code] = part
        else:
            obstacles[code] = obstacle or CouponObstacle.MINIMUM
    return CouponDiscounts(minor, obstacles)


def _obstacle(
    coupon: OfferedCoupon | None, number: int, *, goods_minor: int, currency: str
) -> CouponObstacle | None:
    if coupon is None:
        return CouponObstacle.UNKNOWN
    if coupon.obstacle is not None:
        return CouponObstacle(coupon.obstacle)
    if number > 1 and not coupon.combinable:
        return CouponObstacle.NOT_COMBINABLE
    if coupon.currency != currency:
        return CouponObstacle.CURRENCY
    return CouponObstacle.MINIMUM if goods_minor < coupon.goods_min_minor else None


def _terms(coupon: OfferedCoupon) -> Discount:
    return Discount(
        amount_minor=coupon.discount_minor,
        basis_points=coupon.discount_basis_points,
        maximum_minor=coupon.discount_max_minor,
    )
