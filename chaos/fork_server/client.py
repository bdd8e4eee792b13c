"""Starts the fork server, forks function processes from it and reports their exits."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from chaos.controlled_process import ControlledProcess, JsonObject

READY_SECONDS = 60.0


class ForkedProcess:
    """A forked process; implements ``ProcessHandle`` of the local platform."""

    def __init__(self, pid: int, exit_code: asyncio.Future[int]) -> None:
        self.pid = pid
        self._exit_code = exit_code

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs."""
        return self._exit_code.result() if self._exit_code.done() else None

    async def wait(self) -> int:
        """The exit status, once the process has exited."""
        return await asyncio.shield(self._exit_code)

    def terminate(self) -> None:
        """Sends SIGTERM; does nothing when the process has exited."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


class ForkServer:
    """A process that has imported every function; use it as an asynchronous context manager.

    A process forked from it behaves like ``python -m shop.runtime`` after its imports.
    """

    def __init__(self, log_folder: Path) -> None:
        self._process = ControlledProcess("fork server", self._on_line)
        self._log = log_folder / "fork_server.log"
        self._ready = asyncio.Event()
        self._exit_codes: dict[int, asyncio.Future[int]] = {}

    async def __aenter__(self) -> ForkServer:
        with self._log.open("ab") as log:
            await self._process.start(["-m", "chaos.fork_server"], log)
        async with asyncio.timeout(READY_SECONDS):
            await self._ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._process.stop()

    async def fork(self, function: str, environment: Mapping[str, str], log: Path) -> ForkedProcess:
        """A process that serves the function; its output is appended to ``log``."""
        reply = await self._process.call(
            "fork", function=function, environment=dict(environment), log=str(log)
        )
        pid = int(reply["pid"])
        exit_code = self._exit_code_of(pid)
        exit_code.add_done_callback(lambda _: self._exit_codes.pop(pid, None))
        return ForkedProcess(pid, exit_code)

    def _on_line(self, line: JsonObject) -> None:
        if line.get("ready"):
            self._ready.set()
        elif "exited" in line:
            self._exit_code_of(line["exited"]).set_result(line["code"])

    def _exit_code_of(self, pid: int) -> asyncio.Future[int]:
        """The exit of a process may be reported before ``fork`` has received its pid."""
        return self._exit_codes.setdefault(pid, asyncio.get_running_loop().create_future())
