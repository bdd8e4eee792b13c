"""What people do in the shop, action by action: browse, fill carts, buy, think better of it.

Each action draws all its choices from the random source it is given, so a seed decides them.  What
is asked of an order (a cancellation, a refund, a payment that will be declined) is noted before it
is sent: the end of the run has to know it even when no answer came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from chaos.workload.arrivals import BUYERS, choose_action
from chaos.workload.client import Account, Client, NoToken, Outcome, Placed, Retries
from chaos.workload.dataset import World
from chaos.workload.operations import Call

LINES_MAX = 4
QUANTITY_MAX = 3
DECLINED_SHARE = 0.06
DECLINING = "CARD_DECLINED"
METHODS = ("CARD", "CARD", "CARD", "TRANSFER")
# A cancellation within this time of the order meets its charge.
CROSSING_SECONDS = 0.05
EXPECTS_TOTAL_SHARE = 0.1
FOLLOW_UPS_MAX = 200

Action = Callable[[Random, Account], Awaitable[None]]


class Buyers:
    """Everybody who uses the shop in a run."""

    def __init__(self, client: Client, world: World) -> None:
        self._client = client
        self._calls = client.calls
        self._world = world
        self._follow_ups: set[asyncio.Task[None]] = set()
        self._actions: dict[str, Action] = {
            "browse": self._browse,
            "cart": self._use_cart,
            "place": self._place,
            "cancel": self._cancel,
            "refund": self._refund,
            "session": self._session,
            "admin": self._administer,
        }

    async def act(self, random: Random, number: int | None) -> None:
        """One action of a buyer, or of a customer who just came by."""
        customers = self._world.customers
        passers_by = customers[BUYERS:] or customers
        who = random.choice(passers_by) if number is None else customers[number % len(customers)]
        await self._actions[choose_action(random)](random, who)

    async def finish(self) -> None:
        """Waits for those who were to come back to their orders."""
        await asyncio.gather(*self._follow_ups)

    async def browse_or_place(self, random: Random, retries: Retries) -> Outcome:
        """One call of a crowd: a look at the shelf, or an order."""
        who = random.choice(self._world.customers)
        if random.random() < 0.6:
            return await self._client.send(self._browsing(random, who), who, retries)
        return await self._send_order(random, who, self._order(random), retries)

    # ---- browse and cart

    async def _browse(self, random: Random, who: Account) -> None:
        await self._client.send(self._browsing(random, who), who)

    def _browsing(self, random: Random, who: Account) -> Call:
        make, product = self._calls.make, self._world.pick_product(random)
        looks: list[Callable[[], Call]] = [
            lambda: make("list_products", query={"limit": random.randint(5, 50)}),
            lambda: make(
                "list_products", query={"category": self._world.category, "sort": "price"}
            ),
            lambda: make("list_products", query={"name": "Flash"}),
            lambda: make("show_product", productId=product.product_id),
            lambda: make("show_product", productId=product.product_id),
            lambda: make("list_categories"),
            lambda: make("read_me"),
            lambda: make("show_cart"),
            lambda: make("list_my_orders", query={"limit": 5}),
        ]
        if who.orders:
            order_id = random.choice(who.orders).order_id
            looks.append(lambda: make("read_order", orderId=order_id))
            looks.append(lambda: make("read_timeline", orderId=order_id))
        return random.choice(looks)()

    async def _use_cart(self, random: Random, who: Account) -> None:
        for _ in range(random.randint(1, 2)):
            product = self._world.pick_product(random)
            item = {"productId": product.product_id, "quantity": random.randint(1, 2)}
            await self._client.send(self._calls.make("add_item", body=item), who)
        chance = random.random()
        if chance < 0.5:
            body: dict[str, Any] = {"paymentMethod": random.choice(METHODS)}
            call = self._calls.make("place_order_from_cart", body=body)
            await self._send_order(random, who, (call, body["paymentMethod"]))
        elif chance < 0.6:
            number = product.product_id
            change = {"quantity": random.randint(0, QUANTITY_MAX)}
            call = self._calls.make("change_item", body=change, productId=number)
            await self._client.send(call, who)
        elif chance < 0.7:
            call = self._calls.make("remove_item", productId=product.product_id)
            await self._client.send(call, who)
        elif chance < 0.75:
            await self._client.send(self._calls.make("empty_cart"), who)

    # ---- orders

    async def _place(self, random: Random, who: Account) -> None:
        await self._send_order(random, who, self._order(random))

    def _order(self, random: Random) -> tuple[Call, str]:
        """An order and its payment method: one line in either form, or several."""
        count = 1 if random.random() < 0.5 else random.randint(2, LINES_MAX)
        chosen = {p.product_id: p for p in (self._world.pick_product(random) for _ in range(count))}
        lines = [
            {"productId": number, "quantity": random.randint(1, QUANTITY_MAX)} for number in chosen
        ]
        method = DECLINING if random.random() < DECLINED_SHARE else random.choice(METHODS)
        body: dict[str, Any] = {"items": lines, "paymentMethod": method}
        if len(lines) == 1 and random.random() < 0.7:
            body = {**lines[0], "paymentMethod": method}
        if random.random() < EXPECTS_TOTAL_SHARE:
            total = sum(chosen[line["productId"]].price * line["quantity"] for line in lines)
            body["expectedTotalAmount"] = total
        return self._calls.make("place_order", body=body), method

    async def _send_order(
        self,
        random: Random,
        who: Account,
        order: tuple[Call, str],
        retries: Retries | None = None,
    ) -> Outcome:
        """Sends an order and remembers it; some whose card was declined come back to pay."""
        call, method = order
        outcome = await self._client.send(call, who, retries or Retries())
        if outcome.status != 201:
            return outcome
        document = outcome.document
        placed = Placed(document["id"], document["totalAmount"], who)
        if method == DECLINING:
            self._client.log.ask(placed.order_id, "decline")
            if random.random() < 0.66 and len(self._follow_ups) < FOLLOW_UPS_MAX:
                self._come_back(self._pay_again(random, placed))
        self._client.log.place(placed.order_id, who.user_id, method)
        who.orders.append(placed)
        self._world.recent.append(placed)
        return outcome

    def _come_back(self, later: Awaitable[None]) -> None:
        task = asyncio.ensure_future(later)
        self._follow_ups.add(task)
        task.add_done_callback(self._follow_ups.discard)

    async def _pay_again(self, random: Random, placed: Placed) -> None:
        await asyncio.sleep(random.uniform(0.5, 3.0))
        method = DECLINING if random.random() < 0.2 else "CARD"
        self._client.log.ask(placed.order_id, "pay_again" if method == "CARD" else "decline")
        call = self._calls.make(
            "pay_again", body={"paymentMethod": method}, orderId=placed.order_id
        )
        await self._client.send(call, placed.account)

    async def _cancel(self, random: Random, who: Account) -> None:
        """Half of them come while the order is being charged, the others at any time later."""
        if who.orders and random.random() < 0.5:
            await self._cancel_order(random.choice(who.orders).order_id, who)
            return
        outcome = await self._send_order(random, who, self._order(random))
        if outcome.status == 201:
            await asyncio.sleep(random.uniform(0.0, CROSSING_SECONDS))
            await self._cancel_order(outcome.document["id"], who)

    async def _cancel_order(self, order_id: str, who: Account) -> None:
        self._client.log.ask(order_id, "cancel")
        await self._client.send(self._calls.make("cancel_order", orderId=order_id), who)

    async def _refund(self, random: Random, who: Account) -> None:
        """Support gives back all or a part of an order that its buyer sees paid."""
        if not self._world.recent:
            return
        placed = random.choice(self._world.recent)
        look = self._calls.make("read_order", orderId=placed.order_id)
        seen = await self._client.send(look, placed.account)
        if seen.status != 200 or seen.document["status"] != "PAID":
            return
        left = placed.total - seen.document["refundedAmount"]
        if left < 1:
            return
        amount = left if random.random() < 0.3 else random.randint(1, left)
        self._client.log.ask(placed.order_id, "refund")
        body = {"amount": amount, "reason": "LOAD"}
        call = self._calls.make("refund_order", body=body, orderId=placed.order_id)
        await self._client.send(call, self._world.support)

    # ---- sessions and staff

    async def _session(self, random: Random, who: Account) -> None:
        chance = random.random()
        try:
            if chance < 0.6:
                await who.refresh()
                return
            outcome = await who.log_in()
        except NoToken:
            return  # counted where it was refused
        if outcome.status == 200 and chance < 0.8:
            body = {"refreshToken": outcome.document["refreshToken"]}
            await self._client.send(self._calls.make("log_out", body=body))

    async def _administer(self, random: Random, who: Account) -> None:
        chance = random.random()
        if chance < 0.35:
            product, quantity = random.choice(self._world.flash), 5
        elif chance < 0.4:
            product, quantity = self._world.last_one[0], 1
        else:
            product, quantity = self._world.pick_product(random), random.randint(1, 50)
        if chance < 0.7:
            body = {"quantity": quantity}
            call = self._calls.make("restock", body=body, productId=product.product_id)
            await self._client.send(call, self._world.staff)
            return
        price = max(100, product.price + random.choice((-100, 100, 200)))
        await self.change_price(product.product_id, price)

    async def change_price(self, product_id: int, price: int) -> Outcome:
        """Sets a price the way staff do: read the product, then name the version that was read."""
        staff, make = self._world.staff, self._calls.make
        seen = await self._client.send(make("show_product", productId=product_id), staff)
        headers = {"if-match": seen.header(b"etag") or '"none"'}
        body = {"price": price}
        call = make("change_product", body=body, headers=headers, productId=product_id)
        outcome = await self._client.send(call, staff)
        known = (*self._world.products, *self._world.flash, *self._world.last_one)
        for product in known:
            if outcome.status == 200 and product.product_id == product_id:
                product.price = price
        return outcome
