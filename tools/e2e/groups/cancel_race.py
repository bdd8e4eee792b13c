"""Cancel against charge: whoever is first, the order ends cancelled and no money is kept."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from tools.e2e.accounts import Account
from tools.e2e.client import error_code
from tools.e2e.harness import Stage, side_by_side, together
from tools.e2e.scenario import Scenario

ORDERS = 20
BUYERS = 4
AT_A_TIME = 4
WITHIN_SECONDS = 0.05
QUANTITY = 2
PRICE = 700
CHANCE = random.SystemRandom()


@dataclass(frozen=True)
class Round:
    """One order, the two cancels fired at it, and how it ended."""

    buyer: Account
    cancels: list[httpx.Response]
    end: dict[str, Any]


def cancel_while_charging(stage: Stage) -> None:
    """Twenty orders, each cancelled twice at once within 50 ms of being placed."""
    product = stage.product(price=PRICE, stock=ORDERS * QUANTITY)
    buyers = [stage.customer(number) for number in range(1, BUYERS + 1)]
    jobs = [
        partial(_race, stage, buyers[number % BUYERS], product["id"]) for number in range(ORDERS)
    ]
    rounds = side_by_side(jobs, AT_A_TIME)
    for number, one in enumerate(rounds, start=1):
        _check_round(stage, number, one)
    stage.check.equal("all stock is back, exactly", stage.stock(product["id"]), ORDERS * QUANTITY)


def _race(stage: Stage, buyer: Account, product_id: int) -> Round:
    order = stage.placed(buyer, (product_id, QUANTITY))
    path = f"/orders/{order['id']}/cancel"

    def cancel() -> httpx.Response:
        time.sleep(CHANCE.uniform(0.0, WITHIN_SECONDS))
        return stage.write("PATCH", path, None, buyer)

    cancels = together([cancel, cancel])
    return Round(buyer, cancels, stage.at_rest(buyer, order["id"]))


def _check_round(stage: Stage, number: int, one: Round) -> None:
    answers = [(answer.status_code, error_code(answer)) for answer in one.cancels]
    stage.check.that(
        f"order {number}: one cancel is done, the other agrees or comes too late",
        (200, None) in answers and set(answers) <= {(200, None), (409, "NOT_CANCELLABLE")},
        answers,
    )
    order_id = one.end["id"]
    stage.check.equal(f"order {number}: it ends CANCELLED", one.end["status"], "CANCELLED")
    captures = _count(stage, one, order_id, "payment", "CAPTURED")
    refunds = _count(stage, one, order_id, "refund", "SUCCEEDED")
    kept = captures * PRICE * QUANTITY - one.end["refundedAmount"]
    stage.check.equal(f"order {number}: no money is kept", (kept, captures - refunds), (0, 0))
    cancelled = [to for _, to in stage.moves(one.buyer, order_id, "order") if to == "CANCELLED"]
    stage.check.equal(f"order {number}: it was cancelled once", len(cancelled), 1)


def _count(stage: Stage, one: Round, order_id: str, entity: str, status: str) -> int:
    moves = stage.moves(one.buyer, order_id, entity)
    return len([to for _, to in moves if to == status])


def sell_the_last_units_once(stage: Stage) -> None:
    """Ten buyers' requests for the last three units, at once: exactly three get one."""
    product = stage.product(stock=3)
    buyers = [stage.customer(1 + number % BUYERS) for number in range(10)]
    answers = together([partial(stage.order, buyer, (product["id"], 1)) for buyer in buyers])
    counts = sorted((answer.status_code, error_code(answer) or "") for answer in answers)
    wanted = [(201, "")] * 3 + [(409, "OUT_OF_STOCK")] * 7
    stage.check.equal("three orders, seven refusals", counts, wanted)
    stage.check.equal("nothing is left", stage.stock(product["id"]), 0)


def refund_the_rest_once(stage: Stage) -> None:
    """Ten refunds of the whole amount at once: one wins."""
    buyer, support, product = stage.customer(1), stage.support(), stage.product(price=1000, stock=1)
    order = stage.paid(buyer, (product["id"], 1))
    body = {"amount": 1000, "reason": "race"}
    jobs = [partial(stage.post, f"/orders/{order['id']}/refunds", body, support)] * 10
    answers = together(jobs)
    done = [answer for answer in answers if answer.status_code < 300]
    refused = [answer for answer in answers if answer.status_code == 409]
    shown = (len(done), len(refused))
    stage.check.equal("one refund, nine refusals", shown, (1, 9))
    seen = stage.eventually(
        lambda: stage.look_up(buyer, order["id"]), lambda seen: seen["refundedAmount"] >= 1000
    )
    stage.check.equal("the amount went back once", seen["refundedAmount"], 1000)


SCENARIOS = (
    Scenario(cancel_while_charging, ("staff",)),
    Scenario(sell_the_last_units_once, ("staff",)),
    Scenario(refund_the_rest_once, ("staff", "support")),
)
