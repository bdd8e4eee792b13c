"""The context of a scenario: client, accounts, created products, and checks."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import httpx

from tools.e2e.accounts import STAFF_ROLES, Account, Credentials, MissingAccount, register
from tools.e2e.checks import Checks, describe
from tools.e2e.client import Call, Client, JsonObject, new_key
from tools.e2e.mails import Mail, MailCatcher
from tools.e2e.payments import PaymentPages

T = TypeVar("T")

CATEGORY = "e2e"
# The password of the customers that a run registers; not a secret.
PASSWORD = "a password of the end-to-end run"  # noqa: S105
# Longer than recovery from a lost event (10 s until the sweep), a killed function and a hanging
# provider.
FINAL_STATUS_SECONDS = 120.0
# The interval grows, so that waiting for one order does not use up the rate limit.
POLL_FIRST_SECONDS = 0.2
POLL_MAX_SECONDS = 3.0
PREFER_WAIT_SECONDS = 10


class UnexpectedResponse(RuntimeError):
    """A response after which the rest of the scenario cannot run."""


@dataclass
class RunContext:
    """Client and accounts of a run, shared by its scenarios to save logins and registrations."""

    client: Client
    credentials: Mapping[str, Credentials]
    run_id: str
    webhook_secret: str | None = None
    mail_catcher: MailCatcher | None = None
    payment_pages: PaymentPages | None = None
    time_zone: str = "Asia/Seoul"
    _accounts: dict[str, Account] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _has_category: bool = False

    def customer(self, number: int) -> Account:
        """The run's customer of that number, registered at first use."""
        with self._lock:
            name = f"customer {number}"
            if name not in self._accounts:
                self._accounts[name] = self.new_customer(f"{self.run_id}-{number}")
            return self._accounts[name]

    def new_customer(self, mark: str, name: str = "", accept_language: str = "ko") -> Account:
        """A newly registered customer."""
        credentials = Credentials(f"e2e-{mark}@example.com", PASSWORD)
        return register(self.client, credentials, name or f"E2E {mark}", accept_language)

    def staff_account(self, role: str) -> Account:
        """The account of a staff role.  Raises MissingAccount without credentials."""
        with self._lock:
            if role not in self._accounts:
                if role not in self.credentials:
                    raise MissingAccount(f"no {role} account: give --accounts, or --without {role}")
                self._accounts[role] = Account(self.client, self.credentials[role], role)
            return self._accounts[role]

    def category(self) -> str:
        """The category of all products of end-to-end runs, created if it does not exist."""
        with self._lock:
            is_known = self._has_category
        if not is_known:
            call = Call("POST", "/categories", json={"name": CATEGORY}, key=new_key())
            response = self.client.send(replace(call, token=self.staff_account("staff").token()))
            expect(response, 201, 409)
            with self._lock:
                self._has_category = True
        return CATEGORY


