"""Who buys what: the shop's people, the products of a run and the customers it registers."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import Any

from chaos.workload.client import Account, Client, Outcome, Placed
from tools.seed import LOCAL_ACCOUNTS

PRODUCTS = 60
STOCK = 500_000
FLASH_PRODUCTS = 5
FLASH_STOCK = 5
ZIPF_EXPONENT = 1.1
REGISTRATIONS_AT_ONCE = 8
# Of customers that only a run knows; there is nothing behind it.
PASSWORD = "a password of the load"  # noqa: S105
FLASH_SHARE = 0.05
LAST_ONE_SHARE = 0.005


class NotBuilt(RuntimeError):
    """The shop did not let the world of a run be made."""


@dataclass
class Product:
    """A product of the run at the last price that the load saw."""

    product_id: int
    price: int


@dataclass
class World:
    """Everything the load acts with; ``recent`` are the newest orders of all customers."""

    client: Client
    category: str
    people: dict[str, Account]
    products: list[Product] = field(default_factory=list)
    flash: list[Product] = field(default_factory=list)
    last_one: list[Product] = field(default_factory=list)
    customers: list[Account] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    recent: deque[Placed] = field(default_factory=lambda: deque(maxlen=500))
    weights: list[float] = field(default_factory=list)

    @property
    def staff(self) -> Account:
        """Who changes products."""
        return self.people["staff"]

    @property
    def support(self) -> Account:
        """Who gives money back."""
        return self.people["support"]

    @property
    def finance(self) -> Account:
        """Who reads settlements."""
        return self.people["finance"]

    def pick_product(self, random: Random) -> Product:
        """A product as customers choose: few are popular, and a flash sale draws its crowd."""
        chance = random.random()
        if chance < LAST_ONE_SHARE:
            return random.choice(self.last_one)
        if chance < FLASH_SHARE:
            return random.choice(self.flash)
        return random.choices(self.products, cum_weights=self.weights)[0]

    async def new_product(self, *, price: int, stock: int, name: str = "Load") -> Product:
        """A product made by staff.  Raises NotBuilt."""
        body = {
            "name": f"{name} {self.client.calls.new_key()}",
            "category": self.category,
            "price": price,
            "stockQuantity": stock,
        }
        call = self.client.calls.make("add_product", body=body)
        made = expect(await self.client.send(call, self.staff), 201)
        return Product(made["id"], price)

    async def new_customer(self, number: int) -> Account:
        """A customer who is registered and logged in.  Raises NotBuilt."""
        email = f"load-{self.client.calls.run_id}-{number}@example.com"
        body = {"email": email, "password": PASSWORD, "name": f"Load {number}"}
        made = await self.client.send(self.client.calls.make("register", body=body))
        account = Account(self.client, email, PASSWORD, expect(made, 201)["id"])
        self.accounts[email] = account
        await account.token()
        return account


def zipf_weights(count: int, exponent: float = ZIPF_EXPONENT) -> list[float]:
    """Cumulated weights: the n-th product is chosen in proportion to n to the minus exponent."""
    return list(accumulate(rank**-exponent for rank in range(1, count + 1)))


async def build_world(client: Client, *, accounts: int, seed: int) -> World:
    """Logs the shop's people in, makes the products and registers the customers."""
    people = {role: Account(client, email, password) for role, email, password in LOCAL_ACCOUNTS}
    world = World(client, f"load-{client.calls.run_id}", people)
    world.accounts = {account.email: account for account in people.values()}
    for account in people.values():
        me = await client.send(client.calls.make("read_me"), account)
        account.user_id = expect(me, 200)["id"]
    category = client.calls.make("add_category", body={"name": world.category})
    expect(await client.send(category, world.staff), 201)
    random = Random(f"{seed} world")  # noqa: S311
    for _ in range(PRODUCTS):
        price = 100 * random.randint(5, 500)
        world.products.append(await world.new_product(price=price, stock=STOCK))
    for _ in range(FLASH_PRODUCTS):
        world.flash.append(await world.new_product(price=900, stock=FLASH_STOCK, name="Flash"))
    world.last_one.append(await world.new_product(price=700, stock=1, name="Last"))
    world.weights = zipf_weights(PRODUCTS)
    for first in range(0, accounts, REGISTRATIONS_AT_ONCE):
        numbers = range(first, min(first + REGISTRATIONS_AT_ONCE, accounts))
        world.customers += await asyncio.gather(*map(world.new_customer, numbers))
    return world


def expect(outcome: Outcome, status: int) -> dict[str, Any]:
    """The answer's document.  Raises NotBuilt when the status is another."""
    if outcome.status != status:
        raise NotBuilt(f"{outcome.status} instead of {status}: {outcome.body[:200]!r}")
    return outcome.document
