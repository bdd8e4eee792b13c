"""The catalogue: products with their prices, and categories.

Writer of ``categories``, ``product_groups`` and ``products``; a trigger writes each change of a
price into ``price_changes``.  A product's ``version`` counts the changes of its row.  The entity
tag of its page (``"<version>.<available>.<group version>"``) has two more parts, and the language
after them where it is not the product's own.  Stock has another
owner, so a restock leaves the version alone.  The page shows the other products of the group too;
a trigger counts the group's version when one joins, leaves, or is withdrawn.  Products without a
group have no third part.

Lists are cached as bytes under a version token (``catalog:version`` in Redis).  Every change of the
catalogue sets a new random token.  Entries are stored under the token with which they were made, so
a late write of old content is never read, and old entries stay invalid when the token is lost.
"""

from __future__ import annotations

import json
import os
import re
from itertools import product
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple
from uuid import UUID

from events.records import frozen
from shop.adapters.statements import Query, Row, Statement
from shop.primitives.price_lines import Vat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shop.adapters.cache import Cache

PRICE_MAX = 2**63 - 1
MEMBERS_MAX = 100  # of a group
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
    """A product as customers see it, as JSON; without a group it has no ``group_version``."""

    version: int
    available: int
    group_version: int | None
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
    images: list[dict[str, str]]
    translations: dict[str, Any]
    available: int
    group_version: int | None
    group: dict[str, Any] | None


class Group(Row):
    """Products that differ in the values of its options, such as size and colour."""

    group_id: int
    name: str
    options: list[str]
    version: int


class Member(Row):
    """A product of a group, for sale or not; its values are in the order of the options."""

    product_id: int
    option_values: list[str]
    active: bool
    version: int


# One page in one round trip, its JSON made by PostgreSQL.  There is a query for each combination of
# filters, so that a generic plan is as good as a custom one: with "… is null or …" PostgreSQL
# scanned from the first row for a page in the middle (measured).  Stock is looked up row by row
# after the limit, because every other join read all of it.  lower() runs in PostgreSQL for both
# operands, since Python's differs for İ and ß.
_PRODUCTS: LiteralString = """
with page as (
  select p.product_id as id, p.name, p.description, p.category, p.price_minor as price,
    p.currency, p.images, p.group_id, p.option_values, p.translations
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
  select page.*, s.available as "stockQuantity", (
      select jsonb_build_object('id', g.group_id, 'options',
        jsonb_object(g.options, page.option_values))
      from shop.product_groups g where g.group_id = page.group_id) as "group",
    row_number() over (order by """
_SHOWN: LiteralString = """) as place
  from page cross join lateral (select on_hand - reserved as available from shop.stock
    where product_id = page.id limit 1) s
)
select '[' || coalesce(string_agg((select row_to_json(item)::text from (
    select p.id, """
_WITH_STOCK: LiteralString = """, p.category, p.price, p.currency, p."stockQuantity", """
_IN_GROUP: LiteralString = """, p."group") item),
    ',' order by place) filter (where place <= %(limit)s::int), '') || ']' as body,
  count(*) > %(limit)s::int as has_more,
  max(id) filter (where place = %(limit)s::int) as last_id,
  max(price) filter (where place = %(limit)s::int) as last_price,
  max(name) filter (where place = %(limit)s::int) as last_name
from numbered p
"""

# A search reads the first 8,000 products in the order of the page, which fill it when the text is
# common; otherwise it reads all products with the text's pairs of characters (or with its only
# character) from an index and sorts them.  PostgreSQL cannot choose, since it does not know how
# many products match (ADR 35).  The conditions are on strpos, which is in no index, unlike LIKE,
# and outside of a limit or "offset 0", so that they change no plan.
_FIRST: LiteralString = """
with first as materialized (
  select p.product_id from (
    select p.product_id, p.name, p.category, p.price_minor, p.translations from shop.products p
    where p.active"""
_MATCHING: LiteralString = """
  ) p
  where """
_INDEXED: LiteralString = """
), indexed as materialized (
  select p.product_id from (
    select p.product_id, p.name, p.category, p.price_minor, p.translations from shop.products p
    where p.active and (select count(*) from first) <= %(limit)s::int
      and """
