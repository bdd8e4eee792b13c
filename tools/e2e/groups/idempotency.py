"""Idempotency keys: one key has one effect and one response, also for concurrent requests."""

from __future__ import annotations

import httpx

from tools.e2e.accounts import Account
from tools.e2e.client import Call, NoResponse, error_code, new_key
from tools.e2e.context import ScenarioContext, expect, run_simultaneously
from tools.e2e.scenario import Scenario

CONCURRENT_REQUESTS = 10
REPLAYED = "Idempotent-Replayed"


def same_key_and_body_replays_the_response(context: ScenarioContext) -> None:
    """The same key and body: the stored response, also after the order has changed."""
    customer, product, key = context.customer(3), context.create_product(stock=9), new_key()
    first = context.post_order(customer, (product["id"], 2), key=key)
    context.check.status("a first order answers 201", first, 201)
    again = context.post_order(customer, (product["id"], 2), key=key)
    _check_replay(context, "a second order with the same key", first, again)
    context.check.equal(
        "a replay has the same Location",
        again.headers.get("Location"),
        first.headers.get("Location"),
    )
    context.check.equal("the stock decreased once", context.stock(product["id"]), 7)
    context.wait_for_final_status(customer, first.json()["id"])
    later = context.post_order(customer, (product["id"], 2), key=key)
    _check_replay(context, "the same key after the payment", first, later)
    quoted = context.post_order(customer, (product["id"], 2), key=f'"{key}"')
    _check_replay(context, "the key in quotes is the same key", first, quoted)


def same_key_with_another_body_answers_422(context: ScenarioContext) -> None:
    """A key cannot be used for a different request."""
    customer, product, key = context.customer(3), context.create_product(stock=9), new_key()
    expect(context.post_order(customer, (product["id"], 1), key=key), 201)
    other = context.post_order(customer, (product["id"], 2), key=key)
    context.check.problem("the same key with another body: 422", other, 422)
    context.check.equal("the rejected order reserved no stock", context.stock(product["id"]), 8)


def keys_are_scoped_by_user_and_route(context: ScenarioContext) -> None:
    """The same key of another user, or on another route, is a different key."""
    customer, other = context.customer(3), context.customer(4)
    product, key = context.create_product(stock=9), new_key()
    first = expect(context.post_order(customer, (product["id"], 1), key=key), 201)
    second = context.post_order(other, (product["id"], 1), key=key)
    context.check.status("another customer with the same key places an order", second, 201)
    context.check.that(
        "the other customer's order is a different one",
        second.json()["id"] != first.json()["id"] and REPLAYED not in second.headers,
    )
    context.check.equal("each reserved stock once", context.stock(product["id"]), 7)
    body = {"productId": product["id"], "quantity": 1}
    added = context.post("/cart/items", body, customer, key)
    context.check.status("the same key on another route is accepted", added, 201)
    replay = context.post("/cart/items", body, customer, key)
    _check_replay(context, "adding to the cart again with that key", added, replay)
    cart = expect(context.get("/cart", customer), 200).json()
    quantities = [line["quantity"] for line in cart if line["productId"] == product["id"]]
    context.check.equal("the cart has one line with quantity 1", quantities, [1])
    context.write("DELETE", "/cart", None, customer)


def stored_business_errors_are_replayed(context: ScenarioContext) -> None:
    """A business error is stored under the key; a malformed request is not."""
    customer, product, key = context.customer(3), context.create_product(stock=1), new_key()
    first = context.post_order(customer, (product["id"], 2), key=key)
    context.check.problem("more than the stock: 409 OUT_OF_STOCK", first, 409, "OUT_OF_STOCK")
    expect(
        context.post(f"/products/{product['id']}/stock", {"quantity": 5}, context.staff()), 200, 201
    )
    again = context.post_order(customer, (product["id"], 2), key=key)
    _check_replay(context, "the same key after restocking", first, again)
    malformed = new_key()
    invalid = context.post_order(customer, (product["id"], 0), key=malformed)
    context.check.problem("an order of 0 units: 422", invalid, 422)
    valid = context.post_order(customer, (product["id"], 1), key=malformed)
    context.check.status("its key can be used for the valid order", valid, 201)


