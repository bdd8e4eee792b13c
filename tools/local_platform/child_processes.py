"""Child processes that cannot outlive the platform.

Each child leads its own session: Ctrl-C in the terminal signals only the platform, and killing the
child's process group also kills its descendants.  A watchdog process at the other end of a pipe
kills every group that is still registered when the pipe closes, even after a kill of the platform.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from shop.primitives.clock import utc_now

WATCHDOG = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class ProcessHandle(Protocol):
    """The part of ``asyncio.subprocess.Process`` that is used here."""

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        ...

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        ...

    async def wait(self) -> int:
        """Waits for the exit and returns the status."""
        ...

    def terminate(self) -> None:
        """Sends SIGTERM."""
        ...


class ChildProcesses:
    """Starts processes and registers them with the watchdog; use as a context manager."""

    def __init__(self) -> None:
        self._watchdog: subprocess.Popen[str] | None = None

    def __enter__(self) -> ChildProcesses:
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WATCHDOG],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._watchdog is not None
        self._watchdog.communicate(timeout=10)

    async def start(
        self, command: list[str], environment: Mapping[str, str], log: Path
    ) -> ChildProcess:
        """Starts one process; its output is appended to ``log``."""
        log.touch()
        offset = log.stat().st_size
        process = await self._spawn(command, environment, log)
        self._notify_watchdog(f"+{process.pid}")
        return ChildProcess(process, self, log, offset)

    async def _spawn(
        self, command: list[str], environment: Mapping[str, str], log: Path
    ) -> ProcessHandle:
        with log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *command,
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def unregister(self, pid: int) -> None:
        """Removes an ended group from the watchdog, because the kernel may reuse its id."""
        self._notify_watchdog(f"-{pid}")

    def _notify_watchdog(self, line: str) -> None:
        assert self._watchdog is not None and self._watchdog.stdin is not None
        print(line, file=self._watchdog.stdin, flush=True)


class ChildProcess:
    """One started process, leader of its group."""

    def __init__(
        self, process: ProcessHandle, children: ChildProcesses, log: Path, offset: int
    ) -> None:
        self.pid = process.pid
        self.log = log
        # set by fault injection, so that the exit is not counted as a failed start
        self.is_crash_expected = False
        self._process = process
        self._offset = offset
        self.ended = asyncio.create_task(self._wait(children))

    async def _wait(self, children: ChildProcesses) -> int:
        code = await self._process.wait()
        self.signal_group(signal.SIGKILL)  # descendants that are still running
        children.unregister(self.pid)
        return code

    def terminate(self) -> None:
        """Sends SIGTERM to the process, not to its group."""
        if self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """Sends SIGKILL to the process and its descendants."""
        if self._process.returncode is None:
            self.signal_group(signal.SIGKILL)

    def signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (
            ProcessLookupError,
            PermissionError,
        ):  # the group has ended (macOS: PermissionError)
            return

    async def stop(self, grace_seconds: float) -> None:
        """Sends SIGTERM, waits up to ``grace_seconds`` for the exit, then sends SIGKILL."""
        self.terminate()
        done, _ = await asyncio.wait([self.ended], timeout=grace_seconds)
        if not done:
            self.kill()
            await asyncio.wait([self.ended])

    def log_line(self, message: str, **fields: object) -> None:
        """Appends a line to the log of the process, in the form of the process's own lines."""
        line = {"at": utc_now().isoformat(), "message": message, **fields}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def log_tail(self, bytes_max: int = 2000) -> str:
        """The last bytes that this process has written to its log."""
        with self.log.open("rb") as file:
            file.seek(self._offset)
            return file.read()[-bytes_max:].decode("utf-8", "replace").rstrip()
