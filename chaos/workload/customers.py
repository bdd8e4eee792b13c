"""The actions of customers and staff: browse, cart, order, cancel, refund, sessions, support.

Each action draws its choices from the random generator that it is given, so a seed decides them.
A cancellation, a refund or a declined payment is logged before it is sent: the final checks
exclude its order even when its response is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import httpx

from chaos.workload import payment_actions
from chaos.workload.arrivals import CLOSED_LOOP_CUSTOMERS, MIX, choose_action
from chaos.workload.client import (
    DEFAULT_RETRIES,
    Account,
    Client,
    LoginFailed,
    Outcome,
    PlacedOrder,
    RetryPolicy,
)
from chaos.workload.dataset import PASSWORD, Dataset
from chaos.workload.operations import Call
from shop.primitives.ids import new_uuid

LINES_MAX = 4
QUANTITY_MAX = 3
DECLINED_SHARE = 0.06
DECLINED_METHOD = "CARD_DECLINED"
METHODS = ("CARD", "CARD", "CARD", "TRANSFER")
# A cancellation within this time after the order coincides with its charge.
CHARGE_SECONDS = 0.05
EXPECTS_TOTAL_SHARE = 0.1
COUPONS_SHARE = 0.2
LIMITED_COUPONS_SHARE = 0.3
FOLLOW_UPS_MAX = 200
# of the cancellations that come later
UNIT_FIRST_SHARE = 0.4
# of the actions of staff and administrators
SHIPMENTS_SHARE = 0.4

Action = Callable[[Random, Account], Awaitable[None]]


class Customers:
    """Executes the actions of all customers and staff."""

    def __init__(self, client: Client, dataset: Dataset) -> None:
        self._client = client
        self._calls = client.calls
        self._dataset = dataset
        self._follow_ups: set[asyncio.Task[None]] = set()
        self._provider = httpx.AsyncClient()
        self.mix = MIX
        self._actions: dict[str, Action] = {
            "browse": self._browse,
            "cart": self._use_cart,
            "place": self._place,
            "cancel": self._cancel,
            "refund": self._refund,
            "session": self._session,
            "support": self._support,
            "admin": self._administer,
        }

    async def act(self, random: Random, number: int | None) -> None:
        """One action of a closed-loop customer, or of a random other one for an arrival."""
        customers = self._dataset.customers
        others = customers[CLOSED_LOOP_CUSTOMERS:] or customers
        account = random.choice(others) if number is None else customers[number % len(customers)]
        await self._actions[choose_action(random, self.mix)](random, account)

    async def finish(self) -> None:
        """Waits for payments that customers are still to make."""
        await asyncio.gather(*self._follow_ups)

    async def close(self) -> None:
        """Ends the connections to the payment provider, after the last load."""
        await self._provider.aclose()

    async def browse_or_place(self, random: Random, retries: RetryPolicy) -> Outcome:
        """One call of a surge: a read or an order."""
        account = random.choice(self._dataset.customers)
        if random.random() < 0.6:
            return await self._client.send(self._browse_call(random, account), account, retries)
        return await self._send_order(random, account, self._order(random), retries)

    # ---- browse and cart

    async def _browse(self, random: Random, account: Account) -> None:
        await self._client.send(self._browse_call(random, account), account)

    def _browse_call(self, random: Random, account: Account) -> Call:
        make, product = self._calls.make, self._dataset.choose_product(random)
        reads: list[Callable[[], Call]] = [
            lambda: make("list_products", query={"limit": random.randint(5, 50)}),
            lambda: make(
                "list_products", query={"category": self._dataset.category, "sort": "price"}
            ),
            lambda: make("list_products", query={"name": "Flash"}),
            lambda: make("show_product", productId=product.product_id),
            lambda: make("show_product", productId=product.product_id),
            lambda: make("list_categories"),
            lambda: make("read_me"),
            lambda: make("show_cart"),
            lambda: make("list_my_orders", query={"limit": 5}),
        ]
        if account.orders:
            order_id = random.choice(account.orders).order_id
            reads.append(lambda: make("read_order", orderId=order_id))
            reads.append(lambda: make("read_timeline", orderId=order_id))
        return random.choice(reads)()

    async def _use_cart(self, random: Random, account: Account) -> None:
        numbers = [
            self._dataset.choose_product(random).product_id for _ in range(random.randint(1, 2))
        ]
        for number in numbers:
            item = {"productId": number, "quantity": random.randint(1, 2)}
            await self._client.send(self._calls.make("add_item", body=item), account)
        chance = random.random()
        if chance < 0.5:
            method = self._method(random)
            body: dict[str, object] = {"paymentMethod": method}
            if coupons := self._coupons(random):
                body["coupons"] = coupons
            call = self._calls.make("place_order_from_cart", body=body)
            await self._send_order(random, account, (call, method))
        elif chance < 0.6:
            change = {"quantity": random.randint(0, QUANTITY_MAX)}
            call = self._calls.make("change_item", body=change, productId=numbers[-1])
            await self._client.send(call, account)
        elif chance < 0.7:
            call = self._calls.make("remove_item", productId=numbers[-1])
            await self._client.send(call, account)
        elif chance < 0.75:
            await self._client.send(self._calls.make("empty_cart"), account)

    # ---- orders

    async def _place(self, random: Random, account: Account) -> None:
        await self._send_order(random, account, self._order(random))

    def _order(self, random: Random) -> tuple[Call, str]:
        """An order and its payment method: one line in either form, or several."""
        count = 1 if random.random() < 0.5 else random.randint(2, LINES_MAX)
        drawn = [self._dataset.choose_product(random) for _ in range(count)]
        chosen = {product.product_id: product for product in drawn}
        lines = [
            {"productId": number, "quantity": random.randint(1, QUANTITY_MAX)} for number in chosen
        ]
        method = self._method(random)
        body: dict[str, object] = {"items": lines, "paymentMethod": method}
        if len(lines) == 1 and random.random() < 0.7:
            body = {**lines[0], "paymentMethod": method}
        if coupons := self._coupons(random):
            body["coupons"] = coupons
        elif random.random() < EXPECTS_TOTAL_SHARE:
            total = sum(chosen[line["productId"]].price * line["quantity"] for line in lines)
            body["expectedTotalAmount"] = total + self._dataset.shipping_fee(total)
        return self._calls.make("place_order", body=body), method

    def _coupons(self, random: Random) -> list[str]:
        """For a part of the orders, the coupon without limits, and sometimes a limited one."""
        if not self._dataset.coupons or random.random() >= COUPONS_SHARE:
            return []
        unlimited, *limited = self._dataset.coupons
        is_limited = limited and random.random() < LIMITED_COUPONS_SHARE
        return [unlimited, random.choice(limited)] if is_limited else [unlimited]

    def _method(self, random: Random) -> str:
        drawn = random.random()
        if drawn < DECLINED_SHARE:
            return DECLINED_METHOD
        is_with_action = drawn < DECLINED_SHARE + payment_actions.SHARE
        return random.choice(payment_actions.METHODS if is_with_action else METHODS)

    async def _send_order(
        self,
        random: Random,
        account: Account,
        order: tuple[Call, str],
        retries: RetryPolicy = DEFAULT_RETRIES,
    ) -> Outcome:
        """Sends an order and logs it; some customers with a declined card pay again later."""
        call, method = order
        outcome = await self._client.send(call, account, retries)
        if outcome.status != 201:
            return outcome
        document = outcome.document
        placed = PlacedOrder(document["id"], document["totalAmount"], account)
        if method == DECLINED_METHOD:
            self._client.log.add_intervention(placed.order_id, "decline")
            if random.random() < 0.66 and len(self._follow_ups) < FOLLOW_UPS_MAX:
                self._schedule(self._pay_again(random, placed))
        if method in payment_actions.METHODS:
            self._client.log.add_intervention(placed.order_id, "decline")
            if len(self._follow_ups) < FOLLOW_UPS_MAX:
                customer = payment_actions.PayingCustomer(self._client, placed, self._provider)
                self._schedule(customer.pay(Random(random.random())))  # noqa: S311 (repeatable)
        self._client.log.add_order(placed.order_id, account.user_id, method)
        account.orders.append(placed)
        self._dataset.recent_orders.append(placed)
        return outcome

    def _schedule(self, later: Awaitable[None]) -> None:
        task = asyncio.ensure_future(later)
        self._follow_ups.add(task)
        task.add_done_callback(self._follow_ups.discard)

    async def _pay_again(self, random: Random, placed: PlacedOrder) -> None:
        await asyncio.sleep(random.uniform(0.5, 3.0))
        method = DECLINED_METHOD if random.random() < 0.2 else "CARD"
        self._client.log.add_intervention(
            placed.order_id, "pay_again" if method == "CARD" else "decline"
        )
        call = self._calls.make(
            "pay_again", body={"paymentMethod": method}, orderId=placed.order_id
        )
        await self._client.send(call, placed.account)

    async def _cancel(self, random: Random, account: Account) -> None:
        """Half of the cancellations coincide with the charge, the others come later.

        Of those, some leave a unit out first, which the cancellation of the rest must not return.
        """
        if account.orders and random.random() < 0.5:
            order_id = random.choice(account.orders).order_id
            if random.random() < UNIT_FIRST_SHARE:
                await self._cancel_one_unit(random, order_id, account)
            await self._cancel_order(order_id, account)
            return
        outcome = await self._send_order(random, account, self._order(random))
        if outcome.status == 201:
            await asyncio.sleep(random.uniform(0.0, CHARGE_SECONDS))
            await self._cancel_order(outcome.document["id"], account)

    async def _cancel_order(self, order_id: str, account: Account) -> None:
        self._client.log.add_intervention(order_id, "cancel")
        await self._client.send(self._calls.make("cancel_order", orderId=order_id), account)

    async def _cancel_one_unit(self, random: Random, order_id: str, account: Account) -> None:
        seen = await self._client.send(self._calls.make("read_order", orderId=order_id), account)
        if seen.status == 200 and seen.document["status"] == "PAID":
            line = random.choice(seen.document["items"])
            await self._cancel_units(order_id, account, line["productId"])

    async def _refund(self, random: Random, _account: Account) -> None:
        """Support refunds a paid order, completely or in part."""
        if not self._dataset.recent_orders:
            return
        placed = random.choice(self._dataset.recent_orders)
        read = self._calls.make("read_order", orderId=placed.order_id)
        seen = await self._client.send(read, placed.account)
        if seen.status != 200 or seen.document["status"] != "PAID":
            return
        left = placed.total - seen.document["refundedAmount"]
        if left < 1:
            return
        amount = left if random.random() < 0.3 else random.randint(1, left)
        self._client.log.add_intervention(placed.order_id, "refund")
        body = {"amount": amount, "reason": "LOAD"}
        call = self._calls.make("refund_order", body=body, orderId=placed.order_id)
        await self._client.send(call, self._dataset.support)

    async def _support(self, random: Random, _account: Account) -> None:
        """Support finds a recent order, adds a note to it, and cancels some for their customers."""
        if not self._dataset.recent_orders:
            return
        placed, support = random.choice(self._dataset.recent_orders), self._dataset.support
        make, order_id = self._calls.make, placed.order_id
        chance = random.random()
        if chance < 0.3:
            await self._client.send(make("search_orders", query={"id": order_id}), support)
            await self._client.send(make("read_order_records", orderId=order_id), support)
            return
        if chance < 0.4:
            user_id = placed.account.user_id
            await self._client.send(make("read_customer", userId=user_id), support)
            return
        if chance < 0.8:
            note = {"text": f"called\nabout {placed.total}"}
            call = make("add_note_to_order", body=note, orderId=order_id)
            await self._client.send(call, support)
            return
        self._client.log.add_intervention(order_id, "cancel")
        body = {"reason": "ordered twice"}
        call = make("cancel_for_customer", body=body, orderId=order_id)
        await self._client.send(call, support)

    # ---- sessions and staff

    async def _session(self, random: Random, account: Account) -> None:
        chance = random.random()
        make = self._calls.make
        try:
            if chance < 0.5:
                await account.refresh()
                return
            if chance < 0.55:
                # by the same one, since a response that is lost does not say which is valid
                same = {"currentPassword": account.password, "newPassword": account.password}
                await self._client.send(make("change_password", body=same), account)
                return
            if chance < 0.6:
                await self._client.send(make("end_other_sessions"), account)
                return
            if chance < 0.65:
                await self._leave(random)
                return
            if chance < 0.68:
                body, headers = {"language": random.choice(("ko", "en"))}, {"if-match": "*"}
                call = make("change_profile", body=body, headers=headers)
                await self._client.send(call, account)
                return
            if chance < 0.7:
                await self._client.send(make("request_email_verification"), account)
                return
            outcome = await account.log_in()
        except LoginFailed:
            return  # the failed attempts have been counted
        if outcome.status == 200 and chance < 0.8:
            body = {"refreshToken": outcome.document["refreshToken"]}
            await self._client.send(make("log_out", body=body))

    async def _leave(self, random: Random) -> None:
        """A new customer fills a cart, exports the data and closes the account, twice.

        Without keys: a registration that is repeated after the closing makes another account.
        """
        make, email = self._calls.make, f"{new_uuid()}@faults.example"
        person = {"email": email, "password": PASSWORD, "name": "Leaving"}
        registered = await self._client.send(replace(make("register", body=person), key=None))
        if registered.status != 201:
            return
        leaving = Account(self._client, email, PASSWORD, registered.document["id"])
        item = {"productId": self._dataset.choose_product(random).product_id, "quantity": 1}
        await self._client.send(replace(make("add_item", body=item), key=None), leaving)
        await self._client.send(make("export_data"), leaving)
        for _ in range(2):
            call = make("close_account", body={"password": PASSWORD})
            await self._client.send(call, leaving)

    async def _administer(self, random: Random, _account: Account) -> None:
        if random.random() < SHIPMENTS_SHARE:
            await self._ship(random)
            return
        if random.random() < 0.2:
            choices = (self._change_role, self._invite, self._change_webhook)
            await random.choices(choices, weights=(4, 2, 4))[0]()
            return
        chance = random.random()
        if chance < 0.05:
            await self._withdraw_or_bring_back()
            return
        if chance < 0.15:
            await self._schedule_price(random)
            return
        if chance < 0.23:
            await self._write_off(random)
            return
        if chance < 0.4:
            product, quantity = random.choice(self._dataset.flash_products), 5
        elif chance < 0.45:
            product, quantity = self._dataset.last_unit_products[0], 1
        else:
            product, quantity = self._dataset.choose_product(random), random.randint(1, 50)
        if chance < 0.7:
            body = {"quantity": quantity}
            call = self._calls.make("change_stock", body=body, productId=product.product_id)
            await self._client.send(call, self._dataset.staff)
            return
        price = max(100, product.price + random.choice((-100, 100, 200)))
        await self.change_price(product.product_id, price)

    async def _ship(self, random: Random) -> None:
        """Staff pack a recent order, some of it twice, and send most of what they packed.

        Some customers try to cancel what was sent.
        """
        if not self._dataset.recent_orders:
            return
        placed, staff = random.choice(self._dataset.recent_orders), self._dataset.staff
        make, order_id = self._calls.make, placed.order_id
        seen = await self._client.send(make("read_order", orderId=order_id), placed.account)
        if seen.status != 200:
            return
        line = random.choice(seen.document["items"])
        one = {"items": [{name: line[name] for name in ("productId", "quantity")}]}
        requests = random.choice(((None,), (one,), (one, one), (one, None)))
        packed = [
            await self._client.send(make("create_shipment", body=body, orderId=order_id), staff)
            for body in requests
        ]
        for outcome in packed:
            if outcome.status == 201:
                await self._send_shipment(random, order_id, outcome.document["id"])
        chance = random.random()
        if chance < 0.3:
            await self._cancel_order(order_id, placed.account)
        elif chance < 0.5:
            await self._cancel_units(order_id, placed.account, line["productId"])
        else:
            await self._return_units(random, order_id, placed.account, line)

    async def _cancel_units(self, order_id: str, account: Account, product_id: int) -> None:
        """One unit, which may be packed, sent, or the last one of the order."""
        self._client.log.add_intervention(order_id, "cancel")
        body = {"items": [{"productId": product_id, "quantity": 1}]}
        call = self._calls.make("cancel_lines", body=body, orderId=order_id)
        await self._client.send(call, account)

    async def _return_units(
        self, random: Random, order_id: str, account: Account, line: Mapping[str, int]
    ) -> None:
        """The customer asks twice, support and staff answer; some goods are written off."""
        make, number = self._calls.make, line["productId"]
        self._client.log.add_intervention(order_id, "refund")
        body = {"items": [{"productId": number, "quantity": 1}], "reason": "too small"}
        asked = [
            await self._client.send(make("request_return", body=body, orderId=order_id), account)
            for _ in range(2)
        ]
        for outcome in asked:
            if outcome.status != 201:
                continue
            return_id = str(outcome.document["id"])
            status = "APPROVED" if random.random() < 0.8 else "REJECTED"
            decision = make(
                "decide_return", body={"status": status}, orderId=order_id, returnId=return_id
            )
            await self._client.send(decision, self._dataset.support)
            restocked = [{"productId": number, "quantity": random.randint(0, 1)}]
            receipt = make(
                "receive_return",
                body={"restocked": restocked},
                orderId=order_id,
                returnId=return_id,
            )
            await self._client.send(receipt, self._dataset.staff)

    async def _send_shipment(self, random: Random, order_id: str, shipment_id: str) -> None:
        """Of ten, one is dropped, one stays packed, and half of those that are sent arrive."""
        chance = random.random()
        number = {"carrier": "load", "trackingNumber": self._calls.new_key()}
        changes: list[dict[str, object]] = []
        if chance < 0.1:
            changes = [{"status": "CANCELLED"}]
        elif chance < 0.9:
            changes = [{"status": "SHIPPED", **number}, {"status": "DELIVERED"}]
        for change in changes[: random.randint(1, 2)]:
            call = self._calls.make(
                "change_shipment", body=change, orderId=order_id, shipmentId=shipment_id
            )
            await self._client.send(call, self._dataset.staff)

    async def _write_off(self, random: Random) -> None:
        """Takes stock away, of products that often have less than that, or less unreserved."""
        product = random.choice((*self._dataset.flash_products, *self._dataset.last_unit_products))
        body = {"quantity": -random.randint(1, 3), "reason": random.choice(("DAMAGE", "LOSS"))}
        call = self._calls.make("change_stock", body=body, productId=product.product_id)
        await self._client.send(call, self._dataset.staff)

    async def _schedule_price(self, random: Random) -> None:
        """Plans a price for some seconds, for products that customers order rarely.

        Long enough that a sweep with a backlog still begins and ends most of them.
        """
        product = random.choice(self._dataset.products[-5:-1])
        begin = datetime.now(UTC) + timedelta(seconds=random.uniform(-2, 5))
        times = {"startsAt": begin, "endsAt": begin + timedelta(seconds=random.uniform(10, 25))}
        body = {"price": product.price + random.choice((-50, 50))}
        body |= {name: time.isoformat() for name, time in times.items()}
        call = self._calls.make("schedule_price", body=body, productId=product.product_id)
        await self._client.send(call, self._dataset.staff)

    async def _withdraw_or_bring_back(self) -> None:
        """Withdraws the product that customers order least, or brings it back."""
        staff, make = self._dataset.staff, self._calls.make
        product_id = self._dataset.products[-1].product_id
        seen = await self._client.send(make("show_any_product", productId=product_id), staff)
        if seen.status != 200:
            return
        headers = {"if-match": seen.header(b"etag") or '"none"'}
        body = {"active": not seen.document["active"]}
        call = make("change_product", body=body, headers=headers, productId=product_id)
        await self._client.send(call, staff)

    async def _change_role(self) -> None:
        """Gives the account that makes no requests the other of two roles."""
        admin, make = self._dataset.admin, self._calls.make
        user_id = self._dataset.managed_id
        seen = await self._client.send(make("read_account", userId=user_id), admin)
        if seen.status != 200:
            return
        body = {"role": "customer" if seen.document["role"] == "support" else "support"}
        headers = {"if-match": seen.header(b"etag") or '"none"'}
        call = make("change_account", body=body, headers=headers, userId=user_id)
        await self._client.send(call, admin)

    async def _change_webhook(self) -> None:
        """Gives the webhook without a receiver the other of two event types."""
        admin, make = self._dataset.admin, self._calls.make
        webhook_id = self._dataset.webhook_id
        seen = await self._client.send(make("read_webhook", webhookId=webhook_id), admin)
        if seen.status != 200:
            return
        is_first = seen.document["eventTypes"] == ["refund.rejected"]
        body = {"eventTypes": ["payment.declined" if is_first else "refund.rejected"]}
        headers = {"if-match": seen.header(b"etag") or '"none"'}
        call = make("change_webhook", body=body, headers=headers, webhookId=webhook_id)
        await self._client.send(call, admin)

    async def _invite(self) -> None:
        """Makes an account of an address that has none."""
        body = {"email": f"{new_uuid()}@faults.example", "name": "Invited", "role": "staff"}
        await self._client.send(self._calls.make("invite", body=body), self._dataset.admin)

    async def change_price(self, product_id: int, price: int) -> Outcome:
        """Changes a price with the ETag of the product that was read before."""
        staff, make = self._dataset.staff, self._calls.make
        seen = await self._client.send(make("show_product", productId=product_id), staff)
        headers = {"if-match": seen.header(b"etag") or '"none"'}
        body = {"price": price}
        call = make("change_product", body=body, headers=headers, productId=product_id)
        outcome = await self._client.send(call, staff)
        dataset = self._dataset
        known = (*dataset.products, *dataset.flash_products, *dataset.last_unit_products)
        for product in known:
            if outcome.status == 200 and product.product_id == product_id:
                product.price = price
        return outcome
