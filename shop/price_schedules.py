"""Prices for a time: planned, set when the time begins, and set back when it is over.

Writer of ``price_schedules``.  Every change happens under the lock of the product's row, so a
product has one scheduled price at a time, and each step happens once.  ``catalog`` writes the
price, and the trigger on ``products`` the price history.  Orders keep the price at which they were
placed.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from events.catalog import ProductChanged
from shop import catalog
from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.messaging.outbox import emit
from shop.primitives.ids import new_uuid
from shop.primitives.statuses import PriceScheduleState

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.catalog import Product

# of one product, planned or active
OPEN_MAX = 100


class PriceSchedule(Row):
    """A price for a time; ``regular_minor`` is the price before, once the time has begun."""

    schedule_id: UUID
    price_minor: int
    regular_minor: int | None
    starts_at: datetime
    ends_at: datetime
    state: PriceScheduleState = enum_column(PriceScheduleState)
    created_by: int


class Obstacle(Row):
    """Whether a time is over, and the schedule that overlaps with it."""

    is_over: bool
    overlapping: UUID | None


class DueSchedule(Row):
    """A schedule whose time has begun or is over."""

    schedule_id: UUID
    price_minor: int
    regular_minor: int | None
    state: PriceScheduleState = enum_column(PriceScheduleState)
    is_over: bool


class PriceChange(Row):
    """A change of a product's price; ``from_minor`` is null for its first price."""

    seq: int
    from_minor: int | None
    to_minor: int
    changed_at: datetime
    changed_by: int | None
    schedule_id: UUID | None


# No row: no such product, the time is over, it overlaps with another, or there are too many.
PLAN = Query(
    PriceSchedule,
    """
insert into shop.price_schedules (schedule_id, product_id, price_minor, starts_at, ends_at,
  created_by)
select %(schedule_id)s::uuid, p.product_id, %(price_minor)s::bigint, %(starts_at)s::timestamptz,
  %(ends_at)s::timestamptz, %(created_by)s::bigint
from shop.products p
where p.product_id = %(product_id)s::bigint and %(ends_at)s::timestamptz > now()
  and not exists (select from shop.price_schedules s
    where s.product_id = p.product_id and s.state in ('PLANNED', 'ACTIVE')
      and s.starts_at < %(ends_at)s::timestamptz and s.ends_at > %(starts_at)s::timestamptz)
  and (select count(*) from shop.price_schedules s
    where s.product_id = p.product_id and s.state in ('PLANNED', 'ACTIVE')) < %(open_max)s::int
returning schedule_id, price_minor, regular_minor, starts_at, ends_at, state, created_by
""",
)

# why a price for a time cannot be planned; always one row
OBSTACLE = Query(
    Obstacle,
    """
select %(ends_at)s::timestamptz <= now() as is_over, (
  select schedule_id from shop.price_schedules
  where product_id = %(product_id)s::bigint and state in ('PLANNED', 'ACTIVE')
    and starts_at < %(ends_at)s::timestamptz and ends_at > %(starts_at)s::timestamptz
  order by starts_at limit 1) as overlapping
""",
)

READ = Query(
    PriceSchedule,
    """
select schedule_id, price_minor, regular_minor, starts_at, ends_at, state, created_by
from shop.price_schedules
where schedule_id = %(schedule_id)s::uuid and product_id = %(product_id)s::bigint
""",
)

# at most OPEN_MAX
OPEN = Query(
    PriceSchedule,
    """
select schedule_id, price_minor, regular_minor, starts_at, ends_at, state, created_by
from shop.price_schedules
where product_id = %(product_id)s::bigint and state in ('PLANNED', 'ACTIVE')
order by starts_at limit 100
""",
)

CHANGES = Query(
    PriceChange,
    """
select seq, from_minor, to_minor, changed_at, changed_by, schedule_id
from shop.price_changes
where product_id = %(product_id)s::bigint
  and seq < coalesce(%(before_seq)s::bigint, 9223372036854775807)
order by seq desc limit %(limit)s::int
""",
)

# An active one first: it ends before the next one begins.
DUE = Query(
    DueSchedule,
    """
select schedule_id, price_minor, regular_minor, state, ends_at <= now() as is_over
from shop.price_schedules
where product_id = %(product_id)s::bigint
  and (state = 'ACTIVE' and ends_at <= now() or state = 'PLANNED' and starts_at <= now())
order by state, starts_at limit 1
""",
)

