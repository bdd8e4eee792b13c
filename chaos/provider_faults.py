"""Controls the faults of the payment simulator: continuous ones and temporary ones on top."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

CALL_SECONDS = 10.0


@dataclass(frozen=True)
class FaultLayer:
    """Probabilities of faults by name, and the other settings of the simulator (in seconds)."""

    probabilities: Mapping[str, float] = field(default_factory=dict[str, float])
    settings: Mapping[str, float] = field(default_factory=dict[str, float])


class ProviderFaults:
    """Sets the simulator's faults over its HTTP API and counts how often each one occurred."""

    def __init__(self, url: str, api_key: str, seed: int) -> None:
        self._client = httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {api_key}"}, timeout=CALL_SECONDS
        )
        self._seed = seed
        self._continuous = FaultLayer()
        self._layers: dict[str, FaultLayer] = {}
        self._occurrences: Counter[str] = Counter()
        self._lock = asyncio.Lock()

    async def set_continuous(self, probabilities: Mapping[str, float], **settings: float) -> None:
        """Sets the faults that stay active under all others."""
        self._continuous = FaultLayer(probabilities, settings)
        await self._apply()

    async def add(
        self, name: str, probabilities: Mapping[str, float] | None = None, **settings: float
    ) -> None:
        """Adds a layer: settings override those of other layers, probabilities are added up."""
        self._layers[name] = FaultLayer(probabilities or {}, settings)
        await self._apply()

    async def remove(self, name: str) -> None:
        """Removes a layer."""
        self._layers.pop(name, None)
        await self._apply()

    async def remove_all(self) -> None:
        """Removes all layers and the continuous faults."""
        self._layers.clear()
        self._continuous = FaultLayer()
        await self._apply()

    async def occurrences(self) -> Counter[str]:
        """How often each fault occurred since the run began."""
        response = await self._client.get("/faults")
        fired: dict[str, int] = response.json()["fired"]
        return self._occurrences + Counter(fired)

    async def scheduled_actions(self) -> int:
        """How many late captures, refunds and disputes the simulator has yet to execute."""
        response = await self._client.get("/scheduled")
        scheduled: dict[str, int] = response.raise_for_status().json()
        return sum(scheduled.values())

    async def close(self) -> None:
        await self._client.aclose()

    async def _apply(self) -> None:
        async with self._lock:
            self._occurrences = await self.occurrences()
            # loading restarts the simulator's random generator: another seed, other draws
            self._seed += 1
            body: dict[str, object] = {"seed": self._seed, "probabilities": self._probabilities()}
            for layer in (self._continuous, *self._layers.values()):
                body |= layer.settings
            response = await self._client.post("/faults", json=body)
            response.raise_for_status()

    def _probabilities(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for layer in (self._continuous, *self._layers.values()):
            for name, probability in layer.probabilities.items():
                total[name] = min(1.0, total.get(name, 0.0) + probability)
        return total
