"""Shipping fees: versions that staff add, what they cost in carts and orders, what is refunded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.functions.test_returns import items
from tests.harness import (
    REFUNDED,
    FlowHarness,
    Person,
    Response,
    ShopHarness,
    assert_idle_and_consistent,
)

JEJU = {"postcodeFrom": "63000", "postcodeTo": "63644", "amount": 3_000}
ADDRESS = {"recipient": "김", "phone": "010-1234-5678", "postcode": "63122", "line1": "제주시"}


def fee(staff: Person, amount: int = 2_500, **terms: Any) -> dict[str, Any]:
    answer = staff.post("/admin/shipping-fees", {"amount": amount, **terms})
    assert answer.status == 201, answer.body
    return dict(answer.json)


def order(buyer: Person, product: int, quantity: int = 1, **more: Any) -> Response:
    body = {"productId": product, "quantity": quantity, "paymentMethod": "CARD", **more}
    return buyer.post("/orders", body)


def shipping_of(document: dict[str, Any]) -> list[tuple[int, int]]:
    lines = [line for line in document["priceLines"] if line["kind"] == "SHIPPING"]
    return [(line["amount"], line["vatAmount"]) for line in lines]


@pytest.fixture
def staff(shop: ShopHarness) -> Person:
    return shop.person("staff")


@pytest.fixture
def buyer(shop: ShopHarness) -> Person:
    return shop.person()


def test_without_a_version_shipping_costs_nothing(shop: ShopHarness, buyer: Person) -> None:
    placed = order(buyer, shop.product())

    assert (placed.json["totalAmount"], shipping_of(placed.json)) == (1_000, [])


def test_cart_and_order_cost_the_same_fee(shop: ShopHarness, staff: Person, buyer: Person) -> None:
    fee(staff, freeFrom=30_000, surcharges=[JEJU])
    product = shop.product(price=1_001)
    buyer.post("/cart/items", {"productId": product, "quantity": 3})

    summary = buyer.get("/cart/summary").json["totals"][0]
    there = buyer.get("/cart/summary?postcode=63122").json["totals"][0]
    abroad = buyer.get("/cart/summary?postcode=63122&country=JP").json["totals"][0]
    placed = buyer.post(
        "/orders/from-cart",
        {"shippingAddress": ADDRESS, "expectedTotalAmount": there["totalAmount"]},
    )

    assert (summary["totalAmount"], shipping_of(summary)) == (5_503, [(2_500, 227)])
    assert (there["totalAmount"], shipping_of(there)) == (8_503, [(5_500, 500)])
    assert abroad == summary
    assert placed.status == 201, placed.body
    assert placed.json["priceLines"] == there["priceLines"]
    assert placed.json["totalAmount"] == 8_503


@pytest.mark.parametrize(("quantity", "coupons", "amount"), [(2, [], 0), (2, ["TEN"], 2_500)])
def test_shipping_is_free_from_an_amount_less_discounts(
    shop: ShopHarness, staff: Person, buyer: Person, quantity: int, coupons: list[str], amount: int
) -> None:
    fee(staff, freeFrom=30_000)
    staff.post("/admin/coupons", {"code": "TEN", "discountAmount": 10})

    placed = order(buyer, shop.product(price=15_000), quantity, coupons=coupons)

    assert sum(part for part, _ in shipping_of(placed.json)) == amount


def test_surcharge_is_added_where_shipping_is_free(
    shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    fee(staff, freeFrom=1_000, surcharges=[JEJU], vatPercent=0)

    placed = order(buyer, shop.product(), shippingAddress=ADDRESS)

    assert shipping_of(placed.json) == [(3_000, 0)]


def test_fee_counts_in_the_expected_total(shop: ShopHarness, staff: Person, buyer: Person) -> None:
    product = shop.product()
    fee(staff)

    without = order(buyer, product, expectedTotalAmount=1_000)
    with_fee = order(buyer, product, expectedTotalAmount=3_500)

    assert (without.status, without.error) == (409, "PRICE_CHANGED")
    assert without.json["totalAmount"] == 3_500
    assert with_fee.status == 201


def test_order_that_coupons_make_free_costs_its_shipping(
    flow: FlowHarness, shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    fee(staff)
    staff.post("/admin/coupons", {"code": "ALL", "discountBasisPoints": 10_000})

    placed = order(buyer, shop.product(), coupons=["ALL"])
    flow.run_until_idle()

    assert placed.json["totalAmount"] == 2_500
    assert_idle_and_consistent(flow)


def test_later_version_applies_from_its_beginning(
    shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    product = shop.product()
    first = fee(staff, 1_000)
    later = datetime.now(UTC) + timedelta(hours=1)
    second = fee(staff, 2_000, startsAt=later.isoformat(timespec="seconds"))

    before = order(buyer, product)
    shop.sql("update shop.shipping_fees set created_at = created_at - interval '2 hours'")
    shop.sql("update shop.shipping_fees set starts_at = starts_at - interval '2 hours'")
    after = order(buyer, product)

    assert (first["state"], second["state"]) == ("ACTIVE", "PLANNED")
    assert shipping_of(before.json) == [(1_000, 91)]
    assert shipping_of(after.json) == [(2_000, 182)]
    states = {each["version"]: each["state"] for each in staff.get("/admin/shipping-fees").json}
    assert states == {1: "ENDED", 2: "ACTIVE"}


def test_correction_with_the_same_beginning_applies(staff: Person) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    fee(staff, 1_000, startsAt=later)
    fee(staff, 1_500, startsAt=later)
    fee(staff, 500)

    pages = [staff.get("/admin/shipping-fees?limit=2"), staff.get("/admin/shipping-fees?cursor=2")]

    assert [[each["version"] for each in page.json] for page in pages] == [[3, 2], [1]]
    assert pages[0].headers["link"] == ('</admin/shipping-fees?limit=2&cursor=2>; rel="next"')


def test_etags_have_the_version_that_applies(shop: ShopHarness, staff: Person) -> None:
    fee(staff)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    fee(staff, 3_000, startsAt=later)
    paths = ("/admin/shipping-fees", "/admin/shipping-fees/2")

    tags = [staff.get(path).headers["etag"] for path in paths]
    known = [
        staff.get(path, headers={"if-none-match": tag}).status
        for path, tag in zip(paths, tags, strict=True)
    ]
    shop.sql("update shop.shipping_fees set created_at = created_at - interval '2 hours'")
    shop.sql("update shop.shipping_fees set starts_at = starts_at - interval '2 hours'")
    changed = [
        staff.get(path, headers={"if-none-match": tag})
        for path, tag in zip(paths, tags, strict=True)
    ]

    assert tags == ['"1.2"', '"1.2"']
    assert known == [304, 304]
    assert [(answer.status, answer.headers["etag"]) for answer in changed] == [
        (200, '"2.2"'),
        (200, '"2.2"'),
    ]


@pytest.mark.parametrize(
    "terms",
    [
        {"amount": -1},
        {"amount": 1, "freeFrom": 0},
        {"amount": 1, "vatPercent": 101},
        {"amount": 1, "startsAt": "2026-01-01T00:00:00Z"},
        {"amount": 1, "startsAt": "tomorrow"},
        {"amount": 1, "surcharges": [{**JEJU, "postcodeTo": "62999"}]},
        {"amount": 1, "surcharges": [{**JEJU, "postcodeTo": "636"}]},
        {"amount": 1, "surcharges": [{**JEJU, "amount": 0}]},
        {"amount": 1, "surcharges": [{**JEJU, "postcodeFrom": "63-00"}]},
        {"amount": 1, "surcharges": [JEJU] * 101},
    ],
)
def test_malformed_version_is_rejected(
    shop: ShopHarness, staff: Person, terms: dict[str, Any]
) -> None:
    answer = staff.post("/admin/shipping-fees", terms)

    assert (answer.status, answer.error) == (422, "INVALID")
    assert shop.sql("select version from shop.shipping_fees") == []


@pytest.mark.parametrize("version", ["0", "9", "x", "1.0", "9999999999"])
def test_missing_version_gets_404(staff: Person, version: str) -> None:
    assert staff.get(f"/admin/shipping-fees/{version}").status == 404


def test_each_version_has_an_entry_in_the_audit_log(shop: ShopHarness, staff: Person) -> None:
    added = fee(staff, surcharges=[JEJU])

    (entry,) = shop.sql(
        "select actor_id, object_id, after from shop.audit_log where action = 'shipping_fee.added'"
    )
    assert (entry["actor_id"], entry["object_id"]) == (staff.user_id, "1")
    assert entry["after"] == added


def test_fee_is_given_back_with_an_order_of_which_nothing_was_sent(
    flow: FlowHarness, shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    fee(staff)
    product = shop.product()
    placed = buyer.paid_order(product, 2)
    path = f"/orders/{placed['id']}/cancellations"

    first = buyer.post(path, {"items": items((product, 1))})
    flow.run_until_idle()
    in_part = buyer.get(f"/orders/{placed['id']}").json["refundedAmount"]
    last = buyer.post(path, {"items": items((product, 1))})
    flow.run_until_idle()

    assert (first.status, last.status, in_part) == (200, 200, 1_000)
    assert buyer.get(f"/orders/{placed['id']}").json["refundedAmount"] == 4_500
    assert_idle_and_consistent(flow)


def test_fee_of_a_cancelled_order_is_given_back(
    flow: FlowHarness, shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    fee(staff)
    placed = buyer.paid_order(shop.product())

    buyer.patch(f"/orders/{placed['id']}/cancel")
    flow.run_until_idle()

    assert buyer.get(f"/orders/{placed['id']}").json["refundedAmount"] == 3_500
    assert flow.outcome(placed) == REFUNDED
    assert_idle_and_consistent(flow)


def test_fee_is_kept_when_everything_comes_back(
    flow: FlowHarness, shop: ShopHarness, staff: Person, buyer: Person
) -> None:
    fee(staff)
    product = shop.product()
    placed = buyer.paid_order(product, 2)
    path = f"/admin/orders/{placed['id']}/shipments"
    shipment = staff.post(path, {}).json["id"]
    sent = {"status": "SHIPPED", "carrier": "cj", "trackingNumber": "1234"}
    for change in (sent, {"status": "DELIVERED"}):
        assert staff.patch(f"{path}/{shipment}", change).status == 200

    body = {"items": items((product, 2)), "reason": "too small"}
    asked = buyer.post(f"/orders/{placed['id']}/returns", body).json["id"]
    path = f"/admin/orders/{placed['id']}/returns/{asked}"
    assert shop.person("support").patch(path, {"status": "APPROVED"}).status == 200
    assert staff.post(f"{path}/receipt", {}).status == 200
    flow.run_until_idle()

    assert buyer.get(f"/orders/{placed['id']}").json["refundedAmount"] == 2_000
    assert_idle_and_consistent(flow)
