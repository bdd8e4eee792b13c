"""The catalogue: products with their prices, and categories.

Writer of ``categories`` and ``products``; a trigger writes each change of a price into
``price_changes``.  A product's ``version`` counts the changes of its row;
stock has another owner, so a restock leaves the version alone and changes only the second half of
the entity tag (``"<version>.<available>"``).

Lists are cached as bytes under a version token (``catalog:version`` in Redis).  Every change of the
catalogue sets a new random token.  Entries are stored under the token with which they were made, so
a late write of old content is never read, and old entries stay invalid when the token is lost.
"""

from __future__ import annotations

import os
import re
from itertools import product
from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

from events.records import frozen
from shop.adapters.statements import Query, Row, Statement

if TYPE_CHECKING:
    from collections.abc import Callable

    from shop.adapters.cache import Cache

PRICE_MAX = 2**63 - 1
VERSION_KEY = "catalog:version"
VERSION_SECONDS = 86_400
TOKEN = re.compile(r"[0-9a-f]{32}")


class ProductPage(Row):
    """One page as JSON, and the position where it ends (null when it is not full)."""

    body: str
    has_more: bool
    last_id: int | None
    last_price: int | None
    last_name: str | None


class ProductForSale(Row):
    """A product as customers see it, as JSON."""

    version: int
    available: int
    body: str


class CategoryList(Row):
    """All categories, as JSON."""

    body: str


class PricedIn(Row):
    """The currency of the shop's products."""

    currency: str


class AddedProduct(Row):
    """The id and version of a new product."""

    product_id: int
    version: int


class ChangedProduct(Row):
    """The version after a change."""

    version: int


class Product(Row):
    """A product as staff see it, for sale or not."""

    product_id: int
    name: str
    description: str
    category: str
    price_minor: int
    currency: str
    active: bool
    flash_sale: bool
    version: int
    price_schedule_id: UUID | None
    available: int


# One page in one round trip, its JSON made by PostgreSQL.  There is a query for each combination of
# filters, so that a generic plan is as good as a custom one: with "… is null or …" PostgreSQL
# scanned from the first row for a page in the middle (measured).  Stock is looked up row by row
# after the limit, because every other join read all of it.  lower() runs in PostgreSQL for both
# operands, since Python's differs for İ and ß.
_PRODUCTS: LiteralString = """
with page as (
  select p.product_id as id, p.name, p.description, p.category, p.price_minor as price,
    p.currency
  from shop.products p
  where p.active"""
_OF_CATEGORY: LiteralString = """
    and p.category = %(category)s::text"""
_PRICED: LiteralString = """
    and p.price_minor between %(price_min)s::bigint and %(price_max)s::bigint"""
_ORDERED: LiteralString = """
  order by """
_LIMITED: LiteralString = """
  limit %(limit)s::int + 1"""
_NUMBERED: LiteralString = """
), numbered as (
  select page.*, s.available as "stockQuantity", row_number() over (order by """
_AS_JSON: LiteralString = """) as place
  from page cross join lateral (select on_hand - reserved as available from shop.stock
    where product_id = page.id limit 1) s
)
select '[' || coalesce(string_agg((select row_to_json(item)::text from (
    select id, name, description, category, price, currency, "stockQuantity") item),
    ',' order by place) filter (where place <= %(limit)s::int), '') || ']' as body,
  count(*) > %(limit)s::int as has_more,
  max(id) filter (where place = %(limit)s::int) as last_id,
  max(price) filter (where place = %(limit)s::int) as last_price,
  max(name) filter (where place = %(limit)s::int) as last_name
from numbered
"""

# A search reads the first 8,000 products in the order of the page, which fill it when the text is
# common; otherwise it reads all products with the text's pairs of characters (or with its only
# character) from an index and sorts them.  PostgreSQL cannot choose, since it does not know how
# many products match (ADR 35).  The conditions are on strpos, which is in no index, unlike LIKE,
# and outside of a limit or "offset 0", so that they change no plan.
_FIRST: LiteralString = """
with first as materialized (
  select p.product_id from (
    select p.product_id, p.name, p.category, p.price_minor from shop.products p
    where p.active"""
_MATCHING: LiteralString = """
  ) p
  where strpos(lower(p.name), lower(%(name)s::text)) > 0"""
