"""Customers who place orders through the edge while a roll-out runs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from uuid import uuid4

import httpx

from tools.seed import CATEGORIES, LOCAL_ACCOUNTS

CUSTOMERS = 4
PAUSE_SECONDS = 0.2
RETRY_SECONDS = 0.5
PAID_SECONDS = 120.0
TRY_LATER = {429}
PASSWORD = "a long enough password"
# seed data has 50 of a product, and the end-to-end run sells them
STOCK = 100_000


class Customers:
    """Each places an order, repeats it with its key while it fails, and waits until it is paid."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._end = threading.Event()
        self._product = 0
        self._threads = [threading.Thread(target=self._buy) for _ in range(CUSTOMERS)]
        self.statuses: Counter[int] = Counter()
        self.lost: list[str] = []
        self.paid = 0

    def __enter__(self) -> Customers:
        self._product = self._made_product()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _made_product(self) -> int:
        """A new product with stock for all."""
        ((email, password),) = [each[1:] for each in LOCAL_ACCOUNTS if each[0] == "staff"]
        body = {"name": "A", "category": CATEGORIES[0], "price": 1000, "stockQuantity": STOCK}
        with httpx.Client(base_url=self._url, timeout=30) as client:
            self._log_in(client, email, password)
            number: int = self._post(client, "/products", body).raise_for_status().json()["id"]
        return number

    def _log_in(self, client: httpx.Client, email: str, password: str) -> None:
        login = self._post(client, "/auth/login", {"email": email, "password": password})
        client.headers["authorization"] = f"Bearer {login.raise_for_status().json()['accessToken']}"

    def _buy(self) -> None:
        email = f"{uuid4().hex}@example.com"
        with httpx.Client(base_url=self._url, timeout=30) as client:
            self._post(client, "/users", {"email": email, "password": PASSWORD, "name": "A"})
            self._log_in(client, email, PASSWORD)
            while not self._end.is_set():
                self._order(client)
                time.sleep(PAUSE_SECONDS)

    def _order(self, client: httpx.Client) -> None:
        body = {"productId": self._product, "quantity": 1, "paymentMethod": "CARD"}
        response = self._post(client, "/orders", body)
        if not response.is_success:
            self.lost.append(f"{response.status_code} {response.text[:200]}")
            return
        order, deadline = response.json()["id"], time.monotonic() + PAID_SECONDS
        while time.monotonic() < deadline:
            read = client.get(f"/orders/{order}", headers={"prefer": "wait=10"})
            if read.is_success and read.json()["status"] == "PAID":
                self.paid += 1
                return
            time.sleep(RETRY_SECONDS)
        self.lost.append(f"{order} is not paid")

    def _post(self, client: httpx.Client, path: str, body: Mapping[str, object]) -> httpx.Response:
        """The first response that is neither a server error nor a rejection for now."""
        headers = {"idempotency-key": uuid4().hex}
        while True:
            try:
                response = client.post(path, json=body, headers=headers)
            except httpx.TransportError:
                time.sleep(RETRY_SECONDS)
                continue
            self.statuses[response.status_code] += 1
            if not (response.is_server_error or response.status_code in TRY_LATER):
                return response
            time.sleep(RETRY_SECONDS)
