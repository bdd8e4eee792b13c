"""Orders and their lines.  Writer of ``orders``, ``order_lines`` and ``order_price_lines``."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.price_lines import Goods, PriceLine, total, unit_price
from shop.primitives.statuses import CancelReason, OrderStatus


class PlacedLine(Row):
    """A line that was written."""

    product_id: int


class UnpaidOrders(Row):
    """A user's PENDING orders, the seconds until the first expires, and what they hold too much of.

    ``flash_products`` are in too many of them; of the others more is held than one account's share.
    """

    open_orders: int
    seconds_left: int | None
    flash_products: list[int]
    products_beyond_share: list[int]


class Verification(Row):
    """Whether an account may order where a verified address is needed."""

    is_verified: bool


class OrderId(Row):
    """An order's id."""

    order_id: UUID


class Holder(Row):
    """An unpaid order that holds stock, and whether it is the asking customer's."""

    order_id: UUID
    is_own: bool


class ProductPrice(Row):
    """The present price of a product for sale, and the VAT of its category."""

    product_id: int
    price_minor: int
    currency: str
    vat_basis_points: int
    vat_included: bool


class LockedOrder(Row):
    """An order's row under its lock; the booleans compare times with the database's now()."""

    order_id: UUID
    user_id: int
    status: OrderStatus = enum_column(OrderStatus)
    reason: str | None
    total_minor: int
    currency: str
    payment_method: str
    charge_requested: bool
    is_soft_expired: bool
    is_hard_expired: bool
    has_cart_lines: bool
    lines: list[dict[str, int]]


# no rows: the key was used before; otherwise one row per line
PLACE = Query(
    PlacedLine,
    """
with placed as (
  insert into shop.orders (order_id, user_id, status, total_minor, currency, payment_method,
    idem_scope, idem_key, expires_at, hard_expires_at, charge_at, cart_taken, shipping_version,
    shipping_region)
  values (%(order_id)s::uuid, %(user_id)s, 'PENDING', %(total_minor)s::bigint, %(currency)s,
    %(payment_method)s, %(idem_scope)s, %(idem_key)s,
    now() + make_interval(secs => %(soft_seconds)s),
    now() + make_interval(secs => %(hard_seconds)s), now() + interval '5 seconds',
    case when %(is_from_cart)s then true end, %(shipping_version)s::bigint,
    %(shipping_region)s::int)
  on conflict (user_id, idem_scope, idem_key) do nothing
  returning order_id, user_id
), priced as (
  insert into shop.order_price_lines (order_id, user_id, line, kind, product_id, amount_minor,
    vat_minor, vat_basis_points)
  select placed.order_id, placed.user_id, line, kind, product_id, amount, vat, rate
  from placed cross join unnest(%(line_kinds)s::text[], %(priced_ids)s::bigint[],
    %(amounts)s::bigint[], %(vat_parts)s::bigint[], %(vat_rates)s::int[])
    with ordinality as l(kind, product_id, amount, vat, rate, line)
)
insert into shop.order_lines (order_id, user_id, product_id, qty, unit_price_minor)
select placed.order_id, placed.user_id, product_id, qty, unit_price
from placed cross join unnest(%(product_ids)s::bigint[], %(quantities)s::int[],
  %(unit_prices)s::bigint[]) as l(product_id, qty, unit_price)
order by product_id
returning product_id
""",
)

# Orders of one account are placed one after the other, so that each counts those before it.
VERIFICATION = Query(
    Verification,
    """
select email_verified_at is not null or role <> 'customer' as is_verified
from shop.users where user_id = %(user_id)s
""",
)

LOCK_ACCOUNT = Query(
    Row,
    """
select pg_advisory_xact_lock(hashtextextended('shop.orders', %(user_id)s::bigint))
""",
)

UNPAID = Query(
    UnpaidOrders,
    """
with unpaid as (
  select order_id, expires_at from shop.orders
  where user_id = %(user_id)s and status = 'PENDING'
), held as (
  select r.product_id, count(*) as orders, sum(r.qty) as qty
  from unpaid join shop.reservations r using (order_id)
  where r.status = 'HELD' and r.product_id = any(%(product_ids)s::bigint[])
  group by r.product_id
)
select (select count(*) from unpaid) as open_orders,
  (select ceil(extract(epoch from min(expires_at) - now()))::int from unpaid) as seconds_left,
  (select coalesce(json_agg(product_id order by product_id), '[]')
    from held join shop.products p using (product_id)
    where p.flash_sale and held.orders > %(flash_orders_max)s) as flash_products,
  (select coalesce(json_agg(product_id order by product_id), '[]')
    from held join shop.stock s using (product_id)
    where %(share_percent)s > 0 and held.qty
      > greatest(%(free_units)s, ceil(s.on_hand * %(share_percent)s / 100.0)))
    as products_beyond_share
""",
)

