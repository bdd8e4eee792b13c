"""The checker beside the run: every I-query in one snapshot, again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx

from chaos.environment import Environment
from tools.checker.evaluate import Violation
from tools.checker.monitor import DatabaseUnavailable, InvariantMonitor

EVERY_SECONDS = 1.0
# The books grow with the run, and looking at all of them must not become the load.
SHARE_OF_TIME_MAX = 0.15
PAGE = 500


class ProviderBooks:
    """Reads on in the provider's list of movements: each one once."""

    def __init__(self, url: str, api_key: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {api_key}"}, timeout=30.0
        )
        self._cursor = 0
        self._seen: dict[str, int] = {}

    def news(self) -> tuple[list[tuple[str, int | None, str]], list[tuple[str, str, int]]]:
        """Charges and refunds since the last time, as ``ExternalRecords`` has them."""
        charges: list[tuple[str, int | None, str]] = []
        refunds: list[tuple[str, str, int]] = []
        has_more = True
        while has_more:
            page = self._client.get("/charges", params={"since": self._cursor, "limit": PAGE})
            document = page.raise_for_status().json()
            for entry in document["entries"]:
                self._note(entry, charges, refunds)
            self._cursor, has_more = int(document["next_cursor"]), document["has_more"]
        return charges, refunds

    def close(self) -> None:
        self._client.close()

    def _note(
        self,
        entry: dict[str, Any],
        charges: list[tuple[str, int | None, str]],
        refunds: list[tuple[str, str, int]],
    ) -> None:
        key, amount = entry["key"], entry["amount_minor"]
        times = self._seen[key] = self._seen.get(key, 0) + 1
        # a key that was executed twice is a charge or refund which no row announced
        name = key if times == 1 else f"{key} again {times}"
        if entry["kind"] == "refund":
            refunds.append((name, entry["charge_key"], amount))
        else:
            charges.append((name, amount, "CAPTURED"))


class Watch:
    """Looks until stopped; ``evaluations`` counts the snapshots.

    Whoever holds ``looking`` is alone with the database: the watch begins no look meanwhile.
    """

    def __init__(self, scene: Environment, on_broken: Callable[[Violation], None]) -> None:
        self._books = ProviderBooks(scene.provider_url, scene.secrets.provider_api_key)
        self._watcher = InvariantMonitor(scene.admin_url)
        self._scene = scene
        self._on_broken = on_broken
        self._poison_told = 0
        self.looking = asyncio.Lock()
        self._charges: list[tuple[str, int | None, str]] = []
        self._refunds: list[tuple[str, str, int]] = []
        self.evaluations = 0
        self.took_seconds = 0.0

    async def run(self) -> None:
        """One look after the other, until cancelled."""
        try:
            while True:
                began = time.monotonic()
                await self.look()
                took = time.monotonic() - began
                await asyncio.sleep(max(EVERY_SECONDS - took, took / SHARE_OF_TIME_MAX - took))
        finally:
            await asyncio.to_thread(self._close)

    async def look(self) -> None:
        """One snapshot; none where PostgreSQL or the provider do not answer now."""
        async with self.looking:
            poison = self._scene.poison[self._poison_told :]
            try:
                found = await asyncio.to_thread(self._look, poison)
            except (DatabaseUnavailable, httpx.HTTPError):
                return
        self._poison_told += len(poison)
        self.evaluations += 1
        for violation in found:
            self._on_broken(violation)

    def _look(self, poison: list[tuple[str, str]]) -> list[Violation]:
        # the books first: a payment is committed before its call, so what they show has its row
        charges, refunds = self._books.news()
        self._charges += charges
        self._refunds += refunds
        began = time.monotonic()
        found = self._watcher.evaluate(self._charges, self._refunds, poison)
        self._charges, self._refunds = [], []
        self.took_seconds += time.monotonic() - began
        return found

    def _close(self) -> None:
        self._books.close()
        self._watcher.close()
