"""``shop reconcile --date``: compares one business day in three sources and lists every difference.

The sources are the provider's transactions, the shop's payments, refunds and disputes, and the
ledger.  A charge, a refund or a movement of a dispute is compared if any source dates it to the
day; a date that differs between provider and ledger is reported as a note, not as a difference.
Those of other shops on the same account are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import LiteralString
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg.rows import class_row

from shop.adapters.payment_provider.protocol import ProviderTransaction
from tools.checker import provider_transactions
from tools.checker.provider_transactions import ProviderAccess
from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, show_table
from tools.operations.snapshot import snapshot

DAY = timedelta(days=1)
# The sources may date a charge or refund days apart: a charge may be sent again for 20 hours.
MARGIN = timedelta(days=2)
COMPLETED = ("CAPTURED", "SUCCEEDED", "POSTED")
RECEIVED = ("charge", "dispute_reversal", "dispute_fee_reversal")

# One row for each charge, refund or movement of a dispute that any source dates to the day.  A key
# that the provider charged twice is one row with two entries.
COMPARE: LiteralString = """
with day as (
  select %(day)s::date::timestamp at time zone %(time_zone)s as begins,
    (%(day)s::date + 1)::timestamp at time zone %(time_zone)s as ends
), provider as (
  select kind, key, count(*) as entries, sum(amount_minor)::bigint as amount_minor,
    min(currency) as currency, min(at) as at, max(charge_key) as charge_key
  from unnest(%(kinds)s::text[], %(keys)s::text[], %(charge_keys)s::text[],
    %(charge_refs)s::text[], %(amounts)s::bigint[], %(currencies)s::text[],
    %(moments)s::timestamptz[])
    as e(kind, key, charge_key, charge_ref, amount_minor, currency, at)
  -- not those of other shops on the same account
  where charge_key like 'shop:%%' or key like 'refund:%%'
    or exists (select from shop.payments p where p.provider_ref = e.charge_ref)
  group by kind, key
), ours as (
  select 'charge' as kind, p.provider_key as key, p.payment_id as id, p.order_id, p.status,
    p.amount_minor, p.currency::text as currency, p.provider_key as charge_key
  from shop.payments p
  union all
  select 'refund', r.provider_key, r.refund_id, p.order_id, r.status, r.amount_minor,
    r.currency::text, p.provider_key
  from shop.refunds r join shop.payments p using (payment_id) where r.means = 'PROVIDER'
  union all
  select lower(l.kind), d.provider_ref, d.dispute_id, p.order_id, 'POSTED', l.amount_minor,
    l.currency::text, p.provider_key
  from shop.disputes d join shop.payments p using (payment_id)
  join shop.ledger l on l.order_id = p.order_id and l.source_id = d.dispute_id
), dated as (
  select o.*, t.at from ours o left join lateral (
    select min(t.at) as at from shop.transitions t
    where t.order_id = o.order_id and t.entity_id = o.id
      and t.to_status in ('CAPTURED', 'SUCCEEDED')) t on true
), posted as (
  select case l.kind when 'CAPTURE' then 'charge' else lower(l.kind) end as kind, l.source_id,
    l.order_id, l.amount_minor, l.currency::text as currency, l.posted_at, l.seq
  from shop.ledger l
  where l.kind = 'CAPTURE' or l.kind like 'DISPUTE%%' or l.kind = 'REFUND' and not exists (
    select from shop.ledger r where r.kind = 'REFUND_REVERSED' and r.source_id = l.source_id)
)
select coalesce(p.kind, o.kind, l.kind) as kind, coalesce(p.key, o.key) as key,
  coalesce(o.order_id, l.order_id) as order_id, coalesce(o.id, l.source_id) as id, l.seq,
  p.entries, p.amount_minor as provider_minor, p.currency as provider_currency, p.charge_key,
  o.status, o.amount_minor as ours_minor, o.currency as ours_currency,
  o.charge_key as ours_charge_key, o.order_id as ours_order_id,
  l.amount_minor as ledger_minor, l.currency as ledger_currency, l.order_id as ledger_order_id,
  g.provider_key is not null as is_recorded_unmatched,
  (p.at at time zone %(time_zone)s)::date as provider_day,
  (l.posted_at at time zone %(time_zone)s)::date as ledger_day
from dated o
full join provider p on p.kind = o.kind and p.key = o.key
full join posted l on l.kind = o.kind and l.source_id = o.id
left join shop.unmatched_charges g on g.provider_key = p.charge_key
cross join day
where p.at >= day.begins and p.at < day.ends
  or o.at >= day.begins and o.at < day.ends
  or l.posted_at >= day.begins and l.posted_at < day.ends
