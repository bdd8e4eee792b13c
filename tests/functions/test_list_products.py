"""list_products: products for sale, in pages of a keyset cursor, cached without stale prices."""

# redis-py does not type its keyword arguments.
# pyright: reportUnknownMemberType=false
# The memory that the in-process copies use is not visible over HTTP.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import base64
import json
import re
import threading
import unicodedata
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import redis as oracle

from functions.list_products.page_cache import (
    ENTRY_BYTES_MAX,
    ENTRY_SECONDS,
    PageCache,
    make_page,
    pack,
)
from functions.list_products.paging import CURSOR_LENGTH_MAX, write_cursor
from shop import catalog
from shop.adapters.cache import Cache
from shop.adapters.statements import Query
from shop.catalog import Filter, Position
from shop.runtime.config import Secret
from tests.harness import MakeShop, Response, ShopHarness, cloned_database
from tests.sample_requests import Samples
from tools.local_platform.function_environment import url_of_role
from tools.local_platform.servers import redis as embedded_redis

UNREACHABLE_REDIS = "redis://127.0.0.1:1"
NO_DATABASE = Secret("postgresql://shop_catalog_ro@127.0.0.1:1/none")
PATIENT_SECONDS = 2.0


@pytest.fixture(autouse=True)
def redis(redis_url: str) -> Any:
    """An empty Redis, since the lists of two tests differ."""
    with closing(oracle.Redis.from_url(redis_url)) as client:
        client.flushall()
        yield client


def ids(answer: Response) -> list[int]:
    assert answer.status == 200, answer.body
    return [product["id"] for product in answer.json]


def next_path(answer: Response) -> str | None:
    link = answer.headers.get("link")
    if link is None:
        return None
    match = re.fullmatch(r'<(/products\?[!-~]+)>; rel="next"', link)
    assert match is not None, link
    return match[1]


def walk(shop: ShopHarness, path: str) -> list[list[int]]:
    """The ids of every page, following Link."""
    pages: list[list[int]] = []
    following: str | None = path
    while following is not None:
        answer = shop.call("GET", following)
        pages.append(ids(answer))
        following = next_path(answer)
    return pages


# ---------------------------------------------------------------- one page


def test_list_is_an_array_of_products(shop: ShopHarness) -> None:
    product = shop.product(price=2500, stock=4, name='"물건"\n<b>')
    shop.sql("update shop.stock set reserved = 1 where product_id = %s", product)

    answer = shop.call("GET", "/products?category=" + quote("시험"))

    assert answer.status == 200
    assert answer.json == [
        {
            "id": product,
            "name": '"물건"\n<b>',
            "description": "",
            "category": "시험",
            "price": 2500,
            "currency": "KRW",
            "stockQuantity": 3,
            "images": [],
            "group": None,
        }
    ]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "public, no-cache"
    assert "link" not in answer.headers


def test_no_match_is_an_empty_array(shop: ShopHarness) -> None:
    answer = shop.call("GET", "/products?category=nothing")

    assert (answer.status, answer.body) == (200, b"[]")


def test_page_has_20_products_by_default_and_100_at_most(shop: ShopHarness) -> None:
    for _ in range(101):
        shop.product()

    assert len(shop.call("GET", "/products").json) == 20
    full = shop.call("GET", "/products?limit=100")
    assert len(full.json) == 100
    assert next_path(full) is not None


def test_withdrawn_products_are_not_listed(shop: ShopHarness) -> None:
    product = shop.product()
    shop.sql("update shop.products set active = false where product_id = %s", product)

    assert product not in ids(shop.call("GET", "/products?limit=100"))


# ---------------------------------------------------------------- paging


@pytest.mark.parametrize("key", ["id", "price", "name"])
def test_pages_contain_every_product_once_in_order(shop: ShopHarness, key: str) -> None:
    names = ["나", "가", "가", "b", "B", "a%", "가"]
    prices = [300, 100, 200, 100, 100, 300, 100]
    made = [
        {"id": shop.product(price=price, name=name), "price": price, "name": name}
        for price, name in zip(prices, names, strict=True)
    ]
    ascending = [p["id"] for p in sorted(made, key=lambda p: (p[key], p["id"]))]

    for sort, expected in ((key, ascending), (f"-{key}", ascending[::-1])):
        for limit in (1, 2, 3, 6, 7, 100):
            path = f"/products?category={quote('시험')}&sort={sort}&limit={limit}"
            pages = walk(shop, path)
            assert [product for page in pages for product in page] == expected, path
            assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1), path


