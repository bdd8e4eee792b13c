"""Sends finished requests again, byte for byte: the answer must be the one that was given first.

Only answers that the shop keeps under a key count: what was accepted, and what was refused by the
state of orders and accounts.  A refusal by form or by authority is judged anew each time.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from chaos.workload.client import PATIENT, Account, Client, Outcome
from chaos.workload.client_log import Attempt
from chaos.workload.operations import Call, Operation

SHARE = 0.1
DELAY_MEAN_SECONDS = 20.0
DELAY_SECONDS_MAX = 180.0
DIFFERENT_SHOWN = 10
AT_ONCE = 8
POLL_SECONDS = 0.1
# Refused by form or by authority: these are not kept, in whatever operation they come.
NOT_KEPT = frozenset({"INVALID", "UNKNOWN_CATEGORY", "OTHER_CURRENCY", "FORBIDDEN", "NOT_FOUND"})
KEEPS_REFUSALS = ("/orders", "/users")


@dataclass
class Replays:
    """The requests of a run that can be replayed, and what replaying some of them showed."""

    client: Client
    accounts: Mapping[str, Account]
    random: Random
    replayed: int = 0
    unanswered: int = 0
    different: list[dict[str, Any]] = field(default_factory=list)
    different_total: int = 0
    _finished: list[int] = field(default_factory=list)
    _due: list[tuple[float, int]] = field(default_factory=list)
    _operations: dict[str, Operation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.client.calls.operations.values()
        self._operations = {operation.scope: operation for operation in known}

    def finished(self, call: Call, outcome: Outcome) -> None:
        """Remembers a definite answer, and draws whether it is asked for again some time later."""
        if outcome.op is None or not is_kept(call.operation, outcome):
            return
        self._finished.append(outcome.op)
        if self.random.random() < SHARE:
            delay = min(self.random.expovariate(1 / DELAY_MEAN_SECONDS), DELAY_SECONDS_MAX)
            heapq.heappush(self._due, (time.monotonic() + delay, outcome.op))

    async def replay_forever(self) -> None:
        """Replays what has become due, until it is cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            while self._due and self._due[0][0] <= time.monotonic():
                await self.replay(heapq.heappop(self._due)[1])

    async def replay_share(self, fraction: float, random: Random) -> dict[str, Any]:
        """Replays that fraction of everything finished so far and tells what differed."""
        before = self.replayed, self.different_total, self.unanswered
        shown = len(self.different)
        ops = random.sample(self._finished, round(fraction * len(self._finished)))
        lanes = [ops[lane::AT_ONCE] for lane in range(AT_ONCE)]
        await asyncio.gather(*(self._replay_all(lane) for lane in lanes))
        return {
            "replayed": self.replayed - before[0],
            "different_total": self.different_total - before[1],
            "unanswered": self.unanswered - before[2],
            "different": self.different[shown:][:DIFFERENT_SHOWN],
        }

    async def replay(self, op: int) -> None:
        """Sends one request again and compares status, body and Location with the first answer."""
        first = self.client.log.attempt(op)
        account = self.accounts.get(first.as_account)
        call = _call_of(first, self._operations[first.scope])
        outcome = await self.client.repeat(call, account, PATIENT)
        self.replayed += 1
        if not outcome.is_definite:
            self.unanswered += 1
            return
        was = (first.status_code, first.body_sha256, first.location)
        if outcome.answer != was:
            self.different_total += 1
            shown = {"op": op, "scope": first.scope, "key": first.key, "was": list(was)}
            self.different.append({**shown, "is": list(outcome.answer)})

    async def _replay_all(self, ops: list[int]) -> None:
        for op in ops:
            await self.replay(op)

    def totals(self) -> dict[str, Any]:
        """Everything replayed since the start."""
        return {
            "replayed": self.replayed,
            "unanswered": self.unanswered,
            "different_total": self.different_total,
            "different": self.different[:DIFFERENT_SHOWN],
        }


def is_kept(operation: Operation, outcome: Outcome) -> bool:
    """True when the shop keeps this answer under the request's key."""
    if not outcome.is_definite or outcome.status is None or outcome.status >= 500:
        return False
    if outcome.status < 300:
        return True
    keeps = operation.path.startswith(KEEPS_REFUSALS)
    return keeps and outcome.status in (400, 409, 422) and outcome.code not in NOT_KEPT


def _call_of(first: Attempt, operation: Operation) -> Call:
    headers = tuple((k.encode(), v.encode("latin-1")) for k, v in json.loads(first.headers))
    return Call(operation, first.target, bytes(first.body), first.key, headers, first.order_id)
