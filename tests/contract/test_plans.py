"""Statements read what they need, whatever the size of the shop.

Every SQL constant of the functions and of what runs beside them is executed on 1,000 products and
100,000 orders, planned as its role plans it.  The plan must not scan a growing table, read more
rows than a request may, or rest on an estimate that is wrong by more than a factor of 100.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Composable, Literal

from shop.primitives.statuses import OrderStatus
from shop.schema.personal_data import tables_of_persons
from tests.contract.sql_constants import SqlConstant, prepared_constants
from tests.contract.test_sql_constants import PARAMETER, numbered
from tests.harness import cloned_database
from tools.bench import large_data

# filling the database takes a minute of CPU
pytestmark = pytest.mark.timeout(900)

PRODUCTS, ORDERS = 1_000, 100_000
PLACES = (
    "shop/",
    "functions/",
    "tools/exporter.py",
    "tools/operations/tail_events.py",
    "tools/render/keda.py",
)
# A table with more rows than this is one that grows.
GROWING_ROWS = 900
READ_MAX = 900
FACTOR = 100
# what runs as a role that plans for values (shop/schema/grants.py)
PLANNED_FOR_VALUES = (
    "shop/catalog.py",
    "shop/translated_catalog.py",
    "shop/orders/search.py",
    "shop/orders/records.py",
    "shop/audit_log.py:LIST",
    "shop/accounts.py:LIST_ACCOUNTS",
    "tools/operations/",
)

# Statements that read many rows by design, and why.
READS_MANY = {
    "shop/catalog.py:SEARCHES": "reads up to 8,000 products; see test_product_search.py",
    "shop/translated_catalog.py:SEARCHES": "reads up to 8,000 products, as the searches above",
    "shop/orders/search.py:COUNTS": "reads up to 1,001 orders",
    "shop/settlement.py:SETTLE_BATCH": "settles 10,000 postings",
    "shop/settlement.py:DAILY": "sums the postings of open days",
    "shop/settlement.py:MONTHLY": "sums the postings of open days",
    "shop/webhooks.py:REDELIVER_RANGE": "schedules up to 10,000 events",
    "tools/exporter.py:METRICS": "counts by status; a large shop points it at a replica",
}

# Indexes of no statement's plan here, and why they are kept.
IN_NO_PLAN = {
    "audit_log_by_action": "of entries of one action; here an object is asked for as well",
    "products_by_name_trigram": "the search of release 0.1.0, while one is upgraded or rolled back",
}

SAMPLE_ORDER = """
select o.order_id, o.user_id, p.payment_id, r.refund_id, p.provider_key, s.session_id,
  t.token_hash, e.event_id, e.type
