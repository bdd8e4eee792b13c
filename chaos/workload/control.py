"""The commands of the workload process.

A command is one JSON line ``{"id": …, "do": …}``.  Its result is printed with the same id when it
is finished; commands run concurrently.  A line ``{"sample": …}`` is printed each second.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from uuid import uuid4

from chaos.controlled_process import JsonObject
from chaos.workload.arrivals import MIX, Pace, run_load
from chaos.workload.client import Client
from chaos.workload.client_log import ClientLog
from chaos.workload.customers import Customers
from chaos.workload.dataset import create_dataset
from chaos.workload.liveness import LivenessCheck
from chaos.workload.metrics import WorkloadMetrics
from chaos.workload.operations import Calls
from chaos.workload.races import Races
from chaos.workload.replays import Replays
from chaos.workload.surge import run_surge

SAMPLE_SECONDS = 1.0
# The usual rate when no load has run before a surge.
DEFAULT_RATE = 20.0


@dataclass(frozen=True)
class Settings:
    """The parameters of a workload; ``log`` is the file of the clients' log."""

    url: str
    seed: int
    orders: int
    seconds: float
    log: Path
    accounts: int = 120


class WorkloadControl:
    """Executes commands; ``print_line`` writes one JSON line."""

    def __init__(self, settings: Settings, print_line: Callable[[JsonObject], None]) -> None:
        self._settings = settings
        self._print = print_line
        self.metrics = WorkloadMetrics()
        self.log = ClientLog(settings.log)
        self.client = Client(
            settings.url,
            calls=Calls(uuid4().hex[:8]),
            log=self.log,
            metrics=self.metrics,
            seed=settings.seed,
        )
        self._rate = DEFAULT_RATE
        self._pace: Pace | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._commands: dict[str, Callable[[JsonObject], Awaitable[JsonObject]]] = {
            "load": self._load,
            "throttle": self._throttle,
            "replay": self._replay,
            "check_liveness": self._check_liveness,
            "race": self._race,
            "surge": self._surge,
        }

    async def open(self) -> None:
        """Creates the dataset and starts to print samples.  Raises DatasetError, LoginFailed."""
        settings = self._settings
        self.dataset = await create_dataset(
            self.client, accounts=settings.accounts, seed=settings.seed
        )
        self.customers = Customers(self.client, self.dataset)
        random = Random(f"{settings.seed} replays")  # noqa: S311
        self.replays = Replays(self.client, self.dataset.accounts, random)
        self.client.on_finished = self.replays.add_finished
        self.races = Races(self.client, self.dataset)
        self._start(self._print_samples())
        self._print({"ready": True, "accounts": len(self.dataset.customers)})

    async def execute_all(self, lines: asyncio.StreamReader) -> None:
        """Executes commands until ``stop`` or the end of input."""
        while line := await lines.readline():
            try:
                command: JsonObject = json.loads(line)
                name, command_id = command["do"], command["id"]
            except (ValueError, KeyError, TypeError) as error:
                self._print({"error": f"not a command: {error!r}"})
                continue
            if name == "stop":
                await self.close()
                self._print({"id": command_id, "totals": self.metrics.totals()})
                return
            self._start(self._execute(command_id, name, command))
        await self.close()

    async def close(self) -> None:
        """Cancels running commands and commits the log."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.customers.close()
        self.client.close()
        self.log.close()

    async def _execute(self, command_id: str | int, name: str, command: JsonObject) -> None:
        if name not in self._commands:
            self._print({"id": command_id, "error": f"unknown command {name!r}"})
            return
        try:
            result = await self._commands[name](command)
        except Exception as error:  # the controlling process would wait for a result forever
            self._print({"id": command_id, "error": f"{type(error).__name__}: {error}"})
            raise
        self.log.flush()
        self._print({"id": command_id, **result})

    # ---- the commands

    async def _load(self, command: JsonObject) -> JsonObject:
        """Places orders; ``orders`` and ``seconds`` of the command replace the settings.

        With ``actions`` customers do nothing else.
        """
        self.customers.mix = {name: MIX[name] for name in command.get("actions", MIX)}
        if "actions" not in command:
            await self.dataset.offer_coupons()
        orders = command.get("orders", self._settings.orders)
        seconds = command.get("seconds", self._settings.seconds)
        before = self.metrics.orders_total
        began = time.monotonic()
        pace = Pace(orders, seconds, lambda: self.metrics.orders_total - before, began)
        self._pace = pace
        replaying = asyncio.create_task(self.replays.replay_due())
        try:
            await run_load(pace, self.customers.act, seed=self._settings.seed)
            await self.customers.finish()
        finally:
            replaying.cancel()
        self._rate = pace.started_actions / (time.monotonic() - began)
        return {"accepted": pace.accepted(), "totals": self.metrics.totals()}

    async def _throttle(self, command: JsonObject) -> JsonObject:
        """Continues the load at a ``share`` of its rate."""
        if self._pace is not None:
            self._pace.share = float(command["share"])
        return {}

    async def _replay(self, command: JsonObject) -> JsonObject:
        random = Random(f"{command.get('seed', self._settings.seed)} replay")  # noqa: S311
        return await self.replays.replay_share(command["fraction"], random)

    async def _check_liveness(self, command: JsonObject) -> JsonObject:
        return await LivenessCheck(self.client, self.dataset).run(command["count"])

    async def _race(self, command: JsonObject) -> JsonObject:
        return await self.races.run(command["race"], command["times"], self._settings.seed)

    async def _surge(self, command: JsonObject) -> JsonObject:
        """Sends ``factor`` times the rate of the last load."""
        rate = command["factor"] * self._rate
        return await run_surge(
            self.customers, rate=rate, seconds=command["seconds"], seed=self._settings.seed
        )

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _print_samples(self) -> None:
        due = time.monotonic()
        while True:
            due += SAMPLE_SECONDS
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.log.flush()
            sample = self.metrics.take_sample()
            self._print({"sample": {**sample, "different": self.replays.different_total}})