CHANGE_STATE = Query(
    PriceSchedule,
    """
update shop.price_schedules
set state = %(to_state)s, regular_minor = coalesce(%(regular_minor)s::bigint, regular_minor),
  updated_at = now()
where schedule_id = %(schedule_id)s::uuid and state = %(from_state)s
returning schedule_id, price_minor, regular_minor, starts_at, ends_at, state, created_by
""",
)


def plan(
    product_id: int,
    *,
    price_minor: int,
    starts_at: datetime,
    ends_at: datetime,
    created_by: int,
) -> Statement[PriceSchedule]:
    """Plans a price for a time; no row for a time that is over, overlaps, or is one too many.

    The caller has locked the product, with an earlier statement.
    """
    return PLAN(
        schedule_id=new_uuid(),
        product_id=product_id,
        price_minor=price_minor,
        starts_at=starts_at,
        ends_at=ends_at,
        created_by=created_by,
        open_max=OPEN_MAX,
    )


def obstacle(product_id: int, *, starts_at: datetime, ends_at: datetime) -> Statement[Obstacle]:
    """What keeps a price from being planned; neither: there are too many open schedules."""
    return OBSTACLE(product_id=product_id, starts_at=starts_at, ends_at=ends_at)


def read(schedule_id: UUID, product_id: int) -> Statement[PriceSchedule]:
    """One schedule of a product; no row when there is none."""
    return READ(schedule_id=schedule_id, product_id=product_id)


def open_schedules(product_id: int) -> Statement[PriceSchedule]:
    """The planned and active schedules of a product, in the order of their times."""
    return OPEN(product_id=product_id)


def changes(product_id: int, *, before: int | None, limit: int) -> Statement[PriceChange]:
    """The price history of a product, newest first; changes before a change's seq."""
    return CHANGES(product_id=product_id, before_seq=before, limit=limit)


def cancel(tx: Transaction, product: Product, schedule: PriceSchedule) -> PriceSchedule:
    """The cancelled schedule; the price is set back when it was active.

    The caller has locked the product and read the schedule, which is open, since.
    """
    cancelled = tx.fetch_one(
        _change_state(schedule.schedule_id, schedule.state, PriceScheduleState.CANCELLED)
    )
    assert cancelled is not None, "the product is locked"
    if schedule.state == PriceScheduleState.ACTIVE:
        _set_price(tx, product, _price_after(product, schedule), None)
    return cancelled


def carry_out_next(tx: Transaction, product_id: int) -> bool:
    """Ends or begins one schedule of a product; False when none is due.

    A schedule whose whole time passed without being carried out changes no price.
    """
    product = tx.fetch_one(catalog.lock_product(product_id))
    due = tx.fetch_one(DUE(product_id=product_id))
    if product is None or due is None:
        return False
    if due.state == PriceScheduleState.ACTIVE:
        tx.execute(_change_state(due.schedule_id, due.state, PriceScheduleState.ENDED))
        _set_price(tx, product, _price_after(product, due), None)
    elif due.is_over:
        tx.execute(_change_state(due.schedule_id, due.state, PriceScheduleState.MISSED))
    else:
        tx.execute(
            _change_state(
                due.schedule_id, due.state, PriceScheduleState.ACTIVE, regular=product.price_minor
            )
        )
        _set_price(tx, product, due.price_minor, due.schedule_id)
    return True


def _change_state(
    schedule_id: UUID,
    from_state: PriceScheduleState,
    to_state: PriceScheduleState,
    *,
    regular: int | None = None,
) -> Statement[PriceSchedule]:
    return CHANGE_STATE(
        schedule_id=schedule_id, from_state=from_state, to_state=to_state, regular_minor=regular
    )


def _price_after(product: Product, schedule: PriceSchedule | DueSchedule) -> int:
    """The price before the schedule, unless functions of the version before changed it since."""
    is_as_scheduled = product.price_minor == schedule.price_minor
    return schedule.regular_minor or product.price_minor if is_as_scheduled else product.price_minor


def _set_price(tx: Transaction, product: Product, price_minor: int, schedule: UUID | None) -> None:
    """Sets the price by the schedule, or without one, and announces it."""
    announcement, _ = emit(
        tx, ProductChanged(product_id=product.product_id, product_version=product.version + 1)
    )
    tx.pipeline(
        catalog.set_price(product.product_id, price_minor, schedule_id=schedule), announcement
    )
