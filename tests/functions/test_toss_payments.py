"""An order that is paid through Toss Payments' widget, by card or to a virtual account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from shop.runtime.config import Secret
from tests.harness import MakeShop, Person, Response, ShopHarness
from tests.unit.fake_toss import SECRET_KEY, VIRTUAL_ACCOUNT, FakeToss

PRICE = 15_000


@pytest.fixture
def toss() -> Iterator[FakeToss]:
    toss = FakeToss()
    yield toss
    toss.close()


@pytest.fixture
def shop(make_shop: MakeShop, toss: FakeToss) -> ShopHarness:
    return make_shop(
        payment_provider="toss",
        payment_provider_url=toss.url,
        payment_provider_api_key=Secret(SECRET_KEY),
        payment_provider_timeout_seconds=10.0,
        payment_client_key="test_ck_double",
    )


def _ordered(shop: ShopHarness, buyer: Person) -> Any:
    order = buyer.order(shop.product(price=PRICE))
    shop.deliver_all()
    return buyer.get(f"/orders/{order['id']}").json


def _returned(shop: ShopHarness, buyer: Person, order: Any, payment_key: str) -> Any:
    """The order after the customer returned to the success page."""
    path = f"/orders/{order['id']}/payments/{order['payment']['id']}/confirm"
    assert buyer.post(path, {"token": payment_key, "amount": PRICE}).status == 202
    shop.deliver_all()
    return buyer.get(f"/orders/{order['id']}").json


def _webhook(shop: ShopHarness, event: object) -> Response:
    return shop.call("POST", "/payments/webhook", raw=json.dumps(event).encode())


def test_widget_is_opened_with_the_payment_and_confirmed_by_its_key(
    shop: ShopHarness, toss: FakeToss
) -> None:
    buyer = shop.person()
    order = _ordered(shop, buyer)
    action = order["payment"]["nextAction"]
    expected = {
        "type": "widget", "clientKey": "test_ck_double", "orderId": order["payment"]["id"],
        "amount": PRICE, "currency": "KRW", "until": action["until"],
    }  # fmt: skip
    assert action == expected

    payment_key = toss.authenticate(action["orderId"], PRICE)
    paid = _returned(shop, buyer, order, payment_key)

    assert (paid["status"], paid["payment"]["status"]) == ("PAID", "CAPTURED")
    assert toss.captures(f"shop:{action['orderId']}") == 1


def test_customer_who_agreed_to_another_amount_pays_nothing(
    shop: ShopHarness, toss: FakeToss
) -> None:
    buyer = shop.person()
    order = _ordered(shop, buyer)
    payment_key = toss.authenticate(order["payment"]["id"], 1)

    after = _returned(shop, buyer, order, payment_key)

    assert after["payment"]["nextAction"] == order["payment"]["nextAction"]
    assert toss.captures(f"shop:{order['payment']['id']}") == 0


def test_virtual_account_is_paid_when_the_deposit_is_reported(
    shop: ShopHarness, toss: FakeToss
) -> None:
    buyer = shop.person()
    order = _ordered(shop, buyer)
    payment_id = order["payment"]["id"]
    waiting = _returned(shop, buyer, order, toss.authenticate(payment_id, PRICE, VIRTUAL_ACCOUNT))
    action = waiting["payment"]["nextAction"]
    assert (action["type"], action["bank"], action["amount"]) == ("transfer", "11", PRICE)

    forged = {"status": "DONE", "orderId": payment_id, "secret": "forged"}
    assert _webhook(shop, forged).status == 200
    shop.deliver_all()
    assert buyer.get(f"/orders/{order['id']}").json["status"] == "PENDING"

    assert _webhook(shop, toss.deposit(payment_id)).status == 200
    shop.deliver_all()

    assert buyer.get(f"/orders/{order['id']}").json["status"] == "PAID"


@pytest.mark.parametrize(
    "event", [{}, {"orderId": "another shop's"}, {"orderId": str(uuid4()), "status": "DONE"}]
)
def test_webhook_about_no_payment_of_the_shop_changes_nothing(
    shop: ShopHarness, event: dict[str, str]
) -> None:
    assert _webhook(shop, event).status == 200
    assert shop.outbox() == []


def test_webhook_that_is_not_json_is_rejected(shop: ShopHarness) -> None:
    assert shop.call("POST", "/payments/webhook", raw=b"{").status == 400
