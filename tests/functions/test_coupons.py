"""Coupons: what they take off, who may use them how often, and what becomes of their uses."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.functions.test_returns import items
from tests.harness import (
    FlowHarness,
    Person,
    Response,
    ShopHarness,
    assert_idle_and_consistent,
    assert_invariants,
    run_concurrently,
)


def coupon(staff: Person, code: str = "SPRING", **terms: Any) -> dict[str, Any]:
    given = terms if "discountBasisPoints" in terms else {"discountAmount": 500, **terms}
    answer = staff.post("/admin/coupons", {"code": code, **given})
    assert answer.status == 201, answer.body
    return dict(answer.json)


def order(buyer: Person, product: int, *codes: str, quantity: int = 1, **more: Any) -> Response:
    body = {"productId": product, "quantity": quantity, "paymentMethod": "CARD", **more}
    return buyer.post("/orders", {**body, "coupons": list(codes)})


def uses(shop: ShopHarness, code: str = "SPRING") -> tuple[int, int]:
    """What the coupon counts, and how many orders hold a use of it."""
    (row,) = shop.sql(
        "select uses, (select count(*) from shop.coupon_uses u where u.code = c.code "
        "and given_back_at is null) as held from shop.coupons c where code = %s",
        code,
    )
    return row["uses"], row["held"]


def reasons(answer: Response) -> dict[str, str]:
    assert (answer.status, answer.error) == (409, "COUPON_NOT_USABLE"), answer.body
    return {each["code"]: each["reason"] for each in answer.json["coupons"]}


@pytest.fixture
def staff(shop: ShopHarness) -> Person:
    return shop.person("staff")


@pytest.fixture
def buyer(shop: ShopHarness) -> Person:
    return shop.person()


def test_order_with_a_coupon_costs_less_and_shows_it(
    flow: FlowHarness, shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    coupon(staff, discountBasisPoints=1_000, discountMaximum=250)
    first, second = shop.product(price=1_000), shop.product(price=500)
    body = {"items": items((first, 2), (second, 1)), "paymentMethod": "CARD"}

    placed = buyer.post("/orders", {**body, "coupons": ["spring"], "expectedTotalAmount": 2_250})

    assert placed.status == 201, placed.body
    assert placed.json["totalAmount"] == 2_250
    assert placed.json["coupons"] == [{"code": "SPRING", "discountAmount": 250}]
    lines = [
        (line["kind"], line["productId"], line["amount"], line["vatAmount"])
        for line in placed.json["priceLines"]
    ]
    assert lines == [
        ("GOODS", first, 2_000, 182),
        ("GOODS", second, 500, 45),
        ("DISCOUNT", first, -200, -18),
        ("DISCOUNT", second, -50, -5),
    ]
    assert uses(shop) == (1, 1)
    assert buyer.get(f"/orders/{placed.json['id']}").json["coupons"] == placed.json["coupons"]
    assert_invariants(flow, at_rest=False)


def test_order_of_a_cart_takes_off_what_its_summary_shows(
    flow: FlowHarness, shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    coupon(staff, "SPRING", discountBasisPoints=1_500, combinable=True)
    coupon(staff, "THANKS", discountAmount=1_000, combinable=True)
    coupon(staff, "ALONE")
    for price, quantity in ((999, 3), (10, 1)):
        body = {"productId": shop.product(price=price), "quantity": quantity}
        assert buyer.post("/cart/items", body).status == 201

    (shown,) = buyer.get("/cart/summary?coupons=thanks,Spring,NOSUCH,alone").json["totals"]
    taken = {each["code"]: (each["discountAmount"], each["reason"]) for each in shown["coupons"]}
    (known,) = buyer.get("/cart/summary?coupons=THANKS,SPRING").json["totals"]
    body = {"coupons": ["THANKS", "SPRING"], "expectedTotalAmount": shown["totalAmount"]}
    placed = buyer.post("/orders/from-cart", body)

    assert taken == {
        "SPRING": (451, None),
        "THANKS": (1_000, None),
        "NOSUCH": (0, "UNKNOWN"),
        "ALONE": (0, "NOT_COMBINABLE"),
    }
    assert placed.status == 201, placed.body
    assert (placed.json["totalAmount"], placed.json["priceLines"]) == (1_556, known["priceLines"])
    assert_invariants(flow, at_rest=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("state = 'ENDED'", "ENDED"),
        ("starts_at = now() - interval '2 s', ends_at = now() - interval '1 s'", "ENDED"),
        ("starts_at = now() + interval '1 h'", "NOT_STARTED"),
        ("goods_min_minor = 1001", "MINIMUM"),
        ("currency = 'USD'", "CURRENCY"),
        ("uses = 3, uses_max = 3", "USED_UP"),
        ("discount_minor = null, discount_basis_points = 9", "MINIMUM"),
    ],
)
def test_coupon_that_cannot_be_used_gets_409_with_the_reason_and_writes_nothing(
    shop: ShopHarness, staff: Person, buyer: Person, change: str, reason: str
) -> None:
    coupon(staff, combinable=True)
    shop.sql(f"update shop.coupons set {change}")
    product = shop.product(price=1_000)

    answer = order(buyer, product, "SPRING")

    assert reasons(answer) == {"SPRING": reason}
    assert shop.sql("select order_id from shop.orders") == []
    assert shop.sql("select order_id from shop.coupon_uses") == []
    assert shop.stock_of(product) == (10, 0)


def test_unknown_and_uncombinable_coupons_get_409_and_a_malformed_code_422(
    shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    coupon(staff)
    product = shop.product(price=1_000)

    assert reasons(order(buyer, product, "SPRING", "NOSUCH")) == {
        "NOSUCH": "UNKNOWN",
        "SPRING": "NOT_COMBINABLE",
    }
    for codes in (
        ["ab"],
        ["쿠폰"],
        ["SPRING", "spring"],
        ["-SPRING"],
        [f"C{n}0" for n in range(6)],
    ):
        assert order(buyer, product, *codes).status == 422
    assert buyer.get("/cart/summary?coupons=a%20b").status == 400
    assert shop.sql("select order_id from shop.orders") == []


def test_coupons_that_take_all_of_it_off_get_422(
    shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    coupon(staff, discountAmount=5_000)

    answer = order(buyer, shop.product(price=1_000), "SPRING")

    assert (answer.status, answer.error) == (422, "NOTHING_TO_PAY")
    assert uses(shop) == (0, 0)


def test_customer_uses_a_coupon_no_more_often_than_allowed(
    flow: FlowHarness, shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    coupon(staff, usesPerCustomerMaximum=1)
    product, other = shop.product(price=1_000), shop.person()

    first = order(buyer, product, "SPRING")
    again = order(buyer, product, "SPRING")

    assert (first.status, reasons(again)) == (201, {"SPRING": "USED_BY_YOU"})
    assert order(other, product, "SPRING").status == 201
    assert buyer.patch(f"/orders/{first.json['id']}/cancel").status == 200
    assert uses(shop) == (1, 1)
    assert order(buyer, product, "SPRING").status == 201
    assert_invariants(flow, at_rest=False)


def test_many_customers_use_a_coupon_exactly_as_often_as_it_allows(
    flow: FlowHarness, shop: ShopHarness, staff: Person
) -> None:
    coupon(staff, usesMaximum=10)
    product = shop.product(price=1_000, stock=100)
    buyers = [shop.person() for _ in range(25)]

    answers = run_concurrently(*(partial(order, each, product, "SPRING") for each in buyers))

    placed = [answer for answer in answers if answer.status == 201]
    rejected = [reasons(answer) for answer in answers if answer.status != 201]
    assert len(placed) == 10
    assert rejected == [{"SPRING": "USED_UP"}] * 15
    assert uses(shop) == (10, 10)
    assert shop.stock_of(product) == (100, 10)
    assert_invariants(flow, at_rest=False)


def test_repeated_order_uses_its_coupon_once(
    shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    coupon(staff)
    line = {"productId": shop.product(), "quantity": 1}
    body = {**line, "paymentMethod": "CARD", "coupons": ["SPRING"]}

    first = buyer.post("/orders", body, key="a-key-of-this-test-01")
    shop.sql("delete from shop.idempotency")
    again = buyer.post("/orders", body, key="a-key-of-this-test-01")

    assert (first.status, again.status) == (201, 201)
    assert first.json["id"] == again.json["id"]
    assert uses(shop) == (1, 1)


def test_expired_order_gives_its_coupon_to_the_order_that_takes_its_stock(
    flow: FlowHarness, shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    coupon(staff, usesMaximum=2)
    product, other = shop.product(price=1_000, stock=1), shop.person()
    assert order(buyer, product, "SPRING").status == 201
    shop.sql(
        "update shop.orders set expires_at = now() - interval '1 s', charge_at = null, "
        "created_at = created_at - interval '1 h'"
    )

    placed = order(other, product, "SPRING")

    assert placed.status == 201, placed.body
    assert uses(shop) == (1, 1)
    assert_invariants(flow, at_rest=False)


def test_declined_order_gives_its_coupon_back_and_a_paid_one_keeps_it(flow: FlowHarness) -> None:
    shop = flow.shop
    staff, buyer, product = shop.person("staff"), shop.person(), shop.product(price=1_000)
    coupon(staff)

    declined = order(buyer, product, "SPRING", paymentMethod="CARD_DECLINED")
    paid = order(buyer, product, "SPRING")
    flow.run_until_idle()
    flow.expire_order(declined.json["id"])
    flow.sweep_all()

    assert buyer.get(f"/orders/{declined.json['id']}").json["status"] == "CANCELLED"
    assert buyer.get(f"/orders/{paid.json['id']}").json["status"] == "PAID"
    assert uses(shop) == (1, 1)
    assert buyer.patch(f"/orders/{paid.json['id']}/cancel").status == 200
    flow.run_until_idle()
    assert buyer.get(f"/orders/{paid.json['id']}").json["status"] == "CANCELLED"
    assert uses(shop) == (1, 1)
    assert_idle_and_consistent(flow)


def test_units_of_a_discounted_order_give_back_exactly_what_was_paid_for_them(
    flow: FlowHarness,
) -> None:
    shop = flow.shop
    staff, buyer = shop.person("staff"), shop.person()
    coupon(staff, discountAmount=100)
    first, second = shop.product(price=333), shop.product(price=1_000)
    body = {"items": items((first, 3), (second, 1)), "paymentMethod": "CARD"}
    placed = buyer.post("/orders", {**body, "coupons": ["SPRING"]}).json
    flow.run_until_idle()

    amounts: list[int] = []
    for product in (first, first, second):
        answer = buyer.post(f"/orders/{placed['id']}/cancellations", {"items": items((product, 1))})
        assert answer.status == 200, answer.body
        amounts.append(answer.json["returns"][-1]["items"][0]["amount"])
        flow.run_until_idle()
    assert buyer.patch(f"/orders/{placed['id']}/cancel").status == 200
    flow.run_until_idle()

    assert placed["totalAmount"] == 1_899
    assert amounts == [316, 317, 949]
    after = buyer.get(f"/orders/{placed['id']}").json
    assert (after["status"], after["refundedAmount"]) == ("CANCELLED", 1_899)
    assert_idle_and_consistent(flow)


def test_staff_change_until_when_and_how_often_a_coupon_is_used(
    shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    made = coupon(staff, usesMaximum=5)
    assert order(buyer, shop.product(), "SPRING").status == 201
    path = "/admin/coupons/spring"
    tag = staff.get(path).headers["etag"]
    assert order(buyer, shop.product(), "SPRING").status == 201

    changed = staff.patch(path, {"usesMaximum": None, "endsAt": None}, headers={"if-match": tag})
    outdated = staff.patch(path, {"usesMaximum": 7}, headers={"if-match": tag})
    low = staff.patch(path, {"usesMaximum": 1}, headers={"if-match": "*"})
    ended = staff.delete(path)
    late = staff.patch(path, {"usesMaximum": 9}, headers={"if-match": "*"})

    assert (changed.status, changed.json["usesMaximum"], changed.json["uses"]) == (200, None, 2)
    assert changed.json | {"usesMaximum": 5, "uses": 0} == made
    assert outdated.status == 412
    assert (low.status, low.error, low.json["uses"]) == (409, "LIMIT_BELOW_USES", 2)
    assert (ended.status, ended.json["state"]) == (200, "ENDED")
    assert (late.status, late.error) == (409, "COUPON_ENDED")
    assert staff.delete(path).json == ended.json
    entries = shop.sql("select action, object_id from shop.audit_log where object_kind = 'coupon'")
    assert [(row["action"], row["object_id"]) for row in entries] == [
        ("coupon.added", "SPRING"),
        ("coupon.changed", "SPRING"),
        ("coupon.ended", "SPRING"),
    ]


def test_invalid_coupon_gets_an_error_and_writes_nothing(
    shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    past = "2025-01-01T00:00:00Z"
    amount = {"discountAmount": 1}
    for body in (
        {},
        {**amount, "discountBasisPoints": 1},
        {"discountBasisPoints": 10_001},
        {"discountAmount": 0},
        {**amount, "discountMaximum": 1},
        {**amount, "endsAt": past},
        {**amount, "startsAt": past, "endsAt": past},
        {**amount, "usesMaximum": 0},
        {**amount, "currency": "USD"},
        {**amount, "code": "a_b"},
    ):
        assert staff.post("/admin/coupons", {"code": "SPRING", **body}).status == 422, body
    assert staff.post("/admin/coupons", {"code": "SPRING", **amount}).status == 201
    again = staff.post("/admin/coupons", {"code": "spring", **amount})

    assert (again.status, again.error) == (409, "COUPON_EXISTS")
    assert staff.get("/admin/coupons/NOSUCH").status == 404
    assert staff.get("/admin/coupons/a_b").status == 404
    assert buyer.get("/admin/coupons").status == 403
    assert len(shop.sql("select code from shop.coupons")) == 1


def test_coupons_are_listed_by_code_in_pages(shop: ShopHarness, staff: Person) -> None:
    for code in ("CCC", "AAA", "BBB"):
        coupon(staff, code)

    first = staff.get("/admin/coupons?limit=2")
    more = staff.get("/admin/coupons?limit=2&cursor=BBB")

    assert [each["code"] for each in first.json] == ["AAA", "BBB"]
    assert 'cursor=BBB>; rel="next"' in first.headers["link"]
    assert ([each["code"] for each in more.json], "link" in more.headers) == (["CCC"], False)
