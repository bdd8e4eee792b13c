"""The state of the local platform for its live view, and the switches for its faults."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import httpx
import psycopg

from shop.primitives.clock import utc_now
from tools.checker import provider_transactions
from tools.checker.command import NEED_CLIENTS
from tools.checker.evaluate import evaluate_invariants
from tools.checker.provider_transactions import ProviderAccess
from tools.local_platform.activator import Activator, FunctionPool
from tools.local_platform.activities import Interval
from tools.local_platform.broker import Broker
from tools.local_platform.delivery_faults import DeliveryFaults

DELIVERY_FAULTS = ("duplicate", "reorder", "lose", "kill")
SLOW_PROVIDER = "slowProvider"
PROVIDER_SECONDS = 5.0


@dataclass(kw_only=True)
class ObservedPlatform:
    """Activator, broker, faults and payment simulator of a running platform."""

    activator: Activator
    broker: Broker
    faults: DeliveryFaults
    provider: ProviderAccess
    database_url: str
    interval: Interval = field(default_factory=Interval)
    slow_provider: float = 0.0
    invariants: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    # why they could not be evaluated the last time
    invariants_error: str = ""

    def snapshot(self) -> dict[str, object]:
        """The present state, and the activities since the last snapshot."""
        faults = {name: getattr(self.faults, name) for name in DELIVERY_FAULTS}
        return {
            "at": utc_now().isoformat(),
            "functions": [_state_of(pool) for pool in self.activator.pools.values()],
            "pending": self.broker.pending,
            "faults": faults | {SLOW_PROVIDER: self.slow_provider},
            "invariants": self.invariants,
            "invariantsError": self.invariants_error,
            **self.interval.take(),
        }

    async def switch(self, faults: dict[str, float]) -> None:
        """Sets the probability of each named fault; ValueError for an unknown one."""
        unknown = sorted(faults.keys() - {*DELIVERY_FAULTS, SLOW_PROVIDER})
        if unknown:
            raise ValueError(f"there is no fault {', '.join(unknown)}")
        if SLOW_PROVIDER in faults:
            await self._slow_provider(faults[SLOW_PROVIDER])
        for name in faults.keys() & {*DELIVERY_FAULTS}:
            setattr(self.faults, name, faults[name])

    async def check_invariants(self) -> None:
        """Evaluates every invariant in a thread; what fails is shown and tried again."""
        try:
            self.invariants = await asyncio.to_thread(self._evaluate)
            self.invariants_error = ""
        except (psycopg.Error, OSError, httpx.HTTPError, ValueError) as error:
            self.invariants_error = str(error).strip() or type(error).__name__

    def _evaluate(self) -> list[dict[str, object]]:
        external = provider_transactions.external_records(self.provider)
        skipped = {str(name): "needs the clients' request log" for name in NEED_CLIENTS}
        results = evaluate_invariants(self.database_url, external, at_rest=False, skipped=skipped)
        return [
            {
                "id": result.invariant.id,
                "what": result.invariant.what,
                "state": result.state,
                "reason": result.reason,
                "rows": [" ".join(str(cell) for cell in row) for row in result.rows],
            }
            for result in results
        ]

    async def _slow_provider(self, probability: float) -> None:
        """Replaces the probabilities of the payment simulator's faults."""
        async with httpx.AsyncClient(timeout=PROVIDER_SECONDS) as client:
            answer = await client.post(
                f"{self.provider.url}/faults",
                json={"probabilities": {"slow": probability}},
                headers={"authorization": f"Bearer {self.provider.api_key}"},
            )
        answer.raise_for_status()
        self.slow_provider = probability


def _state_of(pool: FunctionPool) -> dict[str, object]:
    in_flight = sum(process.in_flight for process in pool.processes)
    ready = sum(process.is_ready for process in pool.processes)
    if not pool.processes and not pool.starting:
        state = "asleep"
    elif not ready:
        state = "waking"
    else:
        state = "working" if in_flight else "awake"
    return {
        "name": pool.spec.name,
        "summary": pool.spec.summary,
        "state": state,
        "processes": ready,
        "starting": pool.starting,
        "processesMax": pool.processes_max,
        "concurrency": pool.spec.scale.concurrency,
        "inFlight": in_flight,
        "queued": pool.queued,
        "messages": pool.messages,
        "coldStarts": pool.starts,
        "lastStartSeconds": pool.last_start_seconds,
    }
