"""The provider double's faults as layers: what is always on, and what a fault puts on top."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx

CALL_SECONDS = 10.0


class ProviderFaults:
    """Sets the sandbox's faults over its own API and keeps count over all changes."""

    def __init__(self, url: str, api_key: str, seed: int) -> None:
        self._client = httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {api_key}"}, timeout=CALL_SECONDS
        )
        self._base: dict[str, Any] = {"seed": seed}
        self._layers: dict[str, dict[str, Any]] = {}
        self._counted: Counter[str] = Counter()
        self._lock = asyncio.Lock()

    async def set_base(self, **settings: Any) -> None:
        """What goes wrong whatever else does."""
        self._base = {**self._base, **settings}
        await self._load()

    async def put(self, name: str, **settings: Any) -> None:
        """Lays ``settings`` over the base; probabilities are added to those below."""
        self._layers[name] = settings
        await self._load()

    async def take_off(self, name: str) -> None:
        """Takes a layer off again."""
        self._layers.pop(name, None)
        await self._load()

    async def heal(self) -> None:
        """Nothing goes wrong any more."""
        self._layers.clear()
        self._base = {"seed": self._base["seed"]}
        await self._load()

    async def fired(self) -> Counter[str]:
        """How often each fault fired since the run began."""
        answer = await self._client.get("/faults")
        return self._counted + Counter(answer.json()["fired"])

    async def close(self) -> None:
        await self._client.aclose()

    async def _load(self) -> None:
        async with self._lock:
            self._counted = await self.fired()
            self._base["seed"] += 1  # loading starts the dice again: not with the same throws
            settings = dict(self._base)
            for layer in self._layers.values():
                settings |= {k: v for k, v in layer.items() if k != "probabilities"}
            settings["probabilities"] = self._probabilities()
            answer = await self._client.post("/faults", json=settings)
            answer.raise_for_status()

    def _probabilities(self) -> dict[str, float]:
        total: Counter[str] = Counter(self._base.get("probabilities", {}))
        for layer in self._layers.values():
            total.update(layer.get("probabilities", {}))
        return {name: min(1.0, p) for name, p in total.items()}
