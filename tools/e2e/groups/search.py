"""The catalogue: searching, filtering, paging, validators, and changing a product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import httpx

from tools.e2e.groups.order import next_link
from tools.e2e.harness import CATEGORY, Stage, expect, unique
from tools.e2e.scenario import Scenario

PRICES = (1000, 2000, 3000, 4000, 5000)
PAGES_MAX = 200


def search_by_words(stage: Stage) -> None:
    """A part of a name finds it: Korean, English in any case, signs literally."""
    mark = unique()
    laptop = stage.product(name=f"{mark} 가벼운노트북 Alpha")["id"]
    mouse = stage.product(name=f"{mark} 무선마우스 BETA")["id"]
    odd = stage.product(name=f"{mark} 100%_할인\\")["id"]
    _listed(stage, {"name": mark}, lambda ids: ids == {laptop, mouse, odd})
    wanted = {
        f"{mark} 가벼운": {laptop},
        "벼운노트북": {laptop},
        "노트북 alpha": {laptop},
        f"{mark} 무선": {mouse},
        "마우스 beta": {mouse},
        "마우스 BeTa": {mouse},
        f"{mark} 100%_": {odd},
        f"{mark}%": set(),
        f"{mark[:-1]}_": set(),
        f"{mark} 없는말": set(),
    }
    ours = {laptop, mouse, odd}
    for word, ids in wanted.items():
        pages = _walk(stage, {"name": word, "category": CATEGORY, "limit": 100})
        seen = {product_id for page in pages for product_id in page}
        stage.check.equal(f"name={word.replace(mark, '…')}", seen & ours, ids)


def filter_by_category_and_price(stage: Stage) -> None:
    """Category and price range narrow the list, both ends included."""
    mark, ids = _priced(stage)
    both = {"name": mark, "minPrice": 2000, "maxPrice": 4000}
    stage.check.equal("minPrice and maxPrice", set(_ids(_list(stage, both))), set(ids[1:4]))
    low = {"name": mark, "maxPrice": 1000}
    stage.check.equal("maxPrice alone", _ids(_list(stage, low)), ids[:1])
    high = {"name": mark, "minPrice": 5000}
    stage.check.equal("minPrice alone", _ids(_list(stage, high)), ids[4:])
    here = {"name": mark, "category": CATEGORY}
    stage.check.equal("the right category", set(_ids(_list(stage, here))), set(ids))
    elsewhere = {"name": mark, "category": "no such category"}
    stage.check.equal("another category", _ids(_list(stage, elsewhere)), [])
    crossed = _list(stage, {"minPrice": 2, "maxPrice": 1})
    stage.check.problem("minPrice over maxPrice: 422", crossed, 422)
    known = expect(stage.get("/categories", stage.customer(1)), 200).json()
    names = [one["name"] if isinstance(one, dict) else one for one in known]
    stage.check.that("categories names the category", CATEGORY in names, known)


def walk_all_pages(stage: Stage) -> None:
    """Following Link: rel="next" sees every product exactly once."""
    mark, ids = _priced(stage)
    pages = _walk(stage, {"name": mark, "limit": 2})
    stage.check.equal("pages of two, two and one", [len(page) for page in pages], [2, 2, 1])
    walked = [product_id for page in pages for product_id in page]
    stage.check.equal("every product once", sorted(walked), sorted(ids))
    dear = [i for page in _walk(stage, {"name": mark, "limit": 2, "sort": "-price"}) for i in page]
    cheap = [i for page in _walk(stage, {"name": mark, "limit": 2, "sort": "price"}) for i in page]
    stage.check.equal("sort=price walks upwards", cheap, ids)
    stage.check.equal("sort=-price walks downwards", dear, ids[::-1])


def refuse_bad_questions(stage: Stage) -> None:
    """Limits, cursors and parameters that make no sense: 400."""
    buyer = stage.customer(1)
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
        "surprise=1",
    ):
        answer = stage.get(f"/products?{query}", buyer)
        stage.check.problem(f"products?{query}: 400", answer, 400)


def answer_not_modified(stage: Stage) -> None:
    """An unchanged product is not sent again; a changed one is."""
    product, buyer = stage.product(price=1000), stage.customer(1)
    path = f"/products/{product['id']}"
    first = expect(stage.get(path, buyer), 200)
    etag = first.headers.get("ETag", "")
    stage.check.that("a product has an ETag", etag.startswith(('"', 'W/"')), dict(first.headers))
    same = stage.get(path, buyer, if_none_match=etag)
    stage.check.status("If-None-Match with it: 304", same, 304)
    stage.check.equal("304 has no body", same.content, b"")
    other = stage.get(path, buyer, if_none_match='"something else"')
    stage.check.status("If-None-Match with another: 200", other, 200)
    changed = stage.write("PATCH", path, {"price": 1100}, stage.staff(), if_match=etag)
    stage.check.status("staff change the price: 200", changed, 200)
    after = stage.get(path, buyer, if_none_match=etag)
    shown = (after.status_code, after.json()["price"] if after.content else None)
    stage.check.equal("then the product is sent again", shown, (200, 1100))


def change_what_was_seen(stage: Stage) -> None:
    """Staff change a product only as they saw it, and the list follows."""
    mark = unique()
    product, staff = stage.product(name=mark, price=1000, stock=3), stage.staff()
    path = f"/products/{product['id']}"
    etag = expect(stage.get(path, staff), 200).headers["ETag"]
    blind = stage.write("PATCH", path, {"price": 1}, staff)
    stage.check.problem("without If-Match: 428", blind, 428)
    expect(stage.write("PATCH", path, {"price": 1200}, staff, if_match=etag), 200)
    stale = stage.write("PATCH", path, {"price": 1}, staff, if_match=etag)
    stage.check.problem("with a stale If-Match: 412", stale, 412)
    stage.check.equal("the price is the first change's", _price(stage, path), 1200)
    listed = stage.eventually(
        lambda: _list(stage, {"name": mark}).json(),
        lambda found: [one["price"] for one in found] == [1200],
    )
    stage.check.equal("the list shows it soon", [one["price"] for one in listed], [1200])
    more = stage.post(f"{path}/stock", {"quantity": 4}, staff)
    stage.check.status("more stock answers 200", more, 200)
    stage.check.equal("stock went up by exactly that", stage.stock(product["id"]), 7)


def _priced(stage: Stage) -> tuple[str, list[int]]:
    """Five products of rising price that share a mark, once the list shows them."""
    mark = unique()
    ids = [stage.product(name=mark, price=price)["id"] for price in PRICES]
    _listed(stage, {"name": mark, "limit": 100}, lambda seen: seen == set(ids))
    return mark, ids


def _listed(stage: Stage, query: dict[str, Any], holds: Callable[[set[int]], bool]) -> None:
    """Wait until the list, which may be old by its cache, shows what was just made."""
    seen = stage.eventually(lambda: set(_ids(_list(stage, query))), holds)
    stage.check.that("the list shows new products soon", holds(seen), seen)


def _walk(stage: Stage, query: dict[str, Any]) -> list[list[int]]:
    pages: list[list[int]] = []
    path = f"/products?{urlencode(query)}"
    while path and len(pages) < PAGES_MAX:
        page = expect(stage.get(path, stage.customer(1)), 200)
        pages.append(_ids(page))
        path = next_link(page)
    return pages


def _list(stage: Stage, query: dict[str, Any]) -> httpx.Response:
    return stage.get(f"/products?{urlencode(query)}", stage.customer(1))


def _ids(response: httpx.Response) -> list[int]:
    return [product["id"] for product in expect(response, 200).json()]


def _price(stage: Stage, path: str) -> int:
    price: int = expect(stage.get(path, stage.customer(1)), 200).json()["price"]
    return price


STAFF = ("staff",)
SCENARIOS = (
    Scenario(search_by_words, STAFF),
    Scenario(filter_by_category_and_price, STAFF),
    Scenario(walk_all_pages, STAFF),
    Scenario(refuse_bad_questions),
    Scenario(answer_not_modified, STAFF),
    Scenario(change_what_was_seen, STAFF),
)
