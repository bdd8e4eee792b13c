"""Idempotency keys: one key, one effect, one answer, however often and however close together."""

from __future__ import annotations

import httpx

from tools.e2e.accounts import Account
from tools.e2e.client import Call, NoAnswer, error_code, new_key
from tools.e2e.harness import Stage, expect, together
from tools.e2e.scenario import Scenario

AT_ONCE = 10
REPLAYED = "Idempotent-Replayed"


def replay_the_same_bytes(stage: Stage) -> None:
    """The same key and body: the stored answer, also after the order went on."""
    buyer, product, key = stage.customer(3), stage.product(stock=9), new_key()
    first = stage.order(buyer, (product["id"], 2), key=key)
    stage.check.status("a first order answers 201", first, 201)
    again = stage.order(buyer, (product["id"], 2), key=key)
    _check_replay(stage, "a second order with the same key", first, again)
    stage.check.equal(
        "and the same Location", again.headers.get("Location"), first.headers.get("Location")
    )
    stage.check.equal("stock went down once", stage.stock(product["id"]), 7)
    stage.at_rest(buyer, first.json()["id"])
    later = stage.order(buyer, (product["id"], 2), key=key)
    _check_replay(stage, "once it is paid, the same key", first, later)
    quoted = stage.order(buyer, (product["id"], 2), key=f'"{key}"')
    _check_replay(stage, "the key in quotes is the same key", first, quoted)


def refuse_another_body(stage: Stage) -> None:
    """A key that stands for one thing cannot stand for another."""
    buyer, product, key = stage.customer(3), stage.product(stock=9), new_key()
    expect(stage.order(buyer, (product["id"], 1), key=key), 201)
    other = stage.order(buyer, (product["id"], 2), key=key)
    stage.check.problem("the same key with another body: 422", other, 422)
    stage.check.equal("and nothing was taken for it", stage.stock(product["id"]), 8)


def keep_keys_apart(stage: Stage) -> None:
    """Another's key of the same letters is another key; one of another route too."""
    buyer, other = stage.customer(3), stage.customer(4)
    product, key = stage.product(stock=9), new_key()
    mine = expect(stage.order(buyer, (product["id"], 1), key=key), 201)
    theirs = stage.order(other, (product["id"], 1), key=key)
    stage.check.status("another buyer with the same key gets an order", theirs, 201)
    stage.check.that(
        "of their own", theirs.json()["id"] != mine.json()["id"] and REPLAYED not in theirs.headers
    )
    stage.check.equal("each took stock once", stage.stock(product["id"]), 7)
    body = {"productId": product["id"], "quantity": 1}
    added = stage.post("/cart/items", body, buyer, key)
    stage.check.status("the same key on another route is another key", added, 201)
    replay = stage.post("/cart/items", body, buyer, key)
    _check_replay(stage, "adding to the cart again with that key", added, replay)
    cart = expect(stage.get("/cart", buyer), 200).json()["items"]
    quantities = [line["quantity"] for line in cart if line["productId"] == product["id"]]
    stage.check.equal("the cart has it once", quantities, [1])
    stage.write("DELETE", "/cart", None, buyer)


def replay_refusals(stage: Stage) -> None:
    """A refusal that is the business's answer is stored; a malformed request is not."""
    buyer, product, key = stage.customer(3), stage.product(stock=1), new_key()
    first = stage.order(buyer, (product["id"], 2), key=key)
    stage.check.problem("more than there is: 409 OUT_OF_STOCK", first, 409, "OUT_OF_STOCK")
    expect(stage.post(f"/products/{product['id']}/stock", {"quantity": 5}, stage.staff()), 200, 201)
    again = stage.order(buyer, (product["id"], 2), key=key)
    _check_replay(stage, "after restocking, the same key", first, again)
    malformed = new_key()
    wrong = stage.order(buyer, (product["id"], 0), key=malformed)
    stage.check.problem("a malformed order: 422", wrong, 422)
    right = stage.order(buyer, (product["id"], 1), key=malformed)
    stage.check.status("its key is free for the right one", right, 201)


