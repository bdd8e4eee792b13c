"""read_orders: an account's own orders in pages, and waiting for a payment (RFC 7240)."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from functions.read_orders import receipt
from functions.read_orders.handler import wait_seconds
from shop.primitives.ids import new_uuid
from tests.harness import FlowHarness, ShopHarness
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


@pytest.mark.parametrize("tail", ["", "/timeline", "/receipt"])
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


def test_receipt_states_lines_payments_refunds_and_seller(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.paid_order(flow.shop.product(price=11_000), 2)
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.run_until_idle()

    answer = buyer.get(f"/orders/{order['id']}/receipt")

    shown = answer.json
    assert (answer.status, answer.headers["vary"]) == (200, "Accept")
    assert shown["seller"] == {"name": "Shop", "registrationNumber": "000-00-00000"}
    assert [item["lineAmount"] for item in shown["items"]] == [22_000]
    assert shown["priceLines"] == order["priceLines"]
    assert (shown["totalAmount"], shown["vatAmount"]) == (22_000, 2_000)
    assert [paid["amount"] for paid in shown["payments"]] == [22_000]
    assert [refund["amount"] for refund in shown["refunds"]] == [22_000]
    assert (shown["paidAmount"], shown["refundedAmount"]) == (22_000, 22_000)


@pytest.mark.parametrize(
    ("language", "title", "unpaid"),
    [("ko", "영수증", "결제되지 않은 주문"), ("en", "Receipt", "Order that is not paid")],
)
def test_receipt_is_a_page_without_script_in_the_language_of_the_request(
    flow: FlowHarness, language: str, title: str, unpaid: str
) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(price=11_000, name="<b>물건</b>")
    path = f"/orders/{buyer.order(product)['id']}/receipt"
    headers = {"accept": "text/html,*/*;q=0.8", "accept-language": language}

    before = buyer.get(path, headers=headers)
    flow.run_until_idle()
    page = buyer.get(path, headers=headers)

    text = page.body.decode()
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-language"] == language
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert f"<h1>{title}</h1>" in text and "&lt;b&gt;물건&lt;/b&gt; × 1" in text
    assert "11,000 KRW" in text and "1,000 KRW" in text and "000-00-00000" in text
    assert "<script" not in text and "<b>" not in text
    assert f"<h1>{unpaid}</h1>" in before.body.decode()


def test_policy_of_the_receipt_permits_its_style_only() -> None:
    digest = b64encode(sha256(receipt.STYLE.encode()).digest()).decode()

    assert f"sha256-{digest}" == receipt.STYLE_HASH


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html", True),
        ("text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("application/json, text/html", False),
        ("text/html, application/json", True),
        ("text/html;q=0.5, application/json", False),
        ("application/json;q=0.5, text/html", True),
        ("text/html;q=0, */*", False),
    ],
)
def test_receipt_has_the_media_type_that_is_preferred(accept: str, is_page: bool) -> None:
    assert receipt.prefers_page(accept) == is_page


def test_receipt_of_another_account_is_not_shown_to_support_either(shop: ShopHarness) -> None:
    order = shop.person().order(shop.product())

    answers = [
        shop.person(role).get(f"/orders/{order['id']}/receipt") for role in ("support", "customer")
    ]

    assert [answer.status for answer in answers] == [404, 404]


def test_receipt_without_price_lines_does_not_state_the_vat(shop: ShopHarness) -> None:
    buyer = shop.person()
    order = buyer.order(shop.product())
    shop.sql("delete from shop.order_price_lines")

    page = buyer.get(f"/orders/{order['id']}/receipt", headers={"accept": "text/html"})

    assert buyer.get(f"/orders/{order['id']}/receipt").json["vatAmount"] is None
    assert page.status == 200 and "물건 × 1" in page.body.decode()