order by coalesce(p.at, o.at, l.posted_at), 1, 2
"""

CLOSED: LiteralString = """
select s.currency::text as currency, s.captures_minor, s.refunds_minor,
  coalesce(sum(l.amount_minor) filter (where l.kind = 'CAPTURE'), 0)::bigint as captured,
  coalesce(sum(case when l.kind in ('REFUND_REVERSED', 'DISPUTE_REVERSAL', 'DISPUTE_FEE_REVERSAL')
      then -l.amount_minor else l.amount_minor end)
    filter (where l.kind not in ('CAPTURE', 'WRITE_OFF')), 0)::bigint as refunded
from shop.settlements s
left join shop.ledger l on l.currency = s.currency
  and (l.posted_at at time zone %(time_zone)s)::date = s.day
where s.day = %(day)s::date
group by s.day, s.currency
"""


@dataclass(frozen=True)
class Movement:
    """A charge or refund in the three sources; the columns of ``COMPARE``."""

    kind: str
    key: str | None
    order_id: UUID | None
    id: UUID | None
    seq: int | None
    entries: int | None
    provider_minor: int | None
    provider_currency: str | None
    charge_key: str | None
    status: str | None
    ours_minor: int | None
    ours_currency: str | None
    ours_charge_key: str | None
    ours_order_id: UUID | None
    ledger_minor: int | None
    ledger_currency: str | None
    ledger_order_id: UUID | None
    is_recorded_unmatched: bool
    provider_day: date | None
    ledger_day: date | None


@dataclass(frozen=True)
class SettlementSums:
    """A closed day's sums and those of its postings; the columns of ``CLOSED``."""

    currency: str
    captures_minor: int
    refunds_minor: int
    captured: int
    refunded: int


@dataclass(frozen=True)
class Difference:
    """A difference between the sources; amounts in minor units, None where a source has none."""

    what: str
    kind: str
    key: str | None
    order_id: UUID | None
    provider_minor: int | None
    ours_minor: int | None
    ledger_minor: int | None


@dataclass(frozen=True)
class Comparison:
    """A day's differences, notes about dates that differ, and the sums by source and currency."""

    day: date
    differences: list[Difference]
    notes: list[Difference]
    totals: Mapping[str, Mapping[str, int]]


def run_reconcile(
    database_url: str, access: ProviderAccess, *, day: date | None, time_zone: str, as_json: bool
) -> int:
    """Compares the sources for a day, by default yesterday; returns 1 for a difference."""
    day = day or datetime.now(ZoneInfo(time_zone)).date() - DAY
    begins = datetime.combine(day, time(), tzinfo=ZoneInfo(time_zone))
    listed = provider_transactions.list_transactions(
        access, since=begins - MARGIN, until=begins + DAY + MARGIN
    )
    comparison = compare(database_url, listed, day=day, time_zone=time_zone)
    if as_json:
        show_json(_as_dict(comparison))
    else:
        _show(comparison)
    return EXIT_FOUND if comparison.differences else EXIT_OK


def compare(
    url: str, entries: Iterable[ProviderTransaction], *, day: date, time_zone: str
) -> Comparison:
    """Compares the sources; the provider's transactions are read before the snapshot."""
    values = {"day": day, "time_zone": time_zone, **_columns(list(entries))}
    with snapshot(url) as connection:
        compared = connection.cursor(row_factory=class_row(Movement))
        movements = compared.execute(COMPARE, values).fetchall()
        settled = connection.cursor(row_factory=class_row(SettlementSums))
        closed = settled.execute(CLOSED, {"day": day, "time_zone": time_zone}).fetchall()
    differences = [_difference(one, what) for one in movements for what in _mismatches(one)]
    differences += [found for sums in closed for found in _settlement_mismatches(sums)]
    notes = [_difference(one, what) for one in movements for what in _date_mismatch(one)]
    return Comparison(day, differences, notes, _totals(movements, day))


def _columns(entries: Sequence[ProviderTransaction]) -> dict[str, list[object]]:
    rows = [row for entry in entries for row in _rows(entry)]
    return {
        "kinds": [row.kind for row in rows],
        "keys": [row.key for row in rows],
        "charge_keys": [row.charge_key for row in rows],
        "charge_refs": [row.charge_ref for row in rows],
        "amounts": [row.amount_minor for row in rows],
        "currencies": [row.currency for row in rows],
        "moments": [row.at for row in rows],
    }


@dataclass(frozen=True)
class ProviderRow:
    """One movement of money at the provider."""

    kind: str
    key: str
    charge_key: str
    charge_ref: str
    amount_minor: int
    currency: str
    at: datetime


