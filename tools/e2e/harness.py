"""What a scenario acts with: a client, people, products of its own, and its checks."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import httpx

from tools.e2e.accounts import STAFF_ROLES, Account, Credentials, NoAccount, register
from tools.e2e.checks import Checks, told
from tools.e2e.client import Call, Client, new_key

T = TypeVar("T")

CATEGORY = "e2e"
# Of customers that only a run knows; there is nothing behind it.
PASSWORD = "a password of the end-to-end run"  # noqa: S105
# Longer than a lost event (10 s until the sweep), a killed function and a hanging provider.
REST_SECONDS = 120.0
# Looks become rarer, so that waiting for one order does not use up a minute's requests.
POLL_FIRST_SECONDS = 0.2
POLL_MAX_SECONDS = 3.0
WAIT_SECONDS = 10


class Unexpected(RuntimeError):
    """An answer after which the rest of a scenario makes no sense."""


@dataclass
class Cast:
    """The people of a run, shared by all its scenarios so that logins and registrations are few."""

    client: Client
    people: Mapping[str, Credentials]
    run_id: str
    webhook_secret: str | None = None
    time_zone: str = "Asia/Seoul"
    _accounts: dict[str, Account] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _has_category: bool = False

    def customer(self, number: int) -> Account:
        """The run's customer of that number, registered when first asked for."""
        with self._lock:
            name = f"customer {number}"
            if name not in self._accounts:
                self._accounts[name] = self.new_customer(f"{self.run_id}-{number}")
            return self._accounts[name]

    def new_customer(self, mark: str) -> Account:
        """A customer nobody else uses."""
        credentials = Credentials(f"e2e-{mark}@example.com", PASSWORD)
        return register(self.client, credentials, f"E2E {mark}")

    def person(self, role: str) -> Account:
        """A person of the shop.  Raises NoAccount when no credentials were given."""
        with self._lock:
            if role not in self._accounts:
                if role not in self.people:
                    raise NoAccount(f"no {role} account: give --accounts, or --without {role}")
                self._accounts[role] = Account(self.client, self.people[role], role)
            return self._accounts[role]

    def category(self) -> str:
        """The category of all products made by runs; made when it is not there."""
        with self._lock:
            is_known = self._has_category
        if not is_known:
            call = Call("POST", "/categories", json={"name": CATEGORY}, key=new_key())
            made = self.client.send(replace(call, token=self.person("staff").token()))
            expect(made, 201, 409)
            with self._lock:
                self._has_category = True
        return CATEGORY


