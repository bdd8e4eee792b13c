"""The catalogue: search, filters, pagination, ETags, and changing a product."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

import httpx

from tools.e2e.client import JsonObject
from tools.e2e.context import CATEGORY, ScenarioContext, expect, unique
from tools.e2e.groups.order import next_link
from tools.e2e.scenario import Scenario

PRICES = (1000, 2000, 3000, 4000, 5000)
PAGES_MAX = 200


def search_matches_parts_of_names(context: ScenarioContext) -> None:
    """A part of a name matches: Korean, English in any case, wildcards literally."""
    mark = unique()
    laptop = context.create_product(name=f"{mark} 가벼운노트북 Alpha")["id"]
    mouse = context.create_product(name=f"{mark} 무선마우스 BETA")["id"]
    special = context.create_product(name=f"{mark} 100%_할인\\")["id"]
    _listed(context, {"name": mark}, lambda ids: ids == {laptop, mouse, special})
    none: set[int] = set()
    expected = {
        f"{mark} 가벼운": {laptop},
        "벼운노트북": {laptop},
        "노트북 alpha": {laptop},
        f"{mark} 무선": {mouse},
        "마우스 beta": {mouse},
        "마우스 BeTa": {mouse},
        f"{mark} 100%_": {special},
        f"{mark}%": none,
        f"{mark[:-1]}_": none,
        f"{mark} 없는말": none,
    }
    ours = {laptop, mouse, special}
    for text, ids in expected.items():
        pages = _walk(context, {"name": text, "category": CATEGORY, "limit": 100})
        seen = {product_id for page in pages for product_id in page}
        context.check.equal(f"name={text.replace(mark, '…')}", seen & ours, ids)


def category_and_price_filter_the_list(context: ScenarioContext) -> None:
    """Category and price range filter the list; the range includes both ends."""
    mark, ids = _priced(context)
    both = {"name": mark, "minPrice": 2000, "maxPrice": 4000}
    context.check.equal("minPrice and maxPrice", set(_ids(_list(context, both))), set(ids[1:4]))
    low = {"name": mark, "maxPrice": 1000}
    context.check.equal("maxPrice alone", _ids(_list(context, low)), ids[:1])
    high = {"name": mark, "minPrice": 5000}
    context.check.equal("minPrice alone", _ids(_list(context, high)), ids[4:])
    here = {"name": mark, "category": CATEGORY}
    context.check.equal("the right category", set(_ids(_list(context, here))), set(ids))
    elsewhere = {"name": mark, "category": "no such category"}
    context.check.equal("another category", _ids(_list(context, elsewhere)), [])
    crossed = _list(context, {"minPrice": 2, "maxPrice": 1})
    context.check.problem("minPrice over maxPrice: 422", crossed, 422)
    known: list[JsonObject] = expect(context.get("/categories", context.customer(1)), 200).json()
    names = [category["name"] for category in known]
    context.check.that("/categories lists the category", CATEGORY in names, known)


def pagination_visits_every_product_once(context: ScenarioContext) -> None:
    """Following Link: rel="next" returns every product exactly once."""
    mark, ids = _priced(context)
    pages = _walk(context, {"name": mark, "limit": 2})
    context.check.equal("pages of two, two and one", [len(page) for page in pages], [2, 2, 1])
    walked = [product_id for page in pages for product_id in page]
    context.check.equal("every product once", sorted(walked), sorted(ids))
    descending = [
        i for page in _walk(context, {"name": mark, "limit": 2, "sort": "-price"}) for i in page
    ]
    ascending = [
        i for page in _walk(context, {"name": mark, "limit": 2, "sort": "price"}) for i in page
    ]
    context.check.equal("sort=price is ascending", ascending, ids)
    context.check.equal("sort=-price is descending", descending, ids[::-1])


def invalid_query_parameters_answer_400(context: ScenarioContext) -> None:
    """Invalid limits and cursors answer 400; others are ignored."""
    customer = context.customer(1)
    for query in (
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=x",
        "limit=1000000000",
        "limit=1&limit=99",
        "cursor=garbage",
        "cursor=",
        "minPrice=x",
        "sort=password",
    ):
        response = context.get(f"/products?{query}", customer)
        context.check.problem(f"products?{query}: 400", response, 400)
    tracked = context.get("/products?utm_source=news&limit=1", customer)
    context.check.that("the parameter of a tracker is ignored", tracked.status_code == 200)


def unchanged_product_answers_304(context: ScenarioContext) -> None:
    """If-None-Match answers 304 for an unchanged product, 200 for a changed one."""
    product, customer = context.create_product(price=1000), context.customer(1)
    path = f"/products/{product['id']}"
    first = expect(context.get(path, customer), 200)
    etag = first.headers.get("ETag", "")
    context.check.that("a product has an ETag", etag.startswith(('"', 'W/"')), dict(first.headers))
    same = context.get(path, customer, if_none_match=etag)
    context.check.status("If-None-Match with the current ETag: 304", same, 304)
    context.check.equal("304 has no body", same.content, b"")
    other = context.get(path, customer, if_none_match='"something else"')
    context.check.status("If-None-Match with another ETag: 200", other, 200)
    changed = context.write("PATCH", path, {"price": 1100}, context.staff(), if_match=etag)
    context.check.status("staff change the price: 200", changed, 200)
    after = context.get(path, customer, if_none_match=etag)
    shown = (after.status_code, after.json()["price"] if after.content else None)
    context.check.equal("after a change the product is sent again", shown, (200, 1100))


def product_changes_require_the_current_etag(context: ScenarioContext) -> None:
    """A change needs If-Match with the current ETag; the list shows the change soon."""
    mark = unique()
    product, staff = context.create_product(name=mark, price=1000, stock=3), context.staff()
    path = f"/products/{product['id']}"
    etag = expect(context.get(path, staff), 200).headers["ETag"]
    unconditional = context.write("PATCH", path, {"price": 1}, staff)
    context.check.problem("without If-Match: 428", unconditional, 428)
    expect(context.write("PATCH", path, {"price": 1200}, staff, if_match=etag), 200)
    stale = context.write("PATCH", path, {"price": 1}, staff, if_match=etag)
    context.check.problem("with a stale If-Match: 412", stale, 412)
    context.check.equal("the price is that of the first change", _price(context, path), 1200)
    listed = context.poll(
        lambda: _list(context, {"name": mark}).json(),
        lambda found: [one["price"] for one in found] == [1200],
    )
    context.check.equal(
        "the list shows the new price soon", [one["price"] for one in listed], [1200]
    )
    more = context.post(f"{path}/stock", {"quantity": 4}, staff)
    context.check.status("restocking answers 200", more, 200)
    context.check.equal("the stock increased by the quantity", context.stock(product["id"]), 7)


def texts_are_in_the_language_that_is_preferred(context: ScenarioContext) -> None:
    """Names in another language are shown and found where it is preferred, and nowhere else."""
    product, mark = context.create_product(), unique()
    path = f"/products/{product['id']}"
    texts = {"en": {"name": f"Lamp {mark}", "description": "Warm"}}
    change = {"translations": texts}
    expect(context.write("PATCH", path, change, context.staff(), if_match="*"), 200)
    for language, name in (("en-GB,en", f"Lamp {mark}"), ("ko", product["name"])):
        shown = context.get(path, accept_language=language)
        context.check.equal(f"its name in {language}", shown.json()["name"], name)
        said = shown.headers["Content-Language"]
        context.check.equal("its language", said, language[:2])
        found = context.get(f"/products?name={mark}", accept_language=language)
        ids = [product["id"]] if language != "ko" else []
        context.check.equal(f"it is found in {language}", _ids(found), ids)
    plain = context.get(path)
    context.check.equal("without a language its own", plain.json()["name"], product["name"])


def _priced(context: ScenarioContext) -> tuple[str, list[int]]:
    """Five products of ascending price with a common mark, once the list shows them."""
    mark = unique()
    ids = [context.create_product(name=mark, price=price)["id"] for price in PRICES]
    _listed(context, {"name": mark, "limit": 100}, lambda seen: seen == set(ids))
    return mark, ids


def _listed(context: ScenarioContext, query: JsonObject, holds: Callable[[set[int]], bool]) -> None:
    """Waits until the cached list shows the new products."""
    seen = context.poll(lambda: set(_ids(_list(context, query))), holds)
    context.check.that("the list shows new products soon", holds(seen), seen)


def _walk(context: ScenarioContext, query: JsonObject) -> list[list[int]]:
    pages: list[list[int]] = []
    path = f"/products?{urlencode(query)}"
    while path and len(pages) < PAGES_MAX:
        page = expect(context.get(path, context.customer(1)), 200)
        pages.append(_ids(page))
        path = next_link(page)
    return pages


def _list(context: ScenarioContext, query: JsonObject) -> httpx.Response:
    return context.get(f"/products?{urlencode(query)}", context.customer(1))


def _ids(response: httpx.Response) -> list[int]:
    return [product["id"] for product in expect(response, 200).json()]


def _price(context: ScenarioContext, path: str) -> int:
    price: int = expect(context.get(path, context.customer(1)), 200).json()["price"]
    return price


STAFF = ("staff",)
SCENARIOS = (
    Scenario(search_matches_parts_of_names, STAFF),
    Scenario(category_and_price_filter_the_list, STAFF),
    Scenario(pagination_visits_every_product_once, STAFF),
    Scenario(invalid_query_parameters_answer_400),
    Scenario(unchanged_product_answers_304, STAFF),
    Scenario(product_changes_require_the_current_etag, STAFF),
    Scenario(texts_are_in_the_language_that_is_preferred, STAFF),
)