from shop.orders o join shop.payments p using (order_id) join shop.refunds r using (payment_id)
join shop.sessions s on s.user_id = o.user_id join shop.refresh_tokens t using (session_id)
join shop.outbox e on e.order_id = o.order_id
order by o.order_id desc limit 1 offset 50
"""
SAMPLE_PRODUCTS = "select product_id from shop.products order by product_id desc limit 2 offset 100"
GROWING = """
select c.relname::text, t.relname::text as table_name from pg_class c
join pg_class t on t.oid = coalesce(pg_partition_root(c.oid), c.oid)
where c.relnamespace = 'shop'::regnamespace and c.relkind = 'r' and c.reltuples > %s
"""


# Indexes that enforce nothing; those of partitions are their table's.
INDEXES = """
select c.relname::text as index, root.relname::text as declared from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_class root on root.oid = coalesce(pg_partition_root(i.indexrelid), i.indexrelid)
where c.relnamespace = 'shop'::regnamespace and not i.indisunique
"""


class NoValue(LookupError):
    """A parameter for which this test has no value."""


@dataclass(frozen=True)
class Node:
    """A node of a plan that was executed: rows are those of one loop."""

    kind: str
    table: str
    estimated: float
    found: float
    read_in_all: float
    # False below a node that stops its children early, which therefore return fewer rows
    is_complete: bool


class LargeShop:
    """A shop with many orders, and the values of the parameters of its statements."""

    def __init__(self, connection: psycopg.Connection[DictRow]) -> None:
        self._connection = connection
        sample = connection.execute(SAMPLE_ORDER).fetchone()
        assert sample is not None
        self._given: dict[str, object] = {}
        products = [row["product_id"] for row in connection.execute(SAMPLE_PRODUCTS)]
        self._values = _values(sample, products)
        rows = connection.execute(GROWING, (GROWING_ROWS,)).fetchall()
        self._growing = {row["relname"] for row in rows}
        tables = {row["table_name"] for row in rows}
        assert {"orders", "products", "stock", "outbox", "inbox", "ledger"} <= tables

    def faults(self, constant: SqlConstant, **values: object) -> Iterator[str]:
        """What is wrong with the plan of a statement; ``values`` are some of its parameters'."""
        self._given = values
        for node in _nodes(self._plan(constant), is_complete=True):
            what = f"{constant} {node.kind} {node.table}".rstrip()
            if str(constant) in READS_MANY:
                continue
            if node.kind == "Seq Scan" and node.table in self._growing:
                yield f"{what}: scans a growing table"
            if node.table and node.read_in_all > READ_MAX:
                yield f"{what}: reads {node.read_in_all:.0f} rows"
            found, estimated = max(node.found, 1), max(node.estimated, 1)
            is_over = node.is_complete and estimated > found * FACTOR
            if found > estimated * FACTOR or is_over:
                yield f"{what}: {estimated:.0f} rows estimated, {found:.0f} found"

    def scans_of(self, index: str) -> int:
        """How often an index was read."""
        self._connection.execute("select pg_stat_force_next_flush()")
        row = self._connection.execute(
            "select idx_scan from pg_stat_user_indexes where indexrelname = %s", (index,)
        ).fetchone()
        assert row is not None
        scans: int = row["idx_scan"]
        return scans

    def indexes(self) -> dict[str, str]:
        """The name of each index, also of partitions, and the one that is declared."""
        return {row["index"]: row["declared"] for row in self._connection.execute(INDEXES)}

    def text_of(self, function: str) -> list[str]:
        """The text of a function of the schema, once for each of its signatures."""
        rows = self._connection.execute(
            "select prosrc from pg_proc where pronamespace = 'shop'::regnamespace and proname = %s",
            (function,),
        )
        return [row["prosrc"] for row in rows]

    def indexes_of(self, constant: SqlConstant, **values: object) -> set[str]:
        """The indexes in the plan of a statement for tables that are too large to scan."""
        self._given = values
        with self._connection.transaction(force_rollback=True):
            self._connection.execute("set local enable_seqscan = off")
            plan = self._plan(constant, "format json")
        return set(_indexes_in(plan))

    def _plan(self, constant: SqlConstant, options: str = "analyze, format json") -> dict[str, Any]:
        """The executed plan; only planned if what the statement inserts exists already."""
        mode = "auto" if str(constant).startswith(PLANNED_FOR_VALUES) else "force_generic_plan"
        with self._connection.transaction(force_rollback=True):
            self._connection.execute(SQL("set local plan_cache_mode = {}").format(Literal(mode)))
            self._connection.execute(f"prepare planned as {numbered(constant.text)}".encode())
            try:
                with self._connection.transaction():
                    return self._explain(constant, options)
            except psycopg.IntegrityError:
                return self._explain(constant, "format json")
            finally:
                self._connection.execute("deallocate planned")

    def _explain(self, constant: SqlConstant, options: str) -> dict[str, Any]:
        names = dict.fromkeys(match[1] for match in PARAMETER.finditer(constant.text))
        values = [self._value(constant, name) for name in names]
        arguments: Composable = SQL(", ").join(values)
        call = SQL("execute planned({})").format(arguments) if values else SQL("execute planned")
        explain = f"explain ({options}) ".encode()
        row = self._connection.execute(explain + call.as_bytes(self._connection)).fetchone()
        assert row is not None
        plan: dict[str, Any] = row["QUERY PLAN"][0]["Plan"]
        return plan

    def _value(self, constant: SqlConstant, name: str) -> Literal:
        special = self._given.get(name, SPECIAL_VALUES.get((str(constant), name)))
        if special is None and name not in self._values:
            raise NoValue(f"{constant} has the parameter {name}: add a value")
        return Literal(self._values[name] if special is None else special)


