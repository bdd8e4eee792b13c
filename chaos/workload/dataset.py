"""The dataset of the workload: staff accounts, products and customers."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from chaos.controlled_process import JsonObject
from chaos.workload.client import Account, Client, Outcome, PlacedOrder, RetryPolicy
from tools.seed import LOCAL_ACCOUNTS

PRODUCTS = 60
STOCK = 500_000
FLASH_PRODUCTS = 5
FLASH_STOCK = 5
ZIPF_EXPONENT = 1.1
CONCURRENT_REGISTRATIONS = 8
RECENT_ORDERS_MAX = 500
# Of customers that exist during a run only.
PASSWORD = "a password of the load"  # noqa: S105
FLASH_SHARE = 0.05
COUPONS: dict[str, dict[str, int]] = {
    "ALL": {"discountBasisPoints": 1_250, "discountMaximum": 3_000},
    "ONCE": {"discountAmount": 137, "usesPerCustomerMaximum": 1},
    "FEW": {"discountAmount": 333, "usesMaximum": 20},
}
SHIPPING_FEE = {"amount": 2_500, "freeFrom": 20_000}
LAST_UNIT_SHARE = 0.005
# For what a whole run rests on: faults may be active when it is sent.
PATIENT = RetryPolicy(attempts_max=20)


class DatasetError(RuntimeError):
    """The shop did not accept a part of the dataset."""


@dataclass
class Product:
    """A product of the run with the last price that the workload has read."""

    product_id: int
    price: int


@dataclass
class Dataset:
    """Everything the workload uses; ``recent_orders`` are the newest orders of all customers.

    ``accounts`` has customers and staff by email address.
    """

    client: Client
    category: str
    staff_by_role: dict[str, Account]
    # any number of orders; one of a customer; a few orders
    coupons: tuple[str, ...] = ()
    has_shipping_fee: bool = False
    products: list[Product] = field(default_factory=list[Product])
    flash_products: list[Product] = field(default_factory=list[Product])
    last_unit_products: list[Product] = field(default_factory=list[Product])
    customers: list[Account] = field(default_factory=list[Account])
    accounts: dict[str, Account] = field(default_factory=dict[str, Account])
    recent_orders: deque[PlacedOrder] = field(
        default_factory=lambda: deque[PlacedOrder](maxlen=RECENT_ORDERS_MAX)
    )
    weights: list[float] = field(default_factory=list[float])
    # the account whose role administrators change; it makes no requests
    managed_id: int = 0
    # the webhook that administrators change; nothing listens at its address
    webhook_id: str = ""

    @property
    def staff(self) -> Account:
        """The account that changes products."""
        return self.staff_by_role["staff"]

    @property
    def support(self) -> Account:
        """The account that refunds."""
        return self.staff_by_role["support"]

    @property
    def admin(self) -> Account:
        """The account with role admin."""
        return self.staff_by_role["admin"]

    @property
    def finance(self) -> Account:
        """The account that reads settlements."""
        return self.staff_by_role["finance"]

    def choose_product(self, random: Random) -> Product:
        """A product by popularity (Zipf); a flash sale and a last unit have fixed shares."""
        chance = random.random()
        if chance < LAST_UNIT_SHARE:
            return random.choice(self.last_unit_products)
        if chance < FLASH_SHARE:
            return random.choice(self.flash_products)
        return random.choices(self.products, cum_weights=self.weights)[0]

    async def add_product(self, *, price: int, stock: int, name: str = "Load") -> Product:
        """A new product.  Raises DatasetError."""
        body = {
            "name": f"{name} {self.client.calls.new_key()}",
            "category": self.category,
            "price": price,
            "stockQuantity": stock,
        }
        call = self.client.calls.make("add_product", body=body)
        document = _expect(await self.client.send(call, self.staff), 201)
        return Product(document["id"], price)

    def shipping_fee(self, goods: int) -> int:
        """What shipping costs for goods of this amount."""
        is_free = not self.has_shipping_fee or goods >= SHIPPING_FEE["freeFrom"]
        return 0 if is_free else SHIPPING_FEE["amount"]

    async def offer_coupons(self) -> None:
        """Adds the coupons that customers use from now on, and what shipping costs.

        Once; the release before has none.
        """
        if self.coupons:
            return
        fee = self.client.calls.make("add_shipping_fee", body=SHIPPING_FEE)
        sent = await self.client.send(fee, self.staff, PATIENT)
        self.has_shipping_fee = sent.status == 201
        make, run_id = self.client.calls.make, self.client.calls.run_id
        for name, terms in COUPONS.items():
            body = {"code": f"{name}-{run_id}", "combinable": True, **terms}
            outcome = await self.client.send(make("add_coupon", body=body), self.staff, PATIENT)
            if outcome.status == 201:
                self.coupons += (outcome.document["code"],)

    async def add_customer(self, number: int) -> Account:
        """A new customer who is logged in.  Raises DatasetError and LoginFailed."""
        email = f"load-{self.client.calls.run_id}-{number}@example.com"
        body = {"email": email, "password": PASSWORD, "name": f"Load {number}"}
        outcome = await self.client.send(self.client.calls.make("register", body=body))
        account = Account(self.client, email, PASSWORD, _expect(outcome, 201)["id"])
        self.accounts[email] = account
        await account.token()
        return account


def zipf_weights(count: int, exponent: float = ZIPF_EXPONENT) -> list[float]:
    """Cumulative weights: the n-th product is chosen in proportion to n to the minus exponent."""
    return list(accumulate(rank**-exponent for rank in range(1, count + 1)))


async def create_dataset(client: Client, *, accounts: int, seed: int) -> Dataset:
    """Logs staff in, adds the products and registers the customers.

    Raises DatasetError and LoginFailed.
    """
    staff = {role: Account(client, email, password) for role, email, password in LOCAL_ACCOUNTS}
    dataset = Dataset(client, f"load-{client.calls.run_id}", staff)
    dataset.accounts = {account.email: account for account in staff.values()}
    for account in staff.values():
        me = await client.send(client.calls.make("read_me"), account)
        account.user_id = _expect(me, 200)["id"]
    category = client.calls.make("add_category", body={"name": dataset.category})
    _expect(await client.send(category, dataset.staff), 201)
    await _add_products(dataset, Random(f"{seed} dataset"))  # noqa: S311
    for first in range(0, accounts, CONCURRENT_REGISTRATIONS):
        numbers = range(first, min(first + CONCURRENT_REGISTRATIONS, accounts))
        dataset.customers += await asyncio.gather(*map(dataset.add_customer, numbers))
    dataset.managed_id = (await dataset.add_customer(accounts)).user_id
    body = {"url": "http://127.0.0.1:9/", "eventTypes": ["refund.rejected"]}
    webhook = await client.send(client.calls.make("create_webhook", body=body), dataset.admin)
    dataset.webhook_id = _expect(webhook, 201)["id"]
    return dataset


async def _add_products(dataset: Dataset, random: Random) -> None:
    for _ in range(PRODUCTS):
        price = 100 * random.randint(5, 500)
        dataset.products.append(await dataset.add_product(price=price, stock=STOCK))
    dataset.weights = zipf_weights(PRODUCTS)
    for _ in range(FLASH_PRODUCTS):
        product = await dataset.add_product(price=900, stock=FLASH_STOCK, name="Flash")
        dataset.flash_products.append(product)
    dataset.last_unit_products.append(await dataset.add_product(price=700, stock=1, name="Last"))


def _expect(outcome: Outcome, status: int) -> JsonObject:
    """The response's document.  Raises DatasetError when the status is another one."""
    if outcome.status != status:
        raise DatasetError(f"{outcome.status} instead of {status}: {outcome.body[:200]!r}")
    return outcome.document
