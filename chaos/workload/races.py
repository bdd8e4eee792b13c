"""Races from a barrier (F-22): requests that start together, and the outcomes that are allowed.

A request whose fate nobody heard may have gone either way, so ``exactly one`` becomes ``at most
one`` as soon as one answer is missing.  What the answers cannot tell, the checker sees in the rows.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from chaos.workload.buyers import CROSSING_SECONDS
from chaos.workload.client import Account, Client, Outcome, Placed
from chaos.workload.dataset import World
from chaos.workload.operations import Call

AT_ONCE = 4
CROWD = 20
SAME_KEY = 10
SHELF, DELIVERY, TAKERS = 3, 5, 10
PRICE = 1_000
PAID_SECONDS_MAX = 20.0
WRONG_SHOWN = 20


class Undecided(Exception):
    """The race could not be set up, so its outcome says nothing."""


Race = Callable[[Random], Awaitable[list[str]]]


class Races:
    """Runs races of each kind; a race answers what was wrong with its outcome."""

    def __init__(self, client: Client, world: World) -> None:
        self._client = client
        self._calls = client.calls
        self._world = world
        self.kinds: dict[str, Race] = {
            "cancel_cancel": self._cancel_cancel,
            "cancel_charge": self._cancel_charge,
            "refund_refund": self._refund_refund,
            "refund_cancel": self._refund_cancel,
            "same_key": self._same_key,
            "last_unit": self._last_unit,
            "restock_reserve": self._restock_reserve,
            "price_order": self._price_order,
        }

    async def run(self, kind: str, times: int, seed: int) -> dict[str, Any]:
        """Runs a kind so many times, a few at once; raises KeyError for an unknown kind."""
        race = self.kinds[kind]
        lanes = asyncio.Semaphore(AT_ONCE)
        wrong: list[dict[str, Any]] = []
        seen: Counter[str] = Counter()

        async def one(number: int) -> None:
            async with lanes:
                try:
                    mistakes = await race(Random(f"{seed} {kind} {number}"))  # noqa: S311
                except Undecided:
                    seen["undecided"] += 1
                    return
            seen["races"] += 1
            if mistakes:
                wrong.append({"race": number, "wrong": mistakes})

        await asyncio.gather(*map(one, range(times)))
        return {
            "kind": kind,
            "races": seen["races"],
            "undecided": seen["undecided"],
            "wrong_total": len(wrong),
            "wrong": wrong[:WRONG_SHOWN],
        }

    # ---- cancelling and refunding

    async def _cancel_cancel(self, random: Random) -> list[str]:
        placed = await self._placed(random)
        if random.random() < 0.5:
            await self._until_paid(placed)
        cancels = [self._cancel(placed) for _ in range(2)]
        answers = await self._together([(call, placed.account) for call in cancels])
        return one_wins(answers, winner=200, loser="NOT_CANCELLABLE")

    async def _cancel_charge(self, random: Random) -> list[str]:
        placed = await self._placed(random)
        await asyncio.sleep(random.uniform(0.0, CROSSING_SECONDS))
        answer = await self._client.send(self._cancel(placed), placed.account)
        mistakes = only(answer, {(200, "")})
        look = self._calls.make("read_order", orderId=placed.order_id)
        seen = await self._client.send(look, placed.account)
        if answer.status == seen.status == 200:
            status = seen.document["status"]
            if status not in ("CANCELLING", "CANCELLED"):
                mistakes.append(f"order {placed.order_id} was cancelled and is {status}")
        return mistakes

    async def _refund_refund(self, random: Random) -> list[str]:
        placed = await self._paid(random)
        amount = placed.total // 2 + 1
        refunds = [(self._refund(placed, amount), self._world.support) for _ in range(2)]
        answers = await self._together(refunds)
        return one_wins(answers, winner=201, loser="EXCEEDS_CAPTURE")

    async def _refund_cancel(self, random: Random) -> list[str]:
        placed = await self._paid(random)
        part = random.randint(1, placed.total)
        refund = (self._refund(placed, part), self._world.support)
        refunded, cancelled = await self._together([refund, (self._cancel(placed), placed.account)])
        return [
            *only(refunded, {(201, ""), (409, "NOT_REFUNDABLE")}),
            *only(cancelled, {(200, "")}),
        ]

    # ---- placing

    async def _same_key(self, random: Random) -> list[str]:
        product, who = self._world.pick_product(random), self._customer(random)
        call = self._order(product.product_id)
        answers = await self._together([(call, who)] * SAME_KEY)
        told = {answer.answer for answer in answers if answer.is_definite}
        mistakes = (
            [f"one key, {len(told)} answers: {sorted(map(str, told))}"] if len(told) > 1 else []
        )
        for answer in answers:
            mistakes += only(answer, {(201, ""), (409, "OUT_OF_STOCK")})
        self._remember(call, who, next((one for one in answers if one.status == 201), None))
        return mistakes

    async def _last_unit(self, random: Random) -> list[str]:
        product = await self._product(stock=1)
        crowd = [(self._order(product), self._customer(random)) for _ in range(CROWD)]
        answers = await self._together(crowd)
        self._remember_all(crowd, answers)
        return one_wins(answers, winner=201, loser="OUT_OF_STOCK")

    async def _restock_reserve(self, random: Random) -> list[str]:
        product = await self._product(stock=SHELF)
        body = {"quantity": DELIVERY}
        restock = (self._calls.make("restock", body=body, productId=product), self._world.staff)
        takers = [(self._order(product), self._customer(random)) for _ in range(TAKERS)]
        restocked, *answers = await self._together([restock, *takers])
        self._remember_all(takers, answers)
        mistakes = only(restocked, {(200, "")})
        for answer in answers:
            mistakes += only(answer, {(201, ""), (409, "OUT_OF_STOCK")})
        sold = sum(answer.status == 201 for answer in answers)
        are_definite = all(answer.is_definite for answer in answers)
        if sold > SHELF + DELIVERY or (are_definite and sold < SHELF):
            mistakes.append(f"{sold} sold of {SHELF} and {DELIVERY} more")
        return mistakes

    async def _price_order(self, random: Random) -> list[str]:
        product = await self._product(stock=100)
        look = self._calls.make("show_product", productId=product)
        seen = await self._client.send(look, self._world.staff)
        headers, body = {"if-match": seen.header(b"etag") or "*"}, {"price": PRICE + 100}
        change = self._calls.make("change_product", body=body, headers=headers, productId=product)
        takers = [
            (self._order(product, expectedTotalAmount=PRICE), self._customer(random))
            for _ in range(5)
        ]
        changed, *answers = await self._together([(change, self._world.staff), *takers])
        self._remember_all(takers, answers)
        mistakes = only(changed, {(200, "")})
        for answer in answers:
            mistakes += only(answer, {(201, ""), (409, "PRICE_CHANGED")})
            if answer.status == 201 and answer.document["totalAmount"] != PRICE:
                mistakes.append(f"expected {PRICE}, was charged {answer.document['totalAmount']}")
        return mistakes

    # ---- what races are made of

    async def _together(self, jobs: Sequence[tuple[Call, Account]]) -> list[Outcome]:
        """Everybody has a token and a connection; then all are sent at once."""
        await asyncio.gather(*(account.token() for _, account in jobs), return_exceptions=True)
        await self._client.open(len(jobs))
        return await asyncio.gather(*(self._client.send(call, account) for call, account in jobs))

    def _customer(self, random: Random) -> Account:
        return random.choice(self._world.customers)

    def _order(self, product_id: int, **more: Any) -> Call:
        line = {"productId": product_id, "quantity": 1}
        return self._calls.make("place_order", body={**line, "paymentMethod": "CARD", **more})

    def _cancel(self, placed: Placed) -> Call:
        self._client.log.ask(placed.order_id, "cancel")
        return self._calls.make("cancel_order", orderId=placed.order_id)

    def _refund(self, placed: Placed, amount: int) -> Call:
        self._client.log.ask(placed.order_id, "refund")
        return self._calls.make("refund_order", body={"amount": amount}, orderId=placed.order_id)

    async def _product(self, *, stock: int) -> int:
        body = {
            "name": f"Race {self._calls.new_key()}",
            "category": self._world.category,
            "price": PRICE,
            "stockQuantity": stock,
        }
        made = await self._client.send(
            self._calls.make("add_product", body=body), self._world.staff
        )
        if made.status != 201:
            raise Undecided("no product")
        number: int = made.document["id"]
        return number

    async def _placed(self, random: Random) -> Placed:
        product, who = random.choice(self._world.products), self._customer(random)
        call = self._order(product.product_id)
        outcome = await self._client.send(call, who)
        placed = self._remember(call, who, outcome)
        if placed is None:
            raise Undecided("no order")
        return placed

    async def _paid(self, random: Random) -> Placed:
        placed = await self._placed(random)
        if not await self._until_paid(placed):
            raise Undecided("not paid in time")
        return placed

    async def _until_paid(self, placed: Placed) -> bool:
        deadline = time.monotonic() + PAID_SECONDS_MAX
        while time.monotonic() < deadline:
            look = self._calls.make(
                "read_order", headers={"prefer": "wait=5"}, orderId=placed.order_id
            )
            seen = await self._client.send(look, placed.account)
            if seen.status == 200 and seen.document["status"] != "PENDING":
                return bool(seen.document["status"] == "PAID")
            await asyncio.sleep(0.1)
        return False

    def _remember(self, call: Call, who: Account, outcome: Outcome | None) -> Placed | None:
        """Notes an accepted order; None when it was not."""
        if outcome is None or outcome.status != 201:
            return None
        document = outcome.document
        self._client.log.place(document["id"], who.user_id, document["paymentMethod"])
        return Placed(document["id"], document["totalAmount"], who)

    def _remember_all(
        self, jobs: Sequence[tuple[Call, Account]], answers: Sequence[Outcome]
    ) -> None:
        for (call, who), outcome in zip(jobs, answers, strict=True):
            self._remember(call, who, outcome)


def only(answer: Outcome, allowed: set[tuple[int, str]]) -> list[str]:
    """A definite answer is one of these pairs of status and error; a missing one is tolerated."""
    if not answer.is_definite or (answer.status or 0) >= 500:
        return []
    if (answer.status, answer.code) in allowed:
        return []
    return [f"{answer.status} {answer.code}".strip()]


def one_wins(answers: Sequence[Outcome], *, winner: int, loser: str) -> list[str]:
    """Exactly one answer has the status ``winner``, all others are 409 with ``loser``."""
    mistakes = []
    for answer in answers:
        mistakes += only(answer, {(winner, ""), (409, loser)})
    won = sum(answer.status == winner for answer in answers)
    is_whole = all(answer.is_definite and (answer.status or 0) < 500 for answer in answers)
    if won > 1 or (is_whole and won == 0):
        mistakes.append(f"{won} of {len(answers)} have {winner}")
    return mistakes
