"""Every link, entity tag, token and id that the shop hands out is accepted when it is sent back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shop.accounts import EMAIL_LENGTH_MAX
from shop.runtime.http_messages import PATH_MAX
from tests.harness import Response, ShopHarness, shop_of_module
from tests.sample_requests import ROUTES, Samples, sample_request

ID_MAX = 2**63 - 1
NAME_MAX, CATEGORY_MAX, SEARCH_MAX = 200, 50, 64
AMOUNT_MAX = 1_000_000_000_000
LETTERS = st.characters(exclude_categories=["C", "Zl", "Zp"])
SORTS = ("id", "-id", "price", "-price", "name", "-name")
# the letters that take most room in a cursor or a link, or change when they are normalised
WIDE = ("가", "é", "😀", '"', "\\", "\U0001d160", "a")


def one_line(text: str, longest: int) -> str:
    """The text as a product or category may be called."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).strip()[:longest])


def names(longest: int) -> st.SearchStrategy[str]:
    """Names of any length up to the longest, of any letters or of one wide letter."""

    def shortened(text: str) -> str:
        return one_line(text, longest)

    def fits(text: str) -> bool:
        return 0 < len(text) <= longest

    repeated = st.builds(str.__mul__, st.sampled_from(WIDE), st.integers(1, longest))
    texts: st.SearchStrategy[str] = st.text(LETTERS, min_size=1, max_size=longest) | repeated
    return texts.map(shortened).filter(fits)


@pytest.fixture(scope="module")
def samples(request: pytest.FixtureRequest) -> Iterator[Samples]:
    with shop_of_module(request) as shop:
        yield Samples(shop)


def next_path(answer: Response) -> str | None:
    match = re.fullmatch(r'<([!-~]+)>; rel="next"', answer.headers.get("link", ""))
    return match[1] if match else None


def walk(samples: Samples, path: str, token: str | None = None) -> list[object]:
    """The ids of all pages, following the links."""
    found: list[object] = []
    following: str | None = path
    while following is not None:
        answer = samples.shop.call("GET", following, token=token)
        assert answer.status == 200, (following, answer.body)
        found += [item["id"] for item in answer.json]
        following = next_path(answer)
    return found


def three_products(shop: ShopHarness, name: str, category: str) -> list[int]:
    """Products of one name, or of one that sorts after it, in a category of their own."""
    shop.sql("insert into shop.categories (name) values (%s) on conflict do nothing", category)
    rows = shop.sql(
        "with made as (insert into shop.products (name, category, price_minor, currency) "
        "select %s, %s, %s, 'KRW' from generate_series(1, 3) returning product_id) "
        "insert into shop.stock (product_id, on_hand) select product_id, 1 from made "
        "returning product_id",
        name,
        category,
        AMOUNT_MAX,
    )
    return sorted(row["product_id"] for row in rows)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(name=names(NAME_MAX), category=names(CATEGORY_MAX - 8), sort=st.sampled_from(SORTS))
@example(name="😀" * NAME_MAX, category="😀" * (CATEGORY_MAX - 8), sort="name")
@example(name="가" * NAME_MAX, category="é" * (CATEGORY_MAX - 8), sort="-name")
@example(name=one_line("\U0001d160" * 60, NAME_MAX), category='"' * 10, sort="name")
def test_next_link_is_accepted_for_every_sort_filter_and_name(
    samples: Samples, name: str, category: str, sort: str
) -> None:
    category += uuid4().hex[:8]
    made = three_products(samples.shop, name, category)
    ascending = made[::-1] if sort.startswith("-") else made
    filters = f"sort={sort}&category={quote(category)}&minPrice=0&maxPrice={AMOUNT_MAX}"
    part = name[:SEARCH_MAX].strip()

    for text in ("", part, unicodedata.normalize("NFD", part)):
        path = f"/products?limit=1&{filters}&name={quote(text)}"
        if len(path) <= PATH_MAX:
            assert walk(samples, path) == ascending, path


