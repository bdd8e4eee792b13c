"""manage_orders: operators find the orders of all customers."""

from __future__ import annotations

from urllib.parse import urlencode
from uuid import UUID

import pytest

from shop.orders import search
from shop.primitives.ids import new_uuid
from tests.harness import Person, ShopHarness


def found(operator: Person, **criteria: object) -> list[str]:
    answer = operator.get(f"/admin/orders?{urlencode(criteria)}")
    assert answer.status == 200, answer.body
    assert answer.json["total"] == {"count": len(answer.json["orders"]), "exact": True}
    return [order["id"] for order in answer.json["orders"]]


@pytest.mark.parametrize("role", ["staff", "support", "finance"])
def test_orders_are_found_by_each_criterion_and_by_all(shop: ShopHarness, role: str) -> None:
    operator, first, second = shop.person(role), shop.person(), shop.person()
    cheap, dear = shop.product(price=100), shop.product(price=9_000)
    paid, pending = first.paid_order(cheap)["id"], first.order(dear)["id"]
    other = second.order(cheap, 2)["id"]
    (account,) = shop.sql("select email from shop.users where user_id = %s", second.user_id)

    assert found(operator) == [other, pending, paid]
    assert found(operator, id=paid) == [paid]
    assert found(operator, id=str(new_uuid())) == []
    assert found(operator, id=str(search.LAST_ID)) == []
    assert found(operator, userId=first.user_id) == [pending, paid]
    assert found(operator, email=account["email"].upper()) == [other]
    assert found(operator, email="absent@shop.local") == []
    assert found(operator, productId=cheap, status="PAID", maxTotal=100) == [paid]
    assert found(operator, minTotal=200, maxTotal=9_000) == [other, pending]
    assert found(operator, id=paid, userId=second.user_id) == []


def test_days_are_inclusive_business_days(shop: ShopHarness) -> None:
    operator, buyer, product = shop.person("support"), shop.person(), shop.product()
    # midnight of 2026-02-02 in Seoul is 15:00 UTC of the day before
    for number, milliseconds in enumerate((1769957999999, 1769958000000, 1770044399999)):
        shop.sql(
            "insert into shop.orders (order_id, user_id, status, total_minor, currency, "
            "payment_method, expires_at, hard_expires_at) select %s, user_id, status, "
            "total_minor, currency, payment_method, expires_at, hard_expires_at "
            "from shop.orders where order_id = %s",
            UUID(int=(milliseconds << 80) + number),
            buyer.order(product)["id"],
        )

    days = found(operator, fromDay="2026-02-02", toDay="2026-02-02")

    assert [UUID(order).int >> 80 for order in days] == [1770044399999, 1769958000000]


def test_pages_have_each_order_once_and_the_same_total(shop: ShopHarness) -> None:
    operator, buyer, product = shop.person("staff"), shop.person(), shop.product()
    placed = [buyer.order(product)["id"] for _ in range(3)]

    first = operator.get(f"/admin/orders?productId={product}&status=PENDING&limit=2")
    second = operator.get(first.headers["link"].partition("<")[2].partition(">")[0])

    ids = [order["id"] for page in (first, second) for order in page.json["orders"]]
    assert ids == placed[::-1]
    assert first.json["total"] == second.json["total"] == {"count": 3, "exact": True}
    assert "link" not in second.headers


def test_total_above_the_limit_is_not_exact(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, buyer, product = shop.person("staff"), shop.person(), shop.product()
    for _ in range(3):
        buyer.order(product)
    monkeypatch.setattr("shop.orders.search.COUNT_MAX", 2)
    monkeypatch.setattr("functions.manage_orders.handler.COUNT_MAX", 2)

    answer = operator.get("/admin/orders?limit=1")

    assert answer.json["total"] == {"count": 2, "exact": False}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        ("id=1", "id"),
        ("cursor=x", "cursor"),
        ("userId=0", "userId"),
        ("email=kim", "email"),
        ("productId=-1", "productId"),
        ("status=paid", "status"),
        ("fromDay=2026-02-30", "fromDay"),
        ("toDay=1770044399", "toDay"),
        ("minTotal=1.5", "minTotal"),
        ("maxTotal=", "maxTotal"),
        ("limit=101", "limit"),
        ("userId=1&email=kim@example.kr", ""),
    ],
)
def test_invalid_parameter_is_400_and_named(shop: ShopHarness, query: str, field: str) -> None:
    answer = shop.person("support").get(f"/admin/orders?{query}")

    assert (answer.status, answer.error) == (400, "BAD_QUERY")
    assert [error["field"] for error in answer.json["errors"]] == [field]