_UNCHANGED: LiteralString = """
    offset 0"""
_FOUND: LiteralString = """
), page as (
  select p.product_id as id, p.name, p.description, p.category, p.price_minor as price, p.currency,
    p.images, p.group_id, p.option_values, p.translations
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


class Wording(NamedTuple):
    """The texts of a product ``p`` that are shown, and how a search finds one, as SQL."""

    texts: LiteralString
    images: LiteralString
    matching: LiteralString
    in_index: LiteralString


# the texts as they were typed; ``shop/translated_catalog.py`` has those of other languages
OWN = Wording(
    texts="p.name, p.description",
    images="p.images",
    matching="strpos(lower(p.name), lower(%(name)s::text)) > 0",
    in_index="""(shop.ngrams(p.name, 1) || shop.ngrams(p.name, 2))
        @> shop.ngrams(%(name)s::text, %(ngram_length)s::int)""",
)

# the sort, and whether there is a filter by category and price, and a position to start after
Shape = tuple[str, bool, bool, bool]
_EITHER = (False, True)


def _list_sql(shape: Shape, wording: Wording) -> LiteralString:
    _, order, _ = _SORTS[shape[0]]
    return _PRODUCTS + _filters(shape) + _ORDERED + order + _LIMITED + _as_json(shape, wording)


def _search_sql(shape: Shape, wording: Wording) -> LiteralString:
    _, order, _ = _SORTS[shape[0]]
    read = _FIRST + _continued(shape) + _ORDERED + order + "\n    limit 8000"
    matching = _MATCHING + wording.matching + _filters(shape) + _ORDERED + order + _LIMITED
    indexed = _INDEXED + wording.in_index + _UNCHANGED
    return read + matching + indexed + matching + _FOUND + _as_json(shape, wording)


def _filters(shape: Shape) -> LiteralString:
    _, of_category, priced, _ = shape
    filters = (_OF_CATEGORY if of_category else "") + (_PRICED if priced else "")
    return filters + _continued(shape)


def _continued(shape: Shape) -> LiteralString:
    sort, _, _, continued = shape
    after, _, _ = _SORTS[sort]
    return "\n    and " + after if continued else ""


def _as_json(shape: Shape, wording: Wording) -> LiteralString:
    _, _, items = _SORTS[shape[0]]
    shown = wording.texts + _WITH_STOCK + wording.images
    return _NUMBERED + items + _SHOWN + shown + _IN_GROUP


def _queries(
    sql: Callable[[Shape, Wording], LiteralString], wording: Wording
) -> dict[Shape, Query[ProductPage]]:
    shapes = product(_SORTS, _EITHER, _EITHER, _EITHER)
    return {shape: Query(ProductPage, sql(shape, wording)) for shape in shapes}


def lists(wording: Wording) -> dict[Shape, Query[ProductPage]]:
    """The query of each list without a name."""
    return _queries(_list_sql, wording)


def searches(wording: Wording) -> dict[Shape, Query[ProductPage]]:
    """The query of each list of products that have a text in their name."""
    return _queries(_search_sql, wording)


LISTS = lists(OWN)
SEARCHES = searches(OWN)

_ONE_FOR_SALE: LiteralString = """
select p.version, s.on_hand - s.reserved as available,
  case when p.group_id is not null then g.version end as group_version,
  (select row_to_json(item)::text from (select p.product_id as id, """
_PRICE_AND_STOCK: LiteralString = """,
    p.category, p.price_minor as price, p.currency,
    s.on_hand - s.reserved as "stockQuantity", """
_GROUP_WITH_MEMBERS: LiteralString = """, (
      select jsonb_build_object('id', g.group_id, 'name', g.name,
        'options', jsonb_object(g.options, p.option_values),
        'members', jsonb_agg(jsonb_build_object('productId', m.product_id,
          'options', jsonb_object(g.options, m.option_values)) order by m.product_id))
      from shop.products m where m.group_id = g.group_id and m.active having count(*) > 0
    ) as "group") item) as body"""
_FROM_SALE: LiteralString = """
from shop.products p join shop.stock s using (product_id) left join shop.product_groups g
  using (group_id)
