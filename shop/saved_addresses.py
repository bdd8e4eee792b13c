"""Saved addresses: where customers have their orders sent.  Writer of ``saved_addresses``.

An order has a copy of the address that it names (``order_addresses``), so a later change of the
book changes no order.  The default is the address that was chosen last, or else the oldest: a book
with addresses always has exactly one.  Row-level security shows only the rows of ``shop.user_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from shop.adapters.statements import Query, Row, Statement
from shop.primitives.etags import tag_of_bytes

ADDRESSES_MAX = 20
FIELDS = ("recipient", "phone", "country", "postcode", "region", "city", "line1", "line2")


class SavedAddress(Row):
    """An address of a customer's book."""

    address_id: UUID
    recipient: str
    phone: str
    country: str
    postcode: str | None
    region: str | None
    city: str | None
    line1: str
    line2: str | None
    is_default: bool
    created_at: datetime
    updated_at: datetime


class AddressId(Row):
    """The id of an address that was written."""

    address_id: UUID


# Additions to one book are serialised: two concurrent ones could exceed ADDRESSES_MAX together.
LOCK = Query(
    Row,
    """
select pg_advisory_xact_lock(hashtextextended('shop.saved_addresses', %(user_id)s::bigint))
""",
)

LIST = Query(
    SavedAddress,
    """
select address_id, recipient, phone, country, postcode, region, city, line1, line2,
  row_number() over (order by chosen_at desc nulls last, created_at, address_id) = 1 as is_default,
  created_at, updated_at
from shop.saved_addresses where user_id = %(user_id)s::bigint
order by chosen_at desc nulls last, created_at, address_id
""",
)

READ = Query(
    SavedAddress,
    """
select address_id, recipient, phone, country, postcode, region, city, line1, line2, is_default,
  created_at, updated_at
from (select a.*, row_number() over (order by chosen_at desc nulls last, created_at, address_id) = 1
    as is_default
  from shop.saved_addresses a where user_id = %(user_id)s::bigint) a
where address_id = %(address_id)s::uuid
""",
)

ADD = Query(
    AddressId,
    """
insert into shop.saved_addresses (address_id, user_id, recipient, phone, country, postcode, region,
  city, line1, line2, chosen_at)
select %(address_id)s::uuid, %(user_id)s::bigint, %(recipient)s, %(phone)s, %(country)s,
  %(postcode)s, %(region)s, %(city)s, %(line1)s, %(line2)s,
  case when %(is_chosen)s::bool then now() end
where (select count(*) from shop.saved_addresses where user_id = %(user_id)s::bigint)
  < %(addresses_max)s::int
returning address_id
""",
)

CHANGE = Query(
    AddressId,
    """
update shop.saved_addresses set recipient = %(recipient)s, phone = %(phone)s,
  country = %(country)s, postcode = %(postcode)s, region = %(region)s, city = %(city)s,
  line1 = %(line1)s, line2 = %(line2)s, updated_at = now(),
  chosen_at = case when %(is_chosen)s::bool then now() else chosen_at end
where user_id = %(user_id)s::bigint and address_id = %(address_id)s::uuid
returning address_id
""",
)

REMOVE = Query(
    AddressId,
    """
delete from shop.saved_addresses
where user_id = %(user_id)s::bigint and address_id = %(address_id)s::uuid
returning address_id
""",
)


def lock(user_id: int) -> Statement[Row]:
    """Locks a book until the end of the transaction; send it before ``add`` and changes."""
    return LOCK(user_id=user_id)


def addresses(user_id: int) -> Statement[SavedAddress]:
    """The addresses of a book, its default first."""
    return LIST(user_id=user_id)


def read(user_id: int, address_id: UUID) -> Statement[SavedAddress]:
    """One address of a book; no row for one of another book."""
    return READ(user_id=user_id, address_id=address_id)


def add(
    user_id: int, address_id: UUID, fields: Mapping[str, str | None], *, is_chosen: bool
) -> Statement[AddressId]:
    """Adds an address, as the default if it is chosen; no row when the book is full."""
    return ADD(
        user_id=user_id,
        address_id=address_id,
        is_chosen=is_chosen,
        addresses_max=ADDRESSES_MAX,
        **{name: fields[name] for name in FIELDS},
    )


def change(
    user_id: int, address_id: UUID, fields: Mapping[str, str | None], *, is_chosen: bool
) -> Statement[AddressId]:
    """Replaces an address, and makes it the default if it is chosen."""
    return CHANGE(
        user_id=user_id,
        address_id=address_id,
        is_chosen=is_chosen,
        **{name: fields[name] for name in FIELDS},
    )


def remove(user_id: int, address_id: UUID) -> Statement[AddressId]:
    """Removes an address; no row for one of another book."""
    return REMOVE(user_id=user_id, address_id=address_id)


def fields_of(address: SavedAddress) -> dict[str, str | None]:
    """Everything of the address itself, by the name of its column."""
    return {name: getattr(address, name) for name in FIELDS}


def etag_of(address: SavedAddress) -> str:
    """The entity tag: it changes with everything that the customer sees of the address."""
    return tag_of_bytes(repr(tuple(address)).encode())


def represent(address: SavedAddress) -> dict[str, object]:
    """The JSON object of an address, without the parts that it does not have."""
    fields = fields_of(address)
    return {
        "id": str(address.address_id),
        "address": {name: text for name, text in fields.items() if text is not None},
        "isDefault": address.is_default,
        "createdAt": address.created_at.astimezone(UTC).isoformat(),
        "updatedAt": address.updated_at.astimezone(UTC).isoformat(),
    }