def test_product_added_between_two_pages_shifts_no_other(shop: ShopHarness) -> None:
    cheap, dear = shop.product(price=100), shop.product(price=900)
    first = shop.call("GET", f"/products?category={quote('시험')}&sort=price&limit=1")
    shop.product(price=50)

    following = next_path(first)

    assert following is not None
    assert (ids(first), ids(shop.call("GET", following))) == ([cheap], [dear])


def forged(sort: str, *place: Any) -> str:
    """A forged cursor with a valid checksum."""
    return write_cursor(sort, Filter(), Position(*place))


BAD_QUERIES = [
    "limit=0",
    "limit=101",
    "limit=-1",
    "limit=1e9",
    "limit=1.0",
    "limit=1_0",
    "limit=+1",
    "limit=%201",
    "limit=",
    "limit=１",
    "limit=" + "9" * 5000,
    "limit=1&limit=2",
    "sort=stock",
    "sort=id%20desc",
    "sort=",
    "minPrice=-1",
    "minPrice=1.5",
    "maxPrice=x",
    "maxPrice=9999999999999",
    "name=" + "a" * 65,
    "name=%00",
    "name=a%0Ab",
    "name=%C2%85",
    "name=%ff",
    "name=%ed%a0%80",
    "category=" + "a" * 65,
    "cursor=garbage",
    "cursor=",
    "cursor=" + "A" * (CURSOR_LENGTH_MAX + 1),
    "cursor=%F0%9F%92%A5",
    "cursor=" + base64.urlsafe_b64encode(b"12345678[1,1]").decode().rstrip("="),
    "cursor=" + forged("id", 0, 0),
    "cursor=" + forged("id", 1, 2**63),
    "cursor=" + forged("id", 1, True),
    "cursor=" + forged("id", 1, "1"),
    "cursor=" + forged("id", None, 1),
    "sort=price&cursor=" + forged("price", "1", 1),
    "sort=name&cursor=" + forged("name", 1, 1),
    "sort=name&cursor=" + forged("name", "a\0", 1),
]


def test_invalid_query_gets_400(shop: ShopHarness) -> None:
    for query in BAD_QUERIES:
        answer = shop.call("GET", f"/products?{query}")

        assert answer.status == (414 if len(query) > 2_000 else 400), query[:100]


def test_cursor_of_another_list_gets_400(shop: ShopHarness) -> None:
    for _ in range(2):
        shop.product()
    following = next_path(shop.call("GET", f"/products?category={quote('시험')}&limit=1"))
    assert following is not None
    cursor = following.split("cursor=")[1]

    assert shop.call("GET", f"/products?category={quote('시험')}&cursor={cursor}").status == 200
    for other in ("", "sort=-id&", "category=x&", f"category={quote('시험')}&minPrice=1&"):
        answer = shop.call("GET", f"/products?{other}cursor={cursor}")
        assert (answer.status, answer.error) == (400, "BAD_CURSOR"), other


def test_modified_cursor_gets_400(shop: ShopHarness) -> None:
    for _ in range(2):
        shop.product()
    following = next_path(shop.call("GET", "/products?limit=1"))
    assert following is not None
    cursor = following.split("cursor=")[1]

    changed = [
        cursor[:n] + ("A" if cursor[n] != "A" else "B") + cursor[n + 1 :]
        for n in range(len(cursor))
    ]
    for other in [*changed, cursor + "A", cursor[:-1], cursor + "=="]:
        assert shop.call("GET", f"/products?limit=1&cursor={other}").status == 400, other


# ---------------------------------------------------------------- filters


NAMES = ["테스트 상품 甲", "상품", "Phone 5%", "my PHONE_x", "back\\slash", "STRAßE"]
FOUND: list[tuple[str, list[str]]] = [
    ("상품", ["테스트 상품 甲", "상품"]),
    ("스트 상", ["테스트 상품 甲"]),
    ("甲", ["테스트 상품 甲"]),
    ("phone", ["Phone 5%", "my PHONE_x"]),
    ("PHONE", ["Phone 5%", "my PHONE_x"]),
    ("HO", ["Phone 5%", "my PHONE_x"]),
    ("5%", ["Phone 5%"]),
    ("품 ", ["테스트 상품 甲"]),
    ("품상", []),
    ("SS", []),
    ("k\\", ["back\\slash"]),
    ("%", ["Phone 5%"]),
    ("_", ["my PHONE_x"]),
    ("\\", ["back\\slash"]),
    ("e_x", ["my PHONE_x"]),
    ("5_", []),
    ("' OR 1=1--", []),
    ("straße", ["STRAßE"]),
    ("", NAMES),
]


