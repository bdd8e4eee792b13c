"""Where an order is sent, as it was when it was placed.  Writer of ``order_addresses``."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from shop.adapters.statements import Command, Query, Row, Statement
from shop.saved_addresses import FIELDS


class OrderAddress(Row):
    """The address of an order; of one in Korea ``line1`` and ``line2`` have everything."""

    recipient: str
    phone: str
    country: str
    postcode: str | None
    region: str | None
    city: str | None
    line1: str
    line2: str | None


# No row for an order that was not written, in the same pipeline.
RECORD = Query(
    Row,
    """
insert into shop.order_addresses (order_id, user_id, recipient, phone, country, postcode, region,
  city, line1, line2)
select order_id, user_id, %(recipient)s, %(phone)s, %(country)s, %(postcode)s, %(region)s,
  %(city)s, %(line1)s, %(line2)s
from shop.orders where order_id = %(order_id)s::uuid
returning order_id
""",
)

OF_ORDER = Query(
    OrderAddress,
    """
select recipient, phone, country, postcode, region, city, line1, line2
from shop.order_addresses where order_id = %(order_id)s::uuid
""",
)

DELETE_OLD = Command(
    """
delete from shop.order_addresses where order_id in (
  select order_id from shop.order_addresses
  where created_at < now() - shop.retention('order_addresses') limit %(batch)s)
"""
)


def record(order_id: UUID, fields: Mapping[str, str | None]) -> Statement[Row]:
    """Records the address of an order that is being placed, which has all ``FIELDS``."""
    return RECORD(order_id=order_id, **{name: fields[name] for name in FIELDS})


def of_order(order_id: UUID) -> Statement[OrderAddress]:
    """The address of an order; no row when it has none."""
    return OF_ORDER(order_id=order_id)


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` addresses that are older than they are kept."""
    return DELETE_OLD(batch=batch)


def represent(address: OrderAddress) -> dict[str, str]:
    """The address as the JSON object of the HTTP contract, without what it does not have."""
    fields: dict[str, str | None] = {name: getattr(address, name) for name in FIELDS}
    return {name: text for name, text in fields.items() if text is not None}
