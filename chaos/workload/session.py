"""One run of the load: what the commands on stdin do, and what is answered on stdout.

A command is one JSON line ``{"id": …, "do": …}``; its answer repeats the id and comes when the work
is done, so commands run side by side.  Between answers come ``{"sample": …}``, one each second.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

from chaos.workload.arrivals import Pace, run_load
from chaos.workload.buyers import Buyers
from chaos.workload.client import Client
from chaos.workload.client_log import ClientLog
from chaos.workload.dataset import build_world
from chaos.workload.liveness import Tail
from chaos.workload.meter import Meter
from chaos.workload.operations import Calls
from chaos.workload.races import Races
from chaos.workload.replays import Replays
from chaos.workload.surge import run_storm

SAMPLE_SECONDS = 1.0
# What a storm multiplies when no load has run before it.
RATE_USUAL = 20.0

Command = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What a run of the load is asked for."""

    url: str
    seed: int
    orders: int
    seconds: float
    log: Path
    accounts: int = 120


class Session:
    """The load, once its world stands; ``say`` writes one JSON line."""

    def __init__(self, settings: Settings, say: Callable[[dict[str, Any]], None]) -> None:
        self._settings = settings
        self._say = say
        self.meter = Meter()
        self.log = ClientLog(settings.log)
        self.client = Client(
            settings.url,
            calls=Calls(uuid4().hex[:8]),
            log=self.log,
            meter=self.meter,
            seed=settings.seed,
        )
        self._rate = RATE_USUAL
        self._pace: Pace | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._commands: dict[str, Callable[[Command], Awaitable[dict[str, Any]]]] = {
            "load": self._load,
            "ease": self._ease,
            "replay": self._replay,
            "tail": self._tail,
            "race": self._race,
            "burst": self._burst,
        }

    async def open(self) -> None:
        """Builds the world and begins to take samples.  Raises NotBuilt and NoToken."""
        settings = self._settings
        self.world = await build_world(self.client, accounts=settings.accounts, seed=settings.seed)
        self.buyers = Buyers(self.client, self.world)
        random = Random(f"{settings.seed} replays")  # noqa: S311
        self.replays = Replays(self.client, self.world.accounts, random)
        self.client.on_finished = self.replays.finished
        self.races = Races(self.client, self.world)
        self._start(self._sample_forever())
        self._say({"ready": True, "accounts": len(self.world.customers)})

    async def obey(self, lines: asyncio.StreamReader) -> None:
        """Takes commands until ``stop`` or the end of input."""
        while line := await lines.readline():
            try:
                command = json.loads(line)
                name, number = command["do"], command["id"]
            except (ValueError, KeyError, TypeError) as error:
                self._say({"error": f"not a command: {error!r}"})
                continue
            if name == "stop":
                await self.close()
                self._say({"id": number, **self._totals()})
                return
            self._start(self._answer(number, name, command))
        await self.close()

    async def close(self) -> None:
        """Ends whatever is going on and writes the rest of the log."""
        everything = asyncio.all_tasks() - {asyncio.current_task()}
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)
        self.client.close()
        self.log.close()

    async def _answer(self, number: Any, name: str, command: Command) -> None:
        if name not in self._commands:
            self._say({"id": number, "error": f"unknown command {name!r}"})
            return
        try:
            answer = await self._commands[name](command)
        except Exception as error:  # whoever steers must hear of it, or waits for ever
            self._say({"id": number, "error": f"{type(error).__name__}: {error}"})
            raise
        self.log.flush()
        self._say({"id": number, **answer})

    # ---- the commands

    async def _load(self, command: Command) -> dict[str, Any]:
        """Places the run's orders (``orders`` and ``seconds`` of the command win)."""
        orders = command.get("orders", self._settings.orders)
        seconds = command.get("seconds", self._settings.seconds)
        before = self.meter.orders_total
        began = time.monotonic()
        pace = Pace(orders, seconds, lambda: self.meter.orders_total - before, began)
        self._pace = pace
        replaying = asyncio.create_task(self.replays.replay_forever())
        try:
            await run_load(pace, self.buyers.act, seed=self._settings.seed)
            await self.buyers.finish()
        finally:
            replaying.cancel()
        took = time.monotonic() - began
        self._rate = pace.begun / took
        done = {"accepted": pace.accepted(), "actions": pace.begun, "seconds": round(took, 2)}
        return {**done, **self._totals()}

    async def _ease(self, command: Command) -> dict[str, Any]:
        """Goes on at this ``share`` of its pace; 1 is all of it."""
        if self._pace is not None:
            self._pace.share = float(command["share"])
        return {}

    async def _replay(self, command: Command) -> dict[str, Any]:
        random = Random(f"{command.get('seed', self._settings.seed)} replay")  # noqa: S311
        return await self.replays.replay_share(command.get("fraction", 0.1), random)

    async def _tail(self, command: Command) -> dict[str, Any]:
        return await Tail(self.client, self.world).run(command.get("count", 20))

    async def _race(self, command: Command) -> dict[str, Any]:
        seed = command.get("seed", self._settings.seed)
        return await self.races.run(command["kind"], command.get("times", 1), seed)

    async def _burst(self, command: Command) -> dict[str, Any]:
        """A storm of ``factor`` times the load's own rate, or of ``rate`` calls a second."""
        rate = command.get("rate") or command.get("factor", 10) * self._rate
        seconds = command.get("seconds", 30)
        return await run_storm(self.buyers, rate=rate, seconds=seconds, seed=self._settings.seed)

    # ---- what goes on meanwhile

    def _totals(self) -> dict[str, Any]:
        return {"totals": self.meter.totals(), "replays": self.replays.totals()}

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sample_forever(self) -> None:
        due = time.monotonic()
        while True:
            due += SAMPLE_SECONDS
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.log.flush()
            sample = self.meter.take_sample()
            replays = {"replays": self.replays.replayed, "different": self.replays.different_total}
            self._say({"sample": {**sample, **replays}})
