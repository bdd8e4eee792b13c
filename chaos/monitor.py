"""Evaluates the invariants I-… repeatedly during a run, each time in one database snapshot.

tools/checker/invariants.py defines the invariants.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypedDict

import httpx

from chaos.environment import Environment
from shop.unmatched_charges import is_key_of_shop
from tools.checker.evaluate import ChargeRow, PoisonRow, RefundRow, Violation
from tools.checker.monitor import DatabaseUnavailable, InvariantMonitor

EVERY_SECONDS = 1.0
# Evaluations take longer as the run grows; without a limit they would slow the shop down.
SHARE_OF_TIME_MAX = 0.15
PAGE = 500


class Transaction(TypedDict):
    """A charge or refund in the simulator's list of transactions."""

    kind: str
    key: str
    charge_key: str
    amount_minor: int


class ProviderTransactions:
    """Reads the provider's list of transactions incrementally, each entry once."""

    def __init__(self, url: str, api_key: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {api_key}"}, timeout=30.0
        )
        self._cursor = 0
        self._executions: dict[str, int] = {}

    def read_new(self) -> tuple[list[ChargeRow], list[RefundRow]]:
        """The charges and refunds since the previous call, as rows for the checker."""
        charges: list[ChargeRow] = []
        refunds: list[RefundRow] = []
        has_more = True
        while has_more:
            page = self._client.get("/charges", params={"since": self._cursor, "limit": PAGE})
            document = page.raise_for_status().json()
            for entry in document["entries"]:
                self._add(entry, charges, refunds)
            self._cursor, has_more = int(document["next_cursor"]), document["has_more"]
        return charges, refunds

    def close(self) -> None:
        self._client.close()

    def _add(self, entry: Transaction, charges: list[ChargeRow], refunds: list[RefundRow]) -> None:
        if not is_key_of_shop(entry["charge_key"]) or entry["kind"] == "dispute":
            return  # no invariant that holds at every moment compares disputes
        key, amount = entry["key"], entry["amount_minor"]
        times = self._executions[key] = self._executions.get(key, 0) + 1
        # the second execution of a key is a charge or refund without a row in the shop
        name = key if times == 1 else f"{key} again {times}"
        if entry["kind"] == "refund":
            refunds.append((name, entry["charge_key"], amount))
        else:
            charges.append((name, amount, "CAPTURED"))


class BackgroundMonitor:
    """Evaluates the invariants until cancelled; ``evaluations`` counts the snapshots.

    No evaluation starts while another task holds ``lock``.
    """

    def __init__(self, environment: Environment, on_violation: Callable[[Violation], None]) -> None:
        self._transactions = ProviderTransactions(
            environment.provider_url, environment.secrets.provider_api_key
        )
        self._monitor = InvariantMonitor(environment.admin_url)
        self._environment = environment
        self._on_violation = on_violation
        self._poison_count = 0
        self.lock = asyncio.Lock()
        self._charges: list[ChargeRow] = []
        self._refunds: list[RefundRow] = []
        self.evaluations = 0

    async def run(self) -> None:
        """Evaluates about once a second, less often when an evaluation takes long."""
        try:
            while True:
                began = time.monotonic()
                await self.evaluate()
                took = time.monotonic() - began
                await asyncio.sleep(max(EVERY_SECONDS - took, took / SHARE_OF_TIME_MAX - took))
        finally:
            await asyncio.to_thread(self._close)

    async def evaluate(self) -> None:
        """Evaluates once; does nothing when PostgreSQL or the provider is unavailable."""
        async with self.lock:
            poison = self._environment.poison_events[self._poison_count :]
            try:
                violations = await asyncio.to_thread(self._evaluate, poison)
            except (DatabaseUnavailable, httpx.HTTPError):
                return
        self._poison_count += len(poison)
        self.evaluations += 1
        for violation in violations:
            self._on_violation(violation)

    def _evaluate(self, poison: list[PoisonRow]) -> list[Violation]:
        # read the provider first: a payment row is committed before its call, so every charge
        # that has been read by then must have a row in the snapshot
        charges, refunds = self._transactions.read_new()
        self._charges += charges
        self._refunds += refunds
        violations = self._monitor.evaluate(self._charges, self._refunds, poison)
        self._charges, self._refunds = [], []
        return violations

    def _close(self) -> None:
        self._transactions.close()
        self._monitor.close()
