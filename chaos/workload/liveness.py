"""The tail of a run: after the last heal, every operation succeeds at its first try."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from chaos.workload.buyers import DECLINING
from chaos.workload.client import ONCE, Account, Client, NoToken, Outcome
from chaos.workload.dataset import PASSWORD, World
from chaos.workload.operations import PLACING, Call

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.1
FAILED_SHOWN = 20
STOCK = 500_000

Asked = tuple[Call, Account | None]
Make = Callable[[], Awaitable[Asked]]


class NotReady(Exception):
    """What an operation needs before it can be asked did not come about."""


@dataclass
class Tail:
    """Asks each operation of the API some times in a row, once each."""

    client: Client
    world: World
    product_id: int = 0
    asked: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)

    async def run(self, count: int) -> dict[str, Any]:
        """Asks every operation ``count`` times; tells what did not succeed at once."""
        product = await self.world.new_product(price=1_000, stock=STOCK, name="Tail")
        self.product_id = product.product_id
        everything = {**self._reads(), **self._sessions(), **self._writes(), **self._ordering()}
        for name, make in everything.items():
            for _ in range(count):
                await self._ask(name, make)
        return {
            "asked": self.asked,
            "operations": sorted(everything),
            "failed_total": len(self.failed),
            "failed": self.failed[:FAILED_SHOWN],
        }

    async def _ask(self, name: str, make: Make) -> None:
        self.asked += 1
        try:
            call, account = await make()
            outcome = await self.client.send(call, account, ONCE)
        except (NotReady, NoToken) as error:
            self._fail(name, None, str(error))
            return
        if outcome.status == call.operation.success:
            self._note(call, account, outcome)
        else:
            self._fail(name, outcome.status, outcome.code)

    def _fail(self, name: str, status: int | None, why: str) -> None:
        self.failed.append({"at": time.time(), "operation": name, "status": status, "why": why})

    def _note(self, call: Call, account: Account | None, outcome: Outcome) -> None:
        if call.operation.name in PLACING and account is not None:
            order = outcome.document
            self.client.log.place(order["id"], account.user_id, order["paymentMethod"])

    # ---- what is asked

    def _reads(self) -> dict[str, Make]:
        who, finance = self.world.customers[0], self.world.finance
        return {
            "list_products": self._plain("list_products", query={"limit": 20}),
            "show_product": self._plain("show_product", productId=self.product_id),
            "list_categories": self._plain("list_categories"),
            "show_keys": self._plain("show_keys"),
            "show_openapi": self._plain("show_openapi"),
            "read_me": self._plain("read_me", who),
            "list_my_orders": self._plain("list_my_orders", who),
            "read_order": self._of_order("read_order"),
            "read_timeline": self._of_order("read_timeline"),
            "read_daily": self._plain("read_daily", finance),
            "read_monthly": self._plain("read_monthly", finance),
        }

    def _sessions(self) -> dict[str, Make]:
        return {
            "log_in": self._log_in,
            "refresh": self._of_session("refresh"),
            "log_out": self._of_session("log_out"),
            "register": self._register,
        }

    def _writes(self) -> dict[str, Make]:
        who, staff, number = self.world.customers[0], self.world.staff, self.product_id
        one = {"quantity": 1}
        return {
            "add_item": self._plain("add_item", who, body={"productId": number, **one}),
            "show_cart": self._plain("show_cart", who),
            "change_item": self._plain("change_item", who, body=one, productId=number),
            "remove_item": self._plain("remove_item", who, productId=number),
            "empty_cart": self._plain("empty_cart", who),
            "restock": self._plain("restock", staff, body=one, productId=number),
            "add_product": self._add_product,
            "add_category": self._add_category,
            "change_product": self._change_product,
        }

    def _ordering(self) -> dict[str, Make]:
        who = self.world.customers[0]
        body = {"productId": self.product_id, "quantity": 1, "paymentMethod": "CARD"}
        return {
            "place_order": self._plain("place_order", who, body=body),
            "place_order_from_cart": self._from_cart,
            "cancel_order": self._of_order("cancel_order"),
            "pay_again": self._pay_again,
            "refund_order": self._refund,
        }

    # ---- how it is prepared

    def _plain(self, name: str, account: Account | None = None, **parts: Any) -> Make:
        async def make() -> Asked:
            return self.client.calls.make(name, **parts), account

        return make

    def _of_order(self, name: str) -> Make:
        async def make() -> Asked:
            order_id, who = await self._placed("CARD")
            if name == "cancel_order":
                self.client.log.ask(order_id, "cancel")
            return self.client.calls.make(name, orderId=order_id), who

        return make

    def _of_session(self, name: str) -> Make:
        async def make() -> Asked:
            outcome = await self.world.customers[0].log_in()
            if outcome.status != 200:
                raise NotReady(f"no session: {outcome.status}")
            body = {"refreshToken": outcome.document["refreshToken"]}
            return self.client.calls.make(name, body=body), None

        return make

    async def _log_in(self) -> Asked:
        body = {"email": self.world.customers[0].email, "password": PASSWORD}
        return self.client.calls.make("log_in", body=body), None

    async def _register(self) -> Asked:
        email = f"{self.client.calls.new_key()}@example.com"
        body = {"email": email, "password": PASSWORD, "name": "Tail"}
        return self.client.calls.make("register", body=body), None

    async def _add_product(self) -> Asked:
        name = f"Tail {self.client.calls.new_key()}"
        body = {"name": name, "category": self.world.category, "price": 500, "stockQuantity": 1}
        return self.client.calls.make("add_product", body=body), self.world.staff

    async def _add_category(self) -> Asked:
        body = {"name": self.client.calls.new_key()}
        return self.client.calls.make("add_category", body=body), self.world.staff

    async def _change_product(self) -> Asked:
        look = self.client.calls.make("show_product", productId=self.product_id)
        seen = await self.client.send(look, self.world.staff)
        call = self.client.calls.make(
            "change_product",
            body={"price": 1_000},
            headers={"if-match": seen.header(b"etag") or '"none"'},
            productId=self.product_id,
        )
        return call, self.world.staff

    async def _from_cart(self) -> Asked:
        who = self.world.customers[0]
        item = {"productId": self.product_id, "quantity": 1}
        await self.client.send(self.client.calls.make("add_item", body=item), who)
        body = {"paymentMethod": "CARD"}
        return self.client.calls.make("place_order_from_cart", body=body), who

    async def _pay_again(self) -> Asked:
        order_id, who = await self._placed(DECLINING)
        self.client.log.ask(order_id, "decline")
        await self._until(
            order_id, who, lambda order: (order["payment"] or {}).get("status") == "DECLINED"
        )
        self.client.log.ask(order_id, "pay_again")
        body = {"paymentMethod": "CARD"}
        return self.client.calls.make("pay_again", body=body, orderId=order_id), who

    async def _refund(self) -> Asked:
        order_id, who = await self._placed("CARD")
        await self._until(order_id, who, lambda order: bool(order["status"] == "PAID"))
        self.client.log.ask(order_id, "refund")
        call = self.client.calls.make("refund_order", body={"amount": 1}, orderId=order_id)
        return call, self.world.support

    async def _placed(self, method: str) -> tuple[str, Account]:
        who = self.world.customers[0]
        body = {"productId": self.product_id, "quantity": 1, "paymentMethod": method}
        call = self.client.calls.make("place_order", body=body)
        outcome = await self.client.send(call, who)
        if outcome.status != 201:
            raise NotReady(f"no order: {outcome.status} {outcome.code}")
        self._note(call, who, outcome)
        return str(outcome.document["id"]), who

    async def _until(
        self, order_id: str, who: Account, holds: Callable[[dict[str, Any]], bool]
    ) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            look = self.client.calls.make("read_order", orderId=order_id)
            seen = await self.client.send(look, who)
            if seen.status == 200 and holds(seen.document):
                return
            await asyncio.sleep(POLL_SECONDS)
        raise NotReady(f"order {order_id} did not get there in {PATIENCE_SECONDS:.0f} s")
