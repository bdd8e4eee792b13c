"""read_orders: one's own orders, a page at a time, and a wait as RFC 7240 has it."""

from __future__ import annotations

import re

import pytest

from functions.read_orders.handler import wait_seconds
from tests.harness import ShopHarness


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
def test_a_wait_is_a_preference_of_its_own(prefer: str, seconds: int | None) -> None:
    assert wait_seconds(prefer) == seconds


def test_the_wait_that_was_taken_is_named(shop: ShopHarness) -> None:
    buyer = shop.person()
    order = buyer.paid_order(shop.product())

    asked = buyer.get(f"/orders/{order['id']}", headers={"prefer": "wait=99"})
    plain = buyer.get(f"/orders/{order['id']}", headers={"prefer": "handling=lenient"})

    assert (asked.status, asked.headers["preference-applied"]) == (200, "wait=20")
    assert (plain.status, "preference-applied" in plain.headers) == (200, False)


def test_pages_hold_every_order_once_newest_first(shop: ShopHarness) -> None:
    buyer, product = shop.person(), shop.product()
    placed = [buyer.order(product)["id"] for _ in range(5)]
    shop.person().order(product)

    path, pages = "/orders/me?limit=2", []
    while path:
        answer = buyer.get(path)
        pages.append([order["id"] for order in answer.json])
        match = re.fullmatch(r'<(.*)>; rel="next"', answer.headers.get("link", ""))
        path = match[1] if match else ""

    assert pages == [placed[4:2:-1], placed[2:0:-1], placed[:1]]


@pytest.mark.parametrize("tail", ["", "/timeline"])
def test_what_is_no_id_is_not_found_like_an_order_of_nobody(shop: ShopHarness, tail: str) -> None:
    buyer = shop.person()
    other = shop.person().order(shop.product())["id"]
    missing = "01990000-0000-7000-8000-000000000000"

    answers = [buyer.get(f"/orders/{name}{tail}") for name in (missing, other, "me2", "0")]

    bodies = {answer.body.replace(answer.json["instance"].encode(), b"") for answer in answers}
    assert [answer.status for answer in answers] == [404] * 4
    assert len(bodies) == 1