_IN_INDEX: LiteralString = """
), indexed as materialized (
  select p.product_id from (
    select p.product_id, p.name, p.category, p.price_minor from shop.products p
    where p.active and (select count(*) from first) <= %(limit)s::int
      and (shop.ngrams(p.name, 1) || shop.ngrams(p.name, 2))
        @> shop.ngrams(%(name)s::text, %(ngram_length)s::int)
    offset 0"""
_FOUND: LiteralString = """
), page as (
  select p.product_id as id, p.name, p.description, p.category, p.price_minor as price, p.currency
  from (select product_id from first union select product_id from indexed) found
  cross join lateral (select * from shop.products where product_id = found.product_id limit 1) p"""

# a cursor has no room for a long name: without the key, it is the product's present name
_NAME_OF_LAST: LiteralString = """(coalesce(%(after_key)s::text,
      (select k.name from shop.products k where k.product_id = %(after_id)s::bigint)),
      %(after_id)s::bigint)"""

# per sort: the condition for rows after a position, ORDER BY, ORDER BY of the page's columns
_SORTS: dict[str, tuple[LiteralString, LiteralString, LiteralString]] = {
    "id": ("p.product_id > %(after_id)s::bigint", "p.product_id", "id"),
    "-id": ("p.product_id < %(after_id)s::bigint", "p.product_id desc", "id desc"),
    "price": (
        "(p.price_minor, p.product_id) > (%(after_key)s::bigint, %(after_id)s::bigint)",
        "p.price_minor, p.product_id",
        "price, id",
    ),
    "-price": (
        "(p.price_minor, p.product_id) < (%(after_key)s::bigint, %(after_id)s::bigint)",
        "p.price_minor desc, p.product_id desc",
        "price desc, id desc",
    ),
    "name": (
        "(p.name, p.product_id) > " + _NAME_OF_LAST,
        "p.name, p.product_id",
        "name, id",
    ),
    "-name": (
        "(p.name, p.product_id) < " + _NAME_OF_LAST,
        "p.name desc, p.product_id desc",
        "name desc, id desc",
    ),
}

# the sort, and whether there is a filter by category and price, and a position to start after
Shape = tuple[str, bool, bool, bool]
_EITHER = (False, True)


def _list_sql(shape: Shape) -> LiteralString:
    _, order, _ = _SORTS[shape[0]]
    return _PRODUCTS + _filters(shape) + _ORDERED + order + _LIMITED + _as_json(shape)


def _search_sql(shape: Shape) -> LiteralString:
    _, order, _ = _SORTS[shape[0]]
    read = _FIRST + _continued(shape) + _ORDERED + order + "\n    limit 8000"
    matching = _MATCHING + _filters(shape) + _ORDERED + order + _LIMITED
    return read + matching + _IN_INDEX + matching + _FOUND + _as_json(shape)


def _filters(shape: Shape) -> LiteralString:
    _, of_category, priced, _ = shape
    filters = (_OF_CATEGORY if of_category else "") + (_PRICED if priced else "")
    return filters + _continued(shape)


def _continued(shape: Shape) -> LiteralString:
    sort, _, _, continued = shape
    after, _, _ = _SORTS[sort]
    return "\n    and " + after if continued else ""


def _as_json(shape: Shape) -> LiteralString:
    _, _, items = _SORTS[shape[0]]
    return _NUMBERED + items + _AS_JSON


def _queries(sql: Callable[[Shape], LiteralString]) -> dict[Shape, Query[ProductPage]]:
    shapes = product(_SORTS, _EITHER, _EITHER, _EITHER)
    return {shape: Query(ProductPage, sql(shape)) for shape in shapes}


LISTS = _queries(_list_sql)
SEARCHES = _queries(_search_sql)

PRODUCT_FOR_SALE = Query(
    ProductForSale,
    """
select p.version, s.on_hand - s.reserved as available,
  (select row_to_json(item)::text from (select p.product_id as id, p.name, p.description,
    p.category, p.price_minor as price, p.currency,
    s.on_hand - s.reserved as "stockQuantity") item) as body
from shop.products p join shop.stock s using (product_id)
where p.product_id = %(product_id)s::bigint and p.active
""",
)

CATEGORIES = Query(
    CategoryList,
    """
select '[' || coalesce(string_agg((select row_to_json(item)::text from (select c.name) item),
  ',' order by c.name), '') || ']' as body
from (select name from shop.categories order by name limit 1000) c
""",
)

