"""Functions that already run at fixed addresses, for example as containers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import urlsplit

from shop.primitives.spec import FunctionSpec
from tools.local_platform.http_messages import (
    ConnectionBroken,
    ConnectionPool,
    HttpRequest,
    HttpResponse,
)
from tools.local_platform.problem import problem
from tools.render.openfaas import grouped

HTTP_PORT = 80
NAME, GROUP = "{name}", "{group}"
HEALTH = b"/health/readiness"
HEALTH_SECONDS = 5.0


class RunningFunctions:
    """Sends requests to functions at addresses of a pattern; starts no process.

    ``{name}`` in the pattern is a function's name and ``{group}`` that of its group, as in
    ``stack.yml``, both with hyphens.  The pattern's path precedes the path of each request.
    """

    def __init__(self, specs: Iterable[FunctionSpec], pattern: str) -> None:
        """Raises ValueError unless the pattern is an http URL with ``{name}`` or ``{group}``."""
        parts = urlsplit(pattern)
        if parts.scheme != "http" or not (NAME in pattern or GROUP in pattern):
            raise ValueError(f"not an http URL with {NAME} or {GROUP}: {pattern!r}")
        if parts.query or parts.fragment:
            raise ValueError(f"a URL of functions has no query and no fragment: {pattern!r}")
        self._specs = {spec.name: spec for spec in specs}
        self._urls = _urls(tuple(self._specs.values()), pattern)
        self._connections = {name: _connections(url) for name, url in self._urls.items()}

    async def send(self, function: str, request: HttpRequest) -> HttpResponse:
        """The function's response; 503 when it cannot be reached, 502 or 504 when it fails."""
        path = request.path
        try:
            async with asyncio.timeout(self._specs[function].timeout_seconds):
                return await self._connections[function].send(self._addressed(function, request))
        except TimeoutError:
            return problem(504, "GATEWAY_TIMEOUT", f"{function} did not respond in time", path)
        except ConnectionBroken:
            return problem(502, "BAD_GATEWAY", f"{function} exited before it responded", path)
        except OSError:
            return problem(503, "UNAVAILABLE", f"{function} cannot be reached", path)

    async def unanswered(self, functions: Iterable[str]) -> dict[str, str]:
        """What each function's health check returned instead of 200, with its address."""
        names = tuple(functions)
        statuses = await asyncio.gather(*(self._health_of(name) for name in names))
        return {
            name: f"{status} from {self._urls[name]}"
            for name, status in zip(names, statuses, strict=True)
            if status != HTTPStatus.OK
        }

    async def _health_of(self, function: str) -> int:
        request = HttpRequest("GET", HEALTH, [(b"host", function.encode())])
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                return (await self.send(function, request)).status
        except TimeoutError:
            return HTTPStatus.GATEWAY_TIMEOUT.value

    def processes_max(self, function: str) -> int:
        """Always 1, because the number of containers behind an address is unknown."""
        assert function in self._specs
        return 1

    def _addressed(self, function: str, request: HttpRequest) -> HttpRequest:
        path = urlsplit(self._urls[function]).path
        return replace(request, target=path.encode() + request.target) if path else request

    def close(self) -> None:
        """Closes all idle connections."""
        for connections in self._connections.values():
            connections.close()


def _urls(specs: tuple[FunctionSpec, ...], pattern: str) -> dict[str, str]:
    """The address of each function, without a slash at its end."""
    return {
        spec.name: pattern.replace(NAME, spec.name.replace("_", "-"))
        .replace(GROUP, group)
        .rstrip("/")
        for group, members in grouped(specs).items()
        for spec in members
    }


def _connections(url: str) -> ConnectionPool:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return ConnectionPool(parts.hostname, parts.port or HTTP_PORT)