def test_search_matches_any_part_of_a_name(shop: ShopHarness) -> None:
    for name in NAMES:
        shop.product(name=name)

    for wanted, found in FOUND:
        answer = shop.call("GET", f"/products?category={quote('시험')}&name={quote(wanted)}")
        assert [product["name"] for product in answer.json] == found, wanted


def test_search_matches_every_unicode_normalisation_of_a_name(shop: ShopHarness) -> None:
    """Names are stored composed; what a Mac's keyboard or file system sends may be decomposed."""
    tent = shop.product(name="캠핑 텐트")
    decomposed = unicodedata.normalize("NFD", "텐트")
    assert decomposed != "텐트"

    assert ids(shop.call("GET", f"/products?name={quote(decomposed)}")) == [tent]


def test_read_only_route_cannot_write(shop: ShopHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    read_only = Query(
        catalog.CategoryList, "select current_setting('transaction_read_only') as body"
    )
    monkeypatch.setattr(catalog, "CATEGORIES", read_only)

    assert shop.call("GET", "/categories").body == b"on"


def test_search_text_of_64_characters_is_accepted(shop: ShopHarness) -> None:
    shop.product(name="가" * 65)

    answer = shop.call("GET", f"/products?name={quote('가' * 64)}")

    assert [product["name"] for product in answer.json] == ["가" * 65]


def test_price_filter_includes_its_bounds(shop: ShopHarness) -> None:
    low, middle, high = (shop.product(price=price) for price in (100, 200, 300))
    path = f"/products?category={quote('시험')}"

    assert ids(shop.call("GET", f"{path}&minPrice=200")) == [middle, high]
    assert ids(shop.call("GET", f"{path}&maxPrice=200")) == [low, middle]
    assert ids(shop.call("GET", f"{path}&minPrice=200&maxPrice=200")) == [middle]


def test_empty_price_range_gets_400(shop: ShopHarness) -> None:
    assert shop.call("GET", "/products?minPrice=2&maxPrice=1").status == 422


# ---------------------------------------------------------------- one product, categories


def test_product_has_an_etag(shop: ShopHarness) -> None:
    product = shop.product(price=2500, stock=4)

    answer = shop.call("GET", f"/products/{product}")

    assert answer.json["id"] == product
    assert answer.json == shop.call("GET", f"/products?category={quote('시험')}").json[0]
    assert answer.headers["etag"] == '"1.4"'


def test_invalid_product_id_gets_404(shop: ShopHarness) -> None:
    beyond = [str(2**63), str(2**63 - 1), "999999", "9" * 200]
    for odd in ["0", "-1", "abc", "9e99", "01", "1.0", "A" * 200, *beyond]:
        answer = shop.call("GET", f"/products/{odd}")

        assert (answer.status, answer.error) == (404, "NOT_FOUND"), odd


def test_withdrawn_and_missing_products_get_the_same_404(shop: ShopHarness) -> None:
    product = shop.product()
    shop.sql("update shop.products set active = false where product_id = %s", product)
    withdrawn = shop.call("GET", f"/products/{product}")
    missing = shop.call("GET", f"/products/{product + 1}")

    assert withdrawn.status == 404
    assert withdrawn.json | {"instance": ""} == missing.json | {"instance": ""}


def test_unchanged_product_gets_304(shop: ShopHarness) -> None:
    product = shop.product(stock=4)
    path = f"/products/{product}"
    etag = shop.call("GET", path).headers["etag"]

    for header in (etag, f"W/{etag}", f'"x", {etag}', "*", f'W/{etag[:-1]}-gzip"'):
        known = shop.call("GET", path, headers={"if-none-match": header})
        assert (known.status, known.body, known.headers["etag"]) == (304, b"", etag), header
    for header in ('"x"', "garbage", ""):
        assert shop.call("GET", path, headers={"if-none-match": header}).status == 200, header

    many = ", ".join(f'"{number}"' for number in range(21))
    assert shop.call("GET", path, headers={"if-none-match": many}).status == 400

    shop.sql("update shop.stock set reserved = 1 where product_id = %s", product)
    changed = shop.call("GET", path, headers={"if-none-match": etag})
    assert (changed.status, changed.headers["etag"]) == (200, '"1.3"')


def test_read_of_another_state_than_if_match_names_gets_412(shop: ShopHarness) -> None:
    path = f"/products/{shop.product()}"
    etag = shop.call("GET", path).headers["etag"]

    for header, status in ((etag, 200), ("*", 200), ('"x"', 412), (f"W/{etag}", 412)):
        both = {"if-match": header, "if-none-match": '"y"'}
        assert shop.call("GET", path, headers=both).status == status, header


def test_proxies_may_not_transform_a_product_so_its_tag_stays_strong(shop: ShopHarness) -> None:
    answer = shop.call("GET", f"/products/{shop.product()}")

    assert answer.headers["cache-control"] == "public, no-cache, no-transform"


def test_unchanged_list_gets_304(shop: ShopHarness) -> None:
    for _ in range(2):
        shop.product()
    first = shop.call("GET", "/products?limit=1")

    known = shop.call("GET", "/products?limit=1", headers={"if-none-match": first.headers["etag"]})

    assert re.fullmatch(r'"[0-9a-f]{32}"', first.headers["etag"])
    assert (known.status, known.body) == (304, b"")
    assert known.headers["etag"] == first.headers["etag"]
    assert known.headers["link"] == first.headers["link"]


def test_categories_are_listed_by_name(shop: ShopHarness) -> None:
    shop.product()

    answer = shop.call("GET", "/categories")

    names = [category["name"] for category in answer.json]
    assert answer.json == [{"name": name} for name in sorted(names)]
    assert "시험" in names
    known = shop.call("GET", "/categories", headers={"if-none-match": answer.headers["etag"]})
    assert known.status == 304


# ---------------------------------------------------------------- caching


def test_cached_list_needs_no_database(
    shop: ShopHarness, make_shop: Callable[..., ShopHarness]
) -> None:
    path = "/products?limit=2"
    answer = shop.call("GET", path)
    without_database = make_shop(database_url=NO_DATABASE)

    assert without_database.call("GET", path).body == answer.body
    assert without_database.call("GET", "/products?limit=3").status == 503


def test_list_is_shared_between_processes_through_redis(shop: ShopHarness, redis_url: str) -> None:
    there, here = PageCache(), PageCache()
    with closing(Cache(redis_url, PATIENT_SECONDS)) as cache:
        page = make_page("[1]", '</products?x>; rel="next"')
        there.find_or_make(cache, "digest", lambda: page)

        assert here.find_or_make(cache, "digest", refuse_to_make) == page


def test_long_list_is_not_stored_in_redis(redis_url: str, redis: oracle.Redis) -> None:
    long = make_page(f"[{'1' * ENTRY_BYTES_MAX}]", "")
    with closing(Cache(redis_url, PATIENT_SECONDS)) as cache:
        assert PageCache().find_or_make(cache, "long", lambda: long) == long

    assert redis.keys("catalog:*:long") == []


def test_three_hundred_long_lists_do_not_reset_the_rate_limit() -> None:
    """On the local platform's Redis, whose policy is that of the chart and of Compose."""
    with embedded_redis() as url, closing(Cache(url, PATIENT_SECONDS)) as cache:
        counts = [cache.increment_beside("rate:address:1", "none", 120) for _ in range(7)]
        for number in range(300):
            page = make_page(f"[{'1' * 600_000}]", "")
            PageCache().find_or_make(cache, str(number), lambda page=page: page)
        # also when they are short enough to be stored and fill the memory
        for number in range(2_000):
            cache.set(f"catalog:token:{number}", b"1" * ENTRY_BYTES_MAX, ENTRY_SECONDS)

        assert counts[-1] == (7, 0)
        assert cache.increment_beside("rate:address:1", "none", 120) == (8, 0)


def refuse_to_make() -> Any:
    raise AssertionError("the page was to be found")


@pytest.mark.parametrize("lists_are_seen_before", [True, False])
def test_changed_price_is_listed_at_once(
    shop: ShopHarness, redis_url: str, lists_are_seen_before: bool
) -> None:
    product, staff = shop.product(price=100), shop.person("staff")
    path = f"/products?category={quote('시험')}"
    if lists_are_seen_before:
        assert shop.call("GET", path).json[0]["price"] == 100

    changed = staff.patch(f"/products/{product}", {"price": 200}, headers={"if-match": "*"})

    assert changed.status == 200
    assert shop.call("GET", path).json[0]["price"] == 200


def test_list_read_before_an_invalidation_is_not_cached(redis_url: str) -> None:
    """A reader that read before the change and writes after it."""
    slow, fresh = PageCache(), PageCache()
    with closing(Cache(redis_url, PATIENT_SECONDS)) as cache:

        def read_old_then_be_overtaken() -> Any:
            catalog.invalidate_lists(cache)
            return make_page("[old]", "")

        answered = slow.find_or_make(cache, "digest", read_old_then_be_overtaken)
        assert answered.body == b"[old]", "this reader read before the change"

        for reader in (slow, fresh):
            page = reader.find_or_make(cache, "digest", lambda: make_page("[new]", ""))
            assert page.body == b"[new]"


def test_lost_version_token_does_not_revive_an_old_list(
    redis_url: str, redis: oracle.Redis
) -> None:
    with closing(Cache(redis_url, PATIENT_SECONDS)) as cache:
        PageCache().find_or_make(cache, "digest", lambda: make_page("[old]", ""))
        redis.delete(catalog.VERSION_KEY)

        page = PageCache().find_or_make(cache, "digest", lambda: make_page("[new]", ""))

    assert page.body == b"[new]"


def test_undecodable_cache_entry_is_a_miss(redis_url: str, redis: oracle.Redis) -> None:
    cut = pack(make_page("[1]", ""))[:-1]
    with closing(Cache(redis_url, PATIENT_SECONDS)) as cache:
        for garbage in (b"", b"[]", b"\n\n[]", b'"0"\n\n[]', cut, b"\xff\xfe\n\xff\n\xff"):
            PageCache().find_or_make(cache, "digest", lambda: make_page("[old]", ""))
            (key,) = redis.keys("catalog:*:digest")
            redis.set(key, garbage)

            page = PageCache().find_or_make(cache, "digest", lambda: make_page("[new]", ""))

            assert page.body == b"[new]", garbage
            redis.delete(key)


def test_invalid_version_token_disables_caching(redis_url: str, redis: oracle.Redis) -> None:
    redis.set(catalog.VERSION_KEY, "not a token")
    with closing(Cache(redis_url, PATIENT_SECONDS)) as cache:
        page = PageCache().find_or_make(cache, "digest", lambda: make_page("[1]", ""))

    assert page.body == b"[1]"
    assert redis.keys("catalog:*:digest") == []


def test_cached_lists_expire(redis_url: str, redis: oracle.Redis) -> None:
    with closing(Cache(redis_url, PATIENT_SECONDS)) as cache:
        PageCache().find_or_make(cache, "digest", lambda: make_page("[1]", ""))

    (key,) = redis.keys("catalog:*:digest")
    assert 0 < redis.pttl(key) <= 1_000


def test_in_process_copy_expires(redis_url: str) -> None:
    """Stock in lists is at most two seconds old: one here, one in Redis."""
    lists, made = PageCache(), iter(range(1_000_000))
    with closing(Cache(None)) as cache:

        def body() -> bytes:
            return lists.find_or_make(cache, "d", lambda: make_page(f"[{next(made)}]", "")).body

        assert (body(), body()) == (b"[0]", b"[0]"), "without Redis the copy serves a second"
        patience = threading.Event()
        for _ in range(300):
            if body() == b"[1]":
                return
            patience.wait(0.01)
        raise AssertionError("the copy outlived its second")


def test_in_process_cache_is_bounded() -> None:
    lists, cache = PageCache(), Cache(None)
    big = "x" * 100_000

    for n in range(2_000):
        lists.find_or_make(cache, str(n), lambda: make_page(big, ""))

    assert lists._bytes <= 8 * 1024 * 1024
    assert len(lists._copies) <= 256


def test_lists_are_read_from_the_database_without_redis(
    make_shop: Callable[..., ShopHarness],
) -> None:
    shop = make_shop(redis_url=Secret(UNREACHABLE_REDIS))
    product, staff = shop.product(price=100), shop.person("staff")
    path = f"/products?category={quote('시험')}&sort=-id"

    assert ids(shop.call("GET", path)) == [product]
    changed = staff.patch(f"/products/{product}", {"price": 200}, headers={"if-match": "*"})

    assert changed.status == 200, "staff can change products without Redis"
    patience = threading.Event()
    for _ in range(300):
        if shop.call("GET", path).json[0]["price"] == 200:
            return
        patience.wait(0.01)
    raise AssertionError("a copy outlived the second it may live without Redis")


def test_lists_are_read_from_the_replica_and_events_claimed_at_the_primary(
    make_shop: MakeShop, postgres_url: str, template_url: str, redis: oracle.Redis
) -> None:
    """The replica rejects writes, as a standby does, and has a product that the primary lacks."""
    with cloned_database(postgres_url, template_url) as replica:
        read_only = "options=-c%20default_transaction_read_only%3Don"
        url = url_of_role(replica, "shop_catalog_ro")
        shop = make_shop(database_replica_url=Secret(f"{url}?{read_only}"))
        with psycopg.connect(replica, autocommit=True) as connection:
            connection.execute("update shop.products set name = 'only in the replica'")
        product, staff = shop.product(price=100), shop.person("staff")
        staff.patch(f"/products/{product}", {"price": 200}, headers={"if-match": "*"})
        before = redis.get(catalog.VERSION_KEY)
        (event,) = [row for row in shop.outbox() if row["type"] == "product.changed"]

        listed = {item["name"] for item in shop.call("GET", "/products").json}
        answer = shop.deliver(event, "list_products")

        assert listed == {"only in the replica"}
        assert shop.call("GET", f"/products/{product}").status == 404, "it lags"
        assert (answer.status, shop.outbox()) == (204, [])
        assert redis.get(catalog.VERSION_KEY) != before
        for app in shop.apps.values():
            app.services.close()


def test_product_changed_event_invalidates_lists(shop: ShopHarness, redis: oracle.Redis) -> None:
    product, staff = shop.product(price=100), shop.person("staff")
    staff.patch(f"/products/{product}", {"price": 200}, headers={"if-match": "*"})
    before = redis.get(catalog.VERSION_KEY)
    (event,) = [row for row in shop.outbox() if row["type"] == "product.changed"]

    answer = shop.deliver(event, "list_products")

    assert (answer.status, answer.body) == (204, b"")
    after = redis.get(catalog.VERSION_KEY)
    assert after is not None and after != before
    assert shop.outbox() == [], "the only subscriber has it"
    assert json.dumps(event["data"]) == json.dumps({"productId": product, "productVersion": 2})


def test_search_matches_wildcard_characters_literally(samples: Samples) -> None:
    samples.shop.product(name=r"100%_\ wool")
    for text, found in (("%", 1), ("_", 1), ("\\", 1), ("0%_", 1), ("%%", 0), ("__", 0), ("0_", 0)):
        answer = samples.shop.call("GET", f"/products?name={quote(text)}&limit=100")
        names = [p["name"] for p in answer.json]
        assert names.count(r"100%_\ wool") == found, text
    assert samples.shop.call("GET", "/products?minPrice=2&maxPrice=1").status == 422


def test_changed_price_is_listed_and_charged_at_once(samples: Samples) -> None:
    """A cached list does not delay a price change."""
    staff, product = samples.people["staff"], samples.shop.product(price=1000, name="비싼 물건")
    where = "/products?name=%EB%B9%84%EC%8B%BC"
    assert [p["price"] for p in samples.shop.call("GET", where).json] == [1000]

    changed = staff.patch(f"/products/{product}", {"price": 2000}, headers={"if-match": "*"})

    assert changed.status == 200
    assert [p["price"] for p in samples.shop.call("GET", where).json] == [2000]
    assert samples.owner.order(product)["totalAmount"] == 2000


def test_product_and_order_lists_are_paged(samples: Samples) -> None:
    """Every list has a page size and a link to the next page."""
    samples.shop.sql(
        "insert into shop.products (name, category, price_minor, currency) "
        "select 'hole-18', name, 1, 'KRW' from shop.categories, generate_series(1, 300) limit 300"
    )
    samples.shop.sql(
        "insert into shop.stock (product_id, on_hand) "
        "select product_id, 1 from shop.products where name = 'hole-18'"
    )
    for _ in range(25):
        samples.order()

    products = samples.shop.call("GET", "/products?name=hole-18&limit=100")
    by_default = samples.shop.call("GET", "/products?name=hole-18")
    orders = samples.owner.get("/orders/me")

    assert (len(products.json), len(by_default.json)) == (100, 20)
    assert (len(orders.json), 'rel="next"' in orders.headers["link"]) == (20, True)
    assert 'rel="next"' in products.headers["link"]