def act_once_of_ten_at_once(stage: Stage) -> None:
    """Ten requests with one key in the same moment: one order."""
    buyer, product, key = stage.new_customer(), stage.product(stock=30), new_key()
    items = [{"productId": product["id"], "quantity": 3}]
    body = {"items": items, "paymentMethod": "CARD"}
    call = Call("POST", "/orders", json=body, key=key, token=buyer.token())
    answers = [a for a in together([lambda: _try(stage, call)] * AT_ONCE) if a is not None]
    final = stage.send(call)
    stage.check.status("asked again, the key answers 201", final, 201)
    orders = [answer for answer in answers if answer.status_code == 201]
    same = all(answer.content == final.content for answer in orders)
    stage.check.that("every 201 has the same bytes", same, [a.text for a in orders])
    others = [(a.status_code, error_code(a)) for a in answers if a.status_code != 201]
    stage.check.that(
        "everyone else was told to come back", set(others) <= {(409, "REQUEST_IN_PROGRESS")}, others
    )
    stage.check.equal("stock went down once", stage.stock(product["id"]), 27)
    with_it = [order["id"] for order in _orders_with(stage, buyer, product["id"])]
    stage.check.equal("there is one order", with_it, [final.json()["id"]])


def replay_cancels_and_refunds(stage: Stage) -> None:
    """Cancelling and refunding have keys too."""
    buyer, support, product = stage.customer(3), stage.support(), stage.product(price=900, stock=5)
    order = stage.paid(buyer, (product["id"], 1))
    path, key = f"/orders/{order['id']}/refunds", new_key()
    part = {"amount": 100, "reason": "goodwill"}
    first = stage.post(path, part, support, key)
    again = stage.post(path, part, support, key)
    _check_replay(stage, "a second refund with the same key", first, again)
    path, key = f"/orders/{order['id']}/cancel", new_key()
    first = stage.write("PATCH", path, None, buyer, key)
    stage.check.status("cancelling answers 200", first, 200)
    again = stage.write("PATCH", path, None, buyer, key)
    _check_replay(stage, "a second cancel with the same key", first, again)
    end = stage.at_rest(buyer, order["id"])
    shown = (end["status"], end["refundedAmount"])
    stage.check.equal("all money went back once", shown, ("CANCELLED", 900))


def refuse_malformed_keys(stage: Stage) -> None:
    """A key is 16 to 64 of A-Z a-z 0-9 _ -."""
    buyer = stage.customer(3)
    body = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
    for name, key in {
        "15 characters": "a" * 15,
        "65 characters": "a" * 65,
        "a space": "aaaaaaaa aaaaaaaa",
        "one quote": '"aaaaaaaaaaaaaaaa',
        "nothing": "",
    }.items():
        call = Call("POST", "/orders", json=body, headers={"Idempotency-Key": key}, repeats=True)
        stage.check.problem(f"a key of {name}: 400", stage.send(call, buyer), 400)


def _check_replay(stage: Stage, what: str, first: httpx.Response, again: httpx.Response) -> None:
    same = (again.status_code, again.content) == (first.status_code, first.content)
    stage.check.that(f"{what} answers the same bytes", same, f"{first.text} then {again.text}")
    stage.check.equal(f"{what} says {REPLAYED}", again.headers.get(REPLAYED), "true")


def _try(stage: Stage, call: Call) -> httpx.Response | None:
    """What came back, None when nothing did: a killed process is no wrong answer."""
    try:
        return stage.raw(call)
    except NoAnswer:
        return None


def _orders_with(stage: Stage, by: Account, product_id: int) -> list[dict[str, str]]:
    orders = expect(stage.get("/orders/me?limit=100", by), 200).json()
    return [o for o in orders if product_id in [item["productId"] for item in o["items"]]]


STAFF = ("staff",)
SCENARIOS = (
    Scenario(replay_the_same_bytes, STAFF),
    Scenario(refuse_another_body, STAFF),
    Scenario(keep_keys_apart, STAFF),
    Scenario(replay_refusals, STAFF),
    Scenario(act_once_of_ten_at_once, STAFF),
    Scenario(replay_cancels_and_refunds, ("staff", "support")),
    Scenario(refuse_malformed_keys),
)