where p.product_id = %(product_id)s::bigint and p.active
"""


def product_sql(wording: Wording, further: LiteralString) -> LiteralString:
    """The query of one product for sale, with further columns."""
    shown = wording.texts + _PRICE_AND_STOCK + wording.images
    return _ONE_FOR_SALE + shown + _GROUP_WITH_MEMBERS + further + _FROM_SALE


PRODUCT_FOR_SALE = Query(ProductForSale, product_sql(OWN, ""))

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
insert into shop.categories (name, vat_basis_points, vat_included)
values (%(name)s, %(vat_basis_points)s, %(vat_included)s)
on conflict do nothing returning name
""",
)

# no row: the category is unknown, or the shop's products are priced in another currency
ADD_PRODUCT = Query(
    AddedProduct,
    """
insert into shop.products
  (name, description, category, price_minor, currency, flash_sale, images, translations)
select %(name)s::text, %(description)s::text, c.name, %(price_minor)s::bigint, %(currency)s::text,
  %(flash_sale)s::boolean, %(images)s::jsonb, %(translations)s::jsonb
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
  images = coalesce(%(images)s::jsonb, p.images),
  translations = coalesce(%(translations)s::jsonb, p.translations),
  group_id = case when %(is_regrouped)s::boolean then %(group_id)s::bigint else p.group_id end,
  option_values = case when %(is_regrouped)s::boolean then %(option_values)s::text[]
    else p.option_values end,
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

_STAFF_PRODUCT: LiteralString = """
select p.product_id, p.name, p.description, p.category, p.price_minor, p.currency, p.active,
  p.flash_sale, p.version, p.price_schedule_id, p.images, p.translations,
  s.on_hand - s.reserved as available,
  case when p.group_id is not null then g.version end as group_version,
  case when p.group_id is not null then
    jsonb_build_object('id', g.group_id, 'options', jsonb_object(g.options, p.option_values))
    end as "group"
from """
_ONE_PRODUCT: LiteralString = """shop.products p join shop.stock s using (product_id)
  left join shop.product_groups g on g.group_id = p.group_id
where p.product_id = %(product_id)s::bigint
"""
READ_PRODUCT = Query(Product, _STAFF_PRODUCT + _ONE_PRODUCT)
LOCK_PRODUCT = Query(Product, _STAFF_PRODUCT + _ONE_PRODUCT + "for update of p\n")

_ALL_PRODUCTS: LiteralString = """
with page as materialized (
  select p.product_id from shop.products p
  where p.product_id < coalesce(%(before_id)s::bigint, 9223372036854775807)"""
# all matches are sorted, unlike those of a customer's search: operators search seldom
_NAMED: LiteralString = """
    and (shop.ngrams(p.name, 1) || shop.ngrams(p.name, 2))
      @> shop.ngrams(%(name)s::text, %(ngram_length)s::int)
    and strpos(lower(p.name), lower(%(name)s::text)) > 0"""
_NEWEST_FIRST: LiteralString = """
  order by p.product_id desc limit %(limit)s::int
)"""
_OF_PAGE: LiteralString = """page
  cross join lateral (select * from shop.products where product_id = page.product_id limit 1) p
  cross join lateral (select * from shop.stock where product_id = page.product_id limit 1) s
  left join lateral (select * from shop.product_groups where group_id = p.group_id limit 1) g
    on true
order by page.product_id desc
"""
_FOR_SALE: dict[bool | None, LiteralString] = {
    None: "",
    True: " and p.active",
    False: " and not p.active",
}
# by whether the products are for sale (None: whether or not), and whether a name is searched
ALL_PRODUCTS: dict[tuple[bool | None, bool], Query[Product]] = {
    (active, named): Query(
        Product,
        _ALL_PRODUCTS
        + condition
        + (_NAMED if named else "")
        + _NEWEST_FIRST
        + _STAFF_PRODUCT
        + _OF_PAGE,
    )
    for active, condition in _FOR_SALE.items()
    for named in _EITHER
}

_GROUP: LiteralString = """
select group_id, name, options, version from shop.product_groups
"""
READ_GROUP = Query(Group, _GROUP + "where group_id = %(group_id)s::bigint\n")

GROUPS = Query(
    Group,
    _GROUP
    + """where group_id < coalesce(%(before_id)s::bigint, 9223372036854775807)
order by group_id desc limit %(limit)s::int
""",
)

# The group that a locked product has and the one that it is to have, in the order in which the
# trigger locks them; the second alone is returned.
LOCK_GROUPS = Query(
    Group,
    """
with locked as materialized (
  select group_id, name, options, version from shop.product_groups
  where group_id = %(group_id)s::bigint or group_id
    = (select p.group_id from shop.products p where p.product_id = %(product_id)s::bigint)
  order by group_id for update
)
select group_id, name, options, version from locked where group_id = %(group_id)s::bigint
""",
)

LOCK_GROUP = Query(Group, _GROUP + "where group_id = %(group_id)s::bigint for update\n")

# at most MEMBERS_MAX
MEMBERS = Query(
    Member,
    """
select product_id, coalesce(option_values, '{}') as option_values, active, version
from shop.products where group_id = %(group_id)s::bigint order by product_id limit 100
""",
)

ADD_GROUP = Query(
    Group,
    """
insert into shop.product_groups (name, options) values (%(name)s, %(options)s::text[])
returning group_id, name, options, version
""",
)

CHANGE_GROUP = Query(
    Group,
    """
update shop.product_groups set name = coalesce(%(name)s::text, name),
  options = coalesce(%(options)s::text[], options), version = version + 1, updated_at = now()
where group_id = %(group_id)s::bigint
returning group_id, name, options, version
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
class Membership:
    """The group that a product is to be in, with the values of its options; None: in no group."""

    group_id: int | None = None
    values: list[str] | None = None


@frozen(kw_only=True)
class Change:
    """What a PATCH changes; None leaves the value as it is."""

    name: str | None = None
    description: str | None = None
    category: str | None = None
    price_minor: int | None = None
    active: bool | None = None
    flash_sale: bool | None = None
    images: list[dict[str, str]] | None = None
    translations: Mapping[str, object] | None = None
    membership: Membership | None = None


def page(
    *, sort: str, filters: Filter, after: Position | None, limit: int
) -> Statement[ProductPage]:
    """One page of products; ``sort`` is ``id``, ``price`` or ``name``, descending after a ``-``."""
    queries = SEARCHES if filters.name else LISTS
    shape = shape_of(sort, filters, after)
    return queries[shape](**parameters_of(filters, after, limit))


def shape_of(sort: str, filters: Filter, after: Position | None) -> Shape:
    """Which of the queries of a list reads a page."""
    priced = filters.price_min is not None or filters.price_max is not None
    return sort, filters.category is not None, priced, after is not None


def parameters_of(filters: Filter, after: Position | None, limit: int) -> dict[str, object]:
    """The parameters of a page, whatever its query."""
    name = filters.name or ""
    return {
        "name": name,
        "ngram_length": min(len(name), 2),
        "category": filters.category,
        "price_min": filters.price_min or 0,
        "price_max": PRICE_MAX if filters.price_max is None else filters.price_max,
        "after_key": after.key if after else None,
        "after_id": after.product_id if after else None,
        "limit": limit,
    }


def etag_of(product: Product | ProductForSale, *, language: str | None = None) -> str:
    """A product's entity tag: it changes with its version, its stock and its group's version.

    In another language than its own the page has another tag: ``"<version>.….en"``.
    """
    group = "" if product.group_version is None else f".{product.group_version}"
    suffix = f".{language}" if language else ""
    return f'"{product.version}.{product.available}{group}{suffix}"'


def version_of_tag(tag: str) -> int | None:
    """The version in a product's tag (without its quotes); None when the tag has another form."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})\.[0-9]{1,10}(?:\.[0-9]{1,10})?(?:\.[a-z]{2})?", tag)
    return int(match[1]) if match else None


def product_for_sale(product_id: int) -> Statement[ProductForSale]:
    """A product that customers can buy; no row when there is none."""
    return PRODUCT_FOR_SALE(product_id=product_id)


def categories() -> Statement[CategoryList]:
    """The first 1,000 categories by name; always one row."""
    return CATEGORIES()


def add_category(name: str, vat: Vat) -> Statement[Row]:
    """Adds a category whose products have this VAT; no row when the name is taken."""
    return ADD_CATEGORY(name=name, vat_basis_points=vat.basis_points, vat_included=vat.is_included)


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
    images: list[dict[str, str]],
    translations: Mapping[str, object],
) -> Statement[AddedProduct]:
    """Adds a product; no row when the category is unknown."""
    return ADD_PRODUCT(
        name=name,
        description=description,
        category=category,
        price_minor=price_minor,
        currency=currency,
        flash_sale=flash_sale,
        images=_json(images),
        translations=_json(translations),
    )


def change_product(
    product_id: int, change: Change, *, versions: list[int] | None
) -> Statement[ChangedProduct]:
    """Changes a product that has one of these versions (None: any version).

    No row when its price would change while a schedule sets it.  Before it joins a group, lock the
    product and then the group with ``lock_groups``, and compare the values of its ``members``.
    """
    membership = change.membership or Membership()
    return CHANGE_PRODUCT(
        product_id=product_id,
        versions=versions,
        name=change.name,
        description=change.description,
        category=change.category,
        price_minor=change.price_minor,
        active=change.active,
        flash_sale=change.flash_sale,
        images=None if change.images is None else _json(change.images),
        translations=None if change.translations is None else _json(change.translations),
        is_regrouped=change.membership is not None,
        group_id=membership.group_id,
        option_values=membership.values,
    )


def set_price(
    product_id: int, price_minor: int, *, schedule_id: UUID | None
) -> Statement[ChangedProduct]:
    """Sets the price by a schedule, or back to one without; the caller has locked the product."""
    return SET_PRICE(product_id=product_id, price_minor=price_minor, schedule_id=schedule_id)


def read_product(product_id: int) -> Statement[Product]:
    """A product as staff see it; no row when there is none."""
    return READ_PRODUCT(product_id=product_id)


def all_products(
    *, active: bool | None, name: str | None, before: int | None, limit: int
) -> Statement[Product]:
    """Products as staff see them, newest first, before a product's id; ``name`` is part of one."""
    name = name or ""
    return ALL_PRODUCTS[active, name != ""](
        name=name, ngram_length=min(len(name), 2), before_id=before, limit=limit
    )


def lock_product(product_id: int) -> Statement[Product]:
    """A product as it is until this transaction changes it."""
    return LOCK_PRODUCT(product_id=product_id)


def add_group(name: str, options: list[str]) -> Statement[Group]:
    """Adds a group, in which no product is yet."""
    return ADD_GROUP(name=name, options=options)


def change_group(group_id: int, *, name: str | None, options: list[str] | None) -> Statement[Group]:
    """Changes a group that the caller has locked; None leaves the value as it is."""
    return CHANGE_GROUP(group_id=group_id, name=name, options=options)


def read_group(group_id: int) -> Statement[Group]:
    """A group; no row when there is none."""
    return READ_GROUP(group_id=group_id)


def lock_group(group_id: int) -> Statement[Group]:
    """A group as it and its members are until this transaction changes them."""
    return LOCK_GROUP(group_id=group_id)


def lock_groups(product_id: int, group_id: int | None) -> Statement[Group]:
    """The group that a product is to join; the one that it leaves is locked with it."""
    return LOCK_GROUPS(product_id=product_id, group_id=group_id)


def groups(*, before: int | None, limit: int) -> Statement[Group]:
    """Groups, newest first; those before a group's id."""
    return GROUPS(before_id=before, limit=limit)


def members(group_id: int | None) -> Statement[Member]:
    """The products of a group, for sale or not, at most ``MEMBERS_MAX``."""
    return MEMBERS(group_id=group_id)


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


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _new_token() -> str:
    return os.urandom(16).hex()
