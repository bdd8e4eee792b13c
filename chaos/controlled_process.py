"""The processes that a run steers by JSON lines: the load, and what else asks and answers so."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from typing import Any


class ControlledProcess:
    """A child process that takes commands on standard input and answers on standard output.

    Lines without an ``id`` go to ``on_line``.  When the process ends, whoever waits for an answer
    gets ``ChildEnded``.
    """

    def __init__(self, name: str, on_line: Callable[[dict[str, Any]], None]) -> None:
        self._name = name
        self._on_line = on_line
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self, arguments: list[str], log: Any) -> None:
        """Starts ``python <arguments>``; what it says on standard error goes to ``log``."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            limit=16 * 1024 * 1024,
        )
        self._reading = asyncio.create_task(self._read())

    async def ask(self, do: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command, however long it takes; ChildRefused when it is an error."""
        assert self._process is not None and self._process.stdin is not None
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        line = json.dumps({"id": number, "do": do, **parameters})
        try:
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise ChildEnded(self._name) from error
        answered = await answer
        if "error" in answered:
            raise ChildRefused(answered["error"])
        return answered

    async def stop(self) -> None:
        """Ends it, if it has not ended by itself."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(10):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        if self._reading is not None:
            await self._reading

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            document: dict[str, Any] = json.loads(line)
            waiting = self._waiting.pop(document.get("id", 0), None)
            if waiting is None:
                self._on_line(document)
            elif not waiting.done():
                waiting.set_result(document)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ChildEnded(self._name))


class ChildRefused(RuntimeError):
    """The process could not do what it was told; the text says why."""


class ChildEnded(RuntimeError):
    """The process ended before it answered."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the {name} ended before it answered; its log says why")