class ScenarioContext:
    """One scenario's requests, products and checks."""

    def __init__(self, run: RunContext, checks: Checks) -> None:
        self.run = run
        self.check = checks
        self._made: list[int] = []

    # ---- accounts

    def customer(self, number: int = 1) -> Account:
        """A customer of this run; the same number is the same account in every scenario."""
        return self.run.customer(number)

    def new_customer(self, name: str = "", accept_language: str = "ko") -> Account:
        """A customer of this scenario only."""
        return self.run.new_customer(unique(), name, accept_language)

    def staff(self) -> Account:
        """The account with role staff."""
        return self.run.staff_account("staff")

    def support(self) -> Account:
        """The account with role support."""
        return self.run.staff_account("support")

    def finance(self) -> Account:
        """The account with role finance."""
        return self.run.staff_account("finance")

    def admin(self) -> Account:
        """The account with role admin."""
        return self.run.staff_account("admin")

    # ---- calls

    def get(self, path: str, by: Account | None = None, **headers: str) -> httpx.Response:
        """A read; ``if_none_match="…"`` becomes the header ``If-None-Match``."""
        return self.send(Call("GET", path, headers=_header_fields(headers)), by)

    def post(
        self,
        path: str,
        body: object,
        by: Account | None = None,
        key: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        """A POST command; with a new idempotency key unless one is given."""
        return self.write("POST", path, body, by, key, **headers)

    def write(
        self,
        method: str,
        path: str,
        body: object,
        by: Account | None = None,
        key: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        """A command of any method; ``body`` None sends no body."""
        call = Call(method, path, json=body, key=key or new_key(), headers=_header_fields(headers))
        return self.send(call, by)

    def send(self, call: Call, by: Account | None = None) -> httpx.Response:
        """The definitive response to a call by an account, or without a token."""
        return self.run.client.send(_with_token(call, by))

    def send_once(self, call: Call, by: Account | None = None) -> httpx.Response:
        """The first response other than 429; raises NoResponse, which restarts the scenario."""
        return self.run.client.send(replace(_with_token(call, by), repeats=False))

    def send_unretried(self, call: Call, by: Account | None = None) -> httpx.Response:
        """One HTTP exchange without retries; raises NoResponse."""
        return self.run.client.once(_with_token(call, by))

    # ---- products

    def create_product(
        self, *, price: int = 1000, stock: int = 10, name: str = "상품"
    ) -> JsonObject:
        """Creates a product of this scenario, as staff."""
        body = {
            "name": f"E2E {name} {unique()}",
            "category": self.run.category(),
            "price": price,
            "stockQuantity": stock,
        }
        made: JsonObject = expect(self.post("/products", body, self.staff()), 201).json()
        self._made.append(made["id"])
        return made

    def stock(self, product_id: int) -> int:
        """The available quantity of a product, from the uncached product page."""
        by = self.run.customer(1)
        quantity: int = expect(self.get(f"/products/{product_id}", by), 200).json()["stockQuantity"]
        return quantity

    def deactivate_products(self) -> None:
        """Deactivates the scenario's products."""
        while self._made:
            product_id = self._made.pop()
            path = f"/products/{product_id}"
            etag = self.get(path, self.staff()).headers.get("ETag", "")
            response = self.write("PATCH", path, {"active": False}, self.staff(), if_match=etag)
            expect(response, 200)

    # ---- orders

    def post_order(
        self,
        by: Account,
        *lines: tuple[int, int],
        method: str = "CARD",
        key: str | None = None,
        **fields: object,
    ) -> httpx.Response:
        """The response to ``POST /orders`` with (product, quantity) lines, whatever its status."""
        items = [{"productId": product_id, "quantity": quantity} for product_id, quantity in lines]
        return self.post("/orders", {"items": items, "paymentMethod": method, **fields}, by, key)

    def place_order(self, by: Account, *lines: tuple[int, int], method: str = "CARD") -> JsonObject:
        """Places an order; raises UnexpectedResponse if it is not accepted."""
        order: JsonObject = expect(self.post_order(by, *lines, method=method), 201).json()
        return order

    def place_paid_order(
        self, by: Account, *lines: tuple[int, int], method: str = "CARD"
    ) -> JsonObject:
        """Places an order and waits for PAID; raises UnexpectedResponse otherwise."""
        order = self.wait_for_final_status(by, self.place_order(by, *lines, method=method)["id"])
        if order["status"] != "PAID":
            raise UnexpectedResponse(f"order {order['id']} was not paid: {order}")
        return order

    def read_order(self, by: Account, order_id: str, wait_seconds: int = 0) -> JsonObject:
        """An order; with ``wait_seconds`` the response waits until it has left PENDING."""
        headers = {"prefer": f"wait={wait_seconds}"} if wait_seconds else {}
        order: JsonObject = expect(self.get(f"/orders/{order_id}", by, **headers), 200).json()
        return order

    def wait_for_final_status(self, by: Account, order_id: str) -> JsonObject:
        """The order once it is PAID or CANCELLED, or as it is at the deadline."""
        return self.poll(
            lambda: self.read_order(by, order_id, PREFER_WAIT_SECONDS),
            lambda order: order["status"] in ("PAID", "CANCELLED"),
        )

    def wait_for_decline(self, by: Account, order_id: str, attempt: int = 1) -> JsonObject:
        """The order once that attempt's payment was declined, or as it is at the deadline."""

        def is_declined(order: JsonObject) -> bool:
            payment = payment_of(order)
            return payment.get("status") == "DECLINED" and payment.get("attempt") == attempt

        return self.poll(lambda: self.read_order(by, order_id), is_declined)

    def status_changes(self, by: Account, order_id: str, entity: str) -> list[tuple[str, str]]:
        """The (from, to) status changes of one entity type in an order's timeline, oldest first."""
        timeline = expect(self.get(f"/orders/{order_id}/timeline", by), 200).json()
        return [(entry["from"], entry["to"]) for entry in timeline if entry["entity"] == entity]

    # ---- mails

    def mails_to(self, address: str) -> list[Mail]:
        """The mails to an address, oldest first."""
        catcher = self.run.mail_catcher
        assert catcher is not None, "the runner skips this scenario without a mail catcher"
        return catcher.mails_to(address)

    # ---- payments with an action

    def wait_for_action(self, by: Account, order_id: str, *types: str) -> JsonObject:
        """The order once its payment requires one of these actions.

        Raises UnexpectedResponse when it does not until the deadline.
        """

        def type_of(order: JsonObject) -> str:
            return str(payment_of(order).get("nextAction", {}).get("type"))

        order = self.poll(lambda: self.read_order(by, order_id), lambda o: type_of(o) in types)
        if type_of(order) not in types:
            raise UnexpectedResponse(f"order {order_id} requires no {' or '.join(types)}: {order}")
        return order

    def act(self, order: JsonObject, step: str = "finish") -> tuple[int, str]:
        """The customer's part at the simulator; its status, and the token for the confirmation."""
        pages = self.run.payment_pages
        assert pages is not None, "the runner skips this scenario without a payment simulator"
        return pages.act(payment_of(order)["nextAction"], step)

    def confirm(
        self, by: Account, order: JsonObject, token: str, amount: int | None = None
    ) -> httpx.Response:
        """The customer's return to the shop with the token, by default with the order's total."""
        path = f"/orders/{order['id']}/payments/{payment_of(order)['id']}/confirm"
        body = {"token": token, "amount": order["totalAmount"] if amount is None else amount}
        return self.post(path, body, by)

    # ---- time

    def poll(self, read: Callable[[], T], holds: Callable[[T], bool]) -> T:
        """The first result of ``read`` that satisfies ``holds``, or the last at the deadline."""
        deadline, pause = time.monotonic() + FINAL_STATUS_SECONDS, POLL_FIRST_SECONDS
        seen = read()
        while not holds(seen) and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(POLL_MAX_SECONDS, 1.5 * pause)
            seen = read()
        return seen


def expect(response: httpx.Response, *statuses: int) -> httpx.Response:
    """Returns the response; raises UnexpectedResponse for another status."""
    if response.status_code not in statuses:
        request = response.request
        raise UnexpectedResponse(
            f"{request.method} {request.url.raw_path.decode()}: {describe(response)}"
        )
    return response


def payment_of(order: JsonObject) -> JsonObject:
    """The latest payment of an order, empty without one."""
    return order["payment"] or {}


def unique() -> str:
    """Twelve random characters."""
    return uuid.uuid4().hex[:12]


def run_simultaneously(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Runs all jobs at the same time, released by one barrier; their results in their order."""
    barrier = threading.Barrier(len(jobs))

    def released(job: Callable[[], T]) -> T:
        barrier.wait()
        return job()

    with ThreadPoolExecutor(max_workers=len(jobs)) as pool:
        return list(pool.map(released, jobs))


def run_in_parallel(jobs: Iterable[Callable[[], T]], workers: int) -> list[T]:
    """Runs jobs on a few threads; their results in their order."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(job) for job in jobs]
    return [future.result() for future in futures]


def parse_roles(names: Iterable[str]) -> frozenset[str]:
    """Validates role names.  Raises ValueError for an unknown role."""
    roles = frozenset(names)
    unknown = sorted(roles - set(STAFF_ROLES))
    if unknown:
        raise ValueError(f"--without {', '.join(unknown)}: known are {', '.join(STAFF_ROLES)}")
    return roles


def _with_token(call: Call, by: Account | None) -> Call:
    return call if by is None else replace(call, token=by.token())


def _header_fields(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-").title(): value for name, value in headers.items()}
