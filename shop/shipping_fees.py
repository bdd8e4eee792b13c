"""What shipping costs: a rule in versions, of which one applies.  Writer of ``shipping_fees``.

A version is never changed.  The one that applies began last; of several that begin at one time it
is the highest.  An order has the number of the version by which its fee was computed.  Without any
version, shipping costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from events.records import frozen
from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.price_lines import Fee, FeeRule, Surcharge, fee_of, region_of
from shop.primitives.statuses import PriceRuleState

COUNTRY = "KR"  # of a postcode without a country


class ShippingFee(Row):
    """A version; ``surcharges`` are tried in their order, ``applying`` is the present version."""

    version: int
    amount_minor: int
    free_from_minor: int | None
    vat_basis_points: int
    currency: str
    surcharges: list[dict[str, str | int]]
    starts_at: datetime
    created_at: datetime
    state: PriceRuleState = enum_column(PriceRuleState)
    applying: int | None


class PresentFee(Row):
    """The version that applies now, as orders are computed by it."""

    version: int
    amount_minor: int
    free_from_minor: int | None
    fee_vat_basis_points: int
    fee_currency: str
    surcharges: list[dict[str, str | int]]


class LatestVersion(Row):
    """The latest version and the one that applies; null when there is none."""

    latest: int | None
    applying: int | None


@frozen(kw_only=True)
class Destination:
    """Where an order is sent; without a postcode it is in no region."""

    country: str
    postcode: str | None


@frozen(kw_only=True)
class Shipping:
    """What shipping costs, by which version, and the number of the region that it is sent to."""

    fee: Fee | None = None
    version: int | None = None
    region: int | None = None


# Versions are numbered one after the other, so that a number names all versions up to it.
LOCK = Query(
    Row,
    """
select pg_advisory_xact_lock(hashtextextended('shop.shipping_fees', 0))
""",
)

ADD = Query(
    ShippingFee,
    """
with added as (
  insert into shop.shipping_fees (version, amount_minor, free_from_minor, vat_basis_points,
    currency, surcharges, starts_at)
  select (select coalesce(max(version), 0) + 1 from shop.shipping_fees), %(amount_minor)s::bigint,
    %(free_from_minor)s::bigint, %(vat_basis_points)s::int, %(currency)s, %(surcharges)s::jsonb,
    coalesce(%(starts_at)s::timestamptz, now())
  where coalesce(%(starts_at)s::timestamptz, now()) >= now()
  returning version, amount_minor, free_from_minor, vat_basis_points, currency, surcharges,
    starts_at, created_at
)
select version, amount_minor, free_from_minor, vat_basis_points, currency, surcharges, starts_at,
  created_at, case when starts_at > now() then 'PLANNED' else 'ACTIVE' end as state,
  case when starts_at > now() then (select f.version from shop.shipping_fees f
    where f.starts_at <= now() order by f.starts_at desc, f.version desc limit 1)
    else version end as applying
from added
""",
)

LIST = Query(
    ShippingFee,
    """
select version, amount_minor, free_from_minor, vat_basis_points, currency, surcharges, starts_at,
  created_at, case when version = applying then 'ACTIVE' when starts_at > now() then 'PLANNED'
    else 'ENDED' end as state, applying
from shop.shipping_fees cross join (select (select f.version from shop.shipping_fees f
    where f.starts_at <= now() order by f.starts_at desc, f.version desc limit 1) as applying) a
where %(version_before)s::bigint is null or version < %(version_before)s::bigint
order by version desc limit %(limit)s::int
""",
)

READ = Query(
    ShippingFee,
    """
select version, amount_minor, free_from_minor, vat_basis_points, currency, surcharges, starts_at,
  created_at, case when version = applying then 'ACTIVE' when starts_at > now() then 'PLANNED'
    else 'ENDED' end as state, applying
from shop.shipping_fees cross join (select (select f.version from shop.shipping_fees f
    where f.starts_at <= now() order by f.starts_at desc, f.version desc limit 1) as applying) a
where version = %(version)s::bigint
""",
)

LATEST = Query(
    LatestVersion,
    """
select (select max(version) from shop.shipping_fees) as latest,
  (select f.version from shop.shipping_fees f where f.starts_at <= now()
    order by f.starts_at desc, f.version desc limit 1) as applying
""",
)

PRESENT = Query(
    PresentFee,
    """
select version, amount_minor, free_from_minor, vat_basis_points as fee_vat_basis_points,
  currency as fee_currency, surcharges
from shop.shipping_fees where starts_at <= now() order by starts_at desc, version desc limit 1
""",
)


def lock() -> Statement[Row]:
    """Lets staff add one version at a time; send it before ``add``."""
    return LOCK()


def add(rule: FeeRule, *, currency: str, starts_at: datetime | None) -> Statement[ShippingFee]:
    """Adds a version, from now on without ``starts_at``; no row for a time in the past."""
    surcharges = [
        {
            "country": each.country,
            "from": each.first,
            "to": each.last,
            "amount": each.amount_minor,
        }
        for each in rule.surcharges
    ]
    return ADD(
        amount_minor=rule.amount_minor,
        free_from_minor=rule.free_from_minor,
        vat_basis_points=rule.vat_basis_points,
        currency=currency,
        surcharges=json.dumps(surcharges),
        starts_at=starts_at,
    )


def versions(*, before: int | None, limit: int) -> Statement[ShippingFee]:
    """A page of all versions, the highest first."""
    return LIST(version_before=before, limit=limit)


def read(version: int) -> Statement[ShippingFee]:
    """One version; no row when there is none of this number."""
    return READ(version=version)


def latest() -> Statement[LatestVersion]:
    """The latest version and the one that applies; always one row."""
    return LATEST()


def present() -> Statement[PresentFee]:
    """The version that applies now; no row when there is none."""
    return PRESENT()


def shipping(
    found: Sequence[PresentFee], *, goods_minor: int, currency: str, destination: Destination | None
) -> Shipping:
    """What shipping costs for goods of this amount, less discounts, that are sent to a place.

    Nothing without a version, and for goods in another currency than the version's.
    """
    present_fee = next(iter(found), None)
    if present_fee is None or present_fee.fee_currency != currency:
        return Shipping()
    rule = _rule(present_fee)
    region = (
        None
        if destination is None
        else region_of(rule, country=destination.country, postcode=destination.postcode)
    )
    fee = fee_of(rule, goods_minor=goods_minor, region=region)
    return Shipping(fee=fee, version=present_fee.version, region=region)


def _rule(row: PresentFee) -> FeeRule:
    return FeeRule(
        amount_minor=row.amount_minor,
        free_from_minor=row.free_from_minor,
        vat_basis_points=row.fee_vat_basis_points,
        surcharges=tuple(
            Surcharge(
                country=str(each["country"]),
                first=str(each["from"]),
                last=str(each["to"]),
                amount_minor=int(each["amount"]),
            )
            for each in row.surcharges
        ),
    )
