"""Child processes that the run controls with commands over JSON lines."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from typing import IO, Any

# Any: commands and results are JSON whose members differ by command; both ends are in chaos/.
JsonObject = dict[str, Any]

STOP_SECONDS = 10
LINE_BYTES_MAX = 16 * 1024 * 1024


class CommandFailed(RuntimeError):
    """The process could not execute a command; the text is its error message."""


class ProcessExited(RuntimeError):
    """The process exited before it replied."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the {name} process exited before it replied; see its log")


class ControlledProcess:
    """A child process that reads commands from standard input and replies on standard output.

    Lines without the ``id`` of a command are passed to ``on_line``.
    """

    def __init__(self, name: str, on_line: Callable[[JsonObject], None]) -> None:
        self._name = name
        self._on_line = on_line
        self._pending: dict[int, asyncio.Future[JsonObject]] = {}
        self._last_id = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, arguments: list[str], log: IO[bytes] | None) -> None:
        """Starts ``python <arguments>`` with standard error redirected to ``log``."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            limit=LINE_BYTES_MAX,
        )
        self._reader = asyncio.create_task(self._read())

    async def call(self, do: str, **parameters: object) -> JsonObject:
        """The result of one command, without a time limit.

        Raises CommandFailed when the process reports an error, ProcessExited when it has exited.
        """
        assert self._process is not None and self._process.stdin is not None
        self._last_id += 1
        command_id = self._last_id
        result: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        self._pending[command_id] = result
        line = json.dumps({"id": command_id, "do": do, **parameters})
        try:
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise ProcessExited(self._name) from error
        reply = await result
        if "error" in reply:
            raise CommandFailed(reply["error"])
        return reply

    async def stop(self) -> None:
        """Terminates the process if it is still running, and kills it after ten seconds."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            document: JsonObject = json.loads(line)
            pending = self._pending.pop(document.get("id", 0), None)
            if pending is None:
                self._on_line(document)
            elif not pending.done():
                pending.set_result(document)
        for pending in self._pending.values():
            if not pending.done():
                pending.set_exception(ProcessExited(self._name))
