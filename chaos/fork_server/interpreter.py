"""Steers the warm interpreter: forks function processes and hears of their ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from chaos.controlled_process import ControlledProcess

READY_SECONDS = 60.0


class Forked:
    """A forked process, as the platform's ``Child`` wants it."""

    def __init__(self, pid: int, ended: asyncio.Future[int]) -> None:
        self.pid = pid
        self._ended = ended

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Waits for its end."""
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        """Asks it to finish."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


class WarmInterpreter:
    """An interpreter that has imported every function; use as an async context manager.

    A process that is forked from it is the one that ``python -m shop.runtime`` would be, from the
    moment on at which its imports are done.
    """

    def __init__(self, folder: Path) -> None:
        self._steered = ControlledProcess("warm interpreter", self._hear)
        self._folder = folder
        self._ready = asyncio.Event()
        self._ends: dict[int, asyncio.Future[int]] = {}

    async def __aenter__(self) -> WarmInterpreter:
        with (self._folder / "warm.log").open("ab") as log:
            await self._steered.start(["-m", "chaos.fork_server"], log)
        async with asyncio.timeout(READY_SECONDS):
            await self._ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._steered.stop()

    async def fork(self, function: str, environment: Mapping[str, str], log: Path) -> Forked:
        """A process that serves the function; its output is appended to ``log``."""
        answer = await self._steered.ask(
            "fork", function=function, environment=dict(environment), log=str(log)
        )
        pid = int(answer["pid"])
        ended = self._end_of(pid)
        ended.add_done_callback(lambda _: self._ends.pop(pid, None))
        return Forked(pid, ended)

    def _hear(self, line: dict[str, Any]) -> None:
        if line.get("ready"):
            self._ready.set()
        elif "ended" in line:
            self._end_of(line["ended"]).set_result(line["code"])

    def _end_of(self, pid: int) -> asyncio.Future[int]:
        """Its end may be told before whoever asked for it has heard its number."""
        return self._ends.setdefault(pid, asyncio.get_running_loop().create_future())
