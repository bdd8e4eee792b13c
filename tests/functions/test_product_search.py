"""A search finds what a scan of all names finds, in the same order, and reads it from indexes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.rows import TupleRow

from shop import catalog
from shop.catalog import Filter, Position, ProductPage
from tests.harness import cloned_database
from tools.local_platform.function_environment import url_of_role

Connection = psycopg.Connection[TupleRow]
# name, category, price, and whether it is for sale
ProductRow = tuple[str, str, int, bool]

# More products than a search reads in the order of the page; in ascending order they come first.
OTHERS = 8_500
ADD_OTHERS = """
insert into shop.categories (name) values ('시험'), ('의자');
with made as (
  insert into shop.products (name, category, price_minor, currency)
  select '!' || n, '시험', 1 + n % 10, 'KRW' from generate_series(1, {others}) n
  returning product_id
)
insert into shop.stock (product_id, on_hand) select product_id, 1 from made;
vacuum analyze shop.products, shop.stock
"""
ADD = """
with made as (
  insert into shop.products (name, category, price_minor, currency, active)
  values (%s, %s, %s, 'KRW', %s) returning product_id
)
insert into shop.stock (product_id, on_hand) select product_id, 1 from made
"""
SCAN = """
select product_id from shop.products
where active and lower(name) like lower(%(pattern)s)
  and (%(category)s::text is null or category = %(category)s)
  and (%(price_min)s::bigint is null or price_minor >= %(price_min)s)
order by """
ORDERS = {
    "id": "product_id",
    "-id": "product_id desc",
    "price": "price_minor, product_id",
    "-price": "price_minor desc, product_id desc",
    "name": "name, product_id",
    "-name": "name desc, product_id desc",
}
LIMIT, PAGES_MAX = 2, 4

SIGNS = ["%", "_", "\\", "'", '"', " ", "{", ",", "1", "!"]
LETTERS = ["가", "상", "품", "ㅎ", "a", "A", "b", "é", "É", "ß", "ẞ", "İ", "ı", "😀", "👨‍👩‍👧"]
TEXTS = st.lists(st.sampled_from(LETTERS + SIGNS), min_size=1, max_size=4).map("".join)
PRODUCTS = st.tuples(TEXTS, st.sampled_from(["시험", "의자"]), st.integers(20, 22), st.booleans())
FILTERS = st.builds(
    Filter,
    name=TEXTS,
    category=st.sampled_from([None, None, "의자"]),
    price_min=st.sampled_from([None, None, 21]),
)


@pytest.fixture(scope="module")
def url(postgres_url: str, template_url: str) -> Iterator[str]:
    with cloned_database(postgres_url, template_url) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in ADD_OTHERS.format(others=OTHERS).split(";"):
                connection.execute(statement.encode())
        yield url


@pytest.fixture(scope="module")
def database(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def _page(
    connection: Connection, sort: str, filters: Filter, after: Position | None
) -> ProductPage:
    statement = catalog.page(sort=sort, filters=filters, after=after, limit=LIMIT)
    row = connection.execute(statement.sql, statement.parameters).fetchone()
    assert row is not None
    return ProductPage(row)


def _searched(connection: Connection, sort: str, filters: Filter, *, with_key: bool) -> list[int]:
    """The ids of the first pages, each of which begins after the last product of the one before."""
    found: list[int] = []
    after: Position | None = None
    for _ in range(PAGES_MAX):
        page = _page(connection, sort, filters, after)
        found += [product["id"] for product in json.loads(page.body)]
        if not page.has_more:
            break
        keys = {"id": page.last_id, "price": page.last_price, "name": page.last_name}
        assert page.last_id is not None
        is_named = with_key or not sort.endswith("name")
        after = Position(keys[sort.lstrip("-")] if is_named else None, page.last_id)
    return found


def _scanned(connection: Connection, sort: str, filters: Filter) -> list[int]:
    text = (filters.name or "").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    values = {
        "pattern": f"%{text}%",
        "category": filters.category,
        "price_min": filters.price_min,
    }
    rows = connection.execute((SCAN + ORDERS[sort]).encode(), values)
    return [product_id for (product_id,) in rows]


@settings(max_examples=60, deadline=None)
@given(
    products=st.lists(PRODUCTS, max_size=12),
    filters=FILTERS,
    sort=st.sampled_from(sorted(ORDERS)),
    with_key=st.booleans(),
)
def test_search_finds_what_a_scan_of_all_names_finds(
    database: Connection,
    products: list[ProductRow],
    filters: Filter,
    sort: str,
    with_key: bool,
) -> None:
    with database.transaction(force_rollback=True), database.cursor() as cursor:
        cursor.executemany(ADD, products)

        found = _searched(database, sort, filters, with_key=with_key)

        assert found == _scanned(database, sort, filters)[: LIMIT * PAGES_MAX]


@pytest.mark.parametrize("sort", sorted(ORDERS))
@pytest.mark.parametrize("is_continued", [False, True])
@pytest.mark.parametrize("name", ["책", "상품", "테스트 상품", "sa"])
def test_search_reads_products_by_indexes(
    url: str, sort: str, name: str, is_continued: bool
) -> None:
    middle = {"id": OTHERS // 2, "price": 5, "name": "!5"}[sort.lstrip("-")]
    after = Position(middle, OTHERS // 2) if is_continued else None
    page = catalog.page(sort=sort, filters=Filter(name=name), after=after, limit=20)

    with psycopg.connect(url_of_role(url, "shop_catalog_ro")) as connection:
        explain = b"explain (costs off) " + page.sql.encode()
        plan = [line for (line,) in connection.execute(explain, page.parameters)]

    assert any("products_by_name_ngram" in line for line in plan), plan
    assert not any("Seq Scan" in line for line in plan), plan
