"""Prices: their history, and prices for a time that due jobs set and set back."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.harness import FlowHarness, Person, Response, ShopHarness, assert_invariants

ANY_VERSION = {"if-match": "*"}


def time_in(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


def plan(staff: Person, product: int, price: int, start: float, end: float) -> Response:
    body = {"price": price, "startsAt": time_in(start), "endsAt": time_in(end)}
    return staff.post(f"/admin/products/{product}/price-schedules", body)


def pass_time(shop: ShopHarness, hours: float) -> None:
    """Moves the times of all schedules into the past, as if this time had passed."""
    shop.sql(
        "update shop.price_schedules set starts_at = starts_at - %s * interval '1 hour', "
        "ends_at = ends_at - %s * interval '1 hour'",
        hours,
        hours,
    )


def prices(person: Person, product: int) -> Any:
    answer = person.get(f"/admin/products/{product}/prices")
    assert answer.status == 200, answer.body
    return answer.json


def history(person: Person, product: int) -> list[tuple[int | None, int]]:
    """The changes of a product's price, oldest first."""
    changes = prices(person, product)["changes"]
    return [(change["from"], change["to"]) for change in changes[::-1]]


def price_of(shop: ShopHarness, product: int) -> int:
    price: int = shop.call("GET", f"/products/{product}").json["price"]
    return price


def states(shop: ShopHarness) -> list[str]:
    rows = shop.sql("select state from shop.price_schedules order by schedule_id")
    return [row["state"] for row in rows]


# ---------------------------------------------------------------- history


def test_each_change_of_a_price_is_in_the_history_with_its_author(shop: ShopHarness) -> None:
    staff, reader, product = shop.person("staff"), shop.person("finance"), shop.product(price=1000)

    staff.patch(f"/products/{product}", {"price": 900}, headers=ANY_VERSION)
    staff.patch(f"/products/{product}", {"price": 900, "name": "이름"}, headers=ANY_VERSION)

    found = prices(reader, product)
    assert (found["price"], found["currency"], found["schedules"]) == (900, "KRW", [])
    newest, first = found["changes"]
    assert (newest["from"], newest["to"], newest["changedBy"]) == (1000, 900, staff.user_id)
    assert (first["from"], first["to"], newest["scheduleId"]) == (None, 1000, None)


