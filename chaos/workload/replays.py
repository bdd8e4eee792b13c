"""Sends finished requests again, byte for byte: the response must be equal to the first one.

Only responses that the shop stores under the key are compared: success, and client errors that
follow from the state of orders and accounts.  Validation and authorization errors are not stored.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from chaos.controlled_process import JsonObject
from chaos.workload.client import DEFAULT_RETRIES, Account, Client, Outcome
from chaos.workload.client_log import Attempt
from chaos.workload.operations import Call, Operation

SHARE = 0.1
DELAY_MEAN_SECONDS = 20.0
DELAY_SECONDS_MAX = 180.0
DIFFERENT_MAX = 10
CONCURRENT_REPLAYS = 8
POLL_SECONDS = 0.1
# Validation and authorization errors are stored by no operation.
NOT_STORED = frozenset({"INVALID", "UNKNOWN_CATEGORY", "OTHER_CURRENCY", "FORBIDDEN", "NOT_FOUND"})
STORES_CLIENT_ERRORS = ("/orders", "/users")


@dataclass
class Replays:
    """Replays finished requests and counts responses that differ."""

    client: Client
    accounts: Mapping[str, Account]
    random: Random
    replayed: int = 0
    unanswered: int = 0
    different: list[JsonObject] = field(default_factory=list[JsonObject])
    different_total: int = 0
    _finished: list[int] = field(default_factory=list[int])
    _due: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    _operations: dict[str, Operation] = field(default_factory=dict[str, Operation])

    def __post_init__(self) -> None:
        known = self.client.calls.operations.values()
        self._operations = {operation.scope: operation for operation in known}

    def add_finished(self, call: Call, outcome: Outcome) -> None:
        """Records a definite response; schedules every tenth request for a later replay."""
        if outcome.attempt_id is None or not is_stored(call.operation, outcome):
            return
        self._finished.append(outcome.attempt_id)
        if self.random.random() < SHARE:
            delay = min(self.random.expovariate(1 / DELAY_MEAN_SECONDS), DELAY_SECONDS_MAX)
            heapq.heappush(self._due, (time.monotonic() + delay, outcome.attempt_id))

    async def replay_due(self) -> None:
        """Replays scheduled requests until it is cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            while self._due and self._due[0][0] <= time.monotonic():
                await self.replay(heapq.heappop(self._due)[1])

    async def replay_share(self, fraction: float, random: Random) -> JsonObject:
        """Replays a random share of everything finished so far; returns the differences."""
        before = self.replayed, self.different_total, self.unanswered
        shown = len(self.different)
        ids = random.sample(self._finished, round(fraction * len(self._finished)))
        parts = [ids[first::CONCURRENT_REPLAYS] for first in range(CONCURRENT_REPLAYS)]
        await asyncio.gather(*(self._replay_all(part) for part in parts))
        return {
            "replayed": self.replayed - before[0],
            "different_total": self.different_total - before[1],
            "unanswered": self.unanswered - before[2],
            "different": self.different[shown:][:DIFFERENT_MAX],
        }

    async def replay(self, attempt_id: int) -> None:
        """Sends one request again; compares status, body and Location with the first response."""
        first = self.client.log.attempt(attempt_id)
        account = self.accounts.get(first.as_account)
        call = _call_of(first, self._operations[first.scope])
        outcome = await self.client.repeat(call, account, DEFAULT_RETRIES)
        self.replayed += 1
        if not outcome.is_definite:
            self.unanswered += 1
            return
        expected = (first.status_code, first.body_sha256, first.location)
        if outcome.fingerprint != expected:
            self.different_total += 1
            request = {"attempt_id": attempt_id, "scope": first.scope, "key": first.key}
            self.different.append(
                {**request, "expected": list(expected), "actual": list(outcome.fingerprint)}
            )

    async def _replay_all(self, attempt_ids: list[int]) -> None:
        for attempt_id in attempt_ids:
            await self.replay(attempt_id)


def is_stored(operation: Operation, outcome: Outcome) -> bool:
    """Whether the shop stores this response under the request's key."""
    if not outcome.is_definite or outcome.status is None or outcome.status >= 500:
        return False
    if outcome.status < 300:
        return True
    stores_errors = operation.path.startswith(STORES_CLIENT_ERRORS)
    return stores_errors and outcome.status in (400, 409, 422) and outcome.code not in NOT_STORED


def _call_of(first: Attempt, operation: Operation) -> Call:
    headers = tuple((k.encode(), v.encode("latin-1")) for k, v in json.loads(first.headers))
    return Call(operation, first.target, bytes(first.body), first.key, headers, first.order_id)