SPECIAL_VALUES: dict[tuple[str, str], object] = {
    ("shop/mails.py:STORE", "kind"): "ORDER_PAID",
    ("shop/orders/addresses.py:RECORD", "recipient"): "Kim",
    ("shop/saved_addresses.py:ADD", "recipient"): "Kim",
    ("shop/saved_addresses.py:CHANGE", "recipient"): "Kim",
    ("shop/mails.py:CLOSE", "status"): "SENT",
    ("shop/mails.py:CLOSE", "failure"): None,
    ("shop/mails.py:POSTPONE", "status"): "PENDING",
    ("shop/orders/orders.py:PLACE", "order_id"): uuid4(),
    ("shop/messaging/idempotency.py:FINISH", "status"): 201,
    ("shop/messaging/idempotency.py:FINISH", "body"): b"{}",
    ("shop/login_failures.py:LOCK", "key"): 1,
    ("shop/one_time_links.py:LOCK", "key"): 1,
    ("shop/one_time_links.py:REQUEST", "network"): b"2" * 32,
    ("shop/audit_log.py:RECORD", "before"): "{}",
    ("shop/audit_log.py:RECORD", "after"): "{}",
    ("shop/orders/search.py:SEARCHES", "status"): "CANCELLED",
    ("shop/orders/search.py:SEARCHES", "total_max"): 3_000,
    ("shop/orders/search.py:COUNTS", "status"): "CANCELLED",
    ("shop/orders/search.py:COUNTS", "total_max"): 3_000,
    ("shop/accounts.py:LIST_ACCOUNTS", "before"): 2**63 - 1,
    ("shop/api_keys.py:LIST", "before"): "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ("shop/accounts.py:OPEN_SESSIONS", "before"): "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ("shop/accounts.py:END_SESSIONS", "but"): "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ("shop/accounts.py:CHANGE_ACCOUNT", "role"): "staff",
    ("shop/audit_log.py:LIST", "before"): 2**63 - 1,
    ("shop/second_factors.py:ACCEPT_RECOVERY", "old_hash"): b"5" * 32,
    ("shop/second_factors.py:OF_OTHER_KEYS", "after"): 0,
    ("shop/webhooks.py:DELIVERIES", "before"): "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ("shop/webhooks.py:DELIVERIES", "state"): "PENDING",
    ("shop/webhooks.py:CHANGE", "state"): "ACTIVE",
}