class Stage:
    """One scenario's view of the shop."""

    def __init__(self, cast: Cast, checks: Checks) -> None:
        self.cast = cast
        self.check = checks
        self.run_id = cast.run_id
        self._made: list[int] = []

    # ---- people

    def customer(self, number: int = 1) -> Account:
        """A customer of this run; the same number is the same person in every scenario."""
        return self.cast.customer(number)

    def new_customer(self) -> Account:
        """A customer of this scenario alone."""
        return self.cast.new_customer(unique())

    def staff(self) -> Account:
        """The account with role staff."""
        return self.cast.person("staff")

    def support(self) -> Account:
        """The account with role support."""
        return self.cast.person("support")

    def finance(self) -> Account:
        """The account with role finance."""
        return self.cast.person("finance")

    # ---- calls

    def get(self, path: str, by: Account | None = None, **headers: str) -> httpx.Response:
        """A read; ``if_none_match="…"`` becomes the header ``If-None-Match``."""
        return self.send(Call("GET", path, headers=_named(headers)), by)

    def post(
        self,
        path: str,
        body: Any,
        by: Account | None = None,
        key: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        """A command with a key of its own unless one is given."""
        return self.write("POST", path, body, by, key, **headers)

    def write(
        self,
        method: str,
        path: str,
        body: Any,
        by: Account | None = None,
        key: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        """A command of any method; ``body`` None sends none."""
        call = Call(method, path, json=body, key=key or new_key(), headers=_named(headers))
        return self.send(call, by)

    def send(self, call: Call, by: Account | None = None) -> httpx.Response:
        """The definitive answer to a call, made by a person or by nobody."""
        return self.cast.client.send(_signed_in(call, by))

    def once(self, call: Call, by: Account | None = None) -> httpx.Response:
        """The very first answer (429 waited out); NoAnswer starts the scenario over."""
        return self.cast.client.send(replace(_signed_in(call, by), repeats=False))

    def raw(self, call: Call, by: Account | None = None) -> httpx.Response:
        """One HTTP exchange and nothing around it; raises NoAnswer."""
        return self.cast.client.once(_signed_in(call, by))

    # ---- products

    def product(self, *, price: int = 1000, stock: int = 10, name: str = "상품") -> dict[str, Any]:
        """A new product of this scenario alone, made by staff."""
        body = {
            "name": f"E2E {name} {unique()}",
            "category": self.cast.category(),
            "price": price,
            "stockQuantity": stock,
        }
        made: dict[str, Any] = expect(self.post("/products", body, self.staff()), 201).json()
        self._made.append(made["id"])
        return made

    def stock(self, product_id: int) -> int:
        """What can be ordered of a product now; exact, unlike the list."""
        by = self.cast.customer(1)
        quantity: int = expect(self.get(f"/products/{product_id}", by), 200).json()["stockQuantity"]
        return quantity

    def put_away(self) -> None:
        """Take the scenario's products out of the catalogue."""
        while self._made:
            product_id = self._made.pop()
            path = f"/products/{product_id}"
            etag = self.get(path, self.staff()).headers.get("ETag", "")
            gone = self.write("PATCH", path, {"active": False}, self.staff(), if_match=etag)
            expect(gone, 200)

    # ---- orders

    def order(
        self,
        by: Account,
        *lines: tuple[int, int],
        method: str = "CARD",
        key: str | None = None,
        **more: Any,
    ) -> httpx.Response:
        """``POST /orders`` of (product, quantity) lines, whatever the answer."""
        items = [{"productId": product_id, "quantity": quantity} for product_id, quantity in lines]
        return self.post("/orders", {"items": items, "paymentMethod": method, **more}, by, key)

    def placed(self, by: Account, *lines: tuple[int, int], method: str = "CARD") -> dict[str, Any]:
        """An order that was accepted."""
        order: dict[str, Any] = expect(self.order(by, *lines, method=method), 201).json()
        return order

    def paid(self, by: Account, *lines: tuple[int, int], method: str = "CARD") -> dict[str, Any]:
        """An order that was accepted and paid."""
        order = self.at_rest(by, self.placed(by, *lines, method=method)["id"])
        if order["status"] != "PAID":
            raise Unexpected(f"order {order['id']} was not paid: {order}")
        return order

    def look_up(self, by: Account, order_id: str, wait_seconds: int = 0) -> dict[str, Any]:
        """An order as it is; with ``wait_seconds`` as soon as it left PENDING."""
        headers = {"prefer": f"wait={wait_seconds}"} if wait_seconds else {}
        order: dict[str, Any] = expect(self.get(f"/orders/{order_id}", by, **headers), 200).json()
        return order

    def at_rest(self, by: Account, order_id: str) -> dict[str, Any]:
        """The order once it is neither PENDING nor CANCELLING, or as it is when patience ends."""
        return self.eventually(
            lambda: self.look_up(by, order_id, WAIT_SECONDS),
            lambda order: order["status"] in ("PAID", "CANCELLED"),
        )

    def declined(self, by: Account, order_id: str, attempt: int = 1) -> dict[str, Any]:
        """The order once that attempt's payment was declined, or as it is when patience ends."""

        def is_declined(order: dict[str, Any]) -> bool:
            payment = order["payment"] or {}
            return payment.get("status") == "DECLINED" and payment.get("attempt") == attempt

        return self.eventually(lambda: self.look_up(by, order_id), is_declined)

    def moves(self, by: Account, order_id: str, entity: str) -> list[tuple[str, str]]:
        """The (from, to) moves of one kind of thing in an order's timeline, in their order."""
        timeline = expect(self.get(f"/orders/{order_id}/timeline", by), 200).json()
        return [(move["from"], move["to"]) for move in timeline if move["entity"] == entity]

    # ---- time

    def eventually(self, look: Callable[[], T], holds: Callable[[T], bool]) -> T:
        """What was seen when it held, or the last that was seen when patience ended."""
        deadline, pause = time.monotonic() + REST_SECONDS, POLL_FIRST_SECONDS
        seen = look()
        while not holds(seen) and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(POLL_MAX_SECONDS, 1.5 * pause)
            seen = look()
        return seen


def expect(response: httpx.Response, *statuses: int) -> httpx.Response:
    """The response; raises Unexpected when its status is none of these."""
    if response.status_code not in statuses:
        request = response.request
        raise Unexpected(f"{request.method} {request.url.raw_path.decode()}: {told(response)}")
    return response


def unique() -> str:
    """Twelve characters nobody used before."""
    return uuid.uuid4().hex[:12]


def together(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run all jobs at the same time, released by one barrier; their results in their order."""
    barrier = threading.Barrier(len(jobs))

    def released(job: Callable[[], T]) -> T:
        barrier.wait()
        return job()

    with ThreadPoolExecutor(max_workers=len(jobs)) as pool:
        return list(pool.map(released, jobs))


def side_by_side(jobs: Iterable[Callable[[], T]], workers: int) -> list[T]:
    """Run jobs a few at a time; their results in their order."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(lambda job: job(), jobs))


def roles_of(names: Iterable[str]) -> frozenset[str]:
    """Roles that may be left out.  Raises ValueError for a word that is none."""
    roles = frozenset(names)
    unknown = sorted(roles - set(STAFF_ROLES))
    if unknown:
        raise ValueError(f"--without {', '.join(unknown)}: known are {', '.join(STAFF_ROLES)}")
    return roles


def _signed_in(call: Call, by: Account | None) -> Call:
    return call if by is None else replace(call, token=by.token())


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-").title(): value for name, value in headers.items()}