ADD_CATEGORY = Query(
    Row,
    """
insert into shop.categories (name) values (%(name)s) on conflict do nothing returning name
""",
)

# no row: the category is unknown, or the shop's products are priced in another currency
ADD_PRODUCT = Query(
    AddedProduct,
    """
insert into shop.products (name, description, category, price_minor, currency, flash_sale)
select %(name)s::text, %(description)s::text, c.name, %(price_minor)s::bigint, %(currency)s::text,
  %(flash_sale)s::boolean
from shop.categories c where c.name = %(category)s::text
  and %(currency)s::text = coalesce(
    (select p.currency::text from shop.products p order by p.product_id limit 1),
    %(currency)s::text)
returning product_id, version
""",
)

CURRENCY_OF_PRODUCTS = Query(
    PricedIn,
    """
select p.currency::text as currency from shop.products p order by p.product_id limit 1
""",
)

# no row: there is no such product, its version is another one, its price is scheduled, or the
# category is unknown; READ_PRODUCT in the same pipeline shows which
CHANGE_PRODUCT = Query(
    ChangedProduct,
    """
update shop.products p set
  name = coalesce(%(name)s::text, p.name),
  description = coalesce(%(description)s::text, p.description),
  category = coalesce(%(category)s::text, p.category),
  price_minor = coalesce(%(price_minor)s::bigint, p.price_minor),
  active = coalesce(%(active)s::boolean, p.active),
  flash_sale = coalesce(%(flash_sale)s::boolean, p.flash_sale),
  version = p.version + 1, updated_at = now()
where p.product_id = %(product_id)s::bigint
  and (%(versions)s::int[] is null or p.version = any(%(versions)s::int[]))
  and (%(price_minor)s::bigint is null or p.price_schedule_id is null)
  and (%(category)s::text is null
    or exists (select from shop.categories c where c.name = %(category)s::text))
returning p.version
""",
)

SET_PRICE = Query(
    ChangedProduct,
    """
update shop.products set price_minor = %(price_minor)s::bigint,
  price_schedule_id = %(schedule_id)s::uuid, version = version + 1, updated_at = now()
where product_id = %(product_id)s::bigint
returning version
""",
)

READ_PRODUCT = Query(
    Product,
    """
select p.product_id, p.name, p.description, p.category, p.price_minor, p.currency, p.active,
  p.flash_sale, p.version, p.price_schedule_id, s.on_hand - s.reserved as available
from shop.products p join shop.stock s using (product_id)
where p.product_id = %(product_id)s::bigint
""",
)

_ALL_PRODUCTS: LiteralString = """
with page as (
  select product_id, name, description, category, price_minor, currency, active, flash_sale,
    version, price_schedule_id
  from shop.products
  where product_id < coalesce(%(before_id)s::bigint, 9223372036854775807)"""
_NEWEST_FIRST: LiteralString = """
  order by product_id desc limit %(limit)s::int
)
select page.*, s.available from page cross join lateral (select on_hand - reserved as available
  from shop.stock where product_id = page.product_id limit 1) s
order by page.product_id desc
"""
# by whether the products are for sale; None: whether or not
ALL_PRODUCTS: dict[bool | None, Query[Product]] = {
    None: Query(Product, _ALL_PRODUCTS + _NEWEST_FIRST),
    True: Query(Product, _ALL_PRODUCTS + " and active" + _NEWEST_FIRST),
    False: Query(Product, _ALL_PRODUCTS + " and not active" + _NEWEST_FIRST),
}

LOCK_PRODUCT = Query(
    Product,
    """
select p.product_id, p.name, p.description, p.category, p.price_minor, p.currency, p.active,
  p.flash_sale, p.version, p.price_schedule_id, s.on_hand - s.reserved as available
from shop.products p join shop.stock s using (product_id)
where p.product_id = %(product_id)s::bigint
for update of p
""",
)


@frozen(kw_only=True)
class Filter:
    """The filters of a list; ``name`` is a substring, prices are inclusive minor units."""

    name: str | None = None
    category: str | None = None
    price_min: int | None = None
    price_max: int | None = None


@frozen
class Position:
    """The last product of a page, by the sort's key (a price or a name) and its id.

    Without a key the name is the one that the product has when the next page is read.
    """

    key: int | str | None
    product_id: int