VALUES: dict[str, object] = {
    "bounce": "FAILED",
    "note": "note",
    "account": "a",
    "action": "product.changed",
    "version": 1,
    "actor_id": 1,
    "actor_kind": "PERSON",
    "actor_role": "staff",
    "object_id": "1",
    "object_kind": "product",
    "trace_id": "",
    "account_max": 5,
    "disabled_by": "GONE",
    "end_id": "00000000-0000-0000-0000-000000000001",
    "event_types": ["order.paid"],
    "first_id": "00000000-0000-0000-0000-000000000000",
    "hours": 24,
    "hours_max": 72,
    "lease_seconds": 60,
    "outcomes": "[]",
    "url": "https://hooks.example.kr/",
    "webhook_id": uuid4(),
    "with_delivered": False,
    "active": True,
    "actor": "test",
    "after_key": "1500",
    "alarm_id": uuid4(),
    "amount_minor": 1,
    "attempt": 2,
    "author_id": 1,
    "batch": 100,
    "body": "{}",
    "category": "분류 3",
    "consumer": "charge",
    "credit": "order_escrow",
    "currency": "KRW",
    "cursor": "1",
    "data": ["{}"],
    "default_currency": "KRW",
    "day": datetime.now(UTC).date(),
    "days": 30,
    "dead_letter_id": uuid4(),
    "dead_letter_ids": [uuid4()],
    "debit": "psp_receivable",
    "description": "description",
    "destination": "charge",
    "destinations_max": 10,
    "detail": "detail",
    "dispute_id": uuid4(),
    "email": "new@shop.local",
    "email_key": "large5@shop.local",
    "entities": ["order"],
    "error_code": "500",
    "error_data": "",
    "fingerprint": b"1",
    "first": UUID(int=0),
    "flash_orders_max": 2,
    "flash_sale": False,
    "found": True,
    "free_units": 10,
    "from_status": "PAID",
    "froms": ["PAID"],
    "hard_seconds": 3600,
    "has_failed": True,
    "headers": "{}",
    "idem_key": "new",
    "idem_scope": "POST /orders",
    "is_from_cart": False,
    "is_known_device": False,
    "first_day": datetime.now(UTC).date(),
    "last_day": datetime.now(UTC).date(),
    "key": "key-5",
    "kind": "CAPTURE",
    "kinds": ["outbox", "charge"],
    "known_hash": "!",
    "late": False,
    "limit": 20,
    "lines_max": 100,
    "is_service": False,
    "key_hash": b"3" * 32,
    "factor_id": uuid4(),
    "factor_ids": [uuid4()],
    "key_id": "0123456789abcdef",
    "pads": [b"6" * 20],
    "salts": [uuid4()],
    "failures_max": 5,
    "hash": b"4" * 32,
    "hashes": [b"4" * 32],
    "step": 1,
    "language": "en",
    "prefix": "msk_AZqxwn4Q",
    "scopes": ["catalog:read"],
    "link_id": uuid4(),
    "purpose": "SET_PASSWORD",
    "purposes": ["SET_PASSWORD"],
    "email_before": None,
    "minutes": 30,
    "address_max": 3,
    "address_id": uuid4(),
    "addresses_max": 20,
    "is_chosen": True,
    "recipient": b"1" * 32,
    "lease": 60,
    "subject_id": "x",
    "seconds_max": 3600,
    "failure": "POSTPONED",
    "reply_code": 451,
    "refund_id": uuid4(),
    "shipment_id": uuid4(),
    "carrier": "cj",
    "return_id": uuid4(),
    "window_start": "delivered",
    "restocked": 1,
    "country": "KR",
    "phone": "010-1234-5678",
    "postcode": "04524",
    "region": None,
    "city": None,
    "line1": "서울특별시 중구 세종대로 110",
    "line2": None,
    "tracking_number": "6892-0000-1234",
    "lock": 1,
    "means": "PROVIDER",
    "rows": 30,
    "name": "의자 99",
    "images": "[]",
    "translations": "{}",
    "vat_basis_points": 1_000,
    "vat_included": True,
    "total_minor": 100,
    "unit_prices": [50, 50],
    "code": "SPRING",
    "codes": ["SPRING", "THANKS"],
    "code_before": "SPRING",
    "free_from_minor": 30_000,
    "surcharges": "[]",
    "version_before": 9,
    "shipping_version": 1,
    "shipping_region": None,
    "discount_minor": 100,
    "discount_basis_points": None,
    "discount_max_minor": None,
    "discounts": [100, 100],
    "goods_min_minor": 0,
    "combinable": True,
    "uses_max": 10,
    "uses_per_customer_max": 1,
    "line_kinds": ["GOODS", "GOODS"],
    "amounts": [50, 50],
    "vat_parts": [5, 5],
    "vat_rates": [1_000, 1_000],
    "is_regrouped": True,
    "group_id": None,
    "option_values": None,
    "options": ["색"],
    "network_max": 100,
    "next_action": '{"type": "redirect"}',
    "note_id": uuid4(),
    "ngram_length": 2,
    "new_hash": b"2" * 32,
    "old_hash": "!",
    "origin": "PROVIDER",
    "password_changed_at": None,
    "password_hash": "!",
    "payment_method": "CARD",
    "postings": 10_000,
    "price_max": 2100,
    "price_min": 2000,
    "price_minor": 100,
    "provider": "stripe",
    "provider_ref": "new",
    "provider_refs": ["new"],
    "qty": 1,
    "qty_max": 1000,
    "quantities": [1, 2],
    "reason": "USER",
    "reference": "reference",
    "requested_by": 1,
    "reservation_ids": [uuid4(), uuid4()],
    "restock": False,
    "role": "customer",
    "state": "ACTIVE",
    "run_number": 1,
    "scope": "POST /orders",
    "seconds": 10,
    "share_percent": 50,
    "soft_seconds": 900,
    "source": "/shop/sweep",
    "source_id": uuid4(),
    "source_max": 100,
    "status": "DONE",
    "table_name": "outbox",
    "text": "text",
    "time_zone": "Asia/Seoul",
    "to_status": "CANCELLING",
    "token": "a token",
    "tos": ["CANCELLING"],
    "total_max": 10**15,
    "total_min": 2_000,
    "traceparent": "",
    "versions": [1],
    "window": 900,
    "window_seconds": 900,
}


