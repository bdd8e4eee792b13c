"""Measures a shop with many orders and products: storage, due work, invariants and searches.

    python -m tools.bench.growth [--orders N] [--products N] [--searches N]

The database is filled by ``tools/bench/large_data.py`` and deleted afterwards; 1,000,000 orders
take 2 to 12 minutes and 6 GB.  Searches are for words of two syllables from the names, as
frequent as there, each sent to PostgreSQL once.  Searches of orders are those of
``shop/orders/search.py``; the plan of one of each kind is printed.  Progress is printed to stderr.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow

from shop import catalog
from shop.catalog import Filter
from shop.due_jobs import BATCH, TAKE, JobKind
from shop.orders import search
from shop.orders.search import Criteria
from shop.primitives.statuses import OrderStatus
from tools.bench import large_data
from tools.bench.report import machine_description, median, percentile, show_progress, table
from tools.checker.evaluate import ExternalRecords, evaluate_invariants
from tools.checker.invariants import INVARIANTS
from tools.local_platform.function_environment import url_of_role
from tools.local_platform.servers import postgres
from tools.migrate import migrate

Connection = psycopg.Connection[TupleRow]
SORTS = ("id", "price", "-price", "name", "-name")
LOOKS = 20
TABLES_MAX = 12

EXPLAIN: LiteralString = "explain (analyze, costs off, timing off, buffers) "
SIZES: LiteralString = """
select t.relname, sum(pg_table_size(p.oid)), sum(pg_indexes_size(p.oid)) from pg_class p
join pg_class t on t.oid = coalesce(pg_partition_root(p.oid), p.oid)
where t.relnamespace = 'shop'::regnamespace and p.relkind = 'r'
group by t.relname order by sum(pg_total_relation_size(p.oid)) desc
"""
SAMPLES: LiteralString = """
select o.user_id, u.email, l.product_id, o.total_minor, o.created_at
from shop.orders o join shop.users u using (user_id) join shop.order_lines l using (order_id)
order by md5(o.order_id::text) limit %(count)s
"""
WORDS: LiteralString = """
select word from (select product_id, split_part(name, ' ', 2) as word from shop.products) p
where char_length(word) = 2 order by md5(product_id::text) limit %(count)s
"""


def storage(connection: Connection, orders: int) -> Iterator[tuple[str, ...]]:
    """A row for each large table, and one for the sum."""
    sizes = [(name, data / orders, indexes / orders) for name, data, indexes in _sizes(connection)]
    total = ("all", sum(data for _, data, _ in sizes), sum(indexes for *_, indexes in sizes))
    for name, data, indexes in [*sizes[:TABLES_MAX], total]:
        yield name, f"{data:,.0f}", f"{indexes:,.0f}", f"{data + indexes:,.0f}"


def _sizes(connection: Connection) -> list[tuple[str, int, int]]:
    return [(name, int(data), int(indexes)) for name, data, indexes in connection.execute(SIZES)]


def due_work_ms(url: str) -> tuple[float, float]:
    """The first look at due work of a connection, which plans the query, and a later one."""
    look = TAKE(kinds=list(JobKind), batch=BATCH)
    with psycopg.connect(url_of_role(url, "shop_relay"), autocommit=True) as connection:
        times = [_milliseconds(connection, look.sql, look.parameters) for _ in range(LOOKS)]
    return times[0], median(times[1:])


def check_seconds(url: str) -> float:
    """The time of all invariants that hold while orders are open; RuntimeError if one is broken."""
    skipped = {each.id: "no such records" for each in INVARIANTS if each.id == "I-11"}
    began = perf_counter()
    results = evaluate_invariants(url, ExternalRecords(), at_rest=False, skipped=skipped)
    if broken := [(each.invariant.id, each.rows[:3]) for each in results if each.state == "broken"]:
        raise RuntimeError(f"broken: {broken}")
    return perf_counter() - began


def searches(connection: Connection, words: list[str]) -> Iterator[tuple[str, ...]]:
    """A row for each sort."""
    for sort in SORTS:
        times: list[float] = []
        for word in words:
            page = catalog.page(sort=sort, filters=Filter(name=word), after=None, limit=20)
            times.append(_milliseconds(connection, page.sql, page.parameters))
        times.sort()
        yield sort, *(f"{percentile(times, share):.1f}" for share in (0.5, 0.95, 1.0))


def searches_by_kind(connection: Connection, count: int) -> Mapping[str, list[Criteria]]:
    """For each kind of search of orders, criteria by random orders' values."""
    sample = connection.execute(SAMPLES, {"count": count}).fetchall()
    kinds: dict[str, list[Criteria]] = {
        "customer": [Criteria(user_id=user) for user, *_ in sample],
        "e-mail": [Criteria(email=email) for _, email, *_ in sample],
        "product": [Criteria(product_id=product) for _, _, product, *_ in sample],
        "total": [Criteria(total_min=total, total_max=total + 100) for *_, total, _ in sample],
        "time": [Criteria(placed_before=at) for *_, at in sample],
    }
    for status in OrderStatus:
        kinds[f"status {status}"] = [Criteria(status=status)] * count
        kinds[f"product and {status}"] = [
            Criteria(product_id=product, status=status) for _, _, product, *_ in sample
        ]
    return kinds


