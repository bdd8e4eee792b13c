"""Functions that stand at fixed addresses, as containers do: reached, not started or stopped."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import urlsplit

from shop.primitives.spec import FunctionSpec
from tools.local_platform.http_messages import (
    Connection,
    ConnectionBroken,
    HttpRequest,
    HttpResponse,
    connect,
)
from tools.local_platform.problem import problem

HTTP_PORT = 80
PLACEHOLDER = "{name}"


class RunningFunctions:
    """Every function at its address: ``http://{name}:8080``, the name with hyphens."""

    def __init__(self, specs: Iterable[FunctionSpec], pattern: str) -> None:
        """Raises ValueError for a pattern that is no http URL, or the same for every function."""
        if urlsplit(pattern).scheme != "http" or PLACEHOLDER not in pattern:
            raise ValueError(f"not an http URL with {PLACEHOLDER}: {pattern!r}")
        self._specs = {spec.name: spec for spec in specs}
        self._addresses = {name: _address(pattern, name) for name in self._specs}
        self._kept: dict[str, list[Connection]] = defaultdict(list)

    async def send(self, function: str, message: HttpRequest) -> HttpResponse:
        """The function's answer; 503 when it cannot be reached, 502 or 504 when it fails."""
        timeout_seconds = self._specs[function].timeout_seconds
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._ask(function, message)
        except TimeoutError:
            return problem(
                504, "GATEWAY_TIMEOUT", f"{function} did not answer in time", message.path
            )
        except ConnectionBroken:
            return problem(502, "BAD_GATEWAY", f"{function} ended before it answered", message.path)
        except OSError:
            return problem(503, "UNAVAILABLE", f"{function} cannot be reached", message.path)

    def processes_max(self, function: str) -> int:
        """One: whoever runs the containers may add more behind the name."""
        assert function in self._specs
        return 1

    def close(self) -> None:
        """Closes every connection."""
        for connections in self._kept.values():
            for connection in connections:
                connection.close()

    async def _ask(self, function: str, message: HttpRequest) -> HttpResponse:
        connection = await self._connection(function)
        answer = await connection.ask(message)
        if connection.is_open:
            self._kept[function].append(connection)
        return answer

    async def _connection(self, function: str) -> Connection:
        kept = self._kept[function]
        while kept:
            connection = kept.pop()
            if connection.is_open:
                return connection
        host, port = self._addresses[function]
        return await connect(port, host)


def _address(pattern: str, function: str) -> tuple[str, int]:
    parts = urlsplit(pattern.replace(PLACEHOLDER, function.replace("_", "-")))
    assert parts.hostname is not None
    return parts.hostname, parts.port or HTTP_PORT
