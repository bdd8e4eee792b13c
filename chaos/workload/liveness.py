"""The liveness check: every operation of the API succeeds at its first attempt."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from chaos.controlled_process import JsonObject
from chaos.workload.client import NO_RETRIES, Client, LoginFailed
from chaos.workload.dataset import Dataset, DatasetError
from chaos.workload.liveness_operations import LivenessOperations, PreparationFailed, Prepare

POLL_SECONDS = 0.1
FAILED_SHOWN = 20


@dataclass
class LivenessCheck:
    """Sends every operation several times, each with a single attempt."""

    client: Client
    dataset: Dataset
    requested: int = 0
    failed: list[JsonObject] = field(default_factory=list[JsonObject])
    waited_max_seconds: float = 0.0

    async def run(self, count: int) -> JsonObject:
        """Sends every operation ``count`` times; returns what did not succeed.

        ``waited`` is how long this process waited for a processor at most.  When it is seconds, the
        functions may have waited as long, and respond 503 as they should: a log-in, for one, hashes
        a password within 4 s or not at all.
        """
        waits = asyncio.create_task(self._measure_waits())
        try:
            await self._send_all(count)
        finally:
            waits.cancel()
        failed = self.failed[:FAILED_SHOWN]
        return {"requested": self.requested, "failed": failed, "waited": self.waited_max_seconds}

    async def _measure_waits(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(POLL_SECONDS)
            late = time.monotonic() - began - POLL_SECONDS
            self.waited_max_seconds = max(self.waited_max_seconds, late)

    async def _send_all(self, count: int) -> None:
        try:
            operations = await LivenessOperations.begin(self.client, self.dataset)
        except (DatasetError, PreparationFailed, LoginFailed) as error:
            self.requested += 1
            self._add_failure("the check's own data", None, str(error))
            return
        try:
            for name, prepare in operations.by_name().items():
                for _ in range(count):
                    await self._send(operations, name, prepare)
        finally:
            await operations.end()

    async def _send(self, operations: LivenessOperations, name: str, prepare: Prepare) -> None:
        self.requested += 1
        try:
            call, account = await prepare()
            outcome = await self.client.send(call, account, NO_RETRIES)
        except (PreparationFailed, LoginFailed) as error:
            self._add_failure(name, None, str(error))
            return
        if outcome.status == call.operation.success:
            operations.log_order(call, account, outcome)
        else:
            self._add_failure(name, outcome.status, outcome.code)

    def _add_failure(self, name: str, status: int | None, reason: str) -> None:
        failure = {"at": time.time(), "operation": name, "status": status, "reason": reason}
        self.failed.append(failure)