def concurrent_requests_with_one_key_act_once(context: ScenarioContext) -> None:
    """Ten simultaneous requests with one key place one order."""
    customer, product, key = context.new_customer(), context.create_product(stock=30), new_key()
    items = [{"productId": product["id"], "quantity": 3}]
    body = {"items": items, "paymentMethod": "CARD"}
    call = Call("POST", "/orders", json=body, key=key, token=customer.token())
    attempts = run_simultaneously([lambda: _try(context, call)] * CONCURRENT_REQUESTS)
    responses = [response for response in attempts if response is not None]
    final = context.send(call)
    context.check.status("a later request with the key answers 201", final, 201)
    orders = [response for response in responses if response.status_code == 201]
    same = all(response.content == final.content for response in orders)
    context.check.that("every 201 has the same body", same, [response.text for response in orders])
    others = [
        (response.status_code, error_code(response))
        for response in responses
        if response.status_code != 201
    ]
    context.check.that(
        "every other response is 409 REQUEST_IN_PROGRESS",
        set(others) <= {(409, "REQUEST_IN_PROGRESS")},
        others,
    )
    context.check.equal("the stock decreased once", context.stock(product["id"]), 27)
    order_ids = [order["id"] for order in _orders_with(context, customer, product["id"])]
    context.check.equal("there is one order", order_ids, [final.json()["id"]])


def cancel_and_refund_are_replayed(context: ScenarioContext) -> None:
    """A repeated cancel or refund with the same key gets the stored response."""
    customer, support, product = (
        context.customer(3),
        context.support(),
        context.create_product(price=900, stock=5),
    )
    order = context.place_paid_order(customer, (product["id"], 1))
    path, key = f"/orders/{order['id']}/refunds", new_key()
    part = {"amount": 100, "reason": "goodwill"}
    first = context.post(path, part, support, key)
    again = context.post(path, part, support, key)
    _check_replay(context, "a second refund with the same key", first, again)
    path, key = f"/orders/{order['id']}/cancel", new_key()
    first = context.write("PATCH", path, None, customer, key)
    context.check.status("cancelling answers 200", first, 200)
    again = context.write("PATCH", path, None, customer, key)
    _check_replay(context, "a second cancel with the same key", first, again)
    end = context.wait_for_final_status(customer, order["id"])
    shown = (end["status"], end["refundedAmount"])
    context.check.equal("the whole amount was refunded once", shown, ("CANCELLED", 900))


def malformed_keys_answer_400(context: ScenarioContext) -> None:
    """A key has 16 to 64 characters of A-Z a-z 0-9 _ -."""
    customer = context.customer(3)
    body = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
    for name, key in {
        "15 characters": "a" * 15,
        "65 characters": "a" * 65,
        "a space": "aaaaaaaa aaaaaaaa",
        "an unpaired quote": '"aaaaaaaaaaaaaaaa',
        "length 0": "",
    }.items():
        call = Call("POST", "/orders", json=body, headers={"Idempotency-Key": key}, repeats=True)
        context.check.problem(f"a key of {name}: 400", context.send(call, customer), 400)


def _check_replay(
    context: ScenarioContext, what: str, first: httpx.Response, again: httpx.Response
) -> None:
    same = (again.status_code, again.content) == (first.status_code, first.content)
    context.check.that(f"{what}: the same status and body", same, f"{first.text} then {again.text}")
    context.check.equal(f"{what}: {REPLAYED} is true", again.headers.get(REPLAYED), "true")


def _try(context: ScenarioContext, call: Call) -> httpx.Response | None:
    """The response, or None when there is none, for example after a crash of the process."""
    try:
        return context.send_unretried(call)
    except NoResponse:
        return None


def _orders_with(context: ScenarioContext, by: Account, product_id: int) -> list[dict[str, str]]:
    orders = expect(context.get("/orders/me?limit=100", by), 200).json()
    return [o for o in orders if product_id in [item["productId"] for item in o["items"]]]


STAFF = ("staff",)
SCENARIOS = (
    Scenario(same_key_and_body_replays_the_response, STAFF),
    Scenario(same_key_with_another_body_answers_422, STAFF),
    Scenario(keys_are_scoped_by_user_and_route, STAFF),
    Scenario(stored_business_errors_are_replayed, STAFF),
    Scenario(concurrent_requests_with_one_key_act_once, STAFF),
    Scenario(cancel_and_refund_are_replayed, ("staff", "support")),
    Scenario(malformed_keys_answer_400),
)
