"""``shop reconcile --date``: one business day, three books side by side, every difference named.

The books are the provider's, the shop's payments and refunds, and the ledger.  A movement of money
belongs to the day if any of the three dates it there, and is then compared whole, so midnight
between two books is no difference but a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

from psycopg.rows import namedtuple_row

from shop.adapters.payment_provider.protocol import ProviderTransaction
from tools.checker import provider_transactions
from tools.checker.provider_transactions import ProviderAccess
from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, show_table
from tools.operations.snapshot import snapshot

DAY = timedelta(days=1)
# A movement may be days older in one book than in another; a timer asks for 20 hours.
MARGIN = timedelta(days=2)
OURS_DONE = ("CAPTURED", "SUCCEEDED")

# One row for each movement that any book dates to the day.  A key that the provider charged twice
# is one row with two entries.
COMPARE: LiteralString = """
with day as (
  select %(day)s::date::timestamp at time zone %(time_zone)s as begins,
    (%(day)s::date + 1)::timestamp at time zone %(time_zone)s as ends
), provider as (
  select kind, key, count(*) as entries, sum(amount_minor)::bigint as amount_minor,
    min(currency) as currency, min(at) as at, max(charge_key) as charge_key
  from unnest(%(kinds)s::text[], %(keys)s::text[], %(charge_keys)s::text[],
    %(amounts)s::bigint[], %(currencies)s::text[], %(moments)s::timestamptz[])
    as e(kind, key, charge_key, amount_minor, currency, at)
  group by kind, key
), ours as (
  select 'charge' as kind, p.provider_key as key, p.payment_id as id, p.order_id, p.status,
    p.amount_minor, p.currency::text as currency, p.provider_key as charge_key
  from shop.payments p
  union all
  select 'refund', r.provider_key, r.refund_id, p.order_id, r.status, r.amount_minor,
    r.currency::text, p.provider_key
  from shop.refunds r join shop.payments p using (payment_id)
), dated as (
  select o.*, t.at from ours o left join lateral (
    select min(t.at) as at from shop.transitions t
    where t.entity_id = o.id and t.to_status in ('CAPTURED', 'SUCCEEDED')) t on true
), posted as (
  select case l.kind when 'CAPTURE' then 'charge' else 'refund' end as kind, l.source_id,
    l.order_id, l.amount_minor, l.currency::text as currency, l.posted_at, l.seq
  from shop.ledger l
)
select coalesce(p.kind, o.kind, l.kind) as kind, coalesce(p.key, o.key) as key,
  coalesce(o.order_id, l.order_id) as order_id, coalesce(o.id, l.source_id) as id, l.seq,
  p.entries, p.amount_minor as provider_minor, p.currency as provider_currency, p.charge_key,
  o.status, o.amount_minor as ours_minor, o.currency as ours_currency,
  o.charge_key as ours_charge_key, o.order_id as ours_order_id,
  l.amount_minor as ledger_minor, l.currency as ledger_currency, l.order_id as ledger_order_id,
  g.provider_key is not null as is_ghost,
  (p.at at time zone %(time_zone)s)::date as provider_day,
  (l.posted_at at time zone %(time_zone)s)::date as ledger_day
from dated o
full join provider p on p.kind = o.kind and p.key = o.key
full join posted l on l.kind = o.kind and l.source_id = o.id
left join shop.ghosts g on g.provider_key = p.charge_key
cross join day
where p.at >= day.begins and p.at < day.ends
  or o.at >= day.begins and o.at < day.ends
  or l.posted_at >= day.begins and l.posted_at < day.ends
order by coalesce(p.at, o.at, l.posted_at), 1, 2
"""

CLOSED: LiteralString = """
select s.currency::text as currency, s.captures_minor, s.refunds_minor,
  coalesce(sum(l.amount_minor) filter (where l.kind = 'CAPTURE'), 0)::bigint as captured,
  coalesce(sum(l.amount_minor) filter (where l.kind = 'REFUND'), 0)::bigint as refunded
from shop.settlements s
left join shop.ledger l on l.currency = s.currency
  and (l.posted_at at time zone %(time_zone)s)::date = s.day
where s.day = %(day)s::date
group by s.day, s.currency
"""


@dataclass(frozen=True)
class Difference:
    """Where the books disagree about one movement; amounts in minor units, None where it is not."""

    what: str
    kind: str
    key: str | None
    order_id: Any
    provider_minor: int | None
    ours_minor: int | None
    ledger_minor: int | None


@dataclass(frozen=True)
class Comparison:
    """A day: what differs, what only fell on another day in another book, and the sums."""

    day: date
    differences: list[Difference]
    notes: list[Difference]
    totals: dict[str, dict[str, int]]


def run_reconcile(
    database_url: str, access: ProviderAccess, *, day: date, time_zone: str, as_json: bool
) -> int:
    """0 when the books agree about the day, 1 when they do not."""
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
    """Compares the three books; the provider's were read before our snapshot is taken."""
    asked = {"day": day, "time_zone": time_zone, **_columns(list(entries))}
    with snapshot(url) as snapshot_connection:
        connection = snapshot_connection.cursor(row_factory=namedtuple_row)
        rows = connection.execute(COMPARE, asked).fetchall()
        closed = connection.execute(CLOSED, {"day": day, "time_zone": time_zone}).fetchall()
    differences = [_difference(row, what) for row in rows for what in _faults(row)]
    differences += [found for row in closed for found in _settlement_faults(row)]
    notes = [_difference(row, what) for row in rows for what in _other_day(row)]
    return Comparison(day, differences, notes, _totals(rows, day))