WITH_KEY = Query(
    OrderId,
    """
select order_id from shop.orders
where user_id = %(user_id)s and idem_scope = %(idem_scope)s and idem_key = %(idem_key)s
""",
)

PRICES = Query(
    ProductPrice,
    """
select p.product_id, p.price_minor, p.currency, c.vat_basis_points, c.vat_included
from shop.products p join shop.categories c on c.name = p.category
where p.product_id = any(%(product_ids)s::bigint[]) and p.active
""",
)

LOCK = Query(
    LockedOrder,
    """
select order_id, user_id, status, reason, total_minor, currency, payment_method,
  charge_at is not null as charge_requested,
  expires_at <= now() as is_soft_expired, hard_expires_at <= now() as is_hard_expired,
  coalesce(cart_taken, false) as has_cart_lines,
  (select coalesce(json_agg(json_build_object('product_id', l.product_id, 'qty', l.qty,
      'paid_minor', l.qty * l.unit_price_minor + (select coalesce(sum(d.amount_minor), 0)
        from shop.order_price_lines d where d.order_id = l.order_id
          and d.product_id = l.product_id and d.kind = 'DISCOUNT'))
      order by l.product_id), '[]')
    from shop.order_lines l where l.order_id = o.order_id) as lines
from shop.orders o where order_id = %(order_id)s::uuid
for update
""",
)

LOCK_OR_SKIP = Query(
    OrderId,
    """
select order_id from shop.orders where order_id = %(order_id)s::uuid for update skip locked
""",
)

# Locked orders are skipped: the transaction that holds the lock is about to change them.  So are
# those whose lines return to a locked cart of another customer: waiting for it could be a deadlock.
UNPAID_HOLDERS = Query(
    Holder,
    """
with candidates as materialized (
  select o.order_id, o.user_id, coalesce(o.cart_taken, false) as has_cart_lines
  from shop.orders o
  where o.status = 'PENDING' and o.charge_at is null
    and (o.expires_at <= now() or o.user_id = %(user_id)s)
    and exists (select from shop.reservations r where r.order_id = o.order_id
      and r.status = 'HELD' and r.product_id = any(%(product_ids)s::bigint[]))
    and not exists (select from shop.payments p where p.order_id = o.order_id
      and p.status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION'))
  order by o.expires_at limit 10 * %(limit)s
), with_free_cart as materialized (
  select order_id from candidates
  where user_id = %(user_id)s or not has_cart_lines
    or pg_try_advisory_xact_lock(hashtextextended('shop.cart', user_id))
)
select o.order_id, o.user_id = %(user_id)s as is_own
from with_free_cart join shop.orders o using (order_id)
where o.status = 'PENDING' and o.charge_at is null
order by o.expires_at limit %(limit)s
for update of o skip locked
""",
)

CHANGE_STATUS = Query(
    Row,
    """
update shop.orders set status = %(to_status)s, reason = coalesce(%(reason)s, reason),
  version = version + 1, updated_at = now(), charge_at = null
where order_id = %(order_id)s::uuid and status = %(from_status)s
returning order_id
""",
)

CHARGE_STARTED = Query(
    Row,
    """
update shop.orders set charge_at = null where order_id = %(order_id)s::uuid
returning order_id
""",
)

REQUEST_CHARGE = Query(
    Row,
    """
update shop.orders set charge_at = now() + interval '5 seconds',
  payment_method = %(payment_method)s, updated_at = now(), version = version + 1,
  cart_taken = case when cart_taken is not null then true end
where order_id = %(order_id)s::uuid and status = 'PENDING' and charge_at is null
returning order_id
""",
)


CART_RETURNED = Query(
    Row,
    """
update shop.orders set cart_taken = false where order_id = %(order_id)s::uuid and cart_taken
returning order_id
""",
)