def test_pages_of_the_history_have_each_change_once(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product(price=1000)
    for price in (1, 2, 3):
        staff.patch(f"/products/{product}", {"price": price}, headers=ANY_VERSION)

    first = staff.get(f"/admin/products/{product}/prices?limit=3")
    second = staff.get(first.headers["link"].partition("<")[2].partition(">")[0])

    changes = [*first.json["changes"], *second.json["changes"]]
    assert [change["to"] for change in changes] == [3, 2, 1, 1000]
    assert "link" not in second.headers


def test_prices_of_a_missing_product_are_404(shop: ShopHarness) -> None:
    staff = shop.person("staff")

    for path in ("999999", "x"):
        assert staff.get(f"/admin/products/{path}/prices").status == 404
    assert plan(staff, 999_999, 900, 1, 2).status == 404


# ---------------------------------------------------------------- schedules


def test_price_is_set_at_its_time_and_set_back_at_its_end(flow: FlowHarness) -> None:
    shop = flow.shop
    staff, buyer, product = shop.person("staff"), shop.person(), shop.product(price=1000)

    planned = plan(staff, product, 700, 1, 3)
    assert (planned.status, planned.json["state"]) == (201, "PLANNED"), planned.body
    flow.sweep_all()
    assert (price_of(shop, product), flow.due_jobs()) == (1000, [])

    pass_time(shop, 2)
    flow.sweep_all()
    flow.sweep_all()
    assert price_of(shop, product) == 700
    assert f'"id":{product},' in shop.call("GET", "/products?maxPrice=700").body.decode()
    order = buyer.order(product)
    (active,) = prices(staff, product)["schedules"]
    assert (active["state"], active["regularPrice"]) == ("ACTIVE", 1000)

    pass_time(shop, 2)
    flow.sweep_all()
    assert price_of(shop, product) == 1000
    assert history(staff, product) == [(None, 1000), (1000, 700), (700, 1000)]
    changes = prices(staff, product)["changes"]
    assert [change["scheduleId"] for change in changes] == [planned.json["id"]] * 2 + [None]
    assert [change["changedBy"] for change in changes] == [None] * 3
    flow.run_until_idle()
    read = buyer.get(f"/orders/{order['id']}").json
    assert (read["status"], read["totalAmount"]) == ("PAID", 700)
    assert_invariants(flow)


def test_order_that_expects_the_price_before_is_409(flow: FlowHarness) -> None:
    shop = flow.shop
    staff, buyer, product = shop.person("staff"), shop.person(), shop.product(price=1000)
    plan(staff, product, 1200, -1, 1)
    flow.sweep_all()

    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    answer = buyer.post("/orders", body | {"expectedTotalAmount": 1000})

    assert (answer.status, answer.error) == (409, "PRICE_CHANGED")
    assert buyer.post("/orders", body | {"expectedTotalAmount": 1200}).status == 201


def test_cached_list_is_invalidated_by_a_scheduled_price(flow: FlowHarness) -> None:
    shop = flow.shop
    staff, product = shop.person("staff"), shop.product(price=1000)
    plan(staff, product, 700, -1, 1)

    flow.sweep_all()
    flow.run_until_idle()

    (event,) = shop.sql(
        "select source, data from shop.outbox where type = 'product.changed' "
        "and source = '/shop/sweep'"
    )
    assert event["data"] == {"productId": product, "productVersion": 2}
    assert shop.sql("select outcome from shop.inbox where consumer = 'list_products'") != []


def test_adjacent_prices_follow_each_other_and_return_to_the_first(flow: FlowHarness) -> None:
    shop = flow.shop
    staff, product = shop.person("staff"), shop.product(price=1000)
    starts = datetime.now(UTC) + timedelta(hours=1)
    for number, price in enumerate((700, 800)):
        times = (starts + timedelta(hours=number), starts + timedelta(hours=number + 1))
        body = {"price": price, "startsAt": times[0].isoformat(), "endsAt": times[1].isoformat()}
        answer = staff.post(f"/admin/products/{product}/price-schedules", body)
        assert answer.status == 201, answer.body

    for hours in (1.5, 1, 1):
        pass_time(shop, hours)
        flow.sweep_all()

    assert history(staff, product) == [
        (None, 1000),
        (1000, 700),
        (700, 1000),
        (1000, 800),
        (800, 1000),
    ]
    assert states(shop) == ["ENDED", "ENDED"]
    flow.run_until_idle()
    assert_invariants(flow)


def test_time_that_passed_without_a_sweep_changes_no_price(flow: FlowHarness) -> None:
    shop = flow.shop
    staff, product = shop.person("staff"), shop.product(price=1000)
    plan(staff, product, 700, 1, 2)
    pass_time(shop, 3)

    flow.sweep_all()

    assert history(staff, product) == [(None, 1000)]
    assert (states(shop), flow.due_jobs()) == (["MISSED"], [])


@pytest.mark.parametrize(("start", "end"), [(1, 4), (2.5, 2.6), (0, 2.1), (2.9, 9)])
def test_overlapping_price_is_409_and_names_the_other(
    shop: ShopHarness, start: float, end: float
) -> None:
    staff, product, other = shop.person("staff"), shop.product(), shop.product()
    planned = plan(staff, product, 700, 2, 3).json["id"]

    answer = plan(staff, product, 600, start, end)

    assert (answer.status, answer.error) == (409, "PRICE_SCHEDULE_OVERLAPS")
    assert answer.json["scheduleId"] == planned
    assert plan(staff, other, 600, start, end).status == 201
    assert states(shop) == ["PLANNED", "PLANNED"]


def test_concurrent_plans_for_one_time_succeed_once(shop: ShopHarness) -> None:
    staff, product, start = shop.person("staff"), shop.product(), threading.Barrier(4)
    answers: list[int] = []

    def send(price: int) -> None:
        start.wait()
        answers.append(plan(staff, product, price, 1, 2).status)

    threads = [threading.Thread(target=send, args=(price,)) for price in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [201, 409, 409, 409]


def test_price_of_an_active_schedule_is_changed_by_cancelling_it(flow: FlowHarness) -> None:
    shop = flow.shop
    staff, product = shop.person("staff"), shop.product(price=1000)
    schedule = plan(staff, product, 700, -1, 1).json["id"]
    flow.sweep_all()
    path = f"/admin/products/{product}/price-schedules/{schedule}"

    refused = staff.patch(f"/products/{product}", {"price": 650}, headers=ANY_VERSION)
    assert (refused.status, refused.error) == (409, "PRICE_IS_SCHEDULED")
    assert refused.json["scheduleId"] == schedule
    renamed = staff.patch(f"/products/{product}", {"name": "이름"}, headers=ANY_VERSION)
    assert (renamed.status, renamed.json["price"]) == (200, 700)

    cancelled, again = staff.delete(path), staff.delete(path)

    assert (cancelled.status, cancelled.json["state"]) == (200, "CANCELLED"), cancelled.body
    assert (again.status, again.json["state"]) == (200, "CANCELLED")
    assert price_of(shop, product) == 1000
    assert staff.patch(f"/products/{product}", {"price": 650}, headers=ANY_VERSION).status == 200
    actions = [
        row["action"]
        for row in shop.sql("select action from shop.audit_log where object_kind = 'product'")
    ]
    assert actions.count("product.price_scheduled") == 1
    assert actions.count("product.price_schedule_cancelled") == 1
    flow.run_until_idle()
    assert_invariants(flow)


def test_planned_price_is_cancelled_without_a_change(flow: FlowHarness) -> None:
    shop = flow.shop
    staff, product, other = shop.person("staff"), shop.product(price=1000), shop.product()
    schedule = plan(staff, product, 700, 1, 2).json["id"]

    missing = staff.delete(f"/admin/products/{other}/price-schedules/{schedule}")
    cancelled = staff.delete(f"/admin/products/{product}/price-schedules/{schedule}")
    pass_time(shop, 1.5)
    flow.sweep_all()

    assert (missing.status, missing.error) == (404, "NOT_FOUND")
    assert (cancelled.status, history(staff, product)) == (200, [(None, 1000)])
    assert plan(staff, product, 700, 1, 2).status == 201, "the time is free again"


def test_schedule_that_is_over_cannot_be_cancelled(flow: FlowHarness) -> None:
    shop = flow.shop
    staff, product = shop.person("staff"), shop.product()
    schedule = plan(staff, product, 700, -1, 1).json["id"]
    flow.sweep_all()
    pass_time(shop, 2)
    flow.sweep_all()

    answer = staff.delete(f"/admin/products/{product}/price-schedules/{schedule}")

    assert (answer.status, answer.error) == (409, "PRICE_SCHEDULE_ENDED")


def test_more_than_a_hundred_open_schedules_are_409(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product()
    shop.sql(
        "insert into shop.price_schedules (schedule_id, product_id, price_minor, starts_at, "
        "ends_at, created_by) select gen_random_uuid(), %s, 1, now() + n * interval '1 day', "
        "now() + n * interval '1 day' + interval '1 hour', 1 from generate_series(1, 100) n",
        product,
    )

    answer = plan(staff, product, 700, 2, 3)

    assert (answer.status, answer.error) == (409, "TOO_MANY_PRICE_SCHEDULES")


VALID = {"price": 700, "startsAt": "2099-02-01T00:00:00Z", "endsAt": "2099-02-02T00:00:00+09:00"}


@pytest.mark.parametrize(
    "change",
    [
        {"price": 0},
        {"price": "700"},
        {"price": None},
        {"startsAt": None},
        {"startsAt": 4073587200},
        {"startsAt": "2099-02-01"},
        {"startsAt": "2099-02-01T00:00:00"},
        {"startsAt": "2099-02-30T00:00:00Z"},
        {"startsAt": "2099-02-01T00:00:00+99:00"},
        {"startsAt": "2199-02-01T00:00:00Z"},
        {"startsAt": "2099-02-03T00:00:00Z"},
        {"endsAt": "2099-02-01T00:00:00Z"},
        {"startsAt": "2020-01-01T00:00:00Z", "endsAt": "2020-01-02T00:00:00Z"},
        {"colour": "red"},
    ],
)
def test_invalid_schedule_is_422(shop: ShopHarness, change: dict[str, Any]) -> None:
    staff, product = shop.person("staff"), shop.product()
    path = f"/admin/products/{product}/price-schedules"

    answer = staff.post(path, VALID | change)

    assert answer.status == 422, answer.body
    assert states(shop) == []
    assert staff.post(path, VALID).status == 201


def test_two_sweeps_at_once_set_a_price_once(flow: FlowHarness) -> None:
    shop = flow.shop
    staff, product, start = shop.person("staff"), shop.product(price=1000), threading.Barrier(2)
    plan(staff, product, 700, -1, 1)

    def sweep() -> None:
        start.wait()
        shop.tick("sweep")

    threads = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert history(staff, product) == [(None, 1000), (1000, 700)]
    flow.run_until_idle()
    assert_invariants(flow)
