"""read_orders: an account's own orders in pages, and waiting for a payment (RFC 7240)."""

from __future__ import annotations

import re

import pytest

from functions.read_orders.handler import wait_seconds
from shop.primitives.ids import new_uuid
from tests.harness import ShopHarness
from tests.sample_requests import Samples


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=5", 5),
        ('wait="5"', 5),
        ("WAIT = 5", 5),
        ("respond-async, wait=10", 10),
        ("wait=3; strict, handling=lenient", 3),
        ("wait=4, wait=9", 4),
        ("wait=21", 20),
        ("wait=0", 0),
        ("", None),
        ("respond-async", None),
        ("handling=lenient; wait=5", None),
        ('note="a, wait=5"', None),
        ("await=5", None),
        ("wait=-1", None),
        ("wait=soon", None),
        ("wait=5s", None),
        ("wait=٥", None),
    ],
)
def test_wait_preference_is_parsed(prefer: str, seconds: int | None) -> None:
    assert wait_seconds(prefer) == seconds


def test_applied_wait_is_named_in_the_response(shop: ShopHarness) -> None:
    buyer = shop.person()
    order = buyer.paid_order(shop.product())

    asked = buyer.get(f"/orders/{order['id']}", headers={"prefer": "wait=99"})
    plain = buyer.get(f"/orders/{order['id']}", headers={"prefer": "handling=lenient"})

    assert (asked.status, asked.headers["preference-applied"]) == (200, "wait=20")
    assert (plain.status, "preference-applied" in plain.headers) == (200, False)


def test_pages_contain_every_order_once_newest_first(shop: ShopHarness) -> None:
    buyer, product = shop.person(), shop.product()
    placed = [buyer.order(product)["id"] for _ in range(5)]
    shop.person().order(product)

    path, pages = "/orders/me?limit=2", list[list[str]]()
    while path:
        answer = buyer.get(path)
        pages.append([order["id"] for order in answer.json])
        match = re.fullmatch(r'<(.*)>; rel="next"', answer.headers.get("link", ""))
        path = match[1] if match else ""

    assert pages == [placed[4:2:-1], placed[2:0:-1], placed[:1]]


@pytest.mark.parametrize("tail", ["", "/timeline"])
def test_invalid_foreign_and_missing_ids_get_the_same_404(shop: ShopHarness, tail: str) -> None:
    buyer = shop.person()
    other = shop.person().order(shop.product())["id"]
    missing = "01990000-0000-7000-8000-000000000000"

    answers = [buyer.get(f"/orders/{name}{tail}") for name in (missing, other, "me2", "0")]

    bodies = {answer.body.replace(answer.json["instance"].encode(), b"") for answer in answers}
    assert [answer.status for answer in answers] == [404] * 4
    assert len(bodies) == 1


def test_unknown_order_ids_get_404(samples: Samples) -> None:
    answers = {samples.owner.get(f"/orders/{new_uuid()}").status for _ in range(200)}

    assert answers == {404}


def test_order_of_another_account_gets_404_and_its_id_is_random(samples: Samples) -> None:
    """Ids are random and row policies check the owner too."""
    order = samples.order()

    assert samples.shop.person().get(f"/orders/{order}").status == 404
    assert samples.shop.call("GET", f"/orders/{order}").status == 401
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", order
    )
    forced = samples.shop.sql(
        "select relname from pg_class where relnamespace = 'shop'::regnamespace "
        "and relrowsecurity and relforcerowsecurity"
    )
    assert {"orders", "order_lines", "payments", "cart_items"} <= {r["relname"] for r in forced}


def test_order_without_price_lines_shows_its_goods_without_vat(
    shop: ShopHarness,
) -> None:
    buyer, product = shop.person(), shop.product(price=1_000)
    order = buyer.order(product)
    shop.sql("delete from shop.order_price_lines")

    shown = buyer.get(f"/orders/{order['id']}").json

    assert shown["priceLines"] == [
        {
            "kind": "GOODS",
            "productId": product,
            "amount": shown["totalAmount"],
            "vatAmount": None,
            "vatPercent": None,
        }
    ]
