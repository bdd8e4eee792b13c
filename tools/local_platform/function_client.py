"""The interface through which broker and clock send requests to functions."""

from __future__ import annotations

from typing import Protocol

from tools.local_platform.http_messages import HttpRequest, HttpResponse


class FunctionClient(Protocol):
    """Sends requests to functions by name: the activator, or functions at fixed addresses."""

    async def send(self, function: str, request: HttpRequest) -> HttpResponse:
        """The function's response, or the platform's own 502, 503 or 504."""
        ...

    def processes_max(self, function: str) -> int:
        """The maximum number of processes of a function."""
        ...