def _rows(entry: ProviderTransaction) -> list[ProviderRow]:
    """A charge or refund as one row, a dispute as one for each movement."""
    of = (entry.key, entry.charge_key, entry.charge_ref)
    if entry.dispute is None:
        return [ProviderRow(entry.kind, *of, entry.amount_minor, entry.currency, entry.at)]
    return [
        ProviderRow(moved.kind.lower(), *of, moved.amount_minor, moved.currency, moved.at)
        for moved in entry.dispute.transactions
    ]


def _mismatches(row: Movement) -> list[str]:
    """Describes each difference between the sources; empty when they agree."""
    if row.provider_minor is None and row.status is None:
        return ["only the ledger has it"]
    if row.status is None:
        return [] if row.is_recorded_unmatched else ["only the provider has it"]
    is_completed = row.status in COMPLETED
    found: list[str] = []
    if row.provider_minor is not None and not is_completed:
        found.append(f"completed at the provider, ours is {row.status}")
    if row.provider_minor is None and is_completed:
        found.append(f"ours is {row.status}, the provider has no transaction")
    if row.provider_minor is not None:
        found += _provider_mismatches(row)
    if is_completed and row.ledger_minor is None:
        found.append("not posted to the ledger")
    if not is_completed and row.ledger_minor is not None:
        found.append(f"posted to the ledger, ours is {row.status}")
    if row.ledger_minor is not None:
        found += _ledger_mismatches(row)
    return found


def _provider_mismatches(row: Movement) -> list[str]:
    found: list[str] = []
    if (row.entries or 0) > 1:
        found.append(f"the provider executed it {row.entries} times")
    elif row.provider_minor != row.ours_minor:
        found.append("the provider has another amount")
    if row.provider_currency != row.ours_currency:
        found.append(f"the provider has {row.provider_currency}, ours is {row.ours_currency}")
    if row.charge_key not in ("", row.ours_charge_key):
        found.append(f"the provider refunded {row.charge_key}")
    return found


def _ledger_mismatches(row: Movement) -> list[str]:
    found: list[str] = []
    if row.ledger_minor != row.ours_minor:
        found.append("the ledger has another amount")
    if row.ledger_currency != row.ours_currency:
        found.append(f"the ledger has {row.ledger_currency}, ours is {row.ours_currency}")
    if row.ledger_order_id != row.ours_order_id:
        found.append("the ledger has another order")
    return found


def _settlement_mismatches(sums: SettlementSums) -> list[Difference]:
    """Compares a closed day's sums with its postings."""
    pairs = (
        ("charge", sums.captures_minor, sums.captured),
        ("refund", sums.refunds_minor, sums.refunded),
    )
    return [
        Difference("the settlement has another sum", kind, None, None, None, settled, posted)
        for kind, settled, posted in pairs
        if settled != posted
    ]


def _date_mismatch(row: Movement) -> list[str]:
    if None in (row.provider_day, row.ledger_day) or row.provider_day == row.ledger_day:
        return []
    return [f"the provider dates it {row.provider_day}, the ledger {row.ledger_day}"]


def _difference(row: Movement, what: str) -> Difference:
    return Difference(
        what,
        row.kind,
        row.key,
        row.order_id,
        row.provider_minor,
        row.ours_minor,
        row.ledger_minor,
    )


def _totals(movements: Iterable[Movement], day: date) -> dict[str, dict[str, int]]:
    """The day's balance by source and currency, by the date in each source."""
    provider: Counter[str] = Counter()
    ledger: Counter[str] = Counter()
    for row in movements:
        sign = 1 if row.kind in RECEIVED else -1
        if row.provider_day == day and row.provider_currency is not None:
            provider[row.provider_currency] += sign * (row.provider_minor or 0)
        if row.ledger_day == day and row.ledger_currency is not None:
            ledger[row.ledger_currency] += sign * (row.ledger_minor or 0)
    return {"provider": dict(provider), "ledger": dict(ledger)}


def _show(comparison: Comparison) -> None:
    columns = ("what", "kind", "key", "order", "provider", "ours", "ledger")
    for title, found in (("", comparison.differences), ("other days", comparison.notes)):
        if found:
            print(title, end="\n" if title else "")
            show_table(columns, [tuple(vars(difference).values()) for difference in found])
    for source, sums in comparison.totals.items():
        total = ", ".join(f"{minor:,} {currency}" for currency, minor in sorted(sums.items()))
        print(f"{comparison.day} {source}: {total or 'nothing'}")
    print(f"{len(comparison.differences)} differences, {len(comparison.notes)} on another day")


def _as_dict(comparison: Comparison) -> dict[str, object]:
    return {
        "date": comparison.day,
        "differences": [vars(found) for found in comparison.differences],
        "other_days": [vars(found) for found in comparison.notes],
        "totals": comparison.totals,
    }