def _values(sample: dict[str, Any], products: list[int]) -> dict[str, object]:
    order_id = sample["order_id"]
    return {
        **VALUES,
        **sample,
        "after_id": products[0],
        "after": sample["event_id"],
        "before": order_id,
        "before_id": None,
        "before_seq": None,
        "created_by": 1,
        "ends_at": datetime.now(UTC) + timedelta(days=2),
        "from_state": "PLANNED",
        "open_max": 100,
        "regular_minor": None,
        "schedule_id": uuid4(),
        "starts_at": datetime.now(UTC) + timedelta(days=1),
        "to_state": "ACTIVE",
        "entity_ids": [order_id],
        "event_ids": [sample["event_id"]],
        "order_ids": [order_id],
        "product_id": products[0],
        "product_ids": products,
        "priced_ids": products,
        "provider_keys": [sample["provider_key"]],
        "subject": str(order_id),
        "subjects": [str(order_id)],
        "types": [sample["type"]],
    }


def _nodes(plan: dict[str, Any], *, is_complete: bool) -> Iterator[Node]:
    loops = plan.get("Actual Loops", 0)
    found = plan.get("Actual Rows", plan["Plan Rows"])
    dropped = sum(plan.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Index Recheck"))
    if loops or "Actual Rows" not in plan:
        yield Node(
            plan["Node Type"],
            plan.get("Relation Name", ""),
            plan["Plan Rows"],
            found,
            (found + dropped) * loops,
            is_complete,
        )
    stops_early = plan["Node Type"] == "Limit" or plan.get("Join Type") in ("Semi", "Anti")
    for child in plan.get("Plans", ()):
        is_part = child.get("Parent Relationship") in ("InitPlan", "SubPlan")
        yield from _nodes(child, is_complete=is_complete and not stops_early and not is_part)


def _indexes_in(plan: dict[str, Any]) -> Iterator[str]:
    if "Index Name" in plan:
        yield plan["Index Name"]
    for child in plan.get("Plans", ()):
        yield from _indexes_in(child)


def rows_of_a_person() -> Iterator[SqlConstant]:
    """How the functions of ``shop/schema/personal_data.py`` find the rows of an account."""
    account = {
        "u.user_id": "%(user_id)s::bigint",
        "u.email_key": "%(email_key)s::text",
        "u.created_at": "%(registered_at)s::timestamptz",
        "u.closed_at": "null::timestamptz",
    }
    for table, personal in tables_of_persons():
        rows = reduce(lambda text, name: text.replace(name, account[name]), account, personal.rows)
        statement = f"select from shop.{table.name} t where {rows}"
        yield SqlConstant("shop/schema/tables.py", table.name, statement)


@pytest.fixture(scope="module")
def large_shop(postgres_url: str, template_url: str) -> Iterator[LargeShop]:
    with cloned_database(postgres_url, template_url) as url:
        large_data.fill(url, products=PRODUCTS, orders=ORDERS, pending=60)
        with psycopg.Connection[DictRow].connect(
            url, autocommit=True, row_factory=dict_row
        ) as connection:
            yield LargeShop(connection)


def test_no_statement_scans_a_growing_table_or_rests_on_a_wrong_estimate(
    large_shop: LargeShop,
) -> None:
    constants = [c for c in prepared_constants() if c.path.startswith(PLACES)]
    assert len(constants) > 150, "the constants were not found"

    faults = {fault for constant in constants for fault in large_shop.faults(constant)}

    assert not faults, "\n".join(sorted(faults))
    assert large_shop.scans_of("products_by_name_ngram") > 0
    assert large_shop.scans_of("products_by_name_trigram") == 0, "kept for 0.1.0 only"
    assert {str(constant) for constant in constants} >= READS_MANY.keys()


def test_each_index_is_in_a_plan_or_has_a_reason(large_shop: LargeShop) -> None:
    constants = [c for c in prepared_constants() if c.path.startswith(PLACES)]

    used = {index for constant in constants for index in large_shop.indexes_of(constant)}
    for constant in rows_of_a_person():
        used |= large_shop.indexes_of(constant, registered_at=datetime.now(UTC))

    declared = large_shop.indexes()
    unused = set(declared.values()) - {declared[index] for index in used & declared.keys()}
    assert unused == IN_NO_PLAN.keys(), "\n".join(sorted(unused))


def test_postings_of_an_order_are_read_by_an_index_of_each_month(large_shop: LargeShop) -> None:
    """An order's dispute is posted in any month, so no month is left out."""
    constant = SqlConstant(
        "x.py",
        "X",
        "select l.kind, l.amount_minor from shop.ledger l "
        "where l.order_id = %(order_id)s and l.source_id = %(source_id)s",
    )
    (text,) = large_shop.text_of("postings_of")
    assert "where l.order_id = of_order and l.source_id = of_source" in " ".join(text.split())

    assert not list(large_shop.faults(constant))
    assert "ledger_by_order" in {
        large_shop.indexes()[index] for index in large_shop.indexes_of(constant)
    }


def test_rows_of_a_person_are_found_by_indexes(large_shop: LargeShop) -> None:
    """As the functions of ``shop/schema/personal_data.py`` find them, for one account."""
    now = datetime.now(UTC)

    faults = [f for each in rows_of_a_person() for f in large_shop.faults(each, registered_at=now)]

    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("status", OrderStatus)
def test_search_of_orders_reads_few_rows_whatever_their_status(
    large_shop: LargeShop, status: OrderStatus
) -> None:
    searches = [c for c in prepared_constants() if str(c) == "shop/orders/search.py:SEARCHES"]

    faults = [fault for each in searches for fault in large_shop.faults(each, status=status.value)]

    assert len(searches) == 24
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "select from shop.stock where on_hand > %(qty)s",
            "x.py:X Seq Scan stock: scans a growing table",
        ),
        (
            "select day from shop.settlement_lines where seq > %(qty)s order by seq limit 1000",
            "x.py:X Index Scan settlement_lines: reads 1000 rows",
        ),
        (
            "select from generate_series(1, %(qty)s::int * 500000) n",
            "x.py:X Function Scan: 1000 rows estimated, 500000 found",
        ),
    ],
)
def test_plan_that_reads_or_estimates_wrongly_is_found(
    large_shop: LargeShop, text: str, fault: str
) -> None:
    assert fault in list(large_shop.faults(SqlConstant("x.py", "X", text)))