def _columns(entries: list[ProviderTransaction]) -> dict[str, list[Any]]:
    return {
        "kinds": [e.kind for e in entries],
        "keys": [e.key for e in entries],
        "charge_keys": [e.charge_key for e in entries],
        "amounts": [e.amount_minor for e in entries],
        "currencies": [e.currency for e in entries],
        "moments": [e.at for e in entries],
    }


def _faults(row: Any) -> list[str]:
    """What is wrong with one movement, in words; nothing when all three books say the same."""
    if row.provider_minor is None and row.status is None:
        return ["only the ledger has it"]
    if row.status is None and row.is_ghost:
        return []
    if row.status is None:
        return ["only the provider knows it"]
    is_done = row.status in OURS_DONE
    faults = []
    if row.provider_minor is not None and not is_done:
        faults.append(f"the provider moved the money, ours is {row.status}")
    if row.provider_minor is None and is_done:
        faults.append(f"ours is {row.status}, the provider has nothing")
    if row.provider_minor is not None:
        faults += _provider_faults(row)
    if is_done and row.ledger_minor is None:
        faults.append("not posted to the ledger")
    if not is_done and row.ledger_minor is not None:
        faults.append(f"posted to the ledger, ours is {row.status}")
    if row.ledger_minor is not None:
        faults += _ledger_faults(row)
    return faults


def _provider_faults(row: Any) -> list[str]:
    faults = []
    if row.entries > 1:
        faults.append(f"the provider moved the money {row.entries} times")
    elif row.provider_minor != row.ours_minor:
        faults.append("the provider has another amount")
    if row.provider_currency != row.ours_currency:
        faults.append(f"the provider has {row.provider_currency}, ours is {row.ours_currency}")
    if row.charge_key != row.ours_charge_key:
        faults.append(f"the provider refunded {row.charge_key}")
    return faults


def _ledger_faults(row: Any) -> list[str]:
    faults = []
    if row.ledger_minor != row.ours_minor:
        faults.append("the ledger has another amount")
    if row.ledger_currency != row.ours_currency:
        faults.append(f"the ledger has {row.ledger_currency}, ours is {row.ours_currency}")
    if row.ledger_order_id != row.ours_order_id:
        faults.append("the ledger has another order")
    return faults


def _settlement_faults(row: Any) -> list[Difference]:
    """A closed day's sums against the postings of that day."""
    pairs = (
        ("charge", row.captures_minor, row.captured),
        ("refund", row.refunds_minor, row.refunded),
    )
    return [
        Difference("the settlement has another sum", kind, None, None, None, settled, posted)
        for kind, settled, posted in pairs
        if settled != posted
    ]


def _other_day(row: Any) -> list[str]:
    if None in (row.provider_day, row.ledger_day) or row.provider_day == row.ledger_day:
        return []
    return [f"the provider dates it {row.provider_day}, the ledger {row.ledger_day}"]


def _difference(row: Any, what: str) -> Difference:
    return Difference(
        what,
        row.kind,
        row.key,
        row.order_id,
        row.provider_minor,
        row.ours_minor,
        row.ledger_minor,
    )


def _totals(rows: list[Any], day: date) -> dict[str, dict[str, int]]:
    """Sums of the day as each book dates it: net, by currency."""
    totals = {"provider": Counter[str](), "ledger": Counter[str]()}
    for row in rows:
        sign = 1 if row.kind == "charge" else -1
        if row.provider_day == day:
            totals["provider"][row.provider_currency] += sign * row.provider_minor
        if row.ledger_day == day:
            totals["ledger"][row.ledger_currency] += sign * row.ledger_minor
    return {book: dict(sums) for book, sums in totals.items()}


def _show(comparison: Comparison) -> None:
    columns = ("what", "kind", "key", "order", "provider", "ours", "ledger")
    for title, found in (("", comparison.differences), ("other days", comparison.notes)):
        if found:
            print(title, end="\n" if title else "")
            show_table(columns, [tuple(vars(difference).values()) for difference in found])
    for book, sums in comparison.totals.items():
        kept = ", ".join(f"{minor:,} {currency}" for currency, minor in sorted(sums.items()))
        print(f"{comparison.day} {book}: {kept or 'nothing'}")
    print(f"{len(comparison.differences)} differences, {len(comparison.notes)} on another day")


def _as_dict(comparison: Comparison) -> dict[str, object]:
    return {
        "date": comparison.day,
        "differences": [vars(found) for found in comparison.differences],
        "other_days": [vars(found) for found in comparison.notes],
        "totals": comparison.totals,
    }