def order_searches(
    connection: Connection, kinds: Mapping[str, list[Criteria]]
) -> Iterator[tuple[str, ...]]:
    """A row for each kind of search, of pages of 20 orders and their counts."""
    for kind, criteria in kinds.items():
        times = sorted(_search_milliseconds(connection, each) for each in criteria)
        yield kind, *(f"{percentile(times, share):.1f}" for share in (0.5, 0.99, 1.0))


def plans(connection: Connection, kinds: Mapping[str, list[Criteria]]) -> Iterator[str]:
    """How PostgreSQL executes the first search of each kind."""
    for kind, (criteria, *_) in kinds.items():
        page = search.page(criteria, limit=20)
        rows = connection.execute(EXPLAIN + page.sql, page.parameters).fetchall()
        yield "\n".join([kind, *(f"  {line}" for (line,) in rows)])


def _search_milliseconds(connection: Connection, criteria: Criteria) -> float:
    """The time of both statements of a search: its page and its count."""
    page, count = search.page(criteria, limit=20), search.count(criteria)
    return sum(_milliseconds(connection, each.sql, each.parameters) for each in (page, count))


def _milliseconds(
    connection: Connection, sql: LiteralString, parameters: Mapping[str, object]
) -> float:
    began = perf_counter()
    connection.execute(sql, parameters, prepare=True).fetchall()
    return (perf_counter() - began) * 1000


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.growth")
    parser.add_argument("--orders", type=int, default=1_000_000)
    parser.add_argument("--products", type=int, default=1_000)
    parser.add_argument("--searches", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shop-bench-") as folder, postgres(Path(folder)) as url:
        migrate(url)
        sizes = {"products": options.products, "orders": options.orders}
        large_data.fill(url, **sizes, on_step=show_progress)
        print(
            f"{machine_description()} · {options.orders:,} orders, {options.products:,} products\n"
        )
        with psycopg.connect(url, autocommit=True) as connection:
            headings = ("bytes an order", "rows", "indexes", "sum")
            print(table(headings, storage(connection, options.orders)))
            show_progress("storage measured")
            words = [row[0] for row in connection.execute(WORDS, {"count": options.searches})]
        first, later = due_work_ms(url)
        print(f"\nlook at due work: {later:.1f} ms, the first one of a connection {first:.1f} ms")
        show_progress("due work measured; checking all invariants")
        print(f"invariants (shop check): {check_seconds(url):.1f} s\n")
        show_progress("searching")
        with psycopg.connect(url_of_role(url, "shop_catalog_ro"), autocommit=True) as connection:
            headings = ("search, two syllables", "p50 ms", "p95 ms", "max ms")
            print(table(headings, searches(connection, words)) + "\n")
        # as the bench's administrator, who may read addresses, but planned as for operators
        options_of_role = "-c plan_cache_mode=force_custom_plan"
        with psycopg.connect(url, autocommit=True, options=options_of_role) as connection:
            headings = ("search of orders by", "p50 ms", "p99 ms", "max ms")
            kinds = searches_by_kind(connection, options.searches)
            print(table(headings, order_searches(connection, kinds)) + "\n")
            print("\n\n".join(plans(connection, kinds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