def place(
    *,
    order_id: UUID,
    user_id: int,
    goods: Sequence[Goods],
    price_lines: Sequence[PriceLine],
    currency: str,
    payment_method: str,
    shipping_version: int | None,
    shipping_region: int | None,
    is_from_cart: bool,
    idem_scope: str | None,
    idem_key: str | None,
    soft_seconds: int,
    hard_seconds: int,
) -> Statement[PlacedLine]:
    """Creates a PENDING order of goods; its total is the sum of the price lines.

    Returns a row per line, or none when the key was used before.
    """
    return PLACE(
        order_id=order_id,
        user_id=user_id,
        total_minor=total(price_lines),
        currency=currency,
        product_ids=[each.product_id for each in goods],
        quantities=[each.quantity for each in goods],
        unit_prices=[unit_price(each.price_minor, each.vat) for each in goods],
        line_kinds=[line.kind.value for line in price_lines],
        priced_ids=[line.product_id for line in price_lines],
        amounts=[line.amount_minor for line in price_lines],
        vat_parts=[line.vat_minor for line in price_lines],
        vat_rates=[line.vat_basis_points for line in price_lines],
        payment_method=payment_method,
        shipping_version=shipping_version,
        shipping_region=shipping_region,
        is_from_cart=is_from_cart,
        idem_scope=idem_scope,
        idem_key=idem_key,
        soft_seconds=soft_seconds,
        hard_seconds=hard_seconds,
    )


def lock_account(user_id: int) -> Statement[Row]:
    """Lets a user place one order at a time; send it before anything else is locked."""
    return LOCK_ACCOUNT(user_id=user_id)


def verification(user_id: int) -> Statement[Verification]:
    """Whether a customer has verified the account's address; other roles need not."""
    return VERIFICATION(user_id=user_id)


def unpaid(
    user_id: int,
    product_ids: list[int],
    *,
    flash_orders_max: int,
    share_percent: int,
    free_units: int,
) -> Statement[UnpaidOrders]:
    """What a user's PENDING orders hold of these products; always one row.

    The share is of the stock on hand, but at least ``free_units``; 0 percent is no limit.
    """
    return UNPAID(
        user_id=user_id,
        product_ids=product_ids,
        flash_orders_max=flash_orders_max,
        share_percent=share_percent,
        free_units=free_units,
    )


def with_key(user_id: int, *, idem_scope: str, idem_key: str) -> Statement[OrderId]:
    """The order that was placed with an idempotency key."""
    return WITH_KEY(user_id=user_id, idem_scope=idem_scope, idem_key=idem_key)


def prices(product_ids: list[int]) -> Statement[ProductPrice]:
    """The present prices of those products that are for sale, with their VAT."""
    return PRICES(product_ids=product_ids)


def lock(order_id: UUID) -> Statement[LockedOrder]:
    """Locks an order until the end of the transaction; no row when there is none."""
    return LOCK(order_id=order_id)


def lock_or_skip(order_id: UUID) -> Statement[OrderId]:
    """Locks an order; no row when another transaction has locked it, or when there is none."""
    return LOCK_OR_SKIP(order_id=order_id)


def lock_unpaid_holders(product_ids: list[int], *, user_id: int, limit: int) -> Statement[Holder]:
    """Locks PENDING orders that hold any of these products and wait for no payment.

    They are past their soft expiry, or they are this user's.
    """
    return UNPAID_HOLDERS(product_ids=product_ids, user_id=user_id, limit=limit)


def change_status(
    order_id: UUID,
    *,
    from_status: OrderStatus,
    to_status: OrderStatus,
    reason: CancelReason | None = None,
) -> Statement[Row]:
    """Changes an order's status; no row when it does not have ``from_status``."""
    return CHANGE_STATUS(
        order_id=order_id, from_status=from_status, to_status=to_status, reason=reason
    )


def charge_started(order_id: UUID) -> Statement[Row]:
    """Records that the requested charge has begun."""
    return CHARGE_STARTED(order_id=order_id)


def request_charge(order_id: UUID, *, payment_method: str) -> Statement[Row]:
    """Requests another charge of a PENDING order; no row when one is requested already."""
    return REQUEST_CHARGE(order_id=order_id, payment_method=payment_method)


def cart_returned(order_id: UUID) -> Statement[Row]:
    """Records that the lines taken from the cart are in it again; no row when they are already."""
    return CART_RETURNED(order_id=order_id)