@frozen(kw_only=True)
class Change:
    """What a PATCH changes; None leaves the value as it is."""

    name: str | None = None
    description: str | None = None
    category: str | None = None
    price_minor: int | None = None
    active: bool | None = None
    flash_sale: bool | None = None


def page(
    *, sort: str, filters: Filter, after: Position | None, limit: int
) -> Statement[ProductPage]:
    """One page of products; ``sort`` is ``id``, ``price`` or ``name``, descending after a ``-``."""
    priced = filters.price_min is not None or filters.price_max is not None
    name = filters.name or ""
    queries = SEARCHES if name else LISTS
    return queries[sort, filters.category is not None, priced, after is not None](
        name=name,
        ngram_length=min(len(name), 2),
        category=filters.category,
        price_min=filters.price_min or 0,
        price_max=PRICE_MAX if filters.price_max is None else filters.price_max,
        after_key=after.key if after else None,
        after_id=after.product_id if after else None,
        limit=limit,
    )


def etag_of(*, version: int, available: int) -> str:
    """A product's entity tag: it changes with the product's version and with its stock."""
    return f'"{version}.{available}"'


def version_of_tag(tag: str) -> int | None:
    """The version in a product's tag (without its quotes); None when the tag has another form."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})\.[0-9]{1,10}", tag)
    return int(match[1]) if match else None


def product_for_sale(product_id: int) -> Statement[ProductForSale]:
    """A product that customers can buy; no row when there is none."""
    return PRODUCT_FOR_SALE(product_id=product_id)


def categories() -> Statement[CategoryList]:
    """The first 1,000 categories by name; always one row."""
    return CATEGORIES()


def add_category(name: str) -> Statement[Row]:
    """Adds a category; no row when the name is taken."""
    return ADD_CATEGORY(name=name)


def currency_of_products() -> Statement[PricedIn]:
    """The currency of all products; no row while there is none."""
    return CURRENCY_OF_PRODUCTS()


def add_product(
    *,
    name: str,
    description: str,
    category: str,
    price_minor: int,
    currency: str,
    flash_sale: bool,
) -> Statement[AddedProduct]:
    """Adds a product; no row when the category is unknown."""
    return ADD_PRODUCT(
        name=name,
        description=description,
        category=category,
        price_minor=price_minor,
        currency=currency,
        flash_sale=flash_sale,
    )


def change_product(
    product_id: int, change: Change, *, versions: list[int] | None
) -> Statement[ChangedProduct]:
    """Changes a product that has one of these versions (None: any version).

    No row when its price would change while a schedule sets it.
    """
    return CHANGE_PRODUCT(
        product_id=product_id,
        versions=versions,
        name=change.name,
        description=change.description,
        category=change.category,
        price_minor=change.price_minor,
        active=change.active,
        flash_sale=change.flash_sale,
    )


def set_price(
    product_id: int, price_minor: int, *, schedule_id: UUID | None
) -> Statement[ChangedProduct]:
    """Sets the price by a schedule, or back to one without; the caller has locked the product."""
    return SET_PRICE(product_id=product_id, price_minor=price_minor, schedule_id=schedule_id)


def read_product(product_id: int) -> Statement[Product]:
    """A product as staff see it; no row when there is none."""
    return READ_PRODUCT(product_id=product_id)


def all_products(*, active: bool | None, before: int | None, limit: int) -> Statement[Product]:
    """Products as staff see them, newest first; those before a product's id."""
    return ALL_PRODUCTS[active](before_id=before, limit=limit)


def lock_product(product_id: int) -> Statement[Product]:
    """A product as it is until this transaction changes it."""
    return LOCK_PRODUCT(product_id=product_id)


def invalidate_lists(cache: Cache) -> None:
    """Makes every cached list stale at once, by a new version token."""
    cache.set(VERSION_KEY, _new_token(), VERSION_SECONDS)


def list_version(cache: Cache, found: bytes | None) -> str | None:
    """The token under which lists are cached; ``found`` is what Redis has for ``VERSION_KEY``.

    A missing token (never set, evicted, FLUSHALL) is replaced by a new random one.  None when the
    token cannot be determined.
    """
    if found is None:
        fresh = _new_token()
        if cache.set_if_absent(VERSION_KEY, fresh, VERSION_SECONDS):
            return fresh
        found = cache.get(VERSION_KEY)
    token = (found or b"").decode("ascii", "replace")
    return token if TOKEN.fullmatch(token) else None


def _new_token() -> str:
    return os.urandom(16).hex()