def test_renamed_product_with_a_long_name_moves_the_next_page_to_its_new_place(
    samples: Samples,
) -> None:
    category = uuid4().hex
    first, second, third = three_products(samples.shop, "다" * NAME_MAX, category)
    path = f"/products?sort=name&limit=1&category={category}"
    following = next_path(samples.shop.call("GET", path))
    assert following is not None
    samples.shop.sql("update shop.products set name = '가' where product_id = %s", first)

    assert walk(samples, following) == [second, third]


def test_next_link_of_orders_is_accepted(samples: Samples) -> None:
    placed = [samples.order() for _ in range(3)]

    assert walk(samples, "/orders/me?limit=1", samples.owner.token) == placed[::-1]


def test_location_of_every_created_resource_is_readable(samples: Samples) -> None:
    located = 0
    for key, route in ROUTES.items():
        person = samples.person_for(route)
        if route.method != "POST" or route.path in (
            "/payments/webhook",
            "/orders/{orderId}/payments",
        ):
            continue
        token = person.token if person else None
        answer = samples.send(route, sample_request(samples, ROUTES[key]), token=token)
        if "location" in answer.headers:
            located += 1
            token = token or samples.shop.token(answer.json["id"])
            read = samples.shop.call("GET", answer.headers["location"], token=token)
            assert read.status == 200, (key, answer.headers["location"], read.body)
    assert located >= 4


def test_every_entity_tag_is_known_when_it_is_sent_back(samples: Samples) -> None:
    """But for a webhook's, which is for If-Match only: receivers change what is shown with it."""
    tagged = 0
    for key, route in ROUTES.items():
        if route.method != "GET" or route.path == "/admin/webhooks/{webhookId}":
            continue
        person = samples.person_for(route)
        token = person.token if person else None
        sent = sample_request(samples, route)
        tag = samples.shop.call("GET", sent.path, token=token).headers.get("etag")
        if tag is not None:
            tagged += 1
            known = {"if-none-match": tag}
            again = samples.shop.call("GET", sent.path, token=token, headers=known)
            assert (again.status, again.body) == (304, b""), key
    assert tagged >= 3


def test_tokens_of_the_longest_address_are_accepted(samples: Samples) -> None:
    local, label = "a" * 64, "b" * 61
    email = f"{local}@{label}.{label}.{'c' * (EMAIL_LENGTH_MAX - 64 - 1 - 2 * 62 - 3)}.kr"
    assert len(email) == EMAIL_LENGTH_MAX
    assert samples.shop.register(email).status == 201

    session = samples.shop.log_in(email).json
    renewed = samples.shop.call("POST", "/auth/refresh", {"refreshToken": session["refreshToken"]})

    assert renewed.status == 200
    me = samples.shop.call("GET", "/users/me", token=renewed.json["accessToken"])
    assert (me.status, me.json["email"]) == (200, email)


def test_largest_product_id_is_accepted_wherever_an_id_is(samples: Samples) -> None:
    shop, buyer, staff = samples.shop, samples.shop.person(), samples.people["staff"]
    shop.sql("insert into shop.categories (name) values ('시험') on conflict do nothing")
    shop.sql(
        "insert into shop.products (product_id, name, category, price_minor, currency) "
        "overriding system value values (%s, 'largest', '시험', 1000, 'KRW')",
        ID_MAX,
    )
    shop.sql("insert into shop.stock (product_id, on_hand) values (%s, 9)", ID_MAX)
    line = {"productId": ID_MAX, "quantity": 1}

    answers = [
        shop.call("GET", f"/products/{ID_MAX}"),
        buyer.post("/cart/items", line),
        buyer.patch(f"/cart/items/{ID_MAX}", {"quantity": 2}),
        buyer.post("/orders/from-cart"),
        buyer.post("/orders", line | {"paymentMethod": "CARD"}),
        staff.post(f"/products/{ID_MAX}/stock", {"quantity": 1}),
        shop.call("GET", "/products?sort=-id&limit=1"),
    ]

    assert [answer.status for answer in answers] == [200, 201, 200, 201, 201, 200, 200]
    following = next_path(answers[-1])
    assert following is not None
    assert shop.call("GET", following).status == 200
