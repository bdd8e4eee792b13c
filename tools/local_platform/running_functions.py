"""Functions that already run at fixed addresses, for example as containers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from shop.primitives.spec import FunctionSpec
from tools.local_platform.http_messages import (
    ConnectionBroken,
    ConnectionPool,
    HttpRequest,
    HttpResponse,
)
from tools.local_platform.problem import problem

HTTP_PORT = 80
PLACEHOLDER = "{name}"


class RunningFunctions:
    """Sends requests to ``http://{name}:8080``, with hyphens in the name; starts no process."""

    def __init__(self, specs: Iterable[FunctionSpec], pattern: str) -> None:
        """Raises ValueError unless the pattern is an http URL with ``{name}``."""
        if urlsplit(pattern).scheme != "http" or PLACEHOLDER not in pattern:
            raise ValueError(f"not an http URL with {PLACEHOLDER}: {pattern!r}")
        self._specs = {spec.name: spec for spec in specs}
        self._connections = {name: _connections(pattern, name) for name in self._specs}

    async def send(self, function: str, request: HttpRequest) -> HttpResponse:
        """The function's response; 503 when it cannot be reached, 502 or 504 when it fails."""
        path = request.path
        try:
            async with asyncio.timeout(self._specs[function].timeout_seconds):
                return await self._connections[function].send(request)
        except TimeoutError:
            return problem(504, "GATEWAY_TIMEOUT", f"{function} did not respond in time", path)
        except ConnectionBroken:
            return problem(502, "BAD_GATEWAY", f"{function} exited before it responded", path)
        except OSError:
            return problem(503, "UNAVAILABLE", f"{function} cannot be reached", path)

    def processes_max(self, function: str) -> int:
        """Always 1, because the number of containers behind an address is unknown."""
        assert function in self._specs
        return 1

    def close(self) -> None:
        """Closes all idle connections."""
        for connections in self._connections.values():
            connections.close()


def _connections(pattern: str, function: str) -> ConnectionPool:
    parts = urlsplit(pattern.replace(PLACEHOLDER, function.replace("_", "-")))
    assert parts.hostname is not None
    return ConnectionPool(parts.hostname, parts.port or HTTP_PORT)
